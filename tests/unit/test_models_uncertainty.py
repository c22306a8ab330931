"""Secondary uncertainty: the beta table, the laws of an ELT, and samples that do not depend on blocks or rows."""

import hashlib
from importlib.resources import files
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from riskmill.errors import ModelError
from riskmill.models import run_model
from riskmill.models.beta_table import BINS, FILE, beta_table, bin_edges, make_table
from riskmill.models.catalogue import RNG_TRIALS
from riskmill.models.uncertainty import Laws, Sampling, beta_laws, draw, largest_losses, sample_losses
from riskmill.outputs import Arrays

EDGES = bin_edges().astype(np.int64)
WIDTH = np.diff(bin_edges()) / 2.0**32


def laws_of(ratio: Any, spread: Any) -> Laws:
    """Return laws on 0 to 1 with these means and standard deviations."""
    ratio, spread = np.asarray(ratio, float), np.asarray(spread, float)
    ones = np.ones(ratio.size)
    return beta_laws(ratio, ratio, spread, ones, np.zeros(ratio.size), ones > 0)


def moments(laws: Laws) -> tuple[Any, Any]:
    """Return mean and standard deviation over every bin of both sides; within one, losses are linear."""
    events = np.arange(laws.mean.size)
    first, second = np.zeros(events.size), np.zeros(events.size)
    for side in (0, 1):
        for number in range(BINS):
            # Two points inside give the line; its ends are at the bin's edges.
            span = EDGES[number + 1] - EDGES[number]
            inside = EDGES[number] + np.array([span // 4, 3 * span // 4])
            low, high = (draw(laws, events, np.full(events.size, at + (side << 31))) for at in inside)
            slope = (high - low) / (inside[1] - inside[0])
            middle = low + slope * (EDGES[number] + span / 2 - inside[0] - 0.5)
            first += middle * WIDTH[number]
            second += (middle**2 + (slope * span) ** 2 / 12) * WIDTH[number]
    return first, np.sqrt(np.maximum(second - first**2, 0))


def test_the_tables_bytes_are_those_that_results_were_pinned_with() -> None:
    data = files("riskmill.models").joinpath(FILE).read_bytes()
    assert hashlib.sha256(data).hexdigest() == "a9fac8f604436e758d0c07b5bcd7d1dff66f56c33023624aa83c3e0371d7cb4b"


def test_the_table_is_what_scipy_gives() -> None:
    """Where a host's functions differ, they do so in a last bit, of single precision at that."""
    with files("riskmill.models").joinpath(FILE).open("rb") as file:
        stored = np.load(file)
    assert np.allclose(stored, make_table(), rtol=1e-5, atol=1e-6)


def test_the_table_is_standardised() -> None:
    table = beta_table()
    mean = (table[..., 0] * WIDTH).sum(axis=(-1, -2))
    assert np.abs(mean).max() < 1e-12
    deviation = np.sqrt(((table[..., 0] ** 2 + table[..., 1] ** 2 / 12) * WIDTH).sum(axis=(-1, -2)))
    # A law of two points lacks what lies within the one bin that holds the step; the rarest of points are too rare.
    assert np.abs(deviation[:35, 1:] - 1).max() < 1e-3
    assert np.abs(deviation[:35, 0] - 1).max() < 0.04


def test_the_mean_is_exact_and_the_standard_deviation_within_the_stated_tolerance() -> None:
    random = np.random.default_rng(1)
    size = 3_000
    ratio = np.exp(random.uniform(np.log(2.0**-20), 0, size)) * 0.999
    ratio = np.where(random.random(size) < 0.5, ratio, 1 - ratio)
    normalised = np.exp(random.uniform(np.log(1e-3), 0, size))
    mean, deviation = moments(laws_of(ratio, normalised * np.sqrt(ratio * (1 - ratio))))
    assert mean == pytest.approx(ratio, rel=1e-6)
    error = np.abs(deviation / (normalised * np.sqrt(ratio * (1 - ratio))) - 1)
    usual = (normalised <= 0.7) & (np.minimum(ratio, 1 - ratio) > 2.0**-18)
    assert error[usual].max() < 0.01
    assert error[(normalised <= 0.97) & (np.minimum(ratio, 1 - ratio) > 2.0**-12)].max() < 0.05
    assert error[np.minimum(ratio, 1 - ratio) > 2.0**-12].max() < 0.09


@pytest.mark.parametrize(("mean", "sd"), [(0.3, 0.2), (0.05, 0.1), (0.8, 0.15), (0.01, 0.01), (0.5, 0.29)])
def test_samples_have_the_quantiles_of_the_beta_law(mean: float, sd: float) -> None:
    number = np.random.default_rng(2).integers(0, 2**32, 200_000)
    found = draw(laws_of([mean], [sd]), np.zeros(number.size, np.int64), number)
    size = mean * (1 - mean) / sd**2 - 1
    exact = stats.beta(mean * size, (1 - mean) * size)
    for probability in (0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99, 0.999):
        # A quarter of the last percentile's error is that of 200,000 samples.
        assert np.quantile(found, probability) == pytest.approx(exact.ppf(probability), abs=0.04 * sd, rel=0.04)


@given(
    st.floats(2.0**-22, 1 - 2.0**-22),
    st.floats(1e-4, 0.999),
    st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=20),
)
def test_losses_stay_within_the_exposure_rise_within_a_bin_and_from_bin_to_bin_in_the_mean(
    mean: float, normalised: float, numbers: list[int]
) -> None:
    """A bin's line has its law's mean and variance there, so the ends of neighbouring bins may overlap."""
    laws = laws_of([mean], [normalised * (mean * (1 - mean)) ** 0.5])
    lower = np.array(sorted(number >> 1 for number in numbers), np.int64)
    bins = np.searchsorted(EDGES, lower, side="right")
    span = np.diff(EDGES)
    for side, step in ((0, 1), (1, -1)):
        found = draw(laws, np.zeros(lower.size, np.int64), lower + (side << 31))
        assert ((found >= 0) & (found <= 1)).all()
        assert (np.diff(found)[np.diff(bins) == 0] * step >= -1e-12).all()
        quarters = [
            draw(laws, np.zeros(BINS, np.int64), EDGES[:-1] + part + (side << 31))
            for part in (span // 4, 3 * span // 4)
        ]
        assert (np.diff(quarters[0] + quarters[1]) * step >= -1e-9).all()


def uncertain_elt(events: int = 40, correlated: float = 0.5) -> Arrays:
    """Return an ELT with means of 1 to 10, a coefficient of variation of one half, exposures of ten times the mean."""
    mean = 1.0 + np.arange(events) % 10
    return Arrays(
        {
            "event": np.arange(1, events + 1, dtype=np.int32),
            "mean": mean,
            "sd_independent": mean * 0.5 * (1 - correlated),
            "sd_correlated": mean * 0.5 * correlated,
            "exposure": mean * 10,
        }
    )


def years(trials: int, events: int = 40) -> Arrays:
    """Return a YET with two occurrences a year."""
    random = np.random.default_rng(3)
    return Arrays(
        {
            "trial": np.repeat(np.arange(trials, dtype=np.int32), 2),
            "day": np.tile(np.array([10, 200], np.int16), trials),
            "event": random.integers(1, events + 1, 2 * trials).astype(np.int32),
            "trials": np.array([trials], np.int64),
        }
    )


def part_of(yet: Arrays, first: int, trials: int) -> Arrays:
    chosen = (yet["trial"] >= first) & (yet["trial"] < first + trials)
    parts = {name: yet[name][chosen] for name in ("day", "event")}
    return Arrays({**parts, "trial": yet["trial"][chosen] - first, "trials": np.array([trials], np.int64)})


def sampled(elt: Arrays, yet: Arrays, stream: str = "a", first_trial: int = 0, rows: Any = None) -> Any:
    row = np.arange(yet["trial"].size, dtype=np.int32) if rows is None else rows
    sampling = Sampling(seed=5, first_trial=first_trial, stream=stream)
    return sample_losses(sampling, elt, yet, row, yet["event"][row].astype(np.int64) - 1)


def test_samples_are_the_same_for_blocks_of_any_size_and_for_any_rows() -> None:
    elt, yet = uncertain_elt(), years(3 * RNG_TRIALS)
    whole = sampled(elt, yet)
    parts = [
        sampled(elt, part_of(yet, first, trials), first_trial=first)
        for first, trials in ((0, RNG_TRIALS), (RNG_TRIALS, 2 * RNG_TRIALS))
    ]
    assert np.concatenate(parts).tobytes() == whole.tobytes()
    some = np.flatnonzero(yet["event"] % 3 == 0).astype(np.int32)
    assert sampled(elt, yet, rows=some).tobytes() == whole[some].tobytes()


def test_samples_have_the_mean_and_standard_deviation_of_the_elt() -> None:
    elt, yet = uncertain_elt(), years(100_000)
    loss = sampled(elt, yet) / elt["mean"][yet["event"] - 1]
    assert loss.mean() == pytest.approx(1, abs=4 * 0.5 / 200_000**0.5)
    assert loss.std() == pytest.approx(0.5, rel=0.01)


@pytest.mark.parametrize("correlated", [0.0, 0.5, 1.0])
def test_two_elts_move_together_as_far_as_their_deviations_are_correlated(correlated: float) -> None:
    """The covariance of two laws of one shape is sd_correlated1 x sd_correlated2: a correlation of w1 w2."""
    yet = years(100_000)
    scale = yet["event"] % 10 + 1.0
    one = sampled(uncertain_elt(correlated=correlated), yet, "one") / scale
    two = sampled(uncertain_elt(correlated=correlated), yet, "two") / scale
    relative = [loss / loss.mean() for loss in (one, two)]
    standard = [(loss * scale / uncertain_elt()["mean"][yet["event"] - 1] - 1) / 0.5 for loss in (one, two)]
    assert float(np.mean(standard[0] * standard[1])) == pytest.approx(correlated**2, abs=0.02)
    assert len(relative) == 2
    if correlated == 1:
        assert one.tobytes() == two.tobytes()


def test_deals_with_the_same_elt_have_the_same_losses() -> None:
    yet = years(1_000)
    assert sampled(uncertain_elt(), yet).tobytes() == sampled(uncertain_elt(), yet).tobytes()
    assert sampled(uncertain_elt(), yet).tobytes() != sampled(uncertain_elt(), yet, "b").tobytes()


def test_events_without_a_deviation_cost_their_mean() -> None:
    elt = uncertain_elt()
    elt["sd_independent"][:20] = elt["sd_correlated"][:20] = 0
    yet = years(1_000)
    loss = sampled(elt, yet)
    certain = yet["event"] <= 20
    assert loss[certain].tolist() == elt["mean"][yet["event"][certain] - 1].tolist()
    assert (loss[~certain] != elt["mean"][yet["event"][~certain] - 1]).all()
    assert largest_losses(elt)[:21].tolist() == [*elt["mean"][:20].tolist(), elt["exposure"][20]]


def test_an_elt_without_any_deviation_is_priced_to_the_same_bytes_with_sampling_and_without() -> None:
    elt = Arrays({name: uncertain_elt()[name] for name in ("event", "mean")})
    layers = {
        "layers": [{"type": "CXL", "occurrence_retention": 3.0, "occurrence_limit": 4.0, "reinstatements": [1.0]}]
    }
    sampling = {"sampling": {"seed": 1, "first_trial": 0, "stream": "x"}}
    plain = run_model("price_deal", 1, layers, [elt, years(500)])
    drawn = run_model("price_deal", 1, layers | sampling, [elt, years(500)])
    assert {name: array.tobytes() for name, array in plain.items()} == {
        name: array.tobytes() for name, array in drawn.items()
    }


def test_a_quota_share_of_sampled_losses_is_that_share_of_every_sample() -> None:
    elt, yet = uncertain_elt(), years(500)
    params = {
        "layers": [{"type": "QS", "ceded_share": 0.25}],
        "sampling": {"seed": 5, "first_trial": 0, "stream": "a"},
    }
    priced = run_model("price_deal", 1, params, [elt, yet])
    loss = sampled(elt, yet)
    assert priced["loss"].tolist() == (loss[loss > 0] * 0.25).astype(np.float32).tolist()


def test_a_layer_above_every_mean_is_reached_by_samples() -> None:
    elt, yet = uncertain_elt(), years(20_000)
    params: dict[str, Any] = {"layers": [{"type": "CXL", "occurrence_retention": 11.0}]}
    assert run_model("price_deal", 1, params, [elt, yet])["row"].size == 0
    params["sampling"] = {"seed": 5, "first_trial": 0, "stream": "a"}
    priced = run_model("price_deal", 1, params, [elt, yet])
    loss = sampled(elt, yet)
    assert priced["row"].tolist() == np.flatnonzero(loss > 11).tolist()
    assert priced["row"].size > 1_000


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"exposure": None}, "needs the exposures"),
        ({"exposure": np.full(40, 5.0)}, "not below its exposure"),
        ({"sd_independent": np.full(40, 1e3)}, "no beta law"),
        ({"sd_correlated": np.full(40, -1.0)}, "negative or not a number"),
    ],
)
def test_losses_that_no_beta_law_has_are_refused(change: dict[str, Any], message: str) -> None:
    elt = Arrays({name: array for name, array in (uncertain_elt() | change).items() if array is not None})
    with pytest.raises(ModelError, match=message):
        sampled(elt, years(10))
