"""Fit laws of frequency and severity to one record of losses, each with bootstrap limits and tests of fit.

One job a peril: its seconds are the replicates times the losses, so it goes where they fit. The fits themselves are
those of severity_fits.py and frequency_fits.py, which `riskmill fit` prints; this model makes arrays of them.

They iterate through exp and log, whose last bits differ between hosts, so figures are rounded.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from riskmill.errors import ModelError
from riskmill.models.catalogue import DAYS_IN_MONTH
from riskmill.models.occurrences import F64, I64, need
from riskmill.models.registry import model
from riskmill.outputs import Array, Arrays, rounded

if TYPE_CHECKING:
    from riskmill.models.frequency_fits import FrequencyReport
    from riskmill.models.severity_fits import Estimate, SeverityFit

#: Significant digits of every figure.
DIGITS = 6

#: First day of each month (0 to 364) and days in it, in a year without a leap day.
MONTH_LENGTHS = np.array(DAYS_IN_MONTH)
MONTH_STARTS = np.cumsum(MONTH_LENGTHS) - MONTH_LENGTHS

#: Replicates of a bootstrap, at the most: what one job holds in memory.
MAX_FIT_REPLICATES = 100_000

#: Laws and their parameters, in the order of the output.
SEVERITY_LAWS: dict[str, tuple[str, ...]] = {
    "generalised_pareto": ("shape", "scale"),
    "lognormal": ("mu", "sigma"),
    "pareto": ("alpha",),
    "empirical": ("sd",),
}
FREQUENCY_LAWS: dict[str, tuple[str, ...]] = {
    "poisson": ("mean",),
    "negative_binomial": ("mean", "size", "variance_to_mean"),
    "binomial": ("trials", "probability", "variance_to_mean"),
}

#: Figures of each law of severity, and of each law of frequency, beside its parameters.
SEVERITY_FIGURES = (
    "log_likelihood",
    "aic",
    "ks",
    "ks_p_given",
    "ks_p",
    "ad",
    "ad_p",
    "infinite_share",
    "failed_share",
)
FREQUENCY_FIGURES = ("log_likelihood", "aic", "ks", "ks_p", "ad", "ad_p")

#: Figures of the record itself.
COUNT_FIGURES = (
    "dispersion_p",
    "spearman",
    "spearman_p",
    "growth",
    "growth_p",
    "dispersion_about_trend",
    "dispersion_about_trend_p",
)
SIZE_FIGURES = ("spearman", "spearman_p", "growth", "growth_p")


class FitModelsParams(BaseModel):
    """Parameters of fit_models.

    Losses above `threshold` are counted and fitted. `maximum` truncates the means (None: a mean that is infinite is
    refused). The record covers the years `first_year` to `last_year`, both included.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    threshold: float = Field(ge=0, allow_inf_nan=False)
    maximum: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    first_year: int = Field(ge=1, le=9999)
    last_year: int = Field(ge=1, le=9999)
    replicates: int = Field(ge=0, le=MAX_FIT_REPLICATES)
    seed: int = Field(ge=0, lt=2**63)

    @model_validator(mode="after")
    def _is_a_span(self) -> Self:
        if self.last_year < self.first_year:
            raise ValueError(f"last_year {self.last_year} is before first_year {self.first_year}")
        if self.maximum is not None and self.maximum <= self.threshold:
            raise ValueError(f"maximum {self.maximum:.15g} is not above the threshold {self.threshold:.15g}")
        return self


def fit_models_work(losses: int, years: int, replicates: int) -> float:
    """Return what the seconds of a job of fit_models are in proportion to: losses and years that laws are fitted to."""
    return float((1 + replicates) * (losses + years))


@dataclass(frozen=True, slots=True)
class _Record:
    """Losses above the threshold; calendar years, months (0 to 11) and days of the year (0 to 364), None if unknown."""

    losses: F64
    years: I64
    months: I64 | None
    days: I64 | None


