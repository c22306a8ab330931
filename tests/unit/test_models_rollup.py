"""Rolling losses up, and outwards contracts on a group's losses."""

import math
import random
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from riskmill.errors import ModelError
from riskmill.models import run_model
from riskmill.models.pricing import LAYER_STATS
from riskmill.outputs import Arrays


def yelt(losses: dict[int, float], dtype: type = np.float64) -> Arrays:
    rows = sorted(losses)
    return Arrays({"row": np.array(rows, np.int32), "loss": np.array([losses[row] for row in rows], dtype)})


def member(losses: dict[int, float], layers: int = 1) -> Arrays:
    return Arrays({**yelt(losses, np.float32), "layer_stats": np.full((layers, len(LAYER_STATS)), float(layers))})


def roll_up(children: list[Arrays], *, keep_members: bool = False) -> dict[str, Any]:
    return run_model("roll_up", 1, {"keep_members": keep_members}, children)


def year_events(occurrences: list[int]) -> Arrays:
    """Return a YET with so many occurrences in each trial."""
    size = sum(occurrences)
    return Arrays(
        {
            "trial": np.repeat(np.arange(len(occurrences), dtype=np.int32), occurrences),
            "day": np.zeros(size, np.int16),
            "event": np.ones(size, np.int32),
            "trials": np.array([len(occurrences)], np.int64),
        }
    )


def test_a_group_loses_the_sum_of_its_children_row_by_row() -> None:
    total = roll_up([yelt({1: 2.0, 5: 3.0}), yelt({}), yelt({0: 1.0, 5: 4.5})])
    assert total["row"].tolist() == [0, 1, 5]
    assert total["loss"].tolist() == [1.0, 2.0, 7.5]
    assert (total["row"].dtype, total["loss"].dtype) == (np.int32, np.float64)


def test_float32_losses_of_deals_add_up_in_float64() -> None:
    total = roll_up([yelt({0: 1.0}, np.float32), yelt({0: 2.0**-40}, np.float32)])
    assert total["loss"].tolist() == [1.0 + 2.0**-40]


def test_rows_that_lose_nothing_are_left_out() -> None:
    assert roll_up([yelt({0: 0.0, 3: 1.0})])["row"].tolist() == [3]


@given(st.lists(st.dictionaries(st.integers(0, 30), st.floats(0.01, 1e9), max_size=8), max_size=6), st.randoms())
def test_the_order_of_children_changes_neither_rows_nor_sums_beyond_rounding(
    books: list[dict[int, float]], rng: random.Random
) -> None:
    children = [yelt(book) for book in books]
    shuffled = list(children)
    rng.shuffle(shuffled)
    one, other = roll_up(children), roll_up(shuffled)
    assert one["row"].tobytes() == other["row"].tobytes()
    assert one["loss"].tolist() == pytest.approx(other["loss"].tolist(), rel=1e-14)


@given(
    st.lists(st.dictionaries(st.integers(0, 30), st.integers(1, 1000).map(float), max_size=8), min_size=2, max_size=6)
)
def test_a_group_of_groups_is_the_group_of_all(books: list[dict[int, float]]) -> None:
    children = [yelt(book) for book in books]
    flat = roll_up(children)
    nested = roll_up([Arrays(roll_up(children[:1])), Arrays(roll_up(children[1:]))])
    assert {name: array.tobytes() for name, array in nested.items()} == {
        name: array.tobytes() for name, array in flat.items()
    }


def test_members_are_kept_one_after_the_other() -> None:
    total = roll_up([member({1: 2.0, 5: 3.0}, 2), member({}), member({5: 4.0}, 1)], keep_members=True)
    assert total["member_offsets"].tolist() == [0, 2, 2, 3]
    assert total["member_row"].tolist() == [1, 5, 5]
    assert total["member_loss"].tolist() == [2.0, 3.0, 4.0]
    assert total["layer_offsets"].tolist() == [0, 2, 3, 4]
    assert total["layer_stats"][:, 0].tolist() == [2.0, 2.0, 1.0, 1.0]


@pytest.mark.parametrize("children", [[], [member({})]], ids=["no child", "a child without a loss"])
def test_a_group_without_a_loss_keeps_its_types(children: list[Arrays]) -> None:
    total = roll_up(children, keep_members=True)
    assert {name: array.dtype.name for name, array in total.items()} == {
        "row": "int32",
        "loss": "float64",
        "member_offsets": "int64",
        "member_row": "int32",
        "member_loss": "float32",
        "layer_offsets": "int64",
        "layer_stats": "float64",
    }
    assert total["row"].size == total["member_row"].size == 0
    assert total["layer_stats"].shape == (len(children), len(LAYER_STATS))


