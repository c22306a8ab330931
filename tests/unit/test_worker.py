"""The Fargate worker's loop, against moto's SQS and Step Functions."""

import json
import sys
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
from riskmill.observability import logger
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
    quick: dict[str, Any] = {"idle_seconds": 0.5, "poll_seconds": 0, "heartbeat_seconds": 0.05, "token_seconds": 0.0}
    return WorkerSettings(queue, **(quick | changed))


def send(queue: str, body: Any) -> None:
    boto3.client("sqs").send_message(QueueUrl=queue, MessageBody=body if isinstance(body, str) else json.dumps(body))


def numbers(queue: str) -> tuple[int, int]:
    """Return how many messages are visible, and how many are in flight."""
    names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
    attributes = boto3.client("sqs").get_queue_attributes(QueueUrl=queue, AttributeNames=names)["Attributes"]
    return int(attributes[names[0]]), int(attributes[names[1]])


def item_number(number: int, **changed: Any) -> dict[str, Any]:
    return ITEM | {"batch_id": f"r0-w0-b{number}"} | changed


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


@pytest.mark.parametrize(("more", "beats"), [({}, 1), ({"heartbeat_seconds": 0.4}, 3)])
def test_a_token_gets_fewer_heartbeats_than_its_message_unless_it_is_awaited_sooner(
    queue: str, monkeypatch: pytest.MonkeyPatch, more: dict[str, float], beats: int
) -> None:
    """Callbacks are a quota of the whole account, 500 a second; a message's visibility is not."""
    sent: list[str] = []
    monkeypatch.setattr(
        clients.client("stepfunctions"), "send_task_heartbeat", lambda **given: sent.append(given["taskToken"])
    )
    monkeypatch.setattr(clients.client("stepfunctions"), "send_task_success", lambda **_: None)
    seen: list[int] = []
    real = clients.client("sqs").change_message_visibility

    def visible(**given: Any) -> Any:
        seen.append(given["VisibilityTimeout"])
        return real(**given)

    monkeypatch.setattr(clients.client("sqs"), "change_message_visibility", visible)

    def slow(item: Mapping[str, Any], time_left: Callable[[], float]) -> Manifest:
        eventually(lambda: len(seen) >= 6 and len(sent) >= beats)
        return finished(item, time_left)

    send(queue, {"token": "t", "item": ITEM | more})
    Worker(settings(queue, token_seconds=300.0), slow).run()
    assert len(sent) == 1 if beats == 1 else len(sent) >= beats
    assert len(seen) > len(sent)


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


def test_the_next_message_is_taken_and_prepared_while_a_batch_is_about_to_end(queue: str) -> None:
    seen: list[str] = []
    prepared = threading.Event()

    def prepare(item: Mapping[str, Any]) -> None:
        seen.append(f"prepared {item['batch_id']}")
        prepared.set()

    def run(item: Mapping[str, Any], time_left: Callable[[], float]) -> Manifest:
        seen.append(f"began {item['batch_id']}")
        if item["batch_id"] == "r0-w0-b0":
            assert prepared.wait(10)
            assert numbers(queue) == (0, 2)
        return finished(item, time_left)

    for number in range(2):
        send(queue, {"item": item_number(number, seconds=0.5)})
    assert Worker(settings(queue), run, prepare=prepare).run() == 2
    assert seen == ["began r0-w0-b0", "prepared r0-w0-b1", "began r0-w0-b1"]
    assert numbers(queue) == (0, 0)


def test_a_batch_that_is_far_from_its_end_leaves_the_next_message_to_others(queue: str) -> None:
    """Ten jobs in a minute by its plan: after one of them in half a second, more than a second is to come."""

    def run(item: Mapping[str, Any], time_left: Callable[[], float]) -> Manifest:
        time_left()
        time.sleep(0.5)
        time_left()
        time.sleep(0.5)
        assert numbers(queue) == (1, 1)
        worker.stop()
        return finished(item, time_left)

    worker = Worker(settings(queue), run)
    for number in range(2):
        send(queue, {"item": item_number(number, seconds=60.0, jobs=10)})
    assert worker.run() == 1
    assert numbers(queue) == (1, 0)


def test_without_looking_ahead_one_message_at_a_time_is_taken(queue: str) -> None:
    def run(item: Mapping[str, Any], time_left: Callable[[], float]) -> Manifest:
        time.sleep(0.3)
        assert numbers(queue)[1] == 1
        return finished(item, time_left)

    for number in range(2):
        send(queue, {"item": item_number(number)})
    assert Worker(settings(queue, ahead_seconds=0.0), run).run() == 2


