from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

import numpy as np
import pytest
from pydantic import BaseModel

from riskmill.compute import ERROR_LENGTH, Limits, run_batch, seconds_left
from riskmill.errors import AccessRefused, MissingInput, ModelError, RunCancelled, TransientError
from riskmill.jobs import Job, job_key
from riskmill.models.registry import MODELS, Model
from riskmill.outputs import Array, Arrays, decode, encode
from riskmill.settle import Manifest

ONE, TWO = "i:" + "01" * 16, "i:" + "02" * 16


class Clock:
    """A clock that stands still unless a model takes its time."""

    def __init__(self, seconds: float = 900.0) -> None:
        self.now, self.end = 0.0, seconds

    def limits(self, stop_after: Callable[[int], bool] = lambda _: False) -> Limits:
        return Limits(time_left=lambda: self.end - self.now, clock=lambda: self.now, stop_after=stop_after)


class Store:
    """Outputs in memory, as a bucket would hold them."""

    def __init__(self, objects: dict[str, dict[str, Array]]) -> None:
        self.objects = {ref: encode(arrays) for ref, arrays in objects.items()}
        self.held: dict[str, Arrays] = {}
        self.expected: list[str] = []
        self.reads: list[str] = []
        self.broken: dict[str, Exception] = {}

    def read(self, ref: str) -> Arrays:
        self.reads.append(ref)
        if ref in self.broken:
            raise self.broken[ref]
        if ref in self.held:
            return self.held[ref]
        if ref not in self.objects:
            raise MissingInput(ref)
        return decode(self.objects[ref])

    def expect(self, refs: Sequence[str]) -> None:
        self.expected = list(refs)

    def keep(self, ref: str, arrays: Arrays) -> None:
        self.held[ref] = arrays

    def write(self, ref: str, data: bytes) -> Future[bool]:
        future: Future[bool] = Future()
        if ref in self.broken:
            future.set_exception(self.broken[ref])
        else:
            future.set_result(ref not in self.objects)
            self.objects.setdefault(ref, data)
        return future

    def exists(self, ref: str) -> bool:
        return ref in self.objects

    def value(self, job: Job) -> float:
        return float(decode(self.objects[job.ref])["x"][0])


