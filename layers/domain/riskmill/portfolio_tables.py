"""The tables of a portfolio folder: which columns they have, what a cell may hold, and how the two list cells read.

These specifications are the only place where the format is written down: the reader checks against them, the published
JSON Schemas (docs/schema) are made from them, and a test holds the guide (docs/portfolio-format.md) to them.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field

from riskmill.checks import MAX_ID, MAX_TEXT
from riskmill.models.catalogue import DAYS_IN_MONTH, FREQUENCIES
from riskmill.models.fit_models import MAX_FIT_REPLICATES
from riskmill.models.pricing import Pricing
from riskmill.portfolio import (
    FIT_REPLICATES,
    MAX_PRIORITY,
    MAX_REPLICATES,
    MAX_SEED,
    MAX_TRIALS,
    Currency,
    Id,
    Name,
    Year,
)
from riskmill.terms import RecoveryOrder, ReinstatementBasis, Terms, TreatyType

#: Event ids are int32 in every output.
MAX_EVENT_ID = 2**31 - 1
#: More reinstatements than this are a typing error.
MAX_REINSTATEMENTS = 100

Kind = Literal["id", "text", "number", "integer", "date", "choice", "charges", "season"]

#: What a number looks like in a cell: no thousands separator, no unit, a point for decimals.
NUMBER = r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?"
WHOLE_NUMBER = r"-?[0-9]+"
_NUMBER = re.compile(NUMBER)


@dataclass(frozen=True, slots=True)
class Column:
    """One column. A required one must be there, with something in every row; in others an empty cell is the default."""

    name: str
    kind: Kind
    doc: str
    required: bool = False
    default: str = "none"
    unit: str = ""
    minimum: float | None = None
    #: whether the minimum itself is excluded
    above: bool = False
    maximum: float | None = None
    choices: tuple[str, ...] = ()

    @property
    def allowed(self) -> str:
        """Say what a cell may hold, as a fault and the guide print it."""
        match self.kind:
            case "id":
                return f"1 to {MAX_ID} printable characters without spaces around them"
            case "text":
                return f"1 to {MAX_TEXT} printable characters without spaces around them"
            case "number" | "integer":
                return ("a whole number" if self.kind == "integer" else "a number") + self._bounds()
            case "date":
                return "a date as YYYY-MM-DD"
            case "choice":
                return ", ".join(self.choices)
            case "charges":
                return f"`none`, or up to {MAX_REINSTATEMENTS} numbers >= 0 separated by `;`"
            case "season":
                return "12 numbers >= 0 separated by `;`, not all 0"

    def _bounds(self) -> str:
        low = None if self.minimum is None else f"{'>' if self.above else '>='} {self.minimum:.15g}"
        high = None if self.maximum is None else f"<= {self.maximum:.15g}"
        both = " and ".join(bound for bound in (low, high) if bound)
        return f" {both}" if both else ""


@dataclass(frozen=True, slots=True)
class Table:
    """One table: its columns, the columns that make a row unique (if any do), and whether it may be left out."""

    name: str
    doc: str
    columns: tuple[Column, ...]
    key: tuple[str, ...]
    optional: bool = False

    def column(self, name: str) -> Column:
        """Return the column of this name."""
        return next(column for column in self.columns if column.name == name)


def _identifier(name: str, doc: str) -> Column:
    return Column(name, "id", doc, required=True)


def _amount(name: str, doc: str, *, default: str, unit: str = "currency", positive: bool = False) -> Column:
    return Column(name, "number", doc, default=default, unit=unit, minimum=0, above=positive)


_TERMS = (
    Column("type", "choice", "Type of treaty.", required=True, choices=get_args(TreatyType)),
    Column(
        "ceded_share",
        "number",
        "Part of the subject loss that is ceded. Must be given for QS.",
        default="1",
        unit="fraction",
        minimum=0,
        maximum=1,
    ),
    _amount("occurrence_retention", "R of min(max(loss - R, 0), L), for each occurrence.", default="0"),
    _amount(
        "occurrence_limit", "L of min(max(loss - R, 0), L). Must be given for CXL.", default="unlimited", positive=True
    ),
    _amount("aggregate_deductible", "D of min(max(sum - D, 0), G), for each contract year. Not for SL.", default="0"),
    _amount(
        "aggregate_limit",
        "G of min(max(sum - D, 0), G). AXL must have it or a deductible. Not for SL.",
        default="unlimited",
        positive=True,
    ),
    Column(
        "reinstatements",
        "charges",
        "Charge of each reinstatement as a fraction of the premium: `1;1` is two paid at 100%, `0` is one free, `none` "
        "is no reinstatement. Needs an occurrence limit.",
        default="unlimited and free",
        unit="fraction",
    ),
    _amount("premium", "Annual premium of the whole layer (at 100%, before our share).", default="0"),
    Column(
        "participation", "number", "Our signed share of the layer.", default="1", unit="fraction", minimum=0, maximum=1
    ),
    _amount(
        "gnpi", "Gross net premium income of the cedant. SL only, and required there.", default="none", positive=True
    ),
    _amount(
        "attachment_ratio",
        "a of min(max(S - a GNPI, 0), b GNPI). SL only, and required there.",
        default="none",
        unit="fraction of GNPI",
    ),
    _amount(
        "limit_ratio",
        "b of min(max(S - a GNPI, 0), b GNPI). SL only, and required there.",
        default="none",
        unit="fraction of GNPI",
        positive=True,
    ),
)

#: Terms of a layer of a deal that an outwards contract may have as well.
_BOTH_MORE = (
    _amount(
        "franchise_deductible",
        "Franchise: an occurrence below it pays nothing, from it on it counts in full.",
        default="0",
    ),
    Column("index", "id", "Index of industry losses that triggers the layer (ILW).", default="no trigger"),
    Column(
        "index_trigger",
        "number",
        "An occurrence counts only if the industry's loss reaches this. With `index`.",
        unit="as industry_losses",
        minimum=0,
    ),
    Column(
        "recovery_order",
        "choice",
        "How an annual recovery falls to occurrences: the earliest first, or all in proportion.",
        default="event_order",
        choices=get_args(RecoveryOrder),
    ),
)
#: Terms that only a layer of a deal may have.
_LAYER_MORE = (
    _amount("retained_line", "Line that the cedant keeps of each risk. SS only, with `lines`.", default="none"),
    _amount("lines", "Number of such lines that are ceded above it.", default="none", unit="lines"),
    _amount("risk_retention", "R of min(max(loss - R, 0), L), for each risk.", default="0"),
    _amount("risk_limit", "L of min(max(loss - R, 0), L), for each risk.", default="unlimited", positive=True),
    *_BOTH_MORE,
    Column(
        "reinstatement_basis",
        "choice",
        "What a reinstatement premium is proportional to: the amount, or the amount and the unexpired part of the "
        "period.",
        default="amount",
        choices=get_args(ReinstatementBasis),
    ),
    Column("shared_limit", "id", "Name of an annual limit that layers of the deal share (top and drop)."),
    _amount("shared_aggregate_limit", "That limit, the same in each of its layers.", default="none", positive=True),
    Column(
        "inuring_priority",
        "integer",
        "Inuring order within the deal: what a lower one recovers, where placed, reduces the subject of this layer.",
        default="1",
        minimum=1,
        maximum=MAX_PRIORITY,
    ),
    Column(
        "placed_share",
        "number",
        "Part of the layer that is placed; `participation` is our part of that.",
        default="1",
        unit="fraction",
        minimum=0,
        maximum=1,
    ),
)

#: The columns that a stop loss is written in, and no other type.
STOP_LOSS_COLUMNS = ("gnpi", "attachment_ratio", "limit_ratio")
#: The terms that a stop loss's ratios stand for.
STOP_LOSS_TERMS = ("aggregate_deductible", "aggregate_limit")
#: Types of treaty on a group's losses, which are not known by risk.
OUTWARDS_TYPES = [kind for kind in get_args(TreatyType) if kind not in ("PR", "SS")]
#: The terms that are texts.
TERMS_TEXTS = ("index", "recovery_order", "reinstatement_basis", "shared_limit")
#: The columns that are terms as they stand.
TERMS_COLUMNS = tuple(name for name in Terms.model_fields if name != "type")

PERILS = Table(
    "perils",
    "How often the events of each peril happen, and when in the year.",
    (
        _identifier("peril", "Id of the peril."),
        Column(
            "frequency",
            "choice",
            "Distribution of the number of events in a year.",
            required=True,
            choices=FREQUENCIES,
        ),
        Column(
            "variance_to_mean",
            "number",
            "Variance of that number over its mean: above 1 for negative_binomial, below 1 for binomial, 1 or empty "
            "for poisson.",
            default="1",
            unit="ratio",
            minimum=0,
        ),
        Column(
            "season",
            "season",
            "Weight of each month, January first; days of one month are alike.",
            default="every day alike",
            unit="weights",
        ),
        Column(
            "record_threshold",
            "number",
            "Losses of `loss_record` above this are counted and fitted.",
            default="0",
            unit="as loss_record",
            minimum=0,
        ),
        Column(
            "record_maximum",
            "number",
            "Largest possible loss of `loss_record`: truncates the fitted means, which makes infinite ones finite.",
            unit="as loss_record",
            minimum=0,
            above=True,
        ),
    ),
    ("peril",),
)
EVENTS = Table(
    "events",
    "The event catalogue.",
    (
        Column("event_id", "integer", "Id of the event.", required=True, minimum=1, maximum=MAX_EVENT_ID),
        _identifier("peril", "A peril of `perils`."),
        Column("region", "text", "Where the event strikes.", required=True),
        Column("rate", "number", "Expected number in a year.", required=True, unit="per year", minimum=0, above=True),
        Column("name", "text", "A name to recognise the event by.", default="none"),
    ),
    ("event_id",),
)
ELTS = Table(
    "elts",
    "Event loss tables: what each event costs each subject business.",
    (
        _identifier("elt_id", "Id of the event loss table. Deals may share one."),
        Column("event_id", "integer", "An event of `events`.", required=True, minimum=1, maximum=MAX_EVENT_ID),
        Column("mean_loss", "number", "Mean loss, given the event.", required=True, unit="currency", minimum=0),
        _amount("sd_independent", "Part of the loss's standard deviation that is its own.", default="0"),
        _amount(
            "sd_correlated", "Part of the loss's standard deviation that is shared. Total = both added.", default="0"
        ),
        _amount("exposure", "Largest loss that is possible. For all rows of an ELT or for none.", default="none"),
        Column(
            "risks",
            "number",
            "Number of risks that the loss is shared by alike, for risk terms and surplus shares.",
            default="1",
            unit="risks",
            minimum=1,
        ),
    ),
    ("elt_id", "event_id"),
)
DEALS = Table(
    "deals",
    "Contracts as underwritten.",
    (
        _identifier("deal_id", "Id of the deal."),
        Column("cedant", "text", "The company that cedes.", required=True),
        Column("business_unit", "text", "The part of our company that wrote it.", required=True),
        Column("inception", "date", "First day.", required=True),
        Column("expiry", "date", "Last day, not before the inception.", required=True),
        Column(
            "currency",
            "id",
            "Currency of its ELT and of its layers' amounts: the portfolio's, or one in `rates`.",
            required=True,
        ),
        Column("brokerage", "number", "Brokerage on the premium.", default="0", unit="fraction", minimum=0, maximum=1),
        _identifier("elt_id", "The deal's subject losses: an ELT of `elts`."),
        Column("pricing_model", "text", "Model of your own that prices it, as `name@version`.", default="price_deal"),
        Column("pricing_params", "text", "Parameters of that model: a JSON object.", default="none"),
    ),
    ("deal_id",),
)
LAYERS = Table(
    "layers",
    "Layers of the deals. Every deal has at least one; its layers share its subject losses.",
    (
        _identifier("layer_id", "Id of the layer, unique in the portfolio."),
        _identifier("deal_id", "A deal of `deals`."),
        *_TERMS,
        *_LAYER_MORE,
    ),
    ("layer_id",),
)
GROUPS = Table(
    "groups",
    "Members of each group, one a row.",
    (
        _identifier("group_id", "Id of the group."),
        Column("member_type", "choice", "What the member is.", required=True, choices=("deal", "group")),
        _identifier("member_id", "A deal of `deals` or a group of `groups`."),
        Column("group_name", "text", "Name of the group, in any of its rows or in all.", default="the group's id"),
    ),
    ("group_id", "member_type", "member_id"),
)
OUTWARDS = Table(
    "outwards",
    "Outwards (retrocession) contracts. This table may be left out, or have no row.",
    (
        _identifier("contract_id", "Id of the contract."),
        Column("name", "text", "Name of the contract.", required=True),
        _identifier("group_id", "The group whose losses it covers: the top group or one below it."),
        Column(
            "priority",
            "integer",
            "Inuring order within the group; contracts of equal priority have the same subject.",
            required=True,
            minimum=1,
            maximum=MAX_PRIORITY,
        ),
        *(
            replace(column, doc="The share that is placed.") if column.name == "participation" else column
            for column in _TERMS
        ),
        *_BOTH_MORE,
        Column("inception", "date", "First day. With `trial_year`.", default="the year's first"),
        Column("expiry", "date", "Last day. With `trial_year`.", default="the year's last"),
    ),
    ("contract_id",),
    optional=True,
)
RATES = Table(
    "rates",
    "Rates of exchange. This table may be left out, or have no row.",
    (
        Column("currency", "id", "A currency (ISO 4217), not the portfolio's.", required=True),
        Column("date", "date", "The day from which the rate holds.", required=True),
        Column(
            "rate",
            "number",
            "Units of the portfolio's currency for one of this currency.",
            required=True,
            unit="ratio",
            minimum=0,
            above=True,
        ),
    ),
    ("currency", "date"),
    optional=True,
)
INDUSTRY_LOSSES = Table(
    "industry_losses",
    "What events cost the industry, for layers with a trigger. This table may be left out, or have no row.",
    (
        _identifier("index", "Id of the index."),
        Column("event_id", "integer", "An event of `events`.", required=True, minimum=1, maximum=MAX_EVENT_ID),
        Column(
            "loss",
            "number",
            "The industry's loss, in the unit in which triggers are stated.",
            required=True,
            unit="any",
            minimum=0,
        ),
    ),
    ("index", "event_id"),
    optional=True,
)

LOSS_RECORD = Table(
    "loss_record",
    "Recorded losses, to which laws of frequency and severity are fitted. This table may be left out, or have no row.",
    (
        _identifier("peril", "A peril of `perils`."),
        Column("date", "date", "Day of the loss.", required=True),
        Column(
            "loss",
            "number",
            "The loss, in any unit that is the same in all rows.",
            required=True,
            unit="any",
            minimum=0,
        ),
        Column("name", "text", "A name to recognise the loss by.", default="none"),
    ),
    (),
    optional=True,
)

#: Every table, in the order in which faults are listed.
TABLES = {
    table.name: table
    for table in (PERILS, EVENTS, ELTS, DEALS, LAYERS, GROUPS, OUTWARDS, RATES, INDUSTRY_LOSSES, LOSS_RECORD)
}

#: Fields of portfolio.json that say something of `loss_record`.
RECORD_FIELDS = ("fit_replicates", "record_first_year", "record_last_year")


class PortfolioFile(BaseModel):
    """What a portfolio is called and how it is run."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    format: Annotated[Literal[1], Field(description="Version of the format.")]
    name: Annotated[Name, Field(description="Name of the portfolio.")]
    description: Annotated[str, Field(max_length=10_000, description="Anything worth knowing about it.")] = ""
    currency: Annotated[Currency, Field(description="Currency (ISO 4217) of every amount.")]
    as_at: Annotated[date, Field(description="The day on which the portfolio stood as given.")]
    trials: Annotated[int, Field(ge=1, le=MAX_TRIALS, description="Simulated contract years.")]
    seed: Annotated[int, Field(ge=0, le=MAX_SEED, description="Seed of the random numbers.")]
    group: Annotated[Id, Field(description="Id of the top group: every deal is in it or in a group below it.")]
    trial_year: Annotated[
        int | None,
        Field(ge=1, le=9998, description="Calendar year of the trials; contracts cover their own days of it."),
    ] = None
    secondary_uncertainty: Annotated[
        bool, Field(description="Draw an event's loss from its law, rather than take its mean.")
    ] = False
    pricing: Annotated[Pricing, Field(description="Loads and expenses of technical premiums.")] = Pricing()
    tail_fit_replicates: Annotated[
        int, Field(ge=0, le=MAX_REPLICATES, description="Replicates of the bootstrap of the top group's fitted tail.")
    ] = 0
    fit_replicates: Annotated[
        int, Field(ge=0, le=MAX_FIT_REPLICATES, description="Replicates of the bootstrap of the fits to `loss_record`.")
    ] = FIT_REPLICATES
    record_first_year: Annotated[
        Year | None, Field(description="First year that `loss_record` covers; that of its first loss if left out.")
    ] = None
    record_last_year: Annotated[
        Year | None, Field(description="Last year that it covers; that of its last loss if left out.")
    ] = None


