"""Reads a portfolio folder, checks all of it, and makes the canonical portfolio with its binary inputs.

1. Read portfolio.json and every table (table_files.py).
2. Check each cell against its column's specification (portfolio_tables.py), a whole column at a time.
3. Check rows, references between tables and the graph of groups.
4. With no fault: encode the catalogue and the ELTs, name them by their content, and build the portfolio.

No step stops at a fault; a check that needs something that could not be read is left out, so that one fault does not
show up as many. Nothing is written anywhere.
"""

import json
import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from riskmill.checks import (
    COVERED_GROUPS,
    CURRENCIES,
    MAX_LISTED,
    WITHIN_YEAR,
    Fault,
    FaultList,
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
)
from riskmill.deal_models import pricing_problems, read_pricing_params
from riskmill.errors import ModelError, PortfolioInvalid
from riskmill.jobs import content_key
from riskmill.model_faults import faults_of
from riskmill.models.catalogue import FREQUENCIES, count_table
from riskmill.outputs import Array, encode
from riskmill.portfolio import (
    ABOVE_THRESHOLD,
    OWN_RATE,
    Portfolio,
    allowed_currencies,
    contract_days_problems,
    maximum_problem,
    no_index,
    span_problem,
)
from riskmill.portfolio_tables import (
    OUTWARDS,
    RECORD_FIELDS,
    STOP_LOSS_COLUMNS,
    STOP_LOSS_TERMS,
    TABLES,
    TERMS_COLUMNS,
    TERMS_TEXTS,
    UNIFORM_SEASON,
    PortfolioFile,
)
from riskmill.terms import Terms
from riskmill_cli.table_cells import Bools, Cells, Ints, Texts, add_rows, read_cells, repeated
from riskmill_cli.table_files import Sheet, misspelt_tables, read_sheet

HEAD = "portfolio.json"

_JSON_PLACE = re.compile(r" at line (\d+) column (\d+)$")


@dataclass(frozen=True, slots=True)
class PreparedPortfolio:
    """A portfolio that is ready to upload: the document, and the objects that it names, by their keys."""

    portfolio: Portfolio
    #: encoded catalogue and ELTs by content key (32 hex digits)
    objects: dict[str, bytes]


class FolderInvalid(PortfolioInvalid):
    """A folder has faults. `faults` has them as lines, `found` as they are."""

    def __init__(self, found: Sequence[Fault]) -> None:
        self.found = tuple(found)
        super().__init__([str(fault) for fault in found])


def read_folder(path: Path | str, *, sampled: bool = False) -> PreparedPortfolio:
    """Read a portfolio folder. Raises FolderInvalid (a PortfolioInvalid) with every fault.

    `sampled`: a run will sample its losses, though the portfolio does not ask for it. The result does not depend on the
    order of rows, nor on whether a table is CSV or Parquet.
    """
    folder = Path(path)
    if not folder.is_dir():
        problem = "is a file" if folder.exists() else "does not exist"
        raise FolderInvalid([Fault(str(path), None, None, problem, "a folder with portfolio.json and its tables")])
    faults = FaultList()
    head = _read_head(folder, faults)
    sheets = {name: read_sheet(folder, table, faults) for name, table in TABLES.items()}
    misspelt_tables(folder, faults)
    given = {name: sheet for name, sheet in sheets.items() if sheet is not None}
    prepared = _Reader(head, given, faults, sampled=sampled).prepare()
    if prepared is None:
        raise FolderInvalid(_in_order(faults.all(), sheets))
    return prepared


def _in_order(faults: Sequence[Fault], sheets: dict[str, Sheet | None]) -> list[Fault]:
    """Return faults by file in the tables' order, then by row, and the counts of further rows last."""
    files = [HEAD, *(sheet.file if sheet else f"{name}.csv" for name, sheet in sheets.items())]
    rank = {file: at for at, file in enumerate(files)}
    at_end = math.inf

    def place(fault: Fault) -> tuple[int, float]:
        row = fault.row if fault.row is not None else at_end if " more rows: " in fault.problem else 0
        return rank.get(fault.file, len(rank)), row

    return sorted(faults, key=place)


def _read_head(folder: Path, faults: FaultList) -> PortfolioFile | None:
    """Read portfolio.json."""
    path = folder / HEAD
    try:
        data = path.read_bytes().removeprefix(b"\xef\xbb\xbf")
    except FileNotFoundError:
        faults.add(HEAD, None, "is missing", "a file that names the portfolio and its top group")
        return None
    except OSError as error:
        faults.add(HEAD, None, f"cannot be read: {error.strerror}")
        return None
    try:
        head = PortfolioFile.model_validate_json(data)
    except ValidationError as error:
        for fault in faults_of(error, HEAD, PortfolioFile):
            at = _JSON_PLACE.search(fault.problem)
            if at is None:
                faults.add(HEAD, fault.field, fault.problem, fault.allowed)
            else:
                problem = f"{fault.problem[: at.start()]} in column {at[2]}"
                faults.faults.append(Fault(HEAD, int(at[1]), None, problem))
        return None
    names = [name for name, _ in json.loads(data, object_pairs_hook=lambda pairs: pairs)]
    for name in dict.fromkeys(names):
        if names.count(name) > 1:
            faults.add(HEAD, name, f"stands {names.count(name)} times", "once")
    return head


