"""Reads one table of a portfolio folder, CSV or Parquet, as columns of raw cells with the line of every row.

Cells keep the form in which they stand in the file (a CSV's are text); what they mean is checked afterwards, so that
a bad cell can be quoted as it was written.
"""

import csv
import difflib
import io
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from riskmill.checks import MAX_TEXT, FaultList, shown
from riskmill.portfolio_tables import TABLES, Table

SUFFIXES = (".csv", ".parquet")

_UTF8_BOM = b"\xef\xbb\xbf"

#: A longer first line is no header, and more than Python's csv module takes for one cell.
_MAX_HEADER = 100_000


@dataclass(frozen=True, slots=True)
class Sheet:
    """A table as it was read: raw columns by name, and where its rows stand in the file."""

    table: Table
    file: str
    rows: int
    columns: dict[str, pa.ChunkedArray]
    #: line of each row; None when row 0 is at `first_line` and each other on the next
    lines: "np.ndarray[Any, np.dtype[np.int64]] | None"
    first_line: int
    #: whether every row could be read; if not, nothing can be said to be missing from this table
    whole: bool = True

    def line(self, row: int) -> int:
        """Return where a row stands: its line in a CSV (the header is line 1), its number from 1 in Parquet."""
        return self.first_line + row if self.lines is None else int(self.lines[row])


def read_sheet(folder: Path, table: Table, faults: FaultList) -> Sheet | None:
    """Read one table; None when there is none to read. Whatever is wrong with the file as such is added to `faults`."""
    found = [folder / f"{table.name}{suffix}" for suffix in SUFFIXES if (folder / f"{table.name}{suffix}").exists()]
    if not found:
        if not table.optional:
            faults.add(f"{table.name}.csv", None, "is missing", f"{table.name}.csv or {table.name}.parquet")
        return None
    if len(found) > 1:
        names = " and ".join(path.name for path in found)
        faults.add(found[0].name, None, f"both {names} are there", "one of them")
        return None
    [path] = found
    try:
        if path.suffix == ".csv":
            return _read_csv(path.name, path.read_bytes(), table, faults)
        return _read_parquet(path, table, faults)
    except OSError as error:
        # pyarrow's errors about a file's content are ValueErrors or OSErrors without a number
        faults.add(path.name, None, f"cannot be read: {error.strerror or _first_line(error)}")
    except pa.ArrowException as error:
        faults.add(path.name, None, f"cannot be read: {_first_line(error)}")
    return None


def read_file(path: Path, table: Table, names: Mapping[str, str], faults: FaultList) -> Sheet | None:
    """Read one table from a file of any name, CSV or Parquet, whose columns may be spelt in other ways.

    `names`: the column's name by each spelling in small letters. None when the file cannot be read.
    """
    try:
        if path.suffix.lower() == ".parquet":
            content = _parquet_content(path)
            content = content.rename_columns([names.get(name.lower(), name) for name in content.column_names])
            known = _check_header(path.name, content.column_names, table, faults)
            return _sheet(path.name, table, content, None, 1, faults) if known else None
        data = path.read_bytes().removeprefix(_UTF8_BOM)
        head, ending, rest = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n").partition(b"\n")
        spelt = [names.get(name.lower(), name) for name in next(csv.reader([head.decode(errors="replace")]), [])]
        line = io.StringIO()
        csv.writer(line, lineterminator="").writerow(spelt)
        return _read_csv(path.name, line.getvalue().encode() + ending + rest, table, faults)
    except OSError as error:
        faults.add(path.name, None, f"cannot be read: {error.strerror or _first_line(error)}")
    except pa.ArrowException as error:
        faults.add(path.name, None, f"cannot be read: {_first_line(error)}")
    return None


def misspelt_tables(folder: Path, faults: FaultList) -> None:
    """Add a fault for each file whose name nearly is a table's: it would be left out without a word."""
    names = [f"{table}{suffix}" for table in TABLES for suffix in SUFFIXES]
    for path in sorted(folder.iterdir()):
        lower = path.name.lower()
        if path.name in names or not lower.endswith(SUFFIXES):
            continue
        near = difflib.get_close_matches(lower, names, n=1, cutoff=0.85)
        if near:
            faults.add(path.name, None, f"is not a table of a portfolio (did you mean {near[0]}?)", ", ".join(TABLES))


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _parquet_content(path: Path) -> pa.Table:
    """Return what a Parquet file holds. Raises OSError or pa.ArrowException."""
    # ParquetFile, not read_table: that one would take a folder of this name for a data set
    with path.open("rb") as stream:
        try:
            return pq.ParquetFile(stream).read()
        except UnicodeDecodeError as error:  # a damaged column's name
            raise pa.ArrowInvalid(f"a name in it is not UTF-8: {error}") from error


def _read_parquet(path: Path, table: Table, faults: FaultList) -> Sheet | None:
    content = _parquet_content(path)
    if not _check_header(path.name, content.column_names, table, faults):
        return None
    return _sheet(path.name, table, content, None, 1, faults)


def _sheet(
    file: str,
    table: Table,
    content: pa.Table,
    lines: "np.ndarray[Any, np.dtype[np.int64]] | None",
    first_line: int,
    faults: FaultList,
    *,
    whole: bool = True,
) -> Sheet | None:
    if content.num_rows == 0 and not table.optional:
        faults.add(file, None, "has no rows", "at least one row")
        return None
    known = {column.name for column in table.columns}
    columns = {name: content.column(name) for name in content.column_names if name in known}
    return Sheet(table, file, content.num_rows, columns, lines, first_line, whole)


def _field(name: str) -> str:
    """Return a column's name as a fault prints it."""
    return name if name.strip() and name.isprintable() and len(name) <= MAX_TEXT else shown(name)


