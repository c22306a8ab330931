"""The later contract terms, each in numbers that a person can check by hand, and price_deal against a plain loop."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from riskmill.errors import ModelError
from riskmill.models import run_model
from riskmill.models.contracts import (
    EventFacts,
    franchise,
    index_triggered,
    occurrence_loss,
    per_risk_excess,
    pro_rata_recovery,
    reinstatement_fraction,
    reinstatement_fraction_in_time,
    shared_limit_recoveries,
    surplus_share,
    unexpired_part,
)
from riskmill.models.pricing import LAYER_STATS, PRICE_FIGURES, Pricing, price_figures
from riskmill.outputs import Arrays
from riskmill.terms import Terms

LOSSES = np.array([0.0, 5.0, 10.0, 12.0, 30.0, 1000.0])


def test_a_franchise_pays_in_full_once_it_is_reached() -> None:
    assert franchise(LOSSES, 10.0).tolist() == [0, 0, 10, 12, 30, 1000]
    assert franchise(LOSSES, 0.0) is LOSSES
    terms = Terms(type="CXL", franchise_deductible=12, occurrence_retention=2, occurrence_limit=20)
    assert occurrence_loss(terms, LOSSES).tolist() == [0, 0, 0, 10, 20, 20]


@pytest.mark.parametrize(
    ("sum_insured", "line", "lines", "share"),
    [
        # Four lines of 100: a sum insured of 300 is ceded 200, one of 500 is ceded 400, one of 800 no more than 400.
        (50.0, 100.0, 4.0, 0.0),
        (100.0, 100.0, 4.0, 0.0),
        (300.0, 100.0, 4.0, 2 / 3),
        (500.0, 100.0, 4.0, 0.8),
        (800.0, 100.0, 4.0, 0.5),
        (0.0, 100.0, 4.0, 0.0),
    ],
)
def test_a_surplus_cedes_the_lines_above_the_retained_one(
    sum_insured: float, line: float, lines: float, share: float
) -> None:
    assert surplus_share(np.array([sum_insured]), line, lines).tolist() == pytest.approx([share])


def test_a_surplus_by_lines_looks_at_the_sum_insured_of_one_risk() -> None:
    terms = Terms(type="SS", retained_line=100, lines=4)
    facts = EventFacts(risks=np.array([1.0, 2.0]), exposure=np.array([500.0, 600.0]))
    assert occurrence_loss(terms, np.array([50.0, 60.0]), facts).tolist() == pytest.approx([40, 40])
    with pytest.raises(ModelError, match="needs the exposures"):
        occurrence_loss(terms, np.array([50.0]))


def test_per_risk_terms_apply_to_each_of_the_risks_that_share_a_loss() -> None:
    assert per_risk_excess(np.array([30.0]), 1.0, 10.0, 15.0).tolist() == [15]
    assert per_risk_excess(np.array([30.0]), np.array([2.0]), 10.0, 15.0).tolist() == [10]
    assert per_risk_excess(np.array([30.0]), np.array([3.0]), 10.0, 15.0).tolist() == [0]
    # Two risks of 40 each, 15 xs 10 of each, at most 20 of the event.
    terms = Terms(type="PR", risk_retention=10, risk_limit=15, occurrence_limit=20)
    assert occurrence_loss(terms, np.array([80.0]), EventFacts(risks=np.array([2.0]))).tolist() == [20]


def test_an_industry_loss_warranty_pays_only_when_the_industry_loses_enough() -> None:
    assert index_triggered(np.array([7.0, 7.0, 7.0]), np.array([9.0, 10.0, 11.0]), 10.0).tolist() == [0, 7, 7]
    with pytest.raises(ModelError, match="industry losses"):
        occurrence_loss(Terms(type="CXL", index="PCS", index_trigger=1), LOSSES)


def test_pro_rata_recoveries_share_the_year_in_proportion() -> None:
    terms = Terms(type="AXL", aggregate_deductible=6, aggregate_limit=9)
    recovery, annual = pro_rata_recovery(terms, np.array([5.0, 15, 3, 0, 8]), np.array([0, 2, 3]))
    assert recovery.tolist() == pytest.approx([9 / 4, 27 / 4, 0, 0, 2])
    assert annual.tolist() == [9, 0, 2]


def test_layers_share_a_limit_in_the_order_of_events() -> None:
    # Two years; the limit of 10 is used up by the second occurrence, which is cut to 4 of 8: half of each layer.
    top, drop = np.array([0.0, 6, 6, 3]), np.array([6.0, 2, 0, 3])
    shared = shared_limit_recoveries([top, drop], 10.0, np.array([0, 3]))
    assert [part.tolist() for part in shared] == [[0, 3, 0, 3], [6, 1, 0, 3]]


def test_the_unexpired_part_counts_the_day_of_the_loss() -> None:
    days = np.array([0, 182, 364])
    assert unexpired_part(days, 0, 364).tolist() == pytest.approx([1, 183 / 365, 1 / 365])
    # From 1 July for a year, seen from 1 January: a loss on its first day in the year, and on 31 December.
    assert unexpired_part(np.array([181, 364]), 181, 545).tolist() == pytest.approx([1, 182 / 365])


def test_a_reinstatement_is_paid_pro_rata_as_to_amount_and_time() -> None:
    # 10 xs .. with reinstatements at 100% and 50%: 6 on day 73 (0.8 left), 8 on day 219 (0.4 left), 9 on day 292 (0.2).
    terms = Terms(type="CXL", occurrence_limit=10, reinstatements=(1.0, 0.5))
    recovery, starts = np.array([6.0, 8, 9]), np.array([0])
    fraction = reinstatement_fraction_in_time(terms, recovery, starts, np.array([0.8, 0.4, 0.2]))
    assert fraction.tolist() == pytest.approx([0.6 * 0.8 + (0.4 + 0.5 * 0.4) * 0.4 + 0.5 * 0.6 * 0.2])
    as_to_amount = reinstatement_fraction_in_time(terms, recovery, starts, np.ones(3))
    assert as_to_amount.tolist() == pytest.approx(reinstatement_fraction(terms, np.array([23.0])).tolist())


def yet_of(years: list[list[tuple[int, int]]]) -> Arrays:
    """Return a YET of years of (day, event)."""
    rows = [(trial, day, event) for trial, year in enumerate(years) for day, event in sorted(year)]
    trial, day, event = ([row[column] for row in rows] for column in range(3))
    return Arrays(
        {
            "trial": np.array(trial, np.int32),
            "day": np.array(day, np.int16),
            "event": np.array(event, np.int32),
            "trials": np.array([len(years)], np.int64),
        }
    )


def elt_of(losses: dict[int, float], **columns: dict[int, float]) -> Arrays:
    events = sorted(losses)
    more = {name: np.array([values[event] for event in events], float) for name, values in columns.items()}
    mean = np.array([losses[event] for event in events], float)
    return Arrays({"event": np.array(events, np.int32), "mean": mean, **more})


def test_a_quota_share_inures_to_the_benefit_of_the_excess_of_loss() -> None:
    """A quota share of 40%, 75% placed, leaves 70%; then 20 xs 50 of that."""
    layers = [
        {"type": "QS", "ceded_share": 0.4, "placed_share": 0.75, "participation": 0.0},
        {"type": "CXL", "occurrence_retention": 50, "occurrence_limit": 20, "inuring_priority": 2},
    ]
    yet, elt = yet_of([[(1, 1), (2, 2), (3, 3)]]), elt_of({1: 60.0, 2: 80.0, 3: 200.0})
    priced = run_model("price_deal", 1, {"layers": layers}, [elt, yet])
    assert priced["row"].tolist() == [1, 2]
    assert priced["loss"].tolist() == pytest.approx([80 * 0.7 - 50, 20])
    ours = [{**layers[0], "participation": 0.5}, layers[1]]
    priced = run_model("price_deal", 1, {"layers": ours}, [elt, yet])
    assert priced["loss"].tolist() == pytest.approx([60 * 0.15, 80 * 0.15 + 6, 200 * 0.15 + 20])


def test_top_and_drop_pays_on_top_or_below_but_its_limit_once() -> None:
    """100 xs 300 on top, or 100 xs 100 once the layer below has paid its 200 of the year; 100 in all."""
    shared = {"type": "CXL", "occurrence_limit": 100, "shared_limit": "td", "shared_aggregate_limit": 100}
    layers = [
        {**shared, "occurrence_retention": 300},
        {**shared, "occurrence_retention": 100, "aggregate_deductible": 200},
    ]
    elt = elt_of({1: 350.0, 2: 200.0, 3: 500.0})
    yet = yet_of([[(1, 1), (2, 2), (3, 2)], [(1, 2), (2, 2), (3, 2), (4, 3)], [(1, 3), (2, 2), (3, 2)]])
    priced = run_model("price_deal", 1, {"layers": layers}, [elt, yet])
    # Year 1: 50 on top, then the drop's annual deductible of 200 takes 100 + 100 and leaves 100, cut to 50.
    # Year 2: the third loss exhausts all. Year 3: the first does.
    assert dict(zip(priced["row"].tolist(), priced["loss"].tolist(), strict=True)) == {0: 50, 2: 50, 5: 100, 7: 100}
    annual = dict(zip(LAYER_STATS, priced["layer_stats"].sum(axis=0).tolist(), strict=True))
    assert annual["recovery"] == 300


def test_occurrences_outside_the_period_do_not_count_for_any_annual_term() -> None:
    layers = [{"type": "CXL", "occurrence_limit": 10, "reinstatements": []}]
    yet = yet_of([[(10, 1), (100, 1), (200, 1)]])
    params = {"layers": layers, "period": {"first": 90, "last": 454}}
    priced = run_model("price_deal", 1, params, [elt_of({1: 8.0}), yet])
    assert priced["row"].tolist() == [1, 2]
    assert priced["loss"].tolist() == [8, 2]
    with pytest.raises(ModelError, match="before its first day"):
        run_model("price_deal", 1, {"layers": layers, "period": {"first": 9, "last": 8}}, [elt_of({1: 8.0}), yet])


def test_time_runs_from_the_contracts_own_first_day() -> None:
    layers = [
        {
            "type": "CXL",
            "occurrence_limit": 10,
            "reinstatements": [1.0],
            "reinstatement_basis": "amount_and_time",
        }
    ]
    yet = yet_of([[(181, 1)], [(364, 1)], [(0, 1)]])
    params = {"layers": layers, "period": {"first": 181, "last": 545}}
    priced = run_model("price_deal", 1, params, [elt_of({1: 10.0}), yet])
    stats = dict(zip(LAYER_STATS, priced["layer_stats"][0].tolist(), strict=True))
    assert stats["reinstated"] == pytest.approx(1 + 182 / 365)
    assert stats["attached"] == 2


def test_another_currencys_losses_are_converted_and_terms_stand_in_the_portfolios() -> None:
    terms = Terms(type="CXL", occurrence_retention=10, occurrence_limit=20, premium=3, index="X", index_trigger=7)
    converted = terms.converted(1.25)
    assert (converted.occurrence_retention, converted.occurrence_limit, converted.premium) == (12.5, 25, 3.75)
    assert (converted.index_trigger, converted.ceded_share) == (7, 1)
    layer = {"type": "CXL", "occurrence_retention": 12.5, "occurrence_limit": 25}
    yet = yet_of([[(1, 1)]])
    priced = run_model("price_deal", 1, {"layers": [layer], "rate": 1.25}, [elt_of({1: 22.0}), yet])
    assert priced["loss"].tolist() == [15]


def test_an_index_is_an_input_beside_the_year_event_table() -> None:
    layers = [{"type": "CXL", "occurrence_limit": 50, "index": "PCS", "index_trigger": 1e9}, {"type": "QS"}]
    yet, elt = yet_of([[(1, 1), (2, 2), (3, 3)]]), elt_of({1: 60.0, 2: 60.0, 3: 60.0})
    index = elt_of({1: 2e9, 3: 9e8})
    priced = run_model("price_deal", 1, {"layers": layers, "indices": ["PCS"]}, [elt, yet, index])
    assert priced["loss"].tolist() == [110, 60, 60]
    with pytest.raises(ModelError, match="and 1 table"):
        run_model("price_deal", 1, {"layers": layers, "indices": ["PCS"]}, [elt, yet])
    subject = Arrays({"row": np.array([0, 1], np.int32), "loss": np.array([60.0, 60.0])})
    net = run_model("apply_retro", 1, {"contracts": layers[:1], "indices": ["PCS"]}, [subject, yet, index])
    assert net["ceded"].tolist() == [50, 0]


def test_an_outwards_contract_covers_its_own_days() -> None:
    yet = yet_of([[(10, 1), (300, 1)]])
    subject = Arrays({"row": np.array([0, 1], np.int32), "loss": np.array([60.0, 60.0])})
    params = {"contracts": [{"type": "QS", "ceded_share": 0.5}], "periods": [{"first": 181, "last": 364}]}
    assert run_model("apply_retro", 1, params, [subject, yet])["ceded"].tolist() == [0, 30]
    with pytest.raises(ModelError, match="2 periods of 1 contracts"):
        run_model("apply_retro", 1, params | {"periods": params["periods"] * 2}, [subject, yet])


def by_loop(layers: list[Terms], elt: Arrays, years: list[list[tuple[int, int]]], first: int, last: int) -> list[float]:
    """Return our share's loss of every row, one occurrence and one layer after the other."""
    facts = {int(event): at for at, event in enumerate(elt["event"])}
    found = []
    for year in years:
        spent = [0.0] * len(layers)
        for day, event in sorted(year):
            ours = 0.0
            if event in facts and first <= day <= last:
                at = facts[event]
                subject = gross = float(elt["mean"][at])
                for priority in sorted({terms.inuring_priority for terms in layers}):
                    inured = 0.0
                    for number, terms in enumerate(layers):
                        if terms.inuring_priority != priority:
                            continue
                        loss = subject * terms.ceded_share
                        risks = float(elt["risks"][at])
                        if terms.risk_limit is not None or terms.risk_retention:
                            cap = math.inf if terms.risk_limit is None else terms.risk_limit
                            loss = risks * min(max(loss / risks - terms.risk_retention, 0.0), cap)
                        loss = loss if loss >= terms.franchise_deductible else 0.0
                        limit = math.inf if terms.occurrence_limit is None else terms.occurrence_limit
                        loss = min(max(loss - terms.occurrence_retention, 0.0), limit)
                        cap = math.inf if terms.aggregate_limit is None else terms.aggregate_limit

                        def annual(total: float, terms: Terms = terms, cap: float = cap) -> float:
                            return min(max(total - terms.aggregate_deductible, 0.0), cap)

                        paid = annual(spent[number] + loss) - annual(spent[number])
                        spent[number] += loss
                        inured += paid * terms.placed_share
                        ours += paid * terms.placed_share * terms.participation
                    subject = max(subject - inured, 0.0)
                assert gross >= 0
            found.append(ours)
    return found


