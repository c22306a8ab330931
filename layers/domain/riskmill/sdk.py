"""What a model of one's own needs, in one import: the decorator, a deal's losses, terms, and a deal's output.

`from riskmill.sdk import model, ...`; the guide with worked examples is docs/model-sdk.md.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from riskmill.errors import ModelError
from riskmill.models.contracts import (
    annual_limit,
    occurrence_loss,
    recoveries,
    reinstatement_fraction,
)
from riskmill.models.occurrences import F64, I32, I64, largest_by_trial, sum_by_trial
from riskmill.models.pricing import LAYER_STATS, PriceDealParams, recover_deal
from riskmill.models.registry import model
from riskmill.models.uncertainty import uniform_numbers
from riskmill.outputs import Array, Arrays
from riskmill.terms import Amount, Share, Terms

__all__ = [
    "F64",
    "I32",
    "I64",
    "LAYER_STATS",
    "Amount",
    "Array",
    "Arrays",
    "BaseModel",
    "ConfigDict",
    "Field",
    "ModelError",
    "Occurrences",
    "Paid",
    "PriceDealParams",
    "Share",
    "Terms",
    "deal_occurrences",
    "deal_output",
    "model",
    "pay_layers",
    "replace",
    "uniforms",
]

#: The subject loss itself, as a layer.
_FROM_GROUND_UP = Terms(type="QS", ceded_share=1.0)

#: Terms that `pay_layers` does not apply: they need more than the losses, or tie layers together.
_NOT_PAID = {
    "retained_line": None,
    "risk_retention": 0.0,
    "risk_limit": None,
    "index": None,
    "shared_limit": None,
    "inuring_priority": 1,
    "reinstatement_basis": "amount",
}


@dataclass(frozen=True, slots=True)
class Occurrences:
    """A deal's occurrences in one block of trials, in the order of time; `dataclasses.replace` gives other losses."""

    #: simulated years in the block, also those without an occurrence
    trials: int
    #: row of the year-event table, sorted; day of the year (0 to 364); year within the block
    row: I32
    day: Array
    trial: Array
    #: where each year that has an occurrence begins
    starts: I64
    #: subject loss of each, in the portfolio's currency
    loss: F64

    @property
    def number_in_year(self) -> I64:
        """1 for the first of these occurrences in its year, 2 for the second, and so on."""
        return self.count_in_year(np.ones(self.row.size, np.bool_))

    def count_in_year(self, counted: Array) -> I64:
        """Return, for each occurrence, how many counted ones its year has had so far, itself included."""
        running = np.cumsum(counted, dtype=np.int64)
        before = running[self.starts] - counted[self.starts]
        return running - np.repeat(before, np.diff(np.append(self.starts, self.row.size)))


def deal_occurrences(params: PriceDealParams, inputs: Sequence[Arrays], *, sampled: bool = True) -> Occurrences:
    """Return a deal's subject losses on one block: its ELT on every occurrence of the YET within the deal's period.

    Inputs as price_deal: [ELT, YET, industry losses of each index]. With `sampled` and secondary uncertainty each loss
    is drawn from its law, else it is the event's mean. Raises ModelError for a bad ELT or YET.
    """
    changed: dict[str, Any] = {"layers": (_FROM_GROUND_UP,)}
    if not sampled:
        changed["sampling"] = None
    found = recover_deal(params.model_copy(update=changed), inputs)
    return Occurrences(found.trials, found.row, found.day, found.trial, found.starts, found.layers[0].occurrence)


def uniforms(params: PriceDealParams, inputs: Sequence[Arrays], occurrences: Occurrences, stream: str) -> F64:
    """Return a uniform number in [0, 1) for each occurrence, the same however the trials are cut into blocks.

    Numbers of another `stream` (your model's name, say) are independent. Raises ModelError when the portfolio does not
    ask for secondary uncertainty: no price has random numbers unless it does.
    """
    if params.sampling is None:
        raise ModelError("random losses need `secondary_uncertainty` in portfolio.json (`sampling` in the parameters)")
    own = params.sampling.model_copy(update={"stream": f"{stream}/{params.sampling.stream}"})
    return uniform_numbers(own, inputs[0], inputs[1], occurrences.row)


@dataclass(frozen=True, slots=True)
class Paid:
    """What one layer pays, at 100% of it."""

    #: per occurrence
    recovery: F64
    #: per year that has an occurrence; None: the sum of `recovery`
    annual: F64 | None = None
    #: whether the year used up the layer, and its reinstatement premium over the annual premium; None: none
    exhausted: Array | None = None
    reinstated: F64 | None = None


def pay_layers(layers: Sequence[Terms], occurrences: Occurrences) -> list[Paid]:
    """Return what layers pay by the standard occurrence and aggregate terms (docs/models.md).

    Raises ModelError for terms that need more than losses or tie layers together: per risk and surplus terms, index
    triggers, shared limits, inuring within the deal, reinstatement premium as to time.
    """
    paid = []
    for number, terms in enumerate(layers):
        for name, default in _NOT_PAID.items():
            if getattr(terms, name) != default:
                raise ModelError(f"layer {number}: a model of your own has to apply `{name}` itself")
        occurrence = occurrence_loss(terms, occurrences.loss)
        recovery, annual = recoveries(terms, occurrence, occurrences.starts)
        limit = annual_limit(terms)
        exhausted = None
        if limit < math.inf:
            exhausted = annual >= limit
        elif terms.occurrence_limit is not None:
            exhausted = largest_by_trial(occurrence, occurrences.starts) >= terms.occurrence_limit
        reinstated = reinstatement_fraction(terms, annual) if terms.reinstatements else None
        paid.append(Paid(recovery, annual, exhausted, reinstated))
    return paid


def deal_output(params: PriceDealParams, occurrences: Occurrences, paid: Sequence[Paid]) -> dict[str, Array]:
    """Return the arrays that a price must have for a rollup: row, loss (our share, all layers) and layer_stats.

    Raises ModelError when `paid` is not one for each layer, or a recovery is negative, not a number or of a wrong size.
    """
    if len(paid) != len(params.layers):
        raise ModelError(f"{len(paid)} recoveries of {len(params.layers)} layers")
    total = np.zeros(occurrences.row.size)
    stats = np.zeros((len(paid), len(LAYER_STATS)))
    for number, (terms, layer) in enumerate(zip(params.layers, paid, strict=True)):
        recovery = np.asarray(layer.recovery, np.float64)
        if recovery.shape != total.shape:
            raise ModelError(f"layer {number}: {recovery.size} recoveries of {total.size} occurrences")
        if recovery.size and not (recovery.min() >= 0 and recovery.max() < math.inf):
            raise ModelError(f"layer {number}: a recovery is negative or not a number")
        total += recovery * terms.share
        annual = sum_by_trial(recovery, occurrences.starts) if layer.annual is None else layer.annual
        stats[number] = (
            occurrences.trials,
            np.add.reduce(annual),
            np.add.reduce(annual * annual),
            np.count_nonzero(annual),
            0 if layer.exhausted is None else np.count_nonzero(layer.exhausted & (annual > 0)),
            0.0 if layer.reinstated is None else np.add.reduce(layer.reinstated),
        )
    row, loss = occurrences.row, total.astype(np.float32)
    some = loss > 0
    return {"row": row[some], "loss": loss[some], "layer_stats": stats}
