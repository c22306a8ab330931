"""Fit the tail of a group's losses beyond what the trials show, at several thresholds, with the uncertainty of the fit.

Peaks over a threshold (Pickands 1975): the excesses of the worst years follow a generalised Pareto law, fitted by
maximum likelihood; its quantiles reach beyond the longest return period that the trials support. Which years are the
worst is a choice: where the law holds, shape and quantiles do not depend on it (Coles 2001, section 4.3.4), so they are
fitted to the worst 10% of years down to the worst 0.5%. How uncertain each is, is seen by fitting again to resampled
excesses, and how well it fits, by fitting again to samples of the fitted law: thousands of fits at each threshold.

The fits iterate through exp and log, whose last bits differ between hosts, so figures are rounded.
"""

from collections.abc import Sequence
from fractions import Fraction
from typing import Annotated

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from riskmill.figure_names import TAIL_FIGURES
from riskmill.models.metrics import worst
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
from riskmill.outputs import Array, Arrays, rounded

#: Return periods of the fitted tail, in years.
TAIL_PERIODS = (250, 500, 1_000, 2_000, 5_000, 10_000)

#: Shares of the years that are the tail: the thresholds.
TAIL_SHARES = (0.1, 0.05, 0.03, 0.02, 0.015, 0.01, 0.0075, 0.005)

#: Fewer different excesses than this are not fitted.
MIN_EXCESSES = 20

#: Significant digits of every figure.
DIGITS = 6

#: Numbers of Philox's key, beside the seed: two streams for each threshold.
_STREAMS = {"oep": 1000, "aep": 2000}

type _Share = Annotated[float, Field(gt=0, lt=1)]


class TailFitParams(BaseModel):
    """Parameters of fit_tail: blocks of trials, replicates of the bootstrap, and the shares of years in the tail."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    blocks: int = Field(ge=1)
    replicates: int = Field(ge=1, le=1_000_000)
    seed: int = Field(ge=0, lt=2**63)
    shares: tuple[_Share, ...] = Field(default=TAIL_SHARES, min_length=1, max_length=100)


def tail_work(trials: int, replicates: int, shares: Sequence[float] = TAIL_SHARES) -> float:
    """Return how many excesses a job of fit_tail fits laws to: what its seconds are in proportion to."""
    return 2.0 * replicates * trials * sum(shares)


@model("fit_tail", version=2, params=TailFitParams)
def fit_tail(params: TailFitParams, inputs: Sequence[Arrays]) -> dict[str, Array]:
    """Return the fitted tails of a group's largest occurrence of a year (oep) and its annual sum (aep).

    Inputs: [YET of each block, YELT of each block]. Output, float64, T = len(TAIL_PERIODS), S = len(shares):
    return_period [T], share [S]; for oep and aep: <x>_fit [S, len(TAIL_FIGURES)] and <x>, <x>_low, <x>_high [S, T]
    (losses; intervals 95%). A threshold with fewer than MIN_EXCESSES different excesses is nan, and so is one to which
    no law of shape above -0.5 can be fitted, but for threshold and excesses. Raises ModelError for inputs that do not
    fit together.
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
    outputs: dict[str, Array] = {
        "return_period": np.array(TAIL_PERIODS, np.float64),
        "share": np.array(params.shares, np.float64),
    }
    for name, parts in (("oep", tops), ("aep", sums)):
        falling = np.sort(np.concatenate(parts))[::-1]
        tails = [_tail(falling, share, params, _STREAMS[name] + 2 * at) for at, share in enumerate(params.shares)]
        for at, suffix in enumerate(("_fit", "", "_low", "_high")):
            outputs[f"{name}{suffix}"] = rounded(np.array([tail[at] for tail in tails]), DIGITS)
    return outputs


def _tail(falling: F64, share: float, params: TailFitParams, stream: int) -> tuple[F64, F64, F64, F64]:
    """Return figures, quantiles and their lower and upper limits of one threshold."""
    # Loading scipy.stats takes seconds, and only the fits need it.
    from riskmill.models.severity_fits import bootstrap_gpd, interval

    figures = dict.fromkeys(TAIL_FIGURES, np.nan)
    nothing = np.full(len(TAIL_PERIODS), np.nan)
    count = min(worst(falling.size, Fraction(str(share)))[0], falling.size - 1)
    threshold = float(falling[count])
    above = falling[:count][falling[:count] > threshold]
    figures |= {"threshold": threshold, "excesses": above.size}
    if np.unique(above).size >= MIN_EXCESSES:
        fit = bootstrap_gpd(above, threshold, bootstrap=params.replicates, seed=params.seed, stream=stream)
        if fit is not None:
            exceeding = above.size / falling.size
            limits = [interval(fit.resampled[:, column]) for column in range(2)]
            for name, value, (low, high) in zip(("shape", "scale"), fit.law.tolist(), limits, strict=True):
                figures |= {name: value, f"{name}_low": _nan(low), f"{name}_high": _nan(high)}
            figures |= {"ks": fit.ks, "ks_p": _nan(fit.ks_p), "ad": fit.ad, "ad_p": _nan(fit.ad_p)}
            figures["failed_share"] = float(np.isnan(fit.resampled[:, 0]).mean())
            found = np.array(
                [interval(column) for column in _quantiles(threshold, exceeding, fit.resampled).T], np.float64
            )
            quantiles = _quantiles(threshold, exceeding, fit.law[None, :])[0]
            return np.array([*figures.values()]), quantiles, found[:, 0], found[:, 1]
    return np.array([*figures.values()]), nothing, nothing, nothing


def _nan(value: float | None) -> float:
    return np.nan if value is None else value


def _quantiles(threshold: float, exceeding: float, laws: F64) -> F64:
    """Return the losses of TAIL_PERIODS by each law [laws, T]; a period within the threshold's own is the threshold."""
    log = np.log(np.maximum(exceeding * np.array(TAIL_PERIODS, np.float64), 1.0))
    shape, scale = laws[:, :1], laws[:, 1:]
    safe = np.where(np.abs(shape) < 1e-9, 1e-9, shape)
    return np.asarray(threshold + scale * np.expm1(safe * log) / safe)
