"""A portfolio folder is read the same from CSV and Parquet, and refused with every fault by file, row and field."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from riskmill.checks import CURRENCIES, Fault
from riskmill.errors import PortfolioInvalid
from riskmill.jobs import content_key
from riskmill.outputs import decode
from riskmill.portfolio import Portfolio
from riskmill_cli.portfolio_folder import FolderInvalid, PreparedPortfolio, read_folder
from unit import portfolio_fixtures
from unit.portfolio_fixtures import Folder, write_tiny_portfolio

type Change = Callable[[Folder], object]


def faults_of(path: Path) -> list[Fault]:
    with pytest.raises(PortfolioInvalid) as caught:
        read_folder(path)
    assert isinstance(caught.value, FolderInvalid)
    assert caught.value.faults == [str(fault) for fault in caught.value.found]
    return list(caught.value.found)


def lines_of(path: Path) -> list[str]:
    return [str(fault) for fault in faults_of(path)]


def changed(path: Path, *changes: Change) -> Path:
    folder = Folder()
    for change in changes:
        change(folder)
    return folder.write(path)


def cell(table: str, row: int, column: str, value: str) -> Change:
    return lambda folder: folder.rows[table][row].update({column: value})


def without(table: str, row: int) -> Change:
    return lambda folder: folder.rows[table].pop(row)


def also(table: str, row: int, **cells: str) -> Change:
    """Append a copy of a row with some cells changed."""
    return lambda folder: folder.rows[table].append({**folder.rows[table][row], **cells})


def raw(file: str, data: bytes | None) -> Change:
    return lambda folder: folder.raw.update({file: data})


def edited(table: str, old: bytes, new: bytes) -> Change:
    """Change the bytes of a table's CSV."""

    def change(folder: Folder) -> None:
        data = folder.csv(table)
        assert old in data
        folder.raw[f"{table}.csv"] = data.replace(old, new, 1)

    return change


def head(**fields: Any) -> Change:
    return lambda folder: folder.head.update(fields)


@pytest.fixture
def tiny(tmp_path: Path) -> PreparedPortfolio:
    return read_folder(write_tiny_portfolio(tmp_path / "tiny"))


def test_a_valid_folder_becomes_the_canonical_portfolio(tiny: PreparedPortfolio) -> None:
    portfolio = tiny.portfolio
    assert (portfolio.name, portfolio.currency, portfolio.trials, portfolio.seed) == ("Tiny Re", "USD", 1000, 7)
    assert [deal.deal_id for deal in portfolio.deals] == ["D1", "D2"]
    cat, share = portfolio.deals[0].layers
    assert cat.layer_id == "D1-1"
    assert cat.terms.occurrence_limit == 100
    assert cat.terms.reinstatements == (1.0, 0.5)
    assert cat.terms.aggregate_limit is None
    assert share.terms.ceded_share == 0.3
    assert share.terms.reinstatements is None
    assert [(group.group_id, group.name, group.deals, group.groups) for group in portfolio.groups] == [
        ("all", "Whole portfolio", (), ("us",)),
        ("us", "us", ("D1", "D2"), ()),
    ]
    [retro] = portfolio.outwards
    assert (retro.group_id, retro.priority, retro.terms.reinstatements) == ("all", 1, ())


def test_a_stop_loss_turns_its_ratios_into_amounts(tiny: PreparedPortfolio) -> None:
    terms = tiny.portfolio.deals[1].layers[0].terms
    assert (terms.aggregate_deductible, terms.aggregate_limit) == (160.0, 100.0)


def test_the_catalogue_object_is_sorted_by_event_and_names_its_perils(tiny: PreparedPortfolio) -> None:
    catalogue = decode(tiny.objects[tiny.portfolio.catalogue])
    assert json.loads(catalogue["peril_names"].tobytes()) == ["hurricane", "winter"]
    assert catalogue["event"].tolist() == [1, 2, 3]
    assert catalogue["rate"].tolist() == [0.25, 0.5, 0.1]
    assert catalogue["peril"].tolist() == [0, 1, 0]
    assert catalogue["frequency"].tolist() == [1, 0]
    assert catalogue["variance_to_mean"].tolist() == [1.7, 1.0]
    assert {name: str(catalogue[name].dtype) for name in ("event", "rate", "peril", "frequency", "season")} == {
        "event": "int32",
        "rate": "float64",
        "peril": "int32",
        "frequency": "int32",
        "season": "float64",
    }
    np.testing.assert_allclose(catalogue["season"][0], np.array([31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]) / 365)
    np.testing.assert_allclose(catalogue["season"][1], np.array([3, 2, 1, 0, 0, 0, 0, 0, 0, 0, 1, 3]) / 10)


def test_an_elt_object_is_sorted_without_zero_means_and_with_the_columns_that_were_given(
    tiny: PreparedPortfolio,
) -> None:
    first, second = (decode(tiny.objects[deal.elt]) for deal in tiny.portfolio.deals)
    assert {name: array.tolist() for name, array in first.items()} == {
        "event": [1, 3],
        "mean": [100, 40],
        "sd_independent": [20, 0],
        "sd_correlated": [0, 5],
        "exposure": [900, 900],
    }
    assert {name: array.tolist() for name, array in second.items()} == {"event": [2], "mean": [60]}
    assert first["event"].dtype == np.int32
    assert first["mean"].dtype == np.float64


def test_objects_are_named_by_their_content_and_are_exactly_those_that_the_portfolio_names(
    tiny: PreparedPortfolio,
) -> None:
    assert all(content_key(data) == key for key, data in tiny.objects.items())
    assert set(tiny.objects) == {tiny.portfolio.catalogue, *(deal.elt for deal in tiny.portfolio.deals)}


