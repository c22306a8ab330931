from collections import Counter
from collections.abc import Sequence
from datetime import date
from typing import Any

import numpy as np
import pytest

from riskmill.graph import JobGraph
from riskmill.models.catalogue import BLOCK_TRIALS
from riskmill.models.registry import MODELS
from riskmill.portfolio import Deal, Group, Layer, Outwards, Portfolio
from riskmill.rollup_graph import DEALS, FAN_IN, Bucket, blocks_of, groups_name, measure_name, rollup_graph
from riskmill.terms import Terms

CAT = Terms(type="CXL", occurrence_retention=1e6, occurrence_limit=5e6, premium=1e5)
RETRO = Terms(type="CXL", occurrence_retention=2e6, occurrence_limit=8e6, participation=0.5)


def deal(name: str, number: int = 0, terms: Terms = CAT, **changed: Any) -> Deal:
    """Return a deal with an ELT of its own (deals with the same ELT and terms would be one job)."""
    fields: dict[str, Any] = {
        "deal_id": name,
        "cedant": "Gulf Mutual",
        "business_unit": "US",
        "inception": date(2026, 1, 1),
        "expiry": date(2026, 12, 31),
        "currency": "USD",
        "elt": f"{number:032x}",
        "layers": (Layer(layer_id=f"{name}-1", terms=terms),),
    }
    return Deal(**fields | changed)


def portfolio(
    deals: Sequence[Deal], groups: Sequence[Group] = (), outwards: Sequence[Outwards] = (), **changed: Any
) -> Portfolio:
    fields: dict[str, Any] = {
        "name": "Tiny Re",
        "currency": "USD",
        "as_at": date(2026, 1, 1),
        "trials": 1000,
        "seed": 7,
        "group": "all",
        "catalogue": "c" * 32,
        "deals": tuple(deals),
        "groups": tuple(groups) or (group("all", [one.deal_id for one in deals]),),
        "outwards": tuple(outwards),
    }
    return Portfolio(**fields | changed)


def group(name: str, deals: Sequence[str] = (), groups: Sequence[str] = ()) -> Group:
    return Group(group_id=name, name=f"Group {name}", deals=tuple(deals), groups=tuple(groups))


def contract(name: str, on: str, priority: int = 1, terms: Terms = RETRO) -> Outwards:
    return Outwards(contract_id=name, name=f"Contract {name}", group_id=on, priority=priority, terms=terms)


def labels(graph: JobGraph) -> list[str]:
    return sorted(graph.label(job) for job in range(len(graph)))


def keys(graph: JobGraph) -> set[str]:
    return {graph.key(job) for job in range(len(graph))}


def new_labels(before: JobGraph, after: JobGraph) -> list[str]:
    """Return the labels of the jobs that only `after` has."""
    known = keys(before)
    return sorted(after.label(job) for job in range(len(after)) if after.key(job) not in known)


def by_label(graph: JobGraph, label: str) -> int:
    (job,) = [job for job in range(len(graph)) if graph.label(job) == label]
    return job


def read_by(graph: JobGraph, label: str) -> list[str]:
    """Return what a job reads, in order: labels of jobs, references of the portfolio's objects."""
    reads = graph.inputs_of(by_label(graph, label)).tolist()
    return [graph.label(i) if i >= 0 else graph.externals[~i] for i in reads]


def two_groups(**changed: Any) -> Portfolio:
    """US (D1, D2) and EU (D3) under `all`, a retro contract on US."""
    deals = changed.pop("deals", [deal("D1", 1), deal("D2", 2), deal("D3", 3)])
    groups = [group("all", groups=["US", "EU"]), group("US", ["D1", "D2"]), group("EU", ["D3"])]
    return portfolio(deals, groups, changed.pop("outwards", [contract("R1", "US")]), **changed)


