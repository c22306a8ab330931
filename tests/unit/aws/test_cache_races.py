"""The cache under every interleaving: real handlers' steps and a real server, everything else a model that misbehaves.

docs/cache.md names each race; every rule below is one of them. What is checked:

- a run never ends with an output missing, whatever the cache says;
- without faults, what is indexed can be read, at any moment;
- after everything under way has arrived, and one sweep: indexed are exactly the outputs that are there and fresh;
- later, when all of them have expired, nothing is left.
"""

import base64
import time as clock
from collections.abc import Mapping
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from redis import Redis

from riskmill.aws import cache_steps, objects
from riskmill.aws.cache_steps import CacheSteps
from riskmill.aws.index import ExpiringIndex, OutputIndex
from riskmill.aws.objects import Outputs
from riskmill.errors import TransientError
from riskmill.expiry import expiry_records
from riskmill.index_events import outputs_message
from riskmill.jobs import object_name
from riskmill.partitions import outputs_hash
from riskmill.settings import Settings

#: Seconds of a "day" in the model: retention 10 days, lifecycle 17.
DAY = 100.0
SETTINGS = Settings(retention_days=10, lifecycle_days=17, day_seconds=DAY, dead_letters_url="dead")
RETENTION, LIFECYCLE = SETTINGS.retention_seconds, SETTINGS.lifecycle_seconds

#: Two of them share a partition.
KEYS = tuple(bytes([first, *[second] * 15]) for first, second in ((0xAB, 1), (0xAB, 2), (0xAC, 3), (0xFF, 4)))
PARTITIONS = sorted({key[0] for key in KEYS})

keys = st.sampled_from(KEYS)
which = st.integers(0, 10**6)
sometimes = st.integers(0, 3).map(lambda n: n == 0)


class Clock:
    """The model's time. The server's own stands still beside it: `offset` is what lies between the two."""

    def __init__(self) -> None:
        self.offset = 0.0
        self.start = clock.time()

    def time(self) -> float:
        return self.start + self.offset


class Bucket:
    """S3: strongly consistent, sends an event for every write."""

    def __init__(self, now: Clock, queue: list[str]) -> None:
        self.now, self.queue = now, queue
        self.objects: dict[str, float] = {}

    def written(self, name: str) -> float | None:
        return self.objects.get(name)

    def put_new(self, name: str, data: bytes) -> bool:
        if name in self.objects:
            return False
        self.put(name, data)
        return True

    def put(self, name: str, data: bytes) -> None:
        self.objects[name] = self.now.time()
        self.queue.append(outputs_message({name: self.now.time()}))

    def outputs(self, partition: int) -> dict[bytes, float]:
        every = {bytes.fromhex(name[-32:]): at for name, at in self.objects.items()}
        return {key: at for key, at in every.items() if key[0] == partition}


class Stream:
    """Kinesis: takes a record, or does not."""

    def __init__(self) -> None:
        self.records: list[bytes] = []
        self.refuses = False

    def put_some(self, times: Mapping[bytes, int]) -> set[bytes]:
        if self.refuses:
            return set(times)
        self.records.extend(data for data, _ in expiry_records(times))
        return set()


class Table:
    """DynamoDB: the last write wins; TTL deletes go to the stream whenever they like."""

    def __init__(self) -> None:
        self.items: dict[bytes, int] = {}

    def put_some(self, times: Mapping[bytes, int]) -> set[bytes]:
        self.items |= times
        return set()

    def current(self, wanted: Any) -> dict[bytes, int]:
        return {key: self.items[key] for key in wanted if key in self.items}


class Shifted(ExpiringIndex):
    """The hash index on a server whose clock stands where the model's was at the start."""

    def __init__(self, redis: Any, now: Clock) -> None:
        super().__init__(redis)
        self.now = now

    def _setting(self, keys: Any) -> Any:
        return super()._setting({key: max(1, round(at - self.now.offset)) for key, at in keys.items()})