def test_csv_and_parquet_give_the_same_portfolio_and_objects(tmp_path: Path, tiny: PreparedPortfolio) -> None:
    other = read_folder(write_tiny_portfolio(tmp_path / "parquet", parquet=True))
    assert other.portfolio.key == tiny.portfolio.key
    assert other.objects == tiny.objects


def test_the_tiny_portfolio_keeps_its_key(tiny: PreparedPortfolio) -> None:
    """A change of this key means that every stored portfolio is uploaded anew; make it on purpose."""
    assert tiny.portfolio.key == "2715e84f55fcb541135cfba8de002eea"


@given(st.randoms(use_true_random=False))
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_order_of_rows_changes_neither_key_nor_objects(
    tmp_path_factory: pytest.TempPathFactory, tiny: PreparedPortfolio, random: Any
) -> None:
    folder = Folder()
    for rows in folder.rows.values():
        random.shuffle(rows)
    shuffled = read_folder(folder.write(tmp_path_factory.mktemp("shuffled")))
    assert shuffled.portfolio.key == tiny.portfolio.key
    assert shuffled.objects == tiny.objects


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda f: f.raw.update({"deals.csv": b"\xef\xbb\xbf" + f.csv("deals")}), id="UTF-8 BOM"),
        pytest.param(lambda f: f.raw.update({"deals.csv": f.csv("deals").replace(b"\n", b"\r\n")}), id="CRLF"),
        pytest.param(lambda f: f.raw.update({"deals.csv": f.csv("deals").rstrip(b"\n")}), id="no newline at the end"),
        pytest.param(lambda f: f.raw.update({"deals.csv": f.csv("deals").replace(b"\n", b"\n\n")}), id="blank lines"),
        pytest.param(
            lambda f: f.raw.update({"elts.csv": re.sub(rb"[^,\n]+", rb'"\g<0>"', f.csv("elts"))}),
            id="every cell quoted",
        ),
        pytest.param(
            lambda f: f.raw.update({"portfolio.json": b"\xef\xbb\xbf" + json.dumps(f.head, indent=2).encode()}),
            id="BOM in portfolio.json",
        ),
        pytest.param(lambda f: f.rows["perils"].append({"peril": "quake", "frequency": "poisson"}), id="unused peril"),
        pytest.param(
            lambda f: f.rows["elts"].append({"elt_id": "E9", "event_id": "1", "mean_loss": "5"}), id="unused ELT"
        ),
        pytest.param(lambda f: f.raw.update({"notes.csv": b"anything", "README.md": b"text"}), id="other files"),
    ],
)
def test_what_does_not_matter_changes_nothing(tmp_path: Path, tiny: PreparedPortfolio, change: Change) -> None:
    other = read_folder(changed(tmp_path / "other", change))
    assert other.portfolio.key == tiny.portfolio.key
    assert other.objects == tiny.objects


def test_the_outwards_table_may_be_left_out_or_empty(tmp_path: Path) -> None:
    for name, data in (("missing", None), ("empty", b"contract_id,name,group_id,priority,type\n")):
        assert read_folder(changed(tmp_path / name, raw("outwards.csv", data))).portfolio.outwards == ()


NO_OBJECT = (
    "portfolio.json: [] is not an object "
    "(allowed: an object with format, name, description, currency, as_at, trials, seed, group, trial_year, "
    "secondary_uncertainty, pricing, tail_fit_replicates, fit_replicates, record_first_year, record_last_year)"
)

