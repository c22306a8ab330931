"""Laws of the number of losses a year: the record's dispersion, maxima of likelihoods, and tests of the year."""

import numpy as np
import pytest
from scipy import stats

from riskmill.errors import ModelError
from riskmill.models.frequency_fits import fit_counts, fit_season

CLUSTERED = np.array([0, 5, 1, 0, 9, 2, 0, 1, 7, 0, 0, 4, 3, 0, 12, 1, 0, 2, 6, 1])
REGULAR = np.array([2, 3, 2, 2, 1, 3, 2, 2, 3, 1, 2, 2, 4, 2, 1, 2, 3, 2, 2, 3])


def laws(report):
    return {fit.law: fit for fit in report.laws}


def test_a_negative_binomial_law_has_the_mean_of_the_counts_and_the_largest_likelihood():
    report = fit_counts(CLUSTERED)
    fit = laws(report)["negative_binomial"]
    mean, size = fit.parameters["mean"].value, fit.parameters["size"].value
    assert mean == CLUSTERED.mean()
    assert fit.parameters["variance_to_mean"].value == pytest.approx(1 + mean / size)

    def likelihood(r):
        return stats.nbinom.logpmf(CLUSTERED, r, r / (r + mean)).sum()

    assert fit.log_likelihood == pytest.approx(likelihood(size))
    assert max(likelihood(size * 0.99), likelihood(size * 1.01)) < fit.log_likelihood
    assert fit.aic < laws(report)["poisson"].aic
    assert (report.clustering, report.law) == ("clustered", "negative_binomial")
    assert "not below their mean" in laws(report)["binomial"].refused


def test_a_binomial_law_has_the_number_of_trials_with_the_largest_likelihood():
    report = fit_counts(REGULAR)
    fit = laws(report)["binomial"]
    likelihoods = [stats.binom.logpmf(REGULAR, n, REGULAR.mean() / n).sum() for n in range(4, 60)]
    assert fit.parameters["trials"].value == 4 + int(np.argmax(likelihoods))
    assert fit.log_likelihood == pytest.approx(max(likelihoods))
    assert (report.clustering, report.law) == ("regular", "binomial")
    assert "not above their mean" in laws(report)["negative_binomial"].refused


def test_poisson_counts_show_no_clustering_and_their_statistics_are_those_of_the_definition():
    counts = stats.poisson.ppf((np.arange(40) + 0.5) / 40, 2.0).astype(np.int64)[np.argsort(np.arange(40) * 17 % 40)]
    report = fit_counts(counts, bootstrap=50)
    assert (report.clustering, report.law) == ("none shown", "poisson")
    fit = laws(report)["poisson"]
    at = np.arange(200)
    gap = (counts[:, None] <= at).mean(axis=0) - stats.poisson.cdf(at, counts.mean())
    assert fit.ks == pytest.approx(np.abs(gap).max())
    assert fit.ks_p > 0.2
    assert report.rate.low < report.rate.value < report.rate.high
    assert report.variance_to_mean.low < report.variance_to_mean.value < report.variance_to_mean.high


def test_the_bootstrap_of_counts_repeats():
    assert fit_counts(CLUSTERED, bootstrap=30, seed=3) == fit_counts(CLUSTERED, bootstrap=30, seed=3)
    assert fit_counts(CLUSTERED, bootstrap=30, seed=3) != fit_counts(CLUSTERED, bootstrap=30, seed=4)
    assert laws(fit_counts(CLUSTERED, bootstrap=99))["poisson"].ks_p == pytest.approx(0.01)


def test_parameters_of_counts_have_intervals_and_a_resample_without_the_dispersion_is_poisson():
    fit = laws(fit_counts(CLUSTERED, bootstrap=200))["negative_binomial"]
    for estimate in fit.parameters.values():
        assert estimate.low < estimate.value < estimate.high
    # Counts that are hardly overdispersed: many of their resamples are not, and their size is infinite.
    hardly = np.array([0, 1, 2, 3, 4, 1, 2, 0, 3, 5, 2, 1])
    fit = laws(fit_counts(hardly, bootstrap=200))["negative_binomial"]
    assert fit.parameters["size"].high == np.inf
    assert fit.parameters["variance_to_mean"].low == 1
    binomial = laws(fit_counts(REGULAR, bootstrap=200))["binomial"]
    assert 0 < binomial.parameters["probability"].low < binomial.parameters["probability"].value < 1


def test_growing_counts_have_a_trend_and_are_not_clustered_about_it():
    counts = np.round(2.0 * 1.06 ** np.arange(50)).astype(np.int64)
    report = fit_counts(counts)
    assert report.growth == pytest.approx(0.06, abs=0.002)
    assert report.growth_p < 1e-10
    assert report.clustering == "clustered"
    assert report.dispersion_about_trend < 1
    # The likelihood ratio test by hand: twice the gain over a constant mean, chi-squared with one degree.
    flat = fit_counts(np.array([3, 1, 2, 2, 3, 1, 2, 2, 1, 3]))
    assert flat.growth_p > 0.5


def test_a_season_is_found_and_a_uniform_year_is_not_one():
    days = np.arange(365)
    months = np.repeat(np.arange(12), [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31])
    uniform = fit_season(months, days)
    assert (uniform.rayleigh_p, uniform.months_p) == (pytest.approx(1.0), pytest.approx(1.0))
    autumn = fit_season(np.array([8] * 12), np.arange(243, 255))
    assert autumn.weights[8] == 1
    assert autumn.rayleigh_p < 1e-4
    assert autumn.months_p is None


def test_a_record_that_is_too_short_or_empty_is_refused():
    with pytest.raises(ModelError, match="2 years: too few"):
        fit_counts(np.array([1, 2]))
    with pytest.raises(ModelError, match="0 events in 5 years"):
        fit_counts(np.zeros(5, np.int64))
    with pytest.raises(ModelError, match="no season"):
        fit_season(np.array([], np.int64), np.array([], np.int64))
