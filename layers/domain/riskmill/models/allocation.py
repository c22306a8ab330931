"""Allocate the group's tail to its deals (co-TVaR) and state each layer's price figures."""

import json
import math
from collections.abc import Sequence
from typing import Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from riskmill.errors import ModelError
from riskmill.models import kernel
from riskmill.models.metrics import TailWithout, tail_weights
from riskmill.models.occurrences import F64, check_yelt, check_yet, need, split_blocks, trial_starts, trials_of
from riskmill.models.pricing import (
    LAYER_STATS,
    NO_LOADS,
    PRICE_FIGURES,
    PriceDealParams,
    Pricing,
    price_figures,
    recover_deal,
)
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
    #: whether outwards contracts stand above the deals: then what they leave of the tail, and the measure of the top
    #: group's net losses, follow the other inputs
    net: bool = False
    #: loads and expenses; with a cost of capital the layers' own co-TVaR (price_tail) is the last input
    pricing: Pricing = NO_LOADS

    @model_validator(mode="after")
    def _lengths_agree(self) -> Self:
        if not len(self.deals) == len(self.brokerage) == len(self.layers) == len(self.terms):
            raise ValueError("deals, brokerage, layers and terms differ in length")
        for deal, layers, terms in zip(self.deals, self.layers, self.terms, strict=True):
            if len(layers) != len(terms):
                raise ValueError(f"deal {deal} has {len(layers)} layers and terms of {len(terms)}")
        return self


@model("allocate", version=2, params=AllocateParams)
def allocate(params: AllocateParams, inputs: Sequence[Arrays]) -> dict[str, Array]:
    """Return the deals' shares of the group's tail and the layers' price figures.

    Inputs: [YET of each block, leaf roll_up with members of each block, measure of the top group's gross losses]; with
    net [retained of each block, measure of its net losses] behind; with a cost of capital [price_tail] behind.
    Output: aal, sd, co_tvar, co_tvar_se, marginal_tvar, net_co_tvar float64 [deals] (our share); price_figures float64
    [layers, len(PRICE_FIGURES)]; deal_ids and layer_ids uint8 (UTF-8 JSON lists). co_tvar is the deal's mean loss in
    the tail's trials by their weights: over all deals of the group it adds up to the group's TVaR (Tasche 1999).
    marginal_tvar, the group's TVaR less that without the deal, does not add up. net_co_tvar is of what outwards
    contracts leave of the deal, a recovery given back to deals by their shares of the occurrence that it is for, in the
    tail of the group's net losses: it adds up to that TVaR. Raises ModelError when inputs and parameters do not fit.
    """
    blocks = params.blocks
    extra = 1 + (blocks + 1 if params.net else 0) + (1 if params.pricing.cost_of_capital > 0 else 0)
    yets, leaves, rest = split_blocks(inputs, blocks, "YET", "leaf", extra=extra)
    top = rest[0]
    need(top, "measure of the top group", "tail_trial", "tail_weight", "trials", "annual_trial", "annual_loss")
    trials = sum(trials_of(check_yet(yet)) for yet in yets)
    if trials != int(top["trials"][0]):
        raise ModelError(f"the blocks have {trials} trials, and the measure of the top group {top['trials'][0]}")
    weight = top.derive("allocation.weights", tail_weights)
    net_weight = rest[1 + blocks].derive("allocation.weights", tail_weights) if params.net else weight
    deals = len(params.deals)
    sums, squares, tail, tail_squares, net = (np.zeros(deals) for _ in range(5))
    stats = np.zeros((sum(len(layers) for layers in params.layers), len(LAYER_STATS)))
    found: list[tuple[Array, Array, F64]] = []
    first = 0
    for block, (yet, leaf) in enumerate(zip(yets, leaves, strict=True)):
        _check_leaf(leaf, params)
        member, trial, annual = _annual_losses(leaf, yet)
        sums += np.bincount(member, annual, minlength=deals)
        squares += np.bincount(member, annual * annual, minlength=deals)
        weighted = annual * weight[first + trial]
        tail += np.bincount(member, weighted, minlength=deals)
        tail_squares += np.bincount(member, annual * weighted, minlength=deals)
        if params.net:
            net += _net_tail(leaf, yet, rest[1 + block], net_weight[first : first + trials_of(yet)])
        found.append((member, first + trial, annual))
        stats += leaf["layer_stats"]
        first += trials_of(yet)
    mean = sums / trials
    variance = np.maximum(squares - sums * mean, 0.0) / (trials - 1) if trials > 1 else np.full(deals, math.nan)
    # Given which trials are the tail: the spread of the deal's losses over them.
    size = max(1.0, 1.0 / float(top["tail_weight"].max()))
    within = np.maximum(tail_squares - tail * tail, 0.0)
    co_tvars = np.zeros(stats.shape[0])
    if params.pricing.cost_of_capital > 0:
        need(rest[-1], "layers' part of the tail", "layer_co_tvar")
        co_tvars = rest[-1]["layer_co_tvar"]
        if co_tvars.size != stats.shape[0]:
            raise ModelError(f"the leaf has {stats.shape[0]} layers, and parts of the tail of {co_tvars.size}")
    priced = [
        (terms, brokerage) for layers, brokerage in zip(params.terms, params.brokerage, strict=True) for terms in layers
    ]
    figures = [
        price_figures(terms, stats[number], brokerage, params.pricing, float(co_tvars[number]))
        for number, (terms, brokerage) in enumerate(priced)
    ]
    return {
        "aal": mean,
        "sd": np.sqrt(variance),
        "co_tvar": tail,
        "co_tvar_se": np.sqrt(within / size),
        "marginal_tvar": _marginals(top, found, deals),
        "net_co_tvar": net if params.net else tail.copy(),
        "price_figures": np.array(figures, np.float64).reshape(-1, len(PRICE_FIGURES)),
        "deal_ids": _ids(params.deals),
        "layer_ids": _ids([layer for layers in params.layers for layer in layers]),
    }


