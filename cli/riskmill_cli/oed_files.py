"""Import of OED reinsurance files into a copy of a portfolio folder, and export of its outwards contracts as OED.

1. Read ReinsInfo and ReinsScope; check every cell, then what riskmill cannot compute (riskmill.oed).
2. Find what each contract covers: the deals that its rows of ReinsScope name, as a group or as one deal.
3. With no fault so far, ods-tools checks the files too, in a process of its own, where `make ods` has installed it.
4. Write a copy of the folder with the contracts in it, and read it back: it is a portfolio, or it is not left there.
"""

import csv
import importlib.util
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from riskmill.checks import Fault, FaultList, Members, outwards_problems, reached_from, shown
from riskmill.errors import RiskmillError
from riskmill.oed import (
    OLD_NAMES,
    REINS_INFO,
    REINS_SCOPE,
    UNKNOWN_SCOPES,
    Exported,
    Row,
    column_of,
    export,
    export_problems,
    info_problems,
    perils_covered,
    terms_of,
    uses_dates,
)
from riskmill.portfolio import Deal, Outwards, Portfolio
from riskmill.portfolio_tables import LAYERS, OUTWARDS, Table
from riskmill.terms import Terms
from riskmill_cli.portfolio_folder import FolderInvalid, read_folder
from riskmill_cli.session import project_root
from riskmill_cli.table_cells import read_cells
from riskmill_cli.table_files import SUFFIXES, Sheet, read_file, read_sheet

#: What the contracts of the files are: reinsurance that we buy, or the programmes of our cedants that we write.
type Side = Literal["outwards", "layers"]

#: Columns of OED 1 that later versions, and ods-tools, do not know.
_VERSION_1 = {"ReinsInfo": ("ReinsHoursClause",), "ReinsScope": ("RiskLevel", "OriginalCurrency", "RateOfExchange")}


@dataclass(frozen=True, slots=True)
class Imported:
    """What an import wrote."""

    folder: Path
    contracts: int
    #: what was taken in a way that a reader should know of
    notes: list[str]


@dataclass(frozen=True, slots=True)
class _File:
    sheet: Sheet
    #: cells of each row, None where empty
    rows: list[dict[str, Any]]
    #: which rows have no faulty cell
    sound: list[bool]


@dataclass(slots=True)
class _Contract:
    """A row of ReinsInfo with the rows of ReinsScope that name it."""

    at: int
    row: Row
    scope: list[int]
    #: deals covered
    deals: frozenset[str] = frozenset()
    #: groups that the scope names by PortNumber alone
    named: list[str] = field(default_factory=list)


def _read(path: Path, table: Table, faults: FaultList) -> _File | None:
    names = {old.lower(): new for old, new in OLD_NAMES.items()}
    names |= {column.name.lower(): column.name for column in table.columns}
    sheet = read_file(path, table, names, faults)
    if sheet is None:
        return None
    cells = read_cells(sheet, faults)
    columns: dict[str, list[Any]] = {column.name: [None] * sheet.rows for column in table.columns}
    sound = [True] * sheet.rows
    for name, numbers in cells.numbers.items():
        columns[name] = [
            value if ok else None for value, ok in zip(numbers.values.tolist(), numbers.ok.tolist(), strict=True)
        ]
        for row in range(sheet.rows):
            sound[row] &= bool(numbers.ok[row] or not (numbers.given[row] or table.column(name).required))
    for name, texts in cells.texts.items():
        columns[name] = texts.rows()
        for row in range(sheet.rows):
            sound[row] &= bool(texts.codes[row] >= 0 or (texts.codes[row] == -1 and not table.column(name).required))
    for column in table.columns:
        if column.required and column.name not in cells.texts and column.name not in cells.numbers:
            sound = [False] * sheet.rows
    rows = [{name: values[row] for name, values in columns.items()} for row in range(sheet.rows)]
    return _File(sheet, rows, sound)


def _members(portfolio: Portfolio) -> dict[str, Members]:
    return {group.group_id: Members(group.deals, group.groups) for group in portfolio.groups}


