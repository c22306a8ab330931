"""Rollups on Fargate workers, on the embedded cloud: from nothing to N workers and back, whatever kills them.

Tasks are the processes (or containers) that the agent starts, faults are real: SIGKILL, SIGSTOP, messages sent twice,
RunTask refused. Whatever happens, the outputs are the bytes of the same models called directly.
"""

import contextlib
import json
import signal
import sys
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from riskmill import scaler
from riskmill.aws.scaler_table import ScalerTable
from riskmill_local import patches, processes
from riskmill_local.servers import Layout
from rollup_cloud import (
    SMALL_BATCHES,
    Ended,
    Rollups,
    fresh_seed,
    keys_called,
    keys_of,
    run_directly,
    tiny_portfolio,
    wait_until,
)

pytestmark = [pytest.mark.cloud, pytest.mark.xdist_group("cloud")]

#: Events of a quiet iteration as MiniStack counts them; as AWS does, there are scaler.QUIET_EVENTS.
EVENTS_HERE = 8

#: Deals of a portfolio whose one batch is at work for a second or more.
MANY = 150


@pytest.fixture
def fargate(rollups: Rollups) -> Iterator["Fargate"]:
    """The workers and the scaler of the deployed application; at the end nothing of a test is left."""
    machine = Fargate(rollups)
    yield machine
    machine.faults()
    # By themselves: a killed worker's long poll would go on in the cloud, and take a message of the next test.
    wait_until(lambda: not machine.tasks(), "all tasks end", seconds=60)
    wait_until(lambda: not machine.running_scalers(), "the scaler stops", seconds=60)


class Fargate:
    """What a test does to workers and scaler, and sees of them."""

    def __init__(self, rollups: Rollups) -> None:
        self.rollups = rollups
        self.cloud = rollups.cloud
        self.ecs = self.cloud.client("ecs")
        self.states = self.cloud.client("stepfunctions")
        self.table = ScalerTable(self.cloud.outputs["ControlTableName"])
        self.scaler_arn = self.cloud.outputs["FargateScalerArn"]
        self.clusters = [self.cloud.outputs[f"{name}ClusterName"] for name in ("Worker", "Large")]
        self._faults = Layout(self.cloud.state_dir).tmp / "state" / patches.RUN_TASK_FAULTS

    def tasks(self, cluster: int | None = None) -> list[str]:
        """ARNs of the tasks that ECS shows as running."""
        chosen = self.clusters if cluster is None else [self.clusters[cluster]]
        return [arn for name in chosen for arn in self.ecs.list_tasks(cluster=name)["taskArns"]]

    def workers(self) -> list[psutil.Process]:
        """The processes of workers: those that watch, and those that work."""
        found = []
        for process in processes.members(self.cloud.cloud_id, self.cloud.state_dir / "redis"):
            with contextlib.suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
                if "QUEUE_URL" in process.environ():
                    found.append(process)
        return found

    def busy(self) -> list[psutil.Process]:
        """The processes that work, without those that watch them."""
        return works(self.workers())

    def at_work(self, run_id: str) -> list[psutil.Process]:
        """Wait until a worker has begun a batch; all workers' processes, those that watch among them.

        They are looked for before the batch begins, since that takes long on a busy machine, and a batch does not.
        """
        wait_until(lambda: bool(self.busy()), "a worker starts", seconds=60)
        found = self.workers()
        wait_until(lambda: bool(self.in_hand(run_id)), "a worker begins", seconds=60, every=0.01)
        return found

    def running_scalers(self) -> list[str]:
        """ARNs of the scaler's executions that run."""
        pages = self.states.list_executions(stateMachineArn=self.scaler_arn, statusFilter="RUNNING")
        return [execution["executionArn"] for execution in pages["executions"]]

    def faults(self, *lines: dict[str, Any]) -> None:
        """What RunTask answers next, in the order given."""
        self._faults.parent.mkdir(parents=True, exist_ok=True)
        self._faults.write_text("\n".join(json.dumps(line) for line in lines))

    def faults_left(self) -> int:
        return len(self._faults.read_text().splitlines())

    def in_hand(self, run_id: str) -> list[dict[str, Any]]:
        """Batches that a worker has claimed."""
        return [batch for batch in self.rollups.control.batches(run_id) if batch.get("owner")]

    def kill_on_claim(self, run_id: str, poisoned: Callable[[str], bool]) -> "Killer":
        """Kill every worker as soon as it begins a batch that `poisoned` names."""
        return Killer(self, run_id, poisoned)

    @contextlib.contextmanager
    def noticing(self, seconds: int) -> Iterator[None]:
        """From here on, workers whose death is noticed after so many seconds; a slow one may be taken for dead."""
        function = self.rollups.function("ScaleWorkersFunction")
        before = self.rollups.lambda_client.get_function_configuration(FunctionName=function)["Environment"]
        changed = {}
        for name in ("STANDARD_TASK", "LARGE_TASK"):
            known = self.ecs.describe_task_definition(taskDefinition=before["Variables"][name])["taskDefinition"]
            (container,) = known["containerDefinitions"]
            environment = {entry["name"]: str(entry["value"]) for entry in container["environment"]}
            environment["VISIBILITY_SECONDS"] = str(seconds)
            made = self.ecs.register_task_definition(
                family=f"{known['family']}-quick",
                containerDefinitions=[
                    {
                        "name": container["name"],
                        "image": container["image"],
                        "environment": [{"name": key, "value": value} for key, value in environment.items()],
                    }
                ],
            )
            changed[name] = made["taskDefinition"]["taskDefinitionArn"]
        with self.configured(**changed):
            yield

    @contextlib.contextmanager
    def configured(self, name: str = "ScaleWorkersFunction", **variables: str) -> Iterator[None]:
        """A function (the scaler's) with other environment variables for as long as this lasts."""
        function = self.rollups.function(name)
        client = self.rollups.lambda_client
        before = client.get_function_configuration(FunctionName=function)["Environment"]["Variables"]
        client.update_function_configuration(FunctionName=function, Environment={"Variables": before | variables})
        try:
            yield
        finally:
            client.update_function_configuration(FunctionName=function, Environment={"Variables": before})