class Races(RuleBasedStateMachine):
    """One cache, four outputs, and everything that can happen to them in any order."""

    redis: Redis
    hashfield = False

    def __init__(self) -> None:
        super().__init__()
        self.redis.flushall()
        self.now = Clock()
        self.queue: list[str] = []
        self.dead: list[str] = []
        self.removed: list[bytes] = []
        self.snapshot: list[tuple[bytes, int]] | None = None
        self.bucket, self.stream, self.table = Bucket(self.now, self.queue), Stream(), Table()
        self.steps = CacheSteps.__new__(CacheSteps)
        vars(self.steps).update(settings=SETTINGS, bucket=self.bucket, stream=self.stream, table=self.table)
        self.index = Shifted(self.redis, self.now) if self.hashfield else OutputIndex(self.redis)
        self.worker = Outputs(
            self.bucket,  # type: ignore[arg-type]
            memory_bytes=1,
            retention_seconds=RETENTION,
            requeue=lambda written: self.queue.append(outputs_message(written)),
        )
        self.patched = pytest.MonkeyPatch()
        self.patched.setattr(CacheSteps, "index", property(lambda _: self.index))
        time = SimpleNamespace(time=self.now.time)
        self.patched.setattr(cache_steps, "time", time)
        self.patched.setattr(objects, "time", time)
        self.drained = 0.0
        #: nothing happened yet that may leave a promise that is not kept
        self.sound = True

    def teardown(self) -> None:
        try:
            self.settled()
        finally:
            self.worker._pool.shutdown()
            self.patched.undo()

    # ---- what the model knows

    def readable(self, key: bytes) -> bool:
        return object_name(f"p:{key.hex()}") in self.bucket.objects

    def fresh(self) -> set[bytes]:
        return {
            key
            for partition in PARTITIONS
            for key, at in self.bucket.outputs(partition).items()
            if int(at + RETENTION) > self.now.time()
        }

    def indexed(self) -> set[bytes]:
        return {key for key in KEYS if self.index.has(key)[0]}

    # ---- runs and workers

    @rule(key=keys)
    def a_worker_makes_an_output(self, key: bytes) -> None:
        """Made for the first time, twice at once, again after its expiry, or again while it is evicted."""
        self.worker._write(object_name(f"p:{key.hex()}"), b"")

    @rule(key=keys)
    def settle_indexes_an_output_of_its_run(self, key: bytes) -> None:
        """Without waiting for the event; what the run found there (412) is left to its message."""
        if self.worker._write(object_name(f"p:{key.hex()}"), b""):
            self.index.add({key: int(self.now.time() + RETENTION)})

    @rule(key=keys)
    def a_run_needs_an_output(self, key: bytes) -> None:
        """Look it up; read it or raise MissingInput, un-index and compute; at its end it is there."""
        if key in self.indexed() and not self.readable(key):
            self.index.remove([key])
        if key not in self.indexed():
            self.worker._write(object_name(f"p:{key.hex()}"), b"")
            assert key in self.fresh()  # not left to be computed by every run again
        assert self.readable(key)

    # ---- events: late, twice, out of order, lost for a while

    @precondition(lambda self: self.queue)
    @rule(at=which, again=sometimes, kinesis_refuses=sometimes)
    def a_message_is_delivered(self, at: int, again: bool, kinesis_refuses: bool) -> None:
        message = self.queue[at % len(self.queue)]
        self.stream.refuses = kinesis_refuses
        answer = self.steps.index_outputs([{"messageId": "m", "body": message}])
        self.stream.refuses = False
        if not again and not answer["batchItemFailures"]:
            self.queue.remove(message)

    @precondition(lambda self: self.queue)
    @rule(at=which)
    def a_message_becomes_a_dead_letter(self, at: int) -> None:
        """What settle indexed has no expiry then, until the sweep or a replay."""
        self.dead.append(self.queue.pop(at % len(self.queue)))
        self.sound = False

    @precondition(lambda self: self.dead)
    @rule(at=which)
    def a_dead_letter_is_replayed_perhaps_much_later(self, at: int) -> None:
        self.queue.append(self.dead[at % len(self.dead)])

    @precondition(lambda self: self.stream.records)
    @rule(at=which, again=sometimes)
    def an_expiry_is_recorded(self, at: int, again: bool) -> None:
        number = at % len(self.stream.records)
        data = self.stream.records[number] if again else self.stream.records.pop(number)
        record = {"kinesis": {"sequenceNumber": "1", "data": base64.b64encode(data).decode()}}
        assert self.steps.record_expiries([record]) == {"batchItemFailures": []}

    @precondition(lambda self: self.stream.records)
    @rule(at=which)
    def an_expiry_is_lost(self, at: int) -> None:
        """Given up after half a day, and nobody replays it."""
        self.stream.records.pop(at % len(self.stream.records))
        self.sound = False

    @precondition(lambda self: self.table.items)
    @rule(key=keys)
    def ttl_deletes_an_item_whenever_it_likes(self, key: bytes) -> None:
        if self.table.items.get(key, self.now.time() + 1) <= self.now.time():
            del self.table.items[key]
            self.removed.append(key)

    @precondition(lambda self: self.removed)
    @rule(at=which, again=sometimes)
    def a_delete_is_delivered(self, at: int, again: bool) -> None:
        number = at % len(self.removed)
        key = self.removed[number] if again else self.removed.pop(number)
        self.steps.evict_expired([_delete(key)])

    @precondition(lambda self: self.removed)
    @rule(at=which)
    def a_delete_is_lost(self, at: int) -> None:
        """A stream keeps its records for 24 hours."""
        self.removed.pop(at % len(self.removed))
        self.sound = False

    # ---- time and S3

    @rule(days=st.sampled_from((0.1, 1, 3)))
    def time_passes(self, days: float) -> None:
        """Whatever is under way arrives within six days, less than the margin: so late is no queue and no TTL."""
        self.now.offset += days * DAY
        if self.hashfield:
            _age(self.redis, days * DAY)
        if self.now.offset - self.drained > 3 * DAY:
            self._drain()
        for name, at in list(self.bucket.objects.items()):
            if at + LIFECYCLE <= self.now.time():
                del self.bucket.objects[name]

    @rule()
    def nine_days_pass(self) -> None:
        for _ in range(3):
            self.time_passes(3)

    @rule(key=keys)
    def somebody_deletes_an_output(self, key: bytes) -> None:
        self.bucket.objects.pop(object_name(f"p:{key.hex()}"), None)
        self.sound = False

    # ---- the cache is lost, comes back old, is rebuilt

    @rule()
    def the_cache_is_flushed(self) -> None:
        self.redis.flushall()

    @rule()
    def a_snapshot_is_taken(self) -> None:
        self.snapshot = [(key, int(self.now.time() + RETENTION)) for key in self.indexed()]

    @precondition(lambda self: self.snapshot is not None)
    @rule()
    def an_old_snapshot_is_restored(self) -> None:
        self.redis.flushall()
        self.index.add(dict(self.snapshot or ()))
        self.sound = False

    @rule(partition=st.sampled_from(PARTITIONS))
    def a_partition_is_rebuilt(self, partition: int) -> None:
        self.steps.rebuild(partition)

    @rule(key=keys)
    def an_output_is_made_in_the_middle_of_a_rebuild(self, key: bytes) -> None:
        """Between the look at the cache and the listing, and between the listing and the change."""
        members = self.index.members
        self.patched.setattr(self.index, "members", lambda partition: _then(members(partition), self._make, key))
        listing = self.bucket.outputs
        self.patched.setattr(self.bucket, "outputs", lambda partition: _then(listing(partition), self._make, key))
        try:
            self.steps.rebuild(key[0])
        finally:
            self.index.members = members  # type: ignore[method-assign]
            self.bucket.outputs = listing  # type: ignore[method-assign]

    def _make(self, key: bytes) -> None:
        self.worker._write(object_name(f"p:{key.hex()}"), b"")
        if self.queue:
            self.steps.index_outputs([{"messageId": "m", "body": self.queue[-1]}])

    @rule()
    def a_rebuild_fails_half_way(self) -> None:
        self.stream.refuses = True
        with suppress(TransientError):
            self.steps.rebuild(KEYS[0][0])
        self.stream.refuses = False

    # ---- what must hold

    @invariant()
    def without_faults_what_is_indexed_can_be_read(self) -> None:
        if self.sound:
            assert all(self.readable(key) for key in self.indexed())

    def settled(self) -> None:
        """Everything under way arrives, in any order, and the sweep comes round."""
        self.queue.extend(self.dead)
        self._drain()
        for partition in PARTITIONS:
            self.steps.rebuild(partition)
        self._drain()
        assert self.indexed() == self.fresh()
        assert all(self.readable(key) for key in self.indexed())
        self.now.offset += LIFECYCLE + DAY
        if self.hashfield:
            _age(self.redis, LIFECYCLE + DAY)
        self.bucket.objects.clear()
        self.queue.extend(self.dead)  # replayed once more, after S3 deleted what they speak of
        self._drain()
        for partition in PARTITIONS:
            self.steps.rebuild(partition)
        assert self.indexed() == set()
        assert not self.table.items
        assert self.redis.dbsize() == 0 or self.hashfield

    def _drain(self) -> None:
        self.drained = self.now.offset
        while self.queue:
            self.steps.index_outputs([{"messageId": "m", "body": self.queue.pop()}])
        while self.stream.records:
            self.an_expiry_is_recorded(0, False)
        for key, at in list(self.table.items.items()):
            if at <= self.now.time():
                del self.table.items[key]
                self.removed.append(key)
        while self.removed:
            self.a_delete_is_delivered(0, False)


