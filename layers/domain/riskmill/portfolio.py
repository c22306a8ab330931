"""The canonical portfolio: one document that the planner reads, with the keys of its binary inputs.

Its form does not depend on the order in which anything was given: deals, layers, groups, members and outwards
contracts are sorted when a model is made, and `to_json` writes canonical JSON. So the same portfolio has the same key,
from CSV or Parquet, whatever the order of the rows. A `Portfolio` that exists is sound: ids are unique, references
lead somewhere, no group contains itself, no deal is counted twice and every deal is part of the top group.
"""

from collections.abc import Iterator
from datetime import date
from functools import cached_property
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from riskmill.checks import (
    COVERED_GROUPS,
    CURRENCIES,
    MAX_ID,
    MAX_TEXT,
    WITHIN_YEAR,
    Members,
    contract_group_problem,
    deal_problems,
    graph_faults,
    outside_year,
    outwards_problems,
    rate_problem,
    reached_from,
    shown,
    terms_problems,
    text_problem,
)
from riskmill.deal_models import pricing_problems
from riskmill.errors import PortfolioInvalid
from riskmill.jobs import canonical, content_key
from riskmill.memory import collector_paused
from riskmill.model_faults import faults_of
from riskmill.models.fit_models import MAX_FIT_REPLICATES
from riskmill.models.pricing import Pricing
from riskmill.terms import Amount, Label, Share, Terms, later

#: Version of the document; a document of another one is refused.
FORMAT: Literal[1] = 1

MAX_TRIALS = 10_000_000
MAX_SEED = 2**63 - 1
MAX_PRIORITY = 1_000_000


def _id(text: str) -> str:
    if text.isalnum():  # the length is checked already, and the planner reads tens of thousands of ids in a moment
        return text
    if (problem := text_problem(text, MAX_ID)) is not None:
        raise PydanticCustomError(
            "riskmill_id",
            "{problem}",
            {"problem": problem, "allowed": f"1 to {MAX_ID} printable characters without spaces around them"},
        )
    return text


def _name(text: str) -> str:
    if (problem := text_problem(text, MAX_TEXT)) is not None:
        raise PydanticCustomError(
            "riskmill_name",
            "{problem}",
            {"problem": problem, "allowed": f"1 to {MAX_TEXT} printable characters without spaces around them"},
        )
    return text


def _currency(code: str) -> str:
    if code not in CURRENCIES:
        raise PydanticCustomError(
            "riskmill_currency",
            "{value} is not a currency code",
            {"value": shown(code), "allowed": "a code of ISO 4217 such as USD"},
        )
    return code


#: An id as it stands in tables, results and messages: 1 to 64 printable characters.
Id = Annotated[str, Field(min_length=1, max_length=MAX_ID), AfterValidator(_id)]
#: A name: 1 to 200 printable characters.
Name = Annotated[str, Field(min_length=1, max_length=MAX_TEXT), AfterValidator(_name)]
#: A currency code of ISO 4217.
Currency = Annotated[
    str, Field(json_schema_extra={"enum": [*sorted(CURRENCIES)], "examples": ["USD"]}), AfterValidator(_currency)
]
#: Content key of an input object.
Key = Annotated[str, Field(pattern="^[0-9a-f]{32}$")]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Layer(_Frozen):
    """One layer of a deal: the atomic priced unit."""

    layer_id: Id
    terms: Terms


def _by_layer_id(layers: tuple[Layer, ...]) -> tuple[Layer, ...]:
    return layers if len(layers) == 1 else tuple(sorted(layers, key=lambda layer: layer.layer_id))


