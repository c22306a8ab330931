"""price_deal against a plain loop over years, and the price figures of a layer."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from riskmill.errors import ModelError
from riskmill.models import run_model
from riskmill.models.pricing import LAYER_STATS, PRICE_FIGURES, price_figures
from riskmill.outputs import Arrays
from riskmill.terms import Terms


def year_events(years: list[list[int]]) -> Arrays:
    """Return a YET with one occurrence a day."""
    return Arrays(
        {
            "trial": np.repeat(np.arange(len(years), dtype=np.int32), [len(year) for year in years]),
            "day": np.array([day for year in years for day in range(len(year))], np.int16),
            "event": np.array([event for year in years for event in year], np.int32),
            "trials": np.array([len(years)], np.int64),
        }
    )


def event_losses(losses: dict[int, float]) -> Arrays:
    return Arrays(
        {
            "event": np.array(sorted(losses), np.int32),
            "mean": np.array([losses[event] for event in sorted(losses)], np.float64),
        }
    )


def price(layers: list[dict[str, Any]], losses: dict[int, float], years: list[list[int]]) -> dict[str, Any]:
    return run_model("price_deal", 1, {"layers": layers}, [event_losses(losses), year_events(years)])


def by_loop(layers: list[Terms], losses: dict[int, float], years: list[list[int]]) -> list[float]:
    """Return our share's loss of every row of the YET, one occurrence after the other."""
    rows = []
    for year in years:
        spent = [0.0] * len(layers)
        for event in year:
            ours = 0.0
            for number, terms in enumerate(layers):
                loss = losses.get(event, 0.0) * terms.ceded_share
                limit = math.inf if terms.occurrence_limit is None else terms.occurrence_limit
                loss = min(max(loss - terms.occurrence_retention, 0.0), limit)
                cap = math.inf if terms.aggregate_limit is None else terms.aggregate_limit
                if terms.reinstatements is not None:
                    cap = min(cap, (1 + len(terms.reinstatements)) * limit)

                def annual(total: float, deductible: float = terms.aggregate_deductible, cap: float = cap) -> float:
                    return min(max(total - deductible, 0.0), cap)

                ours += terms.participation * (annual(spent[number] + loss) - annual(spent[number]))
                spent[number] += loss
            rows.append(ours)
    return rows


amounts = st.integers(0, 100).map(float)
layers_of_a_deal = st.lists(
    st.builds(
        Terms,
        type=st.sampled_from(["QS", "CXL", "AXL", "SL"]),
        ceded_share=st.sampled_from([1.0, 0.5, 0.25]),
        occurrence_retention=amounts,
        occurrence_limit=amounts,
        aggregate_deductible=st.just(0.0) | amounts,
        aggregate_limit=st.none() | amounts,
        reinstatements=st.none() | st.lists(st.sampled_from([0.0, 0.5, 1.0]), max_size=3).map(tuple),
        participation=st.sampled_from([1.0, 0.5]),
    ),
    min_size=1,
    max_size=3,
)
histories = st.lists(st.lists(st.integers(1, 6), max_size=12), min_size=1, max_size=8)
tables = st.dictionaries(st.integers(1, 8), st.integers(0, 300).map(float), max_size=6)


@given(layers_of_a_deal, tables, histories)
def test_a_deal_loses_what_a_loop_over_its_years_gives(
    layers: list[Terms], losses: dict[int, float], years: list[list[int]]
) -> None:
    priced = price([terms.model_dump() for terms in layers], losses, years)
    expected = by_loop(layers, losses, years)
    # Whole numbers and halves: no rounding, so rows are the same exactly.
    assert priced["row"].tolist() == [row for row, loss in enumerate(expected) if loss > 0]
    assert priced["loss"].tolist() == [loss for loss in expected if loss > 0]


def test_event_ids_too_large_for_a_table_are_found_all_the_same() -> None:
    years = [[1, 2], [2], [3, 1]]
    losses = {1: 5.0, 2: 7.0, 4: 9.0}
    far = 2**31 - 5
    near = price([{"type": "QS"}], losses, years)
    moved = price(
        [{"type": "QS"}],
        {event + far: loss for event, loss in losses.items()},
        [[event + far for event in year] for year in years],
    )
    assert near["row"].tolist() == [0, 1, 2, 4]
    assert {name: array.tobytes() for name, array in moved.items()} == {
        name: array.tobytes() for name, array in near.items()
    }


