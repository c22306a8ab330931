"""The cache's update on the embedded cloud: S3 -> IndexQueue -> index_outputs -> the cache's sets; the dead letters."""

import contextlib
import json
import secrets
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from typer.testing import CliRunner

from riskmill.jobs import object_name
from riskmill.partitions import outputs_set
from riskmill.rollup_graph import rollup_graph
from riskmill_cli.main import app
from rollup_cloud import Rollups, fresh_seed, keys_of, tiny_portfolio, wait_until

pytestmark = [pytest.mark.cloud, pytest.mark.xdist_group("cloud")]


def s3_event(name: str) -> str:
    """An S3 notification as the queue carries it."""
    now = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.000Z}"
    event = {"eventName": "ObjectCreated:Put", "eventTime": now, "s3": {"object": {"key": name}}}
    return json.dumps({"Records": [event]})


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


def test_a_message_that_nobody_can_read_is_set_aside_with_its_error_and_takes_no_other_along(rollups: Rollups) -> None:
    """No retry helps it, so none is made; `riskmill dlq` shows it, replays it (in vain) and drops it."""
    queue, dead = rollups.cloud.outputs["IndexQueueUrl"], rollups.cloud.outputs["CacheDeadLettersUrl"]
    good, bad = secrets.token_hex(16), f"not JSON {secrets.token_hex(4)}"
    entries = [{"Id": "bad", "MessageBody": bad}, {"Id": "good", "MessageBody": s3_event(object_name(f"p:{good}"))}]
    assert len(rollups.sqs.send_message_batch(QueueUrl=queue, Entries=entries)["Successful"]) == 2
    wait_until(lambda: rollups.cached({good}) == {good}, "the readable message is indexed")
    wait_until(lambda: waiting(rollups, dead) > 0, "the unreadable message is set aside")
    assert waiting(rollups, queue) == 0
    (letter,) = riskmill("dlq", "list", "--queue", "cache")
    assert letter["error"].startswith("JSONDecodeError")
    assert (letter["function"], letter["excerpt"], letter["replay"]) == ("index_outputs", bad, "send")
    assert riskmill("dlq", "replay", letter["id"]) == {"replayed": [letter["id"]]}
    wait_until(lambda: waiting(rollups, dead) > 0, "it is set aside again")
    assert riskmill("dlq", "drop", "--all", "--queue", "cache").keys() == {"dropped"}
    assert waiting(rollups, dead) == 0
    assert riskmill("dlq", "list") == []
    rollups.redis.srem(outputs_set(int(good[:2], 16)), bytes.fromhex(good))


def test_a_dead_letter_is_replayed_and_indexed(rollups: Rollups) -> None:
    key, dead = secrets.token_hex(16), rollups.cloud.outputs["IndexDeadLettersUrl"]
    rollups.sqs.send_message(QueueUrl=dead, MessageBody=s3_event(object_name(f"p:{key}")))
    (letter,) = riskmill("dlq", "list", "--queue", "index")
    assert letter["error"] == "failed in every try"
    assert riskmill("dlq", "replay") == {"replayed": [letter["id"]]}
    wait_until(lambda: rollups.cached({key}) == {key}, "it is indexed")
    rollups.redis.srem(outputs_set(int(key[:2], 16)), bytes.fromhex(key))


def riskmill(*arguments: str) -> Any:
    """What the command prints with --json."""
    result = CliRunner().invoke(app, [*arguments, "--cloud", "aws", "--json"])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)
