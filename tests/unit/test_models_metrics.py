"""Measures of a group's losses, against hand-made years and closed forms."""

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from riskmill.errors import ModelError
from riskmill.models import run_model
from riskmill.models.metrics import RETURN_PERIODS, confidence_ranks, curve_ranks, quantile, tail_mean, worst
from riskmill.outputs import Arrays, encode

SCALARS = {"trials", "aal", "aal_se", "sd", "sd_se", "prob_loss", "tail", "var", "tvar", "tvar_se"}
SCALARS |= {"prob_loss_low", "prob_loss_high"}
SUFFIXES = ("", "_low", "_high", "_tvar", "_tvar_se")
TABLES = {name + suffix for name in ("oep", "aep") for suffix in SUFFIXES} | {"return_period"}
YEARS = {"annual_trial", "annual_loss"}
CURVES = {"curve_return_period", "curve_oep", "curve_aep"}


def block(years: list[list[float]]) -> tuple[Arrays, Arrays]:
    """Return a YET and a YELT of these losses; a loss of 0 is an occurrence without one."""
    sizes = [len(year) for year in years]
    losses = np.array([loss for year in years for loss in year], np.float64)
    rows = np.flatnonzero(losses)
    yet = Arrays(
        {
            "trial": np.repeat(np.arange(len(years), dtype=np.int32), sizes),
            "day": np.zeros(losses.size, np.int16),
            "event": np.ones(losses.size, np.int32),
            "trials": np.array([len(years)], np.int64),
        }
    )
    return yet, Arrays({"row": rows.astype(np.int32), "loss": losses[rows]})


def measure(years: list[list[float]], *, per_block: int | None = None, **params: Any) -> Arrays:
    size = per_block or len(years)
    blocks = [block(years[first : first + size]) for first in range(0, len(years), size)]
    inputs = [yet for yet, _ in blocks] + [yelt for _, yelt in blocks]
    return Arrays(run_model("measure", 3, {"blocks": len(blocks), **params}, inputs))


def at(measured: Arrays, name: str, return_period: int) -> float:
    return float(measured[name][RETURN_PERIODS.index(return_period)])


def test_the_exceedance_tables_of_a_thousand_years_are_its_order_statistics() -> None:
    # Year k loses k in one event and k / 2 in another: OEP of T years is the loss of rank 1000 / T.
    measured = measure([[float(k), k / 2] for k in range(1, 1001)])
    for period in RETURN_PERIODS:
        largest = 1001 - 1000 // period
        assert at(measured, "oep", period) == largest
        assert at(measured, "aep", period) == largest * 1.5
        assert at(measured, "oep_tvar", period) == pytest.approx((largest + 1000) / 2)
        assert at(measured, "aep_tvar", period) == pytest.approx((largest + 1000) / 2 * 1.5)
    assert measured["aal"][0] == pytest.approx(1.5 * 500.5)
    assert measured["sd"][0] == pytest.approx(1.5 * math.sqrt(1000 * 1001 / 12))
    assert measured["aal_se"][0] == pytest.approx(measured["sd"][0] / math.sqrt(1000))
    assert measured["prob_loss"].tolist() == [1.0]
    assert measured["trials"].tolist() == [1000]
    assert measured["tvar"][0] == pytest.approx(1.5 * (991 + 1000) / 2)
    assert measured["tail_trial"].tolist() == list(range(990, 1000))


def test_years_without_a_loss_count_as_zero() -> None:
    measured = measure([[], [0.0], [3.0, 4.0], []])
    assert measured["aal"][0] == 7 / 4
    assert measured["prob_loss"][0] == 0.25
    assert at(measured, "oep", 2) == 0
    assert at(measured, "aep_tvar", 2) == 3.5
    assert measured["curve_return_period"].tolist() == [4, 2, 4 / 3, 1]
    assert measured["curve_oep"].tolist() == [4, 0, 0, 0]
    assert measured["curve_aep"].tolist() == [7, 0, 0, 0]


def test_a_return_period_beyond_the_trials_is_nan() -> None:
    measured = measure([[1.0]] * 7)
    for name in ("oep", "oep_low", "oep_high", "oep_tvar", "aep", "aep_low", "aep_high", "aep_tvar"):
        assert math.isnan(at(measured, name, 10))
        assert measured[name].shape == (len(RETURN_PERIODS),)
    assert at(measured, "aep", 5) == 1.0


def test_between_ranks_the_larger_loss_is_taken() -> None:
    falling = np.arange(7.0, 0, -1)
    assert quantile(falling, 5)[0] == 7  # rank 1.4
    assert quantile(falling, 2)[0] == 5  # rank 3.5


def test_tail_means_weigh_the_boundary_trial_by_its_fraction() -> None:
    falling = np.array([10.0, 8.0, 5.0, 1.0])
    assert worst(4, Fraction(1, 2)) == (2, 0.0)
    assert worst(5, Fraction(3, 10)) == (1, 0.5)
    assert tail_mean(falling, 2, 0.0) == 9
    assert tail_mean(falling, 1, 0.5) == pytest.approx((10 + 4) / 1.5)
    assert tail_mean(falling, 0, 0.25) == 10


@pytest.mark.parametrize("trials", [1, 10, 40, 500, 1000, 20_000, 1_000_000])
@pytest.mark.parametrize("period", RETURN_PERIODS)
def test_confidence_ranks_are_the_quantiles_of_a_binomial(trials: int, period: int) -> None:
    upper, lower = confidence_ranks(trials, period)
    exceed = stats.binom(trials, 1 / period)
    assert exceed.cdf(upper - 1) <= 0.025 < exceed.cdf(upper)
    assert exceed.sf(lower - 1) <= 0.025
    assert lower == 0 or exceed.sf(lower - 2) > 0.025


