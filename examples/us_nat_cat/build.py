"""Build the example portfolio: `python examples/us_nat_cat/build.py --size small|full [--out DIR] [--format csv]`.

1. Fit frequency, season and severity of each peril to the record (nat_cat_record.py).
2. Make the market: stochastic events with their loss by state, and cedants with shares of it (nat_cat_market.py).
3. Make the book: ELTs, deals, layers, groups and retro (nat_cat_book.py).
4. Write the folder. The same size gives the same bytes each time (with the same library versions).
"""

import argparse
import json
import time
from csv import DictReader
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from nat_cat_book import TOP, Book, Row, make_book
from nat_cat_market import Market, make_cedants, make_market
from nat_cat_record import FIRST_YEAR, HERE, LAST_YEAR, MAXIMUM, PERILS, RECORD, THRESHOLD, fit_record
from pyarrow import csv, parquet


@dataclass(frozen=True, slots=True)
class Size:
    """How much of everything."""

    events: int
    cedants: dict[str, int]
    deals: int
    trials: int
    #: typical line on a layer, USD
    line: float
    format: str
    #: replicates of the bootstrap of the fits to the record of losses
    fit_replicates: int
    #: and of the top group's tail: minutes of fits, which the planner sends to Fargate
    tail_replicates: int = 0


SIZES = {
    "small": Size(
        5_000, {"national": 8, "super_regional": 16, "regional": 86, "crop": 10}, 300, 20_000, 8_000_000.0, "csv", 1_000
    ),
    "full": Size(
        50_000,
        {"national": 12, "super_regional": 60, "regional": 568, "crop": 60},
        7_000,
        100_000,
        3_500_000.0,
        "parquet",
        10_000,
        12_000,
    ),
}
SEED = 20240701

#: Columns of the tables that are written from rows, and whether each is text, a number or a date.
COLUMNS: dict[str, dict[str, pa.DataType]] = {
    "deals": {
        **dict.fromkeys(("deal_id", "cedant", "business_unit"), pa.string()),
        **dict.fromkeys(("inception", "expiry"), pa.date32()),
        "currency": pa.string(),
        "brokerage": pa.float64(),
        "elt_id": pa.string(),
    },
    "groups": dict.fromkeys(("group_id", "member_type", "member_id", "group_name"), pa.string()),
}
_TERMS: dict[str, pa.DataType] = {
    "type": pa.string(),
    **dict.fromkeys(
        ("ceded_share", "occurrence_retention", "occurrence_limit", "aggregate_deductible", "aggregate_limit"),
        pa.float64(),
    ),
    "reinstatements": pa.string(),
    **dict.fromkeys(("premium", "participation", "gnpi", "attachment_ratio", "limit_ratio"), pa.float64()),
}
COLUMNS["layers"] = {**dict.fromkeys(("layer_id", "deal_id"), pa.string()), **_TERMS}
COLUMNS["outwards"] = {
    **dict.fromkeys(("contract_id", "name", "group_id"), pa.string()),
    "priority": pa.int64(),
    **_TERMS,
}


def market_of(size: str) -> Market:
    """Return the market of a size: what `compare.py` simulates."""
    return make_market(fit_record(), SIZES[size].events)


def build(size: str, out: Path, table_format: str | None = None) -> Book:
    """Write the portfolio folder of a size into `out`, replacing tables that are there; return the book."""
    what = SIZES[size]
    market = market_of(size)
    book = make_book(market, make_cedants(market, what.cedants), what.deals, what.line)
    tables = {
        "perils": _perils(market),
        "events": _events(market),
        "elts": _elts(book),
        "loss_record": _loss_record(),
    }
    for name, rows in (
        ("deals", book.deals),
        ("layers", book.layers),
        ("groups", book.groups),
        ("outwards", book.outwards),
    ):
        tables[name] = _table(rows, COLUMNS[name])
    out.mkdir(parents=True, exist_ok=True)
    for name, table in tables.items():
        for suffix in ("csv", "parquet"):
            (out / f"{name}.{suffix}").unlink(missing_ok=True)
        _write(table, out / f"{name}.{table_format or what.format}")
    (out / "portfolio.json").write_text(json.dumps(_head(size, what), indent=2) + "\n", encoding="utf-8")
    return book