def test_the_jobs_of_a_small_portfolio_are_those_counted_by_hand() -> None:
    assert labels(rollup_graph(two_groups())) == sorted(
        [
            "simulate_years years block 0",
            "price_deal deal D1 block 0",
            "price_deal deal D2 block 0",
            "price_deal deal D3 block 0",
            "roll_up bucket group US/ block 0",
            "roll_up bucket group EU/ block 0",
            "roll_up group all block 0",
            "apply_retro outwards R1 block 0",
            "roll_up group all before its outwards block 0",
            "measure group US gross block 0",
            "measure group US net block 0",
            "measure group US ceded block 0",
            "measure group EU gross block 0",
            "measure group all gross block 0",
            "measure group all net block 0",
            "measure group all ceded block 0",
            "compare_groups groups EU to US block 0",
            "retained tail after 0 sets of outwards contracts block 0",
            "retained tail after 1 sets of outwards contracts block 0",
            "allocate bucket group US/ block 0",
            "allocate bucket group EU/ block 0",
            "tabulate_deals deals of the portfolio block 0",
        ]
    )


def test_every_job_reads_what_it_should_in_the_order_that_its_model_expects() -> None:
    graph = rollup_graph(two_groups())
    years = "simulate_years years block 0"
    us, eu = "roll_up bucket group US/ block 0", "roll_up bucket group EU/ block 0"
    net_us = "apply_retro outwards R1 block 0"
    net_all = "roll_up group all before its outwards block 0"
    assert read_by(graph, years) == ["i:" + "c" * 32]
    assert read_by(graph, "price_deal deal D2 block 0") == [f"i:{2:032x}", years]
    assert read_by(graph, us) == ["price_deal deal D1 block 0", "price_deal deal D2 block 0"]
    assert read_by(graph, "roll_up group all block 0") == [eu, us]
    assert read_by(graph, net_us) == [us, years]
    assert read_by(graph, net_all) == [eu, net_us]
    catalogue, gross = "i:" + "c" * 32, "measure group all gross block 0"
    assert read_by(graph, gross) == [years, "roll_up group all block 0", catalogue]
    assert read_by(graph, "measure group all net block 0") == [years, net_all, catalogue]
    assert read_by(graph, "measure group all ceded block 0") == [years, "roll_up group all block 0", net_all, catalogue]
    left = [f"retained tail after {count} sets of outwards contracts block 0" for count in (0, 1)]
    net = "measure group all net block 0"
    assert read_by(graph, left[0]) == [years, net]
    assert read_by(graph, left[1]) == [years, net, net_us]
    assert read_by(graph, "allocate bucket group US/ block 0") == [years, us, gross, left[1], net]
    assert read_by(graph, "allocate bucket group EU/ block 0") == [years, eu, gross, left[0], net]
    assert read_by(graph, "compare_groups groups EU to US block 0") == [
        gross,
        "measure group EU gross block 0",
        "measure group US gross block 0",
    ]


def test_the_results_that_the_run_is_for_are_named() -> None:
    graph = rollup_graph(two_groups())
    named = {name: graph.label(job) for name, job in zip(graph.target_names, graph.targets.tolist(), strict=True)}
    assert named == {
        measure_name("all", "gross"): "measure group all gross block 0",
        measure_name("all", "net"): "measure group all net block 0",
        measure_name("all", "ceded"): "measure group all ceded block 0",
        measure_name("US", "gross"): "measure group US gross block 0",
        measure_name("US", "net"): "measure group US net block 0",
        measure_name("US", "ceded"): "measure group US ceded block 0",
        measure_name("EU", "gross"): "measure group EU gross block 0",
        measure_name("EU", "net"): "measure group EU gross block 0",
        groups_name(["EU", "US"]): "compare_groups groups EU to US block 0",
        DEALS: "tabulate_deals deals of the portfolio block 0",
    }


def test_every_jobs_parameters_are_those_that_its_model_takes() -> None:
    graph = rollup_graph(two_groups())
    for number in range(len(graph)):
        job = graph.job(number)
        MODELS[job.model, job.version].params.model_validate(job.params)


def test_the_graph_of_a_portfolio_is_the_same_each_time_and_in_any_order_of_its_tables() -> None:
    first = rollup_graph(two_groups())
    again = rollup_graph(two_groups(deals=[deal("D3", 3), deal("D1", 1), deal("D2", 2)]))
    assert first.to_bytes() == again.to_bytes()


# ---- what changes with what

