"""Read a golden book: small CSV tables in, the models' inputs out."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from riskmill.outputs import Arrays

type Row = dict[str, str]

HERE = Path(__file__).parent
BOOKS = sorted(path.parent for path in HERE.glob("*/book.json"))

_AMOUNTS = (
    "ceded_share",
    "occurrence_retention",
    "occurrence_limit",
    "aggregate_deductible",
    "aggregate_limit",
    "premium",
    "participation",
)


def table(book: Path, name: str) -> list[Row]:
    """Return the rows of a table of the book; none when the book lacks it."""
    path = book / f"{name}.csv"
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def settings(book: Path) -> dict[str, Any]:
    """Return the book's trials and tail."""
    found: dict[str, Any] = json.loads((book / "book.json").read_text(encoding="utf-8"))
    return found


def terms(row: Row) -> dict[str, Any]:
    """Return the terms of a row; empty cells leave the default."""
    found: dict[str, Any] = {"type": row["type"]}
    found |= {name: float(row[name]) for name in _AMOUNTS if row.get(name)}
    charges = row.get("reinstatements")
    if charges:
        found["reinstatements"] = [] if charges == "none" else [float(charge) for charge in charges.split(";")]
    return found


def yets(book: Path, trials_per_block: int) -> list[Arrays]:
    """Return the book's YET in blocks."""
    rows, trials = table(book, "yet"), settings(book)["trials"]
    blocks = []
    for first in range(0, trials, trials_per_block):
        size = min(trials_per_block, trials - first)
        block = [row for row in rows if first <= int(row["trial"]) < first + size]
        blocks.append(
            Arrays(
                {
                    "trial": np.array([int(row["trial"]) - first for row in block], np.int32),
                    "day": np.array([int(row["day"]) for row in block], np.int16),
                    "event": np.array([int(row["event_id"]) for row in block], np.int32),
                    "trials": np.array([size], np.int64),
                }
            )
        )
    return blocks


def elt(rows: Sequence[Row]) -> Arrays:
    """Return the ELT of these rows."""
    ordered = sorted(rows, key=lambda row: int(row["event_id"]))
    return Arrays(
        {
            "event": np.array([int(row["event_id"]) for row in ordered], np.int32),
            "mean": np.array([float(row["mean_loss"]) for row in ordered], np.float64),
        }
    )