#: One change of the tiny folder, and exactly the faults that it gives.
ONE_FAULT: dict[str, tuple[Change, list[str]]] = {
    "wrong currency": (
        cell("deals", 0, "currency", "EUR"),
        [
            "deals.csv:2: currency: 'EUR' is not the portfolio's currency 'USD' and has no rate on or before its as-at "
            "date (allowed: USD, or a currency in rates)"
        ],
    ),
    "empty cell": (
        cell("deals", 1, "cedant", ""),
        ["deals.csv:3: cedant: is empty (allowed: 1 to 200 printable characters without spaces around them)"],
    ),
    "word for a number": (
        cell("layers", 0, "premium", "lots"),
        ["layers.csv:2: premium: 'lots' is not a number (allowed: a number >= 0)"],
    ),
    "thousands separator": (
        cell("layers", 0, "premium", "1,250"),
        [
            "layers.csv:2: premium: '1,250' is not a number; write it without thousands separators "
            "(allowed: a number >= 0)"
        ],
    ),
    "NaN": (
        cell("elts", 0, "mean_loss", "NaN"),
        ["elts.csv:2: mean_loss: 'NaN' is not a finite number (allowed: a number >= 0)"],
    ),
    "infinity": (
        cell("elts", 0, "mean_loss", "-inf"),
        ["elts.csv:2: mean_loss: '-inf' is not a finite number (allowed: a number >= 0)"],
    ),
    "number beyond a double": (
        cell("layers", 0, "premium", "1e999"),
        ["layers.csv:2: premium: '1e999' is not a finite number (allowed: a number >= 0)"],
    ),
    "negative limit": (
        cell("layers", 0, "occurrence_limit", "-100"),
        ["layers.csv:2: occurrence_limit: '-100' is not above 0 (allowed: a number > 0)"],
    ),
    "zero limit": (
        cell("layers", 0, "occurrence_limit", "0"),
        ["layers.csv:2: occurrence_limit: '0' is not above 0 (allowed: a number > 0)"],
    ),
    "negative retention": (
        cell("outwards", 0, "occurrence_retention", "-1"),
        ["outwards.csv:2: occurrence_retention: '-1' is below 0 (allowed: a number >= 0)"],
    ),
    "share above 1": (
        cell("layers", 1, "ceded_share", "30"),
        ["layers.csv:3: ceded_share: '30' is above 1 (allowed: a number >= 0 and <= 1)"],
    ),
    "rate of 0": (
        cell("events", 2, "rate", "0"),
        ["events.csv:4: rate: '0' is not above 0 (allowed: a number > 0)"],
    ),
    "fraction for a whole number": (
        cell("outwards", 0, "priority", "1.5"),
        ["outwards.csv:2: priority: '1.5' is not a whole number (allowed: a whole number >= 1 and <= 1000000)"],
    ),
    "hexadecimal": (
        cell("outwards", 0, "priority", "0x10"),
        ["outwards.csv:2: priority: '0x10' is not a whole number (allowed: a whole number >= 1 and <= 1000000)"],
    ),
    "huge int": (
        cell("outwards", 0, "priority", "9" * 30),
        [f"outwards.csv:2: priority: '{'9' * 30}' is above 1000000 (allowed: a whole number >= 1 and <= 1000000)"],
    ),
    "unknown type": (
        cell("layers", 0, "type", "XOL"),
        ["layers.csv:2: type: 'XOL' is not known (allowed: QS, SS, FAC, PR, CXL, AXL, SL)"],
    ),
    "unknown frequency": (
        cell("perils", 1, "frequency", "Poisson"),
        ["perils.csv:3: frequency: 'Poisson' is not known (allowed: poisson, negative_binomial, binomial)"],
    ),
    "not a date": (
        cell("deals", 0, "inception", "2025-02-30"),
        ["deals.csv:2: inception: '2025-02-30' is not a date (allowed: a date as YYYY-MM-DD)"],
    ),
    "a date in another order": (
        cell("deals", 0, "inception", "01/01/2025"),
        ["deals.csv:2: inception: '01/01/2025' is not a date (allowed: a date as YYYY-MM-DD)"],
    ),
    "a week date": (
        cell("deals", 0, "inception", "2025-W01-1"),
        ["deals.csv:2: inception: '2025-W01-1' is not a date (allowed: a date as YYYY-MM-DD)"],
    ),
    "expiry before inception": (
        cell("deals", 0, "expiry", "2024-12-31"),
        ["deals.csv:2: expiry: 2024-12-31 is before the inception 2025-01-01 (allowed: the day of inception or later)"],
    ),
    "duplicate deal": (
        also("deals", 0),
        ["deals.csv:4: deal_id: 'D1' stands in deals.csv:2 already (allowed: each once)"],
    ),
    "duplicate layer": (
        also("layers", 0),
        ["layers.csv:5: layer_id: 'D1-1' stands in layers.csv:2 already (allowed: each once)"],
    ),
    "duplicate contract": (
        also("outwards", 0),
        ["outwards.csv:3: contract_id: 'R1' stands in outwards.csv:2 already (allowed: each once)"],
    ),
    "duplicate event": (
        also("events", 1),
        ["events.csv:5: event_id: 1 stands in events.csv:3 already (allowed: each once)"],
    ),
    "duplicate peril": (
        also("perils", 1),
        ["perils.csv:4: peril: 'winter' stands in perils.csv:3 already (allowed: each once)"],
    ),
    "event twice in an ELT": (
        also("elts", 1),
        ["elts.csv:6: event_id: 'E1' with 3 stands in elts.csv:3 already (allowed: each once)"],
    ),
    "duplicate membership": (
        also("groups", 1),
        ["groups.csv:5: member_id: 'us' with 'deal' with 'D1' stands in groups.csv:3 already (allowed: each once)"],
    ),
    "deal without ELT rows": (
        cell("deals", 1, "elt_id", "E7"),
        ["deals.csv:3: elt_id: 'E7' is not in elts (allowed: an elt_id of elts)"],
    ),
    "ELT of an unknown event": (
        cell("elts", 1, "event_id", "44"),
        ["elts.csv:3: event_id: 44 is not in events (allowed: an event_id of events)"],
    ),
    "layer of an unknown deal": (
        also("layers", 0, layer_id="X-1", deal_id="X"),
        ["layers.csv:5: deal_id: 'X' is not in deals (allowed: a deal_id of deals)"],
    ),
    "event of an unknown peril": (
        cell("events", 0, "peril", "Winter"),
        ["events.csv:2: peril: 'Winter' is not in perils (allowed: a peril of perils)"],
    ),
    "group of an unknown deal": (
        also("groups", 1, member_id="D9"),
        ["groups.csv:5: member_id: deal 'D9' does not exist (allowed: a deal_id of deals)"],
    ),
    "group of an unknown group": (
        also("groups", 0, member_id="eu"),
        ["groups.csv:5: member_id: group 'eu' does not exist (allowed: a group_id of groups)"],
    ),
    "contract on an unknown group": (
        cell("outwards", 0, "group_id", "eu"),
        ["outwards.csv:2: group_id: group 'eu' does not exist (allowed: the top group or a group below it)"],
    ),
    "contract on a group outside the top group": (
        lambda f: (
            f.rows["groups"].append({"group_id": "view", "member_type": "deal", "member_id": "D1"}),
            f.rows["outwards"][0].update(group_id="view"),
        ),
        [
            "outwards.csv:2: group_id: group 'view' is not part of the top group 'all', whose net it would never "
            "reduce (allowed: the top group or a group below it)"
        ],
    ),
    "unknown top group": (
        head(group="everything"),
        ["portfolio.json: group: 'everything' is not a group (allowed: a group_id of groups)"],
    ),
    "cycle": (
        also("groups", 0, group_id="us", member_id="all", group_name=""),
        [
            "groups.csv:5: member_id: groups contain each other: all > us > all (allowed: groups without a cycle)",
        ],
    ),
    "group in itself": (
        also("groups", 0, group_id="us", member_id="us", group_name=""),
        ["groups.csv:5: member_id: groups contain each other: us > us (allowed: groups without a cycle)"],
    ),
    "deal reached twice": (
        also("groups", 1, group_id="all", member_id="D1"),
        [
            "groups.csv:3: member_id: deal 'D1' is reached twice from group 'all', so its losses would count twice: "
            "all > D1 and all > us > D1 (allowed: one path from any group to a deal)"
        ],
    ),
    "deal outside the top group": (
        without("groups", 2),
        [
            "deals.csv:3: deal_id: deal 'D2' is not reached from the top group 'all' "
            "(allowed: a deal that is a member of the top group or of a group below it)"
        ],
    ),
    "two names for one group": (
        lambda f: (f.rows["groups"][1].update(group_name="US"), f.rows["groups"][2].update(group_name="USA")),
        [
            "groups.csv:4: group_name: group 'us' is called 'US' elsewhere and 'USA' here "
            "(allowed: one name for each group)"
        ],
    ),
    "deal without a layer": (
        without("layers", 2),
        ["deals.csv:3: deal_id: deal 'D2' has no layer in layers (allowed: at least one layer)"],
    ),
    "mean above exposure": (
        cell("elts", 0, "exposure", "99"),
        ["elts.csv:2: mean_loss: 100 is above the exposure 99 (allowed: up to the exposure)"],
    ),
    "beta that cannot exist": (
        lambda f: f.rows["elts"][0].update(sd_independent="100", sd_correlated="183"),
        [
            "elts.csv:2: sd_independent: with sd_correlated the sd is 283, which no beta distribution with mean 100 "
            "and maximum 900 has (allowed: sd^2 < mean_loss x (exposure - mean_loss))"
        ],
    ),
    "sd of a certain loss": (
        cell("elts", 0, "exposure", "100"),
        [
            "elts.csv:2: sd_independent: with sd_correlated the sd is 20, which no beta distribution with mean 100 "
            "and maximum 100 has (allowed: sd^2 < mean_loss x (exposure - mean_loss))"
        ],
    ),
    "exposure for half an ELT": (
        cell("elts", 0, "exposure", ""),
        [
            "elts.csv:2: exposure: is empty, and other rows of ELT 'E1' have one "
            "(allowed: for all rows of an ELT or for none)"
        ],
    ),
    "stop loss without a ratio": (
        cell("layers", 2, "attachment_ratio", ""),
        ["layers.csv:4: attachment_ratio: is empty, and a stop loss (SL) needs it (allowed: a number >= 0)"],
    ),
    "stop loss with a deductible": (
        cell("layers", 2, "aggregate_deductible", "160"),
        [
            "layers.csv:4: aggregate_deductible: is given, and a stop loss (SL) has ratios of GNPI "
            "(allowed: an empty cell)"
        ],
    ),
    "ratio outside a stop loss": (
        cell("layers", 0, "gnpi", "5"),
        ["layers.csv:2: gnpi: is given, and only a stop loss (SL) has it (allowed: an empty cell)"],
    ),
    "stop loss beyond a double": (
        lambda f: f.rows["layers"][2].update(gnpi="1e300", limit_ratio="1e300"),
        ["layers.csv:4: gnpi: times the ratios is not an amount (allowed: an amount)"],
    ),
    "quota share without a share": (
        cell("layers", 1, "ceded_share", ""),
        ["layers.csv:3: ceded_share: is empty, and a quota share (QS) needs it (allowed: a number >= 0 and <= 1)"],
    ),
    "reinstatements in another syntax": (
        cell("layers", 0, "reinstatements", "2@100%"),
        [
            "layers.csv:2: reinstatements: '2@100%' is not a list of charges "
            "(allowed: `none`, or up to 100 numbers >= 0 separated by `;`)"
        ],
    ),
    "reinstatements with an empty charge": (
        cell("layers", 0, "reinstatements", "1;"),
        [
            "layers.csv:2: reinstatements: '1;' is not a list of charges "
            "(allowed: `none`, or up to 100 numbers >= 0 separated by `;`)"
        ],
    ),
    "cat excess of loss without a limit": (
        cell("layers", 0, "occurrence_limit", ""),
        [
            "layers.csv:2: occurrence_limit: is empty, and a catastrophe excess of loss (CXL) needs it "
            "(allowed: a number > 0)"
        ],
    ),
    "retro excess of loss without a limit": (
        cell("outwards", 0, "occurrence_limit", ""),
        [
            "outwards.csv:2: occurrence_limit: is empty, and a catastrophe excess of loss (CXL) needs it "
            "(allowed: a number > 0)"
        ],
    ),
    "aggregate excess of loss without an aggregate term": (
        lambda f: f.rows["layers"][0].update(type="AXL"),
        [
            "layers.csv:2: aggregate_limit: is empty, and an aggregate excess of loss (AXL) needs it or an aggregate "
            "deductible (allowed: a number > 0 in aggregate_limit or in aggregate_deductible)"
        ],
    ),
    "reinstatements without an occurrence limit": (
        cell("layers", 1, "reinstatements", "1"),
        [
            "layers.csv:3: reinstatements: reinstate an occurrence limit, and this layer has none "
            "(allowed: an occurrence limit, or no reinstatements)"
        ],
    ),
    "negative binomial without overdispersion": (
        cell("perils", 0, "variance_to_mean", "1"),
        [
            "perils.csv:2: variance_to_mean: is not above 1, and the frequency is negative_binomial "
            "(allowed: a number > 1)"
        ],
    ),
    "binomial without a ratio": (
        cell("perils", 1, "frequency", "binomial"),
        [
            "perils.csv:3: variance_to_mean: is not below 1, and the frequency is binomial "
            "(allowed: a number >= 0 and < 1)"
        ],
    ),
    "Poisson with a ratio": (
        cell("perils", 1, "variance_to_mean", "2"),
        ["perils.csv:3: variance_to_mean: is not 1, and the frequency is poisson (allowed: 1, or an empty cell)"],
    ),
    "more events than can be simulated": (
        cell("events", 0, "rate", "20000"),
        [
            "perils.csv:3: variance_to_mean: 20000 events a year; above 0 and at most 10000 can be simulated "
            "(allowed: frequencies that can be simulated)"
        ],
    ),
    "season of 11 months": (
        cell("perils", 1, "season", "1;1;1;1;1;1;1;1;1;1;1"),
        [
            "perils.csv:3: season: '1;1;1;1;1;1;1;1;1;1;1' is not a list of 12 weights "
            "(allowed: 12 numbers >= 0 separated by `;`, not all 0)"
        ],
    ),
    "season of nothing": (
        cell("perils", 1, "season", "0;0;0;0;0;0;0;0;0;0;0;0"),
        [
            "perils.csv:3: season: '0;0;0;0;0;0;0;0;0;0;0;0' is not a list of 12 weights "
            "(allowed: 12 numbers >= 0 separated by `;`, not all 0)"
        ],
    ),
    "spaces around an id": (
        cell("perils", 0, "peril", "hurricane "),
        [
            "perils.csv:2: peril: 'hurricane ' has spaces around it "
            "(allowed: 1 to 64 printable characters without spaces around them)"
        ],
    ),
    "over-long name": (
        cell("deals", 0, "cedant", "x" * 201),
        [
            f"deals.csv:2: cedant: '{'x' * 77}...' has 201 characters "
            "(allowed: 1 to 200 printable characters without spaces around them)"
        ],
    ),
    "control character": (
        cell("deals", 0, "cedant", "Gulf\x07Mutual"),
        [
            "deals.csv:2: cedant: 'Gulf\\x07Mutual' has control or invisible characters "
            "(allowed: 1 to 200 printable characters without spaces around them)"
        ],
    ),
    "invisible character": (
        cell("deals", 0, "cedant", "Gulf\u200bMutual"),
        [
            "deals.csv:2: cedant: 'Gulf\\u200bMutual' has control or invisible characters "
            "(allowed: 1 to 200 printable characters without spaces around them)"
        ],
    ),
    "missing table": (
        raw("layers.csv", None),
        ["layers.csv: is missing (allowed: layers.csv or layers.parquet)"],
    ),
    "table in both forms": (
        lambda f: f.raw.update({"perils.parquet": f.parquet("perils")}),
        ["perils.csv: both perils.csv and perils.parquet are there (allowed: one of them)"],
    ),
    "misspelt optional table": (
        raw("outward.csv", b"contract_id\n"),
        [
            "outward.csv: is not a table of a portfolio (did you mean outwards.csv?) "
            "(allowed: perils, events, elts, deals, layers, groups, outwards, rates, industry_losses, loss_record)"
        ],
    ),
    "empty file": (raw("elts.csv", b""), ["elts.csv: is empty (allowed: a header and at least one row)"]),
    "nothing but blank lines": (
        raw("elts.csv", b"\n\r\n"),
        ["elts.csv: is empty (allowed: a header and at least one row)"],
    ),
    "empty table": (
        raw("elts.csv", b"elt_id,event_id,mean_loss"),
        ["elts.csv: has no rows (allowed: at least one row)"],
    ),
    "empty Parquet table": (
        lambda f: (f.rows.update(elts=[]), f.raw.update({"elts.csv": None, "elts.parquet": empty_elts()})),
        ["elts.parquet: has no rows (allowed: at least one row)"],
    ),
    "not a Parquet file": (
        lambda f: f.raw.update({"perils.csv": None, "perils.parquet": b"peril,frequency\n"}),
        [
            "perils.parquet: cannot be read: Parquet magic bytes not found in footer. Either the file is corrupted or "
            "this is not a parquet file."
        ],
    ),
    "unknown column": (
        edited("groups", b"group_name", b"groupname"),
        [
            "groups.csv: groupname: is not a column of groups (did you mean group_name?) "
            "(allowed: group_id, member_type, member_id, group_name)"
        ],
    ),
    "missing column": (
        edited("deals", b"cedant", b"broker"),
        [
            "deals.csv: broker: is not a column of deals (did you mean brokerage?) (allowed: deal_id, cedant, "
            "business_unit, inception, expiry, currency, brokerage, elt_id, pricing_model, pricing_params)",
            "deals.csv: cedant: this column is missing "
            "(allowed: 1 to 200 printable characters without spaces around them)",
        ],
    ),
    "duplicate header": (
        edited("groups", b"group_name", b"member_id"),
        ["groups.csv: member_id: stands 2 times in the header (allowed: once)"],
    ),
    "semicolons between columns": (
        lambda f: f.raw.update({"deals.csv": f.csv("deals").replace(b",", b";")}),
        ["deals.csv: columns are separated by ';' (allowed: a comma)"],
    ),
    "ragged row": (
        edited("deals", b",E1\n", b"\n"),
        ["deals.csv:2: the row has 7 cells and the header 8 (allowed: 8 cells)"],
    ),
    "quote that does not end": (
        edited("deals", b"Prairie Farm", b'"Prairie Farm'),
        [
            "deals.csv:3: a quoted cell does not end on its line "
            '(allowed: cells without line breaks, and a quote within quotes doubled: "")'
        ],
    ),
    "line break in a cell": (
        edited("deals", b"Prairie Farm", b'"Prairie\nFarm"'),
        [
            "deals.csv:3: a quoted cell does not end on its line "
            '(allowed: cells without line breaks, and a quote within quotes doubled: "")'
        ],
    ),
    "bytes that are not UTF-8": (
        edited("deals", b"Prairie", "Prärie".encode("latin-1")),
        ["deals.csv:3: has a byte that is not UTF-8: 0xe4 (allowed: text in UTF-8)"],
    ),
    "missing portfolio.json": (
        raw("portfolio.json", None),
        ["portfolio.json: is missing (allowed: a file that names the portfolio and its top group)"],
    ),
    "JSON syntax": (
        raw("portfolio.json", b'{\n  "format": 1,\n  "name": Tiny\n}'),
        ["portfolio.json:3: Invalid JSON: expected value in column 11"],
    ),
    "JSON that is no object": (raw("portfolio.json", b"[]"), [NO_OBJECT]),
    "JSON number beyond any": (
        raw("portfolio.json", b'{"trials": ' + b"9" * 6000 + b"}"),
        ["portfolio.json:1: Invalid JSON: number out of range in column 4313"],
    ),
    "field twice": (
        raw("portfolio.json", json.dumps(portfolio_fixtures.HEAD).encode()[:-1] + b', "seed": 8}'),
        ["portfolio.json: seed: stands 2 times (allowed: once)"],
    ),
    "trials out of range": (
        head(trials=0),
        ["portfolio.json: trials: 0 is below 1 (allowed: 1 to 10,000,000)"],
    ),
    "trials in quotes": (
        head(trials="100"),
        ["portfolio.json: trials: '100' is not a whole number; write it without quotes (allowed: 1 to 10,000,000)"],
    ),
    "a fraction in quotes for trials": (
        head(trials="2.5"),
        ["portfolio.json: trials: '2.5' is not a whole number (allowed: 1 to 10,000,000)"],
    ),
    "trials as a word": (
        head(trials="many"),
        ["portfolio.json: trials: 'many' is not a whole number (allowed: 1 to 10,000,000)"],
    ),
    "trials as a fraction": (
        head(trials=2.5),
        ["portfolio.json: trials: 2.5 is not a whole number (allowed: 1 to 10,000,000)"],
    ),
    "trials as null": (
        head(trials=None),
        ["portfolio.json: trials: null is not a whole number (allowed: 1 to 10,000,000)"],
    ),
    "date that does not exist": (
        head(as_at="2024-13-01"),
        ["portfolio.json: as_at: '2024-13-01' is not a date (allowed: a date as YYYY-MM-DD)"],
    ),
    "name of no character": (
        head(name=""),
        ["portfolio.json: name: '' is empty (allowed: 1 to 200 characters)"],
    ),
    "currency that is no text": (
        head(currency=["USD"]),
        [f'portfolio.json: currency: ["USD"] is not text (allowed: one of {len(CURRENCIES)} values such as USD)'],
    ),
    "seed out of range": (
        head(seed=2**63),
        [
            "portfolio.json: seed: 9223372036854775808 is above 9,223,372,036,854,775,807 "
            "(allowed: 0 to 9,223,372,036,854,775,807)"
        ],
    ),
    "unknown field": (
        head(trails=5),
        [
            "portfolio.json: trails: is not a known field (did you mean trials?) "
            "(allowed: format, name, description, currency, as_at, trials, seed, group, trial_year, "
            "secondary_uncertainty, pricing, tail_fit_replicates, fit_replicates, record_first_year, record_last_year)"
        ],
    ),
    "missing field": (
        lambda f: f.head.pop("seed"),
        ["portfolio.json: seed: is missing: seed of the random numbers (allowed: 0 to 9,223,372,036,854,775,807)"],
    ),
    "currency that does not exist": (
        head(currency="USX"),
        ["portfolio.json: currency: 'USX' is not a currency code (allowed: a code of ISO 4217 such as USD)"],
    ),
    "unknown format": (head(format=2), ["portfolio.json: format: 2 is not known (allowed: 1)"]),
}


