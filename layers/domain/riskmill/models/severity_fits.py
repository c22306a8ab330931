"""Fit laws of severity to the losses above a threshold, and say how well each fits and how uncertain it is.

Every law is that of a loss given that it is above the threshold, so that their likelihoods compare:

- generalised Pareto excesses (Pickands 1975), by the profile likelihood of shape over scale (Grimshaw 1993)
- lognormal, truncated from below at the threshold, by Cohen's (1959) equation for the truncated normal law
- Pareto (type I), whose estimator is Hill's (1975)
- empirical: the losses themselves

All fitters take many samples at once ([samples, losses] -> [samples, parameters]): a bootstrap is one call.
A mean that is infinite is refused, or made finite by a stated maximum: beyond it there is no loss (truncated, not
capped). The maximum changes the mean only; parameters, likelihood and goodness of fit are those without it.

Imports scipy.stats, as fitting.py does.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import special, stats

from riskmill.errors import ModelError
from riskmill.models.occurrences import F64

#: Fewer losses above the threshold than this are not fitted.
MIN_LOSSES = 10

#: A trend over less than this many years would be blown up to growth a year.
MIN_TREND_YEARS = 2

#: Two-sided confidence of the intervals.
CONFIDENCE = 0.95

#: A shape this close to 0 or 1 is computed by the limit's own formula.
_NEAR = 1e-9

#: Maximum likelihood of the generalised Pareto law is regular above this shape (Smith 1985).
_MIN_SHAPE = -0.5

#: Cells of a bootstrap held at once, and of those in the processor's cache while a law is fitted.
_CELLS = 262_144
_HOT = 32_768

#: Truncation points in standard deviations between which Cohen's equation is solved; above, the law is Pareto's.
_COHEN = (-40.0, 30.0)

_ROOT_2PI = float(np.log(2 * np.pi) / 2)


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure and its bootstrap percentile interval (None without a bootstrap; inf where the figure is)."""

    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class SeverityFit:
    """One law fitted to the losses above a threshold.

    `mean` is that of a loss above the threshold; None where it is refused. `refused` says why a law or its mean is
    refused. `ks` and `ad` are the Kolmogorov-Smirnov and Anderson-Darling statistics. `ks_p_given` takes the fitted
    law as given and so flatters it; `ks_p` and `ad_p` come from a parametric bootstrap that fits every sample again
    (Stute, Gonzalez Manteiga & Presedo Quindimil 1993). `infinite_share` is the share of resamples whose mean is
    infinite, `failed_share` of those to which the law could not be fitted (left out of the intervals).
    """

    law: str
    parameters: dict[str, Estimate]
    mean: Estimate | None
    refused: str | None
    log_likelihood: float | None = None
    aic: float | None = None
    ks: float | None = None
    ks_p_given: float | None = None
    ks_p: float | None = None
    ad: float | None = None
    ad_p: float | None = None
    infinite_share: float | None = None
    failed_share: float | None = None


@dataclass(frozen=True, slots=True)
class _Law:
    """A law: all arrays broadcast. `parameters` are rows [samples, k]; losses [samples, n] or [n]."""

    name: str
    names: tuple[str, ...]
    fit: Callable[[F64, float], F64]
    log_density: Callable[[F64, F64, float], F64]
    survival: Callable[[F64, F64, float], F64]
    quantile: Callable[[F64, F64, float], F64]
    mean: Callable[[F64, float, float], F64]
    no_fit: str


