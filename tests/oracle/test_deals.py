"""price_deal, compiled and in numpy, gives what the reference works out one occurrence after the other."""

import math
from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oracle.bridge import (
    KERNELS,
    by_row,
    computed_with,
    event_loss_table,
    industry_losses,
    occurrences,
    treaty,
    year_event_table,
)
from oracle.random_cases import random_case
from oracle.reference import Facts, PricedLayer, our_losses, price_deal
from oracle.reference import price_figures as reference_figures
from oracle.strategies import INDEX, Case, cases
from riskmill.models import run_model
from riskmill.models.pricing import LAYER_STATS, PRICE_FIGURES, Pricing, price_figures
from riskmill.outputs import Arrays
from riskmill.terms import Terms

#: Losses of deals are stored as float32; whole numbers of this size are exact in it.
CLOSE = 2e-6


def referenced(case: Case) -> list[PricedLayer]:
    """Return what the reference makes of a case: its losses at the rate, its terms as they stand."""
    rate = Fraction(case.rate)
    losses = {event: Fraction(loss) * rate for event, loss in case.losses.items()}
    facts = {
        event: Facts(of.risks, None if of.exposure is None else of.exposure * rate, of.industry)
        for event, of in case.facts.items()
    }
    treaties = [treaty(terms) for terms in case.layers]
    return price_deal(treaties, losses, facts, occurrences(year_event_table(case.years)), case.period)


def priced(case: Case) -> dict[str, Any]:
    """Return what the model makes of it."""
    params: dict[str, Any] = {"layers": case.layers, "rate": case.rate}
    if case.period != (0, 364):
        params["period"] = {"first": case.period[0], "last": case.period[1]}
    elt = event_loss_table(case.losses, {event: case.facts[event] for event in case.losses})
    inputs = [elt, year_event_table(case.years)]
    if any("index" in terms for terms in case.layers):
        params["indices"] = [INDEX]
        inputs.append(industry_losses(case.facts, INDEX))
    return run_model("price_deal", 1, params, inputs)


def differences(case: Case, found: Mapping[str, Any], *, ties: bool) -> list[str]:
    """Return where a model's answer is not the reference's. Without `ties`, counts of years may differ by rounding."""
    expected = referenced(case)
    wrong = []
    got, want = by_row(found), our_losses(expected)
    for row in sorted(got.keys() | want.keys()):
        if not math.isclose(got.get(row, 0.0), float(want.get(row, 0)), rel_tol=CLOSE, abs_tol=1e-9):
            wrong.append(f"row {row} loses {got.get(row, 0.0)!r}, not {float(want.get(row, 0))!r}")
    for number, layer in enumerate(expected):
        stats = dict(zip(LAYER_STATS, found["layer_stats"][number].tolist(), strict=True))
        sums = {
            "trials": float(len(layer.annual)),
            "recovery": float(sum(layer.annual)),
            "recovery_squared": float(sum(annual * annual for annual in layer.annual)),
            "reinstated": float(sum(layer.reinstated)),
            "attached": float(sum(annual > 0 for annual in layer.annual)),
            "exhausted": float(sum(layer.exhausted)),
        }
        for name, value in sums.items():
            if name in ("attached", "exhausted") and not ties:
                continue
            if not math.isclose(stats[name], value, rel_tol=1e-9, abs_tol=1e-9):
                wrong.append(f"layer {number} has {name} {stats[name]!r}, not {value!r}")
    return wrong


@pytest.mark.parametrize("kernel", KERNELS)
@settings(max_examples=150, derandomize=True, deadline=None, database=None)
@given(case=cases())
def test_a_deal_of_any_terms_recovers_what_the_reference_does(kernel: str, case: Case) -> None:
    with computed_with(kernel):
        found = priced(case)
    assert differences(case, found, ties=True) == []


@pytest.mark.parametrize("kernel", KERNELS)
@settings(max_examples=100, derandomize=True, deadline=None, database=None)
@given(case=cases(plain=True))
def test_a_deal_of_terms_that_the_kernel_knows_recovers_what_the_reference_does(kernel: str, case: Case) -> None:
    with computed_with(kernel):
        found = priced(case)
    assert differences(case, found, ties=True) == []


@pytest.mark.parametrize("kernel", KERNELS)
@settings(max_examples=60, derandomize=True, deadline=None, database=None)
@given(case=cases(odd=True))
def test_amounts_that_no_float_holds_change_recoveries_by_rounding_only(kernel: str, case: Case) -> None:
    with computed_with(kernel):
        found = priced(case)
    assert differences(case, found, ties=False) == []


@settings(max_examples=80, derandomize=True, deadline=None, database=None)
@given(case=cases())
def test_price_figures_are_those_of_the_trials_themselves(case: Case) -> None:
    found = priced(case)
    brokerage, fixed, variable = Fraction(1, 8), Fraction(3), Fraction(1, 16)
    pricing = Pricing(sd_load=0.25, fixed_expense=3.0, variable_expense=0.0625)
    for terms, stats, layer in zip(case.layers, found["layer_stats"], referenced(case), strict=True):
        got = dict(
            zip(
                PRICE_FIGURES,
                price_figures(Terms(**terms), stats, float(brokerage), pricing).tolist(),
                strict=True,
            )
        )
        want = reference_figures(
            layer, brokerage=brokerage, fixed=fixed, variable=variable, load=lambda deviation: 0.25 * deviation
        )
        assert {name: got[name] for name in want} == pytest.approx(want, rel=1e-7, abs=1e-6, nan_ok=True)