class Killer(threading.Thread):
    """Sends SIGKILL to the worker that holds a poisoned batch, whenever one does."""

    def __init__(self, fargate: Fargate, run_id: str, poisoned: Callable[[str], bool]) -> None:
        super().__init__(daemon=True)
        self._fargate, self._run_id, self._poisoned = fargate, run_id, poisoned
        self.killed: list[str] = []
        self._owners = set[str]()
        self._done = threading.Event()
        #: looked for all the time, since that takes longer than a job on a busy machine
        self._workers: list[psutil.Process] = []
        self._looks = threading.Thread(target=self._look, daemon=True)

    def _look(self) -> None:
        while not self._done.wait(0.1):
            self._workers = self._fargate.workers()

    def run(self) -> None:
        self._looks.start()
        while not self._done.wait(0.005):
            for batch in self._fargate.in_hand(self._run_id):
                if batch["owner"] not in self._owners and self._poisoned(batch["batch_id"]):
                    # at most one batch at a time is claimed in these tests, so any worker that is busy is the one
                    for worker in self._workers:
                        with contextlib.suppress(psutil.NoSuchProcess):
                            worker.kill()
                    self._owners.add(batch["owner"])
                    self.killed.append(batch["batch_id"])

    def end(self) -> None:
        self._done.set()
        self.join()
        self._looks.join()


def works(workers: list[psutil.Process]) -> list[psutil.Process]:
    """Those that work, without those that watch them."""
    found = []
    for process in workers:
        with contextlib.suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
            if "spawn_main" in " ".join(process.cmdline()):
                found.append(process)
    return found


def has_turned(worker: psutil.Process) -> bool:
    """Whether a worker has turned its loop: fargate/worker/main.py notes it in a file."""
    environment = worker.environ()
    return (Path(environment["TMPDIR"]) / f"worker-{environment['ECS_TASK_ID']}-0.alive").exists()


