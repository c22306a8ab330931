"""Reads a CSV of losses, one a row, for `riskmill fit`. Every fault names file, row and field."""

import csv
import difflib
import re
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np

from riskmill.checks import FaultList, shown
from riskmill.errors import RiskmillError
from riskmill.models.occurrences import F64, I64
from riskmill.portfolio_tables import NUMBER

_NUMBER = re.compile(NUMBER)
_YEAR = re.compile(r"[0-9]{4}")
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")

#: Columns that are taken when none is named.
LOSS_COLUMN, DATE_COLUMN = "loss", "date"


class LossesInvalid(RiskmillError):
    """A file of losses has faults; `faults` lists them."""

    def __init__(self, faults: FaultList) -> None:
        self.faults = [str(fault) for fault in faults.all()]
        super().__init__("; ".join(self.faults[:10]))


@dataclass(frozen=True, slots=True)
class LossRecord:
    """Losses as they stand in a file [rows]: amounts, where they stand, when they happened and what they belong to.

    `years` is None without a column of dates; `days` (day of the year, 0 to 364, 29 February is 28 February's) and
    `months` (0 to 11) are None also where dates are years only.
    """

    file: str
    losses: F64
    lines: I64
    groups: list[str]
    years: I64 | None
    months: I64 | None
    days: I64 | None


def read_losses(
    path: Path, *, loss_column: str | None = None, date_column: str | None = None, by: str | None = None
) -> LossRecord:
    """Read the columns named; `loss` and, if there is one, `date` where none is. Raises LossesInvalid."""
    faults = FaultList()
    file = path.name
    try:
        rows = list(_rows(path.read_text(encoding="utf-8-sig")))
    except OSError as error:
        faults.add(file, None, f"cannot be read: {error.strerror}")
    except UnicodeDecodeError as error:
        faults.add(file, None, f"has a byte that is not UTF-8 at {error.start:,}", "text in UTF-8")
    except csv.Error as error:
        faults.add(file, None, f"is not a CSV: {error}")
    if faults:
        raise LossesInvalid(faults)
    if not rows:
        faults.add(file, None, "is empty", "a header and at least one row")
        raise LossesInvalid(faults)
    (_, header), *body = rows
    at = {
        "loss": _find(file, header, loss_column or LOSS_COLUMN, "--loss-column", faults),
        "date": _find(file, header, date_column, "--date-column", faults) if date_column else None,
        "by": _find(file, header, by, "--by", faults) if by else None,
    }
    if not date_column and header.count(DATE_COLUMN) == 1:
        at["date"] = header.index(DATE_COLUMN)
    if not body:
        faults.add(file, None, "has no rows", "at least one row")
    ragged = [row for row, (_, cells) in enumerate(body) if len(cells) != len(header)]
    faults.add_rows(
        file,
        None,
        ragged,
        kind="the row has not as many cells as the header",
        allowed=f"{len(header)} cells",
        line=lambda row: body[row][0],
        problem=lambda row: f"the row has {len(body[row][1])} cells and the header {len(header)}",
    )
    if faults:
        raise LossesInvalid(faults)
    return _record(file, header, body, at, faults)


def _rows(text: str) -> list[tuple[int, list[str]]]:
    reader = csv.reader(text.splitlines(keepends=True), strict=True)
    rows = []
    start = 1
    for cells in reader:
        if cells:
            rows.append((start, cells))
        start = reader.line_num + 1
    return rows


def _find(file: str, header: list[str], name: str, option: str, faults: FaultList) -> int | None:
    times = header.count(name)
    if times == 1:
        return header.index(name)
    if times:
        faults.add(file, name, f"stands {times} times in the header", "once")
        return None
    near = difflib.get_close_matches(name.lower(), header, n=1, cutoff=0.6)
    hint = f" (did you mean {near[0]}?)" if near else ""
    faults.add(file, name, f"there is no such column{hint}; {option} names it", ", ".join(header))
    return None


def _record(
    file: str, header: list[str], body: list[tuple[int, list[str]]], at: dict[str, int | None], faults: FaultList
) -> LossRecord:
    def column(key: str) -> list[str]:
        index = at[key]
        return [] if index is None else [cells[index].strip() for _, cells in body]

    def add(key: str, rows: list[int], kind: str, allowed: str, texts: list[str]) -> None:
        index = at[key]
        field = None if index is None else header[index]
        faults.add_rows(
            file,
            field,
            rows,
            kind=kind,
            allowed=allowed,
            line=lambda row: body[row][0],
            problem=lambda row: f"{shown(texts[row])} {kind}" if texts[row] else "is empty",
        )

    texts = column("loss")
    amount = "a finite number of at least 0, with no thousands separators"
    bad = [row for row, text in enumerate(texts) if not _NUMBER.fullmatch(text)]
    add("loss", bad, "is not a number", amount, texts)
    wrong = set(bad)
    losses = np.array([0.0 if row in wrong else float(text) for row, text in enumerate(texts)])
    add("loss", np.flatnonzero(~np.isfinite(losses)).tolist(), "is too large", amount, texts)
    add("loss", np.flatnonzero(losses < 0).tolist(), "is below 0", amount, texts)

    times = column("date")
    dates = [_date(text) for text in times]
    add("date", [row for row, day in enumerate(dates) if day is None], "is not a date", "2005-08-25 or a year", times)
    groups = column("by")
    add("by", [row for row, text in enumerate(groups) if not text], "is empty", "a name", groups)
    if faults:
        raise LossesInvalid(faults)
    given = [day for day in dates if day is not None]
    exact = given if given and all(_DATE.fullmatch(text) for text in times) else None
    return LossRecord(
        file,
        losses,
        np.array([line for line, _ in body], np.int64),
        groups or [""] * len(body),
        np.array([day.year for day in given], np.int64) if given else None,
        None if exact is None else np.array([day.month - 1 for day in exact], np.int64),
        None if exact is None else np.array([_day_of_year(day) for day in exact], np.int64),
    )


def _date(text: str) -> date | None:
    if _YEAR.fullmatch(text) and text != "0000":
        return date(int(text), 1, 1)
    if not _DATE.fullmatch(text):
        return None
    try:
        return date.fromisoformat(text)
    except ValueError:
        return None


def _day_of_year(day: date) -> int:
    # 2001 has no leap day.
    return date(2001, day.month, 28 if (day.month, day.day) == (2, 29) else day.day).timetuple().tm_yday - 1
