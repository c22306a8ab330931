"""Fit the tail of a group's losses beyond what the trials show, with the uncertainty of the fit.

Peaks over a threshold (Pickands 1975): the excesses of the worst years follow a generalised Pareto law, fitted by
maximum likelihood; its quantiles reach beyond the longest return period that the trials support. How uncertain they are
is seen by fitting again and again to resampled excesses (Efron's bootstrap), which takes minutes.

The fits iterate in scipy, whose exp and log differ in the last bits between hosts, so figures are rounded.
"""

from collections.abc import Sequence

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from riskmill.models.occurrences import (
    F64,
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

#: Return periods of the fitted tail, in years.
TAIL_PERIODS = (250, 500, 1_000, 2_000, 5_000, 10_000)

#: Two-sided confidence of the intervals.
CONFIDENCE = 0.95

#: Fewer excesses than this are not fitted.
MIN_EXCESSES = 20

#: Significant digits of every figure.
DIGITS = 6

#: Numbers of Philox's key, beside the seed: one stream each.
_STREAMS = {"oep": 101, "aep": 102}


class TailFitParams(BaseModel):
    """Parameters of fit_tail: blocks of trials, share of years below the threshold, replicates of the bootstrap."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    blocks: int = Field(ge=1)
    replicates: int = Field(ge=1, le=1_000_000)
    seed: int = Field(ge=0, lt=2**63)
    level: float = Field(default=0.99, gt=0, lt=1)


@model("fit_tail", version=1, params=TailFitParams)
def fit_tail(params: TailFitParams, inputs: Sequence[Arrays]) -> dict[str, Array]:
    """Return the fitted tails of a group's largest occurrence of a year (oep) and its annual sum (aep).

    Inputs: [YET of each block, YELT of each block]. Output, float64, T = len(TAIL_PERIODS):
    return_period [T]; for oep and aep: <x>_fit [5] = threshold, excesses, shape, its lower and upper limit (95%), and
    <x>, <x>_low, <x>_high [T]. A tail with fewer than MIN_EXCESSES different excesses is nan.
    Raises ModelError for inputs that do not fit together.
    """
    yets, yelts, _ = split_blocks(inputs, params.blocks, "YET", "YELT")
    sums: list[F64] = []
    tops: list[F64] = []
    for yet, yelt in zip(yets, yelts, strict=True):
        check_yelt(yelt, check_yet(yet)["trial"].size)
        trial = yet["trial"][yelt["row"]]
        starts, loss = trial_starts(trial), yelt["loss"].astype(np.float64, copy=False)
        for arrays, values in ((sums, sum_by_trial(loss, starts)), (tops, largest_by_trial(loss, starts))):
            annual = np.zeros(trials_of(yet))
            annual[trial[starts]] = values
            arrays.append(annual)
    outputs: dict[str, Array] = {"return_period": np.array(TAIL_PERIODS, np.float64)}
    for name, parts in (("oep", tops), ("aep", sums)):
        outputs |= _tail(name, np.concatenate(parts), params)
    return outputs


def _tail(name: str, losses: F64, params: TailFitParams) -> dict[str, Array]:
    falling = np.sort(losses)[::-1]
    count = min(int(losses.size * (1 - params.level)), losses.size - 1)
    threshold = float(falling[count])
    excess = falling[:count] - threshold
    excess = excess[excess > 0]
    if np.unique(excess).size < MIN_EXCESSES:
        nothing = np.full(len(TAIL_PERIODS), np.nan)
        return {f"{name}_fit": np.full(5, np.nan)} | {f"{name}{suffix}": nothing for suffix in ("", "_low", "_high")}
    exceeding = excess.size / losses.size
    shape, scale = _fit(excess)
    shapes = np.empty(params.replicates)
    quantiles = np.empty((params.replicates, len(TAIL_PERIODS)))
    words = np.random.Philox(key=np.array([params.seed, _STREAMS[name]], np.uint64))
    for number in range(params.replicates):
        uniform = (words.random_raw(excess.size) >> np.uint64(11)) * 2.0**-53
        drawn = excess[(uniform * excess.size).astype(np.int64)]
        shapes[number], of_sample = _fit(drawn)
        quantiles[number] = _quantiles(threshold, exceeding, shapes[number], of_sample)
    low, high = (_order_statistic(quantiles, side) for side in ((1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2))
    shape_low, shape_high = (
        float(_order_statistic(shapes[:, None], side)[0]) for side in ((1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2)
    )
    return {
        f"{name}_fit": _rounded(np.array([threshold, excess.size, shape, shape_low, shape_high])),
        name: _rounded(_quantiles(threshold, exceeding, shape, scale)),
        f"{name}_low": _rounded(low),
        f"{name}_high": _rounded(high),
    }


def _fit(excess: F64) -> tuple[float, float]:
    """Return shape and scale of a generalised Pareto law by maximum likelihood."""
    # Loading scipy.stats takes seconds, and only this model needs it.
    from scipy import stats

    shape, _, scale = stats.genpareto.fit(excess, floc=0)
    return float(shape), float(scale)


def _quantiles(threshold: float, exceeding: float, shape: float, scale: float) -> F64:
    """Return the losses of TAIL_PERIODS; a period within the threshold's own is the threshold."""
    ratio = np.maximum(exceeding * np.array(TAIL_PERIODS, np.float64), 1.0)
    if abs(shape) < 1e-9:
        return np.asarray(threshold + scale * np.log(ratio))
    return np.asarray(threshold + scale / shape * (ratio**shape - 1))


def _order_statistic(values: F64, probability: float) -> F64:
    """Return the order statistic of each column [replicates, columns] at a probability."""
    ordered = np.sort(values, axis=0)
    return np.asarray(ordered[min(int(probability * len(ordered)), len(ordered) - 1)])


def _rounded(values: F64) -> F64:
    """Return the values with DIGITS significant digits, as decimal text has them."""
    return np.array([float(f"{value:.{DIGITS}g}") for value in values.tolist()])
