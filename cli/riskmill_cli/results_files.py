"""Write a rollup's tables as CSV and Parquet files with identical values."""

from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.parquet as pq

from riskmill.results import Summary, Table, tables

type Format = Literal["csv", "parquet"]

FORMATS: tuple[Format, ...] = ("csv", "parquet")

#: Arrow type of each kind of column
ARROW = {"text": pa.string(), "int32": pa.int32(), "float64": pa.float64(), "bool": pa.bool_()}


def to_arrow(table: Table) -> pa.Table:
    """The table as an Arrow table: same columns, same order, typed; None is null."""
    schema = pa.schema([pa.field(column.name, ARROW[column.kind]) for column in table.columns])
    columns = list(zip(*table.rows, strict=True)) if table.rows else [()] * len(table.columns)
    return pa.table(
        [pa.array(values, field.type) for values, field in zip(columns, schema, strict=True)], schema=schema
    )


def write_tables(summary: Summary, folder: Path, formats: Iterable[Format] = FORMATS) -> list[Path]:
    """Write `<table>.csv` and `<table>.parquet` for every table into `folder` (made if missing); return the paths.

    Raises OSError when the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    wanted = tuple(formats)
    return [path for table in tables(summary) for path in write_table(table, folder, wanted)]


def write_table(table: Table, folder: Path, formats: Iterable[Format] = FORMATS) -> list[Path]:
    """Write one table into a folder that exists; return the paths. Raises OSError."""
    written: list[Path] = []
    for kind in formats:
        path = folder / f"{table.name}.{kind}"
        if kind == "csv":
            path.write_text(table.to_csv(), encoding="utf-8", newline="")
        else:
            pq.write_table(to_arrow(table), path, compression="zstd")
        written.append(path)
    return written