class _Importer:
    def __init__(self, portfolio: Portfolio, perils: Iterable[str], info: _File, scope: _File, side: Side) -> None:
        self.portfolio, self.info, self.scope, self.side = portfolio, info, scope, side
        self.perils = frozenset(perils)
        self.faults = FaultList()
        self.notes: list[str] = []
        self.deals = {deal.deal_id: deal for deal in portfolio.deals}
        self.groups = {group.group_id: group for group in portfolio.groups}
        members = _members(portfolio)
        self.below = {group: reached_from(group, members) for group in self.groups}
        self.deals_of = {
            group: frozenset(deal for member in members for deal in self.groups[member].deals)
            for group, members in self.below.items()
        }

    def add(self, file: _File, row: int, column: str, problem: str, allowed: str) -> None:
        self.faults.faults.append(Fault(file.sheet.file, file.sheet.line(row), column, problem, allowed))

    def contracts(self) -> list[_Contract]:
        """Check rows and references; return each row of ReinsInfo with its scope."""
        by_number: dict[int, list[int]] = {}
        for at, row in enumerate(self.scope.rows):
            if self.scope.sound[at]:
                by_number.setdefault(row["ReinsNumber"], []).append(at)
        known = {row["ReinsNumber"] for row in self.info.rows}
        for number, rows in by_number.items():
            if number not in known:
                for at in rows:
                    self.add(self.scope, at, "ReinsNumber", f"{number} is not in ReinsInfo", "a number of ReinsInfo")
        found, seen = [], dict[tuple[int, int | None], int]()
        for at, row in enumerate(self.info.rows):
            if not self.info.sound[at]:
                continue
            key = (row["ReinsNumber"], row["ReinsLayerNumber"])
            if key in seen:
                first = self.info.sheet.line(seen[key])
                self.add(self.info, at, "ReinsNumber", f"{key[0]} stands in line {first} already", "each layer once")
                continue
            seen[key] = at
            scope = by_number.get(key[0], [])
            if not scope:
                if all(self.scope.sound):
                    self.add(self.info, at, "ReinsNumber", f"{key[0]} has no row in ReinsScope", "at least one row")
                continue
            levels = {self.scope.rows[line]["RiskLevel"] for line in scope} - {None}
            row = {**row, "RiskLevel": row["RiskLevel"] or next(iter(levels), None)} if len(levels) < 2 else row
            for column, problem, allowed in info_problems(row):
                self.add(self.info, at, column, problem, allowed)
            self._perils_covered(at, row)
            found.append(_Contract(at, row, scope))
        for contract in found:
            self._cover(contract)
        return found

    def _perils_covered(self, at: int, row: Row) -> None:
        covered = frozenset().union(*(perils_covered(code.strip()) for code in row["ReinsPeril"].split(";")))
        if "AA1" in (code.strip() for code in row["ReinsPeril"].split(";")) or self.perils <= covered:
            return
        left = ", ".join(sorted(self.perils - covered))
        problem = f"{shown(row['ReinsPeril'])} does not cover {left}, and contracts cover every peril"
        self.add(self.info, at, "ReinsPeril", problem, "AA1, or codes that cover every peril of `perils`")

    def _cover(self, contract: _Contract) -> None:
        """Find the deals that a contract covers."""
        deals: set[str] = set()
        for at in contract.scope:
            row = self.scope.rows[at]
            for name in UNKNOWN_SCOPES:
                if row[name] is not None:
                    problem = f"{shown(row[name])}: losses are not known by {name}"
                    self.add(self.scope, at, name, problem, "an empty cell")
            if row["CededPercent"] not in (None, 1.0) and contract.row["ReinsType"] != "SS":
                problem = f"is given, and {contract.row['ReinsType']} is no surplus share (SS)"
                self.add(self.scope, at, "CededPercent", problem, "an empty cell")
            if row["AccNumber"] is not None and row["PortNumber"] is None:
                problem = "is empty, and OED knows an account (AccNumber) within a portfolio only"
                self.add(self.scope, at, "PortNumber", problem, "a group_id of groups")
            deals |= self._deals_of_row(at, row)
            if row["PortNumber"] in self.groups and row["AccNumber"] is None and row["CedantName"] is None:
                contract.named.append(row["PortNumber"])
        contract.deals = frozenset(deals)

    def _deals_of_row(self, at: int, row: Row) -> frozenset[str]:
        group, account, cedant = row["PortNumber"], row["AccNumber"], row["CedantName"]
        deals = self.deals_of[self.portfolio.group]
        if group is not None:
            if group not in self.below[self.portfolio.group]:
                problem = f"{shown(group)} is not the top group or a group below it"
                self.add(self.scope, at, "PortNumber", problem, "a group_id of groups")
                return frozenset()
            deals = self.deals_of[group]
        if account is not None:
            if account not in deals:
                where = "the portfolio" if group is None else f"group {shown(group)}"
                self.add(self.scope, at, "AccNumber", f"{shown(account)} is not a deal of {where}", "a deal_id")
                return frozenset()
            deals = frozenset([account])
        if cedant is not None:
            deals = frozenset(deal for deal in deals if self.deals[deal].cedant == cedant)
            if not deals:
                problem = f"{shown(cedant)} is not the cedant of a deal that the row names"
                self.add(self.scope, at, "CedantName", problem, "a cedant of deals")
        return deals

    def _id(self, row: Row) -> str:
        several = sum(other["ReinsNumber"] == row["ReinsNumber"] for other in self.info.rows) > 1
        return f"RI{row['ReinsNumber']}" + (f"-{row['ReinsLayerNumber'] or 0}" if several else "")

    def outwards(self, contracts: Sequence[_Contract]) -> list[Outwards]:
        """Return the contracts as outwards contracts."""
        made, placed = [], list[tuple[_Contract, str]]()
        for contract in contracts:
            at, row = contract.at, contract.row
            self._currency(at, row, self.portfolio.currency, "the portfolio's")
            group = self._group(contract)
            if group is None:
                continue
            if any(self.scope.rows[line]["CededPercent"] not in (None, 1.0) for line in contract.scope):
                self.add(self.info, at, "ReinsType", "is a surplus share, and a group's losses are not known by risk",
                         "QS, FAC, CXL, AXL")  # fmt: skip
                continue
            terms, problems = terms_of(row, layer=False)
            problems += [(column_of(name), problem, allowed) for name, problem, allowed in outwards_problems(terms)]
            for column, problem, allowed in problems:
                self.add(self.info, at, column, problem, allowed)
            dates = uses_dates(row)
            self._say_dates(row)
            made.append(
                Outwards.model_construct(
                    contract_id=self._id(row),
                    name=row["ReinsName"] or f"Reinsurance {row['ReinsNumber']}",
                    group_id=group,
                    priority=row["InuringPriority"],
                    terms=terms,
                    inception=row["ReinsInceptionDate"] if dates else None,
                    expiry=row["ReinsExpiryDate"] if dates else None,
                )
            )
            placed.append((contract, group))
        self._inuring(placed)
        return made

    def _group(self, contract: _Contract) -> str | None:
        covered = [
            group for group in sorted(self.below[self.portfolio.group]) if self.deals_of[group] == contract.deals
        ]
        if not contract.deals:
            return None
        for group in (*contract.named, self.portfolio.group, *covered):
            if group in covered:
                return group
        names = ", ".join(sorted(contract.deals)[:5]) + (" ..." if len(contract.deals) > 5 else "")
        self.add(
            self.scope,
            contract.scope[0],
            "ReinsNumber",
            f"covers the deals {names}, and no group has just these",
            "deals that are a group of the portfolio",
        )
        return None

    def _inuring(self, placed: Sequence[tuple[_Contract, str]]) -> None:
        """Refuse an inuring order that a portfolio cannot have: contracts on groups further down come first."""
        for contract, group in placed:
            for other, lower in placed:
                late = other.row["InuringPriority"] >= contract.row["InuringPriority"]
                if lower != group and lower in self.below[group] and late:
                    problem = (
                        f"{contract.row['InuringPriority']} on group {shown(group)} is not above "
                        f"{other.row['InuringPriority']} of contract {other.row['ReinsNumber']} on group "
                        f"{shown(lower)} below it, which always comes first"
                    )
                    self.add(self.info, contract.at, "InuringPriority", problem, "a higher number than those below")

    def _currency(self, at: int, row: Row, wanted: str, whose: str) -> None:
        if row["ReinsCurrency"] != wanted:
            problem = f"{shown(row['ReinsCurrency'])} is not {whose} currency"
            self.add(self.info, at, "ReinsCurrency", problem, wanted)

    def _say_dates(self, row: Row) -> None:
        if not uses_dates(row) and (row["ReinsInceptionDate"] or row["ReinsExpiryDate"]):
            self.notes.append(f"contract {row['ReinsNumber']}: its dates do not count (UseReinsDates is not Y)")
        if row["OriginalCurrency"] is not None:
            self.notes.append(
                f"contract {row['ReinsNumber']}: terms are taken in {row['ReinsCurrency']}, as converted already"
            )

    def layers(self, contracts: Sequence[_Contract]) -> list[tuple[str, Deal, Terms]]:
        """Return the contracts as layers of deals: id, deal, terms."""
        made = []
        for contract in contracts:
            at, row = contract.at, contract.row
            own_risks = row["ReinsType"] == "SS" and not any(
                row[name] for name in ("OccLimit", "OccAttachment", "OccFranchiseDed", "AggLimit", "AggAttachment")
            )
            if len(contract.deals) > 1 and not own_risks:
                names = ", ".join(sorted(contract.deals)[:5])
                problem = f"covers the deals {names} together, and a layer covers one deal"
                self.add(self.scope, contract.scope[0], "ReinsNumber", problem, "one deal (AccNumber)")
                continue
            self._say_dates(row)
            if row["RiskLimit"] or row["RiskAttachment"]:
                self.notes.append(
                    f"contract {row['ReinsNumber']}: RiskLevel {row['RiskLevel']} is what `risks` of its ELT counts"
                )
            for deal_id in sorted(contract.deals):
                deal = self.deals[deal_id]
                shares = {
                    self.scope.rows[line]["CededPercent"]
                    for line in contract.scope
                    if deal_id in self._deals_of_row(line, self.scope.rows[line])
                }
                if len(shares) > 1:
                    problem = f"differs between rows that cover deal {shown(deal_id)}"
                    self.add(self.scope, contract.scope[0], "CededPercent", problem, "one share for each deal")
                    continue
                self._currency(at, row, deal.currency, f"deal {shown(deal_id)}'s")
                days = (row["ReinsInceptionDate"], row["ReinsExpiryDate"])
                if uses_dates(row) and None not in days and days != (deal.inception, deal.expiry):
                    problem = f"{days[0]} to {days[1]} is not the period of deal {shown(deal_id)}"
                    self.add(self.info, at, "ReinsInceptionDate", problem, f"{deal.inception} to {deal.expiry}")
                terms, problems = terms_of(row, layer=True, ceded=next(iter(shares)))
                for column, problem, allowed in problems:
                    self.add(self.info, at, column, problem, allowed)
                ident = self._id(row) + (f"-{deal_id}" if len(contract.deals) > 1 else "")
                made.append((ident, deal, terms))
        return made


