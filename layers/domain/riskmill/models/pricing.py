"""Price a deal: its ELT through its layers' terms on every occurrence of the YET; and a layer's price figures."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from riskmill.checks import deal_problems
from riskmill.errors import ModelError
from riskmill.models import kernel
from riskmill.models.catalogue import DAYS_IN_MONTH
from riskmill.models.contracts import (
    AT_THE_EDGE,
    EventFacts,
    annual_limit,
    layer_limit,
    occurrence_limit,
    occurrence_loss,
    recoveries,
    reinstatement_fraction,
    reinstatement_fraction_in_time,
    shared_limit_recoveries,
    unexpired_part,
)
from riskmill.models.metrics import proportion_interval
from riskmill.models.occurrences import (
    F64,
    I32,
    I64,
    YetIndex,
    check_elt,
    check_yet,
    index_yet,
    largest_by_trial,
    sum_by_trial,
    trial_starts,
    trials_of,
)
from riskmill.models.registry import model
from riskmill.models.uncertainty import Sampling, largest_losses, sample_losses
from riskmill.outputs import Array, Arrays
from riskmill.terms import Amount, Share, Terms, later

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
    "expected_loss_se",
    "prob_attach_low",
    "prob_attach_high",
    "prob_exhaust_low",
    "prob_exhaust_high",
    "risk_load",
    "sd_se",
    "expected_reinstatement_premium_se",
    "loss_on_line_se",
    "technical_premium_se",
    "risk_load_se",
)

#: Sums of the same losses in another order differ by rounding; a year is left out only when it is below by more.
_SURELY_BELOW = 1.0 - 1e-9


class Pricing(BaseModel):
    """Loads and expenses of technical premiums; all of them 0 leave the premium that pays for expected loss."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    #: risk load: this times the standard deviation of the layer's annual loss (Kreps 1990)
    sd_load: Amount = 0.0
    #: risk load: this times the layer's part of the portfolio's tail (co-TVaR)
    cost_of_capital: Amount = 0.0
    #: expense of each layer, an amount in the portfolio's currency
    fixed_expense: Amount = 0.0
    #: expense as a part of the premium, beside brokerage
    variable_expense: Share = 0.0
    #: whether brokerage is paid on reinstatement premium too
    brokerage_on_reinstatement: bool = later(False)


NO_LOADS = Pricing()


class Period(BaseModel):
    """First and last day of a contract, counted from day 0 of the trial year; either may lie outside of the year."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    first: int
    last: int

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.last < self.first:
            raise ValueError(f"a period ends on day {self.last}, before its first day {self.first}")
        return self


#: A contract for the trial year, no more and no less.
WHOLE_YEAR = Period(first=0, last=sum(DAYS_IN_MONTH) - 1)


class PriceDealParams(BaseModel):
    """Parameters of price_deal: the terms of the deal's layers, in the deal's order, in the portfolio's currency.

    rate: what one unit of the ELT's currency is worth in the portfolio's. period: the contract's days; occurrences on
    other days do not count. indices: names of the industry losses that follow the YET among the inputs. sampling: how
    secondary uncertainty is sampled; without it an event's loss is its mean.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    layers: tuple[Terms, ...] = Field(min_length=1)
    rate: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    period: Period = WHOLE_YEAR
    indices: tuple[str, ...] = ()
    sampling: Sampling | None = None

    @model_validator(mode="after")
    def _layers_fit_together(self) -> Self:
        for number, field, problem, _ in deal_problems(self.layers):
            raise ValueError(f"layer {number}: {field} {problem}")
        return self


