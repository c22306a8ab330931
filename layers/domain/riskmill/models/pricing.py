"""Price a deal: its ELT through its layers' terms on every occurrence of the YET; and a layer's price figures."""

import math
from collections.abc import Sequence

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from riskmill.errors import ModelError
from riskmill.models import kernel
from riskmill.models.contracts import (
    annual_limit,
    event_order_recovery,
    layer_limit,
    occurrence_limit,
    occurrence_loss,
    reinstatement_fraction,
)
from riskmill.models.occurrences import (
    F64,
    I32,
    YetIndex,
    check_elt,
    check_yet,
    index_yet,
    largest_by_trial,
    trial_starts,
    trials_of,
)
from riskmill.models.registry import model
from riskmill.outputs import Array, Arrays
from riskmill.terms import Terms

#: Columns of `layer_stats`: sums over a block's trials, so blocks add up. Recoveries are at 100% of the layer.
#: trials; annual recovery A; its square; trials with A > 0; trials that exhaust the layer (A reaches the aggregate
#: limit, or, without one, an occurrence takes the whole occurrence limit); reinstatement premium / annual premium.
LAYER_STATS = ("trials", "recovery", "recovery_squared", "attached", "exhausted", "reinstated")

#: Price figures of a layer, amounts at our share; nan where undefined. See `price_figures`.
PRICE_FIGURES = (
    "expected_loss",
    "sd",
    "prob_attach",
    "prob_exhaust",
    "expected_reinstatement_premium",
    "loss_on_line",
    "rate_on_line",
    "technical_premium",
)

#: Sums of the same losses in another order differ by rounding; a year is left out only when it is below by more.
_SURELY_BELOW = 1.0 - 1e-9


class PriceDealParams(BaseModel):
    """Parameters of price_deal: the terms of the deal's layers, in the deal's order."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    layers: tuple[Terms, ...] = Field(min_length=1)


@model("price_deal", version=1, params=PriceDealParams)
def price_deal(params: PriceDealParams, inputs: Sequence[Arrays]) -> dict[str, Array]:
    """Return the deal's YELT on one block of trials.

    Inputs: [ELT, YET]. Output: row int32 (sorted), loss float32 (our share, all layers; above 0 only) and
    layer_stats float64 [layers, len(LAYER_STATS)]. Losses are the ELT's means: no secondary uncertainty.
    Raises ModelError for a bad ELT or YET, or terms that contradict each other.
    """
    if len(inputs) != 2:
        raise ModelError(f"price_deal takes an ELT and a YET; it was given {len(inputs)} input(s)")
    yet = check_yet(inputs[1])
    done = kernel.price_deal(params.layers, inputs[0], yet)
    if done is not None:
        return {"row": done[0], "loss": done[1], "layer_stats": done[2]}
    elt = check_elt(inputs[0])
    index = index_yet(yet)
    slots = index.slots(elt["event"])
    # Terms are applied to events, of which there are far fewer than occurrences.
    by_event = [occurrence_loss(terms, elt["mean"]) for terms in params.layers]
    row = _touched_rows(params.layers, by_event, slots, index, yet)
    at = row.astype(np.intp)
    starts = trial_starts(yet["trial"][at])
    # Every row here belongs to an event of the ELT, so what else the table holds is never read.
    position = np.empty(index.begin.size, np.int64)
    position[slots] = np.arange(slots.size)
    event = position[index.slot_of_row[at]]
    total = np.zeros(row.size)
    stats = np.zeros((len(params.layers), len(LAYER_STATS)))
    for number, (terms, losses) in enumerate(zip(params.layers, by_event, strict=True)):
        occurrence = losses[event]
        recovery, annual = event_order_recovery(terms, occurrence, starts)
        total += recovery if terms.participation == 1.0 else recovery * terms.participation
        limit = annual_limit(terms)
        if limit < math.inf:
            exhausted = annual >= limit
        elif terms.occurrence_limit is not None:
            exhausted = largest_by_trial(occurrence, starts) >= terms.occurrence_limit
        else:
            exhausted = np.zeros(0, np.bool_)
        stats[number] = (
            trials_of(yet),
            np.add.reduce(annual),
            np.add.reduce(annual * annual),
            np.count_nonzero(annual),
            np.count_nonzero(exhausted & (annual > 0)) if exhausted.size else 0,
            np.add.reduce(reinstatement_fraction(terms, annual)) if terms.reinstatements else 0.0,
        )
    loss = total.astype(np.float32)
    some = loss > 0
    if not some.all():
        row, loss = row[some], loss[some]
    return {"row": row, "loss": loss, "layer_stats": stats}


def _touched_rows(layers: Sequence[Terms], by_event: list[F64], slots: Array, index: YetIndex, yet: Arrays) -> I32:
    """Return, sorted, the rows at which some layer may recover something."""
    plain = np.zeros(slots.size, np.bool_)
    found: list[I32] = []
    for terms, losses in zip(layers, by_event, strict=True):
        if terms.aggregate_deductible > 0:
            # Most years stay below an aggregate deductible, and need no sorting.
            hit = np.flatnonzero(losses)
            row = index.occurrences(slots[hit])
            trial = yet["trial"][row]
            weights = np.repeat(losses[hit], index.count[slots[hit]])
            total = np.bincount(trial, weights, minlength=trials_of(yet))
            found.append(row[(total > terms.aggregate_deductible * _SURELY_BELOW)[trial]])
        else:
            plain |= losses > 0
    if plain.any() or not found:
        found.append(index.occurrences(slots[plain]))
    if len(found) == 1:
        return np.sort(found[0])
    rows = np.sort(np.concatenate(found))
    return rows[trial_starts(rows)]


def price_figures(terms: Terms, stats: F64, brokerage: float) -> F64:
    """Return a layer's PRICE_FIGURES from its LAYER_STATS summed over all blocks.

    Amounts are at our share (participation), in the portfolio's currency and per year:
    expected_loss = share x E[A]; sd of share x A (n - 1); prob_attach = P(A > 0); prob_exhaust;
    expected_reinstatement_premium = share x P x E[f], f being `reinstatement_fraction`;
    loss_on_line = E[A] / L; rate_on_line = P / L; technical_premium = share x E[A] / (1 + E[f]) / (1 - brokerage),
    before loads. nan: sd of one trial; prob_exhaust without any limit; loss and rate on line without a limit above 0;
    technical_premium at a brokerage of 1. L is the occurrence limit, or the aggregate limit where that is smaller or
    the only one.
    """
    trials, recovery, squared, attached, exhausted, reinstated = (float(value) for value in stats)
    share, mean, limit = terms.participation, recovery / trials, layer_limit(terms)
    fraction = reinstated / trials
    bounded = annual_limit(terms) < math.inf or occurrence_limit(terms) < math.inf
    on_line = limit if 0 < limit < math.inf else math.nan
    sd = math.sqrt(max(squared - recovery * mean, 0.0) / (trials - 1)) if trials > 1 else math.nan
    return np.array(
        [
            share * mean,
            share * sd,
            attached / trials,
            exhausted / trials if bounded else math.nan,
            share * terms.premium * fraction,
            mean / on_line,
            terms.premium / on_line,
            share * mean / (1 + fraction) / (1 - brokerage) if brokerage < 1 else math.nan,
        ]
    )