def empty_elts() -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({name: pa.array([], pa.string()) for name in ("elt_id", "event_id", "mean_loss")}), sink)
    return sink.getvalue().to_pybytes()


@pytest.mark.parametrize("name", ONE_FAULT)
def test_a_fault_names_file_row_field_and_what_is_allowed(tmp_path: Path, name: str) -> None:
    change, expected = ONE_FAULT[name]
    assert lines_of(changed(tmp_path / "folder", change)) == expected


def test_every_fault_of_every_file_is_listed_at_once_in_the_order_of_files_and_rows(tmp_path: Path) -> None:
    path = changed(
        tmp_path / "folder",
        cell("outwards", 0, "priority", "0"),
        cell("deals", 1, "expiry", "soon"),
        cell("deals", 0, "currency", "EUR"),
        cell("deals", 0, "brokerage", "2"),
        cell("events", 0, "rate", "often"),
        raw("perils.csv", None),
        head(seed=-1),
    )
    assert [(fault.file, fault.row, fault.field) for fault in faults_of(path)] == [
        ("portfolio.json", None, "seed"),
        ("perils.csv", None, None),
        ("events.csv", 2, "rate"),
        ("deals.csv", 2, "brokerage"),
        ("deals.csv", 3, "expiry"),
        ("outwards.csv", 2, "priority"),
    ]