def test_the_same_event_may_occur_twice_in_a_year_and_on_one_day() -> None:
    yet = year_events([[1, 1, 1]])
    yet["day"][:] = 5
    params = {"layers": [{"type": "CXL", "occurrence_limit": 10, "reinstatements": [1.0]}]}
    priced = run_model("price_deal", 1, params, [event_losses({1: 30.0}), yet])
    assert priced["row"].tolist() == [0, 1]
    assert priced["loss"].tolist() == [10.0, 10.0]


def test_layer_stats_are_sums_over_the_years_at_100_percent() -> None:
    layers = [
        {"type": "CXL", "occurrence_limit": 10, "reinstatements": [0.5], "participation": 0.1},
        {"type": "CXL", "occurrence_retention": 10, "occurrence_limit": 5},
        {"type": "QS", "ceded_share": 0.5},
    ]
    priced = price(layers, {1: 12.0, 2: 4.0}, [[1, 1, 1], [2], [], [2, 1]])
    found = [dict(zip(LAYER_STATS, row, strict=True)) for row in priced["layer_stats"].tolist()]
    sums = ("trials", "recovery", "recovery_squared", "attached", "exhausted", "reinstated")
    assert found[0] == dict(zip(sums, (4, 20 + 4 + 14, 400 + 16 + 196, 3, 1, 0.5 + 0.2 + 0.5), strict=True))
    # 2 of 12 in excess of 10: the occurrence limit is never taken whole.
    assert found[1] == dict(zip(sums, (4, 6 + 2, 36 + 4, 2, 0, 0), strict=True))
    assert found[2] == dict(zip(sums, (4, 18 + 2 + 8, 324 + 4 + 64, 3, 0, 0), strict=True))


def test_a_layer_without_an_aggregate_limit_is_exhausted_by_a_whole_occurrence_limit() -> None:
    layers = [{"type": "CXL", "occurrence_limit": 10}]
    priced = price(layers, {1: 10.0, 2: 9.0}, [[2, 2, 2], [1], [1, 1], []])
    assert priced["layer_stats"][0, LAYER_STATS.index("exhausted")] == 2


@pytest.mark.parametrize(
    ("losses", "years"),
    [({}, [[1, 2]]), ({1: 5.0}, [[]]), ({1: 5.0}, [[2, 3], []]), ({1: 0.0}, [[1]]), ({1: 1e-60}, [[1]])],
    ids=["empty ELT", "no occurrence", "none of its events", "no loss", "below float32"],
)
@pytest.mark.parametrize("deductible", [0.0, 100.0])
def test_a_deal_without_a_loss_keeps_its_types(
    losses: dict[int, float], years: list[list[int]], deductible: float
) -> None:
    priced = price([{"type": "SL", "aggregate_deductible": deductible}] * 2, losses, years)
    assert priced["row"].dtype == np.int32
    assert priced["loss"].dtype == np.float32
    assert priced["row"].size == priced["loss"].size == 0
    assert priced["layer_stats"].shape == (2, len(LAYER_STATS))
    assert priced["layer_stats"][:, 0].tolist() == [len(years)] * 2


@pytest.mark.parametrize(
    ("array", "sentence"),
    [
        ({"mean": np.array([1.0, math.nan])}, "negative, not a number"),
        ({"mean": np.array([1.0, math.inf])}, "negative, not a number"),
        ({"mean": np.array([1.0, -1.0])}, "negative, not a number"),
        ({"mean": np.array([1.0])}, "2 events and 1 mean losses"),
        ({"event": np.array([2, 2], np.int32)}, "not sorted, unique"),
        ({"event": np.array([2, 1], np.int32)}, "not sorted, unique"),
    ],
)
def test_a_bad_event_loss_table_is_refused_in_a_sentence(array: dict[str, Any], sentence: str) -> None:
    elt = Arrays({**event_losses({1: 1.0, 2: 2.0}), **array})
    with pytest.raises(ModelError, match=sentence):
        run_model("price_deal", 1, {"layers": [{"type": "QS"}]}, [elt, year_events([[1]])])


