"""What holds for every contract, compiled and in numpy: through `price_deal` as a rollup calls it, and its sums.

Monotone in the limit, additive in participation, layers that stack sum to the ground-up loss, no recovery above a
limit or the loss, shards of trials and the order of members change nothing.
"""

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oracle.bridge import KERNELS, by_row, computed_with, event_loss_table, occurrences, year_event_table
from oracle.strategies import AMOUNTS, Case, cases
from oracle.test_deals import priced
from riskmill.models import run_model
from riskmill.models.pricing import LAYER_STATS
from riskmill.outputs import Arrays, encode

RECOVERY = LAYER_STATS.index("recovery")

both = pytest.mark.parametrize("kernel", KERNELS)
repeatable = settings(max_examples=40, derandomize=True, deadline=None, database=None)


def our_loss(found: dict[str, Any]) -> float:
    return float(found["loss"].sum(dtype=np.float64))


@both
@repeatable
@given(case=cases(), name=st.sampled_from(["occurrence_limit", "aggregate_limit", "risk_limit"]), more=AMOUNTS)
def test_a_higher_limit_recovers_no_less_in_any_year(kernel: str, case: Case, name: str, more: float) -> None:
    """Of one layer: of several, what a wider one takes inures to the others."""
    layer = {key: value for key, value in case.layers[0].items() if not key.startswith("shared")}
    layer.setdefault(name, 30.0)
    higher = layer | {name: layer[name] + more}
    with computed_with(kernel):
        few, many = (priced(replace(case, layers=[each]))["layer_stats"][0] for each in (layer, higher))
    assert many[RECOVERY] >= few[RECOVERY] - 1e-9


@both
@repeatable
@given(case=cases())
def test_our_loss_is_additive_in_participation(kernel: str, case: Case) -> None:
    def at(share: float) -> dict[int, float]:
        layers = [layer | {"participation": share} for layer in case.layers]
        return by_row(priced(replace(case, layers=layers)))

    with computed_with(kernel):
        parts, whole = [at(share) for share in (0.25, 0.5)], at(0.75)
    summed = {row: sum(part.get(row, 0.0) for part in parts) for row in parts[0].keys() | parts[1].keys()}
    assert summed == pytest.approx(whole, rel=1e-6)


@both
@repeatable
@given(case=cases(plain=True), cuts=st.lists(AMOUNTS.filter(bool), min_size=1, max_size=3, unique=True))
def test_layers_that_stack_sum_to_the_ground_up_loss(kernel: str, case: Case, cuts: list[float]) -> None:
    """By occurrence, and by year."""
    edges = [0.0, *sorted(cuts)]
    limits = [upper - lower for lower, upper in pairwise(edges)]
    for retention, limit in (("occurrence_retention", "occurrence_limit"), ("aggregate_deductible", "aggregate_limit")):
        layers: list[dict[str, Any]] = [
            {"type": "FAC", retention: lower, limit: size} for lower, size in zip(edges, limits, strict=False)
        ]
        layers.append({"type": "FAC", retention: edges[-1]})
        with computed_with(kernel):
            stacked = priced(replace(case, layers=layers))
            ground_up = priced(replace(case, layers=[{"type": "QS"}]))
        assert by_row(stacked) == pytest.approx(by_row(ground_up), rel=1e-6)


@both
@repeatable
@given(case=cases())
def test_no_recovery_is_above_the_loss_or_a_limit(kernel: str, case: Case) -> None:
    layer = case.layers[0] | {"participation": 1.0, "placed_share": 1.0}
    layer = {key: value for key, value in layer.items() if not key.startswith("shared")}
    with computed_with(kernel):
        found = priced(replace(case, layers=[layer]))
        subject = by_row(priced(replace(case, layers=[{"type": "QS"}])))
    trial = {each.row: each.trial for year in occurrences(year_event_table(case.years)) for each in year}
    annual: dict[int, float] = {}
    for row, loss in by_row(found).items():
        assert loss <= subject[row] * (1 + 1e-6)
        assert loss <= layer.get("occurrence_limit", np.inf) * (1 + 1e-6)
        annual[trial[row]] = annual.get(trial[row], 0.0) + loss
    capacity = layer.get("aggregate_limit", np.inf)
    if "reinstatements" in layer:
        capacity = min(capacity, (1 + len(layer["reinstatements"])) * layer["occurrence_limit"])
    assert max(annual.values(), default=0.0) <= capacity * (1 + 1e-6)


@both
@repeatable
@given(case=cases(plain=True), at=st.integers(1, 11))
def test_shards_of_trials_lose_what_the_whole_does(kernel: str, case: Case, at: int) -> None:
    with computed_with(kernel):
        whole = priced(case)
        shards = [case.years[:at], case.years[at:]]
        parts = [(years, priced(replace(case, years=years))) for years in shards if years]
    rows, losses, first = [], [], 0
    for years, part in parts:
        rows += (part["row"] + first).tolist()
        losses += part["loss"].tolist()
        first += sum(len(year) for year in years)
    assert (rows, losses) == (whole["row"].tolist(), whole["loss"].tolist())
    assert sum(part["layer_stats"] for _, part in parts) == pytest.approx(whole["layer_stats"], rel=1e-12)


@both
@repeatable
@given(case=cases(plain=True), order=st.permutations(range(4)))
def test_the_order_of_members_changes_no_sum(kernel: str, case: Case, order: list[int]) -> None:
    """Whole numbers and quarters, so that no order rounds."""
    with computed_with(kernel):
        members = [Arrays(priced(replace(case, layers=[layer]))) for layer in case.layers]
        chosen = [members[at] for at in order if at < len(members)]
        sums = [run_model("roll_up", 1, {"keep_members": False}, each) for each in (members, chosen)]
    assert encode(sums[0]) == encode(sums[1])


@repeatable
@given(case=cases(plain=True))
def test_a_quote_is_the_price_without_its_losses(case: Case) -> None:
    whole = replace(case, period=(0, 364), rate=1.0)
    elt = event_loss_table(whole.losses, {event: whole.facts[event] for event in whole.losses})
    for kernel in KERNELS:
        with computed_with(kernel):
            quoted = run_model("quote_deal", 1, {"layers": whole.layers}, [elt, year_event_table(whole.years)])
            assert quoted["layer_stats"] == pytest.approx(priced(whole)["layer_stats"], rel=1e-12)
