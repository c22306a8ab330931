"""Writes a small valid portfolio folder, whole or with something wrong in it.

`Folder` holds every cell as text; a test changes one and asks what the reader says.
"""

import csv
import io
import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from riskmill.portfolio_tables import TABLES

HEAD: dict[str, Any] = {
    "format": 1,
    "name": "Tiny Re",
    "currency": "USD",
    "as_at": "2024-12-31",
    "trials": 1000,
    "seed": 7,
    "group": "all",
}

ROWS: dict[str, list[dict[str, str]]] = {
    "perils": [
        {"peril": "hurricane", "frequency": "negative_binomial", "variance_to_mean": "1.7", "season": ""},
        {"peril": "winter", "frequency": "poisson", "variance_to_mean": "", "season": "3;2;1;0;0;0;0;0;0;0;1;3"},
    ],
    "events": [
        {"event_id": "2", "peril": "winter", "region": "Midwest", "rate": "0.5", "name": ""},
        {"event_id": "1", "peril": "hurricane", "region": "Florida", "rate": "0.25", "name": "Andrew, again"},
        {"event_id": "3", "peril": "hurricane", "region": "Texas", "rate": "0.1", "name": ""},
    ],
    "elts": [
        {
            "elt_id": "E1",
            "event_id": "1",
            "mean_loss": "100",
            "sd_independent": "20",
            "sd_correlated": "",
            "exposure": "900",
        },
        {
            "elt_id": "E1",
            "event_id": "3",
            "mean_loss": "40",
            "sd_independent": "",
            "sd_correlated": "5",
            "exposure": "900",
        },
        {"elt_id": "E2", "event_id": "2", "mean_loss": "60", "sd_independent": "", "sd_correlated": "", "exposure": ""},
        {"elt_id": "E2", "event_id": "1", "mean_loss": "0", "sd_independent": "", "sd_correlated": "", "exposure": ""},
    ],
    "deals": [
        {
            "deal_id": "D1",
            "cedant": "Gulf Mutual",
            "business_unit": "US",
            "inception": "2025-01-01",
            "expiry": "2025-12-31",
            "currency": "USD",
            "brokerage": "0.1",
            "elt_id": "E1",
        },
        {
            "deal_id": "D2",
            "cedant": "Prairie Farm",
            "business_unit": "US",
            "inception": "2025-01-01",
            "expiry": "2025-12-31",
            "currency": "USD",
            "brokerage": "",
            "elt_id": "E2",
        },
    ],
    "layers": [
        {
            "layer_id": "D1-1",
            "deal_id": "D1",
            "type": "CXL",
            "occurrence_retention": "50",
            "occurrence_limit": "100",
            "reinstatements": "1;0.5",
            "premium": "12.5",
            "participation": "0.2",
        },
        {"layer_id": "D1-2", "deal_id": "D1", "type": "QS", "ceded_share": "0.3", "premium": "9"},
        {
            "layer_id": "D2-1",
            "deal_id": "D2",
            "type": "SL",
            "gnpi": "200",
            "attachment_ratio": "0.8",
            "limit_ratio": "0.5",
            "premium": "4",
        },
    ],
    "groups": [
        {"group_id": "all", "member_type": "group", "member_id": "us", "group_name": "Whole portfolio"},
        {"group_id": "us", "member_type": "deal", "member_id": "D1", "group_name": ""},
        {"group_id": "us", "member_type": "deal", "member_id": "D2", "group_name": ""},
    ],
    "outwards": [
        {
            "contract_id": "R1",
            "name": "Cat retro",
            "group_id": "all",
            "priority": "1",
            "type": "CXL",
            "occurrence_retention": "30",
            "occurrence_limit": "60",
            "reinstatements": "none",
            "premium": "3",
            "participation": "0.9",
        }
    ],
}

#: Kinds of columns whose cells a Parquet file holds as numbers.
_PARQUET_TYPES = {"number": (pa.float64(), float), "integer": (pa.int64(), int)}


class Folder:
    """The files of a portfolio folder before they are written; change `head`, `rows` or `raw`."""

    def __init__(self) -> None:
        self.head = deepcopy(HEAD)
        self.rows = deepcopy(ROWS)
        #: bytes of a file, whatever the above say; None leaves it out
        self.raw: dict[str, bytes | None] = {}

    def columns(self, table: str) -> list[str]:
        """Return the columns that any row has, in the order of the format, then unknown ones."""
        used = dict.fromkeys(name for row in self.rows[table] for name in row)
        known = [column.name for column in TABLES[table].columns if column.name in used]
        return known + [name for name in used if name not in known]

    def csv(self, table: str) -> bytes:
        """Return one table as CSV."""
        text = io.StringIO()
        writer = csv.DictWriter(text, self.columns(table), restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows[table])
        return text.getvalue().encode()

    def parquet(self, table: str) -> bytes:
        """Return one table as Parquet, numbers as numbers and dates as dates."""
        arrays = {}
        for name in self.columns(table):
            cells = [row.get(name) or None for row in self.rows[table]]
            kind = TABLES[table].column(name).kind
            if kind in _PARQUET_TYPES:
                dtype, make = _PARQUET_TYPES[kind]
                arrays[name] = pa.array([None if cell is None else make(cell) for cell in cells], dtype)
            elif kind == "date":
                arrays[name] = pa.array(cells, pa.string()).cast(pa.date32())
            else:
                arrays[name] = pa.array(cells, pa.string())
        sink = io.BytesIO()
        pq.write_table(pa.table(arrays), sink)
        return sink.getvalue()

    def write(self, path: Path, *, parquet: bool = False) -> Path:
        """Write the folder and return its path."""
        path.mkdir(parents=True, exist_ok=True)
        files: dict[str, bytes | None] = {"portfolio.json": json.dumps(self.head).encode()}
        for table in self.rows:
            files[f"{table}.{'parquet' if parquet else 'csv'}"] = self.parquet(table) if parquet else self.csv(table)
        for name, data in (files | self.raw).items():
            if data is not None:
                (path / name).write_bytes(data)
        return path


def write_tiny_portfolio(path: Path, *, parquet: bool = False) -> Path:
    """Write the small valid folder (2 deals, 3 layers, 2 groups, 1 retro contract) and return its path."""
    return Folder().write(path, parquet=parquet)
