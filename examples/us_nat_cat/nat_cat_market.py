"""The insured market of the example: stochastic events with a loss in each state, and cedants with shares of it.

Everything here is made up except what nat_cat_record fits and the states' populations; docs/example.md lists the
assumptions. Losses are in USD. Random numbers come from `rng`, keyed by the seed and what they are for, so that
the draws for one cedant or deal do not move when another is added.
"""

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
from nat_cat_record import CROP_PERILS, HERE, INSURED_SHARE, PERILS, PerilFit

from riskmill.models.catalogue import FREQUENCIES
from riskmill.models.occurrences import F64, I64
from riskmill.outputs import Arrays

STATES = HERE / "states.csv"
SEED = 20240701

#: Split of the catalogue's events over the perils.
EVENT_SHARES = {
    "tropical_cyclone": 0.34,
    "severe_storm": 0.32,
    "flood": 0.09,
    "winter_storm": 0.08,
    "wildfire": 0.08,
    "drought": 0.06,
    "freeze": 0.03,
}
#: Events lie closer in the tail: the k-th of n has the exceedance probability (1 - k / n) ^ this.
TAIL_POWER = 1.5
#: ASSUMPTION: distance (km) at which an event's intensity has fallen to exp(-1/2) of that in its main state.
FOOTPRINT_KM = {
    "tropical_cyclone": 260,
    "severe_storm": 330,
    "flood": 280,
    "winter_storm": 550,
    "wildfire": 170,
    "drought": 600,
    "freeze": 350,
}
#: ASSUMPTION: an event that would take more than about this part of the value in reach of its main state strikes
#: somewhere else.
LARGEST_DAMAGE = 0.05
#: A state with less than this part of an event's loss is left out of its footprint.
LEAST_PART = 0.01

#: ASSUMPTION: insured property value per head, and insured crop value in all (USD).
PROPERTY_VALUE_PER_HEAD = 300_000.0
CROP_VALUE = 200e9

#: Part of each state's insured losses that the modelled cedants bear; other insurers bear the rest.
MODELLED_SHARE = 0.70
#: How that part is split over the kinds of property cedants, where all are present.
KIND_SHARES = {"national": 0.45, "super_regional": 0.20, "regional": 0.35}
#: The largest share of one state's market that a single cedant holds.
LARGEST_SHARE = 0.10


def rng(*purpose: object) -> np.random.Generator:
    """Return the generator for one purpose."""
    digest = blake2b(repr((SEED, *purpose)).encode(), digest_size=16).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest, "little")))


@dataclass(frozen=True, slots=True)
class States:
    """States with their exposure by peril [states, perils] (USD) and relative hazard [states, perils]."""

    codes: tuple[str, ...]
    names: tuple[str, ...]
    zones: tuple[str, ...]
    kilometres: F64  # distances [states, states]
    exposure: F64
    hazard: F64


def read_states() -> States:
    """Read states.csv."""
    with STATES.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))

    def column(name: str) -> F64:
        return np.array([float(row[name]) for row in rows])

    latitude, longitude = np.radians(column("latitude")), np.radians(column("longitude"))
    # Equirectangular distance: good to a few per cent over the footprints used here.
    east = (longitude[:, None] - longitude) * np.cos((latitude[:, None] + latitude) / 2)
    property_value = column("population_2020") * PROPERTY_VALUE_PER_HEAD
    crop_value = column("crop") / column("crop").sum() * CROP_VALUE
    return States(
        tuple(row["state"] for row in rows),
        tuple(row["name"] for row in rows),
        tuple(row["zone"] for row in rows),
        6371.0 * np.hypot(latitude[:, None] - latitude, east),
        np.column_stack([crop_value if peril in CROP_PERILS else property_value for peril in PERILS]),
        np.column_stack([column(peril) for peril in PERILS]),
    )


