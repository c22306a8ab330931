"""Fit laws of the annual number of losses, and test the record for clustering, trend and season.

Poisson, negative binomial and binomial by maximum likelihood; the mean of each is the mean of the counts. The two with
a dispersion of their own exist only where the counts show it (Anscombe 1950 for the negative binomial, Olkin, Petkau &
Zidek 1981 for the binomial); elsewhere they tend to Poisson and are refused. Fitters take many samples at once.

Imports scipy.stats, as fitting.py does.
"""

from dataclasses import dataclass

import numpy as np
from scipy import special, stats

from riskmill.errors import ModelError
from riskmill.models.fitting import DISPERSION_LEVEL, fit_frequency, fit_trend
from riskmill.models.occurrences import F64, I64
from riskmill.models.severity_fits import Estimate, interval, next_uniforms

#: Days of the months of a year without a leap day.
MONTH_DAYS = (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)

LAWS = ("poisson", "negative_binomial", "binomial")

#: Streams of Philox beside those of the severities.
_STREAM = 100

#: Numbers of trials of a binomial law that are tried: up to this many times the largest count, and then some.
_TRIALS_TIMES, _TRIALS_MORE = 10, 100


@dataclass(frozen=True, slots=True)
class CountFit:
    """One law fitted to annual counts; its parameters, or why it is `refused`. Statistics as in SeverityFit.

    Intervals are those of resampled years. To the negative binomial and the binomial law a resample without their
    dispersion is the Poisson law, to which they tend: its size or number of trials is infinite, its variance to mean 1.

    `ks` and `ad` are for a discrete law (Conover 1972; Choulakian, Lockhart & Stephens 1994), their p-values from a
    parametric bootstrap.
    """

    law: str
    parameters: dict[str, Estimate]
    refused: str | None
    log_likelihood: float | None = None
    aic: float | None = None
    ks: float | None = None
    ks_p: float | None = None
    ad: float | None = None
    ad_p: float | None = None


@dataclass(frozen=True, slots=True)
class FrequencyReport:
    """What annual counts say.

    `variance_to_mean` is Fisher's index of dispersion with its chi-squared p-value; `clustering` is whether it is above
    1, or below (regular), at DISPERSION_LEVEL. `law` is the one that dispersion calls for. `growth` is the log-linear
    trend a year, `growth_p` the p-value of its quasi-likelihood test (scaled by the dispersion about the trend where
    that is above 1), `dispersion_about_trend` says whether clustering remains when the trend is taken out.
    """

    years: int
    events: int
    rate: Estimate
    variance_to_mean: Estimate
    dispersion_p: float
    clustering: str
    law: str
    laws: list[CountFit]
    spearman: float
    spearman_p: float
    growth: float
    growth_p: float
    dispersion_about_trend: float
    dispersion_about_trend_p: float