amounts = st.integers(0, 60).map(float)
programs = st.lists(
    st.builds(
        Terms,
        type=st.sampled_from(["QS", "PR", "CXL", "AXL", "FAC"]),
        ceded_share=st.sampled_from([1.0, 0.5, 0.25]),
        risk_retention=st.just(0.0) | amounts,
        risk_limit=st.none() | amounts,
        franchise_deductible=st.just(0.0) | amounts,
        occurrence_retention=amounts,
        occurrence_limit=st.none() | amounts,
        aggregate_deductible=st.just(0.0) | amounts,
        aggregate_limit=st.none() | amounts,
        participation=st.sampled_from([1.0, 0.5, 0.0]),
        placed_share=st.sampled_from([1.0, 0.75]),
        inuring_priority=st.integers(1, 3),
    ),
    min_size=1,
    max_size=4,
)
histories = st.lists(
    st.lists(st.tuples(st.integers(0, 364), st.integers(1, 6)), max_size=8, unique_by=lambda pair: pair[0]),
    min_size=1,
    max_size=5,
)


@given(programs, histories, st.lists(st.integers(0, 250).map(float), min_size=6, max_size=6), st.integers(0, 200))
def test_a_programme_loses_what_a_loop_over_its_years_gives(
    layers: list[Terms], years: list[list[tuple[int, int]]], losses: list[float], first: int
) -> None:
    elt = elt_of(dict(enumerate(losses, 1)), risks={event: float(1 << (event % 3)) for event in range(1, 7)})
    params = {"layers": [terms.model_dump() for terms in layers], "period": {"first": first, "last": 364}}
    priced = run_model("price_deal", 1, params, [elt, yet_of(years)])
    dense = np.zeros(sum(len(year) for year in years))
    dense[priced["row"]] = priced["loss"]
    assert dense.tolist() == pytest.approx(by_loop(layers, elt, years, first, 364), rel=1e-6, abs=1e-5)