@model("price_deal", version=1, params=PriceDealParams)
def price_deal(params: PriceDealParams, inputs: Sequence[Arrays]) -> dict[str, Array]:
    """Return the deal's YELT on one block of trials.

    Inputs: [ELT, YET, industry losses of each index]. Output: row int32 (sorted), loss float32 (our share, all layers;
    above 0 only) and layer_stats float64 [layers, len(LAYER_STATS)].
    Raises ModelError for a bad ELT or YET, or terms that contradict each other or need what the ELT does not have.
    """
    if len(inputs) == 2 and params.sampling is None and not params.indices:
        days = None if params.period == WHOLE_YEAR else (params.period.first, params.period.last)
        done = kernel.price_deal(params.layers, inputs[0], check_yet(inputs[1]), rate=params.rate, days=days)
        if done is not None:
            return {"row": done[0], "loss": done[1], "layer_stats": done[2]}
    deal = recover_deal(params, inputs)
    total = np.zeros(deal.row.size)
    stats = np.zeros((len(params.layers), len(LAYER_STATS)))
    for number, (terms, layer) in enumerate(zip(params.layers, deal.layers, strict=True)):
        total += layer.recovery if terms.share == 1.0 else layer.recovery * terms.share
        limit = annual_limit(terms)
        if limit < math.inf:
            exhausted = layer.annual >= limit
        elif terms.occurrence_limit is not None:
            exhausted = largest_by_trial(layer.occurrence, deal.starts) >= terms.occurrence_limit
        else:
            exhausted = np.zeros(0, np.bool_)
        stats[number] = (
            deal.trials,
            np.add.reduce(layer.annual),
            np.add.reduce(layer.annual * layer.annual),
            np.count_nonzero(layer.annual),
            np.count_nonzero(exhausted & (layer.annual > 0)) if exhausted.size else 0,
            np.add.reduce(_reinstated(terms, layer, deal, params.period)) if terms.reinstatements else 0.0,
        )
    row, loss = deal.row, total.astype(np.float32)
    some = loss > 0
    if not some.all():
        row, loss = row[some], loss[some]
    return {"row": row, "loss": loss, "layer_stats": stats}


@dataclass(frozen=True, slots=True)
class LayerRecovery:
    """What a layer pays, at 100% of it: per occurrence before aggregate terms, after them, and per year."""

    occurrence: F64
    recovery: F64
    annual: F64


@dataclass(frozen=True, slots=True)
class DealRecovery:
    """What a deal's layers pay on the rows of a block that may reach any of them."""

    trials: int
    #: rows of the YET, sorted; their days; where each year begins among them
    row: I32
    day: Array
    trial: Array
    starts: I64
    layers: list[LayerRecovery]


def recover_deal(
    params: PriceDealParams, inputs: Sequence[Arrays], only: np.ndarray[Any, np.dtype[np.bool_]] | None = None
) -> DealRecovery:
    """Take a deal's losses through the terms of its layers, in inuring order. Inputs and errors as `price_deal`.

    With `only` [rows of the YET] the other rows are left out; give whole years.
    """
    if len(inputs) != 2 + len(params.indices):
        industry = f" and {len(params.indices)} table(s) of industry losses" if params.indices else ""
        raise ModelError(f"price_deal takes an ELT and a YET{industry}; it was given {len(inputs)} input(s)")
    elt, yet = check_elt(inputs[0]), check_yet(inputs[1])
    index = index_yet(yet)
    slots = index.slots(elt["event"])
    mean = elt["mean"] if params.rate == 1.0 else elt["mean"] * params.rate
    facts = _facts(elt, params, inputs[2:])
    # Terms are applied to events, of which there are far fewer than occurrences: to their losses, or to the largest
    # that a sample can be. All terms pay no less on a larger loss, so this finds every row that may matter.
    largest = mean if params.sampling is None else largest_losses(elt) * params.rate
    by_event = [occurrence_loss(terms, largest, facts) for terms in params.layers]
    row = _touched_rows(params.layers, by_event, slots, index, yet)
    if params.period != WHOLE_YEAR:
        day = yet["day"][row]
        row = row[(day >= params.period.first) & (day <= params.period.last)]
    if only is not None:
        row = row[only[row]]
    at = row.astype(np.intp)
    trial = yet["trial"][at]
    starts = trial_starts(trial)
    # Every row here belongs to an event of the ELT, so what else the table holds is never read.
    position = np.empty(index.begin.size, np.int64)
    position[slots] = np.arange(slots.size)
    event = position[index.slot_of_row[at]]
    priorities = sorted({terms.inuring_priority for terms in params.layers})
    loss: F64 | None = None
    if params.sampling is not None:
        loss = sample_losses(params.sampling, elt, yet, row, event)
        loss = loss if params.rate == 1.0 else loss * params.rate
    elif len(priorities) > 1:
        loss = mean[event]
    layers: list[LayerRecovery | None] = [None] * len(params.layers)
    for priority in priorities:
        numbers = [at for at, terms in enumerate(params.layers) if terms.inuring_priority == priority]
        occurrences = [
            by_event[number][event] if loss is None else occurrence_loss(params.layers[number], loss, facts.at(event))
            for number in numbers
        ]
        for number, layer in zip(numbers, _recovered(params.layers, numbers, occurrences, starts), strict=True):
            layers[number] = layer
        if priority != priorities[-1] and loss is not None:
            inured = np.zeros(loss.size)
            for number in numbers:
                inured += layers[number].recovery * params.layers[number].placed_share  # type: ignore[union-attr]
            loss = np.maximum(loss - inured, 0.0)
    return DealRecovery(
        trials_of(yet), row, yet["day"][at], trial, starts, [layer for layer in layers if layer is not None]
    )