def lambdas_at_work(rollups: Rollups, prepared: Any) -> tuple[str, list[psutil.Process]]:
    """Start a rollup, wait until its batch has begun on Lambda; its id, and the processes that may have it.

    They are there before, from another rollup: looking for them takes long on a busy machine, and a batch does not.
    """
    assert rollups.roll_up(tiny_portfolio(seed=fresh_seed())).status == "SUCCEEDED"
    processes_of_batches = rollups.workers(rollups.function("RunBatchFunction"))
    assert processes_of_batches
    run_id = rollups.start(rollups.upload(prepared), compute="auto", parallelism=1)
    rollups.wait_for_batch(run_id)
    return run_id, processes_of_batches


def same_bytes(rollups: Rollups, prepared: Any) -> bool:
    expected = run_directly(prepared)
    return rollups.outputs(keys_of(expected.graph)) == expected.outputs


def where(ended: Ended) -> Counter[str]:
    return Counter(batch["where"] for batch in ended.batches)


def test_a_rollup_on_fargate_scales_from_nothing_to_n_workers_and_back_to_nothing(
    rollups: Rollups, fargate: Fargate
) -> None:
    prepared = tiny_portfolio(seed=fresh_seed(), deals=60, trials=20_000)
    assert fargate.tasks() == []
    run_id = rollups.start(rollups.upload(prepared), compute="fargate", **SMALL_BATCHES)
    most, deadline = 0, time.monotonic() + 240
    while rollups.deployment.execution(run_id)[0] == "RUNNING":
        assert time.monotonic() < deadline, "the run does not end"
        most = max(most, len(fargate.tasks()))
        assert len(fargate.running_scalers()) <= 1
        time.sleep(0.2)
    ended = rollups.ended(run_id)
    assert ended.status == "SUCCEEDED"
    assert set(where(ended)) == {"fargate"}
    assert most == int(fargate.cloud.parameters["MaxTasks"])
    assert same_bytes(rollups, prepared)
    summary = rollups.deployment.summary(run_id)
    assert summary.run.compute == {"fargate": summary.run.jobs}
    assert summary.run.why == {"fargate: as wished for the run": summary.run.jobs}
    wait_until(lambda: not fargate.tasks(), "the workers end by themselves", seconds=30)
    wait_until(lambda: not fargate.running_scalers(), "the scaler stops", seconds=30)
    assert fargate.table.lease()["stopped"]
    assert 0 < ended.run["fargate_dollars"] <= fargate.table.day_dollars(time.time())


def test_a_worker_that_is_killed_costs_a_larger_task_and_no_byte(rollups: Rollups, fargate: Fargate) -> None:
    prepared = tiny_portfolio(seed=fresh_seed(), deals=MANY, trials=20_000)
    run_id = rollups.start(rollups.upload(prepared), compute="fargate", parallelism=1)
    for worker in fargate.at_work(run_id):
        worker.kill()
    ended = rollups.finish(run_id)
    assert ended.status == "SUCCEEDED"
    first = next(batch for batch in ended.batches if batch["batch_id"] == "r0-w0-b0")
    assert (first["deaths"], first["size"], first["why"]) == (1, "large", "its task was killed: in a larger one")
    assert same_bytes(rollups, prepared)


def test_a_process_that_is_killed_for_its_memory_costs_its_batch_a_larger_task_and_its_task_lives_on(
    rollups: Rollups, fargate: Fargate
) -> None:
    """The kernel's memory killer takes the largest process of a container: one at work, not the one that watches."""
    prepared = tiny_portfolio(seed=fresh_seed(), deals=MANY, trials=20_000)
    run_id = rollups.start(rollups.upload(prepared), compute="fargate", parallelism=1)
    for worker in works(fargate.at_work(run_id)):
        worker.kill()
    (task,) = fargate.tasks(0)
    wait_until(lambda: bool(fargate.tasks(1)), "a large task starts", seconds=60)
    assert fargate.tasks(0) == [task]
    ended = rollups.finish(run_id)
    assert ended.status == "SUCCEEDED"
    first = next(batch for batch in ended.batches if batch["batch_id"] == "r0-w0-b0")
    assert (first["deaths"], first["size"], first["why"]) == (1, "large", "its task was killed: in a larger one")
    assert same_bytes(rollups, prepared)


