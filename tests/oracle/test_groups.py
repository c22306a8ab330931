"""Whole rollups, every model of the graph called in turn, against the reference: groups, outwards contracts, tails."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import date, timedelta
from fractions import Fraction
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oracle.bridge import KERNELS, by_row, computed_with, occurrences, treaty
from oracle.reference import (
    Contract,
    Facts,
    Groups,
    Occurrence,
    PricedLayer,
    by_trial,
    exceedance,
    largest,
    mean,
    our_losses,
    price_deal,
    tail_value,
    total,
    value_at_return_period,
    variance,
    weighted_tail,
)
from oracle.reference import price_figures as reference_figures
from oracle.strategies import AMOUNTS, EVENTS, INDEX, facts_of_events, plain_terms, terms_of_a_layer
from riskmill.jobs import content_key
from riskmill.models.allocation import read_ids
from riskmill.models.metrics import RETURN_PERIODS
from riskmill.models.pricing import PRICE_FIGURES, Pricing
from riskmill.outputs import Array, Arrays, decode, encode
from riskmill.portfolio import Deal, Group, IndexLosses, Layer, Outwards, Portfolio, Rate
from riskmill.rollup_graph import DEALS, TAIL, groups_name, measure_name, rollup_graph
from riskmill.terms import Terms
from riskmill_cli.portfolio_folder import PreparedPortfolio
from rollup_cloud import Direct, run_directly

YEAR = 2025
#: Losses of deals are float32, and their sums' differences are compared.
CLOSE = {"rel": 1e-6, "abs": 1e-4}


@dataclass(frozen=True)
class Book:
    """A portfolio: `deals` maps a deal to (layers, losses, first day, last day, currency)."""

    deals: dict[str, tuple[list[dict[str, Any]], dict[int, float], int, int, str]]
    facts: dict[int, Facts]
    #: contracts on groups: (group, priority, terms, first day, last day)
    outwards: list[tuple[str, int, dict[str, Any], int, int]]
    trials: int
    seed: int
    pricing: Pricing


#: all > east, west > d..; and a view beside.
GROUPS = {"all": ("east", "west"), "east": (), "west": ("far",), "far": (), "view": ("east",)}
OF_DEALS = {"all": ("D0",), "east": ("D1", "D2"), "west": ("D3",), "far": ("D4",), "view": ("D4",)}
RATE = 0.5


def _sound(terms: dict[str, Any]) -> dict[str, Any]:
    """Return terms that a portfolio accepts: no limit of nothing, and what a type must have."""
    terms = {name: value for name, value in terms.items() if not (name.endswith("limit") and value == 0)}
    if terms.get("reinstatements") is not None and "occurrence_limit" not in terms:
        terms.pop("reinstatements")
    if not terms.get("reinstatements"):
        terms.pop("reinstatement_basis", None)
    kind = terms["type"]
    if kind == "CXL" and "occurrence_limit" not in terms:
        terms["occurrence_limit"] = 60.0
    if kind == "AXL" and "aggregate_limit" not in terms and not terms.get("aggregate_deductible"):
        terms["aggregate_limit"] = 75.0
    if kind == "PR" and not terms.get("risk_retention") and "risk_limit" not in terms:
        terms["risk_limit"] = 50.0
    return terms


@st.composite
def books(draw: st.DrawFn) -> Book:
    """Return a portfolio of five deals in four groups and a view, with up to three outwards contracts."""
    spans = st.sampled_from([(0, 364), (0, 364), (-100, 200), (150, 500)])
    deals = {}
    for number in range(5):
        layers = [
            _sound({name: value for name, value in terms.items() if value is not None})
            for terms in draw(st.lists(terms_of_a_layer(), min_size=1, max_size=2))
        ]
        losses = draw(st.dictionaries(st.sampled_from(EVENTS), AMOUNTS, min_size=1, max_size=len(EVENTS)))
        deals[f"D{number}"] = (layers, losses, *draw(spans), "EUR" if number == 3 else "USD")
    outwards = []
    for _ in range(draw(st.integers(0, 4))):
        terms = draw(plain_terms())
        terms.pop("placed_share")
        terms = _sound({name: value for name, value in terms.items() if value is not None})
        # Contracts of one priority that together cede more than the loss are refused: halves cannot.
        terms["participation"] = min(terms["participation"], 0.25)
        if draw(st.booleans()):
            terms |= {"index": INDEX, "index_trigger": draw(AMOUNTS)}
        if draw(st.booleans()):
            terms["recovery_order"] = "pro_rata"
        group = draw(st.sampled_from(["all", "west", "far", "east"]))
        outwards.append((group, draw(st.sampled_from([1, 1, 2, 5])), terms, *draw(spans)))
    pricing = draw(
        st.sampled_from([Pricing(), Pricing(sd_load=0.5, cost_of_capital=0.125, fixed_expense=2, variable_expense=0.1)])
    )
    return Book(deals, draw(facts_of_events()), outwards, draw(st.integers(1, 330)), draw(st.integers(0, 99)), pricing)


def _date(day: int) -> date:
    return date(YEAR, 1, 1) + timedelta(days=day)


def prepared(book: Book) -> PreparedPortfolio:
    """Return the portfolio document and its objects. Every event is a peril of its own law or shares one."""
    objects: dict[str, bytes] = {}

    def stored(arrays: dict[str, Array]) -> str:
        data = encode(arrays)
        objects[content_key(data)] = data
        return content_key(data)

    catalogue = {
        "event": np.array(EVENTS, np.int32),
        "rate": np.full(len(EVENTS), 0.25),
        "peril": np.array([at % 2 for at in range(len(EVENTS))], np.int32),
        "frequency": np.array([0, 1], np.int32),
        "variance_to_mean": np.array([1.0, 2.0]),
        "season": np.ones((2, 12)),
        "peril_names": np.frombuffer(json.dumps(["quake", "storm"]).encode(), np.uint8),
    }
    deals = []
    for name, (layers, losses, first, last, currency) in book.deals.items():
        events = sorted(losses)
        elt = {
            "event": np.array(events, np.int32),
            "mean": np.array([losses[event] for event in events]),
            "risks": np.array([float(book.facts[event].risks) for event in events]),
            "exposure": np.array([float(book.facts[event].exposure or 0) for event in events]),
        }
        deals.append(
            Deal(
                deal_id=name,
                cedant=name,
                business_unit="Cat",
                inception=_date(first),
                expiry=_date(last),
                currency=currency,
                brokerage=0.125,
                elt=stored(elt),
                layers=tuple(Layer(layer_id=f"{name}-{at}", terms=Terms(**terms)) for at, terms in enumerate(layers)),
            )
        )
    known = [event for event in EVENTS if INDEX in book.facts[event].industry]
    industry = {
        "event": np.array(known, np.int32),
        "mean": np.array([float(book.facts[event].industry[INDEX]) for event in known]),
    }
    portfolio = Portfolio(
        name="Reference",
        currency="USD",
        as_at=date(2024, 12, 31),
        trials=book.trials,
        seed=book.seed,
        group="all",
        catalogue=stored(catalogue),
        deals=tuple(deals),
        groups=tuple(Group(group_id=name, name=name, deals=OF_DEALS[name], groups=GROUPS[name]) for name in GROUPS),
        outwards=tuple(
            Outwards(
                contract_id=f"R{at}",
                name=f"R{at}",
                group_id=group,
                priority=priority,
                terms=Terms(**terms),
                inception=_date(first),
                expiry=_date(last),
            )
            for at, (group, priority, terms, first, last) in enumerate(book.outwards)
        ),
        trial_year=YEAR,
        pricing=book.pricing,
        rates=(
            Rate(currency="EUR", date=date(2020, 1, 1), rate=3.0),
            Rate(currency="EUR", date=date(2024, 6, 1), rate=RATE),
            Rate(currency="EUR", date=date(2025, 6, 1), rate=7.0),
        ),
        indices=(IndexLosses(index=INDEX, losses=stored(industry)),),
    )
    return PreparedPortfolio(portfolio, objects)


#: Terms that are amounts of the deal's currency; an index and its trigger are in a unit of their own.
_MONEY = (
    "occurrence_retention",
    "occurrence_limit",
    "aggregate_deductible",
    "aggregate_limit",
    "premium",
    "retained_line",
    "risk_retention",
    "risk_limit",
    "franchise_deductible",
    "shared_aggregate_limit",
)


class Expected:
    """What the reference makes of a book in these years."""

    def __init__(self, book: Book, years: list[list[Occurrence]]) -> None:
        self.years, self.layers = years, dict[str, list[PricedLayer]]()
        losses: dict[str, Mapping[int, Fraction]] = {}
        for name, (layers, of_events, first, last, currency) in book.deals.items():
            rate = Fraction(RATE) if currency == "EUR" else Fraction(1)
            treaties = [
                replace(
                    made, **{term: getattr(made, term) * rate for term in _MONEY if getattr(made, term) is not None}
                )
                for made in map(treaty, layers)
            ]
            facts = {
                event: Facts(of.risks, None if of.exposure is None else of.exposure * rate, of.industry)
                for event, of in book.facts.items()
            }
            subject = {event: Fraction(loss) * rate for event, loss in of_events.items()}
            self.layers[name] = price_deal(treaties, subject, facts, years, (first, last))
            losses[name] = our_losses(self.layers[name])
        contracts: dict[str, list[Contract]] = {}
        for group, priority, terms, first, last in book.outwards:
            contracts.setdefault(group, []).append(Contract(priority, treaty(terms), (first, last)))
        self.groups = Groups(OF_DEALS, GROUPS, contracts, losses, years, book.facts)

    def annual(self, losses: Mapping[int, Fraction]) -> list[Fraction]:
        return by_trial(losses, self.years, total)


def years_of(direct: Direct) -> list[list[Occurrence]]:
    """Return the simulated years, which are the models' own: the reference reads the same history."""
    (job,) = [job for job in range(len(direct.graph)) if direct.graph.label(job).startswith("simulate_years")]
    return occurrences(decode(direct.outputs[direct.graph.key(job)]))


