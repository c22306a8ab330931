"""The expiry flow's stores against partial answers: Kinesis and DynamoDB say 200 and take a part."""

import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from mock_cloud import Answer, json_error, scripted
from riskmill.aws import clients
from riskmill.aws.cache_admin import NOBODY_WAITS, CacheAdmin
from riskmill.aws.expiries import TRIES, ExpiryStream, ExpiryTable
from riskmill.dead_letters import read_dead_letter
from riskmill.errors import RiskmillError, TransientError
from riskmill.expiry import KEYS_A_RECORD, REJECT_BYTES, expiry_records, read_expiry_records, read_removals, reject

type Endpoint = Callable[[str], None]

KEY, OTHER = bytes(range(16)), bytes(range(16, 32))


@pytest.fixture(autouse=True)
def _no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("riskmill.aws.expiries.time", SimpleNamespace(sleep=lambda _: None))


@pytest.fixture
def at(endpoint: Endpoint) -> Endpoint:
    """Point new clients at a URL."""

    def use(url: str) -> None:
        clients.client.cache_clear()
        endpoint(url)

    return use


def json_answer(content: object) -> Answer:
    return Answer(body=json.dumps(content), headers={"Content-Type": "application/x-amz-json-1.1"})


def test_what_is_sent_arrives_whole(aws: SimpleNamespace) -> None:
    """A thousand and one keys make three records, each below the 25 KB that Kinesis bills as one unit."""
    times = {number.to_bytes(16, "big"): 1_800_000_000 + number for number in range(2 * KEYS_A_RECORD + 1)}
    records = expiry_records(times)
    assert [len(keys) for _, keys in records] == [KEYS_A_RECORD, KEYS_A_RECORD, 1]
    assert max(len(data) for data, _ in records) < 25 * 1024
    assert ExpiryStream(aws.stream).put_some(times) == set()
    kinesis = boto3.client("kinesis")
    shard = kinesis.list_shards(StreamName=aws.stream)["Shards"][0]["ShardId"]
    iterator = kinesis.get_shard_iterator(StreamName=aws.stream, ShardId=shard, ShardIteratorType="TRIM_HORIZON")
    got = kinesis.get_records(ShardIterator=iterator["ShardIterator"])["Records"]
    found = [json.loads(record["Data"])["expiries"] for record in got]
    assert {bytes.fromhex(key): at for part in found for key, at in part} == times


def test_a_record_that_kinesis_throttles_is_sent_again_and_only_that(at: Endpoint) -> None:
    times = {number.to_bytes(16, "big"): 5 for number in range(2 * KEYS_A_RECORD)}
    ok, no = {"SequenceNumber": "1", "ShardId": "s"}, {"ErrorCode": "ProvisionedThroughputExceededException"}
    partly = json_answer({"FailedRecordCount": 1, "Records": [ok, no]})
    with scripted(partly, json_answer({"FailedRecordCount": 0, "Records": [ok]})) as server:
        at(server.url)
        assert ExpiryStream("s").put_some(times) == set()
        assert [len(json.loads(body)["Records"]) for _, _, body in server.requests] == [2, 1]


def test_keys_that_kinesis_never_takes_are_returned(at: Endpoint) -> None:
    no = {"ErrorCode": "InternalFailure"}
    with scripted(json_answer({"FailedRecordCount": 1, "Records": [no]})) as server:
        at(server.url)
        assert ExpiryStream("s").put_some({KEY: 5}) == {KEY}
        assert len(server.requests) == TRIES
    with scripted(json_error(400, "ProvisionedThroughputExceededException")) as server:
        at(server.url)
        assert ExpiryStream("s").put_some({KEY: 5}) == {KEY}


def test_items_that_dynamodb_does_not_process_are_written_again(at: Endpoint) -> None:
    item = {"PutRequest": {"Item": {"key": {"B": "EBESExQVFhcYGRobHB0eHw=="}, "expires_at": {"N": "5"}}}}
    partly, done = json_answer({"UnprocessedItems": {"t": [item]}}), json_answer({"UnprocessedItems": {}})
    with scripted(partly, done) as server:
        at(server.url)
        assert ExpiryTable("t").put_some({KEY: 5, OTHER: 5}) == set()
        assert [len(json.loads(body)["RequestItems"]["t"]) for _, _, body in server.requests] == [2, 1]
    with scripted(partly) as server:
        at(server.url)
        assert ExpiryTable("t").put_some({KEY: 5, OTHER: 5}) == {OTHER}


