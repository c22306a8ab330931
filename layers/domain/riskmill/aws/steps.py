"""The steps of a Risk Rollup: each reads what a pure function needs, calls it, and writes what it says.

A step may run twice (Step Functions retries it): each one overwrites its own files with the same content, and keys are
added to the cache as to a set. Only measured rates may then count a round twice, which leaves their ratio as it is.
"""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from functools import cache
from typing import Any

import numpy as np
from botocore.exceptions import ClientError
from numpy.typing import NDArray

from riskmill.aws.claims import Claims
from riskmill.aws.clients import redis_of
from riskmill.aws.control import ControlTable
from riskmill.aws.index import OutputIndex, index_of
from riskmill.aws.objects import Bucket, Outputs
from riskmill.aws.queues import send_all
from riskmill.compute import Limits, inputs_of
from riskmill.compute import run_batch as run_jobs
from riskmill.errors import (
    AccessRefused,
    MissingInput,
    PortfolioInvalid,
    RiskmillError,
    RunCancelled,
    TransientError,
    WorkerDied,
)
from riskmill.escalation import KILLS, rules, split_item
from riskmill.expiry import expires_at, expiries
from riskmill.graph import JobGraph
from riskmill.index_events import outputs_message
from riskmill.jobs import Job, object_name
from riskmill.outputs import Arrays, decode, encode
from riskmill.partitions import PARTITIONS
from riskmill.planner import PlanSettings, estimate_seconds, frontier, plan_waves, prune, wave_files
from riskmill.portfolio import Portfolio
from riskmill.publish import result_tables, summarise
from riskmill.quotas import MAP_CHILDREN
from riskmill.results import Run
from riskmill.rollup_graph import rollup_graph
from riskmill.run_files import (
    checked_run_id,
    errors_file,
    graph_file,
    manifest_folder,
    portfolio_file,
    result_file,
    status_file,
    unfinished_file,
    wave_file,
)
from riskmill.run_options import as_run, secondary_uncertainty_of
from riskmill.settings import Settings
from riskmill.settle import AVAILABLE, JobStatus, Manifest, promise_broken, said_to_kill, settle, unaccounted
from riskmill.strategy import Sizes, Wish, demand_of, estimate_mb, place

#: Names in an error message; the whole list is in the run's files.
NAMED = 10

#: Characters of an error that are kept in the control table.
ERROR_LENGTH = 1_000

#: Prefixes listed side by side while the cache is away.
LISTINGS = 32

#: Seconds between a batch's notes of its progress: one write and one read of the control table each.
CHECKPOINT_SECONDS = 2.0