def measured(losses: Mapping[int, Fraction], years: list[list[Occurrence]], found: Arrays) -> list[str]:
    """Return where a group's measures are not those of the reference."""
    annual, worst = by_trial(losses, years, total), by_trial(losses, years, largest)
    trials = len(annual)
    part = Fraction(1, 100)
    want: dict[str, float] = {
        "aal": float(mean(annual)),
        "sd": math.sqrt(variance(annual)) if trials > 1 else math.nan,
        "prob_loss": float(exceedance(annual, Fraction(0))),
        "tvar": float(tail_value(annual, part)),
    }
    got = {name: float(found[name][0]) for name in want}
    for at, period in enumerate(RETURN_PERIODS):
        for name, values in (("oep", worst), ("aep", annual)):
            loss = value_at_return_period(values, period)
            want[f"{name} {period}"] = math.nan if loss is None else float(loss)
            got[f"{name} {period}"] = float(found[name][at])
            tail = math.nan if loss is None else float(tail_value(values, Fraction(1, period)))
            want[f"{name} tvar {period}"] = tail
            got[f"{name} tvar {period}"] = float(found[f"{name}_tvar"][at])
    return unlike(got, want)


def unlike(got: Mapping[str, float], want: Mapping[str, float]) -> list[str]:
    return [
        f"{name} is {got[name]!r}, not {want[name]!r}"
        for name in want
        if got[name] != pytest.approx(want[name], **CLOSE, nan_ok=True)
    ]