def fit_counts(counts: I64, *, bootstrap: int = 0, seed: int = 0) -> FrequencyReport:
    """Fit every law to annual counts [years, in order]. Raises ModelError for fewer than 3 years or no event."""
    if counts.size < 3:
        raise ModelError(f"{counts.size} years: too few to fit a frequency (at least 3)")
    constant = fit_frequency(counts)
    trend = fit_trend(counts)
    about = fit_frequency(counts, trend.expected, fitted=2)
    drawn = next_uniforms(_words(seed, 0), bootstrap, counts.size) if bootstrap else np.empty((0, counts.size))
    samples = counts[(drawn * counts.size).astype(np.int64)]
    means = samples.mean(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = samples.var(axis=1, ddof=1) / means
    gain = 2 * float((special.xlogy(counts, trend.expected) - special.xlogy(counts, counts.mean())).sum())
    clustering = "none shown"
    if constant.p_value < DISPERSION_LEVEL:
        clustering = "clustered" if constant.variance_to_mean > 1 else "regular"
    return FrequencyReport(
        years=counts.size,
        events=int(counts.sum()),
        rate=Estimate(constant.rate, *interval(means)),
        variance_to_mean=Estimate(constant.variance_to_mean, *interval(ratios)),
        dispersion_p=constant.p_value,
        clustering=clustering,
        law=constant.law,
        laws=[_fit(law, counts, samples[means > 0], bootstrap, seed) for law in LAWS],
        spearman=trend.spearman,
        spearman_p=trend.p_value,
        growth=trend.growth,
        growth_p=float(stats.chi2.sf(max(gain, 0.0) / max(about.variance_to_mean, 1.0), 1)),
        dispersion_about_trend=about.variance_to_mean,
        dispersion_about_trend_p=about.p_value,
    )


@dataclass(frozen=True, slots=True)
class Season:
    """Months of the losses: counts [12], weights [12] that sum to 1, and p-values of a uniform year.

    `rayleigh_p` tests for one season (Rayleigh's test on the days as angles, Mardia & Jupp 2000, eq. 6.3.5);
    `months_p` is chi-squared with 11 degrees of freedom against the days of the months, None where it expects fewer
    than 5 losses in a month.
    """

    counts: list[int]
    weights: list[float]
    rayleigh_p: float
    months_p: float | None


def fit_season(months: I64, days: I64) -> Season:
    """Fit the season of losses from their months (0 to 11) and days of the year (0 to 364) [losses].

    Raises ModelError without losses.
    """
    if months.size == 0:
        raise ModelError("no losses: no season can be fitted")
    counts = np.bincount(months, minlength=12)
    expected = np.array(MONTH_DAYS) / 365 * months.size
    angle = 2 * np.pi * (days + 0.5) / 365
    n = months.size
    z = float(np.hypot(np.cos(angle).sum(), np.sin(angle).sum())) ** 2 / n
    rayleigh = np.exp(np.sqrt(1 + 4 * n + 4 * (n**2 - z * n)) - (1 + 2 * n))
    chi = float(((counts - expected) ** 2 / expected).sum())
    return Season(
        counts.tolist(),
        (counts / n).tolist(),
        float(min(rayleigh, 1.0)),
        float(stats.chi2.sf(chi, 11)) if expected.min() >= 5 else None,
    )


def _words(seed: int, stream: int) -> np.random.Philox:
    return np.random.Philox(key=np.array([seed, _STREAM + stream], np.uint64))


def _fit(law: str, counts: I64, resamples: I64, bootstrap: int, seed: int) -> CountFit:
    row = _parameters(law, counts[None, :])
    if np.isnan(row).any():
        side = "above" if law == "negative_binomial" else "below"
        return CountFit(law, {}, f"the variance of the counts is not {side} their mean: it tends to Poisson")
    frozen = _frozen(law, row)
    likelihood = float(frozen.logpmf(counts[None, :]).sum())
    ks, ad = _distances(frozen, counts[None, :])
    kss, ads = np.empty(0), np.empty(0)
    if bootstrap:
        uniform = next_uniforms(_words(seed, 1 + LAWS.index(law)), bootstrap, counts.size)
        samples = frozen.ppf(uniform).astype(np.int64)
        samples = samples[samples.sum(axis=1) > 0]
        again = _parameters(law, samples)
        # A sample without the dispersion is Poisson to this law.
        again = np.where(np.isnan(again), _poisson_limit(law, samples), again)
        kss, ads = _distances(_frozen(law, again), samples)
    again = _parameters(law, resamples) if len(resamples) else np.empty((0, 2))
    limits = {name: interval(values) for name, values in _named(law, again).items()}
    names = {name: Estimate(float(value[0]), *limits[name]) for name, value in _named(law, row).items()}
    return CountFit(
        law,
        names,
        None,
        likelihood,
        2 * (1 if law == "poisson" else 2) - 2 * likelihood,
        float(ks[0]),
        _p_value(kss, float(ks[0])),
        float(ad[0]),
        _p_value(ads, float(ad[0])),
    )


def _named(law: str, rows: F64) -> dict[str, F64]:
    """Return each parameter by its name; a row without the law's dispersion is its Poisson limit."""
    mean, second = rows[:, 0], np.where(np.isnan(rows[:, 1]), np.inf, rows[:, 1])
    if law == "poisson":
        return {"mean": mean}
    if law == "negative_binomial":
        return {"mean": mean, "size": second, "variance_to_mean": 1 + mean / second}
    return {"trials": second, "probability": mean / second, "variance_to_mean": 1 - mean / second}


def _p_value(replicates: F64, observed: float) -> float | None:
    # Statistics of counts repeat exactly but for rounding.
    return float((1 + (replicates >= observed - 1e-9).sum()) / (1 + replicates.size)) if replicates.size else None


def _parameters(law: str, counts: I64) -> F64:
    """Return mean and second parameter (size or trials; 0 for Poisson) [samples, 2]; nan where there is no such law."""
    mean = counts.mean(axis=1)
    if law == "poisson":
        return np.column_stack([mean, np.zeros(mean.size)])
    variance = counts.var(axis=1)
    if law == "negative_binomial":
        second = np.where(variance > mean, _size(counts, mean), np.nan)
    else:
        second = np.where(variance < mean, _trials(counts, mean), np.nan)
    return np.column_stack([mean, second])


def _poisson_limit(law: str, counts: I64) -> F64:
    return np.column_stack([counts.mean(axis=1), np.full(len(counts), 1e9 if law == "negative_binomial" else 1e6)])


def _size(counts: I64, mean: F64) -> F64:
    """Solve the score equation of the negative binomial's size, which has one root where variance > mean."""
    low, high = np.full(mean.size, -12.0), np.full(mean.size, 20.0)
    for _ in range(60):
        middle = (low + high) / 2
        size = np.exp(middle)
        score = (special.digamma(counts + size[:, None]) - special.digamma(size)[:, None]).mean(axis=1)
        rises = score > np.log1p(mean / size)
        low, high = np.where(rises, middle, low), np.where(rises, high, middle)
    return np.asarray(np.exp((low + high) / 2))


def _trials(counts: I64, mean: F64) -> F64:
    """Return the whole number of trials with the largest likelihood, which has one peak (Levin & Reeds 1977)."""
    top = int(counts.max())
    values = np.arange(top + 1)
    times = np.stack([(counts == value).sum(axis=1) for value in values], axis=1)
    years = counts.shape[1]

    def likelihood(trials: I64) -> F64:
        room = np.maximum(trials[:, None] - values, 0)
        ways = (times * (special.gammaln(trials + 1)[:, None] - special.gammaln(room + 1))).sum(axis=1)
        share = np.minimum(mean / trials, 1.0)
        return np.asarray(ways + years * (special.xlogy(mean, share) + special.xlog1py(trials - mean, -share)))

    low = counts.max(axis=1).astype(np.int64)
    high = np.full(low.size, _TRIALS_TIMES * top + _TRIALS_MORE)
    while (low < high).any():
        middle = (low + high) // 2
        rises = likelihood(middle + 1) > likelihood(middle)
        low, high = np.where(rises & (low < high), middle + 1, low), np.where(rises, high, middle)
    return low.astype(np.float64)


def _frozen(law: str, rows: F64):  # type: ignore[no-untyped-def]  # scipy's frozen laws have no types
    mean, second = rows[:, :1], rows[:, 1:]
    if law == "poisson":
        return stats.poisson(mean)
    if law == "negative_binomial":
        return stats.nbinom(second, second / (second + mean))
    return stats.binom(second, mean / second)


def _distances(frozen, counts: I64) -> tuple[F64, F64]:  # type: ignore[no-untyped-def]
    """Return the discrete Kolmogorov-Smirnov and Anderson-Darling statistics of counts [samples, years]."""
    values = np.arange(2 * int(counts.max()) + 20)
    years = counts.shape[1]
    at_most = frozen.cdf(values[None, :])
    observed = np.stack([(counts <= value).sum(axis=1) for value in values], axis=1) / years
    apart = observed - at_most
    spread = at_most * (1 - at_most)
    terms = np.where(spread > 1e-12, apart**2 * frozen.pmf(values[None, :]) / np.maximum(spread, 1e-12), 0.0)
    return np.abs(apart).max(axis=1), years * terms.sum(axis=1)