def test_a_table_that_could_not_be_read_whole_does_not_make_references_to_it_faults(tmp_path: Path) -> None:
    for name, change in {
        "ragged deals": edited("deals", b",E1\n", b"\n"),
        "no deals": raw("deals.csv", None),
        "no groups": raw("groups.csv", None),
        "no elts": raw("elts.csv", b"elt_id\xff"),
        "no events": raw("events.csv", b""),
    }.items():
        assert len(faults_of(changed(tmp_path / name, change))) == 1, name


@pytest.mark.parametrize(
    ("table", "row", "column", "value"),
    [
        ("perils", 0, "peril", " hurricane"),
        ("events", 0, "event_id", "2.5"),
        ("events", 0, "event_id", ""),
        ("elts", 2, "elt_id", "E2 "),
        ("deals", 0, "deal_id", "D1\t"),
        ("deals", 0, "deal_id", ""),
        ("layers", 2, "deal_id", ""),
        ("groups", 0, "group_id", "x" * 65),
        ("groups", 1, "member_type", "Deal"),
        ("groups", 1, "member_id", ""),
    ],
)
def test_a_table_with_a_faulty_key_does_not_make_references_to_it_faults(
    tmp_path: Path, table: str, row: int, column: str, value: str
) -> None:
    faults = faults_of(changed(tmp_path / "folder", cell(table, row, column, value)))
    assert [(fault.file, fault.row, fault.field) for fault in faults] == [(f"{table}.csv", row + 2, column)]