class Plus(BaseModel):
    """Parameters of the test's model."""

    plus: float = 0.0
    seconds: float = 0.0
    wrong: str = ""


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Register a model that adds its inputs and takes as long as it is told."""
    clock = Clock()
    errors: dict[str, Exception] = {
        "model": ModelError("an ELT without events"),
        "bug": ZeroDivisionError("division by zero"),
        "transient": TransientError("slow down"),
        "memory": MemoryError(),
        "long": ValueError("x" * 10_000),
    }

    def run(params: Plus, inputs: Sequence[Arrays]) -> dict[str, Array]:
        clock.now += params.seconds
        if params.wrong == "object":
            return {"x": np.array([object()])}
        if params.wrong:
            raise errors[params.wrong]
        return {"x": np.array([params.plus + sum(float(values["x"][0]) for values in inputs)])}

    monkeypatch.setitem(MODELS, ("plus", 1), Model("plus", 1, Plus, run))
    return clock


def job(inputs: Sequence[str], model: str = "plus", work: float = 1.0, **params: Any) -> Job:
    return Job(job_key(model, 1, params, inputs), model, 1, params, tuple(inputs), work)


def store() -> Store:
    return Store({ONE: {"x": np.array([1.0])}, TWO: {"x": np.array([2.0])}})


def manifest() -> Manifest:
    return Manifest("run", "r0-w0-b0")


def test_jobs_run_in_order_each_on_what_the_ones_before_made(clock: Clock) -> None:
    outputs = store()
    first = job([ONE, TWO], plus=10, seconds=2, work=5)
    second = job([first.ref, TWO], plus=100, seconds=3, work=7)
    done = run_batch([first, second], outputs, clock.limits(), manifest())
    assert outputs.value(first) == 13.0
    assert outputs.value(second) == 115.0
    assert done.done == {first.key: 2.0, second.key: 3.0}
    assert done.rates == {"plus@1": [2, 12.0, 5.0]}
    assert done.seconds == 5.0
    assert not done.failed
    assert not done.missing
    assert not done.left
    assert not done.found


def test_only_what_the_batch_does_not_make_itself_is_fetched_and_only_once(clock: Clock) -> None:
    outputs = store()
    first = job([TWO, ONE])
    second = job([ONE, first.ref, TWO], plus=1)
    run_batch([first, second], outputs, clock.limits(), manifest())
    assert outputs.expected == [TWO, ONE]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("model", "plus version 1: ModelError: an ELT without events (run, line"),
        ("bug", "plus version 1: ZeroDivisionError: division by zero (run, line"),
        ("object", "ModelError: output 'x' has dtype object"),
    ],
)
def test_a_job_that_fails_for_its_own_reason_fails_alone(clock: Clock, wrong: str, said: str) -> None:
    outputs = store()
    good, bad, after = job([ONE]), job([TWO], wrong=wrong), job([TWO], plus=5)
    above = job([bad.ref, ONE])
    done = run_batch([good, bad, above, after], outputs, clock.limits(), manifest())
    assert set(done.done) == {good.key, after.key}
    assert set(done.failed) == {bad.key}
    assert said in done.failed[bad.key]
    assert done.missing == {above.key: bad.ref}
    assert bad.ref not in outputs.objects


@pytest.mark.parametrize("params", [{"plus": "many"}, {"seconds": None}])
def test_parameters_that_the_model_does_not_take_fail_the_job(clock: Clock, params: dict[str, Any]) -> None:
    done = run_batch([job([ONE], **params)], store(), clock.limits(), manifest())
    (error,) = done.failed.values()
    assert "ModelError: plus version 1" in error


def test_an_unknown_model_fails_the_job_and_names_the_known_ones(clock: Clock) -> None:
    done = run_batch([job([ONE], model="plsu"), job([ONE])], store(), clock.limits(), manifest())
    (error,) = done.failed.values()
    assert "no model plsu version 1; known:" in error
    assert len(done.done) == 1


def test_the_error_that_is_kept_is_bounded(clock: Clock) -> None:
    done = run_batch([job([ONE], wrong="long")], store(), clock.limits(), manifest())
    assert [len(error) for error in done.failed.values()] == [ERROR_LENGTH]


def test_an_input_that_is_gone_is_named_and_the_rest_goes_on(clock: Clock) -> None:
    gone = "p:" + "0f" * 16
    lost, good = job([ONE, gone]), job([TWO])
    done = run_batch([lost, good], store(), clock.limits(), manifest())
    assert done.missing == {lost.key: gone}
    assert set(done.done) == {good.key}
    assert not done.failed


def test_an_input_that_no_model_wrote_fails_the_job_that_reads_it(clock: Clock) -> None:
    outputs = store()
    outputs.objects[ONE] = b"not safetensors"
    bad, good = job([ONE]), job([TWO])
    done = run_batch([bad, good], outputs, clock.limits(), manifest())
    assert "ModelError: not a safetensors object" in done.failed[bad.key]
    assert set(done.done) == {good.key}


@pytest.mark.parametrize("error", [TransientError("503"), AccessRefused("403"), RunCancelled("run"), OSError("socket")])
def test_a_store_that_cannot_be_read_ends_the_attempt_and_is_no_jobs_failure(clock: Clock, error: Exception) -> None:
    outputs = store()
    outputs.broken[TWO] = error
    good, lost = job([ONE]), job([TWO])
    done = manifest()
    with pytest.raises(type(error)):
        run_batch([good, lost], outputs, clock.limits(), done)
    assert not done.failed
    assert good.ref in outputs.objects, "what was written before is not lost"


@pytest.mark.parametrize(("wrong", "error"), [("transient", TransientError), ("memory", MemoryError)])
def test_errors_of_the_platform_inside_a_model_end_the_attempt(
    clock: Clock, wrong: str, error: type[Exception]
) -> None:
    done = manifest()
    with pytest.raises(error):
        run_batch([job([ONE], wrong=wrong)], store(), clock.limits(), done)
    assert not done.failed


def test_a_write_that_cannot_be_done_ends_the_attempt(clock: Clock) -> None:
    outputs = store()
    lost = job([ONE])
    outputs.broken[lost.ref] = TransientError("SlowDown")
    with pytest.raises(TransientError):
        run_batch([lost], outputs, clock.limits(), manifest())


def test_when_time_runs_out_the_rest_is_left(clock: Clock) -> None:
    """Of 100 s, 10 are kept back, and a job is begun only with time for two as long as the longest of its model."""
    clock.end = 100.0
    jobs = [job([ONE], plus=n, seconds=20) for n in range(6)]
    done = run_batch(jobs, store(), clock.limits(), manifest())
    assert list(done.done) == [one.key for one in jobs[:3]]
    assert done.left == [one.key for one in jobs[3:]]
    assert clock.now == 60.0


def test_with_no_time_at_all_everything_is_left(clock: Clock) -> None:
    clock.end = 5.0
    jobs = [job([ONE], plus=n) for n in range(3)]
    done = run_batch(jobs, store(), clock.limits(), manifest())
    assert done.left == [one.key for one in jobs]
    assert not done.done


def test_a_cancelled_run_leaves_what_is_not_begun(clock: Clock) -> None:
    asked: list[int] = []

    def stop_after(finished: int) -> bool:
        asked.append(finished)
        return finished == 2

    jobs = [job([ONE], plus=n) for n in range(5)]
    done = run_batch(jobs, store(), clock.limits(stop_after), manifest())
    assert set(done.done) == {one.key for one in jobs[:2]}
    assert done.left == [one.key for one in jobs[2:]]
    assert asked == [0, 1, 2]


def test_an_output_that_was_there_is_done_and_marked_found(clock: Clock) -> None:
    outputs = store()
    there = job([ONE])
    outputs.objects[there.ref] = encode({"x": np.array([1.0])})
    done = run_batch([there], outputs, clock.limits(), manifest())
    assert set(done.done) == {there.key}
    assert done.found == [there.key]


def test_a_further_attempt_does_not_make_again_what_is_there(clock: Clock) -> None:
    outputs = store()
    there, new = job([ONE], seconds=5), job([TWO], seconds=5)
    outputs.objects[there.ref] = encode({"x": np.array([1.0])})
    above = job([there.ref, new.ref])
    done = run_batch([there, new, above], outputs, clock.limits(), manifest(), check_first=True)
    assert done.done == {there.key: 0.0, new.key: 5.0, above.key: 0.0}
    assert done.found == [there.key]
    assert clock.now == 5.0
    assert outputs.value(above) == 3.0
    assert done.rates["plus@1"][0] == 2, "a job that did not run says nothing about its model's rate"


def test_every_job_of_a_batch_is_accounted_for_exactly_once(clock: Clock) -> None:
    clock.end = 50.0
    bad = job([ONE], wrong="bug")
    jobs = [
        job([ONE]),
        bad,
        job([bad.ref]),
        job(["p:" + "0f" * 16]),
        *(job([TWO], plus=n, seconds=9) for n in range(9)),
    ]
    done = run_batch(jobs, store(), clock.limits(), manifest())
    said = [*done.done, *done.failed, *done.missing, *done.left]
    assert sorted(said) == sorted(one.key for one in jobs)
    assert done.done
    assert done.left


@pytest.mark.parametrize(
    ("planned", "elapsed", "jobs", "finished", "left"),
    [
        (60.0, 0.0, 100, -1, 60.0),  # not begun: the plan
        (60.0, 59.5, 1, 0, 0.5),
        (60.0, 20.0, 100, 80, 5.0),  # faster than planned: the pace of the finished jobs
        (60.0, 90.0, 100, 90, 10.0),  # slower than planned: the plan says nothing any more
        (60.0, 90.0, 1, 0, float("inf")),  # one job that goes on and on: nobody knows
        (0.0, 3.0, 1, 1, 0.0),
    ],
)
def test_a_batchs_end_is_foreseen_by_its_plan_or_by_the_pace_of_its_jobs(
    planned: float, elapsed: float, jobs: int, finished: int, left: float
) -> None:
    assert seconds_left(planned, elapsed, jobs=jobs, finished=finished) == left