def parse_number(text: str) -> float | None:
    """Return a number that stands in a cell; None for anything else, infinite ones included."""
    if _NUMBER.fullmatch(text) is None:
        return None
    value = float(text)
    return value + 0.0 if math.isfinite(value) else None  # + 0.0 turns -0 into 0


def parse_reinstatements(text: str) -> tuple[float, ...] | None:
    """Return the charges in a cell (`none` is no reinstatement, so no charge); None when it is not written so."""
    if text == "none":
        return ()
    charges = _parse_list(text)
    return charges if charges is not None and len(charges) <= MAX_REINSTATEMENTS else None


def parse_season(text: str) -> tuple[float, ...] | None:
    """Return 12 monthly weights that sum to 1 (January first); None when the cell is not written so."""
    weights = _parse_list(text)
    if weights is None or len(weights) != len(DAYS_IN_MONTH):
        return None
    heaviest = max(weights)
    if heaviest == 0:
        return None
    parts = [weight / heaviest for weight in weights]  # so that the sum cannot overflow
    total = math.fsum(parts)
    return tuple(part / total for part in parts)


#: The season of a peril that has none: every day of the year alike.
UNIFORM_SEASON = tuple(days / sum(DAYS_IN_MONTH) for days in DAYS_IN_MONTH)


