"""Settling a round: an account of every job of a plan by the batches' manifests, and what to do next.

A manifest is proof: a key in it was written (or found written) by S3's own answer. A job that no manifest accounts
for (its worker died) is left to be checked by the caller with one HEAD. Nothing here waits for the cache.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from riskmill.escalation import KILLS
from riskmill.graph import JobGraph
from riskmill.planner import prune


class JobStatus(IntEnum):
    """What is known of a job in a run; stored as one byte a job."""

    #: not looked at, or still to be made
    UNKNOWN = 0
    #: its output was there before the run
    CACHED = 1
    #: made in this run
    DONE = 3
    #: failed for its own reason
    FAILED = 4
    #: not run because an input's job failed
    BLOCKED = 5


#: Statuses of jobs whose outputs exist.
AVAILABLE = (JobStatus.CACHED, JobStatus.DONE)


@dataclass(slots=True)
class Manifest:
    """What one attempt at a batch did. Times are seconds."""

    run_id: str
    batch_id: str
    attempt: int = 1
    where: str = "lambda"
    #: key -> seconds spent in its model (reading and writing not counted)
    done: dict[str, float] = field(default_factory=dict)
    #: keys of `done` whose output was there already (412)
    found: list[str] = field(default_factory=list)
    #: key -> error
    failed: dict[str, str] = field(default_factory=dict)
    #: key -> reference of the input that is not there
    missing: dict[str, str] = field(default_factory=dict)
    #: keys that were not tried (out of time, run cancelled)
    left: list[str] = field(default_factory=list)
    #: `model@version` -> [jobs, units of work, seconds in the model]
    rates: dict[str, list[float]] = field(default_factory=dict)
    seconds: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return the manifest as JSON carries it."""
        return {name: getattr(self, name) for name in self.__slots__}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Manifest":
        """Read a manifest."""
        return cls(**data)


@dataclass(frozen=True, slots=True)
class Settlement:
    """The account of a round."""

    #: uint8 [n], JobStatus of each job
    status: NDArray[np.uint8]
    #: job number -> error, of jobs that failed for their own reason in this run so far
    errors: dict[int, str]
    #: jobs that still must run and can
    remaining: int
    blocked: int

    @property
    def outcome(self) -> str:
        """`complete`, `replan` (something can still run) or `failed` (what is missing cannot be made)."""
        if self.remaining:
            return "replan"
        return "failed" if self.errors or self.blocked else "complete"


def key_index(graph: JobGraph) -> dict[str, int]:
    """Return job numbers by key."""
    text = graph.keys.tobytes().hex()
    return {text[at : at + 32]: at // 32 for at in range(0, len(text), 32)}


def unaccounted(
    graph: JobGraph, status: NDArray[np.uint8], run: NDArray[np.bool_], manifests: Sequence[Manifest]
) -> list[int]:
    """Return the jobs of the plan that no manifest mentions: whether their outputs exist is to be looked up."""
    seen = {
        key
        for manifest in manifests
        for keys in (manifest.done, manifest.failed, manifest.missing, manifest.left)
        for key in keys
    }
    planned = np.flatnonzero(run & (status != JobStatus.DONE)).tolist()
    return [job for job in planned if graph.key(job) not in seen]


def said_to_kill(graph: JobGraph, manifests: Sequence[Manifest]) -> list[int]:
    """Return the jobs that failed because they killed their workers: one may have written its output just before."""
    index = key_index(graph)
    failed = (entry for manifest in manifests for entry in manifest.failed.items())
    return sorted({index[key] for key, error in failed if KILLS in error})


def promise_broken(graph: JobGraph, status: NDArray[np.uint8], missing: Iterable[str]) -> bool:
    """Tell whether one of these missing inputs was thought to be there.

    An input whose own job failed or did not end is missing too, and says nothing about the others.
    """
    index = key_index(graph)
    jobs = [index[ref[2:]] for ref in missing if ref[0] == "p" and ref[2:] in index]
    return bool(np.isin(status[jobs], AVAILABLE).any())


def settle(
    graph: JobGraph,
    status: NDArray[np.uint8],
    run: NDArray[np.bool_],
    manifests: Iterable[Manifest],
    *,
    found: Iterable[int] = (),
    vanished: Iterable[int] = (),
    errors: Mapping[int, str] | None = None,
) -> Settlement:
    """Account for every job of a plan.

    `status` is what was known before the round and `run` what was planned; `found` are unaccounted jobs, and some that
    failed, whose outputs exist after all, `vanished` ones whose outputs turned out to be gone, whatever a manifest or
    the cache said. A later attempt's success outweighs an earlier failure. Wanted jobs above a failed one are BLOCKED.
    """
    status = status.copy()
    index = key_index(graph)
    failures = dict(errors or {})
    for manifest in manifests:
        for key in manifest.done:
            status[index[key]] = JobStatus.DONE
        for key, error in manifest.failed.items():
            if status[index[key]] != JobStatus.DONE:
                status[index[key]] = JobStatus.FAILED
                failures[index[key]] = error
    for job in found:
        status[job] = JobStatus.DONE
    for job in vanished:
        status[job] = JobStatus.UNKNOWN
    failures = {job: error for job, error in failures.items() if status[job] == JobStatus.FAILED}
    wanted = prune(graph, np.isin(status, AVAILABLE))
    if failures:
        _block(graph, status, wanted)
    ended = np.isin(status, (JobStatus.FAILED, JobStatus.BLOCKED))
    return Settlement(
        status=status,
        errors=failures,
        remaining=int(np.count_nonzero(wanted & ~ended)),
        blocked=int(np.count_nonzero(status == JobStatus.BLOCKED)),
    )


def _block(graph: JobGraph, status: NDArray[np.uint8], wanted: NDArray[np.bool_]) -> None:
    """Mark every wanted job above a failed or blocked one; number order is topological order."""
    dead = {JobStatus.FAILED, JobStatus.BLOCKED}
    for job in np.flatnonzero(wanted).tolist():
        if status[job] == JobStatus.UNKNOWN:
            inputs = graph.inputs_of(job)
            if any(status[i] in dead for i in inputs[inputs >= 0].tolist()):
                status[job] = JobStatus.BLOCKED
