import json
import time
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from riskmill.graph import GraphBuilder, JobGraph
from riskmill.jobs import Job
from riskmill.planner import (
    DEFAULT_RATES,
    JOB_OVERHEAD_SECONDS,
    JOBS_OBJECT_BYTES,
    Batch,
    PlanSettings,
    estimate_seconds,
    frontier,
    plan_waves,
    prune,
    wave_files,
)


def graph_of(inputs: Sequence[Sequence[int]], targets: Sequence[int], affinity: Sequence[int] = ()) -> JobGraph:
    """Return a graph in which job j reads the outputs of inputs[j] (numbers below j), or an object of its own."""
    builder = GraphBuilder()
    for number, reads in enumerate(inputs):
        builder.job(
            builder.spec("roll_up", 1, {"n": number}),
            list(reads) or [builder.external(f"i:{number:032x}")],
            subject=builder.subject(f"job {number}"),
            affinity=affinity[number] if affinity else -1,
        )
    for target in targets:
        builder.target(str(target), target)
    return builder.build()


def flags(graph: JobGraph, jobs: Sequence[int]) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    found = np.zeros(len(graph), dtype=np.bool_)
    found[list(jobs)] = True
    return found


def everything(graph: JobGraph) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    return np.ones(len(graph), dtype=np.bool_)


def seconds_of(values: Sequence[float]) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    return np.array(values, dtype=np.float64)


# ---- prune and frontier

#: years -> three deals -> sum -> measure; deal 2 has a consumer of its own
TREE: list[list[int]] = [[], [0], [0], [0], [1, 2, 3], [4]]


def test_without_a_cache_all_that_a_target_needs_runs() -> None:
    graph = graph_of(TREE, [5])
    assert prune(graph, flags(graph, [])).all()


def test_what_no_target_needs_does_not_run() -> None:
    graph = graph_of([*TREE, [2]], [5])
    assert np.flatnonzero(~prune(graph, flags(graph, []))).tolist() == [6]


def test_with_all_targets_cached_nothing_runs() -> None:
    graph = graph_of(TREE, [5])
    assert not prune(graph, flags(graph, [5])).any()


def test_a_job_whose_every_consumer_is_cached_does_not_run_even_if_its_own_output_is_gone() -> None:
    graph = graph_of(TREE, [5])
    run = prune(graph, flags(graph, [1, 2, 4]))
    assert np.flatnonzero(run).tolist() == [5]


def test_one_missing_deal_brings_back_what_it_reads_and_what_reads_it() -> None:
    graph = graph_of(TREE, [5])
    run = prune(graph, flags(graph, [1, 3]))
    assert np.flatnonzero(run).tolist() == [0, 2, 4, 5]
    assert frontier(graph, run).tolist() == [1, 3]


def test_a_target_that_others_read_runs_for_its_own_sake() -> None:
    graph = graph_of(TREE, [4, 5])
    assert np.flatnonzero(prune(graph, flags(graph, [5, 1, 2, 3]))).tolist() == [4]


def test_the_frontier_names_cached_targets_too() -> None:
    graph = graph_of([[], [0], [0]], [1, 2])
    run = prune(graph, flags(graph, [0, 1]))
    assert np.flatnonzero(run).tolist() == [2]
    assert frontier(graph, run).tolist() == [0, 1]


# ---- estimates


def test_a_measured_rate_outweighs_the_default_and_an_unknown_model_has_one_too() -> None:
    builder = GraphBuilder()
    subject = builder.subject("x")
    elt = builder.external("i:" + "0" * 32)
    for model, version in (("price_deal", 1), ("price_deal", 2), ("my_model", 1)):
        job = builder.job(builder.spec(model, version, {}), [elt], subject=subject, work=1000)
        builder.target(f"{model} {version}", job)
    seconds = estimate_seconds(builder.build(), {"price_deal@1": 0.5})
    assert seconds.tolist() == pytest.approx(
        [
            JOB_OVERHEAD_SECONDS + 500.0,
            JOB_OVERHEAD_SECONDS + 1000 * DEFAULT_RATES["price_deal"],
            JOB_OVERHEAD_SECONDS + 1.0,
        ]
    )