@dataclass(frozen=True, slots=True)
class Market:
    """The event catalogue with each event's insured loss.

    Per event: id (from 1), peril (position in PERILS), main state, annual rate, insured market loss. `footprint` has
    for each peril and state the events that hit it (positions, rising) and the insured loss of each there.
    """

    states: States
    fits: dict[str, PerilFit]
    event: I64
    peril: I64
    state: I64
    rate: F64
    loss: F64
    footprint: list[list[tuple[I64, F64]]]

    def of_peril(self, peril: int) -> slice:
        """Return where the peril's events stand."""
        return slice(*np.searchsorted(self.peril, [peril, peril + 1]).tolist())

    def catalogue(self) -> Arrays:
        """Return the catalogue as the model simulate_years takes it."""
        fits = self.fits.values()
        season = np.array([fit.record.months / fit.record.months.sum() for fit in fits])
        return Arrays(
            {
                "event": self.event.astype(np.int32),
                "rate": self.rate,
                "peril": self.peril.astype(np.int32),
                "frequency": np.array([FREQUENCIES.index(fit.law) for fit in fits], np.int32),
                "variance_to_mean": np.array([fit.variance_to_mean for fit in fits]),
                "season": season,
                "peril_names": np.frombuffer(json.dumps(list(PERILS)).encode(), np.uint8),
            }
        )


def make_market(fits: dict[str, PerilFit], events: int) -> Market:
    """Return a catalogue of about `events` events, stratified over each peril's severity.

    Each event stands for one stratum of the severity curve: its loss is the stratum's mean and its rate the peril's
    rate times the stratum's probability, so that the catalogue's mean annual loss is the fitted one, exactly.
    """
    states = read_states()
    perils, mains, rates, losses, footprints = [], [], [], [], []
    for number, (peril, fit) in enumerate(fits.items()):
        count = round(events * EVENT_SHARES[peril])
        exceedance = (1 - np.arange(count + 1) / count) ** TAIL_POWER
        loss = fit.severity.means_between(1 - exceedance) * 1e6 * INSURED_SHARE[peril]
        near = np.exp(-0.5 * (states.kilometres / FOOTPRINT_KM[peril]) ** 2)
        severity = 1 - (exceedance[1:] + exceedance[:-1]) / 2
        main = _main_states(states, number, near, severity, loss, rng("events", peril))
        perils.append(np.full(count, number))
        mains.append(main)
        rates.append(fit.rate * -np.diff(exceedance))
        losses.append(loss)
        parts = _footprint(states, number, near, main, rng("footprints", peril))
        first = sum(part.size for part in perils[:-1])
        footprints.append([_hits(parts[:, state] * loss, first) for state in range(len(states.codes))])
    peril_of, rate = np.concatenate(perils), np.concatenate(rates)
    return Market(
        states,
        fits,
        np.arange(1, peril_of.size + 1),
        peril_of,
        np.concatenate(mains),
        rate,
        np.concatenate(losses),
        footprints,
    )


def _main_states(states: States, peril: int, near: F64, severity: F64, loss: F64, random: np.random.Generator) -> I64:
    """Draw each event's main state: by hazard, and the more by exposure the severer the event is (0 to 1)."""
    exposure, hazard = states.exposure[:, peril], states.hazard[:, peril]
    power = (0.3 + 0.7 * severity**3)[:, None]
    weight = (exposure / exposure.max()) ** power * (hazard / hazard.max()) ** (1 + severity[:, None])
    reach = near @ (exposure * (hazard > 0)) * LARGEST_DAMAGE
    weight /= 1 + (loss[:, None] / np.maximum(reach, 1.0)) ** 4
    total = np.cumsum(weight, axis=1)
    drawn = random.random(severity.size) * total[:, -1]
    main: I64 = (total <= drawn[:, None]).sum(axis=1)
    return main


def _footprint(states: States, peril: int, near: F64, main: I64, random: np.random.Generator) -> F64:
    """Return the parts of each event's loss by state [events, states]; rows sum to 1."""
    strength = near * states.exposure[:, peril] ** 0.75 * states.hazard[:, peril]
    parts = strength[main] * np.exp(0.6 * random.standard_normal((main.size, len(states.codes))))
    parts /= parts.sum(axis=1)[:, None]
    parts[parts < LEAST_PART] = 0.0
    whole: F64 = parts / parts.sum(axis=1)[:, None]
    return whole


def _hits(loss: F64, first: int) -> tuple[I64, F64]:
    hit = np.flatnonzero(loss)
    return hit + first, loss[hit]


@dataclass(frozen=True, slots=True)
class Cedant:
    """An insurer: its kind, name, home zone, states, and market share [its states, perils]."""

    number: int
    kind: str
    name: str
    zone: str
    states: I64
    share: F64


