"""Fitted tails, against laws whose tail is known."""

import numpy as np
import pytest

from riskmill.errors import ModelError
from riskmill.models import run_model, severity_fits
from riskmill.models.tail_fit import MIN_EXCESSES, TAIL_FIGURES, TAIL_PERIODS, TAIL_SHARES, tail_work
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
    given = {"blocks": len(inputs) // 2, "replicates": 5, "seed": 7, "shares": [0.02, 0.01]} | params
    return run_model("fit_tail", 2, given, inputs)


def figures(output: dict[str, np.ndarray], kind: str, share: int) -> dict[str, float]:
    """Return the figures of one threshold by their names."""
    return dict(zip(TAIL_FIGURES, output[f"{kind}_fit"][share].tolist(), strict=True))


def test_a_generalised_pareto_tail_is_found_at_every_threshold_and_its_quantiles_lie_in_their_intervals() -> None:
    output = fit([years(), pareto_losses()], replicates=100, shares=TAIL_SHARES)
    exact = THRESHOLD + SCALE / SHAPE * ((1 / np.array(TAIL_PERIODS)) ** -SHAPE - 1)
    assert output["share"].tolist() == list(TAIL_SHARES)
    for at, share in enumerate(TAIL_SHARES):
        found = figures(output, "oep", at)
        assert found["excesses"] == pytest.approx(TRIALS * share, abs=1)
        assert found["threshold"] == pytest.approx(THRESHOLD + SCALE / SHAPE * (share**-SHAPE - 1), rel=0.01)
        # The law above a higher threshold has the same shape, and a scale that grows with the threshold by it.
        scale = SCALE + SHAPE * (found["threshold"] - THRESHOLD)
        assert found["shape_low"] < SHAPE < found["shape_high"]
        assert found["scale_low"] < scale < found["scale_high"]
        assert found["shape_low"] < found["shape"] < found["shape_high"]
        assert found["ks_p"] > 0.5
        assert found["ad_p"] > 0.5
        assert found["failed_share"] == 0
        assert (output["oep_low"][at] < exact).all()
        assert (exact < output["oep_high"][at]).all()
        assert output["oep"][at, :2] == pytest.approx(exact[:2], rel=0.03)
    # Fewer years, wider intervals.
    widths = output["oep_high"][:, -1] - output["oep_low"][:, -1]
    assert widths[0] < widths[3] < widths[-1]
    # One occurrence a year: the sum of the year is its largest loss; the samples are other ones.
    np.testing.assert_array_equal(output["aep"], output["oep"])
    assert (output["aep_low"] != output["oep_low"]).any()


def test_a_tail_of_another_kind_is_found_out_by_its_p_values() -> None:
    losses = pareto_losses()
    # Half of the years of the tail lie far above the others.
    losses["loss"] = np.where(losses["loss"] > 597, losses["loss"] + 1000, losses["loss"])
    found = figures(fit([years(), losses], replicates=99, shares=[0.02]), "oep", 0)
    assert found["ks_p"] == found["ad_p"] == pytest.approx(0.01)


def test_a_tail_that_rises_to_an_end_has_no_law_of_an_admitted_shape_and_says_so() -> None:
    losses = pareto_losses()
    # Evenly up to an end, as losses up to a limit may be: a shape of -1, where likelihoods have no maximum.
    losses["loss"] = np.where(losses["loss"] > 400, 500 + np.arange(TRIALS) / TRIALS, losses["loss"])
    output = fit([years(), losses], shares=[0.01])
    found = figures(output, "oep", 0)
    assert found["excesses"] == 200
    assert np.isnan(found["shape"])
    assert np.isnan(output["oep"]).all()


def test_the_same_job_gives_the_same_bytes_and_blocks_do_not_matter() -> None:
    whole = [years(), pareto_losses()]
    assert encode(fit(whole)) == encode(fit(whole))
    half, losses = years(TRIALS // 2), pareto_losses()["loss"]
    rows = np.arange(TRIALS // 2, dtype=np.int32)
    parts = [Arrays({"row": rows, "loss": part}) for part in np.split(losses, 2)]
    assert encode(fit([half, half, *parts])) == encode(fit(whole))


def test_how_many_samples_are_held_at_once_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = [years(), pareto_losses()]
    expected = encode(fit(whole, replicates=9))
    monkeypatch.setattr(severity_fits, "_CELLS", 700)
    monkeypatch.setattr(severity_fits, "_HOT", 300)
    assert encode(fit(whole, replicates=9)) == expected


def test_another_seed_draws_other_samples_around_the_same_fit() -> None:
    first, second = fit([years(), pareto_losses()]), fit([years(), pareto_losses()], seed=8)
    np.testing.assert_array_equal(first["oep"], second["oep"])
    assert (first["oep_high"] != second["oep_high"]).any()


def test_figures_have_six_significant_digits() -> None:
    output = fit([years(), pareto_losses()])
    for name in ("oep", "oep_low", "oep_high", "oep_fit"):
        cells = output[name].ravel().tolist()
        assert cells == [float(f"{value:.6g}") for value in cells]


def test_too_few_excesses_give_no_tail() -> None:
    trials = (MIN_EXCESSES - 1) * 100
    output = fit([years(trials), pareto_losses(trials)])
    assert np.isnan(output["oep"][1]).all()
    assert np.isnan(figures(output, "oep", 1)["shape"])
    assert not np.isnan(output["oep"][0]).any()


def test_the_work_is_the_number_of_excesses_that_laws_are_fitted_to() -> None:
    output = fit([years(), pareto_losses()], shares=TAIL_SHARES)
    excesses = sum(figures(output, kind, at)["excesses"] for kind in ("oep", "aep") for at in range(len(TAIL_SHARES)))
    assert tail_work(TRIALS, 5) == pytest.approx(5 * excesses)


def test_inputs_that_do_not_fit_together_are_refused() -> None:
    with pytest.raises(ModelError, match="names row"):
        fit([years(100), pareto_losses()])
    with pytest.raises(ModelError, match="inputs"):
        fit([years(), pareto_losses(), pareto_losses()], blocks=1)