@pytest.mark.parametrize(
    ("array", "sentence"),
    [
        ({"trial": np.array([1, 0], np.int32)}, "not sorted within"),
        ({"trial": np.array([0, 2], np.int32)}, "not sorted within 0..1"),
        ({"day": np.array([0], np.int16)}, "differ in length"),
        ({"trials": np.array([0])}, "needs one at least"),
        ({"event": np.array([-1, 1], np.int32)}, "negative event id"),
    ],
)
def test_a_bad_year_event_table_is_refused_in_a_sentence(array: dict[str, Any], sentence: str) -> None:
    yet = Arrays({**year_events([[1], [1]]), **array})
    with pytest.raises(ModelError, match=sentence):
        run_model("price_deal", 1, {"layers": [{"type": "QS"}]}, [event_losses({1: 1.0}), yet])


def test_inputs_that_are_not_what_they_should_be_are_named() -> None:
    params = {"layers": [{"type": "QS"}]}
    with pytest.raises(ModelError, match="event loss table has no array event"):
        run_model("price_deal", 1, params, [Arrays(), year_events([[1]])])
    with pytest.raises(ModelError, match="given 1 input"):
        run_model("price_deal", 1, params, [event_losses({1: 1.0})])
    with pytest.raises(ModelError, match="layers"):
        run_model("price_deal", 1, {"layers": []}, [event_losses({1: 1.0}), year_events([[1]])])


def figures(terms: dict[str, Any], stats: list[float], brokerage: float = 0.0) -> dict[str, float]:
    found = price_figures(Terms(type="CXL", **terms), np.array(stats), brokerage)
    return dict(zip(PRICE_FIGURES, found.tolist(), strict=True))


def test_price_figures_are_at_our_share() -> None:
    # 10 years, annual recoveries 10, 10, 5: E[A] 2.5, sum of squares 225; half a premium of reinstatements in all.
    terms = {"occurrence_limit": 10, "reinstatements": (0.2,), "premium": 3.0, "participation": 0.5}
    found = figures(terms, [10, 25, 225, 3, 1, 0.5], brokerage=0.1)
    assert found == pytest.approx(
        {
            "expected_loss": 1.25,
            "sd": 0.5 * math.sqrt((225 - 10 * 2.5**2) / 9),
            "prob_attach": 0.3,
            "prob_exhaust": 0.1,
            "expected_reinstatement_premium": 0.5 * 3.0 * 0.05,
            "loss_on_line": 0.25,
            "rate_on_line": 0.3,
            "technical_premium": 1.25 / (1.05 - 0.1),
            # the standard deviation of the mean, and Wilson's limits of 3 and of 1 in 10
            "expected_loss_se": 0.5 * math.sqrt((225 - 25 * 2.5) / 9) / math.sqrt(10),
            "prob_attach_low": pytest.approx(0.1078, abs=5e-5),
            "prob_attach_high": pytest.approx(0.6032, abs=5e-5),
            "prob_exhaust_low": pytest.approx(0.0179, abs=5e-5),
            "prob_exhaust_high": pytest.approx(0.4042, abs=5e-5),
            "risk_load": 0,
            # nothing but the annual limit is known: bounds, worked out in test_models_errors.py
            "sd_se": found["sd_se"],
            "expected_reinstatement_premium_se": found["expected_reinstatement_premium_se"],
            "loss_on_line_se": found["expected_loss_se"] / 0.5 / 10,
            "technical_premium_se": found["technical_premium_se"],
            "risk_load_se": 0,
        }
    )


def test_price_figures_that_do_not_exist_are_nan() -> None:
    found = figures({"premium": 3.0}, [1, 5, 25, 1, 0, 0], brokerage=1.0)
    undefined = [name for name, value in found.items() if math.isnan(value)]
    assert undefined == [
        "sd",
        "prob_exhaust",
        "loss_on_line",
        "rate_on_line",
        "technical_premium",
        "expected_loss_se",
        "prob_exhaust_low",
        "prob_exhaust_high",
        "sd_se",
        "expected_reinstatement_premium_se",
        "loss_on_line_se",
        "technical_premium_se",
    ]
    assert found["expected_loss"] == 5
    zero = figures({"occurrence_limit": 0.0, "premium": 3.0}, [4, 0, 0, 0, 0, 0])
    assert [name for name, value in zero.items() if math.isnan(value)] == [
        "loss_on_line",
        "rate_on_line",
        "loss_on_line_se",
    ]