def import_oed(info: Path, scope: Path, folder: Path, out: Path, *, side: Side, replace: bool) -> Imported:
    """Write a copy of a portfolio folder with the contracts of two OED files in it.

    They are added to the outwards contracts (or to the layers of the deals that they name), or with `replace` stand
    in their place. Raises FolderInvalid with every fault, and RiskmillError when `out` is there already.
    """
    portfolio = read_folder(folder).portfolio
    if out.exists():
        raise RiskmillError(f"{out} is there already: name a folder that is not")
    faults = FaultList()
    files = [_read(info, REINS_INFO, faults), _read(scope, REINS_SCOPE, faults)]
    if files[0] is None or files[1] is None:
        raise FolderInvalid(faults.all())
    perils = read_perils(folder)
    importer = _Importer(portfolio, perils, files[0], files[1], side)
    contracts = importer.contracts()
    rows: list[dict[str, str]]
    if side == "outwards":
        rows = [_outwards_row(contract) for contract in importer.outwards(contracts)]
    else:
        rows = [_layer_row(*layer) for layer in importer.layers(contracts)]
    found = [*faults.all(), *importer.faults.all()]
    if not found:
        found = ods_faults(files[0], files[1], importer.notes)
    if found:
        rank = {files[0].sheet.file: 0, files[1].sheet.file: 1}
        raise FolderInvalid(sorted(dict.fromkeys(found), key=lambda f: (rank.get(f.file, 2), f.row or 0)))
    _write(folder, out, OUTWARDS if side == "outwards" else LAYERS, rows, replace=replace)
    return Imported(out, len(rows), importer.notes)


