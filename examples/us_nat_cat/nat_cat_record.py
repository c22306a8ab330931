"""The record of US billion-dollar disasters, and what is fitted to it: frequency, season and severity by peril.

Amounts of the record are economic losses in USD million at 2023 prices; what is insured of them is INSURED_SHARE.
"""

import csv
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from riskmill.models.fitting import (
    FrequencyFit,
    GpdFit,
    LognormalFit,
    TrendFit,
    TruncatedGpd,
    fit_frequency,
    fit_gpd,
    fit_lognormal,
    fit_trend,
)
from riskmill.models.occurrences import F64, I64

HERE = Path(__file__).parent
RECORD = HERE / "us_billion_dollar_events.csv"

#: Years of the record; it has an event only where the loss passed THRESHOLD (USD million).
FIRST_YEAR, LAST_YEAR = 1980, 2023
YEARS = LAST_YEAR - FIRST_YEAR + 1
THRESHOLD = 1000.0

#: Perils of the example (ids in the portfolio) and their names in the record.
PERILS = {
    "tropical_cyclone": "Tropical Cyclone",
    "severe_storm": "Severe Storm",
    "flood": "Flooding",
    "winter_storm": "Winter Storm",
    "wildfire": "Wildfire",
    "drought": "Drought",
    "freeze": "Freeze",
}
#: Perils that hit crops; the others hit property.
CROP_PERILS = ("drought", "freeze")

#: ASSUMPTION: part of the economic loss that private insurers bear, alike for every event of a peril. Round numbers
#: chosen for this example, not estimates. Flood is low because most insured homes are with the federal flood program.
INSURED_SHARE = {
    "tropical_cyclone": 0.50,
    "severe_storm": 0.75,
    "flood": 0.20,
    "winter_storm": 0.65,
    "wildfire": 0.60,
    "drought": 0.50,
    "freeze": 0.50,
}

#: ASSUMPTION: largest economic loss of one event, USD million. The severity law is truncated there. For tropical
#: cyclones it decides the mean, which the fitted law does not have: docs/example.md shows the mean for other maxima.
MAXIMUM = {
    "tropical_cyclone": 500_000.0,
    "severe_storm": 75_000.0,
    "flood": 300_000.0,
    "winter_storm": 200_000.0,
    "wildfire": 300_000.0,
    "drought": 200_000.0,
    "freeze": 50_000.0,
}

#: Perils whose annual number is put on today's level: the mean of the fitted trend over the last TREND_YEARS.
DETRENDED = ("severe_storm",)
TREND_YEARS = 10


@dataclass(frozen=True, slots=True)
class PerilRecord:
    """One peril's record: events a year, months of begin [12], losses (USD million), and losses a year [years]."""

    peril: str
    counts: I64
    months: I64
    losses: F64
    annual: F64


@dataclass(frozen=True, slots=True)
class PerilFit:
    """What is simulated for a peril, and the fits behind it.

    `frequency` is fitted to the counts as recorded, `residual` to those about the trend where the peril is detrended.
    `gpd` is None where the record is too short. `rate` is on today's level; `as_if` [years] is the insured annual
    loss of each year on that level, in USD million, in the form of a ratio estimator (see `_as_if`).
    """

    record: PerilRecord
    frequency: FrequencyFit
    trend: TrendFit
    residual: FrequencyFit
    gpd: GpdFit | None
    lognormal: LognormalFit
    severity: TruncatedGpd
    rate: float
    as_if: F64

    @property
    def law(self) -> str:
        """Law of the annual number of events that is simulated."""
        return self.residual.law

    @property
    def variance_to_mean(self) -> float:
        """Variance to mean that is simulated: 1 for Poisson."""
        return 1.0 if self.law == "poisson" else self.residual.variance_to_mean

    @property
    def mean_insured_loss(self) -> float:
        """Fitted mean insured loss of a year, USD million."""
        return self.rate * self.severity.mean() * INSURED_SHARE[self.record.peril]


def read_record() -> dict[str, PerilRecord]:
    """Return the record by peril. A year's events are those that began in it."""
    with RECORD.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    records = {}
    for peril, name in PERILS.items():
        its = [row for row in rows if row["peril"] == name]
        year = np.array([int(row["begin"][:4]) - FIRST_YEAR for row in its])
        month = np.array([int(row["begin"][5:7]) - 1 for row in its])
        losses = np.array([float(row["cost_usd_m_cpi_adjusted"]) for row in its])
        records[peril] = PerilRecord(
            peril,
            np.bincount(year, minlength=YEARS),
            np.bincount(month, minlength=12),
            losses,
            np.bincount(year, losses, minlength=YEARS),
        )
    return records


@cache
def fit_record() -> dict[str, PerilFit]:
    """Fit every peril of the record."""
    return {peril: _fit_peril(record) for peril, record in read_record().items()}


def _fit_peril(record: PerilRecord) -> PerilFit:
    frequency, trend = fit_frequency(record.counts), fit_trend(record.counts)
    residual, rate = frequency, frequency.rate
    if record.peril in DETRENDED:
        residual = fit_frequency(record.counts, trend.expected, fitted=2)
        rate = float(trend.expected[-TREND_YEARS:].mean())
    if record.losses.size >= 10:
        gpd = fit_gpd(record.losses, THRESHOLD)
        shape, scale = gpd.shape, gpd.scale
    else:
        # Nine freezes cannot carry a shape (the fit gives -1.4, an end just above the largest loss): exponential
        # excesses, whose maximum likelihood is the mean excess.
        gpd, shape, scale = None, 0.0, float(record.losses.mean()) - THRESHOLD
    return PerilFit(
        record,
        frequency,
        trend,
        residual,
        gpd,
        fit_lognormal(record.losses),
        TruncatedGpd(THRESHOLD, shape, scale, MAXIMUM[record.peril]),
        rate,
        INSURED_SHARE[record.peril] * _as_if(record, trend, rate),
    )


def _as_if(record: PerilRecord, trend: TrendFit, rate: float) -> F64:
    """Return annual losses on today's level whose mean and spread are those of the as-if estimate.

    Without a trend they are the recorded ones. With one, the estimate is the ratio `rate x sum(loss) / sum(expected)`
    and its spread that of the linearised ratio, `loss - r x expected`: dividing each year by its own expected count
    would let the two or three events of the 1980s, multiplied by thirty, decide.
    """
    if record.peril not in DETRENDED:
        return record.annual
    level = rate / trend.expected.mean()
    ratio = record.annual.sum() / trend.expected.sum()
    as_if: F64 = level * record.annual.mean() + level * (record.annual - ratio * trend.expected)
    return as_if