def differences(book: Book) -> list[str]:
    """Return where a whole rollup is not what the reference works out."""
    direct = run_directly(prepared(book))
    targets = direct.targets
    years = years_of(direct)
    expected = Expected(book, years)
    groups, wrong = expected.groups, list[str]()
    gross, net = {}, {}
    for group in GROUPS:
        gross[group], net[group] = groups.gross(group), groups.net(group)
        wrong += [
            f"{group} gross {each}" for each in measured(gross[group], years, targets[measure_name(group, "gross")])
        ]
        wrong += [f"{group} net {each}" for each in measured(net[group], years, targets[measure_name(group, "net")])]
        if (name := measure_name(group, "ceded")) in targets:
            ceded = {row: loss - net[group].get(row, Fraction(0)) for row, loss in gross[group].items()}
            wrong += [f"{group} ceded {each}" for each in measured(ceded, years, targets[name])]
    wrong += _tails(book, expected, targets)
    return wrong


def _tails(book: Book, expected: Expected, targets: Mapping[str, Arrays]) -> list[str]:
    """Compare what groups, deals and layers do to the tail of the top group, gross and net."""
    groups, part, wrong = expected.groups, 1 - Fraction(str(TAIL)), list[str]()
    top, top_net = expected.annual(groups.gross("all")), expected.annual(groups.net("all"))
    tied = _tied(top, part)

    def share(own: list[Fraction]) -> float:
        return float(weighted_tail(list(zip(top, own, strict=True)), part))

    def marginal(own: list[Fraction]) -> float:
        rest = [whole - each for whole, each in zip(top, own, strict=True)]
        return float(tail_value(top, part) - tail_value(rest, part))

    names = sorted(set(GROUPS) - {"all"})
    compared = targets[groups_name(names)]
    for at, name in enumerate(names):
        own = expected.annual(groups.gross(name))
        want = {"marginal": marginal(own)} | ({} if tied else {"co_tvar": share(own)})
        got = {"co_tvar": float(compared["co_tvar"][at]), "marginal": float(compared["marginal_tvar"][at])}
        wrong += [f"group {name} {each}" for each in unlike(got, want)]
    deals = targets[DEALS]
    kept = groups.kept("all", "all")
    layers = dict(zip(read_ids(deals["layer_ids"]), deals["price_figures"].tolist(), strict=True))
    for at, name in enumerate(read_ids(deals["deal_ids"])):
        own = expected.annual(groups.losses[name])
        want = {
            "aal": float(mean(own)),
            "sd": math.sqrt(variance(own)) if len(own) > 1 else math.nan,
            "marginal_tvar": marginal(own),
        }
        if not tied:
            want["co_tvar"] = share(own)
        if not _tied(top_net, part):
            pairs = list(zip(top_net, expected.annual(kept[name]), strict=True))
            want["net_co_tvar"] = float(weighted_tail(pairs, part))
        got = {figure: float(deals[figure][at]) for figure in want}
        wrong += [f"deal {name} {each}" for each in unlike(got, want)]
        for number, layer in enumerate(expected.layers[name]):
            capital = book.pricing.cost_of_capital
            if tied and capital:
                continue
            its = share([annual * layer.treaty.share for annual in layer.annual]) if capital else 0.0
            loads = book.pricing.sd_load, capital * its
            figures = reference_figures(
                layer,
                brokerage=Fraction(0.125),
                fixed=Fraction(book.pricing.fixed_expense),
                variable=Fraction(book.pricing.variable_expense),
                load=partial(risk_load, loads),
            )
            found = dict(zip(PRICE_FIGURES, layers[f"{name}-{number}"], strict=True))
            wrong += [f"layer {name}-{number} {each}" for each in unlike(found, figures)]
    return wrong


