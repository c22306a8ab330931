"""The canonical portfolio: the same whatever the order it was given in, and never unsound."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from riskmill.checks import CURRENCIES, Fault, FaultList, Members, graph_faults, reached_from
from riskmill.errors import PortfolioInvalid
from riskmill.jobs import content_key
from riskmill.portfolio import Portfolio
from riskmill_cli.portfolio_folder import read_folder
from unit.portfolio_fixtures import write_tiny_portfolio


@pytest.fixture
def document(tmp_path: Path) -> dict[str, Any]:
    return dict(json.loads(read_folder(write_tiny_portfolio(tmp_path)).portfolio.to_json()))


def faults_of(document: Any) -> list[str]:
    with pytest.raises(PortfolioInvalid) as caught:
        Portfolio.from_json(document if isinstance(document, bytes) else json.dumps(document).encode())
    return caught.value.faults


def test_a_document_reads_back_as_it_was_written(document: dict[str, Any]) -> None:
    data = Portfolio.from_json(json.dumps(document).encode()).to_json()
    portfolio = Portfolio.from_json(data)
    assert portfolio.to_json() == data
    assert portfolio.key == content_key(data)
    assert json.loads(data) == document


def test_the_order_of_lists_in_a_document_does_not_change_its_key(document: dict[str, Any]) -> None:
    key = Portfolio.from_json(json.dumps(document).encode()).key
    for deal in document["deals"]:
        deal["layers"].reverse()
    for group in document["groups"]:
        group["deals"].reverse()
    document["deals"].reverse()
    document["groups"].reverse()
    assert Portfolio.from_json(json.dumps(document).encode()).key == key


def test_outwards_contracts_stand_in_inuring_order(document: dict[str, Any]) -> None:
    [contract] = document["outwards"]
    document["outwards"] = [
        {**contract, "contract_id": name, "group_id": group, "priority": priority}
        for name, group, priority in [("a", "us", 2), ("b", "us", 1), ("c", "all", 10), ("d", "all", 9)]
    ]
    portfolio = Portfolio.from_json(json.dumps(document).encode())
    assert [contract.contract_id for contract in portfolio.outwards] == ["d", "c", "b", "a"]


def test_a_portfolio_cannot_be_changed(document: dict[str, Any]) -> None:
    portfolio = Portfolio.from_json(json.dumps(document).encode())
    with pytest.raises(ValidationError, match="frozen"):
        portfolio.seed = 8  # type: ignore[misc]


Change = Callable[[dict[str, Any]], object]

BAD_DOCUMENTS: dict[str, tuple[Change, list[str]]] = {
    "trials as text": (
        lambda d: d.update(trials="1000"),
        ["portfolio: trials: '1000' is not a whole number; write it without quotes (allowed: 1 to 10,000,000)"],
    ),
    "two fields": (
        lambda d: (d.update(trials=0, extra=1), d.pop("seed")),
        [
            "portfolio: extra: is not a known field (allowed: format, name, description, currency, as_at, trials, "
            "seed, group, catalogue, deals, groups, outwards, trial_year, secondary_uncertainty, pricing, "
            "rates, indices, tail_fit_replicates, records, fit_replicates, sampling_faults)",
            "portfolio: trials: 0 is below 1 (allowed: 1 to 10,000,000)",
            "portfolio: seed: is missing (allowed: 0 to 9,223,372,036,854,775,807)",
        ],
    ),
    "a bad term": (
        lambda d: d["deals"][0]["layers"][1]["terms"].update(premium=-1),
        ["portfolio: deals[0].layers[1].terms.premium: -1 is below 0 (allowed: a number >= 0)"],
    ),
    "a bad key": (
        lambda d: d.update(catalogue="C" * 32),
        [f"portfolio: catalogue: '{'C' * 32}' is not written so (allowed: text that matches ^[0-9a-f]{{32}}$)"],
    ),
    "a bad id": (
        lambda d: d["deals"][0].update(deal_id="D1\n"),
        [
            "portfolio: deals[0].deal_id: 'D1\\n' has spaces around it "
            "(allowed: 1 to 64 printable characters without spaces around them)"
        ],
    ),
    "no layers": (
        lambda d: d["deals"][0].update(layers=[]),
        ["portfolio: deals[0].layers: [] has 0 items (allowed: a list with at least 1 item)"],
    ),
    "a limit that is no number": (
        lambda d: d["deals"][0]["layers"][0]["terms"].update(occurrence_limit="none"),
        ["portfolio: deals[0].layers[0].terms.occurrence_limit: 'none' is not a number (allowed: a number >= 0)"],
    ),
    "a deal that is none": (
        lambda d: d["deals"].append(7),
        [
            "portfolio: deals[2]: 7 is not an object (allowed: an object with deal_id, cedant, "
            "business_unit, inception, expiry, currency, brokerage, elt, layers, pricing_model, pricing_params)"
        ],
    ),
    "another currency": (
        lambda d: d["deals"][1].update(currency="EUR"),
        [
            "portfolio: deals[1].currency: 'EUR' is not the portfolio's currency 'USD' and has no rate on or before "
            "its as-at date (allowed: USD, or a currency in rates)"
        ],
    ),
    "dates": (
        lambda d: d["deals"][1].update(expiry="2024-12-31"),
        [
            "portfolio: deals[1].expiry: 2024-12-31 is before the inception 2025-01-01 "
            "(allowed: the day of inception or later)"
        ],
    ),
    "duplicates": (
        lambda d: (
            d["deals"].append({**d["deals"][1]}),
            d["groups"].append({**d["groups"][1]}),
            d["outwards"].append({**d["outwards"][0]}),
        ),
        [
            "portfolio: deals[2].deal_id: 'D2' stands twice (allowed: each id once)",
            "portfolio: deals[2].layers[0].layer_id: 'D2-1' stands twice (allowed: each id once)",
            "portfolio: groups[2].group_id: 'us' stands twice (allowed: each id once)",
            "portfolio: outwards[1].contract_id: 'R1' stands twice (allowed: each id once)",
        ],
    ),
    "terms that make no contract": (
        lambda d: d["outwards"][0]["terms"].update(occurrence_limit=None, aggregate_limit=0),
        [
            "portfolio: outwards[0].terms.aggregate_limit: is 0, so the layer never pays "
            "(allowed: a number above 0, or none for unlimited)",
            "portfolio: outwards[0].terms.occurrence_limit: is empty, and a catastrophe excess of loss (CXL) needs it "
            "(allowed: a number > 0)",
        ],
    ),
    "a treaty that is only a type": (
        lambda d: d["deals"][0]["layers"][0].update(terms={"type": "AXL"}),
        [
            "portfolio: deals[0].layers[0].terms.aggregate_limit: is empty, and an aggregate excess of loss (AXL) "
            "needs it or an aggregate deductible (allowed: a number > 0 in aggregate_limit or in aggregate_deductible)"
        ],
    ),
    "reinstatements of nothing": (
        lambda d: d["deals"][0]["layers"][1]["terms"].update(reinstatements=[1]),
        [
            "portfolio: deals[0].layers[1].terms.reinstatements: reinstate an occurrence limit, and this layer has "
            "none (allowed: an occurrence limit, or no reinstatements)"
        ],
    ),
    "a group without members": (
        lambda d: d["groups"].append({"group_id": "z", "name": "z", "deals": [], "groups": []}),
        ["portfolio: groups[2]: group 'z' has no member (allowed: at least one deal or group)"],
    ),
    "graph": (
        lambda d: (d["groups"][0].update(deals=["D1"], groups=["us", "x"]), d["groups"][1].update(deals=["D1", "D9"])),
        [
            "portfolio: groups[0].groups: group 'x' does not exist (allowed: a group_id of groups)",
            "portfolio: groups[1].deals: deal 'D9' does not exist (allowed: a deal_id of deals)",
            "portfolio: groups[1].deals: deal 'D1' is reached twice from group 'all', so its losses would count twice: "
            "all > D1 and all > us > D1 (allowed: one path from any group to a deal)",
            "portfolio: deals[1]: deal 'D2' is not reached from the top group 'all' "
            "(allowed: a deal that is a member of the top group or of a group below it)",
        ],
    ),
    "top group": (
        lambda d: d.update(group="top"),
        ["portfolio: group: 'top' is not a group (allowed: a group_id of groups)"],
    ),
}


@pytest.mark.parametrize("name", BAD_DOCUMENTS)
def test_an_unsound_document_is_refused_with_every_fault_and_its_place(document: dict[str, Any], name: str) -> None:
    change, expected = BAD_DOCUMENTS[name]
    change(document)
    assert faults_of(document) == expected


@pytest.mark.parametrize("data", [b"", b"{", b"[1]", b"null", b"\xff", b'{"name": "\\ud800"}', b"[" * 10_000])
def test_bytes_that_are_no_document_are_refused(data: bytes) -> None:
    assert all(fault.startswith("portfolio: ") for fault in faults_of(data))


def graph(*groups: tuple[str, list[str], list[str]]) -> dict[str, Members]:
    return {group: Members(deals, below) for group, deals, below in groups}


def problems(top: str, groups: dict[str, Members], deals: set[str]) -> list[str]:
    return [fault.problem for fault in graph_faults(top, groups, deals)]


def test_every_cycle_is_named_with_its_members() -> None:
    groups = graph(("a", [], ["b"]), ("b", [], ["c"]), ("c", ["D"], ["a", "d"]), ("d", [], ["d"]))
    assert problems("a", groups, {"D"}) == [
        "groups contain each other: a > b > c > a",
        "groups contain each other: d > d",
    ]


def test_a_group_shared_below_one_root_is_named_once_however_many_deals_it_has() -> None:
    deals = [f"D{number}" for number in range(50)]
    groups = graph(("top", [], ["x"]), ("x", [], ["a", "b"]), ("a", [], ["s"]), ("b", [], ["s"]), ("s", deals, []))
    assert problems("top", groups, set(deals)) == [
        "group 's' is reached twice from group 'x', so its losses would count twice: x > a > s and x > b > s"
    ]


def test_hierarchies_may_share_groups_and_deals() -> None:
    groups = graph(("top", [], ["us", "eu"]), ("us", ["1", "2"], []), ("eu", ["3"], []), ("view", ["3"], ["us"]))
    assert problems("top", groups, {"1", "2", "3"}) == []
    assert reached_from("top", groups) == {"top", "us", "eu"}


def test_a_chain_of_ten_thousand_groups_is_walked_without_recursion() -> None:
    chain = graph(*((f"g{n}", [], [f"g{n + 1}"]) for n in range(10_000)), ("g10000", ["D"], []))
    assert problems("g0", chain, {"D"}) == []
    chain["g10000"] = Members(["D"], ["g0"])
    [problem] = problems("g0", chain, {"D"})
    assert problem.startswith("groups contain each other: g0 > g1 > ")


def paths_to(deal: str, group: str, groups: dict[str, Members]) -> int:
    """Count paths by definition; only for graphs without a cycle."""
    return (deal in groups[group].deals) + sum(paths_to(deal, below, groups) for below in groups[group].groups)


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_a_deal_counts_twice_somewhere_exactly_when_a_fault_says_so(data: st.DataObject) -> None:
    names, deals = ["a", "b", "c", "d", "e"], {"1", "2", "3"}
    groups = {
        name: Members(
            data.draw(st.lists(st.sampled_from(sorted(deals)), unique=True, max_size=3)),
            data.draw(st.lists(st.sampled_from(names[at + 1 :]), unique=True, max_size=4)) if at < 4 else [],
        )
        for at, name in enumerate(names)
    }
    found = problems("a", groups, deals)
    loops = any(name == below for name, of in groups.items() for below in of.groups)
    assert not loops
    double = any(paths_to(deal, name, groups) > 1 for deal in deals for name in names)
    twice = any("reached twice" in problem for problem in found)
    # a group without deals may be reached twice too: it is named, though nothing counts twice yet
    assert twice or not double
    lonely = {deal for deal in deals if paths_to(deal, "a", groups) == 0}
    assert {problem.split("'")[1] for problem in found if "not reached" in problem} == lonely


def test_a_fault_prints_as_one_line_with_its_place_and_what_is_allowed() -> None:
    assert str(Fault("deals.csv", 17, "currency", "'EUR' is wrong", "USD")) == (
        "deals.csv:17: currency: 'EUR' is wrong (allowed: USD)"
    )
    assert str(Fault("deals.csv", None, None, "is missing")) == "deals.csv: is missing"


def test_a_list_of_faults_lists_a_hundred_rows_of_one_problem_and_counts_the_others() -> None:
    faults = FaultList()
    for rows in (range(60), range(60, 160)):
        faults.add_rows("f.csv", "x", rows, kind="is bad", allowed="good", line=lambda row: row + 2)
    faults.add_rows("f.csv", "y", range(100), kind="is bad", allowed="good", line=lambda row: row + 2)
    listed = faults.all()
    assert [fault.row for fault in listed if fault.field == "x"] == [*range(2, 102), None]
    assert [str(fault) for fault in listed if fault.row is None] == ["f.csv: x: 60 more rows: is bad (allowed: good)"]


def test_the_currency_codes_are_three_capital_letters() -> None:
    assert {"USD", "EUR", "GBP", "JPY", "CHF"} <= CURRENCIES
    assert all(len(code) == 3 and code.isascii() and code.isupper() for code in CURRENCIES)