def _recovered(
    layers: Sequence[Terms], numbers: Sequence[int], occurrences: Sequence[F64], starts: I64
) -> list[LayerRecovery]:
    """Return what the layers of one inuring priority recover, limits that they share included."""
    found = [recoveries(layers[number], loss, starts) for number, loss in zip(numbers, occurrences, strict=True)]
    sharing: dict[str, list[int]] = {}
    for at, number in enumerate(numbers):
        name = layers[number].shared_limit
        if name is not None:
            sharing.setdefault(name, []).append(at)
    for name, members in sharing.items():
        limit = layers[numbers[members[0]]].shared_aggregate_limit
        if limit is None:
            raise ModelError(f"the layers that share the limit {name!r} state no shared aggregate limit")
        cut = shared_limit_recoveries([found[at][0] for at in members], limit, starts)
        for at, recovery in zip(members, cut, strict=True):
            # A year that is not cut recovers what it did: added up anew, it could miss its own limit by rounding.
            annual, total = found[at][1], sum_by_trial(recovery, starts)
            found[at] = recovery, np.where(total >= annual * (1 - AT_THE_EDGE), annual, total)
    return [LayerRecovery(loss, *paid) for loss, paid in zip(occurrences, found, strict=True)]


def _reinstated(terms: Terms, layer: LayerRecovery, deal: DealRecovery, period: Period) -> F64:
    """Return the reinstatement premium of each year as a fraction of the annual premium."""
    if terms.reinstatement_basis == "amount":
        return reinstatement_fraction(terms, layer.annual)
    unexpired = unexpired_part(deal.day, period.first, period.last)
    return reinstatement_fraction_in_time(terms, layer.recovery, deal.starts, unexpired)


def _facts(elt: Arrays, params: PriceDealParams, industry: Sequence[Arrays]) -> EventFacts:
    """Return what the ELT and the indices say of each of the ELT's events, amounts in the portfolio's currency."""
    exposure = elt["exposure"] * params.rate if "exposure" in elt else None
    risks = np.maximum(elt["risks"], 1.0) if "risks" in elt else None
    losses = {name: industry_losses(table, elt["event"]) for name, table in zip(params.indices, industry, strict=True)}
    return EventFacts(risks, exposure, losses)


def industry_losses(table: Arrays, events: I32) -> F64:
    """Return the industry's loss of each event by an index (arrays as an ELT); 0 for an event that it does not have."""
    known = check_elt(table)["event"]
    if not known.size:
        return np.zeros(events.size)
    at = np.minimum(np.searchsorted(known, events), known.size - 1)
    return np.where(known[at] == events, table["mean"][at], 0.0)


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


@dataclass(frozen=True, slots=True)
class PriceErrors:
    """What is known of a layer's errors beside its sums: of its co-TVaR, and from its deal, all at our share."""

    co_tvar_se: float = 0.0
    #: of the layer's standard deviation; None: bounded from what follows
    sd_se: float | None = None
    #: mean fourth power of the deal's annual loss, to which the layer's own is no more than equal
    fourth_power: float = math.inf


NOTHING_KNOWN = PriceErrors()