class _Reader:
    """Checks what one cell cannot tell, and builds the portfolio when nothing is wrong."""

    def __init__(
        self, head: PortfolioFile | None, sheets: dict[str, Sheet], faults: FaultList, *, sampled: bool
    ) -> None:
        self.head = head
        self.sampled = sampled or (head is not None and head.secondary_uncertainty)
        self.faults = faults
        self.has_outwards = "outwards" in sheets
        self.has_rates = "rates" in sheets
        self.has_industry = "industry_losses" in sheets
        self.has_record = "loss_record" in sheets
        self.tables = {name: read_cells(sheet, faults) for name, sheet in sheets.items()}
        self.terms: dict[str, list[Terms | None]] = {}

    def prepare(self) -> PreparedPortfolio | None:
        """Run every check; return the portfolio, or None when there are faults."""
        for name, cells in self.tables.items():
            if TABLES[name].key:
                self._unique(name, cells)
        self._references()
        self._perils()
        self._elts()
        self._deals()
        for name in ("layers", "outwards"):
            if name in self.tables:
                self.terms[name] = list(self._terms(self.tables[name]))
        self._layers_together()
        self._contract_days()
        self._groups()
        self._record()
        return None if self.faults or self.head is None else self._build(self.head)

    def _add(
        self,
        cells: Cells,
        field: str,
        rows: Bools | Sequence[int],
        kind: str,
        problem: Callable[[int], str] | None = None,
        allowed: str | None = None,
    ) -> None:
        add_rows(self.faults, cells.sheet, cells.sheet.table.column(field), rows, kind, problem, allowed)

    def _texts(self, table: str, column: str) -> Texts | None:
        cells = self.tables.get(table)
        return None if cells is None else cells.texts.get(column)

    def _ids(self, table: str, column: str) -> set[str] | None:
        """Return the ids of a table, or None when they could not be read, all of them."""
        texts = self._texts(table, column)
        if texts is None or not self._complete(table, column):
            return None
        return {texts.values[code] for code in np.unique(texts.codes)}

    def _complete(self, table: str, *columns: str) -> bool:
        """Tell whether every row of a table and every cell of these required columns could be read.

        If not, nothing can be said to be missing from them: it may be what the faulty cell was meant to be.
        """
        cells = self.tables.get(table)
        return (
            cells is not None
            and cells.sheet.whole
            and all(
                bool(cells.numbers[name].ok.all())
                if name in cells.numbers
                else name in cells.texts and bool((cells.texts[name].codes >= 0).all())
                for name in columns
            )
        )

    def _unique(self, name: str, cells: Cells) -> None:
        keys: Ints = np.zeros(cells.sheet.rows, np.int64)
        ok: Bools = np.ones(cells.sheet.rows, np.bool_)
        named: list[Callable[[int], str]] = []
        for column in TABLES[name].key:
            if column in cells.numbers:
                numbers = cells.numbers[column]
                keys = keys * (int(numbers.values.max(initial=0)) + 1) + numbers.values
                ok = ok & numbers.ok
                named.append(lambda row, values=numbers.values: str(values[row]))  # type: ignore[misc]
            elif column in cells.texts:
                texts = cells.texts[column]
                keys = keys * max(len(texts.values), 1) + texts.codes
                ok = ok & (texts.codes >= 0)
                named.append(lambda row, texts=texts: shown(texts.at(row)))  # type: ignore[misc]
            else:
                return
        rows, firsts = repeated(keys, ok)
        first = dict(zip(rows.tolist(), firsts.tolist(), strict=True))

        def problem(row: int) -> str:
            what = " with ".join(name(row) for name in named)
            return f"{what} stands in {cells.file}:{cells.sheet.line(first[row])} already"

        self._add(cells, TABLES[name].key[-1], rows.tolist(), "stands there already", problem, "each once")

    def _references(self) -> None:
        for table, column, target, key in (
            ("events", "peril", "perils", "a peril"),
            ("deals", "elt_id", "elts", "an elt_id"),
            ("layers", "deal_id", "deals", "a deal_id"),
            ("loss_record", "peril", "perils", "a peril"),
        ):
            texts, known = self._texts(table, column), self._ids(target, key.split()[-1])
            if texts is not None and known is not None:
                self._add(
                    self.tables[table],
                    column,
                    texts.where(lambda value, known=known: value not in known),  # type: ignore[misc]
                    f"is not in {target}",
                    lambda row, texts=texts, target=target: f"{shown(texts.at(row))} is not in {target}",  # type: ignore[misc]
                    f"{key} of {target}",
                )
        events = self.tables.get("events")
        if events is None or not self._complete("events", "event_id"):
            return
        catalogue = events.numbers["event_id"]
        for table in ("elts", "industry_losses"):
            cells = self.tables.get(table)
            losses = None if cells is None else cells.numbers.get("event_id")
            if cells is None or losses is None:
                continue
            self._add(
                cells,
                "event_id",
                losses.ok & ~np.isin(losses.values, catalogue.values[catalogue.ok]),
                "is not in events",
                lambda row, losses=losses: f"{losses.values[row]} is not in events",  # type: ignore[misc]
                "an event_id of events",
            )

    def _perils(self) -> None:
        perils, events = self.tables.get("perils"), self.tables.get("events")
        if perils is None:
            return
        laws, ratios = perils.texts.get("frequency"), perils.numbers.get("variance_to_mean")
        names = perils.texts.get("peril")
        if laws is None or ratios is None:
            return
        rates = _rates_by_peril(events)
        for row, law in enumerate(laws.rows()):
            ratio = float(ratios.values[row]) if ratios.ok[row] else None
            if law is None or (ratio is None and ratios.given[row]):
                continue
            wrong = _ratio_problem(law, ratio)
            if wrong is not None:
                self._add(perils, "variance_to_mean", [row], *wrong)
            elif names is not None and (rate := rates.get(names.at(row), 0.0)) > 0:
                try:
                    count_table(law, rate, 1.0 if ratio is None else ratio)
                except ModelError as error:
                    self._add(perils, "variance_to_mean", [row], str(error), None, "frequencies that can be simulated")

    def _elts(self) -> None:
        elts = self.tables.get("elts")
        if elts is None:
            return
        ids, means, exposures = elts.texts.get("elt_id"), elts.numbers.get("mean_loss"), elts.numbers.get("exposure")
        if self.sampled and means is not None and exposures is not None:
            self._add(elts, "exposure", _not_sampled(elts), _NO_EXPOSURE, None, _AN_EXPOSURE)
        if means is None or exposures is None or not exposures.given.any():
            return
        mean, exposure = means.values, exposures.values
        both = means.ok & exposures.ok
        over = both & (mean > exposure)
        self._add(
            elts,
            "mean_loss",
            over,
            "is above the exposure",
            lambda row: f"{mean[row]:.15g} is above the exposure {exposure[row]:.15g}",
            "up to the exposure",
        )
        sds = [elts.numbers[name] for name in ("sd_independent", "sd_correlated") if name in elts.numbers]
        if len(sds) == 2:
            # a beta on [0, exposure] has sd^2 < mean (exposure - mean); as a product of ratios, nothing overflows
            with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
                sd = np.nan_to_num(sds[0].values) + np.nan_to_num(sds[1].values)
                possible = (sd / mean) * (sd / (exposure - mean)) < 1
            impossible = both & ~over & (sd > 0) & ~possible
            self._add(
                elts,
                "sd_independent",
                impossible,
                "with sd_correlated is more than a beta distribution can have",
                lambda row: (
                    f"with sd_correlated the sd is {sd[row]:.6g}, which no beta distribution with mean {mean[row]:.6g} "
                    f"and maximum {exposure[row]:.6g} has"
                ),
                "sd^2 < mean_loss x (exposure - mean_loss)",
            )
        if ids is not None:
            some = np.zeros(len(ids.values), np.bool_)
            some[ids.codes[exposures.given & (ids.codes >= 0)]] = True
            lacks = means.ok & (np.nan_to_num(mean) > 0) & ~exposures.given & (ids.codes >= 0)
            lacks[lacks] = some[ids.codes[lacks]]
            self._add(
                elts,
                "exposure",
                lacks,
                "is empty, and other rows of this ELT have one",
                lambda row: f"is empty, and other rows of ELT {shown(ids.at(row))} have one",
                "for all rows of an ELT or for none",
            )

    def _deals(self) -> None:
        deals = self.tables.get("deals")
        if deals is None:
            return
        currencies, rates = deals.texts.get("currency"), self._rates()
        if currencies is not None and self.head is not None and rates is not None:
            wanted = self.head.currency
            self._add(
                deals,
                "currency",
                currencies.where(lambda value: rate_problem(value, wanted, rates) is not None),
                f"is not the portfolio's currency {shown(wanted)} and has no rate",
                lambda row: rate_problem(currencies.at(row), wanted, rates) or "",
                allowed_currencies(wanted),
            )
        inceptions, expiries = deals.texts.get("inception"), deals.texts.get("expiry")
        if inceptions is not None and expiries is not None:
            begins, ends = inceptions.rows(), expiries.rows()
            self._add(
                deals,
                "expiry",
                [
                    row
                    for row, (begin, end) in enumerate(zip(begins, ends, strict=True))
                    if begin and end and end < begin
                ],
                "is before the inception",
                lambda row: f"{ends[row]} is before the inception {begins[row]}",
                "the day of inception or later",
            )
            year = None if self.head is None else self.head.trial_year
            outside = {
                row: problem
                for row, (begin, end) in enumerate(zip(begins, ends, strict=True))
                if begin and end and end >= begin and (problem := outside_year(begin, end, year)) is not None
            }
            self._add(
                deals,
                "inception",
                list(outside),
                "has no day in the trial year",
                lambda row: outside[row],
                WITHIN_YEAR,
            )
        self._pricing_models(deals)
        ids, layered = deals.texts.get("deal_id"), self._ids("layers", "deal_id")
        if ids is not None and layered is not None:
            self._add(
                deals,
                "deal_id",
                ids.where(lambda value: value not in layered),
                "has no layer in layers",
                lambda row: f"deal {shown(ids.at(row))} has no layer in layers",
                "at least one layer",
            )

    def _terms(self, cells: Cells) -> Iterator[Terms | None]:
        """Yield the terms of each row; None where they could not be read."""
        types, charges = cells.texts.get("type"), cells.texts.get("reinstatements")
        numbers = {name: cells.numbers.get(name) for name in (*TERMS_COLUMNS, *STOP_LOSS_COLUMNS)}
        columns = {name: (column.values.tolist(), column) for name, column in numbers.items() if column is not None}
        texts = {name: cells.texts[name] for name in TERMS_TEXTS if name in cells.texts}
        for row in range(cells.sheet.rows):
            given = {name: values[row] for name, (values, column) in columns.items() if column.given[row]}
            kind = None if types is None else types.at(row)
            fine = all(column.ok[row] or not column.given[row] for _, column in columns.values())
            fine = fine and charges is not None and charges.codes[row] != -2
            for name, column in texts.items():
                fine = fine and column.codes[row] != -2
                if column.codes[row] >= 0:
                    given[name] = column.at(row)
            if kind is None:
                yield None
                continue
            fine = self._type_faults(cells, row, kind, given) and fine
            if charges is not None and charges.codes[row] >= 0:
                given["reinstatements"] = charges.at(row)
            if not fine:
                yield None
                continue
            if kind == "SL":
                gnpi = given.pop("gnpi")
                given["aggregate_deductible"] = given.pop("attachment_ratio") * gnpi
                given["aggregate_limit"] = given.pop("limit_ratio") * gnpi
                if not 0 < given["aggregate_limit"] < math.inf or not given["aggregate_deductible"] < math.inf:
                    self._add(cells, "gnpi", [row], "times the ratios is not an amount", None, "an amount")
                    yield None
                    continue
            terms = Terms(type=kind, **given)
            problems = [*terms_problems(terms)]
            if cells.sheet.table is OUTWARDS:
                known = {column.name for column in OUTWARDS.columns}
                problems = [problem for problem in problems if problem[0] in known] + [*outwards_problems(terms)]
            for field, problem, allowed in problems:
                self._add(cells, field, [row], problem, None, allowed)
            yield terms

    def _contract_days(self) -> None:
        """Check the periods of outwards contracts."""
        outwards = self.tables.get("outwards")
        begins, ends = self._texts("outwards", "inception"), self._texts("outwards", "expiry")
        if outwards is None or begins is None or ends is None:
            return
        year = None if self.head is None else self.head.trial_year
        for row, (begin, end) in enumerate(zip(begins.rows(), ends.rows(), strict=True)):
            if begins.codes[row] != -2 and ends.codes[row] != -2:
                for field, problem, allowed in contract_days_problems(begin, end, year):
                    self._add(outwards, field, [row], problem, None, allowed)

    def _layers_together(self) -> None:
        """Check the layers of each deal with each other, with its ELT and with the industry's losses."""
        indices = self._ids("industry_losses", "index")
        for table, of_table in self.terms.items():
            for row, its in enumerate(of_table):
                if its is not None and its.index is not None and its.index not in (indices or ()):
                    problem, allowed = no_index(its.index)
                    if indices is not None or not self.has_industry:
                        self._add(self.tables[table], "index", [row], problem, None, allowed)
        layers, of_deal = self.tables.get("layers"), self._texts("layers", "deal_id")
        if layers is None or of_deal is None:
            return
        by_deal: dict[str, list[tuple[int, Terms]]] = {}
        for row, (deal, known) in enumerate(zip(of_deal.rows(), self.terms["layers"], strict=True)):
            if deal is not None and known is not None:
                by_deal.setdefault(deal, []).append((row, known))
        bare = self._deals_without_exposure()
        for deal, rows in by_deal.items():
            for number, field, problem, allowed in deal_problems([terms for _, terms in rows]):
                self._add(layers, field, [rows[number][0]], problem, None, allowed)
            for row, terms in rows:
                if terms.retained_line is not None and deal in bare:
                    problem = f"needs the exposures of ELT {shown(bare[deal])}, which has none"
                    self._add(layers, "retained_line", [row], problem, None, "an ELT with exposures")

    def _deals_without_exposure(self) -> dict[str, str]:
        """Return the ELT of each deal whose ELT states no exposure."""
        elts, deals = self.tables.get("elts"), self.tables.get("deals")
        if elts is None or deals is None or not {"elt_id"} <= elts.texts.keys() & deals.texts.keys():
            return {}
        if "deal_id" not in deals.texts or "exposure" not in elts.numbers:
            return {}
        codes, ids = elts.texts["elt_id"].codes, elts.texts["elt_id"].values
        known = {ids[code] for code in np.unique(codes[elts.numbers["exposure"].given]) if code >= 0}
        pairs = zip(deals.texts["deal_id"].rows(), deals.texts["elt_id"].rows(), strict=True)
        return {deal: elt for deal, elt in pairs if deal is not None and elt is not None and elt not in known}

    def _rates(self) -> dict[str, float] | None:
        """Check the rates; return each currency's at the as-at date, or None when they could not all be read."""
        rates = self.tables.get("rates")
        if rates is None or self.head is None:
            return None if self.has_rates else {}
        currencies, days, numbers = rates.texts.get("currency"), rates.texts.get("date"), rates.numbers.get("rate")
        if currencies is not None:
            own = self.head.currency
            self._add(rates, "currency", currencies.where(lambda value: value == own), OWN_RATE, None, "another one")
            unknown = currencies.where(lambda value: value not in CURRENCIES)
            self._add(
                rates,
                "currency",
                unknown,
                "is not a currency code",
                lambda row: f"{shown(currencies.at(row))} is not a currency code",
                "a code of ISO 4217 such as USD",
            )
        if (
            currencies is None
            or days is None
            or numbers is None
            or not self._complete("rates", "currency", "date", "rate")
        ):
            return None
        rows = zip(days.rows(), currencies.rows(), numbers.values.tolist(), strict=True)
        dated = sorted((day, code, rate) for day, code, rate in rows if day is not None and code is not None)
        return {code: rate for day, code, rate in dated if day <= self.head.as_at}

    def _type_faults(self, cells: Cells, row: int, kind: str, given: dict[str, Any]) -> bool:
        """Add what a treaty of this type lacks or must not have; return whether that is nothing."""
        wrong: list[tuple[str, str, str]] = []
        if kind == "SL":
            lacks = [name for name in STOP_LOSS_COLUMNS if name not in given]
            doubled = [name for name in STOP_LOSS_TERMS if name in given]
            column = cells.sheet.table.column
            wrong += [(name, "is empty, and a stop loss (SL) needs it", column(name).allowed) for name in lacks]
            wrong += [(name, "is given, and a stop loss (SL) has ratios of GNPI", "an empty cell") for name in doubled]
        else:
            foreign = [name for name in STOP_LOSS_COLUMNS if name in given]
            wrong += [(name, "is given, and only a stop loss (SL) has it", "an empty cell") for name in foreign]
        if kind == "SS" and not given.keys() & {"ceded_share", "retained_line", "lines"}:
            problem = "is empty, and a surplus share (SS) needs it, or a retained line and lines"
            wrong.append(("ceded_share", problem, "a number >= 0 and <= 1"))
        if kind == "QS" and "ceded_share" not in given:
            wrong.append(("ceded_share", "is empty, and a quota share (QS) needs it", "a number >= 0 and <= 1"))
        for field, problem, allowed in wrong:
            self._add(cells, field, [row], problem, None, allowed)
        return not wrong

    def _groups(self) -> None:
        groups, outwards = self.tables.get("groups"), self.tables.get("outwards")
        members, rows = self._members()
        if groups is None or members is None:
            return
        names = groups.texts.get("group_name")
        if names is not None:
            self._group_names(groups, names)
        deals, deal_ids = self.tables.get("deals"), self._texts("deals", "deal_id")
        known: dict[str, int] = {}
        if not self._complete("deals", "deal_id"):
            known |= {deal: -1 for of in members.values() for deal in of.deals}
        if deal_ids is not None:
            known |= {deal: row for row, deal in reversed([*enumerate(deal_ids.rows())]) if deal is not None}
        if self.head is None or not self._complete("groups", "group_id", "member_type", "member_id"):
            return
        for fault in graph_faults(self.head.group, members, known):
            place = fault.place
            if place.kind == "top":
                self.faults.add(HEAD, "group", fault.problem, fault.allowed)
            elif place.kind == "member":
                row = rows[place.group, place.member_type, place.member]
                self._add(groups, "member_id", [row], fault.kind, lambda _, fault=fault: fault.problem, fault.allowed)  # type: ignore[misc]
            elif deals is not None and known[place.member] >= 0:
                row = known[place.member]
                self._add(deals, "deal_id", [row], fault.kind, lambda _, fault=fault: fault.problem, fault.allowed)  # type: ignore[misc]
        covered = self._texts("outwards", "group_id")
        if outwards is None or covered is None:
            return
        below = reached_from(self.head.group, members)
        for row, group in enumerate(covered.rows()):
            if group is not None:
                problem = contract_group_problem(group, self.head.group, members, below)
                if problem is not None:
                    self._add(outwards, "group_id", [row], problem, None, COVERED_GROUPS)

    def _members(self) -> tuple[dict[str, Members] | None, dict[tuple[str, str, str], int]]:
        """Return the members of every group, each once, and the row of each membership."""
        columns = [self._texts("groups", name) for name in ("group_id", "member_type", "member_id")]
        texts = [column.rows() for column in columns if column is not None]
        if len(texts) < len(columns):
            return None, {}
        rows: dict[tuple[str, str, str], int] = {}
        deals: dict[str, list[str]] = {}
        groups: dict[str, list[str]] = {}
        for row, (group, kind, member) in enumerate(zip(*texts, strict=True)):
            if group is not None:
                deals.setdefault(group, [])
                groups.setdefault(group, [])
                if kind is not None and member is not None and rows.setdefault((group, kind, member), row) == row:
                    (deals if kind == "deal" else groups)[group].append(member)
        return {group: Members(deals[group], groups[group]) for group in deals}, rows

    def _group_names(self, groups: Cells, names: Texts) -> None:
        ids = groups.texts["group_id"].rows()
        known: dict[str, str] = {}
        for row, name in enumerate(names.rows()):
            if name is not None and ids[row] is not None and known.setdefault(ids[row], name) != name:
                problem = f"group {shown(ids[row])} is called {shown(known[ids[row]])} elsewhere and {shown(name)} here"
                self._add(groups, "group_name", [row], problem, None, "one name for each group")

    def _record(self) -> None:
        """Check the record of losses against its years and against its perils' thresholds and maxima."""
        for field in RECORD_FIELDS if self.head is not None and not self.has_record else ():
            if field in self.head.model_fields_set:  # type: ignore[union-attr]
                self.faults.add(HEAD, field, "is given, and there is no loss_record", "a table loss_record")
        perils, record = self.tables.get("perils"), self.tables.get("loss_record")
        limits: dict[str, float] = {}
        if perils is not None and {"record_threshold", "record_maximum"} <= perils.numbers.keys():
            thresholds, maxima = (perils.numbers[f"record_{name}"] for name in ("threshold", "maximum"))
            names = perils.texts["peril"].rows() if "peril" in perils.texts else []
            low, high = np.nan_to_num(thresholds.values), maxima.values
            self._add(
                perils,
                "record_maximum",
                maxima.ok & (thresholds.ok | ~thresholds.given) & (high <= low),
                "is not above the threshold",
                lambda row: maximum_problem(high[row], low[row]),
                ABOVE_THRESHOLD,
            )
            limits = {name: float(top) for name, top, ok in zip(names, high, maxima.ok, strict=False) if ok}
        if record is None:
            return
        dates, losses = record.texts.get("date"), record.numbers.get("loss")
        of_row = record.texts["peril"].rows() if "peril" in record.texts else []
        if losses is not None and limits:
            at = np.array([limits.get(name, math.inf) for name in of_row])
            self._add(
                record,
                "loss",
                losses.ok & (losses.values > at),
                "is above the record_maximum of its peril",
                lambda row: f"{losses.values[row]:.15g} is above the record_maximum of {shown(of_row[row])}",
                "at most record_maximum",
            )
        if dates is None or self.head is None:
            return
        first, last = self.head.record_first_year, self.head.record_last_year
        if first is not None and last is not None and last < first:
            self.faults.add(HEAD, "record_last_year", span_problem(first, last), "record_first_year or later")
            return
        for field, wrong, side in (
            ("record_first_year", dates.where(lambda day: first is not None and day.year < first), "before"),
            ("record_last_year", dates.where(lambda day: last is not None and day.year > last), "after"),
        ):
            self._add(
                record,
                "date",
                wrong,
                f"is {side} the {field}",
                lambda row, side=side, field=field: f"{dates.at(row)} is {side} the {field}",  # type: ignore[misc]
                "a day in the years that the record covers",
            )

    def _pricing_models(self, deals: Cells) -> None:
        """Check the models that deals name and their parameters, but for what they say of layers."""
        models, params = deals.texts.get("pricing_model"), deals.texts.get("pricing_params")
        if models is None or params is None:
            return
        for row, (model, text) in enumerate(zip(models.rows(), params.rows(), strict=True)):
            if model is None and text is None:
                continue
            try:
                own = {} if text is None else read_pricing_params(text)
            except ModelError as error:
                self._add(deals, "pricing_params", [row], str(error), None, "a JSON object")
                continue
            for field, problem, allowed in pricing_problems(model, own, None):
                self._add(deals, field, [row], problem, None, allowed)

    def _build(self, head: PortfolioFile) -> PreparedPortfolio:
        """Build the portfolio of a folder without faults."""
        catalogue = encode(_catalogue(self.tables["perils"], self.tables["events"]))
        objects = {content_key(catalogue): catalogue}
        elts = self._encode_elts(objects)
        document = {
            **head.model_dump(exclude={"record_first_year", "record_last_year"}),
            "catalogue": content_key(catalogue),
            "deals": self._deal_models(elts),
            "groups": self._group_models(),
            "outwards": self._outwards_models(),
            "rates": self._rate_models(),
            "indices": self._encode_indices(objects),
            "records": self._encode_record(head, objects),
            "sampling_faults": self._sampling_faults(),
        }
        try:
            return PreparedPortfolio(Portfolio.model_validate(document), objects)
        except ValidationError as error:
            # no folder is known that passes the checks above and not these; if there is one, its user gets the faults
            raise FolderInvalid([*faults_of(error, "portfolio", Portfolio)]) from error

    def _encode_elts(self, objects: dict[str, bytes]) -> dict[str, str]:
        """Encode the ELTs that deals use into `objects`; return each one's key by its id."""
        cells = self.tables["elts"]
        ids = cells.texts["elt_id"]
        events = cells.numbers["event_id"].values
        order = np.lexsort((events, ids.codes))
        order = order[cells.numbers["mean_loss"].values[order] > 0]
        codes = ids.codes[order]
        event = events[order].astype(np.int32)
        columns = {"mean": cells.numbers["mean_loss"].values[order]}
        for name in ("sd_independent", "sd_correlated"):
            columns[name] = np.nan_to_num(cells.numbers[name].values[order])
        exposure = cells.numbers["exposure"].values[order]
        risks = np.nan_to_num(cells.numbers["risks"].values[order], nan=1.0)
        code_of = {elt: code for code, elt in enumerate(ids.values)}
        keys = {}
        for elt in sorted(self._ids("deals", "elt_id") or ()):
            begin, end = np.searchsorted(codes, [code_of[elt], code_of[elt] + 1])
            arrays: dict[str, Array] = {"event": event[begin:end], "mean": columns["mean"][begin:end]}
            for name in ("sd_independent", "sd_correlated"):
                if columns[name][begin:end].any():
                    arrays[name] = columns[name][begin:end]
            if begin < end and not np.isnan(exposure[begin]):
                arrays["exposure"] = exposure[begin:end]
            if (risks[begin:end] != 1).any():
                arrays["risks"] = risks[begin:end]
            data = encode(arrays)
            keys[elt] = content_key(data)
            objects[keys[elt]] = data
        return keys

    def _sampling_faults(self) -> tuple[str, ...]:
        """Return why a run may not sample losses, by ELT: without files and rows, for the document knows none."""
        cells = self.tables["elts"]
        ids, events = cells.texts["elt_id"], cells.numbers["event_id"].values
        bare = _not_sampled(cells)
        used = self._ids("deals", "elt_id") or set()
        found = []
        for code in np.unique(ids.codes[bare]).tolist():
            if ids.values[code] in used:
                of_elt = events[bare & (ids.codes == code)]
                where = f"elts: {shown(ids.values[code])}: exposure: event {of_elt.min()}"
                rest = f" and {of_elt.size - 1:,} more" if of_elt.size > 1 else ""
                found.append(f"{where}{rest}: {_NO_EXPOSURE} (allowed: {_AN_EXPOSURE})")
        found.sort()
        more = [f"elts: {len(found) - MAX_LISTED:,} more: exposure: {_NO_EXPOSURE}"] if len(found) > MAX_LISTED else []
        return (*found[:MAX_LISTED], *more)

    def _deal_models(self, elts: dict[str, str]) -> list[dict[str, Any]]:
        cells = self.tables["layers"]
        layers: dict[str, list[dict[str, Any]]] = {}
        rows = zip(cells.texts["deal_id"].rows(), cells.texts["layer_id"].rows(), self.terms["layers"], strict=True)
        for deal, layer, terms in rows:
            layers.setdefault(deal, []).append({"layer_id": layer, "terms": terms})
        cells = self.tables["deals"]
        names = ("deal_id", "cedant", "business_unit", "inception", "expiry", "currency")
        columns = [cells.texts[name].rows() for name in names]
        brokerages = np.nan_to_num(cells.numbers["brokerage"].values).tolist()
        subjects = cells.texts["elt_id"].rows()
        own = [cells.texts[name].rows() for name in ("pricing_model", "pricing_params")]
        return [
            {
                **dict(zip(names, row, strict=True)),
                "brokerage": brokerage,
                "elt": elts[subject],
                "layers": layers[row[0]],
                "pricing_model": model,
                "pricing_params": {} if params is None else read_pricing_params(params),
            }
            for *row, brokerage, subject, model, params in zip(*columns, brokerages, subjects, *own, strict=True)
        ]

    def _group_models(self) -> list[dict[str, Any]]:
        members, _ = self._members()
        ids, names = self.tables["groups"].texts["group_id"].rows(), self.tables["groups"].texts["group_name"].rows()
        named = {group: name for group, name in zip(ids, names, strict=True) if name is not None}
        return [
            {"group_id": group, "name": named.get(group, group), "deals": of.deals, "groups": of.groups}
            for group, of in (members or {}).items()
        ]

    def _outwards_models(self) -> list[dict[str, Any]]:
        if not self.has_outwards:
            return []
        cells = self.tables["outwards"]
        names = ("contract_id", "name", "group_id")
        columns = [cells.texts[name].rows() for name in names]
        priorities = cells.numbers["priority"].values.tolist()
        days = zip(cells.texts["inception"].rows(), cells.texts["expiry"].rows(), strict=True)
        return [
            {
                **dict(zip(names, row, strict=True)),
                "priority": priority,
                "terms": terms,
                "inception": inception,
                "expiry": expiry,
            }
            for *row, priority, terms, (inception, expiry) in zip(
                *columns, priorities, self.terms["outwards"], days, strict=True
            )
        ]

    def _rate_models(self) -> list[dict[str, Any]]:
        if not self.has_rates:
            return []
        cells = self.tables["rates"]
        rows = zip(
            cells.texts["currency"].rows(), cells.texts["date"].rows(), cells.numbers["rate"].values, strict=True
        )
        return [{"currency": currency, "date": day, "rate": float(rate)} for currency, day, rate in rows]

    def _encode_indices(self, objects: dict[str, bytes]) -> list[dict[str, str]]:
        """Encode the industry's losses by each index into `objects`; return their keys."""
        if not self.has_industry:
            return []
        cells = self.tables["industry_losses"]
        names, events, losses = cells.texts["index"], cells.numbers["event_id"].values, cells.numbers["loss"].values
        order = np.lexsort((events, names.codes))
        found = []
        for code, name in enumerate(names.values):
            rows = order[names.codes[order] == code]
            data = encode({"event": events[rows].astype(np.int32), "mean": losses[rows]})
            found.append({"index": name, "losses": content_key(data)})
            objects[content_key(data)] = data
        return found

    def _encode_record(self, head: PortfolioFile, objects: dict[str, bytes]) -> list[dict[str, Any]]:
        """Encode the recorded losses of each peril into `objects`; return what the portfolio says of them."""
        if not self.has_record or self.tables["loss_record"].sheet.rows == 0:
            return []
        cells, perils = self.tables["loss_record"], self.tables["perils"]
        names, losses = cells.texts["peril"], cells.numbers["loss"].values
        dates = cells.texts["date"].rows()
        days = np.array([day.toordinal() for day in dates], np.int32)
        first = min(dates).year if head.record_first_year is None else head.record_first_year
        last = max(dates).year if head.record_last_year is None else head.record_last_year
        order = np.lexsort((losses, days, names.codes))
        row_of = {peril: row for row, peril in enumerate(perils.texts["peril"].rows())}
        thresholds = np.nan_to_num(perils.numbers["record_threshold"].values)
        maxima = perils.numbers["record_maximum"]
        found = []
        for code, peril in enumerate(names.values):
            rows, row = order[names.codes[order] == code], row_of[peril]
            data = encode({"day": days[rows], "loss": losses[rows]})
            objects[content_key(data)] = data
            found.append(
                {
                    "peril": peril,
                    "losses": content_key(data),
                    "count": rows.size,
                    "threshold": float(thresholds[row]),
                    "maximum": float(maxima.values[row]) if maxima.given[row] else None,
                    "first_year": first,
                    "last_year": last,
                }
            )
        return found


