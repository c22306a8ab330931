"""The tail shared among deals, and the table of all deals."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from riskmill.errors import ModelError
from riskmill.models import run_model
from riskmill.models.allocation import DEAL_FIGURES, DEAL_PERIODS, DEAL_TABLES, read_ids
from riskmill.models.pricing import PRICE_FIGURES
from riskmill.outputs import Arrays

QUOTA = {"type": "QS", "participation": 0.5, "premium": 2.0}


def year_events(occurrences: list[int]) -> Arrays:
    size = sum(occurrences)
    return Arrays(
        {
            "trial": np.repeat(np.arange(len(occurrences), dtype=np.int32), occurrences),
            "day": np.zeros(size, np.int16),
            "event": np.arange(1, size + 1, dtype=np.int32),
            "trials": np.array([len(occurrences)], np.int64),
        }
    )


class Book:
    """Deals with a loss for each occurrence of each block: [block][deal][occurrence]."""

    def __init__(self, occurrences: list[list[int]], losses: list[list[list[float]]], tail: float = 0.5) -> None:
        self.yets = [year_events(sizes) for sizes in occurrences]
        self.deals = len(losses[0])
        self.leaves = []
        for yet, deals in zip(self.yets, losses, strict=True):
            elts = [
                Arrays({"event": yet["event"], "mean": np.array(deal[: yet["event"].size], np.float64)})
                for deal in deals
            ]
            priced = [Arrays(run_model("price_deal", 1, {"layers": [QUOTA]}, [elt, yet])) for elt in elts]
            self.leaves.append(Arrays(run_model("roll_up", 1, {"keep_members": True}, priced)))
        params = {"blocks": len(self.yets), "tail": tail}
        self.top = Arrays(run_model("measure", 3, params, [*self.yets, *self.leaves]))

    def params(self, **changes: Any) -> dict[str, Any]:
        return {
            "blocks": len(self.yets),
            "deals": [f"d{n}" for n in range(self.deals)],
            "brokerage": [0.2] * self.deals,
            "layers": [[f"d{n}.1"] for n in range(self.deals)],
            "terms": [[QUOTA]] * self.deals,
        } | changes

    def allocate(self, **changes: Any) -> Arrays:
        inputs = [*self.yets, *self.leaves, self.top]
        return Arrays(run_model("allocate", 3, self.params(**changes), inputs))


def test_a_deal_gets_its_mean_loss_in_the_years_of_the_tail() -> None:
    # Years of the group at 100%: 30, 12 | 8, 50, 0; half of it is ours. The worst 2.5 of 5 years: 50, 30, half of 12.
    book = Book([[2, 1], [1, 1, 0]], [[[10, 10, 2], [0, 10, 10]], [[8, 0], [0, 50]]])
    shares = book.allocate()
    assert shares["co_tvar"].tolist() == pytest.approx([0.5 * (20 + 1) / 2.5, 0.5 * (50 + 10 + 5) / 2.5])
    assert shares["aal"].tolist() == pytest.approx([0.5 * 30 / 5, 0.5 * 70 / 5])
    assert shares["sd"].tolist() == pytest.approx([np.std([10, 1, 4, 0, 0], ddof=1), np.std([5, 5, 0, 25, 0], ddof=1)])
    assert shares["co_tvar"].sum() == pytest.approx(book.top["tvar"][0], rel=1e-12)
    figures = dict(zip(PRICE_FIGURES, shares["price_figures"][0].tolist(), strict=True))
    assert figures["expected_loss"] == pytest.approx(3)
    assert figures["technical_premium"] == pytest.approx(3 / 0.8)
    assert read_ids(shares["deal_ids"]) == ["d0", "d1"]
    assert read_ids(shares["layer_ids"]) == ["d0.1", "d1.1"]


losses = st.floats(0, 1e8) | st.integers(0, 3).map(float)


@given(
    st.lists(st.lists(losses, min_size=6, max_size=6), min_size=1, max_size=6),
    st.lists(st.integers(0, 3), min_size=1, max_size=6),
    st.sampled_from([0.01, 0.5, 0.75, 0.9, 0.99]),
)
def test_shares_of_the_tail_add_up_to_the_tvar_of_the_group(
    deals: list[list[float]], sizes: list[int], tail: float
) -> None:
    repeated = [(deal * 3)[: max(sum(sizes), 1)] for deal in deals]
    book = Book([sizes, sizes[::-1]], [repeated, repeated], tail)
    shares = book.allocate()
    assert float(shares["co_tvar"].sum()) == pytest.approx(book.top["tvar"][0], rel=1e-9)
    assert float(shares["aal"].sum()) == pytest.approx(book.top["aal"][0], rel=1e-9)


@pytest.mark.parametrize("sizes", [[0], [1], [0, 0]], ids=["no occurrence", "one trial", "two trials"])
def test_deals_without_a_loss_keep_their_types(sizes: list[int]) -> None:
    shares = Book([sizes], [[[0.0], [0.0]]]).allocate()
    found = {name: (array.dtype.name, array.shape) for name, array in shares.items() if not name.endswith("_ids")}
    assert found == {
        **dict.fromkeys(DEAL_FIGURES, ("float64", (2,))),
        **dict.fromkeys(DEAL_TABLES, ("float64", (2, len(DEAL_PERIODS)))),
        "price_figures": ("float64", (2, len(PRICE_FIGURES))),
    }
    assert shares["co_tvar"].tolist() == [0, 0]
    assert np.isnan(shares["sd"]).all() == (len(sizes) == 1)


def test_a_leaf_without_deals_has_an_empty_table() -> None:
    book = Book([[1]], [[]])
    shares = book.allocate()
    assert shares["aal"].size == 0
    assert shares["price_figures"].shape == (0, len(PRICE_FIGURES))
    assert read_ids(shares["deal_ids"]) == []


def test_parameters_that_do_not_fit_the_leaf_are_refused() -> None:
    book = Book([[1]], [[[1.0], [2.0]]])
    with pytest.raises(ModelError, match="differ in length"):
        book.allocate(brokerage=[0.1])
    with pytest.raises(ModelError, match="deal d1 has 2 layers and terms of 1"):
        book.allocate(layers=[["a"], ["b", "c"]])
    with pytest.raises(ModelError, match="the leaf has layers at"):
        book.allocate(deals=["x"], brokerage=[0.1], layers=[["a"]], terms=[[QUOTA]])
    with pytest.raises(ModelError, match="2 inputs"):
        run_model("allocate", 3, book.params(), [book.yets[0], book.leaves[0]])


def test_a_measure_of_other_trials_is_refused() -> None:
    book = Book([[1]], [[[1.0]]])
    book.top = Book([[1, 1]], [[[1.0, 2.0]]]).top
    with pytest.raises(ModelError, match="the blocks have 1 trials"):
        book.allocate()


def test_tables_of_deals_are_put_one_after_the_other() -> None:
    one, two = Book([[1]], [[[1.0]]]), Book([[1, 1]], [[[3.0, 5.0], [0.0, 7.0]]])
    parts = [one.allocate(deals=["\u00e9"]), two.allocate()]
    table = Arrays(run_model("tabulate_deals", 3, {}, parts))
    assert read_ids(table["deal_ids"]) == ["\u00e9", "d0", "d1"]
    assert read_ids(table["layer_ids"]) == ["d0.1", "d0.1", "d1.1"]
    for name in (*DEAL_FIGURES, *DEAL_TABLES, "price_figures"):
        assert table[name].tobytes() == b"".join(part[name].tobytes() for part in parts)


def test_an_empty_table_of_deals_keeps_its_types() -> None:
    table = run_model("tabulate_deals", 3, {}, [])
    assert {name: (array.dtype.name, array.shape) for name, array in table.items()} == {
        **dict.fromkeys(DEAL_FIGURES, ("float64", (0,))),
        **dict.fromkeys(DEAL_TABLES, ("float64", (0, len(DEAL_PERIODS)))),
        "price_figures": ("float64", (0, len(PRICE_FIGURES))),
        "deal_ids": ("uint8", (2,)),
        "layer_ids": ("uint8", (2,)),
    }


@pytest.mark.parametrize("text", [b"\xff", b"{}", b"[1]", b""])
def test_what_is_not_a_list_of_names_is_refused(text: bytes) -> None:
    with pytest.raises(ModelError, match="not a list of names"):
        read_ids(np.frombuffer(text, np.uint8))


def test_names_are_stored_as_utf8_json() -> None:
    shares = Book([[1]], [[[1.0]]]).allocate(deals=["M\u00fcller & S\u00f6hne"])
    assert json.loads(shares["deal_ids"].tobytes().decode()) == ["M\u00fcller & S\u00f6hne"]