def test_an_aggregate_deductible_alone_makes_an_aggregate_excess_of_loss(tmp_path: Path) -> None:
    change = cell("layers", 0, "type", "AXL")
    folder = changed(tmp_path / "folder", change, cell("layers", 0, "aggregate_deductible", "10"))
    assert read_folder(folder).portfolio.deals[0].layers[0].terms.aggregate_limit is None


def test_a_path_that_is_no_folder_is_a_fault(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    allowed = "(allowed: a folder with portfolio.json and its tables)"
    assert lines_of(file) == [f"{file}: is a file {allowed}"]
    assert lines_of(tmp_path / "none") == [f"{tmp_path / 'none'}: does not exist {allowed}"]


def test_an_empty_folder_lacks_every_file_but_outwards(tmp_path: Path) -> None:
    missing = [fault.file for fault in faults_of(tmp_path) if fault.problem == "is missing"]
    assert missing == [
        "portfolio.json",
        *(f"{t}.csv" for t in ("perils", "events", "elts", "deals", "layers", "groups")),
    ]


def test_a_table_that_cannot_be_opened_is_a_fault(tmp_path: Path) -> None:
    path = changed(tmp_path / "folder", raw("elts.csv", None))
    (path / "elts.csv").mkdir()
    assert lines_of(path) == ["elts.csv: cannot be read: Is a directory"]
    (path / "elts.csv").rename(path / "elts.parquet")
    assert lines_of(path) == ["elts.parquet: cannot be read: Is a directory"]


def test_lines_are_counted_as_a_person_sees_them_past_blank_and_ragged_lines(tmp_path: Path) -> None:
    path = changed(tmp_path / "folder")
    lines = ["elt_id,event_id,mean_loss", "", "E1,1,10", "E1,3", "", "E2,2,x", "E2,3,5,6", "E2,1,-1"]
    (path / "elts.csv").write_text("\r\n".join(lines))
    assert [(fault.row, fault.field) for fault in faults_of(path)] == [
        (4, None),
        (6, "mean_loss"),
        (7, None),
        (8, "mean_loss"),
    ]


def test_a_parquet_row_is_named_by_its_number(tmp_path: Path) -> None:
    path = write_tiny_portfolio(tmp_path / "folder", parquet=True)
    table = pq.read_table(path / "elts.parquet").to_pydict()
    table["mean_loss"][2] = float("nan")
    pq.write_table(pa.table(table), path / "elts.parquet")
    assert lines_of(path) == ["elts.parquet:3: mean_loss: nan is not a finite number (allowed: a number >= 0)"]


def test_parquet_columns_may_have_any_type_that_holds_the_same_cells(tmp_path: Path, tiny: PreparedPortfolio) -> None:
    path = write_tiny_portfolio(tmp_path / "folder", parquet=True)
    casts = {
        "elts": {"elt_id": pa.dictionary(pa.int8(), pa.string()), "event_id": pa.uint16(), "mean_loss": pa.int32()},
        "deals": {"cedant": pa.large_string(), "inception": pa.timestamp("ns"), "expiry": pa.string()},
        "events": {"event_id": pa.int8(), "rate": pa.string(), "region": pa.string_view()},
        "layers": {"premium": pa.decimal128(12, 4)},
    }
    for name, types in casts.items():
        table = pq.read_table(path / f"{name}.parquet")
        for column, kind in types.items():
            at = table.column_names.index(column)
            table = table.set_column(at, column, table.column(column).cast(kind))
        pq.write_table(table, path / f"{name}.parquet")
    other = read_folder(path)
    assert other.portfolio.key == tiny.portfolio.key
    assert other.objects == tiny.objects


@pytest.mark.parametrize(
    ("table", "column", "kind"),
    [
        ("elts", "mean_loss", pa.bool_()),
        ("elts", "event_id", pa.float64()),
        ("deals", "cedant", pa.float64()),
        ("deals", "inception", pa.int64()),
        ("deals", "expiry", pa.binary()),
        ("layers", "reinstatements", pa.struct([("a", pa.int8())])),
    ],
)
def test_a_parquet_column_of_a_wrong_type_is_one_fault(
    tmp_path: Path, table: str, column: str, kind: pa.DataType
) -> None:
    path = write_tiny_portfolio(tmp_path / "folder", parquet=True)
    content = pq.read_table(path / f"{table}.parquet")
    at = content.column_names.index(column)
    content = content.set_column(at, pa.field(column, kind), pa.nulls(content.num_rows, kind))
    pq.write_table(content, path / f"{table}.parquet")
    assert [(fault.file, fault.row, fault.field, fault.problem) for fault in faults_of(path)] == [
        (f"{table}.parquet", None, column, f"the column has type {kind}")
    ]


def test_a_fault_in_every_row_of_a_million_is_listed_a_hundred_times_and_counted(tmp_path: Path) -> None:
    rows = 1_000_000
    path = changed(tmp_path / "folder")
    (path / "elts.csv").write_bytes(
        b"elt_id,event_id,mean_loss\n" + b"E1,7,-5\n" * (rows // 2) + b"E2,1,1\n" * (rows // 2)
    )
    faults = faults_of(path)
    assert sorted(str(fault) for fault in faults if fault.row is None) == [
        "elts.csv: event_id: 499,900 more rows: is not in events (allowed: an event_id of events)",
        "elts.csv: event_id: 999,898 more rows: stands there already (allowed: each once)",
        "elts.csv: mean_loss: 499,900 more rows: is below 0 (allowed: a number >= 0)",
    ]
    assert len(faults) == 303


def test_ragged_rows_far_down_a_file_keep_their_line(tmp_path: Path) -> None:
    path = changed(tmp_path / "folder")
    good = b"E1,1,10.125\n"
    (path / "elts.csv").write_bytes(b"elt_id,event_id,mean_loss\n\n" + good * 300_000 + b"E1,2\n" + good + b"E1,3,x\n")
    faults = [fault for fault in faults_of(path) if "already" not in fault.problem]
    assert [(fault.row, fault.field) for fault in faults if fault.row] == [(300_003, None), (300_005, "mean_loss")]


NUMBERS = st.one_of(
    st.floats(0, 1e300).map(repr),
    st.integers(0, 10**30).map(str),
    st.from_regex(r"[+]?([0-9]{1,20}\.?[0-9]{0,20}|\.[0-9]{1,20})([eE][+-]?[0-9]{1,2})?", fullmatch=True),
)


@given(st.lists(NUMBERS, min_size=1, max_size=20))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_number_in_a_cell_reads_as_the_double_nearest_to_it(
    tmp_path_factory: pytest.TempPathFactory, cells: list[str]
) -> None:
    folder = Folder()
    folder.rows["layers"] = [
        {**folder.rows["layers"][2], "layer_id": f"{number:03}", "deal_id": deal, "premium": premium}
        for deal in ("D1", "D2")
        for number, premium in enumerate(cells, start=0 if deal == "D1" else len(cells))
        for premium in [cells[number % len(cells)]]
    ]
    portfolio = read_folder(folder.write(tmp_path_factory.mktemp("numbers"))).portfolio
    for deal in portfolio.deals:
        assert [layer.terms.premium for layer in deal.layers] == [float(text) for text in cells]


def test_a_parquet_file_whose_column_names_are_damaged_is_a_fault(tmp_path: Path) -> None:
    file = write_tiny_portfolio(tmp_path, parquet=True) / "perils.parquet"
    file.write_bytes(file.read_bytes().replace(b"peril", b"p\x80ril"))
    with pytest.raises(PortfolioInvalid) as refused:
        read_folder(tmp_path)
    assert any(line.startswith("perils.parquet: cannot be read: ") for line in refused.value.faults)


@given(data=st.data())
@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_damage_to_a_file_ends_in_anything_but_faults(tmp_path_factory: pytest.TempPathFactory, data: Any) -> None:
    parquet = data.draw(st.booleans())
    path = write_tiny_portfolio(tmp_path_factory.mktemp("damaged"), parquet=parquet)
    file = path / data.draw(st.sampled_from(sorted(entry.name for entry in path.iterdir())))
    content = bytearray(file.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content)))
        end = min(at + data.draw(st.integers(0, 12)), len(content))
        content[at:end] = data.draw(
            st.one_of(st.binary(max_size=8), st.sampled_from([b'"', b",", b"\n", b"\r", b"\0", b"E1"]))
        )
    file.write_bytes(content)
    refused: list[str] = []
    try:
        prepared = read_folder(path)
    except PortfolioInvalid as error:
        refused = error.faults
    else:
        assert Portfolio.from_json(prepared.portfolio.to_json()) == prepared.portfolio
    assert all(len(line.splitlines()) == 1 for line in refused)