class Steps:
    """The steps with this deployment's resources. One instance lives as long as a function's environment."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.bucket = Bucket(settings.bucket)
        self.control = ControlTable(settings.control_table)
        self.claims = Claims(settings.control_table, settings.visibility_seconds)
        self._prepared: tuple[tuple[Any, ...], list[Job]] | None = None

    @property
    def index(self) -> OutputIndex:
        """The cache of this deployment."""
        return index_of(redis_of(self.settings), self.settings.cache_expiry)

    # ---- planning

    def build_graph(self, run_id: str, portfolio: str, options: Mapping[str, Any]) -> dict[str, Any]:
        """Load the portfolio, build its job graph and note the run. Raises PortfolioInvalid, RiskmillError."""
        checked_run_id(run_id)
        loaded = as_run(self._portfolio(portfolio), options)
        graph = rollup_graph(loaded)
        self.bucket.put(graph_file(run_id), graph.to_bytes())
        self.control.begin_run(
            run_id, portfolio=portfolio, name=loaded.name, jobs=len(graph), options=dict(options), trials=loaded.trials
        )
        return {"jobs": len(graph)}

    def look_up(self, run_id: str, *, without_cache: bool = False) -> dict[str, Any]:
        """Look every key of the graph up in the cache; or, while the cache is away, in S3's listings.

        Without the cache the answer is the same: one LIST for a thousand outputs of all runs, prefixes side by side.
        """
        graph = self._graph(run_id)
        cached = self._listed(graph) if without_cache else self.index.look_up(graph.keys)
        status = np.where(cached, JobStatus.CACHED, JobStatus.UNKNOWN).astype(np.uint8)
        self._put_status(run_id, 0, status)
        return {"cached": int(np.count_nonzero(cached))}

    def _listed(self, graph: JobGraph) -> NDArray[np.bool_]:
        with ThreadPoolExecutor(LISTINGS) as pool:
            listings = pool.map(self.bucket.outputs, range(PARTITIONS))
            written = {key: at for listing in listings for key, at in listing.items()}
        fresh = expiries(written, time.time(), self.settings.retention_seconds)
        return np.fromiter((key.tobytes() in fresh for key in graph.keys), dtype=np.bool_, count=len(graph))

    def plan(self, run_id: str, round_number: int) -> dict[str, Any]:
        """Prune, level and batch what must run, and write one file a wave. Returns counts only. Raises RunCancelled."""
        if self.control.is_over(run_id):
            raise RunCancelled(run_id)
        graph = self._graph(run_id)
        status = self._status(run_id, round_number)
        run = _to_run(graph, status)
        settings = self._plan_settings(run_id, round_number)
        seconds = estimate_seconds(graph, self.control.rates())
        waves = plan_waves(graph, run, seconds, settings)
        options = self.control.run(run_id).get("options", {})
        place(waves, graph, estimate_mb(graph), Wish.of(options), self._sizes())
        on_fargate = demand_of(waves)
        for number, wave in enumerate(waves):
            items: list[dict[str, object]] = []
            for name, jobs, part in wave_files(graph, wave, run_id=run_id, round_number=round_number):
                self.bucket.put(name, jobs)
                items.extend(part)
            self.bucket.put_json(
                wave_file(run_id, round_number, number), [item | rules(item, options) for item in items]
            )
        counts = [
            {"jobs": sum(len(b.jobs) for b in w), "batches": len(w), "seconds": round(sum(b.seconds for b in w), 3)}
            for w in waves
        ]
        jobs_to_run = int(np.count_nonzero(run))
        facts: dict[str, Any] = {"phase": "running", "round": round_number, f"waves_r{round_number}": counts}
        facts["demand"] = max((wave["batches"] for wave in counts), default=0)
        facts |= {"fargate_waves": on_fargate, "at_wave": 0, "at_entered": time.time()}
        if round_number == 0:
            facts |= {"cached": int(np.count_nonzero(status == JobStatus.CACHED)), "to_run": jobs_to_run}
        self.control.update_run(run_id, **facts)
        workers = max((sum(wave.values()) for wave in on_fargate), default=0)
        # Lambda's bound on concurrency does not bind the batches that only wait for a worker.
        concurrency = min(MAP_CHILDREN, int(options.get("max_concurrency", MAP_CHILDREN)) + workers)
        return {
            "round": round_number,
            "waves": len(waves),
            "jobs": jobs_to_run,
            "workers": workers,
            "concurrency": concurrency,
        }

    def _sizes(self) -> Sizes:
        standard = self.settings.worker_memory / self.settings.worker_processes
        return Sizes(self.settings.lambda_memory, standard, self.settings.large_memory)

    def _plan_settings(self, run_id: str, round_number: int) -> PlanSettings:
        """Each further round plans smaller batches, so that a job which kills its worker ends up alone."""
        options = self.control.run(run_id).get("options", {})
        whole = PlanSettings(
            parallelism=int(options.get("parallelism", self.settings.parallelism)),
            max_batch_seconds=float(options.get("max_batch_seconds", self.settings.max_batch_seconds)),
        )
        return PlanSettings(
            parallelism=whole.parallelism * 8**round_number,
            max_batch_seconds=whole.max_batch_seconds,
            min_batch_seconds=whole.min_batch_seconds / 8**round_number,
            max_batch_jobs=max(1, whole.max_batch_jobs // 8**round_number),
        )

    # ---- computing

    def run_batch(self, item: Mapping[str, Any], time_left: Callable[[], float], *, where: str) -> Manifest:
        """Run one batch as a wave's file names it, and write its manifest. Raises RunCancelled, TransientError."""
        run_id, batch_id = str(item["run_id"]), str(item["batch_id"])
        if self.control.is_over(run_id):
            raise RunCancelled(run_id)
        facts = {name: item[name] for name in ("round", "wave", "jobs")} | {"where": where}
        facts |= {name: item[name] for name in ("why", "size") if item.get(name)}
        if where == "lambda":
            attempt = self.control.begin_batch(run_id, batch_id, **facts)
        else:
            attempt = self.claims.begin(item, facts)
        try:
            return self._run_batch(item, time_left, where, attempt)
        except MemoryError as error:
            if where == "lambda":
                raise
            self.claims.died(item)
            raise WorkerDied(f"{batch_id} ran out of memory: {error}") from error
        finally:  # unless this process is killed: then the claim stays, and tells the next worker
            if where != "lambda":
                self.claims.end(item)

    def _run_batch(self, item: Mapping[str, Any], time_left: Callable[[], float], where: str, attempt: int) -> Manifest:
        run_id, batch_id = str(item["run_id"]), str(item["batch_id"])
        jobs = self._jobs(item)
        limits = Limits(time_left, time.perf_counter, self._checkpoint(run_id, batch_id))
        manifest = Manifest(run_id, batch_id, attempt=attempt, where=where)
        try:
            run_jobs(jobs, _outputs(self.settings), limits, manifest, check_first=attempt > 1)
        except (RiskmillError, ClientError) as error:
            # The machine's child does not fail for it: Settle reads here why no manifest came.
            self.control.end_batch(run_id, batch_id, error=f"{type(error).__name__}: {error}"[:ERROR_LENGTH])
            raise
        self.bucket.put_json(f"{manifest_folder(run_id, item['round'])}{batch_id}.json", manifest.to_dict())
        self.control.end_batch(
            run_id,
            batch_id,
            done=len(manifest.done),
            failed=len(manifest.failed),
            missing=len(manifest.missing),
            left=len(manifest.left),
            seconds=round(manifest.seconds, 3),
            model_seconds=round(sum(manifest.done.values()), 3),
        )
        return manifest

    def prepare(self, item: Mapping[str, Any]) -> None:
        """Read a batch's jobs and begin to fetch their inputs, while another batch is at work.

        It claims and counts nothing: whoever begins the batch does. Raises TransientError.
        """
        jobs = self._jobs(item)
        self._prepared = (_range(item), jobs)
        _outputs(self.settings).expect_later(inputs_of(jobs))

    def _jobs(self, item: Mapping[str, Any]) -> list[Job]:
        prepared, self._prepared = self._prepared, None
        if prepared and prepared[0] == _range(item):
            return prepared[1]
        lines = self.bucket.get(item["object"], start=item["start"], end=item["end"]).splitlines()
        return [Job.from_dict(json.loads(line)) for line in lines]

    def next_piece(
        self, item: Mapping[str, Any], waiting: Sequence[Mapping[str, Any]], *, died: bool
    ) -> dict[str, Any]:
        """Return what comes after a piece of a batch that kills its workers: {item, waiting, more}.

        A piece that died is cut in half; a single job that did fails by itself, with the history of its attempts.
        """
        pieces = list(waiting)
        if died:
            data = self.bucket.get(item["object"], start=item["start"], end=item["end"])
            halves = split_item(item, data)
            pieces = [*halves, *pieces]
            if not halves:
                self._poisoned(item)
        more = bool(pieces)
        return {"item": pieces[0] if more else item, "waiting": pieces[1:], "more": more}

    def _poisoned(self, item: Mapping[str, Any]) -> None:
        """Write the manifest of a job that kills whatever worker runs it."""
        run_id, batch_id = str(item["run_id"]), str(item["batch_id"])
        (job,) = self._jobs(item)
        error = f"{job.model} version {job.version} {KILLS}: {self.claims.history(item)}"
        manifest = Manifest(run_id, batch_id, where="fargate", failed={job.key: error})
        self.bucket.put_json(f"{manifest_folder(run_id, item['round'])}{batch_id}.json", manifest.to_dict())
        self.control.end_batch(run_id, batch_id, done=0, failed=1, missing=0, left=0, seconds=0.0)

    def _checkpoint(self, run_id: str, batch_id: str) -> Callable[[int], bool]:
        """Return what a batch calls before each job: now and then it notes progress and looks at the cancel flag."""
        last = time.monotonic()

        def stop_after(finished: int) -> bool:
            nonlocal last
            if time.monotonic() - last < CHECKPOINT_SECONDS:
                return False
            last = time.monotonic()
            self.control.end_batch(run_id, batch_id, done=finished)
            return self.control.is_over(run_id)

        return stop_after

    # ---- settling

    def settle(self, run_id: str, round_number: int, *, suspect: bool = False) -> dict[str, Any]:
        """Account for every job of a round, index what was made, and say what comes next.

        `suspect`: an output that the cache promised was gone, so all of them that this run relies on are looked at.
        """
        graph = self._graph(run_id)
        before = self._status(run_id, round_number)
        run = _to_run(graph, before)
        manifests = self._manifests(run_id, round_number)
        lost = unaccounted(graph, before, run, manifests)
        doubtful = [*lost, *said_to_kill(graph, manifests)]
        absent = set(self.bucket.missing([object_name(f"p:{graph.key(job)}") for job in doubtful]))
        found = [job for job in doubtful if object_name(f"p:{graph.key(job)}") not in absent]
        missing = {ref for manifest in manifests for ref in manifest.missing.values()}
        errors = {int(job): str(error) for job, error in self._errors(run_id).items()}
        self._index_made(run_id, manifests)
        result = settle(graph, before, run, manifests, found=found, errors=errors)
        broken = bool(missing) and promise_broken(graph, result.status, missing)
        vanished = self._vanished(graph, result.status) if suspect or broken else []
        if vanished:
            result = settle(graph, before, run, manifests, found=found, vanished=vanished, errors=errors)
        why_lost = self._batch_errors(run_id, round_number) if lost else []
        refused = any(reason.startswith(AccessRefused.__name__) for reason in why_lost)  # the next round would be, too
        last = refused or round_number + 1 >= self._max_rounds(run_id)
        errors = dict(result.errors)
        if result.remaining and last:
            reason = "; ".join(why_lost[:NAMED]) or "its worker was killed or ran out of time or memory"
            never_ended = dict.fromkeys(set(lost) - set(found), f"no attempt at this job ended: {reason}")
            errors |= self._given_up(graph, result.status, never_ended, missing, manifests)
        self.bucket.put_json(errors_file(run_id), {str(job): error for job, error in errors.items()})
        self._put_status(run_id, round_number + 1, result.status)
        self._note(run_id, result.status, manifests)
        outcome = "failed" if result.outcome == "replan" and last else result.outcome
        return {"outcome": outcome, "round": round_number + 1, "remaining": result.remaining, "failed": len(errors)}

    def _index_made(self, run_id: str, manifests: Sequence[Manifest]) -> None:
        """Index what this run wrote without waiting for the events.

        What it found there is left to its message on the index queue, which knows its age. The cache is never waited
        for: when it is away, the events bring the keys later.
        """
        found = {key for manifest in manifests for key in manifest.found}
        # Whatever the run wrote, it wrote after its start: the earliest time errs towards computing again.
        at = expires_at(float(self.control.run(run_id)["started"]), self.settings.retention_seconds)
        made = {bytes.fromhex(key): at for manifest in manifests for key in manifest.done if key not in found}
        with suppress(TransientError):
            self.index.add(made)

    def _vanished(self, graph: JobGraph, status: NDArray[np.uint8]) -> list[int]:
        """Look at all outputs that the rest of the run relies on, its results among them, and un-index what is gone.

        The whole frontier at once: each round would otherwise reveal one level.
        """
        status, looked_at, vanished = status.copy(), set[int](), list[int]()
        while True:
            run = _to_run(graph, status)
            jobs = [j for j in frontier(graph, run).tolist() if status[j] in AVAILABLE and j not in looked_at]
            absent = set(self.bucket.missing([object_name(f"p:{graph.key(job)}") for job in jobs]))
            gone = [job for job in jobs if object_name(f"p:{graph.key(job)}") in absent]
            if not gone:
                break
            looked_at.update(jobs)
            vanished.extend(gone)
            status[gone] = JobStatus.UNKNOWN  # what they were made from is the frontier now
        if vanished:
            # Without the cache nothing promises these outputs; should it come back with them, they are found again.
            with suppress(TransientError):
                self.index.remove(graph.keys[job].tobytes() for job in vanished)
        return vanished

    def _given_up(
        self,
        graph: JobGraph,
        status: NDArray[np.uint8],
        never_ended: Mapping[int, str],
        missing: set[str],
        manifests: Sequence[Manifest],
    ) -> dict[int, str]:
        """Return why what still had to run in the last round did not: named jobs, never a silent gap."""
        reasons: dict[int, str] = {}
        left = {key for manifest in manifests for key in manifest.left}
        run = _to_run(graph, status)
        for job in np.flatnonzero(run).tolist():
            gone = [ref for ref in graph.refs_of(job) if ref in missing and ref[0] == "i"]
            if gone:
                reasons[job] = f"input {gone[0]} is not in the bucket: `riskmill upload --check` puts it back"
            elif job in never_ended:
                reasons[job] = never_ended[job]
            elif graph.key(job) in left:
                reasons[job] = "its batch had no time left for it, in the last round as well"
        if not reasons:
            # nothing failed, but what was thought to be there vanished: name what could run, had there been a round
            for job in np.flatnonzero(run).tolist():
                inputs = graph.inputs_of(job)
                if not run[inputs[inputs >= 0]].any():
                    reasons[job] = "an output vanished from the bucket, and no round was left to make it again"
        return reasons

    def _batch_errors(self, run_id: str, round_number: int) -> list[str]:
        """Return why batches of a round ended without a manifest, as far as they could still say so."""
        batches = self.control.batches(run_id)
        return sorted({str(b["error"]) for b in batches if b.get("round") == round_number and "error" in b})

    def _note(self, run_id: str, status: NDArray[np.uint8], manifests: Sequence[Manifest]) -> None:
        measured: dict[str, tuple[float, float, float]] = {}
        for manifest in manifests:
            for name, (jobs, work, seconds) in manifest.rates.items():
                before = measured.get(name, (0.0, 0.0, 0.0))
                measured[name] = (before[0] + jobs, before[1] + work, before[2] + seconds)
        self.control.add_rates(measured)
        self.control.update_run(
            run_id,
            phase="settled",
            computed=int(np.count_nonzero(status == JobStatus.DONE)),
            failed=int(np.count_nonzero(status == JobStatus.FAILED)),
            blocked=int(np.count_nonzero(status == JobStatus.BLOCKED)),
        )

    # ---- ending

    def publish(self, run_id: str) -> dict[str, Any]:
        """Write the run's results and mark it succeeded. Raises MissingInput when a cached result is gone."""
        graph, run = self._graph(run_id), self.control.run(run_id)
        targets = self._read_targets(graph)
        portfolio = as_run(self._portfolio(run["portfolio"]), run.get("options", {}))
        ended = time.time()
        facts = self._facts(run, ended=ended, status="SUCCEEDED")
        summary = summarise(portfolio, run["portfolio"], targets, facts)
        for name, data in result_tables(summary).items():
            self.bucket.put(result_file(run_id, name), data)
        self.control.update_run(run_id, status="SUCCEEDED", phase="ended", ended=ended, demand=0)
        return {"results": result_file(run_id, ""), "seconds": round(ended - float(run["started"]), 3)}

    def _read_targets(self, graph: JobGraph) -> dict[str, Arrays]:
        refs = [f"p:{graph.key(job)}" for job in graph.targets.tolist()]
        try:
            read = [decode(data) for data in self.bucket.get_many([object_name(ref) for ref in refs])]
        except KeyError as error:
            raise MissingInput(f"p:{str(error.args[0]).rpartition('/')[2]}") from error
        return dict(zip(graph.target_names, read, strict=True))

    def _facts(self, run: Mapping[str, Any], *, ended: float, status: str) -> Run:
        batches = self.control.batches(str(run["run_id"]))
        where: dict[str, int] = {}
        why: dict[str, int] = {}
        for batch in batches:
            done = int(batch.get("done", 0))
            where[str(batch["where"])] = where.get(str(batch["where"]), 0) + done
            reason = f"{batch['where']}: {batch.get('why', 'as planned')}"
            why[reason] = why.get(reason, 0) + done
        return Run(
            run_id=str(run["run_id"]),
            status=status,
            started=datetime.fromtimestamp(float(run["started"]), UTC),
            seconds=round(ended - float(run["started"]), 3),
            jobs=int(run["jobs"]),
            cached=int(run.get("cached", 0)),
            computed=int(run.get("computed", 0)),
            failed=int(run.get("failed", 0)),
            batches=len(batches),
            rounds=int(run.get("round", 0)) + 1,
            compute=where,
            why=why,
            secondary_uncertainty=secondary_uncertainty_of(run.get("options", {})),
        )

    def finish_failed(self, run_id: str, error: str, cause: str) -> dict[str, Any]:
        """Mark a run failed, its failed jobs named, and return the cause for the state machine to end with.

        `noted` is false for a run that had ended before: it keeps its status, and is not counted again.
        """
        failures = self.unfinished(run_id)
        named = [f"{job['job']}: {job['error']}" for job in failures if job.get("error")]
        error, cause = _innermost(error, cause)
        message = "; ".join(named[:NAMED]) if named else f"{error}: {cause}"
        if len(named) > NAMED:
            message += f" (+{len(named) - NAMED} more in {unfinished_file(run_id)})"
        self.control.begin_run(run_id)  # a run that failed before it was noted is noted now
        noted = self.control.update_run(
            run_id, status="FAILED", phase="ended", ended=time.time(), demand=0, error=message[:4_000]
        )
        return {"error": "JobsFailed" if named else error, "cause": message[:4_000], "noted": noted}

    def unfinished(self, run_id: str) -> list[dict[str, str]]:
        """List, and write down, every job that the run wanted and did not make, with what became of it."""
        try:
            graph = self._graph(run_id)
        except KeyError:
            return []
        errors = {int(job): error for job, error in self._errors(run_id).items()}
        status, unsettled = self._latest(run_id, graph)
        errors = unsettled | errors
        wanted = prune(graph, np.isin(status, AVAILABLE))
        jobs = [
            {"job": graph.label(job), "key": graph.key(job), "status": _word(status[job], job in errors)}
            | ({"error": str(errors[job])} if job in errors else {})
            for job in np.flatnonzero(wanted).tolist()
        ]
        self.bucket.put_json(unfinished_file(run_id), jobs)
        return jobs

    def _latest(self, run_id: str, graph: JobGraph) -> tuple[NDArray[np.uint8], dict[int, str]]:
        """Return what is known of each job, and errors, from the manifests of a round that was not settled."""
        rounds = [int(name.rpartition("/r")[2]) for name in self.bucket.names(f"runs/{run_id}/status/")]
        if not rounds:
            return np.zeros(len(graph), dtype=np.uint8), {}
        before = self._status(run_id, max(rounds))
        manifests = self._manifests(run_id, max(rounds))
        settled = settle(graph, before, _to_run(graph, before), manifests)
        return settled.status, settled.errors

    # ---- files

    def _portfolio(self, key: str) -> Portfolio:
        try:
            return Portfolio.from_json(self.bucket.get(portfolio_file(key)))
        except KeyError as error:
            raise PortfolioInvalid([f"portfolio {key} is not in bucket {self.bucket.name}: upload it first"]) from error

    def _graph(self, run_id: str) -> JobGraph:
        return JobGraph.from_bytes(self.bucket.get(graph_file(run_id)))

    def _status(self, run_id: str, round_number: int) -> NDArray[np.uint8]:
        return decode(self.bucket.get(status_file(run_id, round_number)))["status"]

    def _put_status(self, run_id: str, round_number: int, status: NDArray[np.uint8]) -> None:
        self.bucket.put(status_file(run_id, round_number), encode({"status": status}))

    def _manifests(self, run_id: str, round_number: int) -> list[Manifest]:
        names = list(self.bucket.names(manifest_folder(run_id, round_number)))
        return [Manifest.from_dict(json.loads(data)) for data in self.bucket.get_many(names)]

    def _errors(self, run_id: str) -> dict[str, str]:
        try:
            errors: dict[str, str] = self.bucket.get_json(errors_file(run_id))
        except KeyError:
            return {}
        return errors

    def _max_rounds(self, run_id: str) -> int:
        return int(self.control.run(run_id).get("options", {}).get("max_rounds", self.settings.max_rounds))