@model("fit_models", version=1, params=FitModelsParams)
def fit_models(params: FitModelsParams, inputs: Sequence[Arrays]) -> dict[str, Array]:
    """Return the laws of frequency and severity that fit a record of losses.

    Input: [record]: loss float64 [n] and day integers [n] (1 is 1 January of year 1), or year instead of day. Output,
    float64 but for texts (UTF-8 JSON lists as uint8); [..., 3] is a value and its lower and upper 95% limit:

    - record [3]: losses above the threshold, their sum, the largest; texts `notes`: what cannot be said of it, and why
    - severity_parameters [law, 2, 3], severity_mean [law, 3] (of a loss above the threshold), severity_figures
      [law, SEVERITY_FIGURES]; texts severity_refused: why a law or its mean is refused, empty if it is not
    - frequency_parameters [law, 3, 3], frequency_figures [law, FREQUENCY_FIGURES]; texts frequency_refused
    - rate [3], variance_to_mean [3], counts [COUNT_FIGURES], sizes [SIZE_FIGURES] (the trend of the size), season [12],
      season_p [2]: Rayleigh's test, and chi-squared over the months
    - preferred [2]: number of the law of severity with the lowest AIC whose mean is not refused, and of the law of
      frequency that the dispersion calls for; -1 for none

    What is undefined or refused is nan; infinite limits and sizes are inf. Raises ModelError for a record that is none.
    """
    # Loading scipy.stats takes seconds, and only the fits need it.
    from riskmill.models.frequency_fits import fit_counts, fit_season
    from riskmill.models.severity_fits import fit_severities, severity_trend

    record = _read(params, inputs)
    x = record.losses
    outputs = _nothing()
    texts = {"severity_refused": [""] * len(SEVERITY_LAWS), "frequency_refused": [""] * len(FREQUENCY_LAWS)}
    notes = texts["notes"] = []
    outputs["record"] = np.array([x.size, x.sum(), x.max(initial=0.0)])
    counts = np.bincount(record.years - params.first_year, minlength=params.last_year - params.first_year + 1)
    try:
        report = fit_counts(counts, bootstrap=params.replicates, seed=params.seed)
    except ModelError as error:
        notes.append(f"frequency: {error}")
    else:
        _add_frequency(report, outputs, texts["frequency_refused"])
    if record.months is not None and record.days is not None and x.size:
        season = fit_season(record.months, record.days)
        outputs["season"] = np.array(season.weights)
        outputs["season_p"] = np.array([season.rayleigh_p, _nan(season.months_p)])
    when: F64 = record.years + (np.zeros(x.size) if record.days is None else record.days / 365)
    trend = severity_trend(when, x)
    if trend is not None:
        outputs["sizes"] = _named(asdict(trend), SIZE_FIGURES)
    maximum = math.inf if params.maximum is None else params.maximum
    try:
        fits = fit_severities(x, params.threshold, maximum=maximum, bootstrap=params.replicates, seed=params.seed)
    except ModelError as error:
        notes.append(f"severity: {error}")
    else:
        _add_severity(fits, outputs, texts["severity_refused"])
    made: dict[str, Array] = {name: rounded(array, DIGITS) for name, array in outputs.items()}
    return made | {name: _texts(values) for name, values in texts.items()}


