"""The cache's update on the embedded cloud: S3 -> IndexQueue -> index_outputs -> the cache's sets; the dead letters."""

import contextlib
import json
import secrets
import time
from collections.abc import Iterator

import pytest

from riskmill.jobs import object_name
from riskmill.partitions import outputs_set
from riskmill.rollup_graph import rollup_graph
from rollup_cloud import Rollups, fresh_seed, keys_of, tiny_portfolio, wait_until

pytestmark = [pytest.mark.cloud, pytest.mark.xdist_group("cloud")]


def s3_event(name: str) -> str:
    """An S3 notification as the queue carries it."""
    return json.dumps({"Records": [{"eventName": "ObjectCreated:Put", "s3": {"object": {"key": name}}}]})


def waiting(rollups: Rollups, queue: str) -> int:
    """How many messages a queue holds, visible or in flight."""
    counts = ("ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible")
    answer = rollups.sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=list(counts))["Attributes"]
    return sum(int(answer[name]) for name in counts)


@contextlib.contextmanager
def attributes(rollups: Rollups, queue: str, **changes: str) -> Iterator[None]:
    """A queue with other attributes for as long as this lasts."""
    before = rollups.sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=list(changes))["Attributes"]
    rollups.sqs.set_queue_attributes(QueueUrl=queue, Attributes=changes)
    try:
        yield
    finally:
        rollups.sqs.set_queue_attributes(QueueUrl=queue, Attributes=before)


def test_an_object_that_is_written_below_parts_is_in_the_cache_soon_after(rollups: Rollups) -> None:
    """Nothing but S3's own event says so; an object elsewhere in the bucket says nothing."""
    key = secrets.token_hex(16)
    rollups.bucket.put(object_name(f"i:{key}"), b"an input")
    rollups.bucket.put(object_name(f"p:{key}"), b"an output")
    try:
        wait_until(lambda: rollups.cached({key}) == {key}, "the output is indexed")
        queue = rollups.cloud.outputs["IndexQueueUrl"]
        wait_until(lambda: waiting(rollups, queue) == 0, "the queue is empty")
    finally:
        rollups.delete(f"p:{key}", f"i:{key}")


def test_outputs_that_left_the_cache_come_back_when_their_objects_are_written_again(rollups: Rollups) -> None:
    """As after a lost event: each object that is copied onto itself is indexed, and no other."""
    prepared = tiny_portfolio(seed=fresh_seed())
    assert rollups.roll_up(prepared).status == "SUCCEEDED"
    keys = keys_of(rollup_graph(prepared.portfolio))
    wait_until(
        lambda: waiting(rollups, rollups.cloud.outputs["IndexQueueUrl"]) == 0, "the run's own events are indexed"
    )
    for key in keys:
        rollups.redis.srem(outputs_set(int(key[:2], 16)), bytes.fromhex(key))
    assert rollups.cached(keys) == set()

    touched = set(sorted(keys)[::2])
    rollups.bucket.put_many({object_name(f"p:{key}"): data for key, data in rollups.outputs(touched).items()})
    wait_until(lambda: rollups.cached(keys) == touched, "the objects are indexed")


def test_an_event_that_comes_twice_adds_its_key_once(rollups: Rollups) -> None:
    """SQS delivers at least once; the cache holds sets."""
    key = secrets.token_hex(16)
    queue = rollups.cloud.outputs["IndexQueueUrl"]
    wait_until(lambda: waiting(rollups, queue) == 0, "the queue is empty")
    before = rollups.redis.scard(outputs_set(int(key[:2], 16)))
    for _ in range(3):
        rollups.sqs.send_message(QueueUrl=queue, MessageBody=s3_event(object_name(f"p:{key}")))
    wait_until(lambda: waiting(rollups, queue) == 0, "the events are consumed")
    assert rollups.redis.scard(outputs_set(int(key[:2], 16))) == before + 1
    assert rollups.cached({key}) == {key}
    rollups.redis.srem(outputs_set(int(key[:2], 16)), bytes.fromhex(key))


def test_an_event_that_meets_a_full_cache_is_delivered_again(rollups: Rollups) -> None:
    """The answer names the messages whose keys could not be added; they come back and are added later."""
    key = secrets.token_hex(16)
    queue = rollups.cloud.outputs["IndexQueueUrl"]
    with attributes(rollups, queue, VisibilityTimeout="1"):
        rollups.redis.config_set("maxmemory", 1)
        try:
            rollups.sqs.send_message(QueueUrl=queue, MessageBody=s3_event(object_name(f"p:{key}")))
            time.sleep(3.5)  # a window of two seconds, and then the first delivery
            assert waiting(rollups, queue) == 1
            assert rollups.cached({key}) == set()
        finally:
            rollups.redis.config_set("maxmemory", 0)
        wait_until(lambda: rollups.cached({key}) == {key}, "the event is delivered again")
        wait_until(lambda: waiting(rollups, queue) == 0, "the event is consumed")
    rollups.redis.srem(outputs_set(int(key[:2], 16)), bytes.fromhex(key))


def test_a_message_that_nobody_can_read_ends_in_the_dead_letters_and_takes_no_other_along(rollups: Rollups) -> None:
    """The batch's answer names just that message: it alone is received again, five times, and set aside as it came."""
    queue, dead = rollups.cloud.outputs["IndexQueueUrl"], rollups.cloud.outputs["IndexDeadLettersUrl"]
    good, bad = secrets.token_hex(16), f"not JSON {secrets.token_hex(4)}"
    with attributes(rollups, queue, VisibilityTimeout="0"):  # else five receives take half an hour
        entries = [{"Id": "bad", "MessageBody": bad}, {"Id": "good", "MessageBody": s3_event(object_name(f"p:{good}"))}]
        assert len(rollups.sqs.send_message_batch(QueueUrl=queue, Entries=entries)["Successful"]) == 2
        wait_until(lambda: rollups.cached({good}) == {good}, "the readable message is indexed")
        wait_until(lambda: waiting(rollups, dead) > 0, "the unreadable message is set aside", seconds=60)
    assert waiting(rollups, queue) == 0
    letters = rollups.sqs.receive_message(QueueUrl=dead, MaxNumberOfMessages=10)["Messages"]
    assert [letter["Body"] for letter in letters] == [bad]
    rollups.sqs.delete_message(QueueUrl=dead, ReceiptHandle=letters[0]["ReceiptHandle"])
    rollups.redis.srem(outputs_set(int(good[:2], 16)), bytes.fromhex(good))