@cache
def _outputs(settings: Settings) -> Outputs:
    """Return this worker's outputs; shared inputs stay in memory from batch to batch."""

    def requeue(written: Mapping[str, float]) -> None:
        send_all(settings.index_queue_url, [outputs_message(written)])

    return Outputs(
        Bucket(settings.bucket),
        memory_bytes=settings.memory_cache_bytes,
        retention_seconds=settings.retention_seconds,
        requeue=requeue,
    )


def _range(item: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return where an item's jobs stand."""
    return item["object"], item["start"], item["end"]


def _to_run(graph: JobGraph, status: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Return the jobs that a round with this status runs: wanted, not there, and neither failed nor above a failure."""
    run = prune(graph, np.isin(status, AVAILABLE))
    run &= ~np.isin(status, (JobStatus.FAILED, JobStatus.BLOCKED))
    return run


def _word(status: int, has_error: bool) -> str:
    if has_error:
        return "failed"
    return {JobStatus.FAILED: "failed", JobStatus.BLOCKED: "blocked by a failed input"}.get(
        JobStatus(status), "not run"
    )


def _innermost(error: str, cause: str) -> tuple[str, str]:
    """Return the error and the message that a Lambda's JSON cause, or a nested execution's, holds inside."""
    try:
        content = json.loads(cause)
    except ValueError:
        return error, cause
    if isinstance(content, dict):
        if "errorMessage" in content:
            return str(content.get("errorType", error)), str(content["errorMessage"])
        if "Cause" in content:  # a nested execution that failed
            return _innermost(str(content.get("Error", error)), str(content["Cause"]))
    return error, cause


def require(event: Mapping[str, Any], *names: str) -> list[Any]:
    """Return these fields of an event. Raises RiskmillError naming the one that is missing."""
    for name in names:
        if name not in event:
            raise RiskmillError(f"the event has no field {name!r}: {sorted(event)}")
    return [event[name] for name in names]