def test_a_message_taken_ahead_is_given_back_when_the_batch_in_hand_goes_on_and_on(
    queue: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("riskmill.aws.worker.HOLD_SECONDS", 0.3)

    def run(item: Mapping[str, Any], time_left: Callable[[], float]) -> Manifest:
        if not first.is_set():
            first.set()
            eventually(lambda: numbers(queue) == (0, 2))
            eventually(lambda: numbers(queue) == (1, 1))
            time.sleep(1.0)
            assert numbers(queue) == (1, 1)  # and it is not taken again
        return finished(item, time_left)

    first = threading.Event()
    for number in range(2):
        send(queue, {"item": item_number(number, seconds=0.1, jobs=1)})
    assert Worker(settings(queue), run).run() == 2


def test_a_worker_that_is_asked_to_stop_gives_both_messages_back_the_one_ahead_at_once(queue: str) -> None:
    may_end = threading.Event()
    when: dict[str, float] = {}

    def stuck(item: Mapping[str, Any], time_left: Callable[[], float]) -> Manifest:
        eventually(lambda: numbers(queue) == (0, 2))
        began = time.monotonic()
        worker.stop()
        eventually(lambda: numbers(queue) == (1, 1))
        when["ahead"] = time.monotonic() - began
        may_end.wait(20)
        return finished(item, time_left)

    worker = Worker(settings(queue, grace_seconds=3.0), stuck)
    for number in range(2):
        send(queue, {"item": item_number(number, seconds=0.1)})
    assert worker.run() == 0
    assert when["ahead"] < 2.0  # long before the grace of the batch in hand is over
    assert numbers(queue) == (2, 0)
    may_end.set()


def test_a_message_taken_ahead_is_kept_alive_but_not_claimed_and_begun_without_another_heartbeat(
    queue: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    beats: list[str] = []
    kept: list[str] = []
    monkeypatch.setattr(
        clients.client("stepfunctions"), "send_task_heartbeat", lambda **given: beats.append(given["taskToken"])
    )
    monkeypatch.setattr(clients.client("stepfunctions"), "send_task_success", lambda **_: None)

    def run(item: Mapping[str, Any], time_left: Callable[[], float]) -> Manifest:
        if item["batch_id"] == "r0-w0-b0":
            eventually(lambda: beats.count("second") >= 4)
            assert "r0-w0-b1" not in kept
            beats.append("end of the first")
        else:
            beats.append("begin of the second")
        return finished(item, time_left)

    for number, token in enumerate(("first", "second")):
        send(queue, {"token": token, "item": item_number(number, seconds=0.1)})
    worker = Worker(settings(queue, heartbeat_seconds=0.4), run, keep=lambda item: kept.append(item["batch_id"]))
    assert worker.run() == 2
    assert kept
    between = beats[beats.index("end of the first") + 1 : beats.index("begin of the second")]
    assert between == []


def test_a_message_ahead_whose_token_is_dead_is_dropped_and_the_batch_in_hand_is_not_touched(queue: str) -> None:
    began: list[str] = []

    def run(item: Mapping[str, Any], time_left: Callable[[], float]) -> Manifest:
        began.append(item["batch_id"])
        eventually(lambda: numbers(queue) == (0, 1))
        return finished(item, time_left)

    send(queue, {"item": item_number(0, seconds=0.1)})
    send(queue, {"token": "of an execution that has ended", "item": item_number(1)})
    assert Worker(settings(queue), run).run() == 1
    assert began == ["r0-w0-b0"]
    assert numbers(queue) == (0, 0)


def test_the_batch_in_hand_delivered_twice_is_not_taken_ahead(queue: str, monkeypatch: pytest.MonkeyPatch) -> None:
    began: list[str] = []
    monkeypatch.setattr(clients.client("stepfunctions"), "send_task_heartbeat", lambda **_: None)
    monkeypatch.setattr(clients.client("stepfunctions"), "send_task_success", lambda **_: None)

    def run(item: Mapping[str, Any], time_left: Callable[[], float]) -> Manifest:
        began.append(item["batch_id"])
        time.sleep(0.5)
        return finished(item, time_left)

    for _ in range(2):
        send(queue, {"token": "the same", "item": item_number(0, seconds=0.1)})
    assert Worker(settings(queue), run).run() == 1
    assert began == ["r0-w0-b0"]
    assert numbers(queue) == (0, 1)  # invisible for a while; then its token is dead


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    """What was written to the log, as CloudWatch would read it."""
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_a_worker_counts_what_it_does_in_lines_that_become_metrics(
    queue: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(item: Mapping[str, Any], time_left: Callable[[], float]) -> Manifest:
        block = bytearray(b"x" * 60_000_000) if item["batch_id"] == "r0-w0-b0" else b""
        time.sleep(0.1)
        manifest = Manifest(item["run_id"], item["batch_id"], done={"a" * 32: 0.1}, failed={"b" * 32: "no"})
        manifest.rates = {"price_deal@1": [1, len(block), 0.1]}
        return manifest

    for number in range(2):
        send(queue, {"item": item_number(number, seconds=0.1)})
    assert Worker(settings(queue), run).run() == 2
    emf = [line for line in lines(capsys) if "_aws" in line]
    metadata = [line["_aws"]["CloudWatchMetrics"][0] for line in emf]
    assert {entry["Namespace"] for entry in metadata} == {"riskmill"}
    assert [sorted(entry["Dimensions"][0]) for entry in metadata] == [["service"], ["model", "service"]] * 2 + [
        ["service"]
    ]
    batches, by_model, last = emf[0:4:2], emf[1:4:2], emf[4]
    for line in batches:
        assert (line["batches"], line["jobs_done"], line["jobs_failed"], line["jobs_left"]) == ([1], [1], [1], [0])
        assert line["worker_seconds"][0] >= 0.1
    assert [line.get("messages_ahead") for line in batches] == [[1], None]
    assert [line["model"] for line in by_model] == ["price_deal"] * 2
    assert by_model[0]["batch_peak_mb"] == batches[0]["batch_peak_mb"]
    assert by_model[0]["batch_peak_mb"][0] > by_model[1]["batch_peak_mb"][0] + 50  # measured anew for each batch
    assert last["worker_idle_seconds"][0] >= 0.5
    units = {m["Name"]: m["Unit"] for entry in metadata for m in entry["Metrics"]}
    assert units["worker_seconds"] == units["worker_idle_seconds"] == units["batch_seconds"] == "Seconds"
    assert (units["batch_peak_mb"], units["jobs_done"]) == ("Megabytes", "Count")


def test_missed_heartbeats_and_messages_given_back_are_counted(
    queue: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(item: Mapping[str, Any], time_left: Callable[[], float]) -> Manifest:
        monkeypatch.setattr(clients.client("sqs"), "change_message_visibility", refused)
        eventually(lambda: len(refusals) >= 2)
        monkeypatch.undo()
        raise TransientError("S3 is busy")  # without a token the message goes back

    refusals: list[str] = []

    def refused(**given: Any) -> None:
        refusals.append(given["ReceiptHandle"])
        error = {"Error": {"Code": "ThrottlingException", "Message": "slow down"}}
        raise clients.ClientError(error, "ChangeMessageVisibility")  # type: ignore[arg-type]

    send(queue, {"item": ITEM})
    Worker(settings(queue, idle_seconds=0.1), run).run()
    counted = next(line for line in lines(capsys) if "batches" in line)
    assert counted["heartbeats_missed"][0] >= 2
    assert counted["messages_given_back"] == [1]
    assert (counted["batches"], counted["batches_failed"]) == ([0], [0])


def test_log_lines_of_a_batch_carry_its_run_and_its_id_and_those_after_it_do_not(
    queue: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(logger.registered_handler, "stream", sys.stdout)  # it holds the one that it was made with
    send(queue, {"item": ITEM})
    Worker(settings(queue), finished).run()
    said = {line["message"]: line for line in lines(capsys) if "message" in line}
    assert (said["batch ended"]["run_id"], said["batch ended"]["batch_id"]) == ("run-1", "r0-w0-b0")
    assert said["batch ended"]["done"] == 2
    assert "batch_id" not in said["no work: ending"]


def test_settings_come_from_the_environment_and_a_bad_one_is_named() -> None:
    assert WorkerSettings.from_environment({"QUEUE_URL": "q", "IDLE_MINUTES": "2"}) == WorkerSettings("q", 120.0)
    assert WorkerSettings.from_environment({"QUEUE_URL": "q"}).idle_seconds == 900.0
    assert WorkerSettings.from_environment({"QUEUE_URL": "q", "IDLE_MINUTES": "inf"}).idle_seconds == float("inf")
    assert WorkerSettings.from_environment({"QUEUE_URL": "q", "AHEAD_SECONDS": "0"}).ahead_seconds == 0.0
    with pytest.raises(RiskmillError, match="QUEUE_URL"):
        WorkerSettings.from_environment({})
    with pytest.raises(RiskmillError, match=r"IDLE_MINUTES.*'soon'"):
        WorkerSettings.from_environment({"QUEUE_URL": "q", "IDLE_MINUTES": "soon"})
