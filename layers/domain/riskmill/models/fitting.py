"""Fit frequency and severity to a loss record by maximum likelihood, with goodness of fit and a test of trend.

Imports scipy.stats, which takes a second or two to load: no other module of the domain imports this one.
"""

from dataclasses import dataclass

import numpy as np
from scipy import stats

from riskmill.errors import ModelError
from riskmill.models.occurrences import F64, I64

#: A law other than Poisson is taken when dispersion differs from 1 at this two-sided level.
DISPERSION_LEVEL = 0.05

#: A shape this close to 0 or 1 is computed by the limit's own formula.
_NEAR = 1e-9


@dataclass(frozen=True, slots=True)
class FrequencyFit:
    """Annual number of events: law, mean, variance to mean, and the p-value of Fisher's index of dispersion."""

    law: str
    rate: float
    variance_to_mean: float
    p_value: float


def fit_frequency(counts: I64, expected: F64 | None = None, fitted: int = 1) -> FrequencyFit:
    """Fit the law of annual counts [years]: Poisson, or the one whose dispersion the record shows.

    `expected` [years] is each year's mean where a trend with `fitted` parameters was fitted; without it the mean of
    the counts is. Variance to mean is `sum (n - m)^2 / m / (years - fitted)` (Pearson), which is the sample's
    variance over its mean when m is constant; its p-value comes from chi-squared (years - fitted), two-sided.
    Rate is the mean of `expected`. Raises ModelError for a record without events or years.
    """
    if counts.size <= fitted or counts.min() < 0 or counts.sum() == 0:
        raise ModelError(f"{int(counts.sum())} events in {counts.size} years: too few to fit a frequency")
    mean = np.full(counts.size, counts.mean()) if expected is None else expected
    freedom = counts.size - fitted
    pearson = float(((counts - mean) ** 2 / mean).sum())
    p_value = 2 * min(stats.chi2.sf(pearson, freedom), stats.chi2.cdf(pearson, freedom))
    ratio = pearson / freedom
    law = "poisson"
    if p_value < DISPERSION_LEVEL:
        law = "negative_binomial" if ratio > 1 else "binomial"
    return FrequencyFit(law, float(mean.mean()), ratio, float(p_value))


@dataclass(frozen=True, slots=True)
class TrendFit:
    """A log-linear trend of annual counts: expected counts [years], growth a year, Spearman's rho and its p-value."""

    expected: F64
    growth: float
    spearman: float
    p_value: float


def fit_trend(counts: I64) -> TrendFit:
    """Fit `E[n] = exp(a + b year)` to annual counts [years] by Poisson maximum likelihood (McCullagh & Nelder 1989).

    Newton's method; its score equations make the expected counts sum to the observed ones. Raises ModelError when it
    does not converge.
    """
    if counts.sum() == 0:
        raise ModelError("no events: no trend can be fitted")
    # Counts that are all alike have no ranks to correlate.
    alike = counts.min() == counts.max()
    rho, p_value = (0.0, 1.0) if alike else stats.spearmanr(np.arange(counts.size), counts)
    year = np.arange(counts.size) - (counts.size - 1) / 2
    design = np.column_stack([np.ones(counts.size), year])
    beta = np.array([np.log(counts.mean()), 0.0])
    for _ in range(100):
        expected = np.exp(design @ beta)
        step = np.linalg.solve(design.T @ (design * expected[:, None]), design.T @ (counts - expected))
        beta = beta + step
        if np.abs(step).max() < 1e-12:
            return TrendFit(np.exp(design @ beta), float(np.expm1(beta[1])), float(rho), float(p_value))
    raise ModelError("the trend of the counts did not converge")


@dataclass(frozen=True, slots=True)
class GpdFit:
    """Generalised Pareto excesses over a threshold: shape, scale, and the Kolmogorov-Smirnov p-value."""

    threshold: float
    shape: float
    scale: float
    ks_p_value: float