def test_confidence_limits_bracket_the_estimate_or_are_nan() -> None:
    measured = measure([[float(k)] for k in range(1, 1001)])
    supported = [at(measured, "aep_high", period) for period in (2, 5, 10, 20, 25, 50, 100)]
    assert all(high > at(measured, "aep", p) for high, p in zip(supported, (2, 5, 10, 20, 25, 50, 100), strict=True))
    assert (measured["aep_low"] < measured["aep"]).all()
    # Of 1,000 trials none may exceed the 1,000-year loss: it has no upper limit.
    assert math.isnan(at(measured, "aep_high", 1000))


def test_confidence_intervals_cover_the_true_loss_as_often_as_they_say() -> None:
    rng = np.random.Generator(np.random.Philox(5))
    covered = 0
    for _ in range(400):
        _, low, high, _ = quantile(np.sort(rng.random(500))[::-1], 20)
        covered += low <= 0.95 <= high
    assert covered >= 0.93 * 400


def test_ties_at_the_boundary_of_the_tail_share_its_weight() -> None:
    measured = measure([[5.0], [9.0], [5.0], [1.0], [5.0]], tail=0.6)
    assert measured["tail_trial"].tolist() == [0, 1, 2, 4]
    assert measured["tail_weight"].tolist() == pytest.approx([1 / 6, 1 / 2, 1 / 6, 1 / 6])
    assert measured["var"].tolist() == [5.0]
    assert measured["tvar"].tolist() == pytest.approx([7.0])


@given(
    st.lists(st.lists(st.integers(0, 9).map(float), max_size=3), min_size=1, max_size=30),
    st.sampled_from([0.01, 0.5, 0.7, 0.9, 0.99, 0.999]),
)
def test_the_weights_of_the_tail_sum_to_one_and_give_its_mean(years: list[list[float]], tail: float) -> None:
    measured = measure(years, tail=tail)
    annual = np.array([sum(year) for year in years])
    weight = measured["tail_weight"]
    assert float(weight.sum()) == pytest.approx(1, rel=1e-12)
    assert (weight > 0).all()
    assert float((annual[measured["tail_trial"]] * weight).sum()) == pytest.approx(measured["tvar"][0], rel=1e-12)
    assert measured["tvar"][0] >= measured["var"][0] * (1 - 1e-12)


@given(st.lists(st.lists(st.floats(0, 1e6), max_size=4), min_size=1, max_size=30), st.integers(1, 12))
def test_measures_are_the_same_bytes_for_blocks_of_any_size(years: list[list[float]], per_block: int) -> None:
    assert encode(measure(years)) == encode(measure(years, per_block=per_block))


@pytest.mark.parametrize("years", [[[]], [[3.0]], [[], []], [[0.0]]], ids=["empty", "one", "two empty", "no loss"])
def test_the_fewest_trials_keep_every_array_and_type(years: list[list[float]]) -> None:
    measured = measure(years)
    assert set(measured) == SCALARS | TABLES | CURVES | YEARS | {"tail_trial", "tail_weight"}
    integers = {name for name, array in measured.items() if array.dtype == np.int64}
    assert integers == {"trials", "tail_trial"}
    assert all(array.dtype == np.float64 for name, array in measured.items() if name not in integers | {"annual_trial"})
    assert math.isnan(measured["sd"][0]) == (len(years) == 1)
    assert float(measured["tail_weight"].sum()) == pytest.approx(1)


def test_curve_ranks_begin_at_the_first_and_end_at_the_last() -> None:
    assert curve_ranks(1).tolist() == [1]
    assert curve_ranks(3).tolist() == [1, 2, 3]
    ranks = curve_ranks(1_000_000)
    assert (np.diff(ranks) > 0).all()
    assert (ranks[0], ranks[-1]) == (1, 1_000_000)
    assert ranks.size < 300


def test_ceded_is_gross_less_net_and_what_rounding_leaves_is_nothing() -> None:
    yet, gross = block([[10.0, 4.0], [6.0], [8.0]])
    _, net = block([[7.0, 0.0], [6.0 * (1 + 2e-16)], [8.0 * (1 - 2e-16)]])
    params = {"blocks": 1, "perspective": "ceded", "tail": 0.5}
    ceded = run_model("measure", 3, params, [yet, gross, net])
    assert ceded["aal"].tolist() == [pytest.approx(7 / 3)]
    assert ceded["prob_loss"].tolist() == [pytest.approx(1 / 3)]


def test_a_net_loss_of_another_group_is_refused() -> None:
    yet, gross = block([[10.0, 0.0], [6.0]])
    _, net = block([[10.0, 1.0], [6.0]])
    with pytest.raises(ModelError, match="not of the same group"):
        run_model("measure", 3, {"blocks": 1, "perspective": "ceded"}, [yet, gross, net])


def test_inputs_that_do_not_fit_are_counted_in_the_message() -> None:
    yet, yelt = block([[1.0]])
    with pytest.raises(ModelError, match="2 inputs"):
        run_model("measure", 3, {"blocks": 2}, [yet, yelt])
    with pytest.raises(ModelError, match="names row 0"):
        run_model("measure", 3, {"blocks": 1}, [block([[]])[0], yelt])
    with pytest.raises(ModelError, match="tail"):
        run_model("measure", 3, {"blocks": 1, "tail": 1.0}, [yet, yelt])