@given(programs, histories, st.sampled_from(["event_order", "pro_rata"]))
def test_recoveries_never_exceed_the_subject_and_both_orders_give_the_same_year(
    layers: list[Terms], years: list[list[tuple[int, int]]], order: str
) -> None:
    elt = elt_of({event: 37.0 * event for event in range(1, 7)})
    yet = yet_of(years)
    for terms in layers:
        single = terms.model_copy(update={"inuring_priority": 1, "participation": 1.0, "placed_share": 1.0})
        annual = []
        for each in ("event_order", order):
            of_order = single.model_copy(update={"recovery_order": each})
            priced = run_model("price_deal", 1, {"layers": [of_order.model_dump()]}, [elt, yet])
            subject = elt["mean"][yet["event"][priced["row"]] - 1]
            assert (priced["loss"] <= subject * (1 + 1e-6)).all()
            annual.append(priced["layer_stats"][0, LAYER_STATS.index("recovery")])
        assert annual[0] == pytest.approx(annual[1])


@given(programs, histories)
def test_losses_are_additive_in_our_participation(layers: list[Terms], years: list[list[tuple[int, int]]]) -> None:
    elt, yet = elt_of({event: 41.0 * event for event in range(1, 7)}), yet_of(years)

    def total(part: float) -> float:
        params = [terms.model_copy(update={"participation": part}).model_dump() for terms in layers]
        return float(run_model("price_deal", 1, {"layers": params}, [elt, yet])["loss"].sum())

    assert total(0.25) + total(0.75) == pytest.approx(total(1.0), rel=1e-5)


