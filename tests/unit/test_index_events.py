import json
from typing import Any

import pytest

from riskmill.index_events import outputs_message, read_index_messages
from riskmill.jobs import object_name

KEY = bytes(range(16))
OTHER = bytes(range(16, 32))


def name_of(key: bytes) -> str:
    return object_name(f"p:{key.hex()}")


def s3_record(name: str) -> dict[str, Any]:
    """Return one record as S3 sends it:
    https://docs.aws.amazon.com/AmazonS3/latest/userguide/notification-content-structure.html
    """
    return {
        "eventVersion": "2.1",
        "eventSource": "aws:s3",
        "awsRegion": "eu-west-1",
        "eventTime": "2026-01-05T02:11:09.123Z",
        "eventName": "ObjectCreated:Put",
        "userIdentity": {"principalId": "AWS:AROAEXAMPLE:run_batch"},
        "requestParameters": {"sourceIPAddress": "198.51.100.7"},
        "responseElements": {"x-amz-request-id": "C3D13FE58DE4C810", "x-amz-id-2": "FMyUVURIY8"},
        "s3": {
            "s3SchemaVersion": "1.0",
            "configurationId": "outputs",
            "bucket": {"name": "data", "ownerIdentity": {"principalId": "A3NL"}, "arn": "arn:aws:s3:::data"},
            "object": {"key": name, "size": 1024, "eTag": "d41d8cd98f00b204", "sequencer": "0055AED6DCD90281E5"},
        },
    }


#: the eventTime of s3_record
WRITTEN = 1767579069.123


def names_message(names: list[str]) -> str:
    return outputs_message(dict.fromkeys(names, WRITTEN))


def message(body: object, number: int = 1) -> dict[str, str]:
    return {"messageId": f"m{number}", "body": body if isinstance(body, str) else json.dumps(body)}


TEST_EVENT = {
    "Service": "Amazon S3",
    "Event": "s3:TestEvent",
    "Time": "2026-01-05T02:00:00.000Z",
    "Bucket": "data",
    "RequestId": "5582815E1AEA5ADF",
    "HostId": "8cLeGAmw098X5cv4Zkwcmo8vvZa3eH3eKxsPzbB9wrR",
}


def test_an_event_of_s3_gives_the_keys_of_its_outputs() -> None:
    batch = read_index_messages([message({"Records": [s3_record(name_of(KEY)), s3_record(name_of(OTHER))]})])
    assert batch.written == {"m1": {KEY: WRITTEN, OTHER: WRITTEN}}
    assert batch.failures() == {"batchItemFailures": []}


def test_names_in_events_are_url_encoded() -> None:
    encoded = name_of(KEY).replace("/", "%2F")
    batch = read_index_messages([message({"Records": [s3_record(encoded), s3_record("parts/a+b%C3%BC")]})])
    assert batch.written == {"m1": {KEY: WRITTEN}}


def test_the_test_event_of_s3_means_nothing() -> None:
    batch = read_index_messages([message(TEST_EVENT)])
    assert batch.written == {"m1": {}}
    assert batch.unreadable == {}


def test_names_put_back_by_a_worker_are_read() -> None:
    batch = read_index_messages([message(names_message([name_of(KEY), name_of(OTHER)]))])
    assert batch.written == {"m1": {KEY: WRITTEN, OTHER: WRITTEN}}


@pytest.mark.parametrize(
    "name",
    [
        "runs/r/manifests/r0/b.json",
        "inputs/00/" + KEY.hex(),
        "parts/zz/" + "zz" * 16,
        "parts/00/00" + " " * 30,
        "parts/",
    ],
)
def test_objects_that_are_no_outputs_have_no_key_and_are_no_failure(name: str) -> None:
    """One stray object must not send the good names of its message to the dead letters."""
    batch = read_index_messages([message(names_message([name, name_of(KEY)]))])
    assert batch.written == {"m1": {KEY: WRITTEN}}
    assert batch.unreadable == {}


@pytest.mark.parametrize(
    "body",
    [
        "",
        "not json",
        "null",
        "[]",
        '"text"',
        "{}",
        '{"Records": null}',
        '{"Records": [{}]}',
        '{"Records": ["text"]}',
        '{"Records": [{"s3": {"object": {"key": 5}}}]}',
        '{"Records": [{"s3": {"object": {"key": "parts/x"}}}]}',
        '{"Records": [{"eventTime": "yesterday", "s3": {"object": {"key": "parts/x"}}}]}',
        '{"outputs": 5}',
        '{"outputs": {"parts/x": "noon"}}',
        "[" * 100_000,
    ],
)
def test_garbage_fails_alone(body: str) -> None:
    good = message({"Records": [s3_record(name_of(KEY))]}, 2)
    batch = read_index_messages([message(body, 1), good])
    assert batch.written == {"m2": {KEY: WRITTEN}}
    assert set(batch.unreadable) == {"m1"}
    assert batch.failures() == {"batchItemFailures": []}  # it is put aside with its error, not tried again


def test_messages_with_a_key_that_could_not_be_added_are_tried_again_and_no_others() -> None:
    batch = read_index_messages(
        [
            message(names_message([name_of(KEY)]), 1),
            message(names_message([name_of(OTHER), name_of(KEY)]), 2),
            message(names_message([name_of(OTHER)]), 3),
            message(TEST_EVENT, 4),
            message("garbage", 5),
        ]
    )
    failed = {item["itemIdentifier"] for item in batch.failures([KEY])["batchItemFailures"]}
    assert failed == {"m1", "m2"}


def test_of_a_key_that_comes_twice_the_later_time_counts() -> None:
    name = name_of(KEY)
    batch = read_index_messages([message(outputs_message({name: at}), number) for number, at in enumerate((5, 9, 7))])
    assert batch.outputs == {KEY: 9.0}