def price_figures(
    terms: Terms,
    stats: F64,
    brokerage: float,
    pricing: Pricing = NO_LOADS,
    co_tvar: float = 0.0,
    known: PriceErrors = NOTHING_KNOWN,
) -> F64:
    """Return a layer's PRICE_FIGURES from its LAYER_STATS summed over all blocks.

    Amounts are at our share (placed share x participation), in the portfolio's currency and per year:
    expected_loss = share x E[A]; sd of share x A (n - 1); prob_attach = P(A > 0); prob_exhaust;
    expected_reinstatement_premium = share x P x E[f], f being `reinstatement_fraction`;
    loss_on_line = E[A] / L; rate_on_line = P / L; risk_load = sd_load x sd + cost_of_capital x co_tvar;
    technical_premium = (expected_loss + risk_load + fixed_expense) / ((1 + E[f]) (1 - variable_expense) - brokerage),
    brokerage x (1 + E[f]) where it is paid on reinstatement premium too.
    `co_tvar` is the layer's part of the portfolio's tail, at our share. Probabilities have 95% limits (Wilson), other
    figures a standard error, <x>_se, or an upper bound of it where LAYER_STATS do not tell it (docs/models.md). nan:
    errors and sd of one trial; prob_exhaust without any limit; loss and rate on line without a limit above 0;
    technical_premium where brokerage and expense take all of it. L is the occurrence limit, or the aggregate limit
    where that is smaller or the only one.
    """
    trials, recovery, squared, attached, exhausted, reinstated = (float(value) for value in stats)
    share, mean, limit = terms.share, recovery / trials, layer_limit(terms)
    fraction = reinstated / trials
    bounded = annual_limit(terms) < math.inf or occurrence_limit(terms) < math.inf
    on_line = limit if 0 < limit < math.inf else math.nan
    sd = math.sqrt(max(squared - recovery * mean, 0.0) / (trials - 1)) if trials > 1 else math.nan
    load = pricing.sd_load * share * sd if pricing.sd_load > 0 else 0.0
    if pricing.cost_of_capital > 0:
        load += pricing.cost_of_capital * co_tvar
    # what is left of a premium of 1 and its reinstatement premium
    kept = (1 + fraction) * (1 - pricing.variable_expense)
    kept -= brokerage * (1 + fraction) if pricing.brokerage_on_reinstatement else brokerage
    rising = 1 - pricing.variable_expense - (brokerage if pricing.brokerage_on_reinstatement else 0.0)
    loaded = share * mean + (load + pricing.fixed_expense)
    square = squared / trials
    fourth_power = known.fourth_power / (share * share * share * share) if share > 0 else math.inf
    sd_se = known.sd_se
    if sd_se is None:
        sd_se = share * _sd_error_bound(terms, trials, mean, square, sd, fourth_power)
    fraction_se = _reinstated_error_bound(terms, trials, square, sd, fraction)
    load_se = (pricing.sd_load * sd_se if pricing.sd_load > 0 else 0.0) + pricing.cost_of_capital * known.co_tvar_se
    premium_se = math.nan
    if kept > 0:
        of_loss = share * sd / math.sqrt(trials) / kept
        of_reinstatements = loaded / kept * abs(rising) * fraction_se / kept
        if terms.reinstatement_basis == "amount":
            # premium as to amount rises with the loss, so the two errors of opposite sign never add up
            premium_se = math.sqrt(of_loss * of_loss + of_reinstatements * of_reinstatements)
        else:
            premium_se = of_loss + of_reinstatements
        premium_se += load_se / kept
    return np.array(
        [
            share * mean,
            share * sd,
            attached / trials,
            exhausted / trials if bounded else math.nan,
            share * terms.premium * fraction,
            mean / on_line,
            terms.premium / on_line,
            loaded / kept if kept > 0 else math.nan,
            share * sd / math.sqrt(trials),
            *proportion_interval(int(attached), int(trials)),
            *(proportion_interval(int(exhausted), int(trials)) if bounded else (math.nan, math.nan)),
            load,
            sd_se,
            share * terms.premium * fraction_se,
            sd / math.sqrt(trials) / on_line,
            premium_se,
            load_se,
        ]
    )


def _sd_error_bound(terms: Terms, trials: float, mean: float, square: float, sd: float, fourth_power: float) -> float:
    """Return an upper bound of the standard error of a layer's standard deviation, at 100% of it.

    `sqrt((m4 - sd^4) / N) / (2 sd)` with m4 = E A^4 - 4 E A E A^3 + 6 (E A)^2 E A^2 - 3 (E A)^4, where E A^4 is at most
    G^2 E A^2 (G the annual limit) and the deal's, and E A E A^3 at least (E A^2)^2 (Cauchy-Schwarz). nan with neither.
    """
    if not sd > 0:
        return sd  # 0, or nan of one trial
    limit = annual_limit(terms)
    fourth = min(limit * limit * square, fourth_power)
    if fourth == math.inf:
        return math.nan
    moment = fourth - 4 * square * square + 6 * mean * mean * square - 3 * mean * mean * mean * mean
    return math.sqrt(max(moment - sd * sd * sd * sd, 0.0) / trials) / (2 * sd)


def _reinstated_error_bound(terms: Terms, trials: float, square: float, sd: float, fraction: float) -> float:
    """Return an upper bound of the standard error of the mean reinstatement premium, as a fraction of the premium.

    The fraction f of a year is between 0 and the sum of charges, no more than the highest charge x A / L, and, as to
    amount alone, moves by no more than that where A moves: so its variance is at most each of the three below.
    """
    charges = terms.reinstatements or ()
    if not charges or not fraction > 0 or trials < 2:
        return 0.0 if trials > 1 else math.nan
    steepest = max(charges) / occurrence_limit(terms)
    bounds = [sum(charges) * fraction, steepest * steepest * square]
    variance = min(bounds) - fraction * fraction
    if terms.reinstatement_basis == "amount":
        variance = min(variance, steepest * steepest * sd * sd)
    return math.sqrt(max(variance, 0.0) / trials)
