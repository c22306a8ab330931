"""The later terms, options and tables of a portfolio folder: what they mean, and every fault that they can have."""

import json
from collections.abc import Callable
from datetime import date
from pathlib import Path

import pytest

from riskmill.errors import PortfolioInvalid
from riskmill.outputs import decode
from riskmill.portfolio import Portfolio, Pricing
from riskmill_cli.portfolio_folder import FolderInvalid, PreparedPortfolio, read_folder
from unit.portfolio_fixtures import Folder

type Change = Callable[[Folder], None]


def layer(number: int, **cells: str) -> Change:
    return lambda folder: folder.rows["layers"][number].update(cells)


def contract(**cells: str) -> Change:
    return lambda folder: folder.rows["outwards"][0].update(cells)


def deal(number: int, **cells: str) -> Change:
    return lambda folder: folder.rows["deals"][number].update(cells)


def table(name: str, *rows: dict[str, str]) -> Change:
    return lambda folder: folder.rows.update({name: list(rows)})


def head(**fields: object) -> Change:
    return lambda folder: folder.head.update(fields)


def read(path: Path, *changes: Change) -> PreparedPortfolio:
    folder = Folder()
    for change in changes:
        change(folder)
    return read_folder(folder.write(path))


EUR = {"currency": "EUR", "date": "2024-12-01", "rate": "1.1"}
PCS = {"index": "PCS", "event_id": "1", "loss": "20000"}