class Deal(_Frozen):
    """One contract as underwritten. All its layers share one subject loss, the ELT object `elt`."""

    deal_id: Id
    cedant: Name
    business_unit: Name
    inception: date
    expiry: date
    currency: Currency
    #: part of the premium, 0 to 1
    brokerage: Share = 0.0
    #: content key of the ELT object (arrays: event int32 sorted and unique, mean float64, and where given
    #: sd_independent, sd_correlated, exposure float64)
    elt: Key
    layers: Annotated[tuple[Layer, ...], Field(min_length=1), AfterValidator(_by_layer_id)]
    #: `name@version` of the model that prices the deal (docs/model-sdk.md), and parameters of its own; None: price_deal
    pricing_model: Annotated[str, Field(min_length=1, max_length=MAX_TEXT)] | None = later(None)
    pricing_params: dict[str, Any] = later({})


def _sorted_ids(ids: tuple[Id, ...]) -> tuple[Id, ...]:
    return tuple(sorted(ids))


class Group(_Frozen):
    """A named set of deals and of other groups."""

    group_id: Id
    name: Name
    deals: Annotated[tuple[Id, ...], AfterValidator(_sorted_ids)] = ()
    groups: Annotated[tuple[Id, ...], AfterValidator(_sorted_ids)] = ()


class Rate(_Frozen):
    """What one unit of a currency is worth in the portfolio's currency, from a day on."""

    currency: Currency
    date: Annotated[date, Field()]
    rate: Annotated[float, Field(gt=0, allow_inf_nan=False)]


class IndexLosses(_Frozen):
    """Industry losses by event: the name of the index and the content key of its object (arrays as an ELT's)."""

    index: Label
    losses: Key


class Outwards(_Frozen):
    """One outwards (retrocession) contract. `terms.participation` is the share that is placed."""

    contract_id: Id
    name: Name
    #: the group whose losses it covers
    group_id: Id
    #: inuring order within the group: its subject is net of contracts of a lower priority
    priority: Annotated[int, Field(ge=1, le=MAX_PRIORITY)]
    terms: Terms
    #: first and last day; None as the portfolio's trial year begins and ends
    inception: date | None = later(None)
    expiry: date | None = later(None)


def _by_deal_id(deals: tuple[Deal, ...]) -> tuple[Deal, ...]:
    return tuple(sorted(deals, key=lambda deal: deal.deal_id))


def _by_group_id(groups: tuple[Group, ...]) -> tuple[Group, ...]:
    return tuple(sorted(groups, key=lambda group: group.group_id))


def _in_inuring_order(contracts: tuple[Outwards, ...]) -> tuple[Outwards, ...]:
    return tuple(sorted(contracts, key=lambda contract: (contract.group_id, contract.priority, contract.contract_id)))


#: Replicates of a bootstrap, at the most.
MAX_REPLICATES = 1_000_000

#: Replicates of the fits to a record of losses when none are asked for.
FIT_REPLICATES = 1_000

Year = Annotated[int, Field(ge=1, le=9998)]


class LossRecord(_Frozen):
    """The recorded losses of one peril, to which laws of frequency and severity are fitted."""

    peril: Id
    #: content key of the record's object (arrays: day int32, 1 being 1 January of year 1, and loss float64, by both)
    losses: Key
    #: number of losses in it
    count: Annotated[int, Field(ge=1)]
    #: losses above this are fitted, and truncated at the maximum (None: not at all), in the record's unit
    threshold: Amount = 0.0
    maximum: Amount | None = None
    #: years that the record covers
    first_year: Year
    last_year: Year


def _by_peril(records: tuple[LossRecord, ...]) -> tuple[LossRecord, ...]:
    return tuple(sorted(records, key=lambda record: record.peril))


def _by_currency_and_date(rates: tuple[Rate, ...]) -> tuple[Rate, ...]:
    return tuple(sorted(rates, key=lambda rate: (rate.currency, rate.date)))


def _by_index(indices: tuple[IndexLosses, ...]) -> tuple[IndexLosses, ...]:
    return tuple(sorted(indices, key=lambda losses: losses.index))