ABOVE_US = [
    "allocate bucket group EU/ block 0",  # its shares are shares of the top group's tail
    "allocate bucket group US/ block 0",
    "apply_retro outwards R1 block 0",
    "compare_groups groups EU to US block 0",
    "measure group US ceded block 0",
    "measure group US gross block 0",
    "measure group US net block 0",
    "measure group all ceded block 0",
    "measure group all gross block 0",
    "measure group all net block 0",
    "retained tail after 0 sets of outwards contracts block 0",
    "retained tail after 1 sets of outwards contracts block 0",
    "roll_up bucket group US/ block 0",
    "roll_up group all before its outwards block 0",
    "roll_up group all block 0",
    "tabulate_deals deals of the portfolio block 0",
]


def test_a_deals_changed_terms_change_its_price_and_its_path_and_nothing_else() -> None:
    before = rollup_graph(two_groups())
    changed = CAT.model_copy(update={"occurrence_retention": 2e6})
    after = rollup_graph(two_groups(deals=[deal("D1", 1, changed), deal("D2", 2), deal("D3", 3)]))
    assert new_labels(before, after) == sorted(["price_deal deal D1 block 0", *ABOVE_US])


def test_a_deals_changed_elt_changes_the_same_jobs() -> None:
    before = rollup_graph(two_groups())
    after = rollup_graph(two_groups(deals=[deal("D1", 99), deal("D2", 2), deal("D3", 3)]))
    assert new_labels(before, after) == sorted(["price_deal deal D1 block 0", *ABOVE_US])


def test_a_changed_brokerage_changes_the_prices_and_no_loss() -> None:
    before = rollup_graph(two_groups())
    after = rollup_graph(two_groups(deals=[deal("D1", 1, brokerage=0.1), deal("D2", 2), deal("D3", 3)]))
    assert new_labels(before, after) == [
        "allocate bucket group US/ block 0",
        "tabulate_deals deals of the portfolio block 0",
    ]


def test_a_changed_name_of_a_cedant_computes_nothing() -> None:
    before = rollup_graph(two_groups())
    after = rollup_graph(two_groups(deals=[deal("D1", 1, cedant="Other"), deal("D2", 2), deal("D3", 3)]))
    assert new_labels(before, after) == []


def test_a_changed_retro_contract_changes_what_is_net_of_it_and_no_gross_loss() -> None:
    before = rollup_graph(two_groups())
    changed = RETRO.model_copy(update={"participation": 1.0})
    after = rollup_graph(two_groups(outwards=[contract("R1", "US", terms=changed)]))
    assert new_labels(before, after) == [
        "allocate bucket group EU/ block 0",  # its deals' shares of the net tail
        "allocate bucket group US/ block 0",
        "apply_retro outwards R1 block 0",
        "measure group US ceded block 0",
        "measure group US net block 0",
        "measure group all ceded block 0",
        "measure group all net block 0",
        "retained tail after 0 sets of outwards contracts block 0",
        "retained tail after 1 sets of outwards contracts block 0",
        "roll_up group all before its outwards block 0",
        "tabulate_deals deals of the portfolio block 0",
    ]


@pytest.mark.parametrize("changed", [{"seed": 8}, {"trials": 1001}, {"catalogue": "d" * 32}])
def test_another_seed_number_of_trials_or_catalogue_changes_everything(changed: dict[str, Any]) -> None:
    before, after = rollup_graph(two_groups()), rollup_graph(two_groups(**changed))
    assert len(new_labels(before, after)) == len(after) == len(before)


def test_more_trials_leave_the_full_blocks_that_were_there_alone() -> None:
    before = rollup_graph(two_groups(trials=2 * BLOCK_TRIALS))
    after = rollup_graph(two_groups(trials=2 * BLOCK_TRIALS + 5))
    kept = {after.label(job) for job in range(len(after)) if after.key(job) in keys(before)}
    assert "price_deal deal D1 block 0" in kept
    assert "roll_up group all block 1" in kept
    assert not any(label.startswith(("measure", "allocate")) for label in kept)
    assert {label for label in new_labels(before, after) if label.startswith("price_deal")} == {
        f"price_deal deal D{n} block 2" for n in (1, 2, 3)
    }


# ---- groups and outwards contracts