@pytest.mark.parametrize(
    ("child", "sentence"),
    [
        (Arrays({"row": np.array([1, 1], np.int32), "loss": np.ones(2)}), "not sorted, unique"),
        (Arrays({"row": np.array([-1], np.int32), "loss": np.ones(1)}), "from 0"),
        (Arrays({"row": np.array([1], np.int32), "loss": np.array([math.nan])}), "negative or not a number"),
        (Arrays({"row": np.array([1], np.int32), "loss": np.array([-1.0])}), "negative or not a number"),
        (Arrays({"row": np.array([1], np.int32), "loss": np.ones(2)}), "1 rows and 2 losses"),
        (Arrays({"row": np.array([1], np.int32)}), "no array loss"),
    ],
)
def test_a_child_that_is_no_year_event_loss_table_is_refused(child: Arrays, sentence: str) -> None:
    with pytest.raises(ModelError, match=sentence):
        roll_up([yelt({0: 1.0}), child])


def test_members_must_be_priced_deals() -> None:
    with pytest.raises(ModelError, match="no array layer_stats"):
        roll_up([yelt({0: 1.0})], keep_members=True)


def apply_retro(terms: dict[str, Any], subject: Arrays, yet: Arrays) -> dict[str, Any]:
    return run_model("apply_retro", 1, {"contracts": [terms]}, [subject, yet])


def test_an_outwards_contract_recovers_its_placed_share_in_the_order_of_events() -> None:
    terms = {
        "type": "CXL",
        "occurrence_retention": 10,
        "occurrence_limit": 20,
        "reinstatements": [],
        "participation": 0.5,
    }
    subject = yelt({0: 25.0, 1: 8.0, 2: 40.0, 4: 30.0})
    net = apply_retro(terms, subject, year_events([3, 1, 1]))
    # To the contract 15, 0, 20 | 20; one limit of 20 a year leaves 15, 0, 5 | 20; half of it is placed.
    assert net["row"].tolist() == [0, 1, 2, 4]
    assert net["ceded"].tolist() == [7.5, 0.0, 2.5, 10.0]
    assert net["loss"].tolist() == [17.5, 8.0, 37.5, 20.0]


def test_a_contract_without_a_loss_to_it_leaves_the_subject_as_it_is() -> None:
    for subject in (yelt({}), yelt({0: 5.0})):
        net = apply_retro({"type": "CXL", "occurrence_retention": 10}, subject, year_events([1, 0]))
        assert net["loss"].tobytes() == subject["loss"].tobytes()
        assert net["ceded"].tolist() == [0.0] * subject["row"].size
        assert [array.dtype.name for array in net.values()] == ["int32", "float64", "float64"]


def test_a_quota_share_that_cedes_all_leaves_nothing() -> None:
    net = apply_retro({"type": "QS", "ceded_share": 1.0}, yelt({0: 0.1, 1: 0.2}), year_events([2]))
    assert net["loss"].tolist() == [0.0, 0.0]


@given(
    st.dictionaries(st.integers(0, 11), st.floats(0.01, 1e9), max_size=12),
    st.floats(0, 1e9),
    st.floats(0, 1e9),
    st.sampled_from([0.0, 1e6, 1e9]),
)
def test_net_and_ceded_are_parts_of_the_subject(
    losses: dict[int, float], retention: float, limit: float, deductible: float
) -> None:
    terms = {
        "type": "CXL",
        "occurrence_retention": retention,
        "occurrence_limit": limit,
        "aggregate_deductible": deductible,
        "aggregate_limit": limit * 1.5,
        "participation": 0.7,
    }
    subject = yelt(losses)
    net = apply_retro(terms, subject, year_events([5, 0, 4, 3]))
    assert (net["loss"] >= 0).all()
    assert (net["ceded"] >= 0).all()
    assert (net["loss"] + net["ceded"]).tolist() == pytest.approx(subject["loss"].tolist(), rel=1e-14)


def test_a_subject_of_another_year_event_table_is_refused() -> None:
    with pytest.raises(ModelError, match="names row 5 of a year-event table of 3 rows"):
        apply_retro({"type": "QS"}, yelt({5: 1.0}), year_events([3]))
    with pytest.raises(ModelError, match="given 1 input"):
        run_model("apply_retro", 1, {"contracts": [{"type": "QS"}]}, [yelt({5: 1.0})])


def test_contracts_of_one_priority_share_the_subject_and_do_not_inure_to_each_other() -> None:
    first = {"type": "CXL", "occurrence_retention": 10, "occurrence_limit": 10}
    second = {"type": "CXL", "occurrence_retention": 20, "occurrence_limit": 30, "participation": 0.5}
    net = run_model(
        "apply_retro", 1, {"contracts": [first, second]}, [yelt({0: 5.0, 1: 18.0, 2: 60.0}), year_events([3])]
    )
    assert net["ceded"].tolist() == [0.0, 8.0, 10.0 + 15.0]
    assert net["loss"].tolist() == [5.0, 10.0, 35.0]


def test_contracts_that_together_cede_more_than_the_loss_are_refused() -> None:
    share = {"type": "QS", "ceded_share": 0.6}
    with pytest.raises(
        ModelError, match=r"2 outwards contracts of one priority cede 12\.00 of an occurrence's loss of 10\.00"
    ):
        run_model("apply_retro", 1, {"contracts": [share, share]}, [yelt({0: 10.0}), year_events([1])])