class Portfolio(_Frozen):
    """A whole portfolio, sorted and sound. Amounts are in `currency`."""

    format: Literal[1] = FORMAT
    name: Name
    description: Annotated[str, Field(max_length=10_000)] = ""
    currency: Currency
    as_at: date
    #: simulated contract years
    trials: Annotated[int, Field(ge=1, le=MAX_TRIALS)]
    seed: Annotated[int, Field(ge=0, le=MAX_SEED)]
    #: id of the top group; every deal is reached from it
    group: Id
    #: content key of the event catalogue object (arrays: event int32 sorted, rate float64, peril int32, and for each
    #: peril frequency int32, variance_to_mean float64, season float64 [n, 12], and peril_names uint8)
    catalogue: Key
    #: sorted by deal_id
    deals: Annotated[tuple[Deal, ...], Field(min_length=1), AfterValidator(_by_deal_id)]
    #: sorted by group_id
    groups: Annotated[tuple[Group, ...], Field(min_length=1), AfterValidator(_by_group_id)]
    #: sorted by group_id, priority, contract_id
    outwards: Annotated[tuple[Outwards, ...], AfterValidator(_in_inuring_order)] = ()
    #: calendar year that the trials simulate; contracts then cover their own days of it. None: every contract covers
    #: the whole of each trial, whatever its dates.
    trial_year: Annotated[int, Field(ge=1, le=9998)] | None = later(None)
    #: whether an event's loss is drawn from its law rather than its mean
    secondary_uncertainty: bool = later(False)
    pricing: Pricing = later(Pricing())
    #: sorted by currency and date
    rates: Annotated[tuple[Rate, ...], AfterValidator(_by_currency_and_date)] = later(())
    #: sorted by index
    indices: Annotated[tuple[IndexLosses, ...], AfterValidator(_by_index)] = later(())
    #: replicates of the bootstrap of the top group's fitted tail; 0 fits none
    tail_fit_replicates: Annotated[int, Field(ge=0, le=MAX_REPLICATES)] = later(0)
    #: sorted by peril
    records: Annotated[tuple[LossRecord, ...], AfterValidator(_by_peril)] = later(())
    #: replicates of the bootstrap of the fits to records
    fit_replicates: Annotated[int, Field(ge=0, le=MAX_FIT_REPLICATES)] = later(FIT_REPLICATES)
    #: why no run may sample its losses: the faults that `secondary_uncertainty` would have, empty where it has none
    sampling_faults: tuple[str, ...] = later(())

    @model_validator(mode="after")
    def _is_sound(self) -> Self:
        faults = list(_soundness_faults(self))
        if faults:
            raise ValidationError.from_exception_data(
                "Portfolio",
                [
                    InitErrorDetails(
                        type=PydanticCustomError(
                            "riskmill_portfolio", "{problem}", {"problem": problem, "allowed": allowed}
                        ),
                        loc=loc,
                        input=None,
                    )
                    for loc, problem, allowed in faults
                ],
            )
        return self

    def to_json(self) -> bytes:
        """Return the portfolio as canonical JSON: equal portfolios give equal bytes."""
        return canonical(self.model_dump(mode="json"))

    def rate_of(self, currency: str) -> float:
        """Return what one unit of a currency is worth in the portfolio's: the last rate on or before its as-at date."""
        return 1.0 if currency == self.currency else self.rates_at[currency]

    @cached_property
    def rates_at(self) -> dict[str, float]:
        """The rate of each currency at the as-at date."""
        # Sorted by date, so the last one stays.
        return {rate.currency: rate.rate for rate in self.rates if rate.date <= self.as_at}

    @property
    def key(self) -> str:
        """The content key (32 hex digits) of this portfolio's canonical JSON. Computed at each call."""
        return content_key(self.to_json())

    @classmethod
    def from_json(cls, data: bytes) -> Self:
        """Read a canonical document. Raises PortfolioInvalid, with every fault, for one that is not sound."""
        try:
            with collector_paused():
                return cls.model_validate_json(data, strict=True)
        except ValidationError as error:
            raise PortfolioInvalid([str(fault) for fault in faults_of(error, "portfolio", cls)]) from error