def fit_severities(
    losses: F64, threshold: float = 0.0, *, maximum: float = np.inf, bootstrap: int = 0, seed: int = 0
) -> list[SeverityFit]:
    """Fit every law to the losses above `threshold` (>= 0): generalised Pareto, lognormal, Pareto and empirical.

    `bootstrap` resamples give the intervals of parameters and mean, and as many samples of each fitted law the
    p-values; both from Philox(seed), so that they repeat. Raises ModelError for fewer than MIN_LOSSES losses above
    the threshold, for those that are all alike, and for a maximum below the largest.
    """
    if not (np.isfinite(threshold) and threshold >= 0):
        raise ModelError(f"threshold {threshold:g}: must be finite and at least 0")
    x = np.sort(losses[losses > threshold])
    if x.size < MIN_LOSSES:
        raise ModelError(f"{x.size} losses above {threshold:g}: too few to fit a severity (at least {MIN_LOSSES})")
    if not np.isfinite(x[-1]) or x[0] == x[-1]:
        raise ModelError(f"the {x.size} losses above {threshold:g} are all alike or not finite: no severity fits")
    if not x[-1] <= maximum:
        raise ModelError(f"maximum {maximum:.15g} is below the largest loss {x[-1]:.15g}")
    return [
        *(_fit(law, x, threshold, maximum, bootstrap, seed, 2 * at) for at, law in enumerate(_LAWS)),
        _empirical(x, bootstrap, seed, 2 * len(_LAWS)),
    ]


@dataclass(frozen=True, slots=True)
class GpdBootstrap:
    """A generalised Pareto law above a threshold, how well it fits, and the laws of resamples.

    `law` is shape and scale [2], `resampled` the same [bootstrap, 2], nan where a resample has none. Statistics and
    p-values as in SeverityFit.
    """

    law: F64
    ks: float
    ks_p: float | None
    ad: float
    ad_p: float | None
    resampled: F64


def bootstrap_gpd(losses: F64, threshold: float, *, bootstrap: int, seed: int, stream: int) -> GpdBootstrap | None:
    """Fit a generalised Pareto law to the losses above `threshold`, and to resamples of them; None if there is none.

    Random numbers are those of Philox(seed, stream) for resamples and Philox(seed, stream + 1) for p-values.
    """
    gpd = _LAWS[0]
    x = np.sort(losses[losses > threshold])
    row = gpd.fit(x[None, :], threshold)
    if np.isnan(row).any():
        return None
    ks, ad = _distances(gpd.survival(row, x[None, :], threshold))
    rows, _, kss, ads = _replicates(gpd, x, row, threshold, np.inf, bootstrap, seed, stream)
    return GpdBootstrap(row[0], float(ks[0]), _p_value(kss, ks[0]), float(ad[0]), _p_value(ads, ad[0]), rows)


def severity_quantile(fit: SeverityFit, probability: F64, threshold: float, *, maximum: float = np.inf) -> F64:
    """Return the losses that a fitted law, truncated at `maximum`, does not exceed with each probability."""
    law = next(law for law in _LAWS if law.name == fit.law)
    row = np.array([[fit.parameters[name].value for name in law.names]])
    beyond = law.survival(row, np.array([[maximum]]), threshold)[0, 0] if np.isfinite(maximum) else 0.0
    quantiles: F64 = law.quantile(row, 1 - probability[None, :] * (1 - beyond), threshold)[0]
    return quantiles


def mean_excess(losses: F64, threshold: float = 0.0) -> tuple[F64, F64]:
    """Return the mean excess function at every loss above `threshold` but the largest: levels, mean excesses.

    A generalised Pareto law with shape k has a straight line of slope k / (1 - k).
    """
    x = np.sort(losses[losses > threshold])
    levels, first = np.unique(x, return_index=True)
    above = np.append(first[1:], x.size)
    sums = np.append(np.cumsum(x[::-1])[::-1], 0.0)
    count = x.size - above
    kept = count > 0
    return levels[kept], sums[above][kept] / count[kept] - levels[kept]


def interval(values: F64) -> tuple[float | None, float | None]:
    """Return the percentile interval of replicates: order statistics, so that infinite ones may stand among them."""
    kept = np.sort(values[~np.isnan(values)])
    if kept.size == 0:
        return None, None
    low = kept[int((1 - CONFIDENCE) / 2 * (kept.size - 1))]
    return float(low), float(kept[int(np.ceil((1 + CONFIDENCE) / 2 * (kept.size - 1)))])