#: Why a loss cannot be sampled, and what is allowed.
_NO_EXPOSURE = "is empty, and secondary uncertainty needs it where there is a standard deviation"
_AN_EXPOSURE = "a number above mean_loss"


def _not_sampled(elts: Cells) -> Bools:
    """Return the rows of `elts` whose loss cannot be sampled: it has a standard deviation and no largest value."""
    given = [elts.numbers[name].values for name in ("sd_independent", "sd_correlated") if name in elts.numbers]
    sd = np.sum([np.nan_to_num(values) for values in given], axis=0)
    bare: Bools = (sd > 0) & (np.nan_to_num(elts.numbers["mean_loss"].values) > 0) & ~elts.numbers["exposure"].given
    return bare


def _ratio_problem(law: str, ratio: float | None) -> tuple[str, None, str] | None:
    """Return (problem, None, allowed) for a variance to mean that a frequency distribution cannot have."""
    match law:
        case "negative_binomial" if ratio is None or ratio <= 1:
            return "is not above 1, and the frequency is negative_binomial", None, "a number > 1"
        case "binomial" if ratio is None or ratio >= 1:
            return "is not below 1, and the frequency is binomial", None, "a number >= 0 and < 1"
        case "poisson" if ratio is not None and ratio != 1:
            return "is not 1, and the frequency is poisson", None, "1, or an empty cell"
    return None