def read_perils(folder: Path) -> list[str]:
    """Return the perils of a portfolio folder that is sound."""
    from riskmill.portfolio_tables import PERILS

    sheet = read_sheet(folder, PERILS, FaultList())
    return [] if sheet is None else [str(cell) for cell in sheet.columns["peril"].to_pylist()]


def _cell(value: object) -> str:
    return "" if value is None else repr(value) if isinstance(value, float) else str(value)


def _terms_row(terms: Terms) -> dict[str, str]:
    given = terms.model_dump(exclude={"reinstatements"}, exclude_defaults=True)
    row = {name: _cell(value) for name, value in given.items()} | {"type": terms.type}
    if terms.type in ("QS", "SS"):
        row["ceded_share"] = repr(terms.ceded_share)
    if terms.reinstatements is not None:
        row["reinstatements"] = ";".join(repr(charge) for charge in terms.reinstatements) or "none"
    return row


def _outwards_row(contract: Outwards) -> dict[str, str]:
    names = ("contract_id", "name", "group_id", "priority", "inception", "expiry")
    return {name: _cell(getattr(contract, name)) for name in names} | _terms_row(contract.terms)


def _layer_row(ident: str, deal: Deal, terms: Terms) -> dict[str, str]:
    return {"layer_id": ident, "deal_id": deal.deal_id} | _terms_row(terms)