def test_a_table_that_is_throttled_keeps_what_it_took_and_returns_the_rest(at: Endpoint) -> None:
    times = {number.to_bytes(16, "big"): 5 for number in range(60)}
    with scripted(json_answer({"UnprocessedItems": {}}), json_error(400, "ThrottlingException")) as server:
        at(server.url)
        assert ExpiryTable("t").put_some(times) == set(list(times)[25:])


def test_the_table_says_what_it_holds_now(aws: SimpleNamespace) -> None:
    table = ExpiryTable(aws.expiries)
    times = {number.to_bytes(16, "big"): number for number in range(150)}
    assert table.put_some(times) == set()
    assert table.put_some({KEY: 7}) == set()
    assert table.current([*times, KEY, OTHER, KEY]) == times | {KEY: 7}
    assert table.current([]) == {}


def test_a_read_that_is_never_complete_is_transient(at: Endpoint) -> None:
    left = {"t": {"Keys": [{"key": {"B": "EBESExQVFhcYGRobHB0eHw=="}}]}}
    with scripted(json_answer({"Responses": {"t": []}, "UnprocessedKeys": left})) as server:
        at(server.url)
        with pytest.raises(TransientError, match="did not answer for 1 keys"):
            ExpiryTable("t").current([OTHER])


@pytest.mark.parametrize(
    "data",
    ["!", "bm90IEpTT04=", "W10=", "e30=", "eyJleHBpcmllcyI6IFtbIjAwIiwgNV1dfQ==", "eyJleHBpcmllcyI6IFtbNSwgNV1dfQ=="],
)
def test_a_record_that_cannot_be_read_fails_alone(data: str) -> None:
    good = "eyJleHBpcmllcyI6IFtbIjAwMDEwMjAzMDQwNTA2MDcwODA5MGEwYjBjMGQwZTBmIiwgNV1dfQ=="
    batch = read_expiry_records({"kinesis": {"sequenceNumber": n, "data": d}} for n, d in (("1", data), ("2", good)))
    assert batch.content == {"2": {KEY: 5}}
    assert set(batch.unreadable) == {"1"}
    assert batch.failures(["2"]) == {"batchItemFailures": [{"itemIdentifier": "2"}]}
    assert batch.failures() == {"batchItemFailures": []}


def test_a_delete_of_another_table_fails_alone() -> None:
    batch = read_removals([{"dynamodb": {"SequenceNumber": "1", "Keys": {"pk": {"S": "x"}}}}])
    assert (batch.content, set(batch.unreadable)) == ({}, {"1"})


# ---- dead letters


def test_every_dead_letter_says_what_went_wrong_and_what_replaying_it_takes() -> None:
    assert read_dead_letter("as sent").way == "send"
    rejected = read_dead_letter(reject("record_expiry", {"kinesis": {"data": "x"}}, "ValueError: no"))
    assert (rejected.way, rejected.function, rejected.error) == ("invoke", "record_expiry", "ValueError: no")
    assert rejected.event == {"Records": [{"kinesis": {"data": "x"}}]}
    queued = read_dead_letter(reject("index_outputs", {"body": "b", "messageId": "1"}, "E"))
    assert (queued.way, queued.body) == ("send", "b")
    huge = read_dead_letter(reject("record_expiry", {"data": "x" * REJECT_BYTES}, "E"))
    assert huge.way == "none"
    info = {"batchSize": 3, "startSequenceNumber": "7", "streamArn": "arn"}
    given_up = read_dead_letter(
        json.dumps({"requestContext": {"condition": "MaxRecordAgeExceeded"}, "KinesisBatchInfo": info})
    )
    assert (given_up.way, given_up.error) == ("none", "given up: MaxRecordAgeExceeded")