@given(
    table=st.sampled_from(["perils", "events", "elts", "deals", "layers", "groups", "outwards"]),
    row=st.integers(0, 3),
    column=st.integers(0, 12),
    value=st.one_of(
        st.text(max_size=12),
        st.sampled_from(
            ["", "0", "-0", "-1", "1e308", "nan", "none", "1;1", "SL", "QS", "all", "us", "D1", "D2", "2024-02-29"]
        ),
    ),
)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_text_in_any_cell_is_read_or_is_a_fault_and_the_same_in_both_formats(
    tmp_path_factory: pytest.TempPathFactory, table: str, row: int, column: int, value: str
) -> None:
    folder = Folder()
    rows = folder.rows[table]
    columns = folder.columns(table)
    name = columns[column % len(columns)]
    rows[row % len(rows)][name] = value
    path = folder.write(tmp_path_factory.mktemp("cells"))
    texts = {key: pa.array([line.get(key) or None for line in rows], pa.string()) for key in columns}
    other = write_tiny_portfolio(tmp_path_factory.mktemp("cells-parquet"))
    (other / f"{table}.csv").unlink()
    pq.write_table(pa.table(texts), other / f"{table}.parquet")
    try:
        prepared = read_folder(path)
    except FolderInvalid as refused:
        if any(fault.field is None for fault in refused.found):
            return  # what only a CSV can have: a line break in a cell
        named = {(fault.file.split(".")[0], fault.field, fault.allowed) for fault in refused.found}
        assert {(fault.file.split(".")[0], fault.field, fault.allowed) for fault in faults_of(other)} == named
    else:
        again = read_folder(other)
        assert again.portfolio.key == prepared.portfolio.key
        assert again.objects == prepared.objects