# ---- waves


def check_plan(
    graph: JobGraph,
    run: np.ndarray[tuple[int], np.dtype[np.bool_]],
    seconds: np.ndarray[tuple[int], np.dtype[np.float64]],
    limits: PlanSettings,
    waves: list[list[Batch]],
) -> None:
    """Assert what every plan must hold."""
    place = {
        job: (w, b, p)
        for w, wave in enumerate(waves)
        for b, batch in enumerate(wave)
        for p, job in enumerate(batch.jobs)
    }
    planned = [job for wave in waves for batch in wave for job in batch.jobs]
    assert sorted(planned) == np.flatnonzero(run).tolist(), "every job to run stands in the plan exactly once"
    for job, (wave, batch, position) in place.items():
        for read in graph.inputs_of(job).tolist():
            if read < 0 or not run[read]:
                continue
            made_wave, made_batch, made_position = place[read]
            assert made_wave < wave or (made_wave == wave and made_batch == batch and made_position < position)
    for number, wave_batches in enumerate(waves):
        assert wave_batches, "no wave is empty"
        for planned_batch in wave_batches:
            assert planned_batch.jobs
            assert planned_batch.wave == number
            assert planned_batch.seconds == pytest.approx(sum(seconds[job] for job in planned_batch.jobs))
            assert len(planned_batch.jobs) <= limits.max_batch_jobs
            # What joins a batch may lengthen it by half, or by the least worth a batch (see plan_waves).
            longest = max(limits.max_batch_seconds, max(seconds[job] for job in planned_batch.jobs))
            shortest = min(limits.min_batch_seconds, limits.max_batch_seconds)
        assert planned_batch.seconds <= longest + max(shortest, 0.5 * longest) + 1e-6


@st.composite
def dags(draw: st.DrawFn) -> tuple[list[list[int]], list[int], list[float], list[int], list[int]]:
    """Return inputs, targets, seconds, affinities and cached jobs of a random graph."""
    size = draw(st.integers(1, 40))
    inputs = [draw(st.lists(st.integers(0, n - 1), max_size=4)) if n else [] for n in range(size)]
    targets = draw(st.lists(st.integers(0, size - 1), min_size=1, max_size=5, unique=True))
    seconds = draw(
        st.lists(st.sampled_from([0.001, 0.008, 0.1, 0.5, 1.0, 3.0, 20.0, 100.0]), min_size=size, max_size=size)
    )
    affinity = draw(st.lists(st.integers(-1, 3), min_size=size, max_size=size))
    cached = draw(st.lists(st.integers(0, size - 1), max_size=size, unique=True))
    return inputs, targets, seconds, affinity, cached


@settings(max_examples=300, deadline=None)
@given(
    dags(),
    st.builds(
        PlanSettings,
        parallelism=st.integers(1, 300),
        max_batch_seconds=st.sampled_from([0.5, 5.0, 60.0]),
        min_batch_seconds=st.sampled_from([0.01, 1.0]),
        max_batch_jobs=st.integers(1, 12),
    ),
)
def test_every_input_is_there_or_made_in_an_earlier_wave_or_earlier_in_the_same_batch(
    drawn: tuple[list[list[int]], list[int], list[float], list[int], list[int]], limits: PlanSettings
) -> None:
    inputs, targets, cost, affinity, cached = drawn
    graph = graph_of(inputs, targets, affinity)
    seconds = seconds_of(cost)
    run = prune(graph, flags(graph, cached))
    waves = plan_waves(graph, run, seconds, limits)
    check_plan(graph, run, seconds, limits, waves)
    assert plan_waves(graph, run, seconds, limits) == waves, "the same question has the same answer"


def test_nothing_to_run_is_no_wave() -> None:
    graph = graph_of(TREE, [5])
    assert plan_waves(graph, flags(graph, []), seconds_of([1.0] * 6), PlanSettings()) == []