def test_a_batchs_dead_letter_goes_to_the_queue_of_its_size_unless_nobody_waits_for_it_any_more(
    aws: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    queues = {name: aws.sqs.create_queue(QueueName=name)["QueueUrl"] for name in ("work", "large", "work-dead")}
    admin = CacheAdmin(
        {"IndexQueueUrl": aws.queue_url, "WorkQueueUrl": queues["work"], "LargeQueueUrl": queues["large"],
         "WorkDeadLettersUrl": queues["work-dead"]}
    )  # fmt: skip
    beats: list[str] = []

    def heartbeat(**given: Any) -> None:
        beats.append(given["taskToken"])
        if given["taskToken"] == "dead":
            raise ClientError({"Error": {"Code": "TaskTimedOut", "Message": "Task Timed Out"}}, "SendTaskHeartbeat")

    monkeypatch.setattr(clients.client("stepfunctions"), "send_task_heartbeat", heartbeat)
    item = {"run_id": "run-1", "batch_id": "r0-w0-b0", "jobs": 2, "size": "standard"}
    for body in (
        {"token": "alive", "item": item},
        {"token": "alive", "item": item | {"batch_id": "r0-w0-b1", "size": "large"}},
        {"token": "dead", "item": item | {"batch_id": "r0-w0-b2"}},
        {"item": "no batch"},
    ):
        aws.sqs.send_message(QueueUrl=queues["work-dead"], MessageBody=json.dumps(body))
    listed = admin.dead_letters("work", limit=100)
    excerpts = {held.letter.excerpt: held.letter.error for held in listed}
    assert excerpts["batch r0-w0-b0 of run run-1: 2 job(s)"] == "no worker ended it"
    assert beats == []  # looking is no sign of life
    ended = {what: len(ids) for what, ids in admin.replay("work", [], limit=100).items()}
    assert ended == {"replayed": 2, NOBODY_WAITS: 1, "cannot be replayed": 1}
    for name, batch in (("work", "r0-w0-b0"), ("large", "r0-w0-b1")):
        (message,) = aws.sqs.receive_message(QueueUrl=queues[name], MaxNumberOfMessages=10)["Messages"]
        assert json.loads(message["Body"])["item"]["batch_id"] == batch
    assert "Messages" not in aws.sqs.receive_message(QueueUrl=aws.queue_url)
    assert len(admin.dead_letters("work", limit=100)) == 2  # what is not replayed stays


def test_dead_letters_are_listed_replayed_and_dropped_one_by_one(aws: SimpleNamespace) -> None:
    index_dead = aws.sqs.create_queue(QueueName="index-dead")["QueueUrl"]
    admin = CacheAdmin(
        {
            "IndexQueueUrl": aws.queue_url,
            "IndexDeadLettersUrl": index_dead,
            "CacheDeadLettersUrl": aws.dead_letters_url,
        }
    )
    for number in range(12):
        aws.sqs.send_message(QueueUrl=index_dead, MessageBody=f"body {number}")
    given_up = json.dumps({"KinesisBatchInfo": {}, "requestContext": {}})
    aws.sqs.send_message(QueueUrl=aws.dead_letters_url, MessageBody=given_up)
    listed = admin.dead_letters(None, limit=100)
    assert len(listed) == 13
    assert len(admin.dead_letters("index", limit=100)) == 12  # looking hides nothing
    one = next(held for held in listed if held.letter.excerpt == "body 7")
    assert admin.replay("index", [one.message_id], limit=100) == {"replayed": [one.message_id]}
    (message,) = aws.sqs.receive_message(QueueUrl=aws.queue_url)["Messages"]
    assert message["Body"] == "body 7"
    assert {what: len(ids) for what, ids in admin.replay(None, [], limit=100).items()} == {
        "replayed": 11,
        "cannot be replayed": 1,
    }
    assert [held.queue for held in admin.dead_letters(None, limit=100)] == ["cache"]
    assert {what: len(ids) for what, ids in admin.drop("cache", [], limit=100).items()} == {"dropped": 1}
    assert admin.dead_letters(None, limit=100) == []
    with pytest.raises(RiskmillError, match="no dead-letter queue 'x': there are cache, index"):
        admin.dead_letters("x", limit=1)
