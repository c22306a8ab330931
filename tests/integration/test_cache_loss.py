"""Losing the cache costs time, not a run: flushed, away or rebuilt while runs go on; and the commands for it."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from typer.testing import CliRunner

from riskmill.jobs import object_name
from riskmill.partitions import outputs_set
from riskmill.rollup_graph import rollup_graph
from riskmill_cli.main import app
from rollup_cloud import SMALL_BATCHES, Rollups, fresh_seed, keys_of, run_directly, tiny_portfolio, wait_until

pytestmark = [pytest.mark.cloud, pytest.mark.xdist_group("cloud")]


def riskmill(*arguments: str) -> Any:
    """What the command prints with --json."""
    result = CliRunner().invoke(app, [*arguments, "--cloud", "aws", "--json"])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def waiting(rollups: Rollups) -> int:
    """Messages on the index queue, visible or in flight."""
    return int(riskmill("cache", "status")["waiting"]["index"])


@contextmanager
def away(rollups: Rollups) -> Iterator[None]:
    """The cache answers nobody and forgets everything. (This test's own connection keeps it reachable for the end.)

    Events that meet it meanwhile come again after two seconds instead of six minutes, and are all indexed at the end.
    """
    redis, queue = rollups.redis, rollups.cloud.outputs["IndexQueueUrl"]
    port = redis.config_get("port")["port"]
    before = rollups.sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["VisibilityTimeout"])["Attributes"]
    rollups.sqs.set_queue_attributes(QueueUrl=queue, Attributes={"VisibilityTimeout": "2"})
    with redis.client() as own:
        own.config_set("port", 0)
        try:
            own.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            own.flushall()
            yield
        finally:
            own.config_set("port", port)
            redis.connection_pool.disconnect()
            wait_until(lambda: waiting(rollups) == 0, "the events are indexed, or given up", seconds=90)
            rollups.sqs.set_queue_attributes(QueueUrl=queue, Attributes=before)
    riskmill("dlq", "replay", "--queue", "index")
    wait_until(lambda: waiting(rollups) == 0, "what was given up is indexed")


def test_a_run_whose_cache_goes_away_and_loses_everything_ends_with_the_same_bytes(rollups: Rollups) -> None:
    prepared = tiny_portfolio(seed=fresh_seed())
    run_id = rollups.start(rollups.upload(prepared), **SMALL_BATCHES)
    rollups.wait_for_batch(run_id)
    with away(rollups):
        ended = rollups.finish(run_id)
    assert ended.status == "SUCCEEDED"
    direct = run_directly(prepared)
    assert rollups.outputs(set(direct.outputs)) == direct.outputs
    assert rollups.cached(set(direct.outputs)) == set(direct.outputs)  # by events that came again, or were replayed


def test_a_run_that_starts_while_the_cache_is_away_asks_s3_and_computes_nothing_twice(rollups: Rollups) -> None:
    prepared = tiny_portfolio(seed=fresh_seed())
    assert rollups.roll_up(prepared).status == "SUCCEEDED"
    with away(rollups):
        ended = rollups.roll_up(prepared)
    assert ended.status == "SUCCEEDED"
    assert ended.run.get("computed", 0) == 0
    assert ended.run["cached"] == len(keys_of(rollup_graph(prepared.portfolio)))


def test_a_lost_cache_is_rebuilt_while_a_run_goes_on(rollups: Rollups) -> None:
    """The rebuild brings back what S3 holds, with its expiry, and takes away what it does not."""
    before, during = tiny_portfolio(seed=fresh_seed()), tiny_portfolio(seed=fresh_seed())
    assert rollups.roll_up(before).status == "SUCCEEDED"
    keys = keys_of(rollup_graph(before.portfolio))
    assert riskmill("cache", "evict", "--all")["evicted"] >= len(keys)
    ghost = bytes(range(16))
    rollups.redis.sadd(outputs_set(0), ghost)
    run_id = rollups.start(rollups.upload(during), **SMALL_BATCHES)
    rollups.wait_for_batch(run_id)
    done = riskmill("cache", "rebuild", "--concurrency", "4")
    assert done["partitions"] == 256
    assert done["added"] >= len(keys)
    assert done["removed"] >= 1
    assert rollups.finish(run_id).status == "SUCCEEDED"
    assert rollups.cached(keys) == keys
    assert not rollups.redis.sismember(outputs_set(0), ghost)
    again = rollups.roll_up(before).run
    assert (again["cached"], again.get("computed", 0)) == (len(keys), 0)
    table = rollups.cloud.outputs["ExpiryTableName"]
    items = [{"key": {"B": bytes.fromhex(key)}} for key in sorted(keys)[:10]]

    def recorded() -> int:
        answer = rollups.cloud.client("dynamodb").batch_get_item(RequestItems={table: {"Keys": items}})
        return len(answer["Responses"][table])

    wait_until(lambda: recorded() == len(items), "the rebuilt keys have expiries")


def test_the_command_line_says_why_a_key_is_where_it_is(rollups: Rollups) -> None:
    prepared = tiny_portfolio(seed=fresh_seed())
    assert rollups.roll_up(prepared).status == "SUCCEEDED"
    key, other = sorted(keys_of(rollup_graph(prepared.portfolio)))[:2]
    status = riskmill("cache", "status")
    assert status["mode"] == "dynamodb"
    assert status["keys"] >= 2
    assert status["lifecycle_days"] == status["retention_days"] + 7
    riskmill("cache", "evict", key)
    assert rollups.cached({key, other}) == {other}
    (facts,) = riskmill("cache", "why", key)
    assert facts["why"].startswith("in S3, but not indexed")
    rollups.cloud.client("s3").delete_object(Bucket=rollups.bucket.name, Key=object_name(f"p:{other}"))
    (facts,) = riskmill("cache", "why", other)
    assert facts["why"].startswith("indexed, but S3 has no such output")
    result = CliRunner().invoke(app, ["cache", "why", "no-key", "--cloud", "aws"])
    assert result.exit_code == 1
    assert "is not a key" in result.stderr
