"""Every golden book, through the registered models, gives the figures that its README works out by hand."""

from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest

from golden import books
from riskmill.models import MODELS, run_model
from riskmill.models.allocation import read_ids
from riskmill.models.metrics import RETURN_PERIODS
from riskmill.models.pricing import PRICE_FIGURES
from riskmill.outputs import Arrays


class Results:
    """All models' outputs for one book, by block."""

    def __init__(self, book: Path, trials_per_block: int) -> None:
        layers = books.table(book, "layers")
        self.deals = list(dict.fromkeys(row["deal_id"] for row in layers))
        of_deal = {deal: [row for row in layers if row["deal_id"] == deal] for deal in self.deals}
        terms = {deal: [books.terms(row) for row in rows] for deal, rows in of_deal.items()}
        self.yets = books.yets(book, trials_per_block)
        self.trials_per_block = trials_per_block
        elts = {
            deal: books.elt([row for row in books.table(book, "elts") if row["deal_id"] == deal]) for deal in self.deals
        }
        self.priced = [
            {deal: _run("price_deal", {"layers": terms[deal]}, [elts[deal], yet]) for deal in self.deals}
            for yet in self.yets
        ]
        leaves = [_run("roll_up", {"keep_members": True}, list(priced.values())) for priced in self.priced]
        self.retro: dict[str, list[Arrays]] = {}
        net = leaves
        for row in sorted(books.table(book, "outwards"), key=lambda row: int(row["priority"])):
            contract = {"contracts": [books.terms(row)]}
            net = [_run("apply_retro", contract, [loss, yet]) for loss, yet in zip(net, self.yets, strict=True)]
            self.retro[row["contract_id"]] = net
        blocks, tail = len(self.yets), books.settings(book)["tail"]

        def measured(perspective: str, yelts: list[Arrays]) -> Arrays:
            params = {"blocks": blocks, "perspective": perspective, "tail": tail}
            return _run("measure", params, [*self.yets, *yelts])

        self.measures = {
            "gross": measured("gross", leaves),
            "net": measured("net", net),
            "ceded": measured("ceded", [*leaves, *net]),
        }
        params = {
            "blocks": blocks,
            "deals": self.deals,
            "brokerage": [float(of_deal[deal][0]["brokerage"]) for deal in self.deals],
            "layers": [[row["layer_id"] for row in of_deal[deal]] for deal in self.deals],
            "terms": list(terms.values()),
        }
        self.allocated = _run("allocate", params, [*self.yets, *leaves, self.measures["gross"]])

    def occurrences(self, yelts: list[Arrays], *columns: str) -> list[tuple[Any, ...]]:
        """Return (trial, day, event id, columns..) of a YELT over all blocks."""
        return [
            (
                int(yet["trial"][row]) + block * self.trials_per_block,
                int(yet["day"][row]),
                int(yet["event"][row]),
                *(float(yelt[column][at]) for column in columns),
            )
            for block, (yet, yelt) in enumerate(zip(self.yets, yelts, strict=True))
            for at, row in enumerate(yelt["row"])
        ]


def _run(name: str, params: dict[str, Any], inputs: list[Arrays]) -> Arrays:
    version = max(version for model, version in MODELS if model == name)
    return Arrays(run_model(name, version, params, inputs))


@lru_cache(maxsize=1)
def _results(book: Path, trials_per_block: int) -> Results:
    return Results(book, trials_per_block)


def _books_with(name: str) -> pytest.MarkDecorator:
    """Run a test on every book that has this table, in one block of trials and in one block per trial."""
    found = [
        pytest.param(book, block, id=f"{book.name}-{'one_block' if block > 1 else 'block_per_trial'}")
        for book in books.BOOKS
        for block in (1000, 1)
        if (book / f"{name}.csv").exists()
    ]
    return pytest.mark.parametrize(("book", "trials_per_block"), found)


def _close(found: list[tuple[Any, ...]], expected: list[tuple[Any, ...]]) -> None:
    assert [row[:3] for row in found] == [row[:3] for row in expected]
    for got, wanted in zip(found, expected, strict=True):
        assert got[3:] == pytest.approx(wanted[3:], rel=1e-6, abs=1e-12)


def _occurrence(row: books.Row, *columns: str) -> tuple[Any, ...]:
    return int(row["trial"]), int(row["day"]), int(row["event_id"]), *(float(row[column]) for column in columns)


def test_there_are_golden_books() -> None:
    assert len(books.BOOKS) >= 4


@_books_with("expected_yelt")
def test_deals_lose_what_the_book_says_on_every_occurrence(book: Path, trials_per_block: int) -> None:
    results = _results(book, trials_per_block)
    expected = books.table(book, "expected_yelt")
    for deal in results.deals:
        wanted = [_occurrence(row, "loss") for row in expected if row["deal_id"] == deal]
        _close(results.occurrences([priced[deal] for priced in results.priced], "loss"), wanted)


@_books_with("expected_layers")
def test_layers_have_the_price_figures_of_the_book(book: Path, trials_per_block: int) -> None:
    results = _results(book, trials_per_block)
    expected = books.table(book, "expected_layers")
    assert read_ids(results.allocated["layer_ids"]) == [row["layer_id"] for row in expected]
    for figures, row in zip(results.allocated["price_figures"], expected, strict=True):
        wanted = {name: float(row[name]) for name in PRICE_FIGURES if name in row}
        found = {name: value for name, value in zip(PRICE_FIGURES, figures, strict=True) if name in row}
        assert len(found) >= 8
        assert found == pytest.approx(wanted, rel=1e-6, nan_ok=True)


@_books_with("expected_retro")
def test_outwards_contracts_recover_what_the_book_says(book: Path, trials_per_block: int) -> None:
    results = _results(book, trials_per_block)
    expected = books.table(book, "expected_retro")
    for contract, yelts in results.retro.items():
        wanted = [_occurrence(row, "net", "ceded") for row in expected if row["contract_id"] == contract]
        _close(results.occurrences(yelts, "loss", "ceded"), wanted)


@_books_with("expected_group")
def test_the_group_measures_what_the_book_says(book: Path, trials_per_block: int) -> None:
    results = _results(book, trials_per_block)
    expected = books.table(book, "expected_group")
    for row in expected:
        found = results.measures[row["perspective"]][row["measure"]]
        at = RETURN_PERIODS.index(int(row["return_period"])) if row["return_period"] else 0
        assert float(found[at]) == pytest.approx(float(row["value"]), rel=1e-6, nan_ok=True), row


@_books_with("expected_deals")
def test_deals_share_the_tail_as_the_book_says(book: Path, trials_per_block: int) -> None:
    results = _results(book, trials_per_block)
    expected = books.table(book, "expected_deals")
    assert read_ids(results.allocated["deal_ids"]) == [row["deal_id"] for row in expected]
    for column in ("aal", "sd", "co_tvar"):
        wanted = [float(row[column]) for row in expected]
        assert results.allocated[column].tolist() == pytest.approx(wanted, rel=1e-6)
