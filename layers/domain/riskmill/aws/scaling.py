"""One iteration of the scaler: what it observes, and what becomes of the decision (riskmill/scaler.py).

1. Take or renew the lease; whoever lost it ends.
2. Account for the dollars since the last iteration.
3. Read every running run's demand, the queues and the clusters, and what the last calls of RunTask answered.
4. Decide, tell the workers whether more may come, end the runs whose budget is spent, and answer the state machine.
"""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from math import ceil, inf
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from riskmill import scaler
from riskmill.aws.clients import client, code_of, translated, translating
from riskmill.aws.scaler_table import ScalerTable
from riskmill.observability import logger
from riskmill.quotas import task_dollars_per_hour
from riskmill.scaler import PLANNED_SECONDS, Answer, Decision, Limits, Pool, Run, Seen, State
from riskmill.settings import ScalingSettings, Settings

#: Running runs that are looked at.
RUNS = 100


@dataclass(frozen=True, slots=True)
class Place:
    """Where the workers of one size are."""

    pool: Pool
    queue_url: str
    cluster: str
    task_definition: str


class Scaling:
    """The scaler's steps with this deployment's resources."""

    def __init__(self, settings: Settings, scaling: ScalingSettings) -> None:
        self.settings = scaling
        self.table = ScalerTable(settings.control_table)
        vcpus, gigabyte = scaling.worker_cpu / 1024, 1024
        standard = task_dollars_per_hour(vcpus, scaling.worker_memory / gigabyte)
        large = task_dollars_per_hour(vcpus, scaling.large_memory / gigabyte)
        self.places = (
            Place(
                Pool("standard", scaling.worker_processes, standard),
                scaling.standard_queue_url,
                scaling.standard_cluster,
                scaling.standard_task,
            ),
            Place(Pool("large", 1, large), scaling.large_queue_url, scaling.large_cluster, scaling.large_task),
        )

    # ---- making sure that one runs

    def ensure(self, *, announce: bool = True) -> dict[str, Any]:
        """Make sure that a scaler runs while there is demand; announce demand first, unless only asked to look."""
        if self.settings.worker_scaling != "run-task":
            return {"scaler": "none: ECS services scale themselves"}
        now = time.time()
        lease = self.table.announce(now) if announce else self.table.lease()
        if self._alive(lease, now):
            return {"scaler": str(lease["execution"])}
        if not announce and not self._runs(now):
            return {"scaler": "none: no run wants workers"}
        # Of several that are started at once, one gets the lease.
        begun = {"state": {"generation": int(lease.get("generation", 0))}}
        with translating("start the scaler"):
            started = client("stepfunctions").start_execution(
                stateMachineArn=self.settings.scaler_arn, input=json.dumps(begun)
            )
        return {"scaler": str(started["executionArn"])}

    def _alive(self, lease: Mapping[str, Any], now: float) -> bool:
        if "execution" not in lease or lease.get("stopped") or lease.get("expires", 0.0) < now:
            return False
        with translating("look at the scaler's execution"):
            try:
                status = client("stepfunctions").describe_execution(executionArn=lease["execution"])["status"]
            except ClientError as error:
                if code_of(error) != "ExecutionDoesNotExist":
                    raise
                return False
        # One that handed over has succeeded; should its successor have been killed before it took the lease, nobody
        # else would notice. Of two that are started one finds that it lost, so a needless start does no harm.
        return bool(status == "RUNNING")

    # ---- one iteration

    def iterate(self, execution: str, state: Mapping[str, Any], answers: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Observe and decide; return {action, wait, calls, state} for the state machine."""
        now = time.time()
        held = State.from_dict(state)
        lease = self.table.lease()
        if held.iteration == 0:
            held.generation = self._generation(execution, held, lease, now)
        if held.generation == 0 or not (lease.get("execution") == execution or held.iteration == 0):
            return self._answer("lost", 0.0, held, "another execution holds the lease: this one ends")
        if not self.table.renew(held.generation, now):
            return self._answer("lost", 0.0, held, "another execution took the lease over: this one ends")
        seen = self._seen()
        self._account(lease, seen, now)
        runs = self._runs(now)
        decision = scaler.decide(
            now=now,
            state=held,
            limits=self._limits(),
            pools=[place.pool for place in self.places],
            seen=seen,
            runs=runs,
            answers=[_answer(entry) for entry in answers],
            # what a run announced that has ended meanwhile does not come any more
            announced=bool(runs) and now < lease.get("announced_until", 0.0),
            day_dollars=self.table.day_dollars(now),
            history=_history(execution),
        )
        for run_id in decision.over_budget:
            self._end(run_id)
        if decision.action == "stop" and not self.table.stop(held.generation, int(lease.get("demand_version", 0))):
            return self._answer("wait", 0.0, decision.state, "demand came while stopping: looking again")
        if decision.action != "stop":
            self.table.say(held.generation, decision.expects, decision.sentence, decision.spare)
        return self._of(decision)

    def _generation(self, execution: str, held: State, lease: Mapping[str, Any], now: float) -> int:
        """Return the generation of an execution that has just begun, or 0 if another one scales already."""
        if lease.get("execution") == execution:
            return int(lease["generation"])  # this step is tried again
        handed = held.generation or int(lease.get("generation", 0))
        if not held.generation and self._alive(lease, now):
            return 0
        return handed + 1 if self.table.take(execution, handed, now) else 0

    def _limits(self) -> Limits:
        return Limits(
            max_tasks=self.settings.max_tasks,
            run_dollars=self.settings.run_budget or inf,
            day_dollars=self.settings.day_budget or inf,
            spot=self.settings.spot_percent / 100,
            iterations=self.settings.scaler_iterations,
        )

    def _seen(self) -> dict[str, Seen]:
        """Return each pool's queue and tasks."""
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        with translating("look at queues and clusters"):
            clusters = {
                cluster["clusterArn"]: cluster
                for cluster in client("ecs").describe_clusters(clusters=[p.cluster for p in self.places])["clusters"]
            }
            seen = {}
            for place in self.places:
                numbers = client("sqs").get_queue_attributes(QueueUrl=place.queue_url, AttributeNames=names)
                cluster = clusters[place.cluster]
                visible, in_flight = (int(numbers["Attributes"][name]) for name in names)
                seen[place.pool.name] = Seen(
                    visible,
                    in_flight,
                    running=int(cluster["runningTasksCount"]),
                    pending=int(cluster["pendingTasksCount"]),
                )
        return seen

    def _runs(self, now: float) -> list[Run]:
        """Return the running runs that may use workers."""
        found = []
        for item in self.table.runs(limit=RUNS):
            if item["status"] != "RUNNING" or item.get("options", {}).get("compute") == "lambda":
                continue
            at, waves = int(item.get("at_wave", 0)), item.get("fargate_waves", [])
            fresh = now - _seconds(item.get("at_entered", 0.0)) < PLANNED_SECONDS
            found.append(
                Run(
                    item["run_id"],
                    planned=waves[at] if fresh and at < len(waves) else {},
                    expects=any(any(wave.values()) for wave in waves[at:]),
                    dollars=float(item.get("fargate_dollars", 0.0)),
                )
            )
        return found

    def _account(self, lease: Mapping[str, Any], seen: Mapping[str, Seen], now: float) -> None:
        """Add what the tasks cost since the last iteration, shared by the runs that run."""
        seconds = min(300.0, max(0.0, now - lease.get("accounted", now)))
        hourly = sum(seen[place.pool.name].tasks * place.pool.dollars_per_hour for place in self.places)
        dollars = round(hourly * seconds / 3600, 9)
        if dollars > 0:
            runs = self._runs(now)
            self.table.spend(dollars, {run.run_id: round(dollars / len(runs), 9) for run in runs}, now)

    def _end(self, run_id: str) -> None:
        """End a run whose budget, or the day's, is spent."""
        error = f"BudgetSpent: Fargate has cost what RunBudget ({self.settings.run_budget:g} dollars) or DayBudget "
        error += f"({self.settings.day_budget:g} dollars) allow"
        self.table.update_run(run_id, status="FAILED", phase="ended", ended=time.time(), demand=0, error=error)
        arn = self.settings.rollup_arn.replace(":stateMachine:", ":execution:") + f":{run_id}"
        with translating("end a run"):
            client("stepfunctions").stop_execution(executionArn=arn, error="BudgetSpent", cause=error)

    def _of(self, decision: Decision) -> dict[str, Any]:
        places = {place.pool.name: place for place in self.places}
        calls = [
            {
                "pool": call.pool,
                "count": call.count,
                "provider": call.provider,
                "token": call.token,
                "started_by": f"riskmill-{decision.state.generation}-{decision.state.iteration}",
                "cluster": places[call.pool].cluster,
                "task_definition": places[call.pool].task_definition,
            }
            for call in decision.calls
        ]
        return self._answer(decision.action, decision.wait, decision.state, decision.sentence, calls)

    def _answer(
        self, action: str, wait: float, state: State, sentence: str, calls: Sequence[Mapping[str, Any]] = ()
    ) -> dict[str, Any]:
        logger.info(sentence, extra={"generation": state.generation, "iteration": state.iteration, "action": action})
        if action == "restart":
            state = state.handed_over()
        # Step Functions waits whole seconds; only tests, on the embedded cloud, want less.
        seconds = min(wait, self.settings.scaler_wait) if self.settings.scaler_wait else ceil(wait)
        return {
            "action": action,
            "wait": seconds,
            "calls": list(calls),
            "state": state.to_dict(),
            "sentence": sentence,
        }


def _answer(entry: Mapping[str, Any]) -> Answer:
    """Read what became of one call: {tasks, failures}, or {Error, Cause} when RunTask refused."""
    answer = entry["answer"]
    if "Error" in answer:
        reason = scaler.reason_of(str(answer["Error"]), str(answer.get("Cause", "")))
        if reason == "refused":
            logger.error("RunTask refused", extra={"error": answer["Error"], "cause": answer.get("Cause", "")})
        return Answer(entry["pool"], entry["provider"], int(entry["count"]), 0, (reason,))
    reasons = tuple(scaler.reason_of(str(text)) for text in answer["failures"])
    return Answer(entry["pool"], entry["provider"], int(entry["count"]), len(answer["tasks"]), reasons)


def _history(execution: str) -> int:
    """Return the number of an execution's events so far: the id of its last one. 0 when it cannot be read."""
    try:
        events = client("stepfunctions").get_execution_history(executionArn=execution, reverseOrder=True, maxResults=1)[
            "events"
        ]
    except (ClientError, BotoCoreError) as error:
        passing = translated(error, "GetExecutionHistory") is not None
        gone = isinstance(error, ClientError) and code_of(error) == "ExecutionDoesNotExist"
        if not (passing or gone):
            raise
        return 0
    return int(events[0]["id"]) if events else 0


def _seconds(when: Any) -> float:
    """Return seconds since the epoch of a number, or of a state's EnteredTime."""
    return datetime.fromisoformat(when).timestamp() if isinstance(when, str) else float(when)
