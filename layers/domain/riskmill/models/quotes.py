"""Quotes: a layer's figures without its year-event losses, for a deal and for many layers on one subject at once.

Both give LAYER_STATS, from which `price_figures` follows. They add up a year's losses by the size of its events or by
event, not in the order of time, so a sum may differ from price_deal's by rounding; nothing else differs.
"""

import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from riskmill.errors import ModelError
from riskmill.models import kernel
from riskmill.models.contracts import (
    annual_limit,
    annual_recovery,
    occurrence_limit,
    occurrence_loss,
    reinstatement_fraction,
)
from riskmill.models.occurrences import (
    F64,
    I32,
    I64,
    check_elt,
    check_yelt,
    check_yet,
    index_yet,
    trials_of,
)
from riskmill.models.pricing import LAYER_STATS
from riskmill.models.registry import model
from riskmill.outputs import Array, Arrays
from riskmill.terms import Terms


class QuoteParams(BaseModel):
    """Parameters of quote_deal and quote_layers: the terms of the layers."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    layers: tuple[Terms, ...] = Field(min_length=1)


def check_known(layers: Sequence[Terms]) -> None:
    """Raise ModelError for a layer whose annual recovery does not follow from its own occurrence losses alone."""
    for number, terms in enumerate(layers):
        if not kernel.takes(terms):
            raise ModelError(f"layer {number} has terms that need the whole deal, day by day: price it with price_deal")


def annual_stats(terms: Terms, annual: F64, trials: int, exhausted: int) -> list[float]:
    """Return LAYER_STATS of annual recoveries; years without one may be left out."""
    return [
        trials,
        np.add.reduce(annual),
        np.add.reduce(annual * annual),
        np.count_nonzero(annual > 0),
        exhausted,
        np.add.reduce(reinstatement_fraction(terms, annual)) if terms.reinstatements else 0.0,
    ]


# ---- a deal on its own ELT


@model("quote_deal", version=1, params=QuoteParams)
def quote_deal(params: QuoteParams, inputs: Sequence[Arrays]) -> dict[str, Array]:
    """Return a deal's layer_stats float64 [layers, len(LAYER_STATS)] on one block of trials, and nothing else.

    Inputs: [ELT, YET]. For plain limits and reinstatements a year's recovery follows from the year's sum, so
    occurrences need not be put into the order of time. Raises ModelError for a bad ELT or YET or for terms that need
    that order.
    """
    if len(inputs) != 2:
        raise ModelError(f"quote_deal takes an ELT and a YET; it was given {len(inputs)} input(s)")
    check_known(params.layers)
    elt, yet = check_elt(inputs[0]), check_yet(inputs[1])
    index, trials = index_yet(yet), trials_of(yet)
    by_event = [occurrence_loss(terms, elt["mean"]) for terms in params.layers]
    reached = by_event[0] > 0
    for losses in by_event[1:]:
        reached |= losses > 0
    hit = np.flatnonzero(reached)
    slots = index.slots(elt["event"][hit])
    count = index.count[slots]
    trial_of_occurrence: I32 = yet.derive("quotes.trial", _trial_of_occurrence)
    trial = trial_of_occurrence.take(index.places(slots, count)).astype(np.intp)
    scratch = _scratch(trials)
    years = _years(trial, scratch.number)
    stats = []
    for terms, losses in zip(params.layers, by_event, strict=True):
        occurrence = np.repeat(losses[hit], count)
        np.add.at(scratch.total, trial, occurrence)
        total = scratch.total.take(years)
        scratch.total[years] = 0.0
        annual = annual_recovery(terms, total)
        exhausted = 0
        if annual_limit(terms) < math.inf:
            exhausted = int(np.count_nonzero(annual >= annual_limit(terms))) if annual_limit(terms) > 0 else 0
        elif terms.occurrence_limit is not None:
            whole = np.zeros(trials, np.bool_)
            whole[trial[occurrence >= terms.occurrence_limit]] = True
            exhausted = int(np.count_nonzero(whole[years] & (annual > 0)))
        stats.append(annual_stats(terms, annual, trials, exhausted))
    return {"layer_stats": np.array(stats, np.float64).reshape(-1, len(LAYER_STATS))}


class _Scratch(threading.local):
    """Arrays of one number a trial, kept from deal to deal: making and clearing them costs more than using them."""

    def __init__(self) -> None:
        #: all 0 between deals
        self.total = np.zeros(0)
        self.number = np.zeros(0, np.int32)


_SCRATCH = _Scratch()


def _scratch(trials: int) -> _Scratch:
    if _SCRATCH.total.size != trials:
        _SCRATCH.total, _SCRATCH.number = np.zeros(trials), np.zeros(trials, np.int32)
    return _SCRATCH


def _years(trial: I64, last: I32) -> I64:
    """Return the trials with an occurrence, each once: those to which terms are applied. `last` is overwritten."""
    # Half the memory stays in a core's cache.
    small = trial.size <= 1 << 16
    number = np.arange(trial.size, dtype=np.uint16 if small else np.int32)
    known = last.view(number.dtype)[: last.size]
    known[trial] = number
    return trial.compress(known.take(trial) == number)


def _trial_of_occurrence(yet: Arrays) -> I32:
    trial: I32 = yet["trial"][index_yet(yet).rows]
    return trial


# ---- many layers on one subject


@dataclass(frozen=True, slots=True)
class SubjectIndex:
    """The exceedance index: a subject's losses from the largest, so a layer reads only what reaches its retention.

    Trials are numbered in the order in which they first appear there, that is by their largest loss: a layer's years
    are then the first ones, without gaps.
    """

    #: no loss below this is in the index: what no layer reaches need not be sorted
    least: float
    #: losses from the largest; equal ones in the order of time
    falling: F64
    #: number of each loss's trial
    rank: I64
    rank32: I32
    #: largest loss of each numbered trial, falling
    largest: F64
    trials: int


def least_loss(terms: Terms) -> float:
    """Return a loss below which none brings anything to the layer; hardly any above it bring nothing."""
    if terms.ceded_share == 0.0:
        return math.inf
    return terms.occurrence_retention / terms.ceded_share * (1.0 - 1e-12)


def index_subject(subject: Arrays, yet: Arrays, least: float) -> SubjectIndex:
    """Return the exceedance index of a YELT's losses above `least`. Raises ModelError unless it is one of this YET."""
    check_yet(yet)
    check_yelt(subject, yet["trial"].size)
    above = np.flatnonzero(subject["loss"] > least)
    loss = subject["loss"][above].astype(np.float64)
    order = np.argsort(-loss, kind="stable")
    falling, trial = loss[order], yet["trial"][subject["row"][above[order]]]
    _, first, number = np.unique(trial, return_index=True, return_inverse=True)
    by_size = np.argsort(first)
    rank_of = np.empty(first.size, np.int64)
    rank_of[by_size] = np.arange(first.size)
    rank = rank_of[number]
    return SubjectIndex(least, falling, rank, rank.astype(np.int32), falling[first[by_size]], trials_of(yet))


