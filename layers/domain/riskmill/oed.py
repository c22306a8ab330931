"""OED reinsurance terms (ReinsInfo and ReinsScope) as riskmill's terms, and back. Pure.

Names, codes and meanings are those of Open Exposure Data 5.0, https://github.com/OasisLMF/ODS_OpenExposureData
(OEDInputFields.csv, OtherValues.csv, PerilValues.csv). What riskmill cannot compute as it is written is a problem that
names the column; nothing is skipped. docs/standards.md has the whole mapping.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from riskmill.checks import CURRENCIES, terms_problems
from riskmill.portfolio import Outwards
from riskmill.portfolio_tables import MAX_REINSTATEMENTS, Column, Table
from riskmill.terms import Terms

VERSION = "5.0.0"

#: OED's ReinsType (OtherValues.csv). It has no stop loss: one is an AXL in amounts.
TYPES = ("AXL", "CXL", "FAC", "PR", "QS", "SS")
RISK_LEVELS = ("ACC", "LGR", "LOC", "POL")

#: OED's perils (PerilsCovered.csv): the groups and what they hold; any other code is its own.
PERIL_GROUPS: dict[str, tuple[str, ...]] = {
    "BB1": ("BBF", "BSK"),
    "CC1": ("CSB", "CPD"),
    "GG1": ("XCH",),
    "MM1": ("MNT", "MTR"),
    "OO1": ("ORF", "OSF"),
    "PP1": ("PNF",),
    "QQ1": ("QEQ", "QFF", "QTS", "QSL", "QLS", "QLF"),
    "VV1": ("VVA", "VVE", "VVL"),
    "WW1": ("WTC", "WEC", "WSS"),
    "WW2": ("WTC", "WEC"),
    "XX1": ("XSL", "XTD", "XHL", "XLT"),
    "XZ1": ("XSL", "XTD", "XHL", "XLT", "ZSN", "ZIC", "ZFZ", "ZST"),
    "ZZ1": ("ZSN", "ZIC", "ZFZ", "ZST"),
}
_SINGLE = frozenset(code for group in PERIL_GROUPS.values() for code in group) | {"BFR", "SBU", "SSD"}
ALL_PERILS = "AA1"
PERIL_CODES = _SINGLE | PERIL_GROUPS.keys() | {ALL_PERILS}


def perils_covered(code: str) -> frozenset[str]:
    """Return the single perils that a code of OED stands for."""
    return _SINGLE if code == ALL_PERILS else frozenset(PERIL_GROUPS.get(code, (code,)))


def _number(name: str, doc: str, *, default: str = "0", maximum: float | None = None, required: bool = False) -> Column:
    return Column(name, "number", doc, required=required, default=default, minimum=0, maximum=maximum)


def _whole(name: str, doc: str, *, required: bool = False, minimum: int = 1, maximum: float | None = None) -> Column:
    return Column(name, "integer", doc, required=required, minimum=minimum, maximum=maximum)


REINS_INFO = Table(
    "ReinsInfo",
    "OED's reinsurance contracts and their terms.",
    (
        _whole("ReinsNumber", "Number of the contract.", required=True),
        Column("ReinsName", "text", "Name of the contract."),
        _whole("ReinsLayerNumber", "Number of the layer, for ordering."),
        Column("ReinsPeril", "text", "Perils covered, separated by `;`.", required=True),
        Column("ReinsInceptionDate", "date", "First day."),
        Column("ReinsExpiryDate", "date", "Last day."),
        _number("CededPercent", "Part that is ceded.", default="1", maximum=1),
        _number("RiskLimit", "Limit per risk."),
        _number("RiskAttachment", "Attachment per risk."),
        _number("OccLimit", "Limit per occurrence."),
        _number("OccAttachment", "Attachment per occurrence."),
        _number("OccFranchiseDed", "Franchise per occurrence."),
        _number("OccReverseFranchise", "An occurrence above it pays nothing."),
        _number("AggLimit", "Limit within the aggregate period."),
        _number("AggAttachment", "Attachment within the aggregate period."),
        _number("AggPeriod", "Aggregate period in days.", default="365", maximum=3650),
        _number("PlacedPercent", "Part that is placed.", maximum=1, required=True),
        Column("ReinsCurrency", "text", "Currency of the terms.", required=True),
        _whole("InuringPriority", "Inuring order.", required=True, maximum=255),
        Column("ReinsType", "choice", "Type of contract.", required=True, choices=TYPES),
        Column("AttachmentBasis", "choice", "Losses occurring or risks attaching.", choices=("LO", "RA")),
        _whole("Reinstatement", "Number of reinstatements.", minimum=0, maximum=255),
        Column("ReinstatementCharge", "charges", "Charge of each, or one for all."),
        _number("ReinsPremium", "Premium."),
        _number("DeemedPercentPlaced", "Notional part.", maximum=1),
        _number("ReinsFXrate", "Own rate of exchange.", default="1"),
        _number("TreatyShare", "A reinsurer's share.", default="1", maximum=1),
        Column("UseReinsDates", "choice", "Whether the dates count.", default="N", choices=("Y", "N", "Yes", "No")),
        Column("RiskLevel", "choice", "What one risk is.", choices=RISK_LEVELS),
        Column("OEDVersion", "text", "Version of OED."),
        Column("OriginalCurrency", "text", "Currency before a conversion that was made."),
        _number("RateOfExchange", "Rate of that conversion."),
        # of OED 1 only
        _number("ReinsHoursClause", "Hours clause."),
    ),
    (),
)
REINS_SCOPE = Table(
    "ReinsScope",
    "What each contract covers.",
    (
        _whole("ReinsNumber", "Number of the contract.", required=True),
        Column("PortNumber", "text", "Portfolio: a group."),
        Column("AccNumber", "text", "Account: a deal."),
        Column("PolNumber", "text", "Policy."),
        Column("LocGroup", "text", "Location group."),
        Column("LocNumber", "text", "Location."),
        Column("CedantName", "text", "Cedant."),
        Column("ProducerName", "text", "Producer."),
        Column("LOB", "text", "Line of business."),
        Column("CountryCode", "text", "Country."),
        Column("ReinsTag", "text", "A user's own tag."),
        _number("CededPercent", "Part that is ceded, surplus share only.", default="1", maximum=1),
        # of OED 1 (in ReinsInfo since)
        Column("RiskLevel", "choice", "What one risk is.", choices=RISK_LEVELS),
        Column("OEDVersion", "text", "Version of OED."),
        Column("OriginalCurrency", "text", "Currency before a conversion that was made."),
        _number("RateOfExchange", "Rate of that conversion."),
    ),
    (),
)

#: Spellings of OED 1, as in its example files.
OLD_NAMES = {
    "ReinsPerilCode": "ReinsPeril",
    "OccurenceFranchiseDed": "OccFranchiseDed",
    "OccurrenceFranchiseDed": "OccFranchiseDed",
    "OccurenceReverseFranchise": "OccReverseFranchise",
    "OccurrenceReverseFranchise": "OccReverseFranchise",
    "AggregateLimit": "AggLimit",
    "AggregateAttachmentPoint": "AggAttachment",
    "ReinstatementNumber": "Reinstatement",
    "LocationGroup": "LocGroup",
    "ReinsuranceTag": "ReinsTag",
}

#: Parts of a portfolio by which a scope cannot be cut here: a deal's losses are not known by them.
UNKNOWN_SCOPES = ("PolNumber", "LocGroup", "LocNumber", "ProducerName", "LOB", "CountryCode", "ReinsTag")

#: A row of a file, by column; None where the cell is empty.
type Row = Mapping[str, Any]
#: Column, what is wrong with it, and what is allowed.
type Problem = tuple[str, str, str]

#: riskmill's terms by the column of OED in which a problem with them is reported.
_COLUMN_OF = {
    "ceded_share": "CededPercent",
    "risk_limit": "RiskLimit",
    "risk_retention": "RiskAttachment",
    "occurrence_limit": "OccLimit",
    "occurrence_retention": "OccAttachment",
    "franchise_deductible": "OccFranchiseDed",
    "aggregate_limit": "AggLimit",
    "aggregate_deductible": "AggAttachment",
    "reinstatements": "Reinstatement",
    "premium": "ReinsPremium",
    "placed_share": "PlacedPercent",
    "participation": "PlacedPercent",
    "inuring_priority": "InuringPriority",
    "type": "ReinsType",
}


def column_of(term: str) -> str:
    """Return the column of ReinsInfo that a term of riskmill stands in."""
    return _COLUMN_OF.get(term, "ReinsType")


def uses_dates(row: Row) -> bool:
    """Tell whether a contract of ReinsInfo counts only losses within its dates."""
    return row["UseReinsDates"] in ("Y", "Yes")


def info_problems(row: Row) -> Iterator[Problem]:
    """Yield what riskmill cannot take of a row of ReinsInfo, whatever it covers."""
    if row["ReinsPeril"] is not None:
        for code in row["ReinsPeril"].split(";"):
            if code.strip() not in PERIL_CODES:
                yield "ReinsPeril", f"{code.strip()!r} is not a peril code of OED", "codes such as AA1, WW1, QEQ"
    for name in ("ReinsCurrency", "OriginalCurrency"):
        if row[name] is not None and row[name] not in CURRENCIES:
            yield name, f"{row[name]!r} is not a currency code", "a code of ISO 4217 such as USD"
    version = row["OEDVersion"]
    if version is not None and version.split(".")[0] not in ("1", "2", "3", "4", "5"):
        yield "OEDVersion", f"{version!r} is not a version that is known", "1 to 5, such as 5.0.0"
    for name, value, what in (
        ("OccReverseFranchise", 0, "a reverse franchise is not a term of riskmill"),
        ("DeemedPercentPlaced", 0, "a notional contract would change no loss"),
        ("ReinsFXrate", 1, "a contract's own rate of exchange is not a term of riskmill"),
        ("ReinsHoursClause", 0, "an hours clause needs hours, and events have days"),
    ):
        if row[name] is not None and row[name] != value and not (name == "ReinsFXrate" and row[name] == 0):
            yield name, f"is {row[name]:.15g}, and {what}", f"{value}, or an empty cell"
    if row["AggPeriod"] not in (None, 365, 366):
        yield "AggPeriod", f"is {row['AggPeriod']:.15g} days, and aggregate terms are annual here", "365"
    if row["AttachmentBasis"] == "RA":
        yield "AttachmentBasis", "is RA (risks attaching), and contracts cover losses occurring", "LO"
    if (row["RiskLimit"] or row["RiskAttachment"]) and row["RiskLevel"] is None:
        yield "RiskLevel", "is empty, and the contract has terms per risk", ", ".join(RISK_LEVELS)
    if uses_dates(row):
        for name in ("ReinsInceptionDate", "ReinsExpiryDate"):
            if row[name] is None:
                yield name, "is empty, and UseReinsDates says that it counts", "a date as YYYY-MM-DD"
    yield from _reinstatements(row)[1]


def _reinstatements(row: Row) -> tuple[tuple[float, ...] | None, list[Problem]]:
    """Return the charges of the reinstatements (None: unlimited and free), and what is wrong with them."""
    number, charges = row["Reinstatement"], row["ReinstatementCharge"]
    if number is None:
        if charges is None:
            return None, []
        problem = "is empty, and ReinstatementCharge is given"
        return None, [("Reinstatement", problem, "the number of reinstatements")]
    if number > MAX_REINSTATEMENTS:
        return None, [("Reinstatement", f"{number} are more than {MAX_REINSTATEMENTS}", f"0 to {MAX_REINSTATEMENTS}")]
    if number == 0:
        if charges and any(charges):
            return None, [("ReinstatementCharge", "is given, and there is no reinstatement", "an empty cell")]
        return (), []
    if not charges:
        problem = f"is empty, and {number} reinstatements have a charge"
        return None, [("ReinstatementCharge", problem, "a number for all, or one for each separated by `;`")]
    if len(charges) not in (1, number):
        problem = f"has {len(charges)} charges, and Reinstatement says {number}"
        return None, [("ReinstatementCharge", problem, f"1 or {number} numbers")]
    whole = tuple(charges) if len(charges) == number else tuple(charges) * number
    # free reinstatements of a limit that does not exist reinstate nothing
    return (None if not row["OccLimit"] and not any(whole) else whole), []


def terms_of(row: Row, *, layer: bool, ceded: float | None = None) -> tuple[Terms, list[Problem]]:
    """Return the terms of a row of ReinsInfo and what is wrong with them together.

    `layer`: the contract is a layer of a deal, of which the placed share and our part (TreatyShare) are known apart;
    else an outwards contract, of which both together are placed. `ceded`: the share that ReinsScope states.
    0 as a limit is no limit.
    """
    share = 1.0 if row["CededPercent"] is None else row["CededPercent"]
    treaty = 1.0 if row["TreatyShare"] is None else row["TreatyShare"]
    given: dict[str, Any] = {
        "type": row["ReinsType"],
        "ceded_share": share if ceded is None else share * ceded,
        "occurrence_retention": row["OccAttachment"] or 0.0,
        "occurrence_limit": row["OccLimit"] or None,
        "aggregate_deductible": row["AggAttachment"] or 0.0,
        "aggregate_limit": row["AggLimit"] or None,
        "reinstatements": _reinstatements(row)[0],
        "premium": row["ReinsPremium"] or 0.0,
        "participation": treaty if layer else treaty * row["PlacedPercent"],
        "franchise_deductible": row["OccFranchiseDed"] or 0.0,
        "risk_retention": row["RiskAttachment"] or 0.0,
        "risk_limit": row["RiskLimit"] or None,
    }
    if layer:
        given |= {"placed_share": row["PlacedPercent"], "inuring_priority": row["InuringPriority"]}
    terms = Terms(**given)
    return terms, [(column_of(field), problem, allowed) for field, problem, allowed in terms_problems(terms)]


@dataclass(frozen=True, slots=True)
class Exported:
    """Rows of ReinsInfo and ReinsScope, by column."""

    info: list[dict[str, str]]
    scope: list[dict[str, str]]


#: Longest name and portfolio number of OED.
MAX_REINS_NAME, MAX_PORT_NUMBER = 30, 20

_NOT_IN_OED = {
    "retained_line": None,
    "lines": None,
    "index": None,
    "recovery_order": "event_order",
    "reinstatement_basis": "amount",
    "shared_limit": None,
}


def export_problems(contract: Outwards) -> Iterator[Problem]:
    """Yield (term, problem, what is allowed) for what OED cannot say of a contract."""
    for term, plain in _NOT_IN_OED.items():
        if getattr(contract.terms, term) != plain:
            yield term, f"is {getattr(contract.terms, term)!r}, and OED has no column for it", "an empty cell"
    if len(contract.name) > MAX_REINS_NAME:
        yield "name", f"has {len(contract.name)} characters", f"up to {MAX_REINS_NAME} in ReinsName"
    if len(contract.group_id) > MAX_PORT_NUMBER:
        yield "group_id", f"has {len(contract.group_id)} characters", f"up to {MAX_PORT_NUMBER} in PortNumber"


def export(contracts: Mapping[int, Outwards], priorities: Mapping[int, int], currency: str) -> Exported:
    """Return outwards contracts as rows of OED, by number of contract; `priorities` is each one's InuringPriority.

    A stop loss becomes an AXL of the same amounts, which pays the same.
    """
    info, scope = [], []
    for number, contract in contracts.items():
        terms = contract.terms
        dates = contract.inception is not None
        cells: dict[str, Any] = {
            "ReinsNumber": number,
            "ReinsName": contract.name,
            "ReinsLayerNumber": 1,
            "ReinsPeril": ALL_PERILS,
            "ReinsInceptionDate": contract.inception or "",
            "ReinsExpiryDate": contract.expiry or "",
            "CededPercent": terms.ceded_share,
            "RiskLimit": terms.risk_limit or 0.0,
            "RiskAttachment": terms.risk_retention,
            "OccLimit": terms.occurrence_limit or 0.0,
            "OccAttachment": terms.occurrence_retention,
            "OccFranchiseDed": terms.franchise_deductible,
            "OccReverseFranchise": 0.0,
            "AggLimit": terms.aggregate_limit or 0.0,
            "AggAttachment": terms.aggregate_deductible,
            "AggPeriod": 365,
            "PlacedPercent": terms.share,
            "ReinsCurrency": currency,
            "InuringPriority": priorities[number],
            "ReinsType": "AXL" if terms.type == "SL" else terms.type,
            "AttachmentBasis": "LO",
            "Reinstatement": "" if terms.reinstatements is None else len(terms.reinstatements),
            "ReinstatementCharge": ";".join(repr(charge) for charge in terms.reinstatements or ()),
            "ReinsPremium": terms.premium,
            "DeemedPercentPlaced": 0,
            "ReinsFXrate": 1,
            "TreatyShare": 1,
            "UseReinsDates": "Y" if dates else "N",
            "RiskLevel": "",
            "OEDVersion": VERSION,
        }
        info.append({name: str(value) for name, value in cells.items()})
        where = {"ReinsNumber": str(number), "PortNumber": contract.group_id, "OEDVersion": VERSION}
        scope.append({column.name: where.get(column.name, "") for column in REINS_SCOPE.columns[:11]} | where)
    return Exported(info, scope)
