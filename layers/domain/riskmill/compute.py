"""Running one batch: the same code on Lambda, on Fargate and on a laptop.

1. Every job reads its inputs (from memory when an earlier job of the batch made or read them), runs its model and
   writes its output once.
2. A job that fails for its own reason fails alone. A job whose input is gone is noted with that input's name.
3. Before each job the time that is left and the run's cancel flag are looked at; what is not begun is `left`. Once a
   job, so a worker counts by it how far its batch is.
4. The manifest says what happened to every job of the batch.

A crash in the middle is safe: outputs are written whole or not at all, under the key of their content, and whoever
tries the batch again finds what is there.
"""

import math
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Protocol

from riskmill.errors import AccessRefused, MissingInput, ModelError, RunCancelled, TransientError
from riskmill.jobs import Job
from riskmill.models.registry import run_model
from riskmill.outputs import Arrays, encode
from riskmill.settle import Manifest

#: Errors of the platform, not of the job: they end the attempt, and the state machine tries the batch again.
NOT_THE_JOBS_FAULT = (TransientError, AccessRefused, RunCancelled, MemoryError)

#: Characters of a job's error that are kept.
ERROR_LENGTH = 2_000


class OutputStore(Protocol):
    """Where a batch reads inputs and writes outputs. References are those of riskmill.jobs."""

    def read(self, ref: str) -> Arrays:
        """Return an object, from memory if it is there. Raises MissingInput."""

    def expect(self, refs: Sequence[str]) -> None:
        """Begin to fetch these objects: they will be read soon."""

    def keep(self, ref: str, arrays: Arrays) -> None:
        """Hold an object that this worker just made in memory."""

    def write(self, ref: str, data: bytes) -> Future[bool]:
        """Write an output once; the future tells whether it was new. Raises TransientError."""

    def exists(self, ref: str) -> bool:
        """Tell whether an output is there."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a batch asks of its surroundings. Pure code reads no clock: the caller hands it in."""

    #: seconds until the worker must have answered
    time_left: Callable[[], float]
    #: a monotonic clock, in seconds
    clock: Callable[[], float]
    #: told how many jobs were dealt with so far, tells whether to stop (the run was cancelled)
    stop_after: Callable[[int], bool]
    #: seconds kept back for the last writes and the manifest
    reserve: float = 10.0


def inputs_of(jobs: Sequence[Job]) -> list[str]:
    """Return what a batch reads and does not make itself, in the order in which it reads it."""
    made = {job.ref for job in jobs}
    return list(dict.fromkeys(ref for job in jobs for ref in job.inputs if ref not in made))


def seconds_left(planned: float, elapsed: float, *, jobs: int, finished: int) -> float:
    """Return in how many seconds a batch may end: what its plan or what its finished jobs say, whichever is sooner.

    Plan and pace err in either direction (another host, a long job at the end), so whoever acts on it must be able to
    take it back. A batch that has outrun its plan without finishing a job says nothing: infinity.
    """
    by_plan = planned - elapsed if elapsed < planned else math.inf
    by_pace = elapsed * (jobs - finished) / finished if finished > 0 else math.inf
    return max(0.0, min(by_plan, by_pace))


def run_batch(
    jobs: Sequence[Job], store: OutputStore, limits: Limits, manifest: Manifest, *, check_first: bool = False
) -> Manifest:
    """Run the jobs in order and return the filled manifest.

    With `check_first` (any attempt but the first) an output that is there already is not made again. Raises
    TransientError when the store cannot be used: the attempt is lost, what it wrote is not.
    """
    begun = limits.clock()
    store.expect(inputs_of(jobs))
    writes: list[tuple[Job, float, Future[bool]]] = []
    slowest: dict[str, float] = {}
    for position, job in enumerate(jobs):
        needed = limits.reserve + 2 * slowest.get(job.model, 0.0)
        if limits.time_left() < needed or limits.stop_after(position):
            manifest.left.extend(rest.key for rest in jobs[position:])
            break
        if check_first and store.exists(job.ref):
            manifest.done[job.key] = 0.0
            manifest.found.append(job.key)
            continue
        try:
            inputs = [store.read(ref) for ref in job.inputs]
        except MissingInput as error:
            manifest.missing[job.key] = error.ref
            continue
        except ModelError as error:  # what is stored there is not what a model made
            manifest.failed[job.key] = _describe(job, error)
            continue
        started = limits.clock()
        try:
            arrays = run_model(job.model, job.version, job.params, inputs)
            data = encode(arrays)
        except NOT_THE_JOBS_FAULT:
            raise
        except Exception as error:  # noqa: BLE001 - a model is somebody's code: whatever it raises is the job's failure
            manifest.failed[job.key] = _describe(job, error)
            continue
        seconds = limits.clock() - started
        slowest[job.model] = max(slowest.get(job.model, 0.0), seconds)
        store.keep(job.ref, Arrays(arrays))
        writes.append((job, seconds, store.write(job.ref, data)))
    for job, seconds, written in writes:
        if not written.result():
            manifest.found.append(job.key)
        manifest.done[job.key] = round(seconds, 6)
        rate = manifest.rates.setdefault(f"{job.model}@{job.version}", [0, 0.0, 0.0])
        rate[0] += 1
        rate[1] += job.work
        rate[2] += seconds
    manifest.seconds = limits.clock() - begun
    return manifest


def _describe(job: Job, error: Exception) -> str:
    """Return what a quant needs to find the fault: the error and the model's own line that raised it."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({frames[-1].name}, line {frames[-1].lineno})" if frames else ""
    return f"{job.model} version {job.version}: {type(error).__name__}: {error}{where}"[:ERROR_LENGTH]