@pytest.mark.parametrize("parallelism", [1, 4, 16, 100])
def test_a_fan_out_of_equal_jobs_fills_the_wanted_parallelism_evenly(parallelism: int) -> None:
    graph = graph_of([[] for _ in range(400)], range(400))
    settings_ = PlanSettings(parallelism=parallelism, max_batch_seconds=1e6)
    (wave,) = plan_waves(graph, everything(graph), seconds_of([1.0] * 400), settings_)
    assert len(wave) == parallelism
    sizes = [len(batch.jobs) for batch in wave]
    assert max(sizes) - min(sizes) <= 1


def test_a_fan_out_of_uneven_jobs_is_balanced_by_seconds() -> None:
    cost = [0.2 + (n * 7919 % 100) / 50 for n in range(2000)]
    graph = graph_of([[] for _ in range(2000)], range(2000))
    (wave,) = plan_waves(
        graph, everything(graph), seconds_of(cost), PlanSettings(parallelism=64, max_batch_seconds=1e6)
    )
    assert len(wave) == 64
    goal = sum(cost) / 64
    assert max(batch.seconds for batch in wave) < goal + 2.3
    assert min(batch.seconds for batch in wave) > goal / 2


def test_a_long_job_does_not_leave_a_trail_of_tiny_batches() -> None:
    cost = [50.0] + [0.1] * 500
    graph = graph_of([[] for _ in cost], range(len(cost)))
    (wave,) = plan_waves(graph, everything(graph), seconds_of(cost), PlanSettings(parallelism=20, max_batch_seconds=60))
    assert wave[0].jobs == [0]
    assert len(wave) <= 12
    assert min(len(batch.jobs) for batch in wave[1:-1]) >= 25


def test_little_work_is_not_cut_into_batches_shorter_than_is_worth_a_worker() -> None:
    graph = graph_of([[] for _ in range(100)], range(100))
    settings_ = PlanSettings(parallelism=256, min_batch_seconds=1.0)
    (wave,) = plan_waves(graph, everything(graph), seconds_of([0.02] * 100), settings_)
    assert len(wave) == 2


def test_much_work_is_cut_into_batches_no_longer_than_the_limit() -> None:
    graph = graph_of([[] for _ in range(100)], range(100))
    settings_ = PlanSettings(parallelism=2, max_batch_seconds=60)
    (wave,) = plan_waves(graph, everything(graph), seconds_of([25.0] * 100), settings_)
    assert max(batch.seconds for batch in wave) <= 60


def test_a_job_longer_than_the_limit_is_alone() -> None:
    graph = graph_of([[] for _ in range(5)], range(5))
    (wave,) = plan_waves(graph, everything(graph), seconds_of([1, 1, 500, 1, 1]), PlanSettings(parallelism=1))
    assert [2] in [batch.jobs for batch in wave]


def test_long_jobs_that_nothing_waits_for_share_the_last_wave() -> None:
    """Fits of the gross losses (4) and of the net ones (5), two levels apart, and a table (6) behind the net (3)."""
    graph = graph_of([[], [0], [1], [2], [1], [3], [3]], [4, 5, 6])
    cost = seconds_of([20.0, 50.0, 50.0, 50.0, 200.0, 200.0, 50.0])
    waves = plan_waves(graph, everything(graph), cost, PlanSettings())
    assert [sorted(batch.jobs for batch in wave) for wave in waves] == [[[0]], [[1]], [[2]], [[3]], [[4], [5], [6]]]
    assert [batch.wave for wave in waves for batch in wave] == [0, 1, 2, 3, 4, 4, 4]


def test_a_long_job_that_needs_the_last_wave_takes_the_others_with_it_into_one_more() -> None:
    graph = graph_of([[], [0], [0], [1]], [2, 3])
    waves = plan_waves(graph, everything(graph), seconds_of([50.0, 50.0, 200.0, 200.0]), PlanSettings())
    assert [sorted(batch.jobs for batch in wave) for wave in waves] == [[[0]], [[1]], [[2], [3]]]
    alone = plan_waves(graph_of([[]], [0]), np.ones(1, np.bool_), seconds_of([200.0]), PlanSettings())
    assert [[batch.jobs for batch in wave] for wave in alone] == [[[0]]]


