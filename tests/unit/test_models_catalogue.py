"""Simulated years: their laws, and that a trial depends on nothing but the seed, the peril and its number."""

import json
import math
import random
from typing import Any

import numpy as np
import pytest
from scipy import stats

from riskmill.errors import ModelError
from riskmill.models import run_model
from riskmill.models.catalogue import DAYS_IN_MONTH, RNG_TRIALS, count_table
from riskmill.outputs import Arrays, encode

UNIFORM_YEAR = [days / 365 for days in DAYS_IN_MONTH]


def catalogue(
    rates: dict[str, list[float]],
    *,
    frequency: list[int] | None = None,
    variance_to_mean: list[float] | None = None,
    season: list[list[float]] | None = None,
) -> Arrays:
    """Return a catalogue of these perils; event ids run on from 1."""
    perils = len(rates)
    sizes = [len(values) for values in rates.values()]
    return Arrays(
        {
            "event": np.arange(1, sum(sizes) + 1, dtype=np.int32),
            "rate": np.array([rate for values in rates.values() for rate in values], np.float64),
            "peril": np.repeat(np.arange(perils, dtype=np.int32), sizes),
            "frequency": np.array(frequency or [0] * perils, np.int32),
            "variance_to_mean": np.array(variance_to_mean or [1.0] * perils),
            "season": np.array(season or [UNIFORM_YEAR] * perils),
            "peril_names": np.frombuffer(json.dumps(list(rates)).encode(), np.uint8),
        }
    )


def simulate(of: Arrays, *, seed: int = 1, first_trial: int = 0, trials: int = RNG_TRIALS) -> Arrays:
    return Arrays(run_model("simulate_years", 1, {"seed": seed, "first_trial": first_trial, "trials": trials}, [of]))


def counts(yet: Arrays, events: np.ndarray[Any, Any] | None = None) -> np.ndarray[Any, Any]:
    trial = yet["trial"] if events is None else yet["trial"][np.isin(yet["event"], events)]
    return np.bincount(trial, minlength=int(yet["trials"][0]))


@pytest.mark.parametrize("mean", [0.001, 0.2, 1.0, 4.23, 60.0, 1500.0])
def test_poisson_counts_have_the_closed_form_probabilities(mean: float) -> None:
    table = count_table("poisson", mean, 1.0)
    assert table.tolist() == pytest.approx(stats.poisson.cdf(np.arange(table.size), mean).tolist(), abs=1e-12)
    assert float(np.sum(1 - table)) == pytest.approx(mean, rel=1e-11)
    assert table[-1] == 1.0


def test_a_poisson_table_is_exact_to_the_last_bit_of_a_double() -> None:
    assert count_table("poisson", 1.0, 1.0)[:3].tolist() == [
        float.fromhex("0x1.78b56362cef38p-2"),
        float.fromhex("0x1.78b56362cef38p-1"),
        2.5 / math.e,
    ]


@pytest.mark.parametrize(("mean", "variance_to_mean"), [(1.41, 1.73), (4.23, 4.47), (0.3, 1.02), (25.0, 9.0)])
def test_negative_binomial_counts_have_the_closed_form_probabilities(mean: float, variance_to_mean: float) -> None:
    table = count_table("negative_binomial", mean, variance_to_mean)
    size = mean / (variance_to_mean - 1)
    exact = stats.nbinom.cdf(np.arange(table.size), size, 1 / variance_to_mean)
    assert table.tolist() == pytest.approx(exact.tolist(), abs=1e-12)


@pytest.mark.parametrize(
    ("mean", "variance_to_mean", "draws"), [(0.7, 0.3, 1), (3.0, 0.5, 6), (2.0, 0.9, 20), (2.4, 0.5, 5), (3.0, 0.0, 3)]
)
def test_binomial_counts_keep_the_mean_and_take_the_nearest_number_of_draws(
    mean: float, variance_to_mean: float, draws: int
) -> None:
    table = count_table("binomial", mean, variance_to_mean)
    exact = stats.binom.cdf(np.arange(table.size), draws, mean / draws)
    assert table.tolist() == pytest.approx(exact.tolist(), abs=1e-12)
    assert float(np.sum(1 - table)) == pytest.approx(mean, rel=1e-11)