def test_what_needs_more_memory_than_a_standard_process_has_is_planned_for_a_large_task(
    rollups: Rollups, fargate: Fargate
) -> None:
    prepared = tiny_portfolio(seed=fresh_seed())
    with fargate.configured("PlanWavesFunction", LAMBDA_MEMORY="128", WORKER_MEMORY="256"):
        ended = rollups.roll_up(prepared, compute="auto", parallelism=1)
    assert (ended.status, ended.rounds) == ("SUCCEEDED", 1)
    assert {(batch["where"], batch["size"]) for batch in ended.batches} == {("fargate", "large")}
    assert {batch["why"] for batch in ended.batches} == {"more memory than Lambda's 128 MB with a margin of 1.5"}
    assert same_bytes(rollups, prepared)


def test_a_job_that_kills_every_worker_ends_up_alone_and_fails_with_the_history_of_its_attempts(
    rollups: Rollups, fargate: Fargate
) -> None:
    """The year-event table is the first job of its batch: whatever piece holds it kills its worker."""
    prepared = tiny_portfolio(seed=fresh_seed(), deals=2, trials=100_000)
    with fargate.noticing(3), ended_scalers(fargate):
        run_id = rollups.start(rollups.upload(prepared), compute="fargate", parallelism=1)
        killer = fargate.kill_on_claim(run_id, lambda batch: "b" not in batch.removeprefix("r0-w0-b0"))
        killer.start()
        try:
            ended = rollups.finish(run_id, seconds=300)
        finally:
            killer.end()
    graph = run_directly(prepared).graph
    assert (ended.status, ended.error) == ("FAILED", "JobsFailed")
    said = "simulate_years years block 0: simulate_years version 1 kills its workers: 2 of 2 "
    assert ended.cause.startswith(said), (ended.cause, ended.states, killer.killed, ended.batches)
    # standard, large; then each half once, and the job alone twice
    halvings = [f"r0-w0-b0{'a' * depth}" for depth in range(1, len(graph).bit_length() + 1)]
    expected = Counter(["r0-w0-b0"] * 2 + halvings)
    assert Counter(killer.killed)["r0-w0-b0"] == 2
    alone = max(killer.killed, key=len)
    assert Counter(killer.killed) == Counter({n: c for n, c in expected.items() if len(n) <= len(alone)}) + Counter(
        [alone]
    )
    unfinished = {job["job"]: job["status"] for job in rollups.deployment.unfinished(run_id)}
    assert [job for job, status in unfinished.items() if status == "failed"] == ["simulate_years years block 0"]
    assert set(unfinished.values()) == {"failed", "blocked by a failed input"}


def test_a_batch_that_is_killed_on_lambda_goes_to_fargate(rollups: Rollups, fargate: Fargate) -> None:
    prepared = tiny_portfolio(seed=fresh_seed(), deals=MANY, trials=20_000)
    run_id, found = lambdas_at_work(rollups, prepared)
    for worker in found:
        with contextlib.suppress(psutil.NoSuchProcess):
            worker.kill()
    ended = rollups.finish(run_id)
    assert (ended.status, ended.rounds) == ("SUCCEEDED", 1)
    first = next(batch for batch in ended.batches if batch["batch_id"] == "r0-w0-b0")
    assert (first["where"], first["why"]) == ("fargate", "escalated from Lambda: Runtime.ExitError")
    assert same_bytes(rollups, prepared)


@contextlib.contextmanager
def lambda_timeout(rollups: Rollups, seconds: int) -> Iterator[None]:
    """run_batch with another Timeout; a batch keeps ten seconds of it back for its end."""
    function = rollups.function("RunBatchFunction")
    before = rollups.lambda_client.get_function_configuration(FunctionName=function)["Timeout"]
    rollups.lambda_client.update_function_configuration(FunctionName=function, Timeout=seconds)
    try:
        yield
    finally:
        rollups.lambda_client.update_function_configuration(FunctionName=function, Timeout=before)