def _write(folder: Path, out: Path, table: Table, rows: list[dict[str, str]], *, replace: bool) -> None:
    """Write the copy, and take it away again if it is no portfolio."""
    sheet = read_sheet(folder, table, FaultList())
    there: list[dict[str, str]] = []
    if sheet is not None:
        columns = {name: values.to_pylist() for name, values in sheet.columns.items()}
        there = [{name: _cell(values[row]) for name, values in columns.items()} for row in range(sheet.rows)]
    if replace:
        named = {row.get("deal_id") for row in rows}
        there = [] if table is OUTWARDS else [row for row in there if row["deal_id"] not in named]
    used = {name for row in (*there, *rows) for name in row}
    try:
        shutil.copytree(folder, out)
        for suffix in SUFFIXES:
            (out / f"{table.name}{suffix}").unlink(missing_ok=True)
        _write_csv(out / f"{table.name}.csv", [c.name for c in table.columns if c.name in used], [*there, *rows])
        read_folder(out)
    except OSError as error:
        shutil.rmtree(out, ignore_errors=True)
        raise RiskmillError(f"{error.filename or out}: {error.strerror}") from error
    except FolderInvalid:
        shutil.rmtree(out)
        raise


def _write_csv(path: Path, columns: Sequence[str], rows: Iterable[dict[str, str]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def ods_python() -> Path | None:
    """Return the interpreter that has ods-tools: the checkout's .venv-ods, or this one; None where neither has it."""
    own = project_root() / ".venv-ods" / "bin" / "python"
    if own.is_file():
        return own
    return Path(sys.executable) if importlib.util.find_spec("ods_tools") is not None else None


def ods_faults(info: _File, scope: _File, notes: list[str]) -> list[Fault]:
    """Return what ods-tools finds wrong with the files, nothing where it is not installed (a note says which).

    Raises RiskmillError when it is there and cannot be run.
    """
    python = ods_python()
    if python is None:
        notes.append("ods-tools did not run: `make ods` installs it; riskmill's own checks were made, and not its")
        return []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for file in (info, scope):
            _write_for_ods(folder, file)
        # an exposure of nothing: a portfolio here has none, and ods-tools wants one
        (folder / "location.csv").write_text(
            "PortNumber,AccNumber,LocNumber,CountryCode,LocPerilsCovered,LocCurrency,BuildingTIV,OtherTIV,ContentsTIV,"
            "BITIV\n1,1,1,US,AA1,USD,1,0,0,0\n"
        )
        (folder / "account.csv").write_text(
            "PortNumber,AccNumber,PolNumber,PolPerilsCovered,AccCurrency\n1,1,1,AA1,USD\n"
        )
        script = Path(__file__).with_name("ods_check.py")
        ended = subprocess.run([python, "-I", script, folder], capture_output=True, text=True, check=False)
    if ended.returncode != 0:
        last = (ended.stderr.strip().splitlines() or [f"exit code {ended.returncode}"])[-1]
        raise RiskmillError(f"ods-tools cannot be run with {python}: {last}")
    answer = json.loads(ended.stdout)
    files = {file.sheet.table.name: file.sheet.file for file in (info, scope)}
    if "error" in answer:
        return [Fault(files["ReinsInfo"], None, None, f"ods-tools: {answer['error']}")]
    notes.append(f"checked with ods-tools {answer['version']}")
    return [Fault(files[each["name"]], None, None, f"ods-tools: {each['message']}") for each in answer["found"]]


def _write_for_ods(folder: Path, file: _File) -> None:
    """Write a file as read, without the columns that ods-tools does not know."""
    table = file.sheet.table
    known = [column.name for column in table.columns if column.name not in _VERSION_1[table.name]]
    columns = [name for name in known if name in file.sheet.columns]
    rows = [
        {name: ";".join(map(repr, row[name])) if isinstance(row[name], tuple) else _cell(row[name]) for name in columns}
        for row in file.rows
    ]
    _write_csv(folder / f"{table.name}.csv", columns, rows)


def export_oed(folder: Path, out: Path) -> list[Path]:
    """Write a folder's outwards contracts as ReinsInfo.csv and ReinsScope.csv into `out`; return the paths.

    Raises FolderInvalid for what OED cannot say, naming the contract and the term.
    """
    portfolio = read_folder(folder).portfolio
    faults = FaultList()
    for contract in portfolio.outwards:
        for term, problem, allowed in export_problems(contract):
            faults.add("outwards", term, f"contract {contract.contract_id}: {problem}", allowed)
    if faults:
        raise FolderInvalid(faults.all())
    numbers = dict(enumerate(portfolio.outwards, start=1))
    exported: Exported = export(numbers, _priorities(portfolio, numbers), portfolio.currency)
    try:
        out.mkdir(parents=True, exist_ok=True)
        paths = []
        for table, rows in ((REINS_INFO, exported.info), (REINS_SCOPE, exported.scope)):
            known = [column.name for column in table.columns]
            used = {name for row in rows for name in row}
            paths.append(out / f"{table.name}.csv")
            _write_csv(paths[-1], [name for name in known if name in used or not rows], rows)
    except OSError as error:
        raise RiskmillError(f"{error.filename or out}: {error.strerror}") from error
    return paths


def _priorities(portfolio: Portfolio, numbers: dict[int, Outwards]) -> dict[int, int]:
    """Return an InuringPriority for each contract: after all those on groups below its own, then by its priority."""
    groups = _members(portfolio)
    below = {contract.group_id: reached_from(contract.group_id, groups) for contract in numbers.values()}
    made: dict[int, int] = {}
    # a group has fewer groups below it than one above it
    for number, contract in sorted(numbers.items(), key=lambda n: (len(below[n[1].group_id]), n[1].priority)):
        before = [
            made[other]
            for other, its in numbers.items()
            if other in made
            and (
                (its.group_id == contract.group_id and its.priority < contract.priority)
                or (its.group_id != contract.group_id and its.group_id in below[contract.group_id])
            )
        ]
        made[number] = max(before, default=0) + 1
    return made