def make_cedants(market: Market, counts: dict[str, int]) -> list[Cedant]:
    """Return `counts[kind]` cedants of each kind: national, super_regional, regional (property) and crop.

    Sizes are Pareto, states are the home state and its neighbours, shares differ by state and by peril; then the
    shares of each state and peril are scaled so that all modelled cedants bear MODELLED_SHARE of its losses, no
    single one more than LARGEST_SHARE.
    """
    states = market.states
    codes = np.arange(len(states.codes))
    drafts: list[tuple[str, str, str, I64, F64]] = []
    for kind, count in counts.items():
        exposure = states.exposure[:, -1 if kind == "crop" else 0]
        crop = np.array([peril in CROP_PERILS for peril in PERILS])
        for number in range(count):
            random = rng("cedant", kind, number)
            size = (1 + random.pareto(1.6)) if kind != "national" else 12.0 / (number + 3)
            home = int(random.choice(codes, p=_flattened(exposure)))
            mine = _states_of(states, kind, home, exposure, random)
            by_state = np.exp(0.5 * random.standard_normal(mine.size))
            by_peril = np.exp(0.3 * random.standard_normal(len(PERILS))) * (crop == (kind == "crop"))
            share = size * by_state[:, None] * by_peril
            drafts.append((kind, _name(states, kind, number, mine, home), states.zones[home], mine, share))
    shares = np.zeros((len(drafts), len(states.codes), len(PERILS)))
    for number, (_, _, _, mine, share) in enumerate(drafts):
        shares[number, mine] = share
    kinds = np.array([draft[0] for draft in drafts])
    for kind, part in (*KIND_SHARES.items(), ("crop", 1.0)):
        total = shares[kinds == kind].sum(axis=0)
        shares[kinds == kind] *= MODELLED_SHARE * part / np.where(total > 0, total, 1.0)
    np.minimum(shares, LARGEST_SHARE, out=shares)
    return [
        Cedant(number, kind, name, zone, mine, shares[number, mine])
        for number, (kind, name, zone, mine, _) in enumerate(drafts)
    ]


def _flattened(exposure: F64) -> F64:
    weight: F64 = np.sqrt(exposure)
    weight /= weight.sum()
    return weight


def _states_of(states: States, kind: str, home: int, exposure: F64, random: np.random.Generator) -> I64:
    insured = np.flatnonzero(exposure > 0)
    if kind == "national":
        return insured
    most = {"super_regional": 14, "regional": 5, "crop": 12}[kind]
    fewest = {"super_regional": 7, "regional": 1, "crop": 3}[kind]
    nearest = insured[np.argsort(states.kilometres[home, insured], kind="stable")]
    return np.sort(nearest[: int(random.integers(fewest, most + 1))])


def _name(states: States, kind: str, number: int, mine: I64, home: int) -> str:
    if kind == "national":
        return f"National Carrier {number + 1:02d}"
    label = {"super_regional": "Super-Regional", "regional": "Regional", "crop": "Crop Insurer"}[kind]
    more = f" and {mine.size - 1} more" if mine.size > 1 else ""
    return f"{label} {number + 1:03d} ({states.names[home]}{more})"


@dataclass(frozen=True, slots=True)
class EventLosses:
    """Loss of each event of the catalogue to one subject business [events], and its insured value by event."""

    loss: F64
    exposure: F64


def subject_losses(market: Market, cedant: Cedant, perils: Sequence[str], states: I64, part: float) -> EventLosses:
    """Return what each event costs `part` of the cedant's business in `states` (positions in its own) from `perils`.

    A cedant's loss is its share of each state's insured loss times lognormal noise of mean 1 by event: its houses
    are not the market's.
    """
    loss, exposure = np.zeros(market.event.size), np.zeros(market.event.size)
    random = rng("subject", cedant.kind, cedant.name, *perils, states.tolist(), part)
    for number, peril in enumerate(PERILS):
        if peril not in perils:
            continue
        for position in states:
            state, share = cedant.states[position], cedant.share[position, number] * part
            event, market_loss = market.footprint[number][state]
            loss[event] += market_loss * share
            exposure[event] += market.states.exposure[state, number] * share
    hit = np.flatnonzero(loss)
    noise = 0.35 * random.standard_normal(hit.size)
    loss[hit] *= np.exp(noise - 0.35**2 / 2)
    # A small book in one state may lose more than its average exposure; it does not lose more than a quarter of it.
    np.maximum(exposure, 4 * loss, out=exposure)
    return EventLosses(loss, exposure)