def test_jobs_that_share_inputs_stay_together() -> None:
    affinity = [n // 10 for n in range(200)]
    graph = graph_of([[] for _ in range(200)], range(200), affinity)
    settings_ = PlanSettings(parallelism=7, max_batch_seconds=1e6, min_batch_seconds=0.1)
    (wave,) = plan_waves(graph, everything(graph), seconds_of([1.0] * 200), settings_)
    assert len(wave) == 7
    for batch in wave:
        assert len(batch.jobs) % 10 == 0, "no bucket is cut"


def test_a_short_chain_joins_the_batch_that_makes_its_inputs() -> None:
    """Deals of two buckets, each bucket's sum, and the total: the sums join, the total waits for both."""
    inputs: list[list[int]] = [[] for _ in range(20)]
    affinity = [0] * 10 + [1] * 10
    inputs += [list(range(10)), list(range(10, 20)), [20, 21]]
    graph = graph_of(inputs, [22], [*affinity, 0, 1, -1])
    cost = seconds_of([1.0] * 20 + [0.1, 0.1, 0.1])
    waves = plan_waves(graph, everything(graph), cost, PlanSettings(parallelism=2))
    assert [[batch.jobs for batch in wave] for wave in waves] == [
        [[*range(10), 20], [*range(10, 20), 21]],
        [[22]],
    ]


def test_a_whole_chain_of_short_jobs_is_one_batch() -> None:
    graph = graph_of([[], [0], [1], [2], [3]], [4])
    waves = plan_waves(graph, everything(graph), seconds_of([0.1] * 5), PlanSettings())
    assert [[batch.jobs for batch in wave] for wave in waves] == [[[0, 1, 2, 3, 4]]]


def test_a_long_chain_joins_only_as_far_as_it_is_short() -> None:
    graph = graph_of([[], [0], [1], [2], [3]], [4])
    waves = plan_waves(graph, everything(graph), seconds_of([0.4] * 5), PlanSettings(min_batch_seconds=1.0))
    assert [[batch.jobs for batch in wave] for wave in waves] == [[[0, 1, 2]], [[3, 4]]]


def test_a_job_that_waits_for_two_batches_joins_neither_even_when_a_joined_job_is_its_last_input() -> None:
    """2 reads 0 and joins its batch; 3 reads 0, then 1 of the other batch, and 2."""
    graph = graph_of([[], [], [0], [0, 1, 2]], [3])
    waves = plan_waves(graph, everything(graph), seconds_of([1.0, 1.0, 0.1, 0.1]), PlanSettings(parallelism=2))
    assert [[batch.jobs for batch in wave] for wave in waves] == [[[0, 2], [1]], [[3]]]


def test_a_large_fan_out_of_one_job_is_spread_in_the_next_wave() -> None:
    """All deals wait for one year-event table: joining its batch would run them one after the other."""
    graph = graph_of([[], *([[0]] * 64)], range(1, 65))
    waves = plan_waves(graph, everything(graph), seconds_of([1.0] * 65), PlanSettings(parallelism=16))
    assert [len(wave) for wave in waves] == [1, 16]


def test_fifty_thousand_jobs_are_planned_with_work_that_grows_with_them_only() -> None:
    """Not a benchmark: a quadratic step would take minutes here."""
    deals, fan_in = 48_000, 48
    inputs: list[list[int]] = [[]]
    affinity = [-1]
    for bucket in range(deals // fan_in):
        first = len(inputs)
        inputs += [[0]] * fan_in
        inputs.append(list(range(first, first + fan_in)))
        affinity += [bucket] * (fan_in + 1)
    graph = graph_of(inputs, [len(inputs) - 1, *range(49, len(inputs), 49)], affinity)
    run = prune(graph, flags(graph, []))
    assert int(np.count_nonzero(run)) == len(graph) == 1 + deals + deals // fan_in
    limits = PlanSettings(parallelism=256)
    started = time.process_time()
    waves = plan_waves(graph, run, seconds_of([0.05] * len(graph)), limits)
    assert time.process_time() - started < 20
    check_plan(graph, run, seconds_of([0.05] * len(graph)), limits, waves)
    assert [len(wave) for wave in waves] == [1, 256]


# ---- wave files


def two_waves() -> tuple[JobGraph, list[list[Batch]]]:
    graph = graph_of([[], *([[0]] * 30), list(range(1, 31))], [31])
    return graph, plan_waves(graph, everything(graph), seconds_of([1.0] * 32), PlanSettings(parallelism=4))


def test_the_byte_ranges_of_a_wave_hold_exactly_its_jobs() -> None:
    graph, waves = two_waves()
    assert len(waves) == 3
    for wave in waves:
        files = list(wave_files(graph, wave, run_id="run-1", round_number=2))
        objects = {name: data for name, data, _ in files}
        items = [item for _, _, part in files for item in part]
        assert len(items) == len(wave)
        for batch, item in zip(wave, items, strict=True):
            data = objects[str(item["object"])][item["start"] : item["end"]]  # type: ignore[index]
            jobs = [Job.from_dict(json.loads(line)) for line in data.splitlines()]
            assert jobs == [graph.job(number) for number in batch.jobs]
            assert item["jobs"] == len(batch.jobs)


def test_items_name_their_run_round_wave_and_batch_and_stay_small() -> None:
    graph, waves = two_waves()
    ((_, _, items),) = wave_files(graph, waves[1], run_id="run-1", round_number=2)
    assert [item["batch_id"] for item in items] == [f"r2-w1-b{n}" for n in range(4)]
    assert {(item["run_id"], item["round"], item["wave"], item["target"]) for item in items} == {
        ("run-1", 2, 1, "lambda")
    }
    assert str(items[0]["object"]).startswith("runs/run-1/plan/r2/w1.")
    assert max(len(json.dumps(item)) for item in items) < 400


def test_an_items_size_does_not_grow_with_its_jobs() -> None:
    graph = graph_of([[] for _ in range(2000)], range(2000))
    wave = [Batch(0, list(range(2000)), 10.0)]
    ((_, _, (item,)),) = wave_files(graph, wave, run_id="r", round_number=0)
    assert len(json.dumps(item)) < 400


def test_a_large_wave_is_cut_into_several_objects_that_still_hold_whole_batches() -> None:
    builder = GraphBuilder()
    elt, subject = builder.external("i:" + "0" * 32), builder.subject("x")
    filler = "x" * (JOBS_OBJECT_BYTES // 8)
    for n in range(20):
        spec = builder.spec("my_model", 1, {"n": n, "text": filler})
        builder.target(str(n), builder.job(spec, [elt], subject=subject))
    graph = builder.build()
    wave = [Batch(0, [n, n + 1], 1.0) for n in range(0, 20, 2)]
    seen: list[int] = []
    names: list[str] = []
    for name, data, items in wave_files(graph, wave, run_id="r", round_number=0):
        names.append(name)
        assert len(data) < 1.5 * JOBS_OBJECT_BYTES
        for item in items:
            assert item["object"] == name
            lines = data[item["start"] : item["end"]].splitlines()  # type: ignore[index]
            seen += [json.loads(line)["params"]["n"] for line in lines]
    assert seen == list(range(20))
    assert len(names) == len(set(names)) == 3


def test_parameters_and_names_of_any_language_come_through_a_jobs_line() -> None:
    builder = GraphBuilder()
    params = {"name": 'Zürich "Rück"\n\u2028line\r\n', "value": 1e-17}
    job = builder.job(builder.spec("my_model", 1, params), [], subject=builder.subject("x"), work=0.1 + 0.2)
    builder.target("x", job)
    graph = builder.build()
    ((_, data, _),) = wave_files(graph, [Batch(0, [0], 1.0)], run_id="r", round_number=0)
    (line,) = data.splitlines()
    assert Job.from_dict(json.loads(line)) == graph.job(0)
    assert graph.job(0).params == params


def test_a_limit_below_the_least_worth_a_worker_is_kept_all_the_same() -> None:
    """A user may ask for shorter batches than are worth it, to see the work spread."""
    graph = graph_of([[], *([[0]] * 8)], range(1, 9))
    limits = PlanSettings(parallelism=64, max_batch_seconds=0.02)
    waves = plan_waves(graph, everything(graph), seconds_of([0.01] * 9), limits)
    assert [[len(batch.jobs) for batch in wave] for wave in waves] == [[1], [2, 2, 2, 2]]