def test_without_outwards_net_is_gross_and_costs_no_job() -> None:
    graph = rollup_graph(two_groups(outwards=[]))
    assert Counter(label.split()[0] for label in labels(graph)) == {
        "simulate_years": 1,
        "price_deal": 3,
        "roll_up": 3,
        "measure": 3,
        "compare_groups": 1,
        "allocate": 2,
        "tabulate_deals": 1,
    }
    targets = dict(zip(graph.target_names, graph.targets.tolist(), strict=True))
    assert targets[measure_name("all", "net")] == targets[measure_name("all", "gross")]
    assert measure_name("all", "ceded") not in targets


def test_contracts_of_one_priority_share_one_job_and_later_ones_read_it() -> None:
    other = RETRO.model_copy(update={"occurrence_retention": 9e6})
    outwards = [contract("R2", "US", 1, other), contract("R1", "US", 1), contract("R3", "US", 2)]
    graph = rollup_graph(two_groups(outwards=outwards))
    years = "simulate_years years block 0"
    assert read_by(graph, "apply_retro outwards R1 + R2 block 0") == ["roll_up bucket group US/ block 0", years]
    assert read_by(graph, "apply_retro outwards R3 block 0") == ["apply_retro outwards R1 + R2 block 0", years]
    contracts = graph.job(by_label(graph, "apply_retro outwards R1 + R2 block 0")).params["contracts"]
    assert [terms["occurrence_retention"] for terms in contracts] == [2e6, 9e6]


def test_a_contract_on_the_parent_covers_what_the_childrens_contracts_left() -> None:
    graph = rollup_graph(two_groups(outwards=[contract("R1", "US"), contract("TOP", "all")]))
    assert read_by(graph, "apply_retro outwards TOP block 0")[0] == "roll_up group all before its outwards block 0"


def test_a_contract_on_the_parent_alone_covers_its_gross_losses() -> None:
    graph = rollup_graph(two_groups(outwards=[contract("TOP", "all")]))
    assert read_by(graph, "apply_retro outwards TOP block 0")[0] == "roll_up group all block 0"
    assert "roll_up group all before its outwards block 0" not in labels(graph)


def test_a_group_seen_from_two_sides_is_summed_once() -> None:
    """A second tree of groups over the same groups reports on them without pricing or summing anything again."""
    deals = [deal("D1", 1), deal("D2", 2)]
    groups = [group("all", groups=["A", "B"]), group("A", ["D1"]), group("B", ["D2"])]
    single = rollup_graph(portfolio(deals, groups))
    double = rollup_graph(portfolio(deals, [*groups, group("view", groups=["A", "B"])]))
    assert new_labels(single, double) == ["compare_groups groups A to view block 0"]
    assert measure_name("view", "gross") in double.target_names


# ---- buckets and fan-in


def many(count: int, without: str = "") -> Portfolio:
    deals = [deal(f"D{n:05d}", n) for n in range(count)]
    return portfolio([one for one in deals if one.deal_id != without])


def test_buckets_hold_all_deals_once_and_none_more_than_fits() -> None:
    names = [f"D{n}" for n in range(10_000)]
    root = Bucket("group all/", names)
    leaves = root.leaves()
    assert sorted(name for leaf in leaves for name in leaf.deals) == sorted(names)
    assert max(len(leaf.deals) for leaf in leaves) <= FAN_IN
    assert len({leaf.name for leaf in leaves}) == len(leaves)
    nodes = [root]
    while nodes:
        node = nodes.pop()
        assert len(node.buckets) <= FAN_IN
        assert bool(node.buckets) != bool(node.deals)
        nodes += node.buckets


def test_no_sum_of_ten_thousand_deals_reads_more_than_the_fan_in() -> None:
    graph = rollup_graph(many(10_000))
    sizes = np.diff(graph.offsets)
    for model in ("roll_up", "tabulate_deals"):
        jobs = [job for job in range(len(graph)) if graph.specs[graph.spec[job]].model == model]
        assert max(sizes[job] for job in jobs) <= FAN_IN
    assert Counter(label.split()[0] for label in labels(graph))["price_deal"] == 10_000


