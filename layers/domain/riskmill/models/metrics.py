"""Measure a group's losses: average annual loss, exceedance curves, tail value at risk, the tail's trials."""

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from riskmill.errors import ModelError
from riskmill.models.occurrences import (
    F64,
    I64,
    check_yelt,
    check_yet,
    largest_by_trial,
    split_blocks,
    sum_by_trial,
    trial_starts,
    trials_of,
)
from riskmill.models.registry import model
from riskmill.outputs import Array, Arrays

#: Return periods of the exceedance tables, in years.
RETURN_PERIODS = (2, 5, 10, 20, 25, 50, 100, 200, 250, 500, 1000)

#: Two-sided confidence of every interval.
CONFIDENCE = 0.95

#: Ceded losses below this part of the gross loss are what rounding leaves of two sums.
_CEDED_ROUNDING = 1e-9


class MeasureParams(BaseModel):
    """Parameters of measure: blocks of trials, what is measured, and the level of the tail (0.99: worst 1%)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    blocks: int = Field(ge=1)
    perspective: Literal["gross", "net", "ceded"] = "gross"
    tail: float = Field(default=0.99, gt=0, lt=1)


@model("measure", version=1, params=MeasureParams)
def measure(params: MeasureParams, inputs: Sequence[Arrays]) -> dict[str, Array]:
    """Return the measures of a group's losses over all blocks of trials.

    Inputs: [YET of each block, YELT of each block], the YELTs being gross or net; for `ceded` the gross ones and then
    the net ones. Output, float64 unless said, T = len(RETURN_PERIODS):
    trials int64 [1], aal [1], aal_se [1], sd [1], prob_loss [1];
    return_period [T], and for oep and aep: <x>, <x>_low, <x>_high (95%), <x>_tvar, all [T], nan where the trials
    cannot support it; curve_return_period, curve_oep, curve_aep [points, by falling return period];
    tail [1], var [1] and tvar [1] of the annual loss at that level; tail_trial int64 (from 0 over all blocks) and
    tail_weight, which sum to 1: tvar is the weighted mean of the annual losses. Definitions: docs/models.md.
    Raises ModelError for inputs that do not fit together.
    """
    parts = ["YET", "gross YELT", "net YELT"] if params.perspective == "ceded" else ["YET", "YELT"]
    yets, yelts, *rest = split_blocks(inputs, params.blocks, *parts)
    sums: list[F64] = []
    tops: list[F64] = []
    for block, yet in enumerate(yets):
        check_yet(yet)
        row, loss = _losses(yelts[block], yet)
        if params.perspective == "ceded":
            row, loss = _ceded(row, loss, *_losses(rest[0][block], yet))
        trial = yet["trial"][row]
        starts = trial_starts(trial)
        for arrays, values in ((sums, sum_by_trial(loss, starts)), (tops, largest_by_trial(loss, starts))):
            annual = np.zeros(trials_of(yet))
            annual[trial[starts]] = values
            arrays.append(annual)
    annual, largest = np.concatenate(sums), np.concatenate(tops)
    output = _moments(annual)
    output["return_period"] = np.array(RETURN_PERIODS, np.float64)
    ranks = curve_ranks(annual.size)
    output["curve_return_period"] = annual.size / ranks
    for name, values in (("oep", largest), ("aep", annual)):
        falling = np.sort(values)[::-1]
        table = np.array([quantile(falling, period) for period in RETURN_PERIODS])
        for column, suffix in enumerate(("", "_low", "_high", "_tvar")):
            output[name + suffix] = np.ascontiguousarray(table[:, column])
        output[f"curve_{name}"] = falling[ranks - 1]
    return output | _tail(annual, params.tail)


def _losses(yelt: Arrays, yet: Arrays) -> tuple[I64, F64]:
    check_yelt(yelt, yet["trial"].size)
    return yelt["row"].astype(np.int64), yelt["loss"].astype(np.float64, copy=False)


def _ceded(row: I64, gross: F64, net_row: I64, net: F64) -> tuple[I64, F64]:
    """Return what is ceded: gross less net, row by row."""
    at = np.searchsorted(row, net_row)
    # A net loss where there is no gross one can only be a mix-up of groups.
    if (at >= row.size).any() or (row[at] != net_row).any():
        raise ModelError("a net loss stands on a row without a gross loss: not of the same group")
    ceded = gross.copy()
    ceded[at] -= net
    some = ceded > gross * _CEDED_ROUNDING
    return row[some], ceded[some]


def _moments(annual: F64) -> dict[str, Array]:
    trials = annual.size
    mean = np.add.reduce(annual) / trials
    deviation = annual - mean
    sd = math.sqrt(np.add.reduce(deviation * deviation) / (trials - 1)) if trials > 1 else math.nan
    return {
        "trials": np.array([trials], np.int64),
        "aal": np.array([mean], np.float64),
        "aal_se": np.array([sd / math.sqrt(trials)], np.float64),
        "sd": np.array([sd], np.float64),
        "prob_loss": np.array([np.count_nonzero(annual) / trials], np.float64),
    }


def worst(trials: int, probability: Fraction) -> tuple[int, float]:
    """Return how many trials the worst `probability` of them are: whole ones, and the fraction of one more."""
    count = trials * probability
    return int(count), float(count - int(count))


def tail_mean(falling: F64, whole: int, fraction: float) -> float:
    """Return TVaR: the mean of the worst `whole` + `fraction` trials, the last with that weight.

    `falling` holds losses from the largest; below one trial it is the largest (Acerbi & Tasche 2002).
    """
    if whole == 0:
        return float(falling[0])
    total = float(np.add.reduce(falling[:whole]))
    if fraction > 0:
        total += fraction * float(falling[whole])
    return total / (whole + fraction)


def quantile(falling: F64, return_period: int) -> tuple[float, float, float, float]:
    """Return the loss of a return period, its confidence limits and its TVaR, from losses sorted from the largest.

    Rank k of N has the return period N / k; between ranks the larger loss is taken. The confidence limits are order
    statistics whose ranks bracket a binomial number of exceedances (David & Nagaraja, Order Statistics, 7.1). What
    the trials cannot support is nan.
    """
    trials = falling.size
    rank = trials // return_period
    if rank < 1:
        return math.nan, math.nan, math.nan, math.nan
    upper, lower = confidence_ranks(trials, return_period)
    whole, fraction = worst(trials, Fraction(1, return_period))
    return (
        float(falling[rank - 1]),
        float(falling[lower - 1]) if lower <= trials else math.nan,
        float(falling[upper - 1]) if upper >= 1 else math.nan,
        tail_mean(falling, whole, fraction),
    )


def confidence_ranks(trials: int, return_period: int) -> tuple[int, int]:
    """Return the ranks, from the largest, of the upper and the lower confidence limit of a return period's loss (> 1).

    The number B of trials that exceed the true loss is binomial(trials, 1 / return_period). The upper rank u is the
    largest with P(B < u) <= 2.5%, and 0 if there is none; the lower rank l is the smallest with P(B >= l) <= 2.5%,
    and trials + 1 if there is none.
    """
    # Probabilities relative to the mode's, by the ratio of neighbours: only * and /, so the same on every host.
    mode = (trials + 1) // return_period
    spread = int(13 * math.sqrt(trials / return_period)) + 60
    first, last = max(mode - spread, 0), min(mode + spread, trials)
    odds = 1 / (return_period - 1)
    up = np.arange(mode + 1, last + 1)
    down = np.arange(mode, first, -1)
    above = np.cumprod((trials - up + 1) / up * odds)
    below = np.cumprod(down / (trials - down + 1) / odds)
    probability = np.concatenate((below[::-1], [1.0], above))
    cumulative = np.cumsum(probability)
    side = (1 - CONFIDENCE) / 2 * cumulative[-1]
    fewer = np.concatenate(([0.0], cumulative))
    upper = first + int(np.searchsorted(fewer, side, side="right")) - 1
    at_least = np.append(np.cumsum(probability[::-1])[::-1], 0.0)
    lower = first + int(np.count_nonzero(at_least > side))
    return upper, lower


def curve_ranks(trials: int) -> I64:
    """Return the ranks that a chart shows: each of the first twenty, then every 5%, to the last."""
    ranks = []
    rank = 1
    while rank < trials:
        ranks.append(rank)
        rank = max(rank + 1, rank * 21 // 20)
    return np.array([*ranks, trials], np.int64)


def _tail(annual: F64, level: float) -> dict[str, Array]:
    """Return VaR and TVaR of the annual loss, and the weight of each trial in it, ties at the boundary shared alike."""
    # str gives the level as it was written: 0.99 leaves 1% exactly.
    whole, fraction = worst(annual.size, 1 - Fraction(str(level)))
    falling = np.sort(annual)[::-1]
    rank = max(whole + (fraction > 0), 1)
    boundary = falling[rank - 1]
    trial = np.flatnonzero(annual >= boundary)
    above = annual[trial] > boundary
    size = whole + fraction if whole else 1.0
    beyond = int(np.count_nonzero(above))
    shared = (size - beyond) / (trial.size - beyond)
    return {
        "tail": np.array([level], np.float64),
        "var": np.array([boundary], np.float64),
        "tvar": np.array([tail_mean(falling, whole, fraction)], np.float64),
        "tail_trial": trial.astype(np.int64),
        "tail_weight": np.where(above, 1.0, shared) / size,
    }
