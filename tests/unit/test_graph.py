from itertools import pairwise

import numpy as np
import pytest

from riskmill.errors import GraphCycle, ModelError
from riskmill.graph import GraphBuilder, JobGraph, topological_order
from riskmill.jobs import job_key

ELT = "i:" + "0a" * 16


def small() -> JobGraph:
    """Two deals on one year-event table, and their sum under two names."""
    builder = GraphBuilder()
    catalogue, elt = builder.external("i:" + "0c" * 16), builder.external(ELT)
    years = builder.job(
        builder.spec("simulate_years", 1, {"trials": 10}), [catalogue], subject=builder.subject("years"), work=10
    )
    deals = [
        builder.job(
            builder.spec("price_deal", 1, {"n": n}), [elt, years], subject=builder.subject(f"deal D{n}"), affinity=3
        )
        for n in range(2)
    ]
    total = builder.job(builder.spec("roll_up", 1, {}), deals, subject=builder.subject("group Ü"), block=4)
    builder.target("gross", total)
    builder.target("net", total)
    return builder.build()


def test_an_order_puts_members_before_what_contains_them() -> None:
    order = topological_order({"top": ["us", "eu"], "us": ["fl"], "eu": [], "fl": []})
    assert sorted(order) == ["eu", "fl", "top", "us"]
    assert order.index("fl") < order.index("us") < order.index("top")
    assert order.index("eu") < order.index("top")


def test_a_cycle_names_its_members_in_order_and_no_others() -> None:
    with pytest.raises(GraphCycle) as caught:
        topological_order({"a": ["b"], "b": ["c"], "c": ["a"], "outside": ["a"]})
    members = caught.value.members
    assert members[0] == members[-1]
    assert set(members) == {"a", "b", "c"}
    assert str(caught.value) == "cycle: " + " -> ".join(members)
    edges = {("a", "b"), ("b", "c"), ("c", "a")}
    steps = set(pairwise(members))
    assert steps in (edges, {(after, before) for before, after in edges})


def test_a_group_in_itself_is_a_cycle() -> None:
    with pytest.raises(GraphCycle, match="cycle: a -> a"):
        topological_order({"a": ["a"]})


def test_jobs_stand_after_their_inputs() -> None:
    graph = small()
    assert len(graph) == 4
    for job in range(len(graph)):
        assert all(i < job for i in graph.inputs_of(job).tolist())


def test_keys_are_those_of_the_jobs() -> None:
    graph = small()
    for number in range(len(graph)):
        job = graph.job(number)
        assert job.key == job_key(job.model, job.version, job.params, job.inputs)
    assert graph.refs_of(1) == (ELT, f"p:{graph.key(0)}")
    assert graph.job(0).work == 10


def test_the_same_job_added_twice_is_one_job() -> None:
    builder = GraphBuilder()
    elt = builder.external(ELT)
    first = builder.job(builder.spec("price_deal", 1, {"a": 1, "b": 2}), [elt], subject=builder.subject("deal A"))
    again = builder.job(
        builder.spec("price_deal", 1, {"b": 2, "a": 1}), [builder.external(ELT)], subject=builder.subject("deal B")
    )
    other = builder.job(builder.spec("price_deal", 2, {"a": 1, "b": 2}), [elt], subject=builder.subject("deal A"))
    builder.target("x", first)
    graph = builder.build()
    assert again == first
    assert other != first
    assert len(graph) == 2
    assert graph.externals == [ELT]
    assert len(graph.offsets) == 3, "inputs of a job found again are not added"


def test_a_job_may_read_the_same_input_twice() -> None:
    builder = GraphBuilder()
    subject = builder.subject("x")
    one = builder.job(builder.spec("price_deal", 1, {}), [builder.external(ELT)], subject=subject)
    twice = builder.job(builder.spec("roll_up", 1, {}), [one, one], subject=subject)
    builder.target("x", twice)
    graph = builder.build()
    assert graph.refs_of(twice) == (f"p:{graph.key(one)}",) * 2


def test_a_label_says_model_subject_and_block() -> None:
    graph = small()
    assert [graph.label(job) for job in range(4)] == [
        "simulate_years years block 0",
        "price_deal deal D0 block 0",
        "price_deal deal D1 block 0",
        "roll_up group Ü block 4",
    ]


def test_one_job_may_be_wanted_under_several_names() -> None:
    graph = small()
    assert graph.target_names == ["gross", "net"]
    assert graph.targets.tolist() == [3, 3]


def test_a_graph_comes_back_from_its_bytes() -> None:
    graph = small()
    again = JobGraph.from_bytes(graph.to_bytes())
    for name in ("keys", "spec", "offsets", "inputs", "work", "affinity", "subject", "block", "targets"):
        before, after = getattr(graph, name), getattr(again, name)
        assert before.dtype == after.dtype
        np.testing.assert_array_equal(before, after)
    for name in ("target_names", "specs", "subjects", "externals"):
        assert getattr(graph, name) == getattr(again, name)
    assert again.to_bytes() == graph.to_bytes()
    assert [again.job(number) for number in range(4)] == [graph.job(number) for number in range(4)]


def test_a_graph_whose_jobs_have_no_inputs_comes_back_from_its_bytes() -> None:
    builder = GraphBuilder()
    builder.target("x", builder.job(builder.spec("tabulate_deals", 1, {}), [], subject=builder.subject("none")))
    again = JobGraph.from_bytes(builder.build().to_bytes())
    assert again.refs_of(0) == ()


def test_a_graph_without_a_target_is_refused() -> None:
    builder = GraphBuilder()
    builder.job(builder.spec("tabulate_deals", 1, {}), [], subject=builder.subject("x"))
    with pytest.raises(ModelError, match="without a target"):
        builder.build()
