"""Contract terms, each in a table that a person can check by hand, and what must hold of all of them."""

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from riskmill.errors import ModelError
from riskmill.models.contracts import (
    annual_limit,
    ceded_loss,
    event_order_recovery,
    excess_of_loss,
    layer_limit,
    occurrence_loss,
    reinstatement_fraction,
)
from riskmill.terms import Terms

LOSSES = np.array([0.0, 5.0, 10.0, 12.0, 30.0, 1000.0])


@pytest.mark.parametrize(
    ("retention", "limit", "expected"),
    [
        (0.0, math.inf, [0, 5, 10, 12, 30, 1000]),
        (10.0, math.inf, [0, 0, 0, 2, 20, 990]),
        (0.0, 20.0, [0, 5, 10, 12, 20, 20]),
        (10.0, 15.0, [0, 0, 0, 2, 15, 15]),
        (10.0, 0.0, [0, 0, 0, 0, 0, 0]),
    ],
)
def test_excess_of_loss(retention: float, limit: float, expected: list[float]) -> None:
    assert excess_of_loss(LOSSES, retention, limit).tolist() == expected


def test_the_ceded_share_comes_before_the_occurrence_terms() -> None:
    terms = Terms(type="CXL", ceded_share=0.5, occurrence_retention=5, occurrence_limit=8)
    assert ceded_loss(LOSSES, 0.5).tolist() == [0, 2.5, 5, 6, 15, 500]
    assert occurrence_loss(terms, LOSSES).tolist() == [0, 0, 0, 1, 8, 8]


@pytest.mark.parametrize(
    ("terms", "annual", "line"),
    [
        ({}, math.inf, math.inf),
        ({"occurrence_limit": 10}, math.inf, 10),
        ({"occurrence_limit": 10, "reinstatements": ()}, 10, 10),
        ({"occurrence_limit": 10, "reinstatements": (1, 1)}, 30, 10),
        ({"occurrence_limit": 10, "reinstatements": (1, 1), "aggregate_limit": 25}, 25, 10),
        ({"occurrence_limit": 10, "reinstatements": (1,), "aggregate_limit": 25}, 20, 10),
        ({"aggregate_limit": 25}, 25, 25),
        ({"occurrence_limit": 10, "aggregate_limit": 5}, 5, 5),
    ],
)
def test_reinstatements_and_the_aggregate_limit_bound_the_year(
    terms: dict[str, Any], annual: float, line: float
) -> None:
    assert annual_limit(Terms(type="CXL", **terms)) == annual
    assert layer_limit(Terms(type="CXL", **terms)) == line


def test_reinstatements_without_an_occurrence_limit_are_refused() -> None:
    with pytest.raises(ModelError, match="needs an occurrence limit"):
        annual_limit(Terms(type="CXL", reinstatements=(1.0,)))


@pytest.mark.parametrize(
    ("charges", "annual", "expected"),
    [
        ((), [0, 10, 10], [0, 0, 0]),
        ((1.0,), [0, 4, 10, 20], [0, 0.4, 1, 1]),
        ((1.0, 0.5), [0, 4, 10, 17, 20, 30], [0, 0.4, 1, 1.35, 1.5, 1.5]),
        ((0.0,), [10, 20], [0, 0]),
        ((0.0, 1.0), [10, 15, 30], [0, 0.5, 1]),
    ],
)
def test_reinstatement_premium_is_pro_rata_as_to_amount(
    charges: tuple[float, ...], annual: list[float], expected: list[float]
) -> None:
    terms = Terms(type="CXL", occurrence_limit=10, reinstatements=charges)
    assert reinstatement_fraction(terms, np.array(annual, float)).tolist() == pytest.approx(expected)


def test_a_layer_without_capacity_neither_loses_nor_reinstates() -> None:
    terms = Terms(type="CXL", occurrence_limit=0, reinstatements=(1.0,))
    recovery, annual = event_order_recovery(terms, occurrence_loss(terms, LOSSES), np.array([0, 3]))
    assert recovery.tolist() == [0] * 6
    assert reinstatement_fraction(terms, annual).tolist() == [0, 0]


