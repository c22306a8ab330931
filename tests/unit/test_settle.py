from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from riskmill.graph import GraphBuilder, JobGraph
from riskmill.planner import prune
from riskmill.settle import AVAILABLE, JobStatus, Manifest, key_index, promise_broken, settle, unaccounted

#: years -> deals 1, 2, 3 -> sum 4 -> measure 5; measure 6 reads deal 3 only
INPUTS: list[list[int]] = [[], [0], [0], [0], [1, 2, 3], [4], [3]]
YEARS, A, B, C, SUM, TOTAL, OF_C = range(7)


def graph_of(inputs: Sequence[Sequence[int]] = INPUTS, targets: Sequence[int] = (TOTAL, OF_C)) -> JobGraph:
    builder = GraphBuilder()
    for number, reads in enumerate(inputs):
        spec = builder.spec("roll_up", 1, {"n": number})
        builder.job(spec, list(reads), subject=builder.subject(f"job {number}"))
    for target in targets:
        builder.target(str(target), target)
    return builder.build()


def status_of(graph: JobGraph, **known: Sequence[int]) -> NDArray[np.uint8]:
    status = np.zeros(len(graph), dtype=np.uint8)
    for name, jobs in known.items():
        status[list(jobs)] = JobStatus[name.upper()]
    return status


def to_run(graph: JobGraph, status: NDArray[np.uint8]) -> NDArray[np.bool_]:
    return prune(graph, np.isin(status, AVAILABLE))


def manifest(
    graph: JobGraph,
    *,
    done: Sequence[int] = (),
    failed: Sequence[int] = (),
    missing: dict[int, str] | None = None,
    left: Sequence[int] = (),
) -> Manifest:
    return Manifest(
        "run",
        "r0-w0-b0",
        done={graph.key(job): 0.5 for job in done},
        failed={graph.key(job): f"error of {job}" for job in failed},
        missing={graph.key(job): ref for job, ref in (missing or {}).items()},
        left=[graph.key(job) for job in left],
    )


def test_a_manifest_comes_back_from_its_json() -> None:
    graph = graph_of()
    whole = manifest(graph, done=[1], failed=[2], missing={3: "p:x"}, left=[4])
    whole.rates["roll_up@1"] = [1, 2.0, 0.5]
    assert Manifest.from_dict(whole.to_dict()) == whole


def test_jobs_are_found_by_key() -> None:
    graph = graph_of()
    assert key_index(graph) == {graph.key(job): job for job in range(len(graph))}


def test_a_round_in_which_all_is_made_is_complete() -> None:
    graph = graph_of()
    before = status_of(graph)
    result = settle(
        graph, before, to_run(graph, before), [manifest(graph, done=range(4)), manifest(graph, done=[4, 5, 6])]
    )
    assert result.outcome == "complete"
    assert result.remaining == result.blocked == 0
    assert (result.status == JobStatus.DONE).all()
    assert (before == JobStatus.UNKNOWN).all(), "what was known before is left as it was"


def test_cached_and_unwanted_jobs_need_no_manifest() -> None:
    graph = graph_of()
    before = status_of(graph, cached=[C, SUM])
    result = settle(graph, before, to_run(graph, before), [manifest(graph, done=[TOTAL, OF_C])])
    assert result.outcome == "complete"
    assert result.status.tolist() == [0, 0, 0, JobStatus.CACHED, JobStatus.CACHED, JobStatus.DONE, JobStatus.DONE]


def test_jobs_of_a_batch_that_died_are_unaccounted_and_those_mentioned_are_not() -> None:
    graph = graph_of()
    before = status_of(graph, cached=[YEARS])
    run = to_run(graph, before)
    said = manifest(graph, done=[A], failed=[B], missing={SUM: "p:x"}, left=[TOTAL])
    assert unaccounted(graph, before, run, [said]) == [C, OF_C]
    assert unaccounted(graph, before, run, []) == [A, B, C, SUM, TOTAL, OF_C]


def test_an_unaccounted_job_whose_output_was_found_is_done() -> None:
    graph = graph_of()
    before = status_of(graph, cached=[YEARS, A, B, SUM, TOTAL])
    result = settle(graph, before, to_run(graph, before), [], found=[C, OF_C])
    assert result.outcome == "complete"
    assert result.status[OF_C] == JobStatus.DONE