@model("quote_layers", version=1, params=QuoteParams)
def quote_layers(params: QuoteParams, inputs: Sequence[Arrays]) -> dict[str, Array]:
    """Return layer_stats float64 [layers, len(LAYER_STATS)] of many layers, each on the same subject by itself.

    Inputs: [subject YELT, YET]. The subject's losses that reach the lowest layer are sorted once (24 bytes each).
    Raises ModelError for a bad subject or YET or for terms that need more than the layer's own annual losses.
    """
    if len(inputs) != 2:
        raise ModelError(f"quote_layers takes a subject and a YET; it was given {len(inputs)} input(s)")
    check_known(params.layers)
    subject, yet = inputs
    least = np.array([least_loss(terms) for terms in params.layers])
    index = _index_of(subject, yet, float(least.min()))
    taken = index.falling.size - np.searchsorted(index.falling[::-1], least, side="right").astype(np.int64)
    stats = kernel.quote_layers(index.falling, index.rank32, taken, index.largest, params.layers, index.trials)
    if stats is None:
        rows = [_quote(terms, index, count) for terms, count in zip(params.layers, taken.tolist(), strict=True)]
        stats = np.array(rows, np.float64).reshape(-1, len(LAYER_STATS))
    return {"layer_stats": stats}


def _index_of(subject: Arrays, yet: Arrays, least: float) -> SubjectIndex:
    """Return an index that reaches down to `least`: the one in memory, made anew where it does not."""
    made: list[tuple[Arrays, SubjectIndex]] = subject.derive("quotes.index", lambda _: [])
    if not made or made[0][0] is not yet or made[0][1].least > least:
        made[:] = [(yet, index_subject(subject, yet, least))]
    return made[0][1]


def _quote(terms: Terms, index: SubjectIndex, count: int) -> list[float]:
    total = np.bincount(index.rank[:count], occurrence_loss(terms, index.falling[:count]))
    annual = annual_recovery(terms, total)
    exhausted = 0
    if annual_limit(terms) < math.inf:
        exhausted = int(np.count_nonzero(annual >= annual_limit(terms))) if annual_limit(terms) > 0 else 0
    elif terms.occurrence_limit is not None:
        largest = occurrence_loss(terms, index.largest[: annual.size])
        exhausted = int(np.count_nonzero((largest >= occurrence_limit(terms)) & (annual > 0)))
    return annual_stats(terms, annual, index.trials, exhausted)
