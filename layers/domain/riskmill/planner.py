"""The execution planner: which jobs must run, in which order, and in which batches.

Everything here is a pure function of the graph, of which outputs exist, and of measured rates.

1. `prune`: only what a wanted output needs and does not have runs; a job whose every consumer is cached does not run
   even when its own output is gone.
2. `estimate_seconds`: the work of each job times its model's measured rate.
3. `plan_waves`: waves of batches. Every input of a job is made in an earlier wave, or earlier in the same batch: a
   short chain (a bucket's deals, then their sum) stays in one batch, where its inputs are still in memory.

All of it is linear in the number of jobs and edges.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from riskmill.deal_models import is_price_model
from riskmill.errors import PortfolioInvalid
from riskmill.graph import JobGraph
from riskmill.jobs import KEY_BYTES

#: Seconds per unit of work before a deployment measured its own (work: rollup_graph.py). Measured on one core of a
#: 2-core x86 machine; the control table's measured rates replace them.
DEFAULT_RATES: dict[str, float] = {
    "simulate_years": 2.2e-6,
    "price_deal": 5e-9,
    "roll_up": 5e-4,
    "apply_retro": 3e-7,
    "measure": 3e-7,
    "allocate": 2e-7,
    "retained": 1e-7,
    "price_tail": 5e-9,
    "compare_groups": 1e-2,
    "tabulate_deals": 1e-3,
    "fit_tail": 3.4e-7,
    "fit_models": 2.2e-6,
}

#: The same for a price by a user's model, which is taken for slower than ours, and for one that nothing is known of.
USERS_PRICE_RATE = 1e-7
UNKNOWN_RATE = 1e-3

#: Seconds that any job costs beside its model: reading inputs and writing the output.
JOB_OVERHEAD_SECONDS = 0.008


#: Waves of one round. Each is about 44 events in the rollup's history, of which Step Functions allows 25,000 over all
#: rounds: https://docs.aws.amazon.com/step-functions/latest/dg/service-quotas.html (tests/unit/test_template.py counts)
MAX_WAVES = 100

#: An object of a wave's jobs is closed once it is this large.
JOBS_OBJECT_BYTES = 32 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class PlanSettings:
    """How work is cut into batches."""

    #: batches wanted at the same time
    parallelism: int = 256
    #: a batch is no longer than this (estimated), so that it fits Lambda's 15 minutes with a wide margin
    max_batch_seconds: float = 60.0
    #: work below this is not split further: a batch's own overhead would outweigh it
    min_batch_seconds: float = 1.0
    #: jobs in a batch, so that its jobs file and its manifest stay small
    max_batch_jobs: int = 2_000


@dataclass(slots=True)
class Batch:
    """Jobs that one worker runs in order."""

    wave: int
    jobs: list[int] = field(default_factory=list)
    seconds: float = 0.0

    #: where it runs, the size of its Fargate task, and why (strategy.py)
    target: str = "lambda"
    size: str = ""
    why: str = ""


def prune(graph: JobGraph, available: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return which jobs must run (bool [n]), given whose outputs are available (bool [n])."""
    wanted = bytearray(len(graph))
    for target in graph.targets.tolist():
        wanted[target] = 1
    have = available.astype(np.uint8).tobytes()
    offsets, inputs = graph.offsets.tolist(), graph.inputs.tolist()
    for job in range(len(wanted) - 1, -1, -1):
        if wanted[job]:
            if have[job]:
                wanted[job] = 0
            else:
                for i in inputs[offsets[job] : offsets[job + 1]]:
                    if i >= 0:
                        wanted[i] = 1
    return np.frombuffer(wanted, dtype=np.bool_).copy()


def frontier(graph: JobGraph, run: NDArray[np.bool_]) -> NDArray[np.int32]:
    """Return the jobs that do not run but whose outputs the running ones read, and the targets that do not run."""
    edges = np.repeat(run, np.diff(graph.offsets))
    read = graph.inputs[edges]
    read = np.unique(np.concatenate([read[read >= 0], graph.targets]))
    return read[~run[read]].astype(np.int32)