def test_what_was_left_or_not_accounted_for_is_planned_again() -> None:
    graph = graph_of()
    before = status_of(graph)
    result = settle(graph, before, to_run(graph, before), [manifest(graph, done=[YEARS, A], left=[B])])
    assert result.outcome == "replan"
    assert result.remaining == 5
    assert np.flatnonzero(result.status == JobStatus.UNKNOWN).tolist() == [B, C, SUM, TOTAL, OF_C]


def test_a_failed_job_blocks_what_reads_it_and_nothing_else() -> None:
    graph = graph_of()
    before = status_of(graph)
    said = manifest(graph, done=[YEARS, A, C, OF_C], failed=[B], missing={SUM: f"p:{graph.key(B)}"})
    result = settle(graph, before, to_run(graph, before), [said])
    assert result.outcome == "failed"
    assert result.errors == {B: f"error of {B}"}
    assert result.blocked == 2
    assert [JobStatus(s).name for s in result.status.tolist()] == [
        "DONE",
        "DONE",
        "FAILED",
        "DONE",
        "BLOCKED",
        "BLOCKED",
        "DONE",
    ]


def test_what_a_failure_does_not_touch_goes_on_in_the_next_round() -> None:
    graph = graph_of()
    before = status_of(graph)
    result = settle(graph, before, to_run(graph, before), [manifest(graph, done=[YEARS, A], failed=[B])])
    assert result.outcome == "replan"
    assert result.remaining == 2, "deal C and its measure can still run"
    again = settle(
        graph, result.status, to_run(graph, result.status), [manifest(graph, done=[C, OF_C])], errors=result.errors
    )
    assert again.outcome == "failed"
    assert again.errors == {B: f"error of {B}"}, "the first round's error is not forgotten"


def test_a_job_above_a_failed_one_that_nobody_wants_is_not_counted_as_blocked() -> None:
    graph = graph_of([*INPUTS, [B]])
    before = status_of(graph)
    result = settle(graph, before, to_run(graph, before), [manifest(graph, done=[YEARS, A, C, OF_C], failed=[B])])
    assert result.status[7] == JobStatus.UNKNOWN
    assert result.blocked == 2


def test_a_job_above_a_failed_one_whose_output_exists_is_not_blocked() -> None:
    graph = graph_of()
    before = status_of(graph, cached=[SUM])
    result = settle(
        graph, before, np.ones(len(graph), bool), [manifest(graph, done=[YEARS, C, OF_C, TOTAL], failed=[B])]
    )
    assert result.status[SUM] == JobStatus.CACHED
    assert result.blocked == 0


def test_a_success_of_another_attempt_outweighs_a_failure_in_either_order() -> None:
    graph = graph_of()
    before = status_of(graph)
    run = to_run(graph, before)
    failed = manifest(graph, failed=[B])
    done = manifest(graph, done=range(7))
    for manifests in ([failed, done], [done, failed]):
        result = settle(graph, before, run, manifests)
        assert result.outcome == "complete"
        assert result.errors == {}


def test_a_cached_output_that_vanished_is_made_again_with_all_that_it_needs() -> None:
    graph = graph_of()
    before = status_of(graph, cached=[SUM, C])
    run = to_run(graph, before)
    assert np.flatnonzero(run).tolist() == [TOTAL, OF_C]
    said = manifest(graph, done=[OF_C], missing={TOTAL: f"p:{graph.key(SUM)}"})
    result = settle(graph, before, run, [said], vanished=[SUM])
    assert result.outcome == "replan"
    assert np.flatnonzero(to_run(graph, result.status)).tolist() == [YEARS, A, B, SUM, TOTAL]
    assert result.remaining == 5


def test_an_output_that_vanished_after_it_was_made_is_made_again() -> None:
    """Otherwise publish would ask for it for ever."""
    graph = graph_of()
    before = status_of(graph)
    result = settle(graph, before, to_run(graph, before), [manifest(graph, done=range(7))], vanished=[TOTAL])
    assert result.outcome == "replan"
    assert result.remaining == 1


def test_only_a_missing_input_that_was_thought_to_be_there_breaks_a_promise() -> None:
    graph = graph_of()
    status = status_of(graph, cached=[YEARS], done=[A], failed=[B])
    missing = {job: f"p:{graph.key(job)}" for job in (YEARS, A, B, C)}
    assert promise_broken(graph, status, [missing[B], missing[YEARS]])
    assert promise_broken(graph, status, [missing[A]])
    assert not promise_broken(graph, status, [missing[B], missing[C]])
    assert not promise_broken(graph, status, ["i:" + "00" * 16, "p:" + "00" * 16])
    assert not promise_broken(graph, status, [])