ONE_FAULT: dict[str, tuple[list[Change], str]] = {
    "an index without a trigger": (
        [table("industry_losses", PCS), layer(0, index="PCS")],
        "layers.csv:2: index_trigger: is empty, and an index and its trigger belong together "
        "(allowed: both, or neither)",
    ),
    "a trigger without an index": (
        [layer(0, index_trigger="5")],
        "layers.csv:2: index: is empty, and an index and its trigger belong together (allowed: both, or neither)",
    ),
    "an index without losses": (
        [layer(0, index="PCS", index_trigger="5")],
        "layers.csv:2: index: 'PCS' is not in industry_losses (allowed: an index of industry_losses)",
    ),
    "an outwards contract's index without losses": (
        [table("industry_losses", PCS), contract(index="PERILS", index_trigger="5")],
        "outwards.csv:2: index: 'PERILS' is not in industry_losses (allowed: an index of industry_losses)",
    ),
    "an industry loss of an unknown event": (
        [table("industry_losses", {**PCS, "event_id": "77"})],
        "industry_losses.csv:2: event_id: 77 is not in events (allowed: an event_id of events)",
    ),
    "an industry loss that stands twice": (
        [table("industry_losses", PCS, PCS)],
        "industry_losses.csv:3: event_id: 'PCS' with 1 stands in industry_losses.csv:2 already (allowed: each once)",
    ),
    "a surplus share of nothing": (
        [layer(0, type="SS")],
        "layers.csv:2: ceded_share: is empty, and a surplus share (SS) needs it, or a retained line and lines "
        "(allowed: a number >= 0 and <= 1)",
    ),
    "a line without a number of lines": (
        [layer(0, type="SS", retained_line="10")],
        "layers.csv:2: lines: is empty, and a surplus share needs a retained line and a number of lines "
        "(allowed: both, or neither)",
    ),
    "a line of another type of treaty": (
        [layer(0, retained_line="10", lines="4")],
        "layers.csv:2: retained_line: is given, and CXL is no surplus share (SS) (allowed: an empty cell)",
    ),
    "lines on an ELT without exposures": (
        [layer(2, type="SS", retained_line="10", lines="4", gnpi="", attachment_ratio="", limit_ratio="")],
        "layers.csv:4: retained_line: needs the exposures of ELT 'E2', which has none (allowed: an ELT with exposures)",
    ),
    "a per risk treaty without risk terms": (
        [layer(0, type="PR")],
        "layers.csv:2: risk_retention: and risk_limit are empty, and a per risk treaty (PR) needs one "
        "(allowed: an amount in one)",
    ),
    "a shared limit without an amount": (
        [layer(0, shared_limit="top")],
        "layers.csv:2: shared_aggregate_limit: is empty, and a shared limit has a name and an amount "
        "(allowed: both, or neither)",
    ),
    "a shared limit of two amounts": (
        [
            layer(0, shared_limit="top", shared_aggregate_limit="50"),
            layer(1, shared_limit="top", shared_aggregate_limit="60"),
        ],
        "layers.csv:3: shared_aggregate_limit: differs between layers that share the limit 'top' (allowed: 50.0)",
    ),
    "a shared limit across priorities": (
        [
            layer(0, shared_limit="top", shared_aggregate_limit="50"),
            layer(1, shared_limit="top", shared_aggregate_limit="50", inuring_priority="2"),
        ],
        "layers.csv:3: inuring_priority: differs between layers that share the limit 'top' (allowed: 1)",
    ),
    "time without reinstatements": (
        [layer(1, reinstatement_basis="amount_and_time")],
        "layers.csv:3: reinstatement_basis: is given, and nothing is reinstated for a premium (allowed: an empty cell)",
    ),
    "an unknown order of recoveries": (
        [layer(0, recovery_order="largest_first")],
        "layers.csv:2: recovery_order: 'largest_first' is not known (allowed: event_order, pro_rata)",
    ),
    "a part of a risk": (
        [lambda folder: folder.rows["elts"][0].update(risks="0.5")],
        "elts.csv:2: risks: '0.5' is below 1 (allowed: a number >= 1)",
    ),
    "an outwards contract per risk": (
        [contract(type="PR")],
        "outwards.csv:2: type: is PR, and a group's losses are not known by risk (allowed: QS, FAC, CXL, AXL, SL)",
    ),
    "an outwards contract with half a period": (
        [contract(inception="2025-01-01")],
        "outwards.csv:2: expiry: is empty, and a period has a first and a last day (allowed: both dates, or neither)",
    ),
    "an outwards contract that ends before it begins": (
        [contract(inception="2025-01-01", expiry="2024-01-01")],
        "outwards.csv:2: expiry: 2024-01-01 is before the inception 2025-01-01 "
        "(allowed: the day of inception or later)",
    ),
    "an outwards contract outside the trial year": (
        [head(trial_year=2025), contract(inception="2026-01-01", expiry="2026-12-31")],
        "outwards.csv:2: inception: 2026-01-01 to 2026-12-31 has no day in the trial year 2025 "
        "(allowed: a period that reaches into the trial year)",
    ),
    "a deal outside the trial year": (
        [head(trial_year=2025), deal(1, inception="2023-01-01", expiry="2024-12-31")],
        "deals.csv:3: inception: 2023-01-01 to 2024-12-31 has no day in the trial year 2025 "
        "(allowed: a period that reaches into the trial year)",
    ),
    "a currency whose rate comes too late": (
        [deal(0, currency="EUR"), table("rates", {**EUR, "date": "2025-01-01"})],
        "deals.csv:2: currency: 'EUR' is not the portfolio's currency 'USD' and has no rate on or before its as-at "
        "date (allowed: USD, or a currency in rates)",
    ),
    "a rate of the portfolio's own currency": (
        [table("rates", {**EUR, "currency": "USD"})],
        "rates.csv:2: currency: is the portfolio's own currency, whose rate is 1 (allowed: another one)",
    ),
    "a rate of no currency": (
        [table("rates", {**EUR, "currency": "EURO"})],
        "rates.csv:2: currency: 'EURO' is not a currency code (allowed: a code of ISO 4217 such as USD)",
    ),
    "a rate that stands twice": (
        [table("rates", EUR, EUR)],
        "rates.csv:3: date: 'EUR' with '2024-12-01' stands in rates.csv:2 already (allowed: each once)",
    ),
    "a rate of nothing": (
        [table("rates", {**EUR, "rate": "0"})],
        "rates.csv:2: rate: '0' is not above 0 (allowed: a number > 0)",
    ),
    "a negative load": (
        [head(pricing={"sd_load": -1})],
        "portfolio.json: pricing.sd_load: -1 is below 0 (allowed: a number >= 0)",
    ),
    "uncertainty without an exposure": (
        [head(secondary_uncertainty=True), lambda folder: folder.rows["elts"][2].update(sd_independent="5")],
        "elts.csv:4: exposure: is empty, and secondary uncertainty needs it where there is a standard deviation "
        "(allowed: a number above mean_loss)",
    ),
}


@pytest.mark.parametrize("name", ONE_FAULT)
def test_a_fault_names_file_row_field_and_what_is_allowed(tmp_path: Path, name: str) -> None:
    changes, expected = ONE_FAULT[name]
    with pytest.raises(FolderInvalid) as found:
        read(tmp_path, *changes)
    assert found.value.faults == [expected]


def test_a_run_that_samples_losses_has_the_faults_of_a_portfolio_that_does(tmp_path: Path) -> None:
    """The folder is sound; with the run's option it is refused as if portfolio.json had asked."""
    made = Folder()
    made.rows["elts"][2].update(sd_independent="5")
    folder = made.write(tmp_path)
    portfolio = read_folder(folder).portfolio
    assert not portfolio.secondary_uncertainty
    with pytest.raises(FolderInvalid) as found:
        read_folder(folder, sampled=True)
    assert found.value.faults == [ONE_FAULT["uncertainty without an exposure"][1]]


