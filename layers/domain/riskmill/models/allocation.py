"""Allocate the group's tail to its deals (co-TVaR) and state each layer's price figures."""

import json
import math
from collections.abc import Sequence
from typing import Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from riskmill.errors import ModelError
from riskmill.models import kernel
from riskmill.models.occurrences import F64, check_yet, need, split_blocks, trial_starts, trials_of
from riskmill.models.pricing import LAYER_STATS, PRICE_FIGURES, price_figures
from riskmill.models.registry import model
from riskmill.outputs import Array, Arrays
from riskmill.terms import Share, Terms


class AllocateParams(BaseModel):
    """Parameters of allocate: what the members of the leaf are, in its order.

    Per deal its id, its brokerage (part of the premium), and its layers' ids and terms, as price_deal had them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    blocks: int = Field(ge=1)
    deals: tuple[str, ...]
    brokerage: tuple[Share, ...]
    layers: tuple[tuple[str, ...], ...]
    terms: tuple[tuple[Terms, ...], ...]

    @model_validator(mode="after")
    def _lengths_agree(self) -> Self:
        if not len(self.deals) == len(self.brokerage) == len(self.layers) == len(self.terms):
            raise ValueError("deals, brokerage, layers and terms differ in length")
        for deal, layers, terms in zip(self.deals, self.layers, self.terms, strict=True):
            if len(layers) != len(terms):
                raise ValueError(f"deal {deal} has {len(layers)} layers and terms of {len(terms)}")
        return self


@model("allocate", version=1, params=AllocateParams)
def allocate(params: AllocateParams, inputs: Sequence[Arrays]) -> dict[str, Array]:
    """Return the deals' shares of the group's tail and the layers' price figures.

    Inputs: [YET of each block, leaf roll_up with members of each block, measure of the top group's gross losses].
    Output: aal, sd, co_tvar float64 [deals] (our share); price_figures float64 [layers, len(PRICE_FIGURES)];
    deal_ids and layer_ids uint8 (UTF-8 JSON lists). co_tvar is the deal's mean loss in the tail's trials by their
    weights: over all deals of the group it adds up to the group's TVaR (Tasche 1999).
    Raises ModelError when leaf, parameters and measure do not fit together.
    """
    yets, leaves, [top] = split_blocks(inputs, params.blocks, "YET", "leaf", extra=1)
    need(top, "measure of the top group", "tail_trial", "tail_weight", "trials")
    trials = sum(trials_of(check_yet(yet)) for yet in yets)
    if trials != int(top["trials"][0]):
        raise ModelError(f"the blocks have {trials} trials, and the measure of the top group {top['trials'][0]}")
    weight = np.zeros(trials)
    weight[top["tail_trial"]] = top["tail_weight"]
    deals = len(params.deals)
    sums, squares, tail = np.zeros(deals), np.zeros(deals), np.zeros(deals)
    stats = np.zeros((sum(len(layers) for layers in params.layers), len(LAYER_STATS)))
    first = 0
    for yet, leaf in zip(yets, leaves, strict=True):
        _check_leaf(leaf, params)
        weights = weight[first : first + trials_of(yet)]
        done = kernel.allocate(leaf, yet, weights) or _annual_sums(leaf, yet, weights)
        for total, part in zip((sums, squares, tail), done, strict=True):
            total += part
        stats += leaf["layer_stats"]
        first += trials_of(yet)
    mean = sums / trials
    variance = np.maximum(squares - sums * mean, 0.0) / (trials - 1) if trials > 1 else np.full(deals, math.nan)
    figures = [
        price_figures(terms, stats[number], brokerage)
        for number, (terms, brokerage) in enumerate(
            (terms, brokerage)
            for layers, brokerage in zip(params.terms, params.brokerage, strict=True)
            for terms in layers
        )
    ]
    return {
        "aal": mean,
        "sd": np.sqrt(variance),
        "co_tvar": tail,
        "price_figures": np.array(figures, np.float64).reshape(-1, len(PRICE_FIGURES)),
        "deal_ids": _ids(params.deals),
        "layer_ids": _ids([layer for layers in params.layers for layer in layers]),
    }


def _check_leaf(leaf: Arrays, params: AllocateParams) -> None:
    need(leaf, "leaf", "member_offsets", "member_row", "member_loss", "layer_offsets", "layer_stats")
    wanted = np.cumsum([0, *(len(layers) for layers in params.layers)])
    if leaf["layer_offsets"].tolist() != wanted.tolist():
        raise ModelError(f"the leaf has layers at {leaf['layer_offsets'].tolist()}; the deals have {wanted.tolist()}")


def _annual_sums(leaf: Arrays, yet: Arrays, weight: F64) -> tuple[F64, F64, F64]:
    """Return sums, squares and weighted sums of each member's annual losses."""
    member, trial, annual = _annual_losses(leaf, yet)
    members = leaf["member_offsets"].size - 1
    return (
        np.bincount(member, annual, minlength=members),
        np.bincount(member, annual * annual, minlength=members),
        np.bincount(member, annual * weight[trial], minlength=members),
    )


def _annual_losses(leaf: Arrays, yet: Arrays) -> tuple[Array, Array, F64]:
    """Return, for each year in which a member has a loss: the member, the trial within the block, the annual loss."""
    offsets, loss = leaf["member_offsets"], leaf["member_loss"].astype(np.float64)
    trial = yet["trial"][leaf["member_row"]]
    if not trial.size:
        return np.empty(0, np.int64), trial, loss
    # A year begins where the trial changes, and where the next member begins.
    begins = np.zeros(trial.size + 1, np.bool_)
    begins[trial_starts(trial)] = True
    begins[offsets[:-1]] = True
    starts = np.flatnonzero(begins[:-1])
    member = np.searchsorted(offsets, starts, side="right") - 1
    return member, trial[starts], np.add.reduceat(loss, starts)


class TabulateDealsParams(BaseModel):
    """tabulate_deals has no parameters."""

    model_config = ConfigDict(frozen=True, extra="forbid")


@model("tabulate_deals", version=1, params=TabulateDealsParams)
def tabulate_deals(params: TabulateDealsParams, inputs: Sequence[Arrays]) -> dict[str, Array]:
    """Return the outputs of several allocate jobs as one: the same arrays, one after the other.

    Raises ModelError for an input that is not an output of allocate.
    """
    for part in inputs:
        need(part, "part of the table", "aal", "sd", "co_tvar", "price_figures", "deal_ids", "layer_ids")
    empty = np.empty(0)
    return {
        "aal": np.concatenate([empty, *(part["aal"] for part in inputs)]),
        "sd": np.concatenate([empty, *(part["sd"] for part in inputs)]),
        "co_tvar": np.concatenate([empty, *(part["co_tvar"] for part in inputs)]),
        "price_figures": np.concatenate(
            [np.empty((0, len(PRICE_FIGURES))), *(part["price_figures"] for part in inputs)]
        ),
        "deal_ids": _ids([name for part in inputs for name in read_ids(part["deal_ids"])]),
        "layer_ids": _ids([name for part in inputs for name in read_ids(part["layer_ids"])]),
    }


def _ids(names: Sequence[str]) -> Array:
    return np.frombuffer(json.dumps(list(names), ensure_ascii=False).encode(), np.uint8)


def read_ids(array: Array) -> list[str]:
    """Return the names in an array that holds a UTF-8 JSON list of them. Raises ModelError when it does not."""
    try:
        names = json.loads(array.tobytes())
    except ValueError as error:
        raise ModelError(f"not a list of names: {error}") from error
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ModelError("not a list of names")
    return names