def _parse_list(text: str) -> tuple[float, ...] | None:
    values = []
    for part in text.split(";"):
        value = parse_number(part)
        if value is None or value < 0:
            return None
        values.append(value)
    return tuple(values)


def portfolio_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of portfolio.json."""
    schema = PortfolioFile.model_json_schema()
    return {"$schema": _DRAFT, **schema, "title": "portfolio.json"}


def table_schema(table: Table) -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of one row of a table, an empty cell being null or left out."""
    schema: dict[str, Any] = {
        "$schema": _DRAFT,
        "title": f"a row of {table.name}",
        "description": table.doc,
        "type": "object",
        "properties": {column.name: _cell_schema(column) for column in table.columns},
        "required": [column.name for column in table.columns if column.required],
        "additionalProperties": False,
    }
    names = {column.name for column in table.columns}
    if names.issuperset(STOP_LOSS_COLUMNS):
        schema["allOf"] = _terms_schema()
    if "retained_line" in names:
        schema["allOf"] += _layer_schema()
    if table is OUTWARDS:
        schema["allOf"].append({"properties": {"type": {"enum": OUTWARDS_TYPES}}})
    return schema


_DRAFT = "https://json-schema.org/draft/2020-12/schema"


def _cell_schema(column: Column) -> dict[str, Any]:
    cell: dict[str, Any] = {
        "description": column.doc if column.required else f"{column.doc} Default: {column.default}."
    }
    if column.unit:
        cell["description"] += f" Unit: {column.unit}."
    number = f"(?:{NUMBER.replace('[+-]?', '', 1)})"
    match column.kind:
        case "id" | "text":
            kind, rest = "string", {"maxLength": MAX_ID if column.kind == "id" else MAX_TEXT, "pattern": r"^\S(.*\S)?$"}
        case "number" | "integer":
            kind, rest = column.kind, {}
            if column.minimum is not None:
                rest["exclusiveMinimum" if column.above else "minimum"] = column.minimum
            if column.maximum is not None:
                rest["maximum"] = column.maximum
        case "date":
            kind, rest = "string", {"format": "date", "pattern": "^[0-9]{4}-[0-9]{2}-[0-9]{2}$"}
        case "choice":
            return {**cell, "enum": [*column.choices] if column.required else [*column.choices, None]}
        case "charges":
            kind, rest = "string", {"pattern": f"^(none|{number}(;{number}){{0,{MAX_REINSTATEMENTS - 1}}})$"}
        case "season":
            kind, rest = "string", {"pattern": f"^{number}(;{number}){{{len(DAYS_IN_MONTH) - 1}}}$"}
    return {**cell, "type": kind if column.required else [kind, "null"], **rest}