type _Loc = tuple[str | int, ...]


def _soundness_faults(portfolio: Portfolio) -> Iterator[tuple[_Loc, str, str]]:
    """Yield (place in the document, problem, what is allowed) for whatever no single field can tell."""
    deals: dict[str, int] = {}
    layers: set[str] = set()
    indices = {losses.index for losses in portfolio.indices}
    yield from _repeated(portfolio)
    if portfolio.secondary_uncertainty and portfolio.sampling_faults:
        problem = "is on, and losses cannot be sampled: " + "; ".join(portfolio.sampling_faults[:3])
        yield ("secondary_uncertainty",), problem, "false, or event loss tables with exposures"
    for at, deal in enumerate(portfolio.deals):
        here: _Loc = ("deals", at)
        if deals.setdefault(deal.deal_id, at) != at:
            yield (*here, "deal_id"), f"{shown(deal.deal_id)} stands twice", "each id once"
        no_rate = rate_problem(deal.currency, portfolio.currency, portfolio.rates_at)
        if no_rate is not None:
            yield (*here, "currency"), no_rate, allowed_currencies(portfolio.currency)
        if deal.expiry < deal.inception:
            yield (*here, "expiry"), expiry_before_inception(deal), "the day of inception or later"
        for number, layer in enumerate(deal.layers):
            if layer.layer_id in layers:
                yield (*here, "layers", number, "layer_id"), f"{shown(layer.layer_id)} stands twice", "each id once"
            layers.add(layer.layer_id)
            for field, problem, allowed in terms_problems(layer.terms):
                yield (*here, "layers", number, "terms", field), problem, allowed
            if layer.terms.index is not None and layer.terms.index not in indices:
                yield (*here, "layers", number, "terms", "index"), *no_index(layer.terms.index)
        for number, field, problem, allowed in deal_problems([layer.terms for layer in deal.layers]):
            yield (*here, "layers", number, "terms", field), problem, allowed
        if deal.pricing_model is not None or deal.pricing_params:
            terms = [layer.terms for layer in deal.layers]
            for field, problem, allowed in pricing_problems(deal.pricing_model, deal.pricing_params, terms):
                yield (*here, field), problem, allowed
            if portfolio.pricing.cost_of_capital > 0:
                yield (*here, "pricing_model"), OWN_MODEL_AND_TAIL, "pricing.cost_of_capital 0"
        outside = outside_year(deal.inception, deal.expiry, portfolio.trial_year)
        if outside is not None and deal.expiry >= deal.inception:
            yield (*here, "inception"), outside, WITHIN_YEAR
    groups: dict[str, int] = {}
    for at, group in enumerate(portfolio.groups):
        if groups.setdefault(group.group_id, at) != at:
            yield ("groups", at, "group_id"), f"{shown(group.group_id)} stands twice", "each id once"
        if not group.deals and not group.groups:
            yield ("groups", at), f"group {shown(group.group_id)} has no member", "at least one deal or group"
    members = {group.group_id: Members(group.deals, group.groups) for group in portfolio.groups}
    for fault in graph_faults(portfolio.group, members, deals):
        place = fault.place
        match place.kind:
            case "top":
                yield ("group",), fault.problem, fault.allowed
            case "deal":
                yield ("deals", deals[place.member]), fault.problem, fault.allowed
            case "member":
                yield ("groups", groups[place.group], f"{place.member_type}s"), fault.problem, fault.allowed
    contracts: set[str] = set()
    below_top = reached_from(portfolio.group, members)
    for at, contract in enumerate(portfolio.outwards):
        here = ("outwards", at)
        if contract.contract_id in contracts:
            yield (*here, "contract_id"), f"{shown(contract.contract_id)} stands twice", "each id once"
        contracts.add(contract.contract_id)
        astray = contract_group_problem(contract.group_id, portfolio.group, members, below_top)
        if astray is not None:
            yield (*here, "group_id"), astray, COVERED_GROUPS
        for field, problem, allowed in (*terms_problems(contract.terms), *outwards_problems(contract.terms)):
            yield (*here, "terms", field), problem, allowed
        if contract.terms.index is not None and contract.terms.index not in indices:
            yield (*here, "terms", "index"), *no_index(contract.terms.index)
        for field, problem, allowed in contract_days_problems(
            contract.inception, contract.expiry, portfolio.trial_year
        ):
            yield (*here, field), problem, allowed


