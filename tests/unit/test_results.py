"""The summary's contract and the tables made from it."""

import csv
import io
import json
import math
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from browser.synthetic_summary import RETURN_PERIODS, make_summary
from riskmill.results import (
    Summary,
    deals_table,
    ep_table,
    ept_table,
    groups_table,
    layers_table,
    summary_info_table,
    tables,
)
from riskmill_cli.results_files import write_tables


@pytest.fixture(scope="module")
def summary() -> Summary:
    return make_summary(deals=12, trials=500)


def test_a_summary_survives_its_json(summary: Summary) -> None:
    assert Summary.model_validate_json(summary.to_json()) == summary


def test_nan_and_infinity_become_null_in_json(summary: Summary) -> None:
    data = summary.model_dump()
    data["tvar"], data["portfolio"]["premium"] = math.nan, math.inf
    written = json.loads(Summary.model_validate(data).to_json())
    assert written["tvar"] is None
    assert written["portfolio"]["premium"] is None


def test_a_field_that_the_contract_does_not_know_is_refused(summary: Summary) -> None:
    with pytest.raises(ValidationError, match="surprise"):
        Summary.model_validate(summary.model_dump() | {"surprise": 1})


def test_the_ept_has_exactly_ords_columns_and_codes(summary: Summary) -> None:
    table = ept_table(summary)
    assert [column.name for column in table.columns] == ["SummaryId", "EPCalc", "EPType", "ReturnPeriod", "Loss"]
    point = summary.top("gross").at(100)  # type: ignore[union-attr]
    assert point is not None
    by_type = {row[2]: row[4] for row in table.rows if row[0] == 1 and row[3] == 100}
    assert by_type == {1: point.oep, 2: point.oep_tvar, 3: point.aep, 4: point.aep_tvar}
    assert {row[1] for row in table.rows} == {1}


def test_the_ept_leaves_out_return_periods_that_the_trials_cannot_support(summary: Summary) -> None:
    # 500 trials have no rank for 1,000 years
    periods = {row[3] for row in ept_table(summary).rows}
    assert periods == {float(period) for period in RETURN_PERIODS if period <= 500}
    assert {row[3] for row in ep_table(summary).rows} == set(RETURN_PERIODS)


def test_summary_ids_count_from_the_top_group_gross_ceded_net(summary: Summary) -> None:
    rows = summary_info_table(summary).rows
    assert rows[:4] == (
        (1, "ALL", "All business", "gross", 1),
        (2, "ALL", "All business", "ceded", 10),
        (3, "ALL", "All business", "net", 2),
        (4, "BU1", "Florida & Gulf", "gross", 1),
    )
    assert [row[0] for row in rows] == list(range(1, 25))


def test_summary_ids_do_not_depend_on_the_order_of_the_records(summary: Summary) -> None:
    backwards = summary.model_copy(update={"groups": summary.groups[::-1]})
    assert tables(backwards) == tables(summary)


def test_deals_come_by_falling_co_tvar_and_layers_by_deal(summary: Summary) -> None:
    co_tvar = [row[7] for row in deals_table(summary).rows]
    assert co_tvar == sorted(co_tvar, reverse=True)
    keys = [(row[1], row[0]) for row in layers_table(summary).rows]
    assert keys == sorted(keys)
    assert len(keys) == len(summary.layers)


def test_groups_carry_the_aal_with_its_standard_error(summary: Summary) -> None:
    table = groups_table(summary)
    first = dict(zip((column.name for column in table.columns), table.rows[0], strict=True))
    top = summary.top("gross")
    assert top is not None
    assert (first["aal"], first["aal_se"], first["top"], first["parent_ids"]) == (top.aal, top.aal_se, True, "")


def test_csv_keeps_every_digit_quotes_text_and_leaves_none_empty(summary: Summary) -> None:
    deal = summary.deals[0].model_copy(
        update={"deal_id": 'a,"b"\nc', "aal": 0.1 + 0.2, "sd": None, "co_tvar": 1e300, "cedant": "Köln Rück"}
    )
    text = deals_table(summary.model_copy(update={"deals": (deal,)})).to_csv()
    [row] = list(csv.DictReader(io.StringIO(text)))
    assert (row["deal_id"], row["cedant"]) == ('a,"b"\nc', "Köln Rück")
    assert (float(row["aal"]), row["sd"], float(row["co_tvar"])) == (0.1 + 0.2, "", 1e300)


def test_csv_and_parquet_hold_identical_values(summary: Summary, tmp_path: Path) -> None:
    written = write_tables(summary, tmp_path / "results")
    names = [
        "ept", "summary_info", "ep", "groups", "deals", "layers", "perils", "peril_ep", "deal_ep", "tail_fits", "fits",
    ]  # fmt: skip
    assert [path.name for path in written] == [f"{name}.{kind}" for name in names for kind in ("csv", "parquet")]
    parse = {
        "text": str,
        "int32": int,
        "float64": lambda cell: float(cell) if cell else None,
        "bool": {"true": True, "false": False}.__getitem__,
    }
    for table in tables(summary):
        with (tmp_path / "results" / f"{table.name}.csv").open(encoding="utf-8", newline="") as file:
            header, *lines = csv.reader(file)
        parquet = pq.read_table(tmp_path / "results" / f"{table.name}.parquet")
        assert header == parquet.column_names == [column.name for column in table.columns]
        kinds = [column.kind for column in table.columns]
        from_csv = [tuple(parse[kind](cell) for kind, cell in zip(kinds, line, strict=True)) for line in lines]
        from_parquet = [tuple(row.values()) for row in parquet.to_pylist()]
        assert from_csv == from_parquet == list(table.rows)


def test_a_rollup_without_deals_has_typed_empty_tables(summary: Summary, tmp_path: Path) -> None:
    write_tables(summary.model_copy(update={"deals": (), "layers": ()}), tmp_path, formats=["parquet"])
    empty = pq.read_table(tmp_path / "deals.parquet")
    assert empty.num_rows == 0
    assert str(empty.schema.field("co_tvar").type) == "double"