def _given(names: Sequence[str]) -> dict[str, Any]:
    return {"required": [*names], "properties": {name: {"not": {"type": "null"}} for name in names}}


def _not_given(names: Sequence[str]) -> dict[str, Any]:
    return {"properties": {name: {"type": "null"} for name in names}}


def _terms_schema() -> list[dict[str, Any]]:
    def of_type(kind: str) -> dict[str, Any]:
        return {"properties": {"type": {"const": kind}}, "required": ["type"]}

    stop_loss = _given(STOP_LOSS_COLUMNS)
    stop_loss["properties"] |= _not_given(STOP_LOSS_TERMS)["properties"]
    with_deductible = {
        "required": ["aggregate_deductible"],
        "properties": {"aggregate_deductible": {"type": "number", "exclusiveMinimum": 0}},
    }
    return [
        {"if": of_type("SL"), "then": stop_loss, "else": _not_given(STOP_LOSS_COLUMNS)},
        {"if": of_type("QS"), "then": _given(["ceded_share"])},
        {"if": of_type("CXL"), "then": _given(["occurrence_limit"])},
        {"if": of_type("AXL"), "then": {"anyOf": [_given(["aggregate_limit"]), with_deductible]}},
        {"if": _given(["reinstatements"]), "then": _given(["occurrence_limit"])},
        {"if": _given(["index"]), "then": _given(["index_trigger"]), "else": _not_given(["index_trigger"])},
    ]


def _layer_schema() -> list[dict[str, Any]]:
    """Return what holds of a layer's terms beside that."""
    surplus = {"anyOf": [_given(["ceded_share"]), _given(["retained_line"])]}
    return [
        {"if": {"properties": {"type": {"const": "SS"}}}, "then": surplus, "else": _not_given(["retained_line"])},
        {"if": _given(["retained_line"]), "then": _given(["lines"]), "else": _not_given(["lines"])},
        {
            "if": {"properties": {"type": {"const": "PR"}}},
            "then": {"anyOf": [_given(["risk_retention"]), _given(["risk_limit"])]},
        },
        {
            "if": _given(["shared_limit"]),
            "then": _given(["shared_aggregate_limit"]),
            "else": _not_given(["shared_aggregate_limit"]),
        },
    ]