def _head(size: str, what: Size) -> dict[str, Any]:
    return {
        "format": 1,
        "name": f"US natural catastrophe, {size}",
        "description": (
            "An invented reinsurer's book on a stochastic catalogue fitted to the US billion-dollar disasters of "
            f"{FIRST_YEAR}-{LAST_YEAR} (NOAA NCEI). Assumptions: docs/example.md."
        ),
        "currency": "USD",
        "as_at": "2024-07-01",
        "trials": what.trials,
        "seed": SEED,
        "group": TOP,
        "fit_replicates": what.fit_replicates,
        "record_first_year": FIRST_YEAR,
        "record_last_year": LAST_YEAR,
    } | ({"tail_fit_replicates": what.tail_replicates} if what.tail_replicates else {})


def _perils(market: Market) -> pa.Table:
    fits = market.fits
    return pa.table(
        {
            "peril": list(fits),
            "frequency": [fit.law for fit in fits.values()],
            "variance_to_mean": pa.array(
                [None if fit.law == "poisson" else round(fit.variance_to_mean, 6) for fit in fits.values()],
                pa.float64(),
            ),
            # Events of the record that began in each month.
            "season": [";".join(str(month) for month in fit.record.months) for fit in fits.values()],
            # USD million, as the record.
            "record_threshold": [THRESHOLD] * len(fits),
            "record_maximum": [MAXIMUM[peril] for peril in fits],
        }
    )


def _loss_record() -> pa.Table:
    """Return the record as a portfolio has it: economic losses in USD million."""
    perils = {name: peril for peril, name in PERILS.items()}
    with RECORD.open(newline="", encoding="utf-8") as file:
        rows = list(DictReader(file))
    return pa.table(
        {
            "peril": [perils[row["peril"]] for row in rows],
            "date": [date.fromisoformat(row["begin"]) for row in rows],
            "loss": [float(row["cost_usd_m_cpi_adjusted"]) for row in rows],
            "name": [row["name"] for row in rows],
        }
    )


def _events(market: Market) -> pa.Table:
    names = np.array(market.states.names)
    return pa.table(
        {
            "event_id": market.event,
            "peril": np.array(list(PERILS))[market.peril],
            "region": names[market.state],
            # Nine digits: the sum of the rates is off by less than a billionth.
            "rate": np.array([float(f"{rate:.9g}") for rate in market.rate]),
        }
    )


def _elts(book: Book) -> pa.Table:
    sizes = [elt["event_id"].size for elt in book.elts]
    codes = pa.array(np.repeat(np.arange(len(sizes), dtype=np.int32), sizes))
    columns = {name: np.concatenate([elt[name] for elt in book.elts]) for name in book.elts[0]}
    # Losses are whole dollars.
    amounts = {name: values.astype(np.int64) for name, values in columns.items()}
    return pa.table({"elt_id": pa.DictionaryArray.from_arrays(codes, book.elt_ids).cast(pa.string()), **amounts})


def _table(rows: list[Row], columns: dict[str, pa.DataType]) -> pa.Table:
    used = {name: kind for name, kind in columns.items() if any(row.get(name) is not None for row in rows)}
    return pa.table({name: pa.array([row.get(name) for row in rows], kind) for name, kind in used.items()})


def _write(table: pa.Table, path: Path) -> None:
    if path.suffix == ".parquet":
        parquet.write_table(table, path, compression="zstd")
    else:
        csv.write_csv(table, path, csv.WriteOptions(quoting_style="needed"))


def main() -> None:
    """Build one size and say what was made."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--size", choices=SIZES, default="small")
    parser.add_argument("--out", type=Path, help="folder to write (default: beside this script, named by the size)")
    parser.add_argument(
        "--format", choices=("csv", "parquet"), help="of every table (default: csv small, parquet full)"
    )
    arguments = parser.parse_args()
    out = arguments.out or HERE / arguments.size
    start = time.perf_counter()
    book = build(arguments.size, out, arguments.format)
    rows = sum(elt["event_id"].size for elt in book.elts)
    print(
        f"{out}: {len(book.deals):,} deals, {len(book.layers):,} layers, {len(book.elts):,} ELTs of {rows:,} rows, "
        f"{time.perf_counter() - start:.1f} s"
    )


if __name__ == "__main__":
    main()