def risk_load(loads: tuple[float, float], deviation: float) -> float:
    """The risk load of a standard deviation; without a load on it, one that does not exist costs nothing."""
    return (loads[0] * deviation if loads[0] else 0.0) + loads[1]


def _tied(annual: list[Fraction], part: Fraction) -> bool:
    """Whether losses at the edge of the tail are so close that rounding may order or part them."""
    falling = sorted(annual, reverse=True)
    wanted = max(part * len(falling), Fraction(1))
    edge = falling[min(math.ceil(wanted), len(falling)) - 1]
    close = [loss for loss in falling if loss != edge and abs(loss - edge) <= edge / 10**5]
    # Equal ones are exact in floating point only where nothing was divided by 3, 7, ..
    halves = edge.denominator & (edge.denominator - 1) == 0
    return bool(close) or (not halves and falling.count(edge) > 1)


@pytest.mark.parametrize("kernel", KERNELS)
@settings(max_examples=15, derandomize=True, deadline=None, database=None)
@given(book=books())
def test_a_whole_rollup_is_what_the_reference_works_out(kernel: str, book: Book) -> None:
    with computed_with(kernel):
        assert differences(book) == []


def test_rollups_of_the_reference_have_all_their_parts() -> None:
    portfolio = prepared(
        Book(
            {f"D{number}": ([{"type": "QS", "ceded_share": 0.5}], {1: 10.0}, 0, 364, "USD") for number in range(5)},
            {event: Facts(exposure=Fraction(100)) for event in EVENTS},
            [("all", 1, {"type": "QS", "ceded_share": 0.5}, 0, 364)],
            30,
            1,
            Pricing(),
        )
    ).portfolio
    named = set(rollup_graph(portfolio).target_names)
    assert {measure_name(group, side) for group in GROUPS for side in ("gross", "net")} <= named
    assert measure_name("all", "ceded") in named
    assert by_row({"row": np.array([1, 2]), "loss": np.array([0.0, 3.0])}) == {2: 3.0}
