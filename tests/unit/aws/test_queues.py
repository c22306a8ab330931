import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from mock_cloud import Answer, Script, json_error, scripted
from riskmill.aws.queues import TRIES, send_all
from riskmill.errors import AccessRefused, TransientError

type Endpoint = Callable[[str], None]
QUEUE_URL = "https://sqs.eu-west-1.amazonaws.com/123456789012/index"


@pytest.fixture(autouse=True)
def no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("riskmill.aws.queues.time.sleep", lambda _: None)


def answer(*, taken: list[int], refused: list[int]) -> Answer:
    """Return SQS's answer to a batch: status 200 even when some messages were not taken."""
    body: dict[str, Any] = {
        "Successful": [{"Id": str(n), "MessageId": f"m{n}", "MD5OfMessageBody": ""} for n in taken],
        "Failed": [
            {"Id": str(n), "Code": "InternalError", "SenderFault": False, "Message": "try again"} for n in refused
        ],
    }
    return Answer(200, json.dumps(body), {"Content-Type": "application/x-amz-json-1.0"})


def sent(server: Script) -> list[list[str]]:
    """Return the bodies of each request's messages."""
    return [[entry["MessageBody"] for entry in json.loads(body)["Entries"]] for _, _, body in server.requests]


def received(aws: SimpleNamespace) -> list[str]:
    bodies: list[str] = []
    while messages := aws.sqs.receive_message(QueueUrl=aws.queue_url, MaxNumberOfMessages=10).get("Messages"):
        bodies += [message["Body"] for message in messages]
    return bodies


def test_any_number_of_messages_is_sent_ten_at_a_time(aws: SimpleNamespace) -> None:
    send_all(aws.queue_url, [f"message {n}" for n in range(23)])
    assert sorted(received(aws)) == sorted(f"message {n}" for n in range(23))


def test_nothing_to_send_sends_nothing(endpoint: Endpoint) -> None:
    with scripted(Answer(500)) as server:
        endpoint(server.url)
        send_all(QUEUE_URL, [])
        assert server.requests == []


def test_only_the_messages_that_sqs_did_not_take_are_sent_again(
    endpoint: Endpoint,
) -> None:
    first = answer(taken=[0, 2], refused=[1, 3])
    with scripted(first, answer(taken=[1], refused=[0]), answer(taken=[0], refused=[])) as server:
        endpoint(server.url)
        send_all(QUEUE_URL, ["a", "b", "c", "d"])
        assert sent(server) == [["a", "b", "c", "d"], ["b", "d"], ["b"]]


def test_messages_that_are_never_taken_are_a_passing_fault_with_their_number(endpoint: Endpoint) -> None:
    with scripted(answer(taken=[], refused=[0, 1])) as server:
        endpoint(server.url)
        with pytest.raises(TransientError, match=f"did not take 2 of 2 messages in {TRIES} tries"):
            send_all(QUEUE_URL, ["a", "b"])
        assert len(server.requests) == TRIES


@pytest.mark.parametrize(
    ("status", "code", "error"),
    [
        (403, "AccessDeniedException", AccessRefused),
        (400, "RequestThrottled", TransientError),
        (400, "ThrottlingException", TransientError),
        (503, "ServiceUnavailable", TransientError),
    ],
)
def test_errors_of_the_whole_request_are_translated(
    endpoint: Endpoint, status: int, code: str, error: type[Exception]
) -> None:
    with scripted(json_error(status, code)) as server:
        endpoint(server.url)
        with pytest.raises(error, match="SendMessageBatch"):
            send_all(QUEUE_URL, ["a"])
