"""Roll losses up: the sum of a group's children, and outwards (retro) contracts on a group's losses."""

from collections.abc import Sequence
from typing import Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from riskmill.errors import ModelError
from riskmill.models import kernel
from riskmill.models.contracts import EventFacts, occurrence_loss, recoveries
from riskmill.models.occurrences import F64, I32, check_yelt, check_yet, need, trial_starts
from riskmill.models.pricing import LAYER_STATS, Period, industry_losses
from riskmill.models.registry import model
from riskmill.outputs import Array, Arrays
from riskmill.terms import Terms


class RollUpParams(BaseModel):
    """Parameters of roll_up: whether the children's own losses are kept beside their sum (for `allocate`)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    keep_members: bool = False


@model("roll_up", version=1, params=RollUpParams)
def roll_up(params: RollUpParams, inputs: Sequence[Arrays]) -> dict[str, Array]:
    """Return the sum of the children's YELTs, all of one block.

    Inputs: YELTs (row, loss). Output: row int32 (sorted), loss float64 (above 0 only), summed in the order of the
    inputs. With keep_members (children are outputs of price_deal) also their losses one after the other:
    member_offsets int64 [n + 1] into member_row int32 and member_loss float32; layer_offsets int64 [n + 1] into
    layer_stats float64 [layers, len(LAYER_STATS)]. Raises ModelError for a child that is not a YELT.
    """
    row, loss = kernel.roll_up(inputs) or _summed(inputs)
    output: dict[str, Array] = {"row": row, "loss": loss}
    if params.keep_members:
        for child in inputs:
            need(child, "member of a group", "layer_stats")
        output["member_offsets"] = _offsets([child["row"].size for child in inputs])
        output["member_row"] = _joined([child["row"] for child in inputs], np.empty(0, np.int32))
        output["member_loss"] = _joined([child["loss"] for child in inputs], np.empty(0, np.float32))
        output["layer_offsets"] = _offsets([child["layer_stats"].shape[0] for child in inputs])
        output["layer_stats"] = _joined(
            [child["layer_stats"] for child in inputs], np.empty((0, len(LAYER_STATS)), np.float64)
        )
    return output


def _summed(children: Sequence[Arrays]) -> tuple[I32, F64]:
    """Return row and loss of the sum of YELTs, in their order on each row."""
    for child in children:
        check_yelt(child)
    total = np.zeros(max((int(child["row"][-1]) + 1 for child in children if child["row"].size), default=0))
    for child in children:
        # Rows of a child are unique, so a plain indexed sum counts each once.
        total[child["row"]] += child["loss"]
    row = np.flatnonzero(total > 0)
    return row.astype(np.int32), total[row]


def _offsets(sizes: Sequence[int]) -> Array:
    return np.cumsum([0, *sizes], dtype=np.int64)


def _joined(arrays: Sequence[Array], empty: Array) -> Array:
    return np.concatenate([empty, *arrays]).astype(empty.dtype, copy=False)


class ApplyRetroParams(BaseModel):
    """Parameters of apply_retro: the terms of contracts with one subject; participation is the share placed.

    periods: each contract's days, in the contracts' order; none stands for the whole year of all of them. indices:
    names of the industry losses that follow the YET among the inputs.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    contracts: tuple[Terms, ...] = Field(min_length=1)
    periods: tuple[Period, ...] = ()
    indices: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _lengths_agree(self) -> Self:
        if self.periods and len(self.periods) != len(self.contracts):
            raise ValueError(f"{len(self.periods)} periods of {len(self.contracts)} contracts")
        return self


#: Contracts that together cede this much more than the loss do so by rounding alone.
_OVER_CEDED_ROUNDING = 1e-9


@model("apply_retro", version=1, params=ApplyRetroParams)
def apply_retro(params: ApplyRetroParams, inputs: Sequence[Arrays]) -> dict[str, Array]:
    """Return a group's losses net of outwards contracts of one inuring priority, on one block.

    All of them have the same subject: none inures to another's benefit. Inputs: [subject YELT, YET, industry losses of
    each index]. Output: row int32 (the subject's), loss float64 (net: subject - ceded, not below 0) and ceded float64,
    on the same rows. Raises ModelError when the subject is not a YELT of this YET, or when
    the contracts together cede more than the loss of an occurrence.
    """
    if len(inputs) != 2 + len(params.indices):
        industry = f" and {len(params.indices)} table(s) of industry losses" if params.indices else ""
        raise ModelError(f"apply_retro takes a subject and a YET{industry}; it was given {len(inputs)} input(s)")
    yet = check_yet(inputs[1])
    subject = check_yelt(inputs[0], yet["trial"].size)
    row, loss = subject["row"].astype(np.int32, copy=False), subject["loss"].astype(np.float64, copy=False)
    ceded = np.zeros(loss.size)
    losses = zip(params.indices, inputs[2:], strict=True)
    facts = EventFacts(industry={name: industry_losses(table, yet["event"][row]) for name, table in losses})
    for number, terms in enumerate(params.contracts):
        # Only occurrences that reach the contract take part in its aggregate terms.
        occurrence = occurrence_loss(terms, loss, facts)
        hit = np.flatnonzero(occurrence > 0)
        if params.periods:
            day = yet["day"][row[hit]]
            hit = hit[(day >= params.periods[number].first) & (day <= params.periods[number].last)]
        recovery, _ = recoveries(terms, occurrence[hit], trial_starts(yet["trial"][row[hit]]))
        ceded[hit] += recovery * terms.participation
    over = np.flatnonzero(ceded > loss * (1 + _OVER_CEDED_ROUNDING))
    if over.size:
        at = over[0]
        raise ModelError(
            f"{len(params.contracts)} outwards contracts of one priority cede {ceded[at]:,.2f} of an occurrence's loss "
            f"of {loss[at]:,.2f}; give those that inure to the others' benefit a lower priority"
        )
    ceded = np.minimum(ceded, loss)
    return {"row": row.copy(), "loss": loss - ceded, "ceded": ceded}