def test_a_batch_that_is_stuck_on_lambda_times_out_and_goes_to_fargate(rollups: Rollups, fargate: Fargate) -> None:
    """SIGSTOP within its first job: it cannot look at the clock any more, and Lambda's own ends it."""
    prepared = tiny_portfolio(seed=fresh_seed(), deals=MANY, trials=20_000)
    with lambda_timeout(rollups, 11):
        run_id, found = lambdas_at_work(rollups, prepared)
        for worker in found:
            with contextlib.suppress(psutil.NoSuchProcess):
                worker.send_signal(signal.SIGSTOP)
        ended = rollups.finish(run_id)
    assert (ended.status, ended.rounds) == ("SUCCEEDED", 1)
    first = next(batch for batch in ended.batches if batch["batch_id"] == "r0-w0-b0")
    assert (first["where"], first["why"]) == ("fargate", "escalated from Lambda: Sandbox.Timedout")
    assert same_bytes(rollups, prepared)


def test_what_a_batch_had_no_time_for_on_lambda_goes_on_on_fargate(rollups: Rollups, fargate: Fargate) -> None:
    prepared = tiny_portfolio(seed=fresh_seed(), deals=MANY, trials=20_000)
    key = rollups.upload(prepared)
    with lambda_timeout(rollups, 11):
        ended = rollups.finish(rollups.start(key, compute="auto", parallelism=1))
    assert (ended.status, ended.rounds) == ("SUCCEEDED", 1)
    moved = [batch for batch in ended.batches if batch["where"] == "fargate"]
    assert {batch["why"] for batch in moved} == {"escalated from Lambda: it ran out of time"}
    manifest = rollups.bucket.get_json(f"runs/{ended.run['run_id']}/manifests/r0/{moved[0]['batch_id']}.json")
    assert manifest["found"], "what Lambda had made was not made again"
    assert len(manifest["found"]) < len(manifest["done"])
    assert same_bytes(rollups, prepared)


def test_a_message_that_is_delivered_twice_is_left_to_the_worker_that_has_it(
    rollups: Rollups, fargate: Fargate
) -> None:
    prepared = tiny_portfolio(seed=fresh_seed(), deals=MANY, trials=20_000)
    run_id = rollups.start(rollups.upload(prepared), compute="fargate", parallelism=1)
    queue = rollups.cloud.outputs["WorkQueueUrl"]

    def waiting() -> int:
        names = ["ApproximateNumberOfMessages"]
        answer = rollups.sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=names)
        return int(answer["Attributes"][names[0]])

    wait_until(lambda: waiting() == 1, "the batch's message is on the queue", seconds=60, every=0.01)
    received = rollups.sqs.receive_message(QueueUrl=queue, VisibilityTimeout=0)["Messages"][0]
    rollups.sqs.send_message(QueueUrl=queue, MessageBody=received["Body"])
    ended = rollups.finish(run_id)
    assert (ended.status, ended.rounds) == ("SUCCEEDED", 1)
    assert {batch["attempts"] for batch in ended.batches} == {1}
    assert {batch["deaths"] for batch in ended.batches} == {0}
    assert same_bytes(rollups, prepared)


def test_a_stuck_worker_loses_its_batch_to_another(rollups: Rollups, fargate: Fargate) -> None:
    """SIGSTOP: no heartbeat, no keeping of the message. When it wakes up, nobody waits for its answer any more."""
    prepared = tiny_portfolio(seed=fresh_seed(), deals=MANY, trials=20_000)
    run_id = rollups.start(rollups.upload(prepared), compute="fargate", parallelism=1)
    # one that still imports is not stuck but slow, and has two minutes
    stuck = [worker for worker in works(fargate.at_work(run_id)) if has_turned(worker)]
    assert stuck
    for worker in stuck:
        worker.send_signal(signal.SIGSTOP)
    try:
        # whoever watches ends a process that does not turn its loop any more, and starts another
        ended = rollups.finish(run_id)
    finally:
        for worker in stuck:
            with contextlib.suppress(psutil.NoSuchProcess):
                worker.send_signal(signal.SIGCONT)
    assert ended.status == "SUCCEEDED"
    assert same_bytes(rollups, prepared)