@pytest.mark.parametrize(
    ("terms", "expected", "annual"),
    [
        ({}, [4, 10, 7, 3, 10, 10], [21, 3, 20]),
        ({"aggregate_limit": 15}, [4, 10, 1, 3, 10, 5], [15, 3, 15]),
        ({"aggregate_deductible": 6}, [0, 8, 7, 0, 4, 10], [15, 0, 14]),
        ({"aggregate_deductible": 6, "aggregate_limit": 9}, [0, 8, 1, 0, 4, 5], [9, 0, 9]),
        ({"aggregate_deductible": 100}, [0, 0, 0, 0, 0, 0], [0, 0, 0]),
        ({"aggregate_limit": 0}, [0, 0, 0, 0, 0, 0], [0, 0, 0]),
    ],
)
def test_aggregate_terms_fall_to_occurrences_in_the_order_of_events(
    terms: dict[str, Any], expected: list[float], annual: list[float]
) -> None:
    losses, starts = np.array([4.0, 10, 7, 3, 10, 10]), np.array([0, 3, 4])
    recovery, years = event_order_recovery(Terms(type="AXL", **terms), losses, starts)
    assert recovery.tolist() == expected
    assert years.tolist() == annual


def test_no_occurrence_recovers_nothing() -> None:
    for terms in (Terms(type="QS"), Terms(type="SL", aggregate_deductible=1, aggregate_limit=2)):
        recovery, annual = event_order_recovery(terms, np.empty(0), np.empty(0, np.int64))
        assert (recovery.size, annual.size) == (0, 0)


amounts = st.floats(0, 1e9, allow_nan=False).map(lambda value: round(value, 2))
limits = st.none() | amounts
years = st.lists(st.lists(amounts, min_size=1, max_size=6), min_size=1, max_size=5)
layer_terms = st.builds(
    Terms,
    type=st.just("CXL"),
    ceded_share=st.sampled_from([1.0, 0.5, 0.17]),
    occurrence_retention=amounts,
    occurrence_limit=limits,
    aggregate_deductible=st.just(0.0) | amounts,
    aggregate_limit=limits,
)


def recovered(terms: Terms, book: list[list[float]]) -> tuple[list[list[float]], list[float]]:
    starts = np.cumsum([0, *(len(year) for year in book[:-1])])
    losses = np.array([loss for year in book for loss in year])
    recovery, annual = event_order_recovery(terms, occurrence_loss(terms, losses), starts)
    return [part.tolist() for part in np.split(recovery, starts[1:])], annual.tolist()


@given(layer_terms, years)
def test_recoveries_of_a_year_add_up_to_its_annual_recovery(terms: Terms, book: list[list[float]]) -> None:
    by_event, annual = recovered(terms, book)
    assert [sum(year) for year in by_event] == pytest.approx(annual, rel=1e-9, abs=1e-5)


@given(layer_terms, years)
def test_recoveries_exceed_neither_the_loss_nor_any_limit(terms: Terms, book: list[list[float]]) -> None:
    by_event, annual = recovered(terms, book)
    bound = math.inf if terms.occurrence_limit is None else terms.occurrence_limit
    for losses, recovery in zip(book, by_event, strict=True):
        assert all(0 <= got <= min(loss, bound) for loss, got in zip(losses, recovery, strict=True))
    assert all(0 <= year <= annual_limit(terms) for year in annual)


@given(layer_terms, years, amounts)
def test_a_higher_limit_never_recovers_less(terms: Terms, book: list[list[float]], more: float) -> None:
    _, before = recovered(terms, book)
    for name in ("occurrence_limit", "aggregate_limit"):
        limit = getattr(terms, name)
        if limit is not None:
            _, after = recovered(terms.model_copy(update={name: limit + more}), book)
            assert all(b <= a * (1 + 1e-12) + 1e-6 for b, a in zip(before, after, strict=True))


@given(years, st.lists(amounts, min_size=1, max_size=4, unique=True))
def test_layers_that_stack_sum_to_the_ground_up_loss(book: list[list[float]], cuts: list[float]) -> None:
    edges = [0.0, *sorted(cut for cut in cuts if cut > 0), None]
    stack = [
        Terms(type="CXL", occurrence_retention=low, occurrence_limit=None if high is None else high - low)
        for low, high in pairwise(edges)
        if low is not None
    ]
    total = np.sum([recovered(terms, book)[1] for terms in stack], axis=0)
    assert total.tolist() == pytest.approx([sum(year) for year in book], rel=1e-9, abs=1e-5)


@given(years, amounts, amounts)
def test_aggregate_layers_that_stack_sum_to_the_year(book: list[list[float]], deductible: float, limit: float) -> None:
    stack = [
        Terms(type="SL", aggregate_limit=deductible),
        Terms(type="SL", aggregate_deductible=deductible, aggregate_limit=limit),
        Terms(type="SL", aggregate_deductible=deductible + limit),
    ]
    total = np.sum([recovered(terms, book)[1] for terms in stack], axis=0)
    assert total.tolist() == pytest.approx([sum(year) for year in book], rel=1e-9, abs=1e-5)