def _rates_by_peril(events: Cells | None) -> dict[str, float]:
    """Return the expected number of events of each peril in a year."""
    if events is None or "peril" not in events.texts or "rate" not in events.numbers:
        return {}
    perils, rates = events.texts["peril"], events.numbers["rate"]
    ok = (perils.codes >= 0) & rates.ok
    totals = np.bincount(perils.codes[ok], rates.values[ok], minlength=len(perils.values)).tolist()
    return dict(zip(perils.values, totals, strict=True))


def _catalogue(perils: Cells, events: Cells) -> dict[str, Array]:
    """Return the arrays of the catalogue; a peril without events is left out, for it changes nothing."""
    order = np.argsort(events.numbers["event_id"].values)
    peril_of = events.texts["peril"]
    used = sorted({peril_of.values[code] for code in np.unique(peril_of.codes)})
    number = {peril: at for at, peril in enumerate(used)}
    row_of = {peril: row for row, peril in enumerate(perils.texts["peril"].rows())}
    rows = [row_of[peril] for peril in used]
    laws, seasons = perils.texts["frequency"], perils.texts["season"]
    numbers = np.array([number.get(peril, 0) for peril in peril_of.values], np.int32)
    return {
        "event": events.numbers["event_id"].values[order].astype(np.int32),
        "rate": events.numbers["rate"].values[order],
        "peril": numbers[peril_of.codes[order]],
        "frequency": np.array([FREQUENCIES.index(laws.at(row)) for row in rows], np.int32),
        "variance_to_mean": np.nan_to_num(perils.numbers["variance_to_mean"].values[rows], nan=1.0),
        "season": np.array([seasons.at(row) or UNIFORM_SEASON for row in rows], np.float64),
        "peril_names": np.frombuffer(json.dumps(used, ensure_ascii=False).encode(), np.uint8),
    }