def test_the_document_knows_what_a_run_that_samples_losses_would_be_refused_for(tmp_path: Path) -> None:
    """By event loss table and event, whatever the order of the rows; a portfolio that can be sampled says nothing."""
    bare = (lambda folder: folder.rows["elts"][2].update(sd_independent="5"),)
    whole = read(tmp_path / "whole").portfolio
    one = read(tmp_path / "one", *bare).portfolio
    turned = read(tmp_path / "turned", *bare, lambda folder: folder.rows["elts"].reverse()).portfolio
    assert whole.sampling_faults == ()
    assert "sampling_faults" not in json.loads(whole.to_json())
    assert one.sampling_faults == (
        "elts: 'E2': exposure: event 2: is empty, and secondary uncertainty needs it where there is a standard "
        "deviation (allowed: a number above mean_loss)",
    )
    assert one.key == turned.key != whole.key


def test_a_document_that_samples_what_cannot_be_sampled_is_refused(tmp_path: Path) -> None:
    portfolio = read(tmp_path, lambda folder: folder.rows["elts"][2].update(sd_independent="5")).portfolio
    document = json.loads(portfolio.to_json()) | {"secondary_uncertainty": True}
    with pytest.raises(PortfolioInvalid, match="secondary_uncertainty: is on, and losses cannot be sampled: elts: 'E2"):
        Portfolio.from_json(json.dumps(document).encode())


def test_every_later_term_reaches_the_portfolio(tmp_path: Path) -> None:
    prepared = read(
        tmp_path,
        head(trial_year=2025, secondary_uncertainty=True, pricing={"sd_load": 0.3}),
        table("rates", EUR, {**EUR, "date": "2024-12-31", "rate": "1.2"}, {**EUR, "date": "2025-06-30", "rate": "9"}),
        table("industry_losses", PCS, {**PCS, "event_id": "3", "loss": "7"}),
        deal(0, currency="EUR"),
        layer(
            0,
            type="PR",
            risk_retention="5",
            risk_limit="90",
            franchise_deductible="2",
            index="PCS",
            index_trigger="1000",
            recovery_order="pro_rata",
            reinstatement_basis="amount_and_time",
            shared_limit="top",
            shared_aggregate_limit="70",
            inuring_priority="2",
            placed_share="0.9",
        ),
        layer(1, type="SS", ceded_share="", retained_line="10", lines="4"),
        contract(inception="2025-07-01", expiry="2026-06-30", recovery_order="pro_rata"),
        lambda folder: folder.rows["elts"][0].update(risks="3"),
    )
    portfolio = prepared.portfolio
    first, second = (each.terms for each in portfolio.deals[0].layers)
    assert (first.risk_retention, first.risk_limit, first.franchise_deductible) == (5, 90, 2)
    assert (first.index, first.index_trigger, first.recovery_order) == ("PCS", 1000, "pro_rata")
    assert (first.reinstatement_basis, first.inuring_priority) == ("amount_and_time", 2)
    assert (first.shared_limit, first.shared_aggregate_limit) == ("top", 70)
    assert first.share == pytest.approx(0.9 * 0.2)
    assert (second.retained_line, second.lines, second.ceded_share) == (10, 4, 1)
    [retro] = portfolio.outwards
    assert (retro.inception, retro.expiry, retro.terms.recovery_order) == (
        date(2025, 7, 1),
        date(2026, 6, 30),
        "pro_rata",
    )
    assert portfolio.pricing == Pricing(sd_load=0.3)
    assert (portfolio.trial_year, portfolio.secondary_uncertainty) == (2025, True)
    assert portfolio.rate_of("EUR") == 1.2
    assert portfolio.rate_of("USD") == 1.0
    [index] = portfolio.indices
    assert {name: array.tolist() for name, array in decode(prepared.objects[index.losses]).items()} == {
        "event": [1, 3],
        "mean": [20000, 7],
    }
    assert decode(prepared.objects[portfolio.deals[0].elt])["risks"].tolist() == [3, 1]
    assert Portfolio.from_json(portfolio.to_json()) == portfolio


def test_a_document_says_nothing_of_what_is_not_used(tmp_path: Path) -> None:
    document = json.loads(read(tmp_path).portfolio.to_json())
    assert not {"trial_year", "secondary_uncertainty", "pricing", "rates", "indices"} & document.keys()
    assert not {"inception", "expiry"} & document["outwards"][0].keys()
    assert "risk_retention" not in document["deals"][0]["layers"][0]["terms"]
