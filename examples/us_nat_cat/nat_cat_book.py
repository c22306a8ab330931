"""The reinsurer's book of the example: deals with their layers, groups, and the retro programs that protect it.

Attachments and limits come from each subject business's own loss curve; premiums from its expected loss with loads.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from itertools import pairwise
from typing import Any

import numpy as np
from nat_cat_market import Cedant, EventLosses, Market, rng, subject_losses
from nat_cat_record import CROP_PERILS, PERILS

from riskmill.models.catalogue import SimulateYearsParams, simulate_years
from riskmill.models.occurrences import F64, I64

PROPERTY = tuple(peril for peril in PERILS if peril not in CROP_PERILS)
#: Perils of the subject businesses that property cedants reinsure, and how often each is the subject of a deal.
COVERS = {
    "all perils": (PROPERTY, 0.55),
    "named storm": (("tropical_cyclone",), 0.17),
    "storm excluding named": (("severe_storm", "winter_storm"), 0.18),
    "wildfire": (("wildfire",), 0.04),
    "flood": (("flood",), 0.06),
}
#: Lines of business, and the part of a cedant's losses that falls on each.
LINES = {"all lines": 1.0, "homeowners": 0.55, "commercial property": 0.35, "farm and auto": 0.10}

#: Kinds of deals, and how much of the book each is.
DEAL_KINDS = {"CXL": 0.885, "QS": 0.035, "AXL": 0.04, "SL": 0.04}
#: Layers of a catastrophe tower that we sign: 1 to 4.
LAYERS_SIGNED = (0.54, 0.30, 0.11, 0.05)
#: Reinstatement terms of catastrophe layers, and how often each is agreed.
REINSTATEMENTS = {"1": 0.72, "1;1": 0.10, "0;1": 0.05, "0": 0.05, "none": 0.08}
#: Inceptions, and how much of the book renews then.
INCEPTIONS = {"2024-01-01": 0.55, "2024-04-01": 0.08, "2024-06-01": 0.22, "2024-07-01": 0.15}

#: An ELT has at most this many events, and those more often exceeded than this (a year) only where small ones count.
MOST_EVENTS = 2_000
LEAST_LOSS = 10_000.0
MOST_OFTEN = {"CXL": 0.3, "QS": 2.0, "AXL": 2.0, "SL": 2.0}

#: Premium = (expected loss + this x standard deviation) / (1 - brokerage), then up to some per cent of luck.
RISK_LOAD = 0.12
#: A quota share also pays the losses of small events, which its ELT leaves out.
QUOTA_SHARE_LOAD = 1.25
#: Years simulated for prices of covers that depend on a whole year.
PRICING_YEARS = 5_000
PRICING_SEED = 7

BUSINESS_UNITS = {
    "PC-SE": "Property Cat Southeast",
    "PC-NE": "Property Cat Northeast",
    "PC-CW": "Property Cat Central and West",
    "PC-NW": "Property Cat Nationwide",
    "QS": "Quota Share",
    "AGG": "Aggregate and Stop Loss",
    "SPEC": "Specialty",
}
DIVISIONS = {
    "PROPCAT": ("Property Catastrophe", ("PC-SE", "PC-NE", "PC-CW", "PC-NW")),
    "STRUCT": ("Proportional and Aggregate", ("QS", "AGG")),
}
TOP = "ALL"

type Row = dict[str, Any]


@dataclass(slots=True)
class Subject:
    """One subject business: the events in its ELT (positions in the catalogue, largest loss first)."""

    elt_id: str
    cedant: Cedant
    cover: str
    event: I64
    loss: F64
    #: annual rate of a loss at least as large, by event
    exceeded: F64
    rate: F64

    def at(self, return_period: float) -> float:
        """Return the event loss of a return period (Poisson), the largest one where the ELT does not reach it."""
        position = np.searchsorted(self.exceeded, -np.log1p(-1 / return_period))
        return float(self.loss[min(int(position), self.loss.size - 1)])

    @property
    def least(self) -> float:
        """The smallest loss of the ELT: below it events are left out."""
        return float(self.loss[-1])


@dataclass(slots=True)
class Book:
    """The tables of the portfolio folder as rows, the ELTs as columns, and our loss by event for each unit."""

    deals: list[Row] = field(default_factory=list)
    layers: list[Row] = field(default_factory=list)
    groups: list[Row] = field(default_factory=list)
    outwards: list[Row] = field(default_factory=list)
    elt_ids: list[str] = field(default_factory=list)
    elts: list[dict[str, F64 | I64]] = field(default_factory=list)
    by_event: dict[str, F64] = field(default_factory=dict)


def make_book(market: Market, cedants: Sequence[Cedant], deals: int, line: float) -> Book:
    """Return a book of `deals` deals whose typical line on a layer is `line` USD."""
    maker = _Maker(market, line)
    random = rng("deals")
    crop = [cedant for cedant in cedants if cedant.kind == "crop"]
    property_cedants = [cedant for cedant in cedants if cedant.kind != "crop"]
    # Everyone buys; larger cedants buy more. Each cedant comes once before any comes again.
    weight = np.array([{"national": 5.0, "super_regional": 3.0}.get(cedant.kind, 1.0) for cedant in property_cedants])
    while len(maker.book.deals) < deals:
        kind = str(random.choice(list(DEAL_KINDS), p=list(DEAL_KINDS.values())))
        number = len(maker.book.deals)
        if kind == "SL" and crop and random.random() < 0.6:
            cedant = crop[number % len(crop)]
        elif number < len(property_cedants):
            cedant = property_cedants[number]
        else:
            cedant = property_cedants[int(random.choice(len(property_cedants), p=weight / weight.sum()))]
        maker.add_deal(kind, cedant, rng("deal", number))
    _add_groups(maker.book)
    _add_outwards(maker)
    _drop_unused_elts(maker.book)
    return maker.book


def two_digits(amount: float) -> float:
    """Round to two significant digits, as limits are."""
    return float(f"{amount:.1e}")


class _Maker:
    """Makes deals one by one, each subject business's ELT once."""

    def __init__(self, market: Market, line: float) -> None:
        self.market = market
        self.line = line
        self.book = Book(by_event={unit: np.zeros(market.event.size) for unit in BUSINESS_UNITS})
        self.subjects: dict[tuple[int, str, str, str, str], Subject | None] = {}
        years = simulate_years(
            SimulateYearsParams(seed=PRICING_SEED, first_trial=0, trials=PRICING_YEARS), [market.catalogue()]
        )
        self.trial, self.occurring = years["trial"], years["event"].astype(np.int64) - 1

    def add_deal(self, kind: str, cedant: Cedant, random: np.random.Generator) -> None:
        """Add one deal, unless the cedant has no business that it could cover."""
        subject = self._subject(kind, cedant, random)
        if subject is None:
            return
        number = len(self.book.deals) + 1
        deal_id = f"D{number:05d}"
        brokerage = float(random.choice([0.075, 0.10, 0.125]))
        make: Callable[[Subject, float, np.random.Generator], Iterator[Row]] = {
            "CXL": self._tower,
            "QS": self._quota_share,
            "AXL": self._aggregate,
            "SL": self._stop_loss,
        }[kind]
        layers = list(make(subject, brokerage, random))
        if not layers:
            return
        unit = _business_unit(kind, subject)
        begin = date.fromisoformat(str(random.choice(list(INCEPTIONS), p=list(INCEPTIONS.values()))))
        self.book.deals.append(
            {
                "deal_id": deal_id,
                "cedant": cedant.name,
                "business_unit": BUSINESS_UNITS[unit],
                "inception": begin,
                "expiry": begin.replace(year=begin.year + 1) - timedelta(days=1),
                "currency": "USD",
                "brokerage": brokerage,
                "elt_id": subject.elt_id,
            }
        )
        self.book.groups.append({"group_id": unit, "member_type": "deal", "member_id": deal_id, "group_name": ""})
        for position, layer in enumerate(layers, start=1):
            self.book.layers.append({"layer_id": f"{deal_id}-L{position}", "deal_id": deal_id, **layer})
            # Annual terms are left out: this is for choosing the retro's attachments.
            loss = layer.get("ceded_share", 1.0) * subject.loss
            loss = np.minimum(np.maximum(loss - layer.get("occurrence_retention", 0.0), 0.0), _limit(layer))
            if kind in ("CXL", "QS"):
                self.book.by_event[unit][subject.event] += loss * layer["participation"]

    def _subject(self, kind: str, cedant: Cedant, random: np.random.Generator) -> Subject | None:
        """Draw what a deal covers: perils, zone and line of business; make its ELT where there is none yet."""
        zone, line = "all states", "all lines"
        if cedant.kind == "crop":
            cover = "crop"
        elif kind in ("AXL", "SL"):
            cover = "storm excluding named"
        elif kind == "QS":
            cover = "all perils"
        else:
            cover = str(random.choice(list(COVERS), p=[part for _, part in COVERS.values()]))
        if cedant.kind in ("national", "super_regional") and (kind != "CXL" or random.random() < 0.5):
            zones = sorted({self.market.states.zones[state] for state in cedant.states})
            zone = str(random.choice(zones))
        if cedant.kind != "crop" and random.random() < 0.12:
            line = str(random.choice(list(LINES)[1:]))
        density = "dense" if MOST_OFTEN[kind] > 1 else "sparse"
        key = (cedant.number, cover, zone, line, density)
        if key not in self.subjects:
            perils = CROP_PERILS if cover == "crop" else COVERS[cover][0]
            zones_of = np.array([self.market.states.zones[state] for state in cedant.states])
            states = np.flatnonzero((zones_of == zone) | (zone == "all states"))
            losses = subject_losses(self.market, cedant, perils, states, LINES[line])
            self.subjects[key] = self._add_elt(cedant, cover, losses, MOST_OFTEN[kind])
        return self.subjects[key]

    def _add_elt(self, cedant: Cedant, cover: str, losses: EventLosses, most_often: float) -> Subject | None:
        """Keep the events that matter: the largest, up to a number of them and to a frequency. None: too few."""
        loss = np.round(losses.loss, -3)
        hit = np.flatnonzero(loss >= LEAST_LOSS)
        if hit.size > MOST_EVENTS:
            # Only what may be kept needs sorting.
            hit = hit[loss[hit] >= np.partition(loss[hit], -MOST_EVENTS)[-MOST_EVENTS]]
        event = hit[np.argsort(-loss[hit], kind="stable")]
        exceeded = np.cumsum(self.market.rate[event])
        event = event[: min(MOST_EVENTS, int(np.searchsorted(exceeded, most_often)) + 1)]
        if event.size < 20:
            return None
        elt_id = f"E{len(self.book.elts) + 1:05d}"
        mean = loss[event]
        # The surer the damage, the smaller its spread relative to the mean.
        relative = 0.2 + 0.6 * (mean / mean[0]) ** -0.1
        sd = np.minimum(mean * np.minimum(relative, 1.2), 1.2 * mean)
        order = np.argsort(event)
        self.book.elt_ids.append(elt_id)
        self.book.elts.append(
            {
                "event_id": self.market.event[event][order],
                "mean_loss": mean[order],
                "sd_independent": np.round(0.6 * sd[order], -2),
                "sd_correlated": np.round(0.4 * sd[order], -2),
                "exposure": np.maximum(np.round(losses.exposure[event][order], -3), 4 * mean[order]),
            }
        )
        return Subject(elt_id, cedant, cover, event, mean, np.cumsum(self.market.rate[event]), self.market.rate[event])

    def _tower(self, subject: Subject, brokerage: float, random: np.random.Generator) -> Iterator[Row]:
        """Yield the layers that we signed of a catastrophe tower: neighbours, from a low or a high attachment."""
        attach = float(np.exp(random.uniform(np.log(6), np.log(25))))
        if random.random() < 0.06:
            attach = float(random.uniform(4, 6))  # a working layer
        top = float(np.exp(random.uniform(np.log(max(60.0, 3 * attach)), np.log(250))))
        slices = int(random.integers(2, 6)) + (3 if subject.cedant.kind == "national" else 0)
        periods = np.exp(np.linspace(np.log(attach), np.log(top), slices + 1))
        signed = min(1 + int(np.searchsorted(np.cumsum(LAYERS_SIGNED), random.random())), slices)
        first = int(random.integers(0, slices - signed + 1))
        edges = [two_digits(max(subject.at(float(period)), subject.least)) for period in periods[first:][: signed + 1]]
        for low, high in pairwise(edges):
            limit = two_digits(high - low)
            if limit < 250_000:
                continue
            reinstatements = str(random.choice(list(REINSTATEMENTS), p=list(REINSTATEMENTS.values())))
            loss = np.minimum(np.maximum(subject.loss - low, 0.0), limit)
            mean, sd = _poisson_moments(subject.rate, loss)
            # A reinstatement at 100% brings premium in about as many years as it is used.
            charges = [float(charge) for charge in reinstatements.split(";") if charge != "none"]
            paid = charges[0] * mean / limit if charges else 0.0
            yield {
                "type": "CXL",
                "occurrence_retention": low,
                "occurrence_limit": limit,
                "reinstatements": reinstatements,
                "premium": _premium(mean / (1 + paid), sd, brokerage, random),
                "participation": self._participation(limit, random),
            }

    def _quota_share(self, subject: Subject, brokerage: float, random: np.random.Generator) -> Iterator[Row]:
        share = float(random.integers(2, 9)) * 0.05
        limit = two_digits(share * subject.at(float(random.uniform(100, 250))))
        mean, sd = _poisson_moments(subject.rate, np.minimum(share * subject.loss, limit))
        # No aggregate limit: the event limit is what the reinsurer's line is measured by.
        yield {
            "type": "QS",
            "ceded_share": round(share, 2),
            "occurrence_limit": limit,
            "premium": _premium(QUOTA_SHARE_LOAD * mean, sd, brokerage, random),
            "participation": self._participation(limit, random),
        }

    def _aggregate(self, subject: Subject, brokerage: float, random: np.random.Generator) -> Iterator[Row]:
        """Yield an aggregate excess of loss on events above a small deductible, capped each."""
        retention = two_digits(max(subject.at(float(random.uniform(1.3, 2.0))), subject.least))
        cap = two_digits(subject.at(float(random.uniform(20, 40))) - retention)
        if cap <= 0:
            return
        annual = self._annual(subject, np.minimum(np.maximum(subject.loss - retention, 0.0), cap))
        low = two_digits(_return_level(annual, float(random.uniform(8, 15))))
        limit = two_digits(_return_level(annual, float(random.uniform(35, 80))) - low)
        if low <= 0 or limit < 250_000:
            return
        recovery = np.minimum(np.maximum(annual - low, 0.0), limit)
        yield {
            "type": "AXL",
            "occurrence_retention": retention,
            "occurrence_limit": cap,
            "aggregate_deductible": low,
            "aggregate_limit": limit,
            "premium": _premium(float(recovery.mean()), float(recovery.std()), brokerage, random),
            "participation": self._participation(limit, random),
        }

    def _stop_loss(self, subject: Subject, brokerage: float, random: np.random.Generator) -> Iterator[Row]:
        """Yield a stop loss, its ratios to the cedant's net premium income (GNPI) in whole per cent."""
        annual = self._annual(subject, subject.loss)
        gnpi = two_digits(float(annual.mean()) / random.uniform(0.40, 0.60))
        attachment = round(_return_level(annual, float(random.uniform(7, 12))) / gnpi, 2)
        ratio = round(_return_level(annual, float(random.uniform(25, 60))) / gnpi, 2) - attachment
        if ratio < 0.05 or ratio * gnpi < 250_000:
            return
        limit = ratio * gnpi
        recovery = np.minimum(np.maximum(annual - attachment * gnpi, 0.0), limit)
        yield {
            "type": "SL",
            "gnpi": gnpi,
            "attachment_ratio": attachment,
            "limit_ratio": round(ratio, 2),
            "premium": _premium(float(recovery.mean()), float(recovery.std()), brokerage, random),
            "participation": self._participation(limit, random),
        }

    def _annual(self, subject: Subject, loss: F64) -> F64:
        dense = np.zeros(self.market.event.size)
        dense[subject.event] = loss
        return self.annual(dense)

    def annual(self, by_event: F64) -> F64:
        """Return the annual loss of each pricing year from a loss by event."""
        return np.bincount(self.trial, by_event[self.occurring], minlength=PRICING_YEARS)

    def _participation(self, limit: float, random: np.random.Generator) -> float:
        """Return our share, 2% to 30% in half per cents: larger of small layers, as lines are of a similar size."""
        line = self.line * float(np.exp(0.7 * random.standard_normal()))
        offered = float(random.uniform(0.05, 0.30))
        return round(max(min(line / limit, offered), 0.02) * 200) / 200