def test_a_batch_whose_heartbeat_is_lost_is_planned_again(rollups: Rollups, fargate: Fargate) -> None:
    """Nobody takes the message within HeartbeatSeconds: Settle finds no manifest, and another round runs it."""
    prepared = tiny_portfolio(seed=fresh_seed())
    with fargate.configured(MAX_TASKS="0"):
        run_id = rollups.start(rollups.upload(prepared), compute="fargate", parallelism=1, heartbeat_seconds=4)
        wait_until(lambda: "PlanAgain" in rollups.states(run_id), "the heartbeat is missed", seconds=60)
    ended = rollups.finish(run_id)
    assert ended.status == "SUCCEEDED"
    assert ended.rounds > 1
    assert same_bytes(rollups, prepared)


def test_what_a_cancelled_run_leaves_on_the_queue_is_dropped_by_the_next_workers(
    rollups: Rollups, fargate: Fargate
) -> None:
    cancelled = tiny_portfolio(seed=fresh_seed(), deals=20)
    with fargate.configured(MAX_TASKS="0"):
        run_id = rollups.start(rollups.upload(cancelled), compute="fargate", **SMALL_BATCHES)
        queue = rollups.cloud.outputs["WorkQueueUrl"]
        names = ["ApproximateNumberOfMessages"]

        def waiting() -> int:
            attributes = rollups.sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=names)["Attributes"]
            return int(attributes[names[0]])

        wait_until(lambda: waiting() > 0, "messages are on the queue", seconds=60)
        rollups.deployment.cancel(run_id)
        wait_until(lambda: not fargate.running_scalers(), "the scaler stops: leftovers are nobody's work")
    assert waiting() > 0
    prepared = tiny_portfolio(seed=fresh_seed())
    assert rollups.roll_up(prepared, compute="fargate").status == "SUCCEEDED"
    assert same_bytes(rollups, prepared)
    wait_until(lambda: waiting() == 0, "the leftovers are gone")
    assert rollups.control.batches(run_id) == []


def test_run_task_throttled_without_capacity_and_refused_only_delays_a_run(rollups: Rollups, fargate: Fargate) -> None:
    fargate.faults(
        {"error": "ThrottlingException", "message": "Rate exceeded"},
        {"error": "ClientException", "message": "Rate exceeded"},
        {"error": "InvalidParameterException", "message": "Error retrieving security group information for [sg-1]: "
         "Request limit exceeded. (ErrorCode: RequestLimitExceeded)"},
        {"failures": ["Capacity is unavailable at this time"]},
        {"error": "AccessDeniedException", "message": "not authorized to perform: ecs:RunTask"},
    )  # fmt: skip
    prepared = tiny_portfolio(seed=fresh_seed())
    run_id = rollups.start(rollups.upload(prepared), compute="fargate", parallelism=1)
    said = set[str]()
    while rollups.deployment.execution(run_id)[0] == "RUNNING":
        said.add(fargate.table.lease().get("sentence", ""))
        time.sleep(0.1)
    assert rollups.ended(run_id).status == "SUCCEEDED"
    assert fargate.faults_left() == 0
    for word in ("throttled", "capacity", "refused"):
        assert any(f"of the last calls 1 {word}" in sentence for sentence in said), (word, said)
    assert same_bytes(rollups, prepared)


def test_a_run_whose_budget_is_spent_is_ended_and_says_so(rollups: Rollups, fargate: Fargate) -> None:
    prepared = tiny_portfolio(seed=fresh_seed(), deals=MANY, trials=20_000)
    with fargate.configured(RUN_BUDGET="0.0000001"):
        run_id = rollups.start(rollups.upload(prepared), compute="fargate", **SMALL_BATCHES)
        wait_until(lambda: any(run["run_id"] == run_id for run in rollups.control.runs(5)), "the run is noted")
        rollups.control.note(run_id, fargate_dollars=0.01)
        wait_until(lambda: rollups.deployment.execution(run_id)[0] != "RUNNING", "the run is ended", seconds=60)
    run = rollups.control.run(run_id)
    assert run["status"] == "FAILED"
    assert run["error"].startswith("BudgetSpent: Fargate has cost what RunBudget (1e-07 dollars)")