def test_layers_that_share_a_limit_must_agree() -> None:
    shared = {"type": "CXL", "shared_limit": "a", "shared_aggregate_limit": 5.0}
    other = shared | {"shared_aggregate_limit": 6.0}
    with pytest.raises(ModelError, match="shared_aggregate_limit differs"):
        run_model("price_deal", 1, {"layers": [shared, other]}, [elt_of({1: 1.0}), yet_of([[]])])


def test_loads_and_expenses_stand_in_the_technical_premium() -> None:
    # 10 years, annual recoveries 10, 10, 5, at half: E 1.25, sd 0.5 sqrt(162.5 / 9); half a premium reinstated in all.
    terms = Terms(type="CXL", occurrence_limit=10, reinstatements=(0.2,), premium=3.0, participation=0.5)
    pricing = Pricing(sd_load=0.3, cost_of_capital=0.08, fixed_expense=0.1, variable_expense=0.05)
    found = dict(
        zip(
            PRICE_FIGURES,
            price_figures(terms, np.array([10, 25, 225, 3, 1, 0.5]), 0.1, pricing, 4.0).tolist(),
            strict=True,
        )
    )
    load = 0.3 * 0.5 * math.sqrt(162.5 / 9) + 0.08 * 4
    assert found["risk_load"] == pytest.approx(load)
    # of a premium of 1 and 0.05 reinstated: 5% of expense on both, 10% of brokerage on the premium, or on both
    assert found["technical_premium"] == pytest.approx((1.25 + load + 0.1) / (1.05 * 0.95 - 0.1))
    both = pricing.model_copy(update={"brokerage_on_reinstatement": True})
    on_both = price_figures(terms, np.array([10, 25, 225, 3, 1, 0.5]), 0.1, both, 4.0)
    assert on_both[PRICE_FIGURES.index("technical_premium")] == pytest.approx((1.25 + load + 0.1) / 1.05 / 0.85)