@pytest.mark.parametrize(
    ("frequency", "mean", "variance_to_mean", "sentence"),
    [
        ("poisson", 0.0, 1.0, "above 0"),
        ("poisson", math.nan, 1.0, "above 0"),
        ("poisson", 1e6, 1.0, "at most 10000"),
        ("negative_binomial", 1.0, 1.0, "above 1"),
        ("negative_binomial", 1.0, math.inf, "above 1"),
        ("negative_binomial", 1.0, 1e6, "too long a tail"),
        ("binomial", 1.0, 1.0, "below 1"),
        ("zipf", 1.0, 1.0, "unknown frequency"),
    ],
)
def test_a_law_that_cannot_be_is_refused_in_a_sentence(
    frequency: str, mean: float, variance_to_mean: float, sentence: str
) -> None:
    with pytest.raises(ModelError, match=sentence):
        count_table(frequency, mean, variance_to_mean)


def test_simulated_counts_have_the_mean_and_variance_of_their_law() -> None:
    of = catalogue(
        {"poisson": [0.5, 1.5], "clustered": [1.0, 2.0], "regular": [0.25, 0.75, 2.0]},
        frequency=[0, 1, 2],
        variance_to_mean=[1.0, 2.5, 0.5],
    )
    yet = simulate(of, trials=100_000)
    for events, mean, variance in (([1, 2], 2.0, 2.0), ([3, 4], 3.0, 7.5), ([5, 6, 7], 3.0, 1.5)):
        found = counts(yet, np.array(events))
        # Within four and a half standard errors: a fixed seed, so this never flickers.
        assert abs(found.mean() - mean) < 4.5 * math.sqrt(variance / 100_000)
        assert abs(found.var() / variance - 1) < 0.03


def test_events_occur_in_proportion_to_their_rates() -> None:
    rates = [0.1, 0.4, 1.5, 0.001, 2.0]
    yet = simulate(catalogue({"wind": rates}), trials=50_000)
    found = np.bincount(yet["event"], minlength=6)[1:]
    expected = np.array(rates) / sum(rates) * yet["event"].size
    assert stats.chisquare(found, expected).pvalue > 1e-4


def test_days_follow_the_weights_of_the_months() -> None:
    season: list[list[float]] = [[0, 0, 0, 0, 0, 1, 1, 2, 2, 1, 0, 0]]
    yet = simulate(catalogue({"wind": [5.0]}, season=season))
    first_of_june, first_of_november = 151, 304
    assert yet["day"].min() >= first_of_june
    assert yet["day"].max() < first_of_november
    month = np.searchsorted(np.cumsum(DAYS_IN_MONTH), yet["day"], side="right")
    found = np.bincount(month, minlength=12)[5:10]
    assert stats.chisquare(found, np.array([1, 1, 2, 2, 1]) / 7 * yet["day"].size).pvalue > 1e-4


def test_without_a_season_every_day_is_as_likely() -> None:
    yet = simulate(catalogue({"quake": [20.0]}))
    found = np.bincount(yet["day"], minlength=365)
    assert found.size == 365
    assert stats.chisquare(found).pvalue > 1e-4


def test_occurrences_are_sorted_by_trial_and_day() -> None:
    yet = simulate(catalogue({"a": [3.0], "b": [2.0, 2.0]}), trials=12_000)
    when = yet["trial"].astype(np.int64) * 365 + yet["day"]
    assert (np.diff(when) >= 0).all()
    assert yet["trial"].max() < 12_000