def estimate_seconds(graph: JobGraph, rates: Mapping[str, float]) -> NDArray[np.float64]:
    """Return estimated seconds of each job (float64 [n]); `rates` maps `model@version` to seconds per unit of work."""
    per_spec = np.array(
        [rates.get(f"{s.model}@{s.version}", _first_rate(s.model, s.version)) for s in graph.specs], dtype=np.float64
    )
    return JOB_OVERHEAD_SECONDS + per_spec[graph.spec] * graph.work


def _first_rate(model: str, version: int) -> float:
    """Return the rate of a model before any was measured."""
    if model in DEFAULT_RATES:
        return DEFAULT_RATES[model]
    return USERS_PRICE_RATE if is_price_model(model, version) else UNKNOWN_RATE


def _consumers(graph: JobGraph, run: NDArray[np.bool_]) -> tuple[list[int], list[int], NDArray[np.int64]]:
    """Return (offsets, consumers) among running jobs, and how many running producers each job waits for."""
    consumer = np.repeat(np.arange(len(graph), dtype=np.int32), np.diff(graph.offsets))
    live = (graph.inputs >= 0) & run[consumer]
    live[live] &= run[graph.inputs[live]]
    producer, consumer = graph.inputs[live], consumer[live]
    order = np.argsort(producer, kind="stable")
    counts = np.bincount(producer, minlength=len(graph))
    offsets = np.concatenate([[0], np.cumsum(counts)])
    pending = np.bincount(consumer, minlength=len(graph))
    return offsets.tolist(), consumer[order].tolist(), pending


