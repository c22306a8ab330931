"""The published schemas are made from the code, and agree with the reader and with the guide."""

import json
import re
from pathlib import Path

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from riskmill.portfolio_tables import TABLES, Table, parse_number, parse_reinstatements, parse_season, table_schema
from riskmill_cli.portfolio_folder import read_folder
from riskmill_cli.portfolio_schema import main, schema_files
from unit.portfolio_fixtures import HEAD, ROWS, write_tiny_portfolio

DOCS = Path(__file__).parents[2] / "docs"


def test_the_schemas_in_docs_are_those_of_the_code(tmp_path: Path) -> None:
    main(tmp_path)
    made = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert made == schema_files()
    assert {path.name: path.read_text() for path in (DOCS / "schema").iterdir()} == made


def test_every_schema_is_a_valid_json_schema() -> None:
    for text in schema_files().values():
        jsonschema.Draft202012Validator.check_schema(json.loads(text))


def valid(table: Table, row: dict[str, str]) -> bool:
    """Say whether the schema takes a row, its cells typed as JSON has them."""
    kinds = {column.name: column.kind for column in table.columns}
    cells: dict[str, object] = {}
    for name, cell in row.items():
        kind = kinds.get(name)
        cells[name] = (float(cell) if kind == "number" else int(cell) if kind == "integer" else cell) if cell else None
    return bool(jsonschema.Draft202012Validator(table_schema(table)).is_valid(cells))


def test_the_schemas_take_what_the_reader_takes() -> None:
    jsonschema.validate(HEAD, json.loads(schema_files()["portfolio.schema.json"]))
    for name, rows in ROWS.items():
        for row in rows:
            assert valid(TABLES[name], row), (name, row)


@pytest.mark.parametrize(
    ("table", "row", "change"),
    [
        ("layers", 0, {"type": "XOL"}),
        ("layers", 0, {"occurrence_limit": "0"}),
        ("layers", 0, {"occurrence_limit": ""}),
        ("layers", 0, {"occurrence_limit": "", "reinstatements": ""}),
        ("layers", 0, {"type": "AXL"}),
        ("layers", 0, {"type": "AXL", "aggregate_deductible": "0"}),
        ("layers", 0, {"gnpi": "5"}),
        ("layers", 0, {"reinstatements": "1;;1"}),
        ("layers", 1, {"ceded_share": ""}),
        ("layers", 2, {"limit_ratio": ""}),
        ("layers", 2, {"aggregate_limit": "5"}),
        ("layers", 0, {"type": "SS"}),
        ("layers", 0, {"type": "PR"}),
        ("layers", 0, {"retained_line": "5", "lines": "4"}),
        ("layers", 0, {"index": "PCS"}),
        ("layers", 0, {"shared_limit": "top"}),
        ("layers", 0, {"recovery_order": "latest_first"}),
        ("layers", 0, {"risk_limit": "0"}),
        ("layers", 0, {"inuring_priority": "0"}),
        ("layers", 0, {"placed_share": "1.1"}),
        ("elts", 0, {"risks": "0"}),
        ("outwards", 0, {"priority": "0"}),
        ("outwards", 0, {"type": "PR"}),
        ("outwards", 0, {"risk_limit": "5"}),
        ("events", 0, {"event_id": str(2**31)}),
        ("deals", 0, {"cedant": " Gulf"}),
        ("deals", 0, {"elt_id": ""}),
        ("deals", 0, {"broker": "x"}),
        ("perils", 0, {"season": "1;2"}),
    ],
)
def test_the_schemas_refuse_what_the_reader_refuses(table: str, row: int, change: dict[str, str]) -> None:
    assert not valid(TABLES[table], {**ROWS[table][row], **change})


def test_the_guide_describes_every_column_of_every_table_in_order() -> None:
    guide = (DOCS / "portfolio-format.md").read_text()
    types = {
        "QS",
        "SS",
        "FAC",
        "PR",
        "CXL",
        "AXL",
        "SL",
        "none",
        "0",
    }  # first cells of other tables in the same section
    for table in TABLES.values():
        section = re.split(r"^## ", guide, flags=re.MULTILINE)
        [text] = [part for part in section if part.startswith(f"`{table.name}`")]
        described = dict(re.findall(r"^\| `(\w+)` (\|.*)$", text, flags=re.MULTILINE))
        named = [name for name in described if name not in types]
        terms = [] if table.name != "outwards" else [c.name for c in TABLES["layers"].columns[2:]]
        assert named == [column.name for column in table.columns if column.name not in terms]
        assert all(f"`{column.name}`" in text for column in table.columns)
        for column in table.columns:
            if column.name in named:
                line = described[column.name]
                assert column.doc in line
                assert f"| {'required' if column.required else column.default} |" in line


def test_the_example_in_the_guide_is_the_portfolio_that_the_tests_use(tmp_path: Path) -> None:
    guide = (DOCS / "portfolio-format.md").read_text()
    files = re.findall(r"^`([\w.]+)`:\n\n```\n(.*?)```", guide, flags=re.MULTILINE | re.DOTALL)
    for name, text in files:
        (tmp_path / name).write_text(text)
    expected = read_folder(write_tiny_portfolio(tmp_path / "tiny"))
    assert {name for name, _ in files} == {path.name for path in (tmp_path / "tiny").iterdir()}
    assert read_folder(tmp_path) == expected


@given(st.text(alphabet="0123456789+-.eE,naif ", max_size=10))
def test_a_number_is_what_looks_like_one_and_is_finite(text: str) -> None:
    value = parse_number(text)
    looks = re.fullmatch(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?", text) is not None
    assert (value is not None) == (looks and abs(float(text)) != float("inf"))
    if value is not None:
        assert value == float(text)


@pytest.mark.parametrize(
    ("text", "charges"),
    [
        ("none", ()),
        ("0", (0.0,)),
        ("1;1", (1.0, 1.0)),
        ("1;0.5;1.25", (1.0, 0.5, 1.25)),
        ("None", None),
        ("-1", None),
        ("1,1", None),
        ("1; 1", None),
        (";", None),
        ("100%", None),
        ("nan", None),
        (";".join(["1"] * 101), None),
    ],
)
def test_reinstatements_are_a_list_of_charges(text: str, charges: tuple[float, ...] | None) -> None:
    assert parse_reinstatements(text) == charges


@given(st.lists(st.floats(0, 1e308), min_size=12, max_size=12))
def test_a_season_sums_to_one_whatever_its_weights(weights: list[float]) -> None:
    season = parse_season(";".join(map(repr, weights)))
    if max(weights) == 0:
        assert season is None
    else:
        assert season is not None
        assert sum(season) == pytest.approx(1, abs=1e-12)