def test_trials_are_the_same_for_blocks_of_any_size_made_in_any_order() -> None:
    of = catalogue({"a": [0.5, 1.5], "b": [1.0, 2.0]}, frequency=[0, 1], variance_to_mean=[1.0, 2.5])
    whole = simulate(of, trials=100_000)
    for size in (10_000, 50_000, 100_000):
        firsts = list(range(0, 100_000, size))
        random.Random(size).shuffle(firsts)
        blocks = {first: simulate(of, first_trial=first, trials=size) for first in firsts}
        in_order = sorted(blocks.items())
        assert np.array_equal(np.concatenate([b["trial"] + first for first, b in in_order]), whole["trial"])
        for name in ("day", "event"):
            assert np.concatenate([block[name] for _, block in in_order]).tobytes() == whole[name].tobytes()


def test_a_shorter_run_is_the_beginning_of_a_longer_one() -> None:
    of = catalogue({"a": [1.5]})
    short, long = simulate(of, trials=12_345), simulate(of, trials=20_000)
    size = short["trial"].size
    assert short["trials"].tolist() == [12_345]
    for name in ("trial", "day", "event"):
        assert np.array_equal(short[name], long[name][:size])
    assert long["trial"][size] >= 12_345


def test_another_peril_leaves_the_occurrences_of_the_first_alone() -> None:
    alone = simulate(catalogue({"a": [1.5, 0.5]}))
    both = simulate(catalogue({"a": [1.5, 0.5], "b": [2.0]}))
    of_a = both["event"] <= 2
    for name in ("trial", "day", "event"):
        assert np.array_equal(both[name][of_a], alone[name])


def test_another_seed_gives_other_years() -> None:
    of = catalogue({"a": [1.5]})
    assert encode(simulate(of, seed=1)) != encode(simulate(of, seed=2))
    assert encode(simulate(of, seed=2**63 - 1)) == encode(simulate(of, seed=2**63 - 1))


@pytest.mark.parametrize("rates", [{}, {"a": []}, {"a": [1e-12]}], ids=["no peril", "no event", "no occurrence"])
def test_years_without_an_occurrence_keep_their_types(rates: dict[str, list[float]]) -> None:
    of = catalogue(rates, season=[UNIFORM_YEAR] * len(rates) or np.empty((0, 12)).tolist())
    of["season"] = of["season"].reshape(-1, 12)
    yet = simulate(of, trials=7)
    found = {name: (array.dtype.name, array.shape) for name, array in yet.items()}
    assert found == {
        "trial": ("int32", (0,)),
        "day": ("int16", (0,)),
        "event": ("int32", (0,)),
        "trials": ("int64", (1,)),
    }


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("rate", np.array([1.0, 0.0]), "rate is not a number above 0"),
        ("rate", np.array([1.0, math.nan]), "rate is not a number above 0"),
        ("rate", np.array([1.0]), "differ in length"),
        ("event", np.array([2, 1], np.int32), "sorted"),
        ("event", np.array([0, 1], np.int32), "sorted"),
        ("peril", np.array([0, 1], np.int32), "beyond its 1"),
        ("frequency", np.array([3], np.int32), "unknown frequency 3"),
        ("season", np.zeros((1, 12)), "weights of the months"),
        ("season", np.full((1, 12), math.nan), "weights of the months"),
        ("season", np.ones((1, 11)), "lack their months"),
    ],
)
def test_a_bad_catalogue_is_refused_in_a_sentence(name: str, value: np.ndarray[Any, Any], sentence: str) -> None:
    of = catalogue({"a": [1.0, 2.0]})
    of[name] = value
    with pytest.raises(ModelError, match=sentence):
        simulate(of)


def test_a_catalogue_without_an_array_is_refused() -> None:
    of = catalogue({"a": [1.0]})
    del of["season"]
    with pytest.raises(ModelError, match="no array season"):
        simulate(of)


@pytest.mark.parametrize("params", [{"first_trial": 5_000}, {"trials": 0}, {"seed": 2**63}, {"seed": -1}])
def test_parameters_that_would_break_the_streams_are_refused(params: dict[str, int]) -> None:
    with pytest.raises(ModelError, match="simulate_years version 1"):
        simulate(catalogue({"a": [1.0]}), **params)
