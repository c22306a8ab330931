"""The Fargate worker's loop, against moto's SQS and Step Functions."""

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import boto3
import pytest
from moto import mock_aws

from riskmill.aws import clients
from riskmill.aws.worker import Worker, WorkerSettings
from riskmill.errors import RiskmillError, RunCancelled, TransientError
from riskmill.settle import Manifest

ITEM = {"run_id": "run-1", "batch_id": "r0-w0-b0", "round": 0, "wave": 0, "jobs": 2}

#: Sends the item with a task token to a queue, and waits for the answer: what the rollup will do with a long batch.
DEFINITION = {
    "StartAt": "RunOnFargate",
    "States": {
        "RunOnFargate": {
            "Type": "Task",
            "Resource": "arn:aws:states:::sqs:sendMessage.waitForTaskToken",
            "HeartbeatSeconds": 60,
            "Parameters": {"QueueUrl.$": "$.queue", "MessageBody": {"token.$": "$$.Task.Token", "item.$": "$.item"}},
            "End": True,
        }
    },
}


@pytest.fixture(autouse=True)
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    clients.client.cache_clear()
    with mock_aws(config={"stepfunctions": {"execute_state_machine": True}}):
        yield
    clients.client.cache_clear()


@pytest.fixture
def queue() -> str:
    dead = boto3.client("sqs").create_queue(QueueName="dead")["QueueUrl"]
    arn = boto3.client("sqs").get_queue_attributes(QueueUrl=dead, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    redrive = json.dumps({"deadLetterTargetArn": arn, "maxReceiveCount": 2})
    created = boto3.client("sqs").create_queue(
        QueueName="batches", Attributes={"VisibilityTimeout": "120", "RedrivePolicy": redrive}
    )
    return str(created["QueueUrl"])


def settings(queue: str, **changed: Any) -> WorkerSettings:
    quick: dict[str, Any] = {"idle_seconds": 0.5, "poll_seconds": 0, "heartbeat_seconds": 0.05, "grace_seconds": 0.5}
    return WorkerSettings(queue, **(quick | changed))


def send(queue: str, body: Any) -> None:
    boto3.client("sqs").send_message(QueueUrl=queue, MessageBody=body if isinstance(body, str) else json.dumps(body))


def numbers(queue: str) -> tuple[int, int]:
    """Return how many messages are visible, and how many are in flight."""
    names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
    attributes = boto3.client("sqs").get_queue_attributes(QueueUrl=queue, AttributeNames=names)["Attributes"]
    return int(attributes[names[0]]), int(attributes[names[1]])


def start_execution(queue: str) -> str:
    """Start a state machine that sends ITEM with a token; return once the message is on the queue."""
    states = boto3.client("stepfunctions")
    machine = states.create_state_machine(
        name="one-batch", definition=json.dumps(DEFINITION), roleArn="arn:aws:iam::123456789012:role/one-batch"
    )
    started = states.start_execution(
        stateMachineArn=machine["stateMachineArn"], input=json.dumps({"queue": queue, "item": ITEM})
    )
    eventually(lambda: numbers(queue)[0] == 1)
    return str(started["executionArn"])


def ended(execution: str) -> dict[str, Any]:
    states = boto3.client("stepfunctions")
    eventually(lambda: states.describe_execution(executionArn=execution)["status"] != "RUNNING")
    return dict(states.describe_execution(executionArn=execution))


def eventually(holds: Callable[[], bool], seconds: float = 10.0) -> None:
    until = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < until, "did not come true in time"
        time.sleep(0.02)


def finished(item: Mapping[str, Any], _: Callable[[], float]) -> Manifest:
    return Manifest(item["run_id"], item["batch_id"], done={"a" * 32: 0.1, "b" * 32: 0.2})


def test_a_batch_is_run_its_token_answered_with_counts_and_its_message_deleted(queue: str) -> None:
    seen: list[Mapping[str, Any]] = []

    def run(item: Mapping[str, Any], time_left: Callable[[], float]) -> Manifest:
        seen.append(item)
        return finished(item, time_left)

    execution = start_execution(queue)
    assert Worker(settings(queue), run).run() == 1
    assert seen == [ITEM]
    answer = ended(execution)
    assert answer["status"] == "SUCCEEDED"
    assert json.loads(answer["output"]) == {"done": 2, "failed": 0, "missing": 0, "left": 0}
    assert numbers(queue) == (0, 0)


@pytest.mark.parametrize("error", [TransientError("S3 is busy"), RunCancelled("run-1"), ZeroDivisionError("a bug")])
def test_a_batch_that_fails_answers_its_token_with_the_errors_class(
    queue: str, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    causes: list[str] = []
    fail = clients.client("stepfunctions").send_task_failure

    def spy(**given: Any) -> Any:
        causes.append(given["cause"])  # moto drops it
        return fail(**given)

    monkeypatch.setattr(clients.client("stepfunctions"), "send_task_failure", spy)

    def run(item: Mapping[str, Any], time_left: Callable[[], float]) -> Manifest:
        raise error

    execution = start_execution(queue)
    assert Worker(settings(queue), run).run() == 1
    answer = ended(execution)
    assert (answer["status"], answer["error"]) == ("FAILED", type(error).__name__)
    assert causes == [str(error)]
    assert numbers(queue) == (0, 0)


def test_without_a_token_a_finished_batch_is_only_deleted(queue: str) -> None:
    send(queue, {"item": ITEM})
    assert Worker(settings(queue), finished).run() == 1
    assert numbers(queue) == (0, 0)


def test_without_a_token_a_failing_batch_goes_to_the_dead_letters_after_its_attempts(queue: str) -> None:
    attempts: list[float] = []

    def run(item: Mapping[str, Any], time_left: Callable[[], float]) -> Manifest:
        attempts.append(time.monotonic())
        raise TransientError("S3 is busy")

    send(queue, {"item": ITEM})
    assert Worker(settings(queue), run).run() == 0
    assert len(attempts) == 2
    assert numbers(queue) == (0, 0)
    assert numbers(queue.replace("batches", "dead")) == (1, 0)


@pytest.mark.parametrize("body", ["not json", "[]", '{"token": "t"}', '{"item": {"run_id": "run-1"}}', '{"item": 3}'])
def test_a_message_without_a_batch_is_left_for_the_dead_letters(queue: str, body: str) -> None:
    send(queue, body)
    assert Worker(settings(queue), finished).run() == 0
    assert numbers(queue) == (0, 1)  # in flight until its visibility ends, then counted as an attempt


def test_a_message_whose_token_is_dead_is_dropped_without_running(queue: str) -> None:
    ran: list[str] = []

    def run(item: Mapping[str, Any], time_left: Callable[[], float]) -> Manifest:
        ran.append(item["batch_id"])
        return finished(item, time_left)

    send(queue, {"token": "of an execution that has ended", "item": ITEM})
    assert Worker(settings(queue), run).run() == 0
    assert ran == []
    assert numbers(queue) == (0, 0)


def test_heartbeats_go_to_the_token_and_to_the_messages_visibility_while_a_batch_runs(
    queue: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[str] = []
    for service, names in (("stepfunctions", ["send_task_heartbeat"]), ("sqs", ["change_message_visibility"])):
        for name in names:
            real = getattr(clients.client(service), name)

            def spy(_name: str = name, _real: Any = real, **given: Any) -> Any:
                sent.append(_name)
                return _real(**given)

            monkeypatch.setattr(clients.client(service), name, spy)

    def slow(item: Mapping[str, Any], time_left: Callable[[], float]) -> Manifest:
        time.sleep(0.4)
        return finished(item, time_left)

    start_execution(queue)
    Worker(settings(queue), slow).run()
    assert sent.count("send_task_heartbeat") == sent.count("change_message_visibility") >= 3
    assert sent[0] == "send_task_heartbeat"  # a dead token is noticed before anything else


def test_a_token_that_dies_during_a_batch_ends_it_at_the_next_job_and_nothing_is_answered(
    queue: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    left: list[float] = []
    beats = threading.Event()

    def heartbeat(**_: Any) -> None:
        if beats.is_set():
            error = {"Error": {"Code": "TaskTimedOut", "Message": "Task Timed Out"}}
            raise clients.ClientError(error, "SendTaskHeartbeat")  # type: ignore[arg-type]
        beats.set()

    def run(item: Mapping[str, Any], time_left: Callable[[], float]) -> Manifest:
        left.append(time_left())
        eventually(lambda: time_left() == 0.0)
        return Manifest(item["run_id"], item["batch_id"], left=["a" * 32])

    answers: list[Any] = []
    monkeypatch.setattr(clients.client("stepfunctions"), "send_task_heartbeat", heartbeat)
    monkeypatch.setattr(clients.client("stepfunctions"), "send_task_success", lambda **given: answers.append(given))
    send(queue, {"token": "t", "item": ITEM})
    Worker(settings(queue), run).run()
    assert left == [float("inf")]
    assert answers == []
    assert numbers(queue) == (0, 0)


def test_asked_to_stop_within_a_job_the_worker_gives_its_message_back_at_once(queue: str) -> None:
    may_end = threading.Event()

    def stuck(item: Mapping[str, Any], time_left: Callable[[], float]) -> Manifest:
        threading.Timer(0.1, worker.stop).start()
        may_end.wait(20)
        return finished(item, time_left)

    worker = Worker(settings(queue), stuck)
    send(queue, {"item": ITEM})
    began = time.monotonic()
    assert worker.run() == 0
    assert time.monotonic() - began < 5
    assert numbers(queue) == (1, 0)
    may_end.set()


def test_asked_to_stop_between_jobs_the_worker_gives_back_a_batch_with_jobs_left(queue: str) -> None:
    def run(item: Mapping[str, Any], time_left: Callable[[], float]) -> Manifest:
        worker.stop()
        assert time_left() == 0.0
        return Manifest(item["run_id"], item["batch_id"], done={"a" * 32: 0.1}, left=["b" * 32])

    worker = Worker(settings(queue), run)
    send(queue, {"item": ITEM})
    assert worker.run() == 0
    assert numbers(queue) == (1, 0)


def test_asked_to_stop_a_batch_that_ended_in_time_is_answered(queue: str) -> None:
    def run(item: Mapping[str, Any], time_left: Callable[[], float]) -> Manifest:
        worker.stop()
        return finished(item, time_left)

    worker = Worker(settings(queue), run)
    send(queue, {"item": ITEM})
    assert worker.run() == 1
    assert numbers(queue) == (0, 0)


def test_a_throttled_queue_is_polled_again(queue: str, monkeypatch: pytest.MonkeyPatch) -> None:
    sqs = clients.client("sqs")
    real, faults = sqs.receive_message, [{"Error": {"Code": "ThrottlingException", "Message": "slow down"}}]

    def receive(**given: Any) -> Any:
        if faults:
            raise clients.ClientError(faults.pop(), "ReceiveMessage")  # type: ignore[arg-type]
        return real(**given)

    monkeypatch.setattr(sqs, "receive_message", receive)
    send(queue, {"item": ITEM})
    assert Worker(settings(queue), finished).run() == 1


def test_settings_come_from_the_environment_and_a_bad_one_is_named() -> None:
    assert WorkerSettings.from_environment({"QUEUE_URL": "q", "IDLE_MINUTES": "2"}) == WorkerSettings("q", 120.0)
    assert WorkerSettings.from_environment({"QUEUE_URL": "q"}).idle_seconds == 900.0
    with pytest.raises(RiskmillError, match="QUEUE_URL"):
        WorkerSettings.from_environment({})
    with pytest.raises(RiskmillError, match=r"IDLE_MINUTES.*'soon'"):
        WorkerSettings.from_environment({"QUEUE_URL": "q", "IDLE_MINUTES": "soon"})