def _pack(
    ready: list[int], wave: int, seconds: list[float], affinity: list[int], settings: PlanSettings
) -> list[Batch]:
    """Cut the ready jobs, in number order, into even batches; jobs with the same affinity stay together if they fit."""
    total = sum(seconds[job] for job in ready)
    by_length = -(-total // settings.max_batch_seconds)
    by_parallelism = min(settings.parallelism, -(-total // settings.min_batch_seconds))
    goal = total / max(1.0, by_length, by_parallelism)
    batches: list[Batch] = []
    batch, done, end, last = Batch(wave), 0.0, goal, -1
    for job in ready:
        boundary = affinity[job] != last or affinity[job] < 0
        full = done >= end - 1e-9
        too_long = batch.seconds + seconds[job] > settings.max_batch_seconds
        if batch.jobs and ((full and boundary) or too_long or len(batch.jobs) >= settings.max_batch_jobs):
            batches.append(batch)
            batch = Batch(wave)
            # Ends are multiples of the goal from the start of the wave, so that rounding at boundaries does not add up;
            # what is left after a job longer than the goal begins at the next one.
            end = goal * (round(done / goal) + 1)
        batch.jobs.append(job)
        batch.seconds += seconds[job]
        done += seconds[job]
        last = affinity[job]
    batches.append(batch)
    return batches


def plan_waves(
    graph: JobGraph, run: NDArray[np.bool_], seconds: NDArray[np.float64], settings: PlanSettings
) -> list[list[Batch]]:
    """Return the waves of batches for the jobs that must run.

    A job whose producers in the current wave all stand in one batch joins that batch, as long as what joins is short
    (no more than half of the batch's own work, or the least worth a batch): it spares a wave and the reading of its
    inputs. If what could join a batch at once is more than that, it all goes to the next wave, where it is spread.

    A job that is longer than a batch, and that no other waits for, comes last: a wave ends with its longest batch, so
    such jobs share one wave, and only that one waits for them.
    """
    offsets, consumers, pending_array = _consumers(graph, run)
    pending, cost, affinity = pending_array.tolist(), seconds.tolist(), graph.affinity.tolist()
    ready = np.flatnonzero(run & (pending_array == 0)).tolist()
    waves: list[list[Batch]] = []
    late: list[int] = []
    while ready:
        ended = [j for j in ready if cost[j] > settings.max_batch_seconds and offsets[j] == offsets[j + 1]]
        if ended:
            late += ended
            ready = [job for job in ready if cost[job] <= settings.max_batch_seconds or offsets[job] < offsets[job + 1]]
        if not ready:  # what the last wave made is needed
            return [*waves, _pack(sorted(late), len(waves), cost, affinity, settings)]
        batches = _pack(ready, len(waves), cost, affinity, settings)
        #: jobs that wait for this wave -> the one batch of it that they wait for, or -1 for several
        home: dict[int, int] = {}
        joined: set[int] = set()

        def finish(
            jobs: list[int], batch_number: int, home: dict[int, int] = home, pending: list[int] = pending
        ) -> list[int]:
            """Note that these jobs are placed; return whom that made ready inside the same batch."""
            free: set[int] = set()
            for job in jobs:
                for consumer in consumers[offsets[job] : offsets[job + 1]]:
                    pending[consumer] -= 1
                    if home.setdefault(consumer, batch_number) != batch_number:
                        home[consumer] = -1
                    if pending[consumer] == 0:
                        free.add(consumer)
            return sorted(job for job in free if home[job] == batch_number)

        candidates = [finish(batch.jobs, number) for number, batch in enumerate(batches)]
        for number, batch in enumerate(batches):
            allowance = max(min(settings.min_batch_seconds, settings.max_batch_seconds), 0.5 * batch.seconds)
            level = candidates[number]
            while level:
                length = sum(cost[job] for job in level)
                if length > allowance or len(batch.jobs) + len(level) > settings.max_batch_jobs:
                    break
                allowance -= length
                batch.seconds += length
                batch.jobs.extend(level)
                joined.update(level)
                level = finish(level, number)
            batch.jobs.sort()
        waves.append(batches)
        if len(waves) > MAX_WAVES:
            raise PortfolioInvalid([f"groups are nested too deep: more than {MAX_WAVES} waves of batches"])
        ready = sorted(job for job in home if pending[job] == 0 and job not in joined)
    if late:
        waves[-1] += _pack(sorted(late), len(waves) - 1, cost, affinity, settings)
    return waves


def wave_files(
    graph: JobGraph, wave: list[Batch], *, run_id: str, round_number: int
) -> Iterator[tuple[str, bytes, list[dict[str, object]]]]:
    """Yield a wave's jobs as few large objects: (name, JSON lines, the items of the Distributed Map that read it).

    Each item names its byte range, so a wave takes a handful of S3 requests however many batches it has, an item stays
    far below the 256 KiB that Step Functions allows, and no more than one object is in memory at a time.
    """
    number = wave[0].wave
    heads: dict[int, str] = {}
    items: list[dict[str, object]] = []
    chunks: list[bytes] = []
    start = part = 0
    name = f"runs/{run_id}/plan/r{round_number}/w{number}.0.jobs"
    for index, batch in enumerate(wave):
        data = "\n".join(_job_lines(graph, batch.jobs, heads)).encode()
        items.append(
            {
                "run_id": run_id,
                "batch_id": f"r{round_number}-w{number}-b{index}",
                "round": round_number,
                "wave": number,
                "jobs": len(batch.jobs),
                "seconds": round(batch.seconds, 3),
                "target": batch.target,
                "size": batch.size,
                "why": batch.why,
                "object": name,
                "start": start,
                "end": start + len(data),
            }
        )
        chunks.append(data)
        start += len(data)
        if start >= JOBS_OBJECT_BYTES:
            yield name, b"".join(chunks), items
            items, chunks, start, part = [], [], 0, part + 1
            name = f"runs/{run_id}/plan/r{round_number}/w{number}.{part}.jobs"
    if items:
        yield name, b"".join(chunks), items


def _job_lines(graph: JobGraph, jobs: list[int], heads: dict[int, str]) -> Iterator[str]:
    """Yield the jobs as JSON, as Job.from_dict reads it; `heads` keeps what the jobs of one specification share."""
    numbers = np.array(jobs, dtype=np.int64)
    keys = graph.keys[numbers].tobytes().hex()
    each = zip(
        range(0, len(keys), 2 * KEY_BYTES),
        graph.spec[numbers].tolist(),
        graph.refs_of_each(jobs),
        graph.work[numbers].tolist(),
        strict=True,
    )
    for at, index, refs, work in each:
        head = heads.get(index)
        if head is None:
            spec = graph.specs[index]
            head = heads[index] = (
                f'"model":{json.dumps(spec.model)},"version":{spec.version},"params":{spec.params.decode()}'
            )
        # A reference is a letter, a colon and hexadecimal digits: JSON has nothing to escape in it.
        inputs = f'["{'","'.join(refs)}"]' if refs else "[]"
        yield f'{{"key":"{keys[at : at + 2 * KEY_BYTES]}",{head},"inputs":{inputs},"work":{work!r}}}'