def _limit(layer: Row) -> float:
    limit = layer.get("occurrence_limit")
    return float("inf") if limit is None else float(limit)


def _poisson_moments(rate: F64, loss: F64) -> tuple[float, float]:
    """Return mean and standard deviation of a year's sum if events were Poisson."""
    return float((rate * loss).sum()), float(np.sqrt((rate * loss * loss).sum()))


def _premium(mean: float, sd: float, brokerage: float, random: np.random.Generator) -> float:
    """Return a premium at 100%: expected loss and a risk load, grossed up, and the luck of negotiation."""
    luck = float(np.exp(0.12 * random.standard_normal()))
    return max(round((mean + RISK_LOAD * sd) / (1 - brokerage) * luck, -3), 1000.0)


def _return_level(annual: F64, return_period: float) -> float:
    falling = np.sort(annual)[::-1]
    return float(falling[int(annual.size / return_period) - 1])


def _business_unit(kind: str, subject: Subject) -> str:
    if subject.cover in ("crop", "wildfire", "flood"):
        return "SPEC"
    if kind == "QS":
        return "QS"
    if kind in ("AXL", "SL"):
        return "AGG"
    if subject.cedant.kind == "national":
        return "PC-NW"
    zones = {"Southeast": "PC-SE", "Northeast": "PC-NE"}
    return zones.get(subject.cedant.zone, "PC-CW")