def _read(params: FitModelsParams, inputs: Sequence[Arrays]) -> _Record:
    if len(inputs) != 1:
        raise ModelError(f"fit_models takes one record of losses; it was given {len(inputs)} inputs")
    record = inputs[0]
    need(record, "record of losses", "loss")
    losses = np.asarray(record["loss"], np.float64)
    when = next((name for name in ("day", "year") if name in record), None)
    if when is None:
        raise ModelError(f"the record of losses has no array day or year; it has {', '.join(sorted(record))}")
    if record[when].shape != losses.shape or losses.ndim != 1 or record[when].dtype.kind not in "iu":
        raise ModelError(f"the record of losses: loss and {when} must be as long as each other, {when} whole numbers")
    if not np.isfinite(losses).all() or losses.min(initial=0.0) < 0:
        raise ModelError("the record of losses has a loss that is below 0 or not finite")
    months = days = None
    years = record[when].astype(np.int64)
    if when == "day":
        if years.min(initial=1) < 1 or years.max(initial=1) > date.max.toordinal():
            raise ModelError("the record of losses has a day that no date has")
        dates = np.datetime64("0001-01-01") + (years - 1)
        years = dates.astype("datetime64[Y]").astype(np.int64) + 1970
        months = dates.astype("datetime64[M]").astype(np.int64) % 12
        first = MONTH_STARTS[months]
        # 29 February is the same day as 28 February.
        days = first + np.minimum((dates - dates.astype("datetime64[M]")).astype(np.int64), MONTH_LENGTHS[months] - 1)
    outside = (years < params.first_year) | (years > params.last_year)
    if outside.any():
        year = int(years[outside][0])
        raise ModelError(f"the record has a loss in {year}, outside {params.first_year}-{params.last_year}")
    chosen = losses > params.threshold
    return _Record(
        losses[chosen],
        years[chosen],
        None if months is None else months[chosen],
        None if days is None else days[chosen],
    )


def _nothing() -> dict[str, F64]:
    shapes = {
        "severity_parameters": (len(SEVERITY_LAWS), 2, 3),
        "severity_mean": (len(SEVERITY_LAWS), 3),
        "severity_figures": (len(SEVERITY_LAWS), len(SEVERITY_FIGURES)),
        "frequency_parameters": (len(FREQUENCY_LAWS), 3, 3),
        "frequency_figures": (len(FREQUENCY_LAWS), len(FREQUENCY_FIGURES)),
        "rate": (3,),
        "variance_to_mean": (3,),
        "counts": (len(COUNT_FIGURES),),
        "sizes": (len(SIZE_FIGURES),),
        "season": (12,),
        "season_p": (2,),
    }
    return {name: np.full(shape, np.nan) for name, shape in shapes.items()} | {"preferred": np.full(2, -1.0)}


def _add_frequency(report: "FrequencyReport", outputs: dict[str, F64], refused: list[str]) -> None:
    for at, (fit, names) in enumerate(zip(report.laws, FREQUENCY_LAWS.values(), strict=True)):
        for number, name in enumerate(names if fit.parameters else ()):
            outputs["frequency_parameters"][at, number] = _limits(fit.parameters[name])
        outputs["frequency_figures"][at] = _named(asdict(fit), FREQUENCY_FIGURES)
        refused[at] = fit.refused or ""
    outputs["rate"], outputs["variance_to_mean"] = _limits(report.rate), _limits(report.variance_to_mean)
    outputs["counts"] = _named(asdict(report), COUNT_FIGURES)
    outputs["preferred"][1] = [*FREQUENCY_LAWS].index(report.law)


def _add_severity(fits: "Sequence[SeverityFit]", outputs: dict[str, F64], refused: list[str]) -> None:
    for at, (fit, names) in enumerate(zip(fits, SEVERITY_LAWS.values(), strict=True)):
        for number, name in enumerate(names if fit.parameters else ()):
            outputs["severity_parameters"][at, number] = _limits(fit.parameters[name])
        if fit.mean is not None:
            outputs["severity_mean"][at] = _limits(fit.mean)
        outputs["severity_figures"][at] = _named(asdict(fit), SEVERITY_FIGURES)
        refused[at] = fit.refused or ""
    ranked = [(fit.aic, at) for at, fit in enumerate(fits) if fit.aic is not None and not fit.refused]
    if ranked:
        outputs["preferred"][0] = min(ranked)[1]


def _nan(value: float | None) -> float:
    return math.nan if value is None else value


def _limits(estimate: "Estimate") -> F64:
    return np.array([estimate.value, _nan(estimate.low), _nan(estimate.high)])


def _named(figures: Mapping[str, Any], names: Sequence[str]) -> F64:
    return np.array([_nan(figures[name]) for name in names], np.float64)


def _texts(values: Sequence[str]) -> Array:
    return np.frombuffer(json.dumps(values, ensure_ascii=False).encode(), np.uint8)