def test_a_scaler_that_is_stopped_from_outside_is_succeeded_while_there_is_demand(
    rollups: Rollups, fargate: Fargate
) -> None:
    prepared = tiny_portfolio(seed=fresh_seed(), deals=MANY, trials=20_000)
    run_id = rollups.start(rollups.upload(prepared), compute="fargate", **SMALL_BATCHES)
    wait_until(lambda: bool(fargate.running_scalers()), "a scaler runs", seconds=60)
    (first,) = fargate.running_scalers()
    generation = fargate.table.lease()["generation"]
    fargate.states.stop_execution(executionArn=first, error="Killed", cause="by a test")
    wait_until(lambda: fargate.table.lease()["generation"] == generation + 1, "another took over", seconds=30)
    assert len(fargate.running_scalers()) == 1
    assert rollups.finish(run_id).status == "SUCCEEDED"
    assert same_bytes(rollups, prepared)


def test_a_second_scaler_finds_the_first_and_ends(rollups: Rollups, fargate: Fargate) -> None:
    with waiting_run(rollups):
        rollups.lambda_client.invoke(
            FunctionName=rollups.function("EnsureScalerFunction"), Payload=json.dumps({"run_id": "any"})
        )
        wait_until(lambda: "sentence" in fargate.table.lease(), "the first one scales")
        (first,) = fargate.running_scalers()
        generation = fargate.table.lease()["generation"]
        for begun in ({}, {"state": {"generation": generation - 1}}):
            second = fargate.states.start_execution(stateMachineArn=fargate.scaler_arn, input=json.dumps(begun))
            arn = second["executionArn"]
            wait_until(lambda arn=arn: status(fargate, arn) == "SUCCEEDED", "the second ends")
        assert fargate.running_scalers() == [first]
        assert fargate.table.lease()["generation"] == generation


def status(fargate: Fargate, execution: str) -> str:
    return str(fargate.states.describe_execution(executionArn=execution)["status"])


@contextlib.contextmanager
def waiting_run(rollups: Rollups) -> Iterator[str]:
    """A run that is said to be running and to send work some day: what keeps a scaler going."""
    run_id = f"waiting-{uuid.uuid4().hex[:8]}"
    rollups.control.begin_run(
        run_id, options={"compute": "fargate"}, fargate_waves=[{}, {"standard": 1}], at_wave=0, at_entered=0.0
    )
    try:
        yield run_id
    finally:
        rollups.control.update_run(run_id, status="SUCCEEDED")


def test_1_600_iterations_hand_over_three_times_without_a_gap_or_a_double(
    rollups: Rollups, fargate: Fargate, capsys: pytest.CaptureFixture[str]
) -> None:
    iterations = 1_600
    before = {e["executionArn"] for e in executions(fargate)}
    generation = fargate.table.lease().get("generation", 0)
    with fargate.configured(SCALER_WAIT="0.001"), ended_scalers(fargate), waiting_run(rollups):
        rollups.lambda_client.invoke(
            FunctionName=rollups.function("EnsureScalerFunction"), Payload=json.dumps({"run_id": "any"})
        )
        most, seen = 0, 0
        deadline = time.monotonic() + 500
        while seen < iterations:
            assert time.monotonic() < deadline, f"{seen} iterations"
            most = max(most, len(fargate.running_scalers()))
            time.sleep(0.5)
            begun = [e["executionArn"] for e in executions(fargate) if e["executionArn"] not in before]
            seen = sum(last_event(fargate, arn) for arn in begun) // EVENTS_HERE
    chain = sorted(
        (e for e in executions(fargate) if e["executionArn"] not in before), key=lambda e: str(e["startDate"])
    )
    assert len(chain) == 4
    # a predecessor that has just started its successor may be seen beside it; it launches nothing any more
    assert most <= 2
    assert fargate.table.lease()["generation"] == generation + 4
    with capsys.disabled():
        sys.stdout.write("\n")
    for number, execution in enumerate(chain):
        arn = execution["executionArn"]
        history = events(fargate, arn)
        kinds = Counter(event["type"] for event in history)
        looks = scaled(fargate, arn)
        assert execution["status"] == "SUCCEEDED"
        # As AWS counts: 9 of each iteration, 8 around them, and what a Map and its calls write inside, which MiniStack
        # does not: a message that another test left behind is launched for, at the most with a full Map.
        on_aws = looks * scaler.QUIET_EVENTS + 8
        on_aws += kinds["MapStateEntered"] * (scaler.MAP_EVENTS + scaler.MAX_CALLS * scaler.CALL_EVENTS)
        assert on_aws < 25_000
        if number < 3:
            assert looks == scaler.ITERATIONS + 1
            successor = chain[number + 1]
            gap = (successor["startDate"] - execution["stopDate"]).total_seconds()
            assert gap < 1.0
        with capsys.disabled():
            said = f"{looks} iterations, {len(history):,} events here, {on_aws:,} as AWS counts"
            sys.stdout.write(f"  scaler execution {number + 1}: {said}\n")