def _add_groups(book: Book) -> None:
    """Name the units and put them below divisions, and these with the other units below the top group."""
    for row in book.groups:
        row["group_name"] = BUSINESS_UNITS[row["group_id"]]
    filled = {row["group_id"] for row in book.groups}
    below = {unit for _, units in DIVISIONS.values() for unit in units}
    members = [
        (division, name, unit) for division, (name, units) in DIVISIONS.items() for unit in units if unit in filled
    ]
    members += [(TOP, "Whole Account", member) for member in (*DIVISIONS, *sorted(filled - below))]
    book.groups += [
        {"group_id": group, "member_type": "group", "member_id": member, "group_name": name}
        for group, name, member in members
    ]


def _drop_unused_elts(book: Book) -> None:
    """Drop the ELTs of subject businesses whose layers would have been too small to sign."""
    used = {row["elt_id"] for row in book.deals}
    kept = [(name, elt) for name, elt in zip(book.elt_ids, book.elts, strict=True) if name in used]
    book.elt_ids, book.elts = [name for name, _ in kept], [elt for _, elt in kept]


def _add_outwards(maker: _Maker) -> None:
    """Add three retro programs.

    A quota share of the Southeast unit inures first, being below the top group; then a catastrophe tower of three
    layers on the whole account, which share one priority; then an aggregate cover on what is left.
    """
    market, book = maker.market, maker.book
    ceded = 0.25
    event_loss = sum(book.by_event.values()) - ceded * book.by_event["PC-SE"]
    order = np.argsort(-event_loss)
    account = Subject("", _NOBODY, "", order, event_loss[order], np.cumsum(market.rate[order]), market.rate[order])
    unit_mean, _ = _poisson_moments(market.rate, book.by_event["PC-SE"])
    book.outwards.append(
        {
            "contract_id": "R-QS-SE",
            "name": "Southeast quota share retro",
            "group_id": "PC-SE",
            "priority": 1,
            "type": "QS",
            "ceded_share": ceded,
            "premium": round(unit_mean * ceded * 1.6, -4),
            "participation": 1.0,
        }
    )
    edges = [two_digits(account.at(period)) for period in (25, 50, 100, 200)]
    net = event_loss.copy()
    for number, (low, high, placed) in enumerate(zip(edges[:-1], edges[1:], (0.40, 0.50, 0.60), strict=True), start=1):
        limit = two_digits(high - low)
        recovery = np.minimum(np.maximum(event_loss - low, 0.0), limit)
        mean, sd = _poisson_moments(market.rate, recovery)
        net -= placed * recovery
        book.outwards.append(
            {
                "contract_id": f"R-XL-{number}",
                "name": f"Whole account cat, layer {number}",
                "group_id": TOP,
                "priority": 1,
                "type": "CXL",
                "occurrence_retention": low,
                "occurrence_limit": limit,
                "reinstatements": "1",
                "premium": round((mean + 0.15 * sd) / 0.9, -4),
                "participation": placed,
            }
        )
    annual = maker.annual(net)
    low = two_digits(_return_level(annual, 10))
    limit = two_digits(_return_level(annual, 30) - low)
    recovery = np.minimum(np.maximum(annual - low, 0.0), limit)
    book.outwards.append(
        {
            "contract_id": "R-AGG",
            "name": "Whole account aggregate retro",
            "group_id": TOP,
            "priority": 2,
            "type": "AXL",
            "aggregate_deductible": low,
            "aggregate_limit": limit,
            "premium": round(float(recovery.mean() + 0.25 * recovery.std()) / 0.9, -4),
            "participation": 0.40,
        }
    )


_NOBODY = Cedant(-1, "", "", "", np.empty(0, np.int64), np.empty(0))