def _check_header(file: str, names: list[str], table: Table, faults: FaultList) -> bool:
    """Add what is wrong with the columns' names; return whether each name stands for one column."""
    known = [column.name for column in table.columns]
    if len(names) == 1 and len(known) > 1:
        for separator, called in ((";", "';'"), ("\t", "tabs")):
            if separator in names[0]:
                faults.add(file, None, f"columns are separated by {called}", "a comma")
                return False
    times = Counter(names)
    for name, count in times.items():
        if count > 1:
            faults.add(file, _field(name), f"stands {count} times in the header", "once")
    for name in times:
        if name not in known:
            near = difflib.get_close_matches(name.strip().lower(), known, n=1, cutoff=0.6)
            hint = f" (did you mean {near[0]}?)" if near else ""
            faults.add(file, _field(name), f"is not a column of {table.name}{hint}", ", ".join(known))
    for column in table.columns:
        if column.required and column.name not in times:
            faults.add(file, column.name, "this column is missing", column.allowed)
    return max(times.values(), default=1) == 1


def _read_csv(file: str, data: bytes, table: Table, faults: FaultList) -> Sheet | None:
    data = data.removeprefix(_UTF8_BOM)
    if b"\r" in data:
        data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    if not _is_text(file, data, faults) or not _quotes_end(file, data, faults):
        return None
    first = data.lstrip(b"\n").split(b"\n", 1)[0].decode()
    if not first:
        faults.add(file, None, "is empty", "a header and at least one row")
        return None
    if len(first) > _MAX_HEADER:
        faults.add(file, None, f"has a first line of {len(first):,} characters", "names of columns")
        return None
    header = next(csv.reader([first]))
    if not _check_header(file, header, table, faults):
        return None
    blank = _blank_lines(data)
    if b"\n" not in data.strip(b"\n"):  # pyarrow refuses a file with nothing but a header
        return _sheet(file, table, pa.table({name: pa.array([], pa.string()) for name in header}), None, 2, faults)
    ragged: list[tuple[int, int]] = []

    def skip(row: pyarrow.csv.InvalidRow) -> str:
        ragged.append((row.number, row.actual_columns))
        return "skip"

    content = pyarrow.csv.read_csv(
        pa.py_buffer(data),
        # one thread: only then does pyarrow number the rows that do not fit
        read_options=pyarrow.csv.ReadOptions(use_threads=False),
        parse_options=pyarrow.csv.ParseOptions(invalid_row_handler=skip),
        convert_options=pyarrow.csv.ConvertOptions(
            check_utf8=False,
            column_types={name: pa.string() for name in header},
            include_columns=[column.name for column in table.columns if column.name in header],
            null_values=[""],
            strings_can_be_null=True,
        ),
    )
    lines = None
    if blank.size or ragged:
        # rows are the lines that are neither blank nor ragged; pyarrow numbers lines without the blank ones, from 1
        lines = np.setdiff1d(np.arange(1, data.count(b"\n") + 2, dtype=np.int64), blank, assume_unique=True)
        if ragged:
            at = lines[np.array([number - 1 for number, _ in ragged])]
            found = {int(line): count for line, (_, count) in zip(at, ragged, strict=True)}
            faults.add_rows(
                file,
                None,
                sorted(found),
                kind="the row has not as many cells as the header",
                allowed=f"{len(header)} cells",
                line=int,
                problem=lambda line: f"the row has {found[line]} cells and the header {len(header)}",
            )
            lines = np.setdiff1d(lines, at, assume_unique=True)
        lines = lines[1:]
    if content.num_rows == 0 and ragged:
        return None
    return _sheet(file, table, content, lines, 2, faults, whole=not ragged)


def _is_text(file: str, data: bytes, faults: FaultList) -> bool:
    """Check that a file is UTF-8, and name the lines that are not."""
    try:
        data.decode()
    except UnicodeDecodeError:
        bad: dict[int, bytes] = {}
        for number, line in enumerate(data.split(b"\n"), start=1):
            try:
                line.decode()
            except UnicodeDecodeError as error:
                bad[number] = line[error.start : error.start + 1]
        faults.add_rows(
            file,
            None,
            sorted(bad),
            kind="has bytes that are not UTF-8",
            allowed="text in UTF-8",
            line=int,
            problem=lambda number: f"has a byte that is not UTF-8: 0x{bad[number].hex()}",
        )
        return False
    return True


def _quotes_end(file: str, data: bytes, faults: FaultList) -> bool:
    """Check that every quoted cell ends on its line, so that rows are lines. No cell may hold a line break anyway."""
    if b'"' not in data:
        return True
    buffer = np.frombuffer(data, np.uint8)
    ends = np.append(np.flatnonzero(buffer == ord("\n")), buffer.size)
    quotes = np.searchsorted(np.flatnonzero(buffer == ord('"')), ends)
    odd = np.flatnonzero(np.diff(quotes, prepend=0) % 2 == 1)
    # the first one tells where to look: after it, quotes open and close on the wrong side
    faults.add_rows(
        file,
        None,
        odd[:1].tolist(),
        kind="a quoted cell does not end on its line",
        allowed='cells without line breaks, and a quote within quotes doubled: ""',
        line=lambda row: row + 1,
    )
    return odd.size == 0


def _blank_lines(data: bytes) -> "np.ndarray[Any, np.dtype[np.int64]]":
    """Return the lines without a character, counted from 1."""
    if not data.startswith(b"\n") and b"\n\n" not in data:
        return np.empty(0, np.int64)
    ends = np.append(np.flatnonzero(np.frombuffer(data, np.uint8) == ord("\n")), len(data))
    return (np.flatnonzero(np.diff(ends, prepend=-1) == 1) + 1).astype(np.int64)