def test_a_limit_of_nothing_and_an_empty_table_recover_nothing() -> None:
    years = [[(3, 1), (3, 1)], [], [(3, 2)]]
    for layer in ({"type": "CXL", "occurrence_limit": 0.0}, {"type": "AXL", "aggregate_limit": 0.0}):
        case = Case([layer], {1: 10.0}, {1: Facts()}, years, (0, 364), 1.0)
        assert differences(case, priced(case), ties=True) == []
        assert not priced(case)["row"].size
    empty = Case([{"type": "QS"}], {}, {}, years, (0, 364), 1.0)
    assert differences(empty, priced(empty), ties=True) == []
    assert isinstance(priced(empty), dict | Arrays)


#: A limit with cents, converted at a rate of exchange: no float holds it, nor six times it.
CONVERTED = st.tuples(st.integers(1, 10_000), st.integers(1, 20_000)).map(
    lambda pair: pair[0] / 100 * (pair[1] / 10_000)
)


@pytest.mark.parametrize("kernel", KERNELS)
@settings(max_examples=100, derandomize=True, deadline=None, database=None)
@given(limit=CONVERTED, losses=st.integers(1, 12), beyond=st.integers(1, 12))
def test_total_losses_exhaust_their_reinstatements_and_no_more_whatever_the_limit(
    kernel: str, limit: float, losses: int, beyond: int
) -> None:
    """n total losses are n limits: a layer of n - 1 reinstatements is exhausted, one above n limits does not attach."""
    layer = {"type": "CXL", "occurrence_limit": limit}
    layers = [
        layer | {"reinstatements": [1.0] * (losses - 1)},
        layer | {"aggregate_deductible": losses * limit},
        layer | {"aggregate_deductible": beyond * limit, "aggregate_limit": losses * limit},
        layer | {"shared_limit": "both", "shared_aggregate_limit": 99 * limit, "aggregate_limit": losses * limit},
        layer | {"shared_limit": "both", "shared_aggregate_limit": 99 * limit},
    ]
    years = [[(day, 1) for day in range(losses)], [(day, 1) for day in range(losses + beyond)]]
    case = Case(layers, {1: 1e9}, {1: Facts()}, years, (0, 364), 1.0)
    with computed_with(kernel):
        apart = [priced(replace(case, layers=[each]))["layer_stats"][0] for each in layers[:3]]
        together = priced(case)["layer_stats"]
    attached, exhausted = LAYER_STATS.index("attached"), LAYER_STATS.index("exhausted")
    assert together[:3].tolist() == pytest.approx(np.array(apart), rel=1e-12)
    assert together[:4, exhausted].tolist() == [2, 1, 1, 2]
    assert together[:3, attached].tolist() == [2, 1, 1 + (losses > beyond)]


@pytest.mark.parametrize("kernel", KERNELS)
def test_decimals_that_no_float_holds_attach_and_exhaust_as_on_paper(kernel: str) -> None:
    """0.2 xs 0.1 of 0.3 is exhausted, 17% of 0.3 is 0.051, what an excess of 9.9 leaves is 9.9 again."""
    layers: list[dict[str, Any]] = [
        {"type": "CXL", "occurrence_retention": 0.1, "occurrence_limit": 0.2},
        {"type": "CXL", "ceded_share": 0.17, "occurrence_retention": 0.051, "occurrence_limit": 0.2},
    ]
    net = [
        {"type": "CXL", "occurrence_retention": 9.9},
        {"type": "FAC", "franchise_deductible": 9.9, "inuring_priority": 2},
        {"type": "FAC", "occurrence_retention": 9.9, "inuring_priority": 2},
    ]
    case = Case(layers, {1: 0.3}, {1: Facts()}, [[(5, 1)]], (0, 364), 1.0)
    with computed_with(kernel):
        found = priced(case)["layer_stats"]
        inured = priced(replace(case, layers=net, losses={1: 58.31 * 0.7}))["layer_stats"]
    attached, exhausted = LAYER_STATS.index("attached"), LAYER_STATS.index("exhausted")
    assert found[:, [attached, exhausted]].tolist() == [[1, 1], [0, 0]]
    assert 0.3 - 0.1 < 0.2
    assert 0.17 * 0.3 > 0.051
    assert inured[:, LAYER_STATS.index("recovery")] == pytest.approx([58.31 * 0.7 - 9.9, 9.9, 0])
    assert inured[:, attached].tolist() == [1, 1, 0]


@pytest.mark.parametrize("kernel", KERNELS)
def test_many_deals_that_use_all_terms_together_recover_what_the_reference_does(kernel: str) -> None:
    for seed in range(600):
        case = random_case(seed)
        with computed_with(kernel):
            found = priced(case)
        assert differences(case, found, ties=True) == [], seed