def _repeated(portfolio: Portfolio) -> Iterator[tuple[_Loc, str, str]]:
    """Yield rates and indices that stand twice."""
    rates: set[tuple[str, date]] = set()
    for at, rate in enumerate(portfolio.rates):
        if (rate.currency, rate.date) in rates:
            yield ("rates", at, "date"), f"{rate.currency} has two rates on {rate.date}", "one rate a day"
        if rate.currency == portfolio.currency:
            yield ("rates", at, "currency"), OWN_RATE, "another currency"
        rates.add((rate.currency, rate.date))
    names = [losses.index for losses in portfolio.indices]
    for at, name in enumerate(names):
        if name in names[:at]:
            yield ("indices", at, "index"), f"{shown(name)} stands twice", "each index once"
    perils = [record.peril for record in portfolio.records]
    for at, record in enumerate(portfolio.records):
        if record.peril in perils[:at]:
            yield ("records", at, "peril"), f"{shown(record.peril)} stands twice", "each peril once"
        if record.maximum is not None and record.maximum <= record.threshold:
            yield ("records", at, "maximum"), maximum_problem(record.maximum, record.threshold), ABOVE_THRESHOLD
        if record.last_year < record.first_year:
            yield ("records", at, "last_year"), span_problem(record.first_year, record.last_year), "first_year or later"


#: Why a deal with a model of its own has no load for the tail: `price_tail` takes layers through the standard terms.
OWN_MODEL_AND_TAIL = "cannot go with a cost of capital: the tail's load is made by the standard terms"

#: What a maximum of a record's losses may be.
ABOVE_THRESHOLD = "a number above the threshold"


def maximum_problem(maximum: float, threshold: float) -> str:
    """Return what is wrong with a maximum that is not above the threshold."""
    return f"{maximum:.15g} is not above the threshold {threshold:.15g}"


def span_problem(first_year: int, last_year: int) -> str:
    """Return what is wrong with a record that ends before it begins."""
    return f"{last_year} is before the first year {first_year}"


#: What is wrong with a rate of the portfolio's own currency.
OWN_RATE = "is the portfolio's own currency, whose rate is 1"


def no_index(name: str) -> tuple[str, str]:
    """Return (problem, what is allowed) for an index without industry losses."""
    return f"{shown(name)} is not in industry_losses", "an index of industry_losses"


def contract_days_problems(
    inception: date | None, expiry: date | None, trial_year: int | None
) -> Iterator[tuple[str, str, str]]:
    """Yield (field, problem, what is allowed) for an outwards contract's dates."""
    if (inception is None) != (expiry is None):
        lacks = "expiry" if expiry is None else "inception"
        yield lacks, "is empty, and a period has a first and a last day", "both dates, or neither"
    if inception is None or expiry is None:
        return
    if expiry < inception:
        yield "expiry", f"{expiry} is before the inception {inception}", "the day of inception or later"
    elif (outside := outside_year(inception, expiry, trial_year)) is not None:
        yield "inception", outside, WITHIN_YEAR


def allowed_currencies(currency: str) -> str:
    """Return which currencies a deal may have, in words."""
    return f"{currency}, or a currency in rates"


def expiry_before_inception(deal: Deal) -> str:
    """Return what is wrong with a deal that ends before it begins."""
    return f"{deal.expiry} is before the inception {deal.inception}"