def test_a_group_of_more_groups_than_the_fan_in_is_summed_in_steps() -> None:
    count = 2 * FAN_IN + 1
    deals = [deal(f"D{n}", n) for n in range(count)]
    groups = [group("all", groups=[f"G{n}" for n in range(count)]), *(group(f"G{n}", [f"D{n}"]) for n in range(count))]
    graph = rollup_graph(portfolio(deals, groups))
    assert max(np.diff(graph.offsets)) <= FAN_IN
    sums = [job for job in range(len(graph)) if graph.label(job) == "roll_up group all block 0"]
    assert [len(graph.inputs_of(job)) for job in sums] == [FAN_IN, FAN_IN, 3]


def test_a_new_deal_changes_one_path_of_buckets() -> None:
    """Of 2,000 deals in about 50 buckets: the deal, its bucket, the sum above, measures and allocations."""
    after = many(2_000)
    newcomer = "D01234"
    full, less = rollup_graph(after), rollup_graph(many(2_000, without=newcomer))
    leaves = Bucket("group all/", [one.deal_id for one in after.deals]).leaves()
    (home,) = [leaf for leaf in leaves if newcomer in leaf.deals]
    assert 1 < len(home.deals) <= FAN_IN
    assert new_labels(less, full) == sorted(
        [
            f"price_deal deal {newcomer} block 0",
            f"roll_up bucket {home.name} block 0",
            "roll_up bucket group all/ block 0",
            "measure group all gross block 0",
            *(f"allocate bucket {leaf.name} block 0" for leaf in leaves),
            "tabulate_deals deals of the portfolio block 0",
        ]
    )


def test_a_bucket_that_overflows_splits_and_leaves_the_others_alone() -> None:
    names = [f"D{n}" for n in range(3_000)]
    before = {leaf.name: leaf.deals for leaf in Bucket("g/", names).leaves()}
    for extra in range(3_000, 3_200):
        grown = {leaf.name: leaf.deals for leaf in Bucket("g/", [*names, f"D{extra}"]).leaves()}
        changed = {name for name in before if grown.get(name) != before[name]}
        assert len(changed) == 1
        (only,) = changed
        assert all(name.startswith(only) for name in grown if grown[name] != before.get(name))


# ---- blocks


@pytest.mark.parametrize(
    ("trials", "blocks"),
    [
        (1, [(0, 1)]),
        (BLOCK_TRIALS - 1, [(0, BLOCK_TRIALS - 1)]),
        (BLOCK_TRIALS, [(0, BLOCK_TRIALS)]),
        (BLOCK_TRIALS + 1, [(0, BLOCK_TRIALS), (BLOCK_TRIALS, 1)]),
        (250_000, [(0, 100_000), (100_000, 100_000), (200_000, 50_000)]),
    ],
)
def test_trials_are_cut_into_blocks_of_a_fixed_size(trials: int, blocks: list[tuple[int, int]]) -> None:
    assert blocks_of(trials) == blocks


def test_each_block_is_priced_and_summed_by_itself_and_measured_together() -> None:
    graph = rollup_graph(two_groups(trials=2 * BLOCK_TRIALS))
    counts = Counter(label.split()[0] for label in labels(graph))
    assert counts == {
        "simulate_years": 2,
        "price_deal": 6,
        "roll_up": 8,
        "apply_retro": 2,
        "measure": 7,
        "compare_groups": 1,
        "retained": 4,
        "allocate": 2,
        "tabulate_deals": 1,
    }
    years = [f"simulate_years years block {block}" for block in (0, 1)]
    total = [f"roll_up group all block {block}" for block in (0, 1)]
    net = [f"roll_up group all before its outwards block {block}" for block in (0, 1)]
    assert read_by(graph, "measure group all ceded block 0") == [*years, *total, *net, "i:" + "c" * 32]
    leaf = [f"roll_up bucket group US/ block {block}" for block in (0, 1)]
    top = "measure group all gross block 0"
    left = [f"retained tail after 1 sets of outwards contracts block {block}" for block in (0, 1)]
    assert read_by(graph, "allocate bucket group US/ block 0") == [
        *years,
        *leaf,
        top,
        *left,
        "measure group all net block 0",
    ]
    assert read_by(graph, "price_deal deal D1 block 1") == [f"i:{1:032x}", years[1]]
