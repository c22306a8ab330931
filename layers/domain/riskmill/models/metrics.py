"""Measure a group's losses: average annual loss, exceedance curves, tail value at risk, the tail's trials; by peril."""

import json
import math
from collections.abc import Sequence
from fractions import Fraction
from functools import lru_cache
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from riskmill.errors import ModelError
from riskmill.figure_names import PERIL_FIGURES
from riskmill.models.occurrences import (
    F64,
    I64,
    check_yelt,
    check_yet,
    largest_by_trial,
    need,
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

#: Part of the tail, its smallest years, whose mean stands for a member's loss where the tail begins.
BOUNDARY = 0.1

#: Ceded losses below this part of the gross loss are what rounding leaves of two sums.
CEDED_ROUNDING = 1e-9


class MeasureParams(BaseModel):
    """Parameters of measure: blocks of trials, what is measured, and the level of the tail (0.99: worst 1%).

    With `perils` the catalogue follows the other inputs, and each peril is measured by itself too.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    blocks: int = Field(ge=1)
    perspective: Literal["gross", "net", "ceded"] = "gross"
    tail: float = Field(default=0.99, gt=0, lt=1)
    perils: bool = False


@model("measure", version=3, params=MeasureParams)
def measure(params: MeasureParams, inputs: Sequence[Arrays]) -> dict[str, Array]:
    """Return the measures of a group's losses over all blocks of trials.

    Inputs: [YET of each block, YELT of each block], the YELTs being gross or net; for `ceded` the gross ones and then
    the net ones; with `perils` the catalogue behind them. Output, float64 unless said, T = len(RETURN_PERIODS):
    trials int64 [1], aal [1], aal_se [1], sd [1], sd_se [1], prob_loss [1], prob_loss_low [1], prob_loss_high [1];
    return_period [T], and for oep and aep: <x>, <x>_low, <x>_high (95%), <x>_tvar, <x>_tvar_se, all [T], nan where the
    trials cannot support it; curve_return_period, curve_oep, curve_aep [points, by falling return period];
    tail [1], and var [1], tvar [1] and tvar_se [1] of the annual loss at that level; tail_trial int64 (from 0 over all
    blocks) and tail_weight, which sum to 1: tvar is the weighted mean of the annual losses; annual_trial int32 and
    annual_loss, the years with a loss. With perils, P of them: peril_names uint8 (UTF-8 JSON), peril_<figure> [P] for
    PERIL_FIGURES (co_tvar is the peril's part of this tvar, marginal_tvar this less that without the peril), and
    peril_<x> [P, T] for the ten columns of oep and aep. Definitions: docs/models.md.
    Raises ModelError for inputs that do not fit together.
    """
    parts = ["YET", "gross YELT", "net YELT"] if params.perspective == "ceded" else ["YET", "YELT"]
    yets, yelts, *rest = split_blocks(inputs, params.blocks, *parts, extra=int(params.perils))
    by_block: list[tuple[I64, F64]] = []
    for block, yet in enumerate(yets):
        check_yet(yet)
        row, loss = _losses(yelts[block], yet)
        if params.perspective == "ceded":
            row, loss = _ceded(row, loss, *_losses(rest[0][block], yet))
        by_block.append((row, loss))
    annual, largest = _annual(yets, by_block)
    output = _moments(annual)
    output["return_period"] = np.array(RETURN_PERIODS, np.float64)
    ranks = curve_ranks(annual.size)
    output["curve_return_period"] = annual.size / ranks
    for name, values in (("oep", largest), ("aep", annual)):
        falling = np.sort(values)[::-1]
        for column, found in zip(EP_COLUMNS, ep_table(falling, annual.size, RETURN_PERIODS), strict=True):
            output[name + column] = found
        output[f"curve_{name}"] = falling[ranks - 1]
    some = np.flatnonzero(annual)
    output |= {"annual_trial": some.astype(np.int32), "annual_loss": annual[some]}
    output |= _tail(annual, params.tail)
    if params.perils:
        output |= _by_peril(rest[-1][0], yets, by_block, Arrays(output))
    return output


#: Columns of `ep_table`, as they end the names of outputs.
EP_COLUMNS = ("", "_low", "_high", "_tvar", "_tvar_se")


def ep_table(falling: F64, trials: int, periods: Sequence[int]) -> list[F64]:
    """Return the columns of `quantile`, and the standard error of its TVaR, at these return periods.

    `falling` holds losses from the largest, all of them or as many as `ranks_needed` says.
    """
    table = np.array(
        [
            (
                *quantile(falling, period, trials),
                tail_error(falling, worst(trials, Fraction(1, period))[0], Fraction(1, period)),
            )
            for period in periods
        ]
    )
    return [np.ascontiguousarray(column) for column in table.T]


def ranks_needed(trials: int, periods: Sequence[int]) -> int:
    """Return how many of the largest losses `ep_table` reads at these return periods."""
    lower = [confidence_ranks(trials, period)[1] for period in periods]
    return min(max(*lower, trials // min(periods) + 1), trials)


def largest_of(losses: F64, count: int) -> F64:
    """Return the `count` largest of these losses (not below 0) and of zeros without end, from the largest."""
    falling = np.zeros(count)
    some = losses if losses.size <= count else np.partition(losses, losses.size - count)[losses.size - count :]
    falling[: some.size] = np.sort(some)[::-1]
    return falling


def _annual(yets: Sequence[Arrays], by_block: Sequence[tuple[I64, F64]]) -> tuple[F64, F64]:
    """Return the annual loss and the largest occurrence of every trial of all blocks."""
    sums: list[F64] = []
    tops: list[F64] = []
    for yet, (row, loss) in zip(yets, by_block, strict=True):
        trial = yet["trial"][row]
        starts = trial_starts(trial)
        for arrays, values in ((sums, sum_by_trial(loss, starts)), (tops, largest_by_trial(loss, starts))):
            annual = np.zeros(trials_of(yet))
            annual[trial[starts]] = values
            arrays.append(annual)
    return np.concatenate(sums), np.concatenate(tops)


def _by_peril(
    catalogue: Arrays, yets: Sequence[Arrays], by_block: Sequence[tuple[I64, F64]], measured: Arrays
) -> dict[str, Array]:
    """Return the measures of each peril of the catalogue by itself, and its part of the tail."""
    need(catalogue, "catalogue", "event", "peril", "peril_names")
    of_rows = [_peril_of(catalogue, yet["event"][row]) for yet, (row, _) in zip(yets, by_block, strict=True)]
    count = len(json.loads(catalogue["peril_names"].tobytes()))
    single: dict[str, list[float]] = {name: [] for name in PERIL_FIGURES}
    tables: dict[str, list[F64]] = {name + column: [] for name in ("oep", "aep") for column in EP_COLUMNS}
    tail = Tail(measured)
    for peril in range(count):
        its = []
        for (row, loss), of_row in zip(by_block, of_rows, strict=True):
            chosen = np.flatnonzero(of_row == peril)
            its.append((row[chosen], loss[chosen]))
        annual, largest = _annual(yets, its)
        moments = _moments(annual)
        for name in single.keys() & moments.keys():
            single[name].append(float(moments[name][0]))
        for name, values in (("oep", largest), ("aep", annual)):
            falling = np.sort(values)[::-1]
            for column, found in zip(EP_COLUMNS, ep_table(falling, values.size, RETURN_PERIODS), strict=True):
                tables[name + column].append(found)
        # the last one sorted is the annual loss
        single["tvar"].append(tail_mean(falling, tail.whole, tail.fraction))
        single["tvar_se"].append(tail_error(falling, tail.whole, tail.probability))
        some = np.flatnonzero(annual)
        for name, value in zip(_MEMBER_FIGURES, tail.of_member(some, annual[some]), strict=True):
            single[name].append(value)
    shape = (count, len(RETURN_PERIODS))
    return {
        "peril_names": catalogue["peril_names"],
        **{f"peril_{name}": np.array(values, np.float64) for name, values in single.items()},
        **{f"peril_{name}": np.array(rows, np.float64).reshape(shape) for name, rows in tables.items()},
    }


def _peril_of(catalogue: Arrays, events: Array) -> Array:
    """Return the peril of each event. Raises ModelError for an event that the catalogue does not have."""
    known = catalogue["event"]
    at = np.minimum(np.searchsorted(known, events), max(known.size - 1, 0))
    if events.size and (not known.size or (known[at] != events).any()):
        raise ModelError("a year-event table has an event that the catalogue does not have")
    peril: Array = catalogue["peril"][at] if events.size else np.empty(0, np.int32)
    return peril


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
    some = ceded > gross * CEDED_ROUNDING
    return row[some], ceded[some]


def _moments(annual: F64) -> dict[str, Array]:
    trials = annual.size
    mean = np.add.reduce(annual) / trials
    deviation = annual - mean
    squares = deviation * deviation
    sd = math.sqrt(np.add.reduce(squares) / (trials - 1)) if trials > 1 else math.nan
    low, high = proportion_interval(int(np.count_nonzero(annual)), trials)
    return {
        "trials": np.array([trials], np.int64),
        "aal": np.array([mean], np.float64),
        "aal_se": np.array([sd / math.sqrt(trials)], np.float64),
        "sd": np.array([sd], np.float64),
        "sd_se": np.array([sd_error(trials, sd, float(np.add.reduce(squares * squares)) / trials)], np.float64),
        "prob_loss": np.array([np.count_nonzero(annual) / trials], np.float64),
        "prob_loss_low": np.array([low], np.float64),
        "prob_loss_high": np.array([high], np.float64),
    }


def sd_error(trials: int, sd: float, fourth: float) -> float:
    """Return the standard error of a standard deviation (delta method): `sqrt((m4 - sd^4) / N) / (2 sd)`."""
    if not sd > 0:
        return math.nan if math.isnan(sd) else 0.0
    return math.sqrt(max(fourth - sd**2 * sd**2, 0.0) / trials) / (2 * sd)


#: Two-sided 95% of a normal law, to a double.
NORMAL_95 = 1.959963984540054


def proportion_interval(count: int, trials: int) -> tuple[float, float]:
    """Return the 95% confidence limits of a probability from `count` of `trials` (Wilson 1927)."""
    part, square = count / trials, NORMAL_95 * NORMAL_95 / trials
    middle = (part + square / 2) / (1 + square)
    half = math.sqrt(square * (part * (1 - part) + square / 4)) / (1 + square)
    return max(middle - half, 0.0), min(middle + half, 1.0)


def tvar_error(falling: F64, probability: Fraction) -> float:
    """Return the standard error of the TVaR of the worst `probability` of trials (Manistre & Hancock 2005).

    `sqrt((Var(X | tail) + (1 - p) (TVaR - VaR)^2) / n)`, n trials in the tail, p their share of all. nan below two.
    """
    return tail_error(falling, worst(falling.size, probability)[0], probability)


def tail_error(falling: F64, whole: int, probability: Fraction) -> float:
    """Return `tvar_error` from the `whole` worst trials at least, which are `probability` of all."""
    if whole < 2:
        return math.nan
    tail = falling[:whole]
    mean = float(np.add.reduce(tail)) / whole
    deviation = tail - mean
    variance = float(np.add.reduce(deviation * deviation)) / (whole - 1)
    beyond = mean - float(falling[whole - 1])
    return math.sqrt((variance + float(1 - probability) * beyond * beyond) / whole)


@lru_cache(maxsize=256)
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


def quantile(falling: F64, return_period: int, trials: int | None = None) -> tuple[float, float, float, float]:
    """Return the loss of a return period, its confidence limits and its TVaR, from losses sorted from the largest.

    `falling` are those of all `trials`, or of as many of the worst as `ranks_needed` counts. Rank k of N has the return
    period N / k; between ranks the larger loss is taken. The confidence limits are order statistics whose ranks bracket
    a binomial number of exceedances (David & Nagaraja, Order Statistics, 7.1). What the trials cannot support is nan.
    """
    trials = falling.size if trials is None else trials
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


@lru_cache(maxsize=256)
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
        "tvar_se": np.array([tvar_error(falling, 1 - Fraction(str(level)))], np.float64),
        "tail_trial": trial.astype(np.int64),
        "tail_weight": np.where(above, 1.0, shared) / size,
    }


class CompareGroupsParams(BaseModel):
    """compare_groups has no parameters."""

    model_config = ConfigDict(frozen=True, extra="forbid")


@model("compare_groups", version=2, params=CompareGroupsParams)
def compare_groups(params: CompareGroupsParams, inputs: Sequence[Arrays]) -> dict[str, Array]:
    """Return what groups do to the tail of the top group.

    Inputs: [measure of the top group, measure of each group], gross. Output, float64 [groups]: co_tvar, the group's
    mean annual loss in the top group's tail; marginal_tvar, the top group's TVaR less its TVaR without the group; and
    their standard errors, co_tvar_se and marginal_tvar_se. Raises ModelError for measures of different trials.
    """
    if not inputs:
        raise ModelError("compare_groups takes the measure of the top group; it was given none")
    top, *groups = inputs
    for measured in inputs:
        need(measured, "measure of a group", "trials", "annual_trial", "annual_loss", "tail_trial", "tail_weight")
    tail = Tail(top)
    found = []
    for measured in groups:
        if measured["trials"][0] != top["trials"][0]:
            raise ModelError(f"measures of {measured['trials'][0]} and of {top['trials'][0]} trials do not compare")
        found.append(tail.of_member(measured["annual_trial"], measured["annual_loss"]))
    table = np.array(found, np.float64).reshape(-1, len(_MEMBER_FIGURES))
    return {name: np.ascontiguousarray(column) for name, column in zip(_MEMBER_FIGURES, table.T, strict=True)}


def annual_losses(measured: Arrays) -> F64:
    """Return the annual loss of every trial that a measure was taken of."""
    annual = np.zeros(int(measured["trials"][0]))
    annual[measured["annual_trial"]] = measured["annual_loss"]
    return annual


def tail_weights(measured: Arrays) -> F64:
    """Return the weight of every trial in the tail of a measure."""
    weight = np.zeros(int(measured["trials"][0]))
    weight[measured["tail_trial"]] = measured["tail_weight"]
    return weight


def boundary_weights(measured: Arrays) -> F64:
    """Return weights, which sum to 1, of the tail's smallest years: BOUNDARY of it, years of one loss together.

    The mean of a member's losses under them estimates what it loses where the tail begins.
    """
    trial, weight = measured["tail_trial"], measured["tail_weight"]
    loss = annual_losses(measured)[trial]
    order = np.argsort(loss, kind="stable")
    # a sum of weights that is the boundary but for rounding is the boundary
    last = min(int(np.searchsorted(np.cumsum(weight[order]), BOUNDARY * (1 - 1e-9))), order.size - 1)
    chosen = loss <= loss[order[last]]
    found = np.zeros(int(measured["trials"][0]))
    found[trial[chosen]] = weight[chosen] / np.add.reduce(weight[chosen])
    return found


def co_tvar_error(mean: F64, square: F64, boundary: F64, size: float, level: float) -> F64:
    """Return standard errors of co-TVaRs: `sqrt((Var(X | tail) + p (C - m)^2) / n)`.

    From the mean C and the mean square of members' losses in the tail, their mean m where it begins, the n trials in
    the tail and its level p. The delta method for E[X | S > its p-quantile], the quantile being estimated too; with
    X = S it is Manistre & Hancock's formula. nan below two trials.
    """
    if size < 2:
        return np.full(np.shape(mean), math.nan)
    variance = np.maximum(square - mean * mean, 0.0) * (size / (size - 1))
    beyond = mean - boundary
    return np.sqrt((variance + level * beyond * beyond) / size)


#: Trials beyond the tail that are looked at first for a TVaR without a deal, as a multiple of the tail.
_BAND = 4


#: What `Tail.of_member` returns.
_MEMBER_FIGURES = ("co_tvar", "co_tvar_se", "marginal_tvar", "marginal_tvar_se")


class Tail:
    """A group's tail: what a member of the group has of it, and what it is without the member.

    The TVaR without a member is exact, and quick where the member is small.

    Only the worst trials matter: a trial that is not among the worst `_BAND` tails of the whole cannot be in the tail
    of the rest, unless the member takes nearly all of these away. Then all trials are looked at.
    """

    def __init__(self, measured: Arrays) -> None:
        self.total = annual_losses(measured)
        self.weight = tail_weights(measured)
        self.inside = self.weight > 0
        self.boundary = boundary_weights(measured)
        self.level = float(measured["tail"][0])
        # str gives the level as it was written: 0.99 leaves 1% exactly.
        self.probability = 1 - Fraction(str(self.level))
        self.whole, self.fraction = worst(self.total.size, self.probability)
        #: trials in the tail
        self.size = self.whole + self.fraction
        self.tvar = float(measured["tvar"][0])
        wanted = min((max(self.whole, 1) + 1) * _BAND, self.total.size)
        self.band = np.sort(np.argsort(-self.total, kind="stable")[:wanted])
        self.place = np.full(self.total.size, -1, np.int64)
        self.place[self.band] = np.arange(wanted)
        self.lowest = float(self.total[self.band].min())
        #: mean square in the tail, and mean where it begins
        self.square = float(np.add.reduce(self.total * self.total * self.weight))
        self.begins = float(np.add.reduce(self.total * self.boundary))
        self.excess = np.maximum(self.total - float(measured["var"][0]), 0.0)

    def of_member(self, trial: Array, loss: F64) -> tuple[float, float, float, float]:
        """Return _MEMBER_FIGURES of a member that has these annual losses in these (unique) trials."""
        its, part = self._inside(trial, loss)
        weighted = part * self.weight[its]
        mean, square = float(np.add.reduce(weighted)), float(np.add.reduce(weighted * part))
        boundary = float(np.add.reduce(part * self.boundary[its]))
        error = co_tvar_error(np.array(mean), np.array(square), np.array(boundary), self.size, self.level)
        return mean, float(error), *self.marginal(trial, loss)

    def _inside(self, trial: Array, loss: F64) -> tuple[Array, F64]:
        inside = np.flatnonzero(self.inside[trial])
        return trial[inside], loss[inside]

    def share_error(self, trial: Array, loss: F64) -> float:
        """Return the standard error of a member's co-TVaR over the TVaR, a ratio of two means in one tail.

        By the delta method, that of the mean of `(X - share x S) / TVaR` in the tail; nan without a TVaR.
        """
        if not self.tvar > 0:
            return math.nan
        trial, loss = self._inside(trial, loss)
        total, weight, boundary = self.total[trial], self.weight[trial], self.boundary[trial]
        share = float(np.add.reduce(loss * weight)) / self.tvar
        rest = loss - share * total
        # years in which the member loses nothing are what all years would be, less these
        square = float(np.add.reduce(rest * rest * weight))
        square += share * share * max(self.square - float(np.add.reduce(total * total * weight)), 0.0)
        begins = float(np.add.reduce(loss * boundary)) - share * self.begins
        error = co_tvar_error(np.zeros(()), np.array(square), np.array(begins), self.size, self.level)
        return float(error) / self.tvar

    def marginal(self, trial: Array, loss: F64) -> tuple[float, float]:
        """Return TVaR less TVaR without a member that has these losses in these trials, and its standard error.

        The error is that of the difference, by the delta method: a TVaR moves by (S - VaR)+ / (1 - p) of each trial, so
        the marginal one by the difference of two such terms, and its error is their standard deviation / sqrt(N).
        """
        at = self.place[trial]
        inside = at >= 0
        rest = self.total[self.band]
        rest[at[inside]] = np.maximum(rest[at[inside]] - loss[inside], 0.0)
        falling = np.sort(rest)[::-1]
        needed = min(self.whole, falling.size - 1)
        excess = self.excess[self.band]
        if falling[needed] < self.lowest and self.band.size < self.total.size:
            rest, excess = self.total.copy(), self.excess
            rest[trial] = np.maximum(rest[trial] - loss, 0.0)
            falling = np.sort(rest)[::-1]
        marginal = self.tvar - tail_mean(falling, self.whole, self.fraction)
        if self.whole < 2:
            return marginal, math.nan
        value_at_risk = falling[self.whole + (self.fraction > 0) - 1]
        moved = excess - np.maximum(rest - value_at_risk, 0.0)
        trials, total = self.total.size, np.add.reduce(moved)
        variance = max(float(np.add.reduce(moved * moved) - total * total / trials), 0.0) / (trials - 1)
        return marginal, math.sqrt(variance / trials) / float(self.probability)