def _fit(law: _Law, x: F64, threshold: float, maximum: float, bootstrap: int, seed: int, stream: int) -> SeverityFit:
    if law.name == "pareto" and threshold == 0:
        return SeverityFit(law.name, {}, None, "a Pareto law needs a threshold above 0")
    row = law.fit(x[None, :], threshold)
    if np.isnan(row).any():
        return SeverityFit(law.name, {}, None, law.no_fit)
    ks, ad = _distances(law.survival(row, x[None, :], threshold))
    likelihood = float(law.log_density(row, x[None, :], threshold).sum())
    mean = float(law.mean(row, threshold, maximum)[0])
    rows, means, kss, ads = _replicates(law, x, row, threshold, maximum, bootstrap, seed, stream)
    parameters = {name: Estimate(float(row[0, at]), *interval(rows[:, at])) for at, name in enumerate(law.names)}
    failed = np.isnan(means)
    fitted = int((~failed).sum())
    return SeverityFit(
        law.name,
        parameters,
        Estimate(mean, *interval(means)) if np.isfinite(mean) else None,
        None if np.isfinite(mean) else "the mean is infinite; state a maximum",
        likelihood,
        2 * len(law.names) - 2 * likelihood,
        float(ks[0]),
        float(stats.kstwo.sf(ks[0], x.size)),
        _p_value(kss, ks[0]),
        float(ad[0]),
        _p_value(ads, ad[0]),
        float(np.isinf(means).sum() / fitted) if fitted else None,
        float(failed.mean()) if bootstrap else None,
    )