def fit_gpd(losses: F64, threshold: float) -> GpdFit:
    """Fit a generalised Pareto law to the losses above `threshold` by maximum likelihood (Pickands 1975).

    The p-value takes the fitted law as given, so it flatters the fit. Raises ModelError for fewer than 10 excesses.
    """
    excess = losses[losses > threshold] - threshold
    if excess.size < 10:
        raise ModelError(f"{excess.size} losses above {threshold:g}: too few to fit a generalised Pareto law")
    shape, _, scale = stats.genpareto.fit(excess, floc=0)
    p_value = stats.kstest(excess, stats.genpareto(shape, scale=scale).cdf).pvalue
    return GpdFit(threshold, float(shape), float(scale), float(p_value))


@dataclass(frozen=True, slots=True)
class LognormalFit:
    """Lognormal losses: mean and standard deviation of the logarithm (n - 1), and the mean loss they imply."""

    mu: float
    sigma: float

    @property
    def mean(self) -> float:
        """Return `exp(mu + sigma^2 / 2)`."""
        return float(np.exp(self.mu + self.sigma**2 / 2))


def fit_lognormal(losses: F64) -> LognormalFit:
    """Fit a lognormal law to losses above 0. Raises ModelError for fewer than two of them."""
    if losses.size < 2 or losses.min() <= 0:
        raise ModelError("a lognormal law needs two losses or more, all above 0")
    log = np.log(losses)
    return LognormalFit(float(log.mean()), float(log.std(ddof=1)))


@dataclass(frozen=True, slots=True)
class TruncatedGpd:
    """A generalised Pareto law over a threshold, given that the loss is at most `maximum`.

    Truncation is not capping: beyond the maximum there is no loss. With shape >= 1 the law without a maximum has an
    infinite mean, so a finite maximum is required there. Raises ModelError for parameters that make no such law.
    """

    threshold: float
    shape: float
    scale: float
    maximum: float

    def __post_init__(self) -> None:
        if not (self.scale > 0 and self.shape >= 0 and self.maximum > self.threshold):
            raise ModelError("a truncated generalised Pareto law needs scale > 0, shape >= 0, maximum > threshold")
        if self.shape >= 1 and not np.isfinite(self.maximum):
            raise ModelError(f"generalised Pareto shape {self.shape:g}: the mean is infinite; state a maximum")

    def quantile(self, probability: F64) -> F64:
        """Return the loss that is not exceeded with each probability (0 to 1)."""
        survival = 1 - probability * (1 - self._survival(np.asarray(self.maximum - self.threshold)))
        with np.errstate(divide="ignore"):
            if self.shape < _NEAR:
                excess = -self.scale * np.log(survival)
            else:
                excess = self.scale / self.shape * (survival**-self.shape - 1)
        return np.minimum(self.threshold + excess, self.maximum)

    def mean(self) -> float:
        """Return the mean loss."""
        return float(self.means_between(np.array([0.0, 1.0]))[0])

    def means_between(self, probability: F64) -> F64:
        """Return the mean loss between each two neighbours of rising probabilities [n + 1] from 0 to 1: [n].

        Weighted by the steps of the probabilities they give the mean of the law, whatever the number of steps.
        """
        excess = self.quantile(probability) - self.threshold
        excess[-1] = self.maximum - self.threshold
        survival = self._survival(excess)
        # Without a maximum the product has the limit 0 (shape < 1).
        tail = np.zeros(excess.size)
        np.multiply(excess, survival, out=tail, where=np.isfinite(excess))
        partial = self._integrated_survival(excess) - tail
        return self.threshold + np.diff(partial) / -np.diff(survival)

    def _survival(self, excess: F64) -> F64:
        if self.shape < _NEAR:
            return np.exp(-excess / self.scale)
        return (1 + self.shape * excess / self.scale) ** (-1 / self.shape)

    def _integrated_survival(self, excess: F64) -> F64:
        """Return the integral of the survival function from 0: the mean excess up to a limit."""
        if self.shape < _NEAR:
            return self.scale * (1 - np.exp(-excess / self.scale))
        if abs(self.shape - 1) < _NEAR:
            return self.scale * np.log1p(excess / self.scale)
        growth = (1 + self.shape * excess / self.scale) ** (1 - 1 / self.shape)
        return self.scale / (1 - self.shape) * (1 - growth)
