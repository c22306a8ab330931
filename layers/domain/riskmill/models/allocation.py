"""Allocate the group's tail to its deals (co-TVaR) and state each layer's price figures."""

import json
import math
from collections.abc import Iterator, Sequence
from typing import Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from riskmill.errors import ModelError
from riskmill.models import kernel
from riskmill.models.metrics import (
    EP_COLUMNS,
    Tail,
    co_tvar_error,
    ep_table,
    largest_of,
    proportion_interval,
    ranks_needed,
    sd_error,
    tail_error,
    tail_mean,
    tail_weights,
)
from riskmill.models.occurrences import F64, check_yelt, check_yet, need, split_blocks, trial_starts, trials_of
from riskmill.models.pricing import (
    LAYER_STATS,
    NO_LOADS,
    PRICE_FIGURES,
    PriceDealParams,
    PriceErrors,
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


#: Return periods of deals' own exceedance figures, in years.
DEAL_PERIODS = (100, 250)

#: Arrays of `allocate` with one number a deal.
DEAL_FIGURES = (
    "aal",
    "sd",
    "co_tvar",
    "co_tvar_se",
    "marginal_tvar",
    "net_co_tvar",
    "sd_se",
    "prob_loss",
    "prob_loss_low",
    "prob_loss_high",
    "tvar",
    "tvar_se",
    "share_of_tvar_se",
    "marginal_tvar_se",
    "net_co_tvar_se",
)

#: Arrays of `allocate` with one row a deal, of its own exceedance curves at DEAL_PERIODS.
DEAL_TABLES = tuple(name + column for name in ("oep", "aep") for column in EP_COLUMNS)


@model("allocate", version=3, params=AllocateParams)
def allocate(params: AllocateParams, inputs: Sequence[Arrays]) -> dict[str, Array]:
    """Return the deals' shares of the group's tail and the layers' price figures.

    Inputs: [YET of each block, leaf roll_up with members of each block, measure of the top group's gross losses]; with
    net [retained of each block, measure of its net losses] behind; with a cost of capital [price_tail] behind.
    Output: DEAL_FIGURES float64 [deals] (our share); DEAL_TABLES float64 [deals, len(DEAL_PERIODS)], a deal's own
    exceedance figures as `measure` has a group's; price_figures float64 [layers, len(PRICE_FIGURES)]; deal_ids and
    layer_ids uint8 (UTF-8 JSON lists). <x>_se are standard errors. co_tvar is the deal's mean loss in
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
    tail = top.derive("allocation.tail", Tail)
    net = _NetTail(rest[1 + blocks], len(params.deals)) if params.net else None
    deals = len(params.deals)
    sums, squares = np.zeros(deals), np.zeros(deals)
    stats = np.zeros((sum(len(layers) for layers in params.layers), len(LAYER_STATS)))
    found: list[tuple[Array, Array, F64]] = []
    largest: list[F64] = []
    first = 0
    for block, (yet, leaf) in enumerate(zip(yets, leaves, strict=True)):
        _check_leaf(leaf, params)
        member, trial, annual = _annual_losses(leaf, yet)
        sums += np.bincount(member, annual, minlength=deals)
        squares += np.bincount(member, annual * annual, minlength=deals)
        if net is not None:
            net.add(leaf, yet, rest[1 + block], first)
        found.append((member, first + trial, annual))
        largest.append(_largest_losses(leaf, yet))
        stats += leaf["layer_stats"]
        first += trials_of(yet)
    mean = sums / trials
    variance = np.maximum(squares - sums * mean, 0.0) / (trials - 1) if trials > 1 else np.full(deals, math.nan)
    sd = np.sqrt(variance)
    own = [
        _own_figures(tail, *losses, float(mean[deal])) for deal, losses in enumerate(_by_deal(found, largest, deals))
    ]
    members = np.array([each[0] for each in own], np.float64).reshape(-1, len(_OWN_FIGURES))
    figures = {name: np.ascontiguousarray(column) for name, column in zip(_OWN_FIGURES, members.T, strict=True)}
    fourth = figures.pop("fourth_power")
    figures |= {"aal": mean, "sd": sd, "sd_se": _sd_errors(sd, figures.pop("fourth_moment"), trials)}
    figures["net_co_tvar"] = figures["co_tvar"] if net is None else net.co_tvar
    figures["net_co_tvar_se"] = figures["co_tvar_se"] if net is None else net.error
    return {
        **{name: figures[name].copy() for name in DEAL_FIGURES},
        **_own_tables(own, deals),
        "price_figures": _price_figures(params, rest[-1], stats, figures["sd_se"], fourth),
        "deal_ids": _ids(params.deals),
        "layer_ids": _ids([layer for layers in params.layers for layer in layers]),
    }


def _price_figures(params: AllocateParams, tail: Arrays, stats: F64, sd_se: F64, fourth: F64) -> F64:
    """Return the price figures of all layers; `tail` is the output of price_tail, with a cost of capital."""
    co_tvar, error = np.zeros(stats.shape[0]), np.zeros(stats.shape[0])
    if params.pricing.cost_of_capital > 0:
        need(tail, "layers' part of the tail", "layer_co_tvar", "layer_co_tvar_se")
        co_tvar, error = tail["layer_co_tvar"], tail["layer_co_tvar_se"]
        if co_tvar.size != stats.shape[0]:
            raise ModelError(f"the leaf has {stats.shape[0]} layers, and parts of the tail of {co_tvar.size}")
    figures: list[F64] = []
    for deal, (layers, brokerage) in enumerate(zip(params.terms, params.brokerage, strict=True)):
        for terms in layers:
            at = len(figures)
            about = PriceErrors(
                co_tvar_se=float(error[at]),
                # a layer alone is its deal
                sd_se=float(sd_se[deal]) if len(layers) == 1 else None,
                fourth_power=float(fourth[deal]),
            )
            figures.append(price_figures(terms, stats[at], brokerage, params.pricing, float(co_tvar[at]), about))
    return np.array(figures, np.float64).reshape(-1, len(PRICE_FIGURES))


def _by_deal(
    found: Sequence[tuple[Array, Array, F64]], largest: Sequence[F64], deals: int
) -> Iterator[tuple[Array, F64, F64]]:
    """Yield, for each deal, the years in which it loses, over all blocks: trial, annual loss, largest occurrence."""
    begins = [np.searchsorted(member, np.arange(deals + 1)) for member, _, _ in found]
    for deal in range(deals):
        parts = [
            (trial[at[deal] : at[deal + 1]], annual[at[deal] : at[deal + 1]], top[at[deal] : at[deal + 1]])
            for at, (_, trial, annual), top in zip(begins, found, largest, strict=True)
        ]
        trial, annual, top = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
        yield trial, annual, top


#: What `_own_figures` returns: DEAL_FIGURES, and the fourth moments of the annual loss, about 0 and about the mean.
_OWN_FIGURES = (
    "co_tvar",
    "co_tvar_se",
    "marginal_tvar",
    "marginal_tvar_se",
    "share_of_tvar_se",
    "prob_loss",
    "prob_loss_low",
    "prob_loss_high",
    "tvar",
    "tvar_se",
    "fourth_power",
    "fourth_moment",
)


def _own_figures(
    tail: Tail, trial: Array, annual: F64, largest: F64, mean: float
) -> tuple[tuple[float, ...], list[F64]]:
    """Return _OWN_FIGURES of a deal from the years in which it loses, and DEAL_TABLES."""
    trials = tail.total.size
    lost = int(np.count_nonzero(annual))
    falling = largest_of(annual, max(ranks_needed(trials, DEAL_PERIODS), tail.whole + 1))
    squares, from_mean = annual * annual, annual - mean
    from_mean *= from_mean
    without = (trials - annual.size) * (mean * mean) * (mean * mean)
    tables = ep_table(largest_of(largest, falling.size), trials, DEAL_PERIODS)
    tables += ep_table(falling, trials, DEAL_PERIODS)
    figures = (
        *tail.of_member(trial, annual),
        tail.share_error(trial, annual),
        lost / trials,
        *proportion_interval(lost, trials),
        tail_mean(falling, tail.whole, tail.fraction),
        tail_error(falling, tail.whole, tail.probability),
        float(np.add.reduce(squares * squares)) / trials,
        float(np.add.reduce(from_mean * from_mean) + without) / trials,
    )
    return figures, tables


def _own_tables(own: Sequence[tuple[tuple[float, ...], list[F64]]], deals: int) -> dict[str, Array]:
    return {
        name: np.array([tables[at] for _, tables in own], np.float64).reshape(deals, len(DEAL_PERIODS))
        for at, name in enumerate(DEAL_TABLES)
    }


def _sd_errors(sd: F64, fourth_moment: F64, trials: int) -> F64:
    return np.array([sd_error(trials, *each) for each in zip(sd.tolist(), fourth_moment.tolist(), strict=True)])


class _NetTail:
    """Adds up, block by block, each member's part of the tail of the top group's net losses."""

    def __init__(self, top: Arrays, deals: int) -> None:
        need(top, "net measure of the top group", "tail_trial", "tail_weight", "trials", "annual_trial", "annual_loss")
        self.tail = top.derive("allocation.tail", Tail)
        self.co_tvar, self.square, self.boundary = (np.zeros(deals) for _ in range(3))

    def add(self, leaf: Arrays, yet: Arrays, retained: Arrays, first: int) -> None:
        """Add a block's losses in the tail, as far as they are retained."""
        need(retained, "retained part", "row", "part")
        row, offsets = leaf["member_row"], leaf["member_offsets"]
        trial = yet["trial"][row] + first
        at = np.flatnonzero(self.tail.weight[trial])
        if not at.size:
            return
        part = np.ones(yet["trial"].size)
        part[retained["row"]] = retained["part"]
        loss = leaf["member_loss"][at].astype(np.float64) * part[row[at]]
        member, trial = np.searchsorted(offsets, at, side="right") - 1, trial[at]
        starts = np.union1d(trial_starts(trial), trial_starts(member.astype(np.int32)))
        annual, member, trial = np.add.reduceat(loss, starts), member[starts], trial[starts]
        weighted = annual * self.tail.weight[trial]
        for total, values in (
            (self.co_tvar, weighted),
            (self.square, weighted * annual),
            (self.boundary, annual * self.tail.boundary[trial]),
        ):
            total += np.bincount(member, values, minlength=total.size)

    @property
    def error(self) -> F64:
        """Standard errors of `co_tvar`."""
        return co_tvar_error(self.co_tvar, self.square, self.boundary, self.tail.size, self.tail.level)


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


@model("price_tail", version=2, params=PriceTailParams)
def price_tail(params: PriceTailParams, inputs: Sequence[Arrays]) -> dict[str, Array]:
    """Return each layer's part of the top group's tail: its mean annual loss in it, at our share.

    A deal's layers are stored as their sum, so the tail's years, one in a hundred, are priced again by layer. Inputs:
    [YET of each block, measure of the top group's gross losses, for each deal its ELT and its industry losses].
    Output: layer_co_tvar and its standard error layer_co_tvar_se, float64 [layers of all deals]. Sampled losses need
    `first_trial` of block 0 in the parameters; those of the other blocks follow. Raises ModelError as `price_deal`.
    """
    wanted = params.blocks + 1 + sum(1 + len(deal.indices) for deal in params.deals)
    if len(inputs) != wanted:
        raise ModelError(f"price_tail takes {wanted} inputs for {len(params.deals)} deals; it was given {len(inputs)}")
    yets, top, rest = inputs[: params.blocks], inputs[params.blocks], list(inputs[params.blocks + 1 :])
    need(top, "measure of the top group", "tail_trial", "tail_weight", "trials", "annual_trial", "annual_loss")
    tail = Tail(top)
    weight = tail.weight
    found: list[F64] = []
    for deal in params.deals:
        own = [rest.pop(0) for _ in range(1 + len(deal.indices))]
        # mean and mean square in the tail, mean where it begins
        parts = np.zeros((3, len(deal.layers)))
        first = 0
        for yet in yets:
            its = weight[first : first + trials_of(check_yet(yet))]
            of_block = deal
            if deal.sampling is not None:
                of_block = deal.model_copy(update={"sampling": deal.sampling.model_copy(update={"first_trial": first})})
            recovered = recover_deal(of_block, [own[0], yet, *own[1:]], its[yet["trial"]] > 0)
            years = recovered.trial[recovered.starts]
            of_years, at_boundary = its[years], tail.boundary[first + years]
            for number, (terms, layer) in enumerate(zip(deal.layers, recovered.layers, strict=True)):
                weighted = layer.annual * of_years
                parts[0, number] += float(np.add.reduce(weighted)) * terms.share
                parts[1, number] += float(np.add.reduce(weighted * layer.annual)) * (terms.share * terms.share)
                parts[2, number] += float(np.add.reduce(layer.annual * at_boundary)) * terms.share
            first += trials_of(yet)
        found.append(parts)
    mean, square, boundary = np.concatenate([np.empty((3, 0)), *found], axis=1)
    error = co_tvar_error(mean, square, boundary, tail.size, tail.level)
    return {"layer_co_tvar": mean.copy(), "layer_co_tvar_se": error}


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
    starts = _year_starts(leaf, trial)
    member = np.searchsorted(offsets, starts, side="right") - 1
    return member, trial[starts], np.add.reduceat(loss, starts)


def _largest_losses(leaf: Arrays, yet: Arrays) -> F64:
    """Return the largest occurrence of each year in which a member has a loss, in the order of `_annual_losses`."""
    loss, starts = leaf["member_loss"], _year_starts(leaf, yet["trial"][leaf["member_row"]])
    return np.maximum.reduceat(loss, starts).astype(np.float64) if starts.size else np.empty(0, np.float64)


def _year_starts(leaf: Arrays, trial: Array) -> Array:
    """Return where a year of a member begins: where the trial changes, and where the next member begins."""
    begins = np.zeros(trial.size + 1, np.bool_)
    begins[trial_starts(trial)] = True
    begins[leaf["member_offsets"][:-1]] = True
    return np.flatnonzero(begins[:-1])


class TabulateDealsParams(BaseModel):
    """tabulate_deals has no parameters."""

    model_config = ConfigDict(frozen=True, extra="forbid")


@model("tabulate_deals", version=3, params=TabulateDealsParams)
def tabulate_deals(params: TabulateDealsParams, inputs: Sequence[Arrays]) -> dict[str, Array]:
    """Return the outputs of several allocate jobs as one: the same arrays, one after the other.

    Raises ModelError for an input that is not an output of allocate.
    """
    for part in inputs:
        need(part, "part of the table", *DEAL_FIGURES, *DEAL_TABLES, "price_figures", "deal_ids", "layer_ids")
    empty = np.empty(0)
    return {
        **{name: np.concatenate([empty, *(part[name] for part in inputs)]) for name in DEAL_FIGURES},
        **{
            name: np.concatenate([np.empty((0, len(DEAL_PERIODS))), *(part[name] for part in inputs)])
            for name in DEAL_TABLES
        },
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