@contextlib.contextmanager
def ended_scalers(fargate: Fargate) -> Iterator[None]:
    """At the end, wait until no scaler runs: changing its function ends an invocation that is at work."""
    yield
    wait_until(lambda: not fargate.running_scalers(), "the last one stops")


def executions(fargate: Fargate) -> list[dict[str, Any]]:
    pages = fargate.states.get_paginator("list_executions").paginate(stateMachineArn=fargate.scaler_arn)
    return [execution for page in pages for execution in page["executions"]]


def events(fargate: Fargate, arn: str) -> list[dict[str, Any]]:
    pages = fargate.states.get_paginator("get_execution_history").paginate(executionArn=arn)
    return [event for page in pages for event in page["events"]]


def last_event(fargate: Fargate, arn: str) -> int:
    """The number of events of an execution, by one call: reading all of them would slow the cloud down."""
    page = fargate.states.get_execution_history(executionArn=arn, reverseOrder=True, maxResults=1)
    return int(page["events"][0]["id"])


def scaled(fargate: Fargate, arn: str) -> int:
    """How often an execution observed and decided."""
    return sum(
        1
        for event in events(fargate, arn)
        if event["type"] == "TaskStateEntered" and event["stateEnteredEventDetails"]["name"] == "Scale"
    )


def test_the_agents_tasks_are_processes_where_docker_has_no_image(rollups: Rollups, fargate: Fargate) -> None:
    prepared = tiny_portfolio(seed=fresh_seed(), deals=30, trials=20_000)
    run_id = rollups.start(rollups.upload(prepared), compute="fargate", **SMALL_BATCHES)
    wait_until(lambda: bool(fargate.workers()), "a worker's process runs", seconds=60)
    task = fargate.tasks()[0]
    assert rollups.finish(run_id).status == "SUCCEEDED"
    wait_until(lambda: not fargate.tasks(), "the tasks end", seconds=30)
    described = fargate.ecs.describe_tasks(cluster=fargate.clusters[0], tasks=[task])["tasks"][0]
    assert described["stoppedReason"] == "Essential container exited: 0"


def test_a_task_that_is_stopped_gives_its_batch_back(rollups: Rollups, fargate: Fargate) -> None:
    """StopTask sends SIGTERM: the worker gives the message back at once, and that is no death."""
    prepared = tiny_portfolio(seed=fresh_seed(), deals=MANY, trials=20_000)
    run_id = rollups.start(rollups.upload(prepared), compute="fargate", parallelism=1)
    wait_until(lambda: bool(fargate.in_hand(run_id)), "a worker begins", seconds=60, every=0.01)
    for task in fargate.tasks(0):
        fargate.ecs.stop_task(cluster=fargate.clusters[0], task=task)
    ended = rollups.finish(run_id)
    assert (ended.status, ended.rounds) == ("SUCCEEDED", 1)
    assert {batch["deaths"] for batch in ended.batches} == {0}
    assert same_bytes(rollups, prepared)


def test_keys_of_the_poison_test_name_the_first_job(rollups: Rollups) -> None:
    """The poison test relies on it: the year-event table is job 0 of the first batch."""
    graph = run_directly(tiny_portfolio(seed=fresh_seed(), deals=2)).graph
    assert keys_called(graph, "simulate_years") == [graph.key(0)]