def _delete(key: bytes) -> dict[str, Any]:
    return {"dynamodb": {"SequenceNumber": "1", "Keys": {"key": {"B": base64.b64encode(key).decode()}}}}


def _then(value: Any, act: Any, key: bytes) -> Any:
    act(key)
    return value


def _age(redis: Redis, seconds: float) -> None:
    """Let the server's fields be that much older."""
    for partition in PARTITIONS:
        name = outputs_hash(partition)
        for field in redis.hkeys(name):
            (at,) = redis.execute_command("HEXPIRETIME", name, "FIELDS", 1, field)
            redis.execute_command("HEXPIREAT", name, max(1, round(at - seconds)), "FIELDS", 1, field)


def _run(machine: type[Races], port: int, hashfield: bool) -> None:
    with Redis(port=port) as redis:
        bound = type(machine.__name__, (machine,), {"redis": redis, "hashfield": hashfield})
        checks = list(HealthCheck)
        run_state_machine_as_test(
            bound,
            settings=settings(max_examples=100, stateful_step_count=50, deadline=None, suppress_health_check=checks),
        )


def test_no_interleaving_loses_an_output_or_leaves_a_promise_that_is_not_kept(valkey_port: int) -> None:
    _run(Races, valkey_port, hashfield=False)


def test_nor_does_any_when_keys_expire_by_themselves(valkey_9_port: int) -> None:
    _run(Races, valkey_9_port, hashfield=True)