def _replicates(
    law: _Law, x: F64, row: F64, threshold: float, maximum: float, bootstrap: int, seed: int, stream: int
) -> tuple[F64, F64, F64, F64]:
    """Return parameters and means of resamples, and the statistics of samples of the fitted law."""
    rows, means = np.empty((bootstrap, len(law.names))), np.empty(bootstrap)
    kss, ads = np.empty(bootstrap), np.empty(bootstrap)
    chunk = max(_CELLS // x.size, 1)
    drawn = [np.random.Philox(key=np.array([seed, stream + side], np.uint64)) for side in (0, 1)]
    for start in range(0, bootstrap, chunk):
        part = slice(start, min(start + chunk, bootstrap))
        resample, simulate = (next_uniforms(words, part.stop - start, x.size) for words in drawn)
        rows[part] = law.fit(x[(resample * x.size).astype(np.int64)], threshold)
        means[part] = law.mean(rows[part], threshold, maximum)
        sample = np.sort(law.quantile(row, simulate, threshold), axis=1)
        again = law.fit(sample, threshold)
        kss[part], ads[part] = _distances(law.survival(again, sample, threshold))
    return rows, means, kss, ads


@dataclass(frozen=True, slots=True)
class SeverityTrend:
    """Trend of the size of losses: Spearman's rho with its p-value, growth a year and the p-value of its t-test."""

    spearman: float
    spearman_p: float
    growth: float
    growth_p: float


def severity_trend(years: F64, losses: F64) -> SeverityTrend | None:
    """Fit `log loss = a + b year` by least squares to losses > 0 at their times in years, both [losses].

    None for fewer than 3 losses, losses that are all alike, or less than 2 years between the first and the last.
    """
    if losses.size < 3 or np.ptp(years) < MIN_TREND_YEARS or np.ptp(losses) == 0:
        return None
    rank, line = stats.spearmanr(years, losses), stats.linregress(years, np.log(losses))
    return SeverityTrend(float(rank.statistic), float(rank.pvalue), float(np.expm1(line.slope)), float(line.pvalue))


def next_uniforms(words: np.random.Philox, rows: int, columns: int) -> F64:
    """Return the stream's next numbers in (0, 1) [rows, columns]."""
    raw = words.random_raw(rows * columns)
    return np.asarray(((raw >> np.uint64(11)) + 0.5).reshape(rows, columns) * 2.0**-53)


def _empirical(x: F64, bootstrap: int, seed: int, stream: int) -> SeverityFit:
    words = np.random.Philox(key=np.array([seed, stream], np.uint64))
    means, sds = np.empty(bootstrap), np.empty(bootstrap)
    for at in range(bootstrap):
        sample = x[(next_uniforms(words, 1, x.size)[0] * x.size).astype(np.int64)]
        means[at], sds[at] = sample.mean(), sample.std(ddof=1)
    parameters = {"sd": Estimate(float(x.std(ddof=1)), *interval(sds))}
    return SeverityFit("empirical", parameters, Estimate(float(x.mean()), *interval(means)), None)


def _p_value(replicates: F64, observed: float) -> float | None:
    """Return the share of replicates, the observed one among them, that are at least as far from their law."""
    kept = replicates[~np.isnan(replicates)]
    return float((1 + (kept >= observed).sum()) / (1 + kept.size)) if kept.size else None


def _distances(survival: F64) -> tuple[F64, F64]:
    """Return the Kolmogorov-Smirnov and Anderson-Darling statistics of sorted losses' survival [samples, n]."""
    n = survival.shape[1]
    rank = np.arange(1, n + 1)
    at_most = 1 - survival
    ks = np.maximum((rank / n - at_most).max(axis=1), (at_most - (rank - 1) / n).max(axis=1))
    # A loss at the very end of its law would make the statistic infinite by rounding alone.
    log_below, log_above = (np.log(np.maximum(side, 1e-300)) for side in (at_most, survival))
    ad = -n - ((2 * rank - 1) * (log_below + log_above[:, ::-1])).sum(axis=1) / n
    return ks, ad


# ---- generalised Pareto


def fit_gpd_excesses(excess: F64) -> F64:
    """Return shape and scale of the generalised Pareto law of excesses (> 0) [samples, n]: [samples, 2].

    Maximum likelihood. Given theta = shape / scale the best shape is `k = mean log(1 + theta x)`, which leaves a
    profile of theta alone (Grimshaw 1993). It may have two maxima, so it is looked at on a grid over all theta; the
    better one is closed in by the root of its derivative (Illinois method), which is known to far more digits than a
    maximum is. A sample whose profile has no maximum with a shape above -0.5 is nan. Rows do not affect each other.
    """
    return np.concatenate([_gpd_rows(excess[at : at + 1 + _HOT // excess.shape[1]]) for at in _starts(excess)])


def _starts(excess: F64) -> range:
    return range(0, len(excess), 1 + _HOT // excess.shape[1])


def _gpd_rows(excess: F64) -> F64:
    middle = np.median(excess, axis=1)
    x = excess / middle[:, None]
    end = x.max(axis=1)

    def theta_at(position: F64) -> F64:
        # Position 0 is the exponential law; below it theta falls towards its end -1 / max.
        theta = np.expm1(position) / end
        return np.where(np.abs(theta) < _NEAR, _NEAR, theta)

    def profile(position: F64) -> F64:
        theta = theta_at(position)
        shape = np.log1p(theta[:, None] * x).mean(axis=1)
        return np.where(shape > _MIN_SHAPE, -np.log(shape / theta) - shape, -np.inf)

    def slope(position: F64) -> tuple[F64, F64]:
        """Return something with the sign of the profile's derivative, and the shape."""
        theta = theta_at(position)
        y = theta[:, None] * x
        log = np.log1p(y)
        shape = log.mean(axis=1)
        y /= 1 + y
        gap = np.subtract(log, y, out=log).mean(axis=1)
        return (gap - (shape - gap) * shape) / theta**2, shape

    # theta of the largest shape that is looked for, about 10: the median of such a law is (2^10 - 1) scale / shape.
    grid = np.linspace(np.full(end.size, -8.0), np.log1p(1000 * end), 41)
    profiles = np.array([profile(position) for position in grid])
    best, rows = profiles.argmax(axis=0), np.arange(end.size)
    at_best, _ = slope(grid[best, rows])
    beside = np.clip(best + np.where(at_best > 0, 1, -1), 0, len(grid) - 1)
    known, other = grid[best, rows], grid[beside, rows]
    at_known, (at_other, _) = at_best, slope(other)
    found = np.isfinite(profiles[best, rows]) & (at_known * at_other <= 0) & (best != beside)
    open_ = found.copy()
    for _ in range(100):
        with np.errstate(divide="ignore", invalid="ignore"):
            guess = np.where(open_, (other * at_known - known * at_other) / (at_known - at_other), known)
        guess = np.where(np.isfinite(guess), guess, known)
        at_guess, _ = slope(guess)
        crossed = at_guess * at_known <= 0
        # An end that stays for a second time counts half, so that both ends close in.
        halved = np.where(crossed, at_known, at_other / 2)
        other, at_other = np.where(open_ & crossed, known, other), np.where(open_, halved, at_other)
        moved = np.abs(guess - known)
        known, at_known = np.where(open_, guess, known), np.where(open_, at_guess, at_known)
        open_ &= (moved > 1e-14 * (1 + np.abs(known))) & (at_known != 0)
        if not open_.any():
            break
    _, shape = slope(known)
    fitted = np.column_stack([shape, shape / theta_at(known) * middle])
    fitted[~(found & (shape > _MIN_SHAPE))] = np.nan
    return fitted


def _gpd_fit(losses: F64, threshold: float) -> F64:
    return fit_gpd_excesses(losses - threshold)


def _gpd_survival(parameters: F64, losses: F64, threshold: float) -> F64:
    shape, scale = parameters[:, :1], parameters[:, 1:]
    excess = (losses - threshold) / scale
    safe = np.where(np.abs(shape) < _NEAR, _NEAR, shape)
    return np.asarray(np.exp(-np.log1p(np.maximum(safe * excess, -1 + 1e-16)) / safe))


def _gpd_log_density(parameters: F64, losses: F64, threshold: float) -> F64:
    shape, scale = parameters[:, :1], parameters[:, 1:]
    return np.asarray(stats.genpareto.logpdf(losses, shape, loc=threshold, scale=scale))


def _gpd_quantile(parameters: F64, survival: F64, threshold: float) -> F64:
    shape, scale = parameters[:, :1], parameters[:, 1:]
    safe = np.where(np.abs(shape) < _NEAR, _NEAR, shape)
    return np.asarray(threshold + scale * np.expm1(-safe * np.log(survival)) / safe)


def _gpd_mean(parameters: F64, threshold: float, maximum: float) -> F64:
    shape, scale = parameters[:, 0], parameters[:, 1]
    with np.errstate(divide="ignore", invalid="ignore"):
        whole = np.where(shape < 1, scale / (1 - shape), np.inf)
        if not np.isfinite(maximum):
            return np.asarray(np.where(np.isnan(shape), np.nan, threshold + whole))
        end = np.where(shape < 0, np.minimum(maximum - threshold, -scale / shape), maximum - threshold)
        beyond = _gpd_survival(parameters, (threshold + end)[:, None], threshold)[:, 0]
        safe = np.where(np.abs(shape) < _NEAR, _NEAR, shape)
        integral = scale / (1 - safe) * -np.expm1((1 - 1 / safe) * np.log1p(safe * end / scale))
        integral = np.where(np.abs(shape - 1) < _NEAR, scale * np.log1p(end / scale), integral)
        return np.asarray(threshold + (integral - end * beyond) / (1 - beyond))


# ---- Pareto: the generalised Pareto law with scale = shape * threshold


def _pareto_fit(losses: F64, threshold: float) -> F64:
    return np.asarray(1 / np.log(losses / threshold).mean(axis=1, keepdims=True))


def _as_gpd(parameters: F64, threshold: float) -> F64:
    return np.column_stack([1 / parameters[:, 0], threshold / parameters[:, 0]])


# ---- lognormal


def _lognormal_fit(losses: F64, threshold: float) -> F64:
    log = np.log(losses)
    mean, variance = log.mean(axis=1), log.var(axis=1)
    if threshold == 0:
        return np.column_stack([mean, np.sqrt(variance)])
    above = mean - np.log(threshold)
    wanted = variance / above**2
    low, high = (np.full(mean.size, end) for end in _COHEN)
    for _ in range(60):
        middle = (low + high) / 2
        hazard = _hazard(middle)
        less = (1 + middle * hazard - hazard**2) / (hazard - middle) ** 2 < wanted
        low, high = np.where(less, middle, low), np.where(less, high, middle)
    cut = (low + high) / 2
    sigma = above / (_hazard(cut) - cut)
    fitted = np.column_stack([np.log(threshold) - cut * sigma, sigma])
    fitted[cut > _COHEN[1] - 1e-6] = np.nan
    return fitted


def _hazard(z: F64) -> F64:
    return np.asarray(np.exp(-(z**2) / 2 - _ROOT_2PI - special.log_ndtr(-z)))


def _log_above(parameters: F64, at: float) -> F64:
    """Return the logarithm of the survival of a plain lognormal law at one loss [samples, 1]."""
    if at == 0:
        return np.zeros((len(parameters), 1))
    return np.asarray(special.log_ndtr((parameters[:, :1] - np.log(at)) / parameters[:, 1:]))


def _lognormal_log_density(parameters: F64, losses: F64, threshold: float) -> F64:
    mu, sigma = parameters[:, :1], parameters[:, 1:]
    log = np.log(losses)
    plain = -(((log - mu) / sigma) ** 2) / 2 - _ROOT_2PI - np.log(sigma) - log
    return np.asarray(plain - _log_above(parameters, threshold))


def _lognormal_survival(parameters: F64, losses: F64, threshold: float) -> F64:
    mu, sigma = parameters[:, :1], parameters[:, 1:]
    above = special.log_ndtr((mu - np.log(losses)) / sigma)
    return np.asarray(np.exp(above - _log_above(parameters, threshold)))


def _lognormal_quantile(parameters: F64, survival: F64, threshold: float) -> F64:
    mu, sigma = parameters[:, :1], parameters[:, 1:]
    z = -special.ndtri_exp(np.log(survival) + _log_above(parameters, threshold))
    return np.asarray(np.exp(mu + sigma * z))


def _lognormal_mean(parameters: F64, threshold: float, maximum: float) -> F64:
    mu, sigma = parameters[:, 0], parameters[:, 1]
    # Under the density weighted by the loss the logarithm is normal with mean mu + sigma^2.
    weighted = np.column_stack([mu + sigma**2, sigma])
    at = _log_above(parameters, threshold)[:, 0]
    whole = mu + sigma**2 / 2 - at
    mass = np.exp(whole + _log_above(weighted, threshold)[:, 0])
    if not np.isfinite(maximum):
        return np.asarray(mass)
    beyond = np.exp(whole + _log_above(weighted, maximum)[:, 0])
    return np.asarray((mass - beyond) / -np.expm1(_log_above(parameters, maximum)[:, 0] - at))


_LAWS = (
    _Law(
        "generalised_pareto",
        ("shape", "scale"),
        _gpd_fit,
        _gpd_log_density,
        _gpd_survival,
        _gpd_quantile,
        _gpd_mean,
        f"its likelihood has no maximum with a shape above {_MIN_SHAPE:g}",
    ),
    _Law(
        "lognormal",
        ("mu", "sigma"),
        _lognormal_fit,
        _lognormal_log_density,
        _lognormal_survival,
        _lognormal_quantile,
        _lognormal_mean,
        "its likelihood has no maximum: the losses are as heavy as a Pareto law's, to which it tends",
    ),
    _Law(
        "pareto",
        ("alpha",),
        _pareto_fit,
        lambda row, losses, threshold: _gpd_log_density(_as_gpd(row, threshold), losses, threshold),
        lambda row, losses, threshold: _gpd_survival(_as_gpd(row, threshold), losses, threshold),
        lambda row, survival, threshold: _gpd_quantile(_as_gpd(row, threshold), survival, threshold),
        lambda row, threshold, maximum: _gpd_mean(_as_gpd(row, threshold), threshold, maximum),
        "it cannot be fitted",
    ),
)
