"""Fitted tails, against laws whose tail is known."""

import numpy as np
import pytest

from riskmill.errors import ModelError
from riskmill.models import run_model
from riskmill.models.tail_fit import MIN_EXCESSES, TAIL_PERIODS
from riskmill.outputs import Arrays, encode

TRIALS = 20_000
SHAPE, SCALE, THRESHOLD = 0.3, 50.0, 100.0


def years(trials: int = TRIALS) -> Arrays:
    """A year-event table with one occurrence a year."""
    rows = np.arange(trials, dtype=np.int32)
    return Arrays(
        {
            "trial": rows,
            "day": np.zeros(trials, np.int16),
            "event": np.ones(trials, np.int32),
            "trials": np.array([trials], np.int64),
        }
    )


def pareto_losses(trials: int = TRIALS) -> Arrays:
    """Losses whose excesses over THRESHOLD follow the law exactly, at evenly spaced probabilities."""
    survival = (np.arange(trials) + 0.5) / trials
    loss = THRESHOLD + SCALE / SHAPE * (survival**-SHAPE - 1)
    shuffled = np.random.default_rng(3).permutation(loss)
    return Arrays({"row": np.arange(trials, dtype=np.int32), "loss": shuffled})


def fit(inputs: list[Arrays], **params: object) -> dict[str, np.ndarray]:
    return run_model("fit_tail", 1, {"blocks": len(inputs) // 2, "replicates": 5, "seed": 7} | params, inputs)


def test_a_generalised_pareto_tail_is_found_and_its_quantiles_lie_in_their_intervals() -> None:
    output = fit([years(), pareto_losses()], replicates=25)
    survival = 1 / np.array(TAIL_PERIODS)
    exact = THRESHOLD + SCALE / SHAPE * (survival**-SHAPE - 1)
    threshold, excesses, shape, low, high = output["oep_fit"]
    assert excesses == pytest.approx(TRIALS / 100, abs=1)
    assert threshold == pytest.approx(THRESHOLD + SCALE / SHAPE * (0.01**-SHAPE - 1), rel=0.01)
    assert low < SHAPE < high
    assert low < shape < high
    assert (output["oep_low"] < exact).all()
    assert (exact < output["oep_high"]).all()
    assert output["oep"][:2] == pytest.approx(exact[:2], rel=0.03)
    # one occurrence a year: the sum of the year is its largest loss; the samples are other ones
    np.testing.assert_array_equal(output["aep"], output["oep"])
    assert (output["aep_low"] != output["oep_low"]).any()


def test_the_same_job_gives_the_same_bytes_and_blocks_do_not_matter() -> None:
    whole = [years(), pareto_losses()]
    assert encode(fit(whole)) == encode(fit(whole))
    half, losses = years(TRIALS // 2), pareto_losses()["loss"]
    rows = np.arange(TRIALS // 2, dtype=np.int32)
    parts = [Arrays({"row": rows, "loss": part}) for part in np.split(losses, 2)]
    assert encode(fit([half, half, *parts])) == encode(fit(whole))


def test_another_seed_draws_other_samples_around_the_same_fit() -> None:
    first, second = fit([years(), pareto_losses()]), fit([years(), pareto_losses()], seed=8)
    np.testing.assert_array_equal(first["oep"], second["oep"])
    assert (first["oep_high"] != second["oep_high"]).any()


def test_figures_have_six_significant_digits() -> None:
    output = fit([years(), pareto_losses()])
    for name in ("oep", "oep_low", "oep_high", "oep_fit"):
        assert output[name].tolist() == [float(f"{value:.6g}") for value in output[name].tolist()]


def test_too_few_excesses_give_no_tail() -> None:
    trials = (MIN_EXCESSES - 1) * 100
    output = fit([years(trials), pareto_losses(trials)])
    assert np.isnan(output["oep"]).all()
    assert np.isnan(output["oep_fit"]).all()


def test_inputs_that_do_not_fit_together_are_refused() -> None:
    with pytest.raises(ModelError, match="names row"):
        fit([years(100), pareto_losses()])
    with pytest.raises(ModelError, match="inputs"):
        fit([years(), pareto_losses(), pareto_losses()], blocks=1)
