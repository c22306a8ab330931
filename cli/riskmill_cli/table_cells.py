"""Reads the cells of a table: what each one means, and every one that means nothing.

A whole column at a time: texts once for each distinct value, numbers as arrays, so that a million rows take about a
second. Only the rows that a fault lists are looked at one by one.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from riskmill.checks import MAX_ID, MAX_TEXT, FaultList, shown, text_problem
from riskmill.outputs import Array
from riskmill.portfolio_tables import NUMBER, WHOLE_NUMBER, Column, parse_reinstatements, parse_season
from riskmill_cli.table_files import Sheet

_THOUSANDS = re.compile(r"[+-]?[0-9]{1,3}([,' ][0-9]{3})+(\.[0-9]+)?")

type Bools = np.ndarray[Any, np.dtype[np.bool_]]
type Ints = np.ndarray[Any, np.dtype[np.int64]]
type Floats = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True, slots=True)
class Texts:
    """A column of texts: for each row the number of its value, -1 where the cell is empty and -2 where it is wrong."""

    codes: Ints
    #: what the distinct cells mean: a str, a date, charges, weights
    values: list[Any]

    def at(self, row: int) -> Any:
        """Return the value of a row, None where there is none."""
        code = self.codes[row]
        return None if code < 0 else self.values[code]

    def rows(self) -> list[Any]:
        """Return the value of every row, None where there is none."""
        return [None if code < 0 else self.values[code] for code in self.codes.tolist()]

    def where(self, wrong: Callable[[Any], bool]) -> list[int]:
        """Return the rows whose value is wrong; asked once for each distinct value."""
        bad = np.array([*(wrong(value) for value in self.values), False, False], np.bool_)
        return np.flatnonzero(bad[self.codes]).tolist()


@dataclass(frozen=True, slots=True)
class Numbers:
    """A column of numbers, NaN (or 0 in a column of whole numbers) where the cell is empty or wrong."""

    values: Array
    given: Bools
    ok: Bools


@dataclass(frozen=True, slots=True)
class Cells:
    """The columns of one table, as far as they can be used: one that is missing or unreadable is not there."""

    sheet: Sheet
    texts: dict[str, Texts]
    numbers: dict[str, Numbers]

    @property
    def file(self) -> str:
        return self.sheet.file


def read_cells(sheet: Sheet, faults: FaultList) -> Cells:
    """Check every cell of a table by itself."""
    cells = Cells(sheet, {}, {})
    for column in sheet.table.columns:
        raw = sheet.columns.get(column.name)
        if raw is None:
            if column.required:  # the header's fault; whatever needs this column is not checked
                continue
            raw = pa.chunked_array([pa.nulls(sheet.rows)])
        array = _plain(raw)
        if column.kind in ("number", "integer"):
            numbers = _read_numbers(sheet, column, array, faults)
            if numbers is not None:
                cells.numbers[column.name] = numbers
        else:
            texts = _read_texts(sheet, column, array, faults)
            if texts is not None:
                cells.texts[column.name] = texts
    return cells


def _plain(raw: pa.ChunkedArray) -> pa.Array:
    """Return a column in one piece, dictionaries unfolded, every kind of text as `string`, empty texts as null."""
    if pa.types.is_dictionary(raw.type):
        raw = raw.cast(raw.type.value_type)
    if pa.types.is_large_string(raw.type) or pa.types.is_string_view(raw.type):
        raw = raw.cast(pa.string())
    array = pa.concat_arrays(raw.chunks) if raw.num_chunks else pa.array([], raw.type)
    if pa.types.is_string(array.type):
        array = pc.replace_with_mask(array, pc.fill_null(pc.equal(array, ""), False), pa.scalar(None, pa.string()))
    return array


def _wrong_type(sheet: Sheet, column: Column, array: pa.Array, faults: FaultList) -> None:
    faults.add(sheet.file, column.name, f"the column has type {array.type}", column.allowed)


def _read_texts(sheet: Sheet, column: Column, array: pa.Array, faults: FaultList) -> Texts | None:
    """Check a column of texts, each distinct one once. None when its type cannot be one."""
    kind = array.type
    if column.kind == "date" and (pa.types.is_date(kind) or pa.types.is_timestamp(kind)):
        try:
            array = array.cast(pa.date32()).cast(pa.string())
        except pa.ArrowInvalid:  # a time of day
            _wrong_type(sheet, column, array, faults)
            return None
    elif pa.types.is_null(kind) or (pa.types.is_integer(kind) and column.kind in ("id", "text", "charges", "season")):
        array = array.cast(pa.string())
    elif pa.types.is_floating(kind) and column.kind == "charges":
        array = pa.array([None if cell is None else repr(cell) for cell in array.to_pylist()], pa.string())
    elif not pa.types.is_string(kind):
        _wrong_type(sheet, column, array, faults)
        return None
    encoded = array.dictionary_encode()
    codes: Ints = pc.fill_null(encoded.indices, -1).to_numpy(zero_copy_only=False).astype(np.int64)
    if column.required:
        add_rows(faults, sheet, column, codes == -1, "is empty")
    values: list[Any] = []
    problems: dict[str, dict[int, str]] = {}
    for code, text in enumerate(encoded.dictionary.to_pylist()):
        value, wrong, problem = _parse_text(column, text)
        values.append(value)
        if wrong is not None:
            problems.setdefault(wrong, {})[code] = problem
    if problems:
        codes_read = codes
        bad = np.zeros(len(values) + 1, np.bool_)  # the last one is for -1
        for wrong, messages in problems.items():
            these = np.zeros(len(values) + 1, np.bool_)
            these[list(messages)] = True
            bad |= these
            add_rows(
                faults,
                sheet,
                column,
                these[codes],
                wrong,
                lambda row, messages=messages: messages[int(codes_read[row])],  # type: ignore[misc]
            )
        codes = np.where(bad[codes], -2, codes)
    return Texts(codes, values)


def _parse_text(column: Column, text: str) -> tuple[Any, str | None, str]:
    """Return what a cell means, the kind of problem that it has (None for none), and the problem."""
    match column.kind:
        case "id":
            problem = text_problem(text, MAX_ID)
            return text, None if problem is None else "is not an id", problem or ""
        case "text":
            problem = text_problem(text, MAX_TEXT)
            return text, None if problem is None else "is not a name", problem or ""
        case "choice":
            wrong = None if text in column.choices else "is not a known value"
            return text, wrong, f"{shown(text)} is not known"
        case "date":
            return *_parse_date(text), f"{shown(text)} is not a date"
        case "charges":
            charges = parse_reinstatements(text)
            return charges, None if charges is not None else "is not a list", f"{shown(text)} is not a list of charges"
        case _:
            weights = parse_season(text)
            return (
                weights,
                None if weights is not None else "is not a list",
                f"{shown(text)} is not a list of 12 weights",
            )


def _parse_date(text: str) -> tuple[date | None, str | None]:
    try:
        # fromisoformat also takes 20240131 and 2024-W05-3
        if len(text) == len("2024-01-31") and text[4] == text[7] == "-":
            return date.fromisoformat(text), None
    except ValueError:
        pass
    return None, "is not a date"


def _read_numbers(sheet: Sheet, column: Column, array: pa.Array, faults: FaultList) -> Numbers | None:
    """Check a column of numbers. None when its type cannot be one."""
    kind = array.type
    whole = column.kind == "integer"
    given: Bools = array.is_valid().to_numpy(zero_copy_only=False)
    is_text = pa.types.is_string(kind) or pa.types.is_null(kind)
    is_number = pa.types.is_integer(kind) or (not whole and (pa.types.is_floating(kind) or pa.types.is_decimal(kind)))
    if not is_text and not is_number:
        _wrong_type(sheet, column, array, faults)
        return None
    if column.required:
        add_rows(faults, sheet, column, ~given, "is empty")
    if is_text:
        array = array.cast(pa.string())
        values, ok = _parse_numbers(sheet, column, array, given, faults)
    else:
        # unsafe: a whole number beyond 2^53 is rounded, and so it would be in a CSV
        values = array.cast(pa.float64(), safe=False).fill_null(np.nan).to_numpy(zero_copy_only=False)
        ok = given

    def says(row: int) -> str:
        return shown(array[row].as_py()) if pa.types.is_string(array.type) else str(array[row].as_py())

    finite: Bools = np.isfinite(values)
    add_rows(
        faults, sheet, column, ok & ~finite, "is not a finite number", lambda row: f"{says(row)} is not a finite number"
    )
    ok = ok & finite
    if column.minimum is not None:
        low = ok & ((values <= column.minimum) if column.above else (values < column.minimum))
        wrong = f"is {'not above' if column.above else 'below'} {column.minimum:.15g}"
        add_rows(faults, sheet, column, low, wrong, lambda row: f"{says(row)} {wrong}")
        ok = ok & ~low
    if column.maximum is not None:
        high = ok & (values > column.maximum)
        above = f"is above {column.maximum:.15g}"
        add_rows(faults, sheet, column, high, above, lambda row: f"{says(row)} {above}")
        ok = ok & ~high
    if whole:
        return Numbers(np.where(ok, values, 0).astype(np.int64), given, ok)
    return Numbers(np.where(ok, values, np.nan) + 0.0, given, ok)  # + 0.0 turns -0 into 0


def _parse_numbers(
    sheet: Sheet, column: Column, array: pa.Array, given: Bools, faults: FaultList
) -> tuple[Floats, Bools]:
    """Return the numbers that texts stand for, and where they stand for one. `nan` and `inf` are numbers here."""
    whole = column.kind == "integer"
    pattern = WHOLE_NUMBER if whole else f"{NUMBER}|(?i:[+-]?(?:nan|inf|infinity))"
    matches = pc.fill_null(pc.match_substring_regex(array, f"^(?:{pattern})$"), False)
    ok: Bools = matches.to_numpy(zero_copy_only=False)
    wrong = "is not a whole number" if whole else "is not a number"

    def problem(row: int) -> str:
        text = array[row].as_py()
        hint = "; write it without thousands separators" if _THOUSANDS.fullmatch(text) else ""
        return f"{shown(text)} {wrong}{hint}"

    add_rows(faults, sheet, column, given & ~ok, wrong, problem)
    if not ok.all():
        array = pc.if_else(matches, array, pa.scalar(None, pa.string()))
    # whole numbers too: a double holds those in range exactly, and those out of range stay out of it
    return array.cast(pa.float64()).fill_null(np.nan).to_numpy(zero_copy_only=False), ok


def add_rows(
    faults: FaultList,
    sheet: Sheet,
    column: Column,
    rows: Bools | Sequence[int],
    kind: str,
    problem: Callable[[int], str] | None = None,
    allowed: str | None = None,
) -> None:
    """Add a problem of one column's rows (a mask, or row numbers)."""
    numbers = np.flatnonzero(rows) if isinstance(rows, np.ndarray) else rows
    faults.add_rows(
        sheet.file,
        column.name,
        numbers,  # type: ignore[arg-type]
        kind=kind,
        allowed=column.allowed if allowed is None else allowed,
        line=sheet.line,
        problem=problem,
    )


def repeated(keys: Ints, ok: Bools) -> tuple[Ints, Ints]:
    """Return the rows whose key another row before them has, and that first row of each."""
    rows = np.flatnonzero(ok)
    rows = rows[np.argsort(keys[rows], kind="stable")]
    again = np.zeros(rows.size, np.bool_)
    again[1:] = keys[rows[1:]] == keys[rows[:-1]]
    first = rows[np.maximum.accumulate(np.where(again, 0, np.arange(rows.size)))]
    at = np.argsort(rows[again])
    return rows[again][at], first[again][at]
