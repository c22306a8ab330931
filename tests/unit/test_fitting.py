"""Fits of frequency and severity: the record's published figures, and laws that a person can check."""

import csv
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from riskmill.errors import ModelError
from riskmill.models.fitting import TruncatedGpd, fit_frequency, fit_gpd, fit_lognormal, fit_trend

RECORD = Path(__file__).parents[2] / "examples/us_nat_cat/us_billion_dollar_events.csv"


def record_of(peril):
    """Return annual counts of 1980-2023 and losses in USD million."""
    with RECORD.open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["peril"] == peril]
    years = [int(row["begin"][:4]) - 1980 for row in rows]
    return np.bincount(years, minlength=44), np.array([float(row["cost_usd_m_cpi_adjusted"]) for row in rows])


@pytest.mark.parametrize(
    ("peril", "events", "rate", "ratio", "law"),
    [
        ("Tropical Cyclone", 62, 1.41, 1.73, "negative_binomial"),
        ("Severe Storm", 186, 4.23, 4.47, "negative_binomial"),
        ("Flooding", 44, 1.00, 1.02, "poisson"),
        ("Wildfire", 22, 0.50, 0.51, "binomial"),
        ("Winter Storm", 22, 0.50, 0.88, "poisson"),
        ("Drought", 31, 0.70, 0.30, "binomial"),
        ("Freeze", 9, 0.20, 1.04, "poisson"),
    ],
)
def test_the_record_gives_the_published_frequency_of_each_peril(peril, events, rate, ratio, law):
    counts, _ = record_of(peril)
    fit = fit_frequency(counts)
    assert counts.sum() == events
    assert (fit.rate, fit.variance_to_mean, fit.law) == (
        pytest.approx(rate, abs=0.006),
        pytest.approx(ratio, abs=0.006),
        law,
    )


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
def test_the_record_gives_the_published_severity_of_each_peril(peril, shape, scale, p_value):
    fit = fit_gpd(record_of(peril)[1], 1000.0)
    assert fit.shape == pytest.approx(shape, abs=0.006)
    assert fit.scale == pytest.approx(scale, rel=0.001)
    assert fit.ks_p_value == pytest.approx(p_value, abs=0.01)


def test_severe_storms_have_a_trend_and_are_not_overdispersed_about_it():
    counts, _ = record_of("Severe Storm")
    trend = fit_trend(counts)
    assert trend.spearman == pytest.approx(0.85, abs=0.005)
    assert trend.p_value < 1e-10
    about_it = fit_frequency(counts, trend.expected, fitted=2)
    assert about_it.law == "poisson"
    assert about_it.variance_to_mean < 1 < fit_frequency(counts).variance_to_mean


def test_a_trend_keeps_the_number_of_events_and_finds_the_growth_of_counts_that_grow():
    counts = np.round(2.0 * 1.05 ** np.arange(60)).astype(np.int64)
    trend = fit_trend(counts)
    assert trend.expected.sum() == pytest.approx(counts.sum(), rel=1e-12)
    assert trend.growth == pytest.approx(0.05, abs=0.002)
    assert fit_trend(np.array([3, 3, 3, 3])).growth == pytest.approx(0.0, abs=1e-12)


def test_a_lognormal_fit_is_the_mean_and_deviation_of_the_logarithms():
    fit = fit_lognormal(np.exp(np.array([1.0, 2.0, 3.0])))
    assert (fit.mu, fit.sigma) == (pytest.approx(2.0), pytest.approx(1.0))
    assert fit.mean == pytest.approx(math.exp(2.5))


@pytest.mark.parametrize(
    ("shape", "maximum", "mean"),
    [
        # Exponential without end, Pareto without end (threshold + scale / (1 - shape)), log(1 + x) for shape 1.
        (0.0, math.inf, 110.0),
        (0.5, math.inf, 120.0),
        (1.0, 110.0, 100 + (10 * math.log(2) - 10 / 2) / 0.5),
    ],
)
def test_a_truncated_law_has_the_mean_of_its_formula(shape, maximum, mean):
    assert TruncatedGpd(100.0, shape, 10.0, maximum).mean() == pytest.approx(mean, rel=1e-9)


@pytest.mark.parametrize("shape", [0.0, 0.3, 1.0, 1.11])
def test_means_between_quantiles_add_up_to_the_mean_and_lie_between_the_quantiles(shape):
    law = TruncatedGpd(1000.0, shape, 5000.0, 500_000.0)
    edges = 1 - np.linspace(1, 0, 41) ** 1.5
    means, at = law.means_between(edges), law.quantile(edges)
    assert (np.diff(edges) * means).sum() == pytest.approx(law.mean(), rel=1e-9)
    assert ((means > at[:-1]) & (means < at[1:])).all()
    assert (at[0], at[-1]) == (pytest.approx(1000.0), pytest.approx(500_000.0))


def test_an_infinite_mean_is_refused_unless_a_maximum_is_stated():
    with pytest.raises(ModelError, match="the mean is infinite; state a maximum"):
        TruncatedGpd(1000.0, 1.11, 5023.0, math.inf)
    assert math.isfinite(TruncatedGpd(1000.0, 1.11, 5023.0, 500_000.0).mean())


def test_too_little_data_is_refused():
    with pytest.raises(ModelError, match="too few to fit a generalised Pareto"):
        fit_gpd(record_of("Freeze")[1], 1000.0)
    with pytest.raises(ModelError, match="too few to fit a frequency"):
        fit_frequency(np.zeros(10, np.int64))
    with pytest.raises(ModelError, match="two losses or more"):
        fit_lognormal(np.array([5.0]))


def test_the_models_load_without_scipy_stats():
    """It would cost each cold start a second or two."""
    code = "import sys, riskmill.models; sys.exit('scipy.stats' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0