def _marginals(top: Arrays, found: Sequence[tuple[Array, Array, F64]], deals: int) -> F64:
    """Return what the top group's TVaR falls by without each deal."""
    tail = top.derive("allocation.tail", TailWithout)
    begins = [np.searchsorted(member, np.arange(deals + 1)) for member, _, _ in found]
    marginal = np.empty(deals)
    for deal in range(deals):
        parts = [
            (trial[at[deal] : at[deal + 1]], annual[at[deal] : at[deal + 1]])
            for at, (_, trial, annual) in zip(begins, found, strict=True)
        ]
        trial, annual = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
        marginal[deal] = tail.marginal(trial, annual)
    return marginal


def _net_tail(leaf: Arrays, yet: Arrays, retained: Arrays, weight: F64) -> F64:
    """Return each member's part of the net tail in one block: its losses, what is retained of them, the weights."""
    need(retained, "retained part", "row", "part")
    row, offsets = leaf["member_row"], leaf["member_offsets"]
    weights = weight[yet["trial"][row]]
    at = np.flatnonzero(weights)
    part = np.ones(yet["trial"].size)
    part[retained["row"]] = retained["part"]
    loss = leaf["member_loss"][at].astype(np.float64) * part[row[at]] * weights[at]
    member = np.searchsorted(offsets, at, side="right") - 1
    total: F64 = np.bincount(member, loss, minlength=offsets.size - 1)
    return total


class RetainedParams(BaseModel):
    """Parameters of retained: the block's first trial."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    first_trial: int = Field(ge=0)


@model("retained", version=1, params=RetainedParams)
def retained(params: RetainedParams, inputs: Sequence[Arrays]) -> dict[str, Array]:
    """Return which part of their losses deals keep on a block's occurrences in the tail, after outwards contracts.

    Inputs: [YET, measure of the top group's net losses, output of each apply_retro between the deals' group and the top
    in the order in which they apply]. Output: row int32 (rows of the tail's trials with a recovery), part float64: the
    product of net / subject over the contracts, so a recovery goes back to all that its occurrence is made of, in
    proportion. Raises ModelError for inputs that do not fit together.
    """
    if len(inputs) < 2:
        raise ModelError(f"retained takes a YET, a measure and outputs of apply_retro; it was given {len(inputs)}")
    yet, top, *contracts = inputs
    check_yet(yet)
    need(top, "measure of the top group", "tail_trial", "tail_weight", "trials")
    weight = tail_weights(top)[params.first_trial : params.first_trial + trials_of(yet)]
    tail = weight[yet["trial"]] > 0
    part = np.ones(yet["trial"].size)
    for contract in contracts:
        need(check_yelt(contract, part.size), "net of outwards contracts", "ceded")
        at = np.flatnonzero((contract["ceded"] > 0) & tail[contract["row"]])
        net, ceded = contract["loss"][at], contract["ceded"][at]
        part[contract["row"][at]] *= net / (net + ceded)
    row = np.flatnonzero(part != 1.0)
    return {"row": row.astype(np.int32), "part": part[row]}


class PriceTailParams(BaseModel):
    """Parameters of price_tail: how the deals of a leaf are priced, in its order, on each block."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    blocks: int = Field(ge=1)
    deals: tuple[PriceDealParams, ...]


@model("price_tail", version=1, params=PriceTailParams)
def price_tail(params: PriceTailParams, inputs: Sequence[Arrays]) -> dict[str, Array]:
    """Return each layer's part of the top group's tail: its mean annual loss in it, at our share.

    A deal's layers are stored as their sum, so the tail's years, one in a hundred, are priced again by layer. Inputs:
    [YET of each block, measure of the top group's gross losses, for each deal its ELT and its industry losses].
    Output: layer_co_tvar float64 [layers of all deals]. Sampled losses need `first_trial` of block 0 in the
    parameters; those of the other blocks follow. Raises ModelError as `price_deal` does.
    """
    wanted = params.blocks + 1 + sum(1 + len(deal.indices) for deal in params.deals)
    if len(inputs) != wanted:
        raise ModelError(f"price_tail takes {wanted} inputs for {len(params.deals)} deals; it was given {len(inputs)}")
    yets, top, rest = inputs[: params.blocks], inputs[params.blocks], list(inputs[params.blocks + 1 :])
    need(top, "measure of the top group", "tail_trial", "tail_weight", "trials")
    weight = tail_weights(top)
    found: list[float] = []
    for deal in params.deals:
        own = [rest.pop(0) for _ in range(1 + len(deal.indices))]
        parts = np.zeros(len(deal.layers))
        first = 0
        for yet in yets:
            its = weight[first : first + trials_of(check_yet(yet))]
            of_block = deal
            if deal.sampling is not None:
                of_block = deal.model_copy(update={"sampling": deal.sampling.model_copy(update={"first_trial": first})})
            recovered = recover_deal(of_block, [own[0], yet, *own[1:]], its[yet["trial"]] > 0)
            of_years = its[recovered.trial[recovered.starts]]
            for number, (terms, layer) in enumerate(zip(deal.layers, recovered.layers, strict=True)):
                parts[number] += float(np.add.reduce(layer.annual * of_years)) * terms.share
            first += trials_of(yet)
        found += parts.tolist()
    return {"layer_co_tvar": np.array(found, np.float64)}


def _check_leaf(leaf: Arrays, params: AllocateParams) -> None:
    need(leaf, "leaf", "member_offsets", "member_row", "member_loss", "layer_offsets", "layer_stats")
    wanted = np.cumsum([0, *(len(layers) for layers in params.layers)])
    if leaf["layer_offsets"].tolist() != wanted.tolist():
        raise ModelError(f"the leaf has layers at {leaf['layer_offsets'].tolist()}; the deals have {wanted.tolist()}")


def _annual_losses(leaf: Arrays, yet: Arrays) -> tuple[Array, Array, F64]:
    """Return, for each year in which a member has a loss: the member, the trial within the block, the annual loss."""
    done = kernel.annual_losses(leaf, yet)
    if done is not None:
        return done
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


#: Arrays of `allocate` with one number a deal.
DEAL_FIGURES = ("aal", "sd", "co_tvar", "co_tvar_se", "marginal_tvar", "net_co_tvar")


@model("tabulate_deals", version=2, params=TabulateDealsParams)
def tabulate_deals(params: TabulateDealsParams, inputs: Sequence[Arrays]) -> dict[str, Array]:
    """Return the outputs of several allocate jobs as one: the same arrays, one after the other.

    Raises ModelError for an input that is not an output of allocate.
    """
    for part in inputs:
        need(part, "part of the table", *DEAL_FIGURES, "price_figures", "deal_ids", "layer_ids")
    empty = np.empty(0)
    return {
        **{name: np.concatenate([empty, *(part[name] for part in inputs)]) for name in DEAL_FIGURES},
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
