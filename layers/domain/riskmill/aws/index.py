"""The cache: which outputs exist, as 256 sets of keys in Redis or Valkey, or as 256 hashes whose fields expire.

S3 is the truth, this is an index of it: losing it costs time, never a result.
"""

from collections.abc import Iterable, Iterator, Mapping
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from redis.exceptions import ClusterDownError, OutOfMemoryError, ReadOnlyError, TryAgainError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from riskmill.errors import TransientError
from riskmill.partitions import PARTITIONS, by_partition, outputs_hash, outputs_set

#: Keys in one command: a larger one holds the server up for others.
CHUNK = 5_000

#: Away, loading its data set (a ConnectionError), failing over, full: each of them passes, or is seen to by somebody.
PASSING = (
    RedisConnectionError,
    RedisTimeoutError,
    ReadOnlyError,
    ClusterDownError,
    TryAgainError,
    OutOfMemoryError,
)


class OutputIndex:
    """Looks keys up, adds and removes them. Keys are 16 bytes. Raises TransientError when the server is away.

    A set's members cannot expire: when a key leaves is the expiry flow's business (riskmill.expiry).
    """

    #: whether keys leave by themselves at the time given to `add`
    expires = False

    _name = staticmethod(outputs_set)

    def __init__(self, redis: Any) -> None:
        self._redis = redis

    def look_up(self, keys: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """Return which of the keys (uint8 [n, 16]) are in the cache (bool [n]); one pipeline asks for all.

        The plan has to be sent anyway, so the server is asked for each key of it as it comes, and answers with a bit
        each. Writing the plan to sets and intersecting takes three times as long (benchmarks/cache.py): every key is
        stored once more there, and comes back whole.
        """
        order = np.argsort(keys[:, 0], kind="stable")
        first_bytes = keys[order, 0]
        flat = keys[order].tobytes()
        bounds = np.searchsorted(first_bytes, np.arange(PARTITIONS + 1)).tolist()
        pipeline = self._redis.pipeline(transaction=False)
        for partition, (begin, end) in enumerate(pairwise(bounds)):
            for at in range(begin, end, CHUNK):
                chunk = [flat[16 * n : 16 * n + 16] for n in range(at, min(at + CHUNK, end))]
                self._ask(pipeline, self._name(partition), chunk)
        answers = self._execute(pipeline) if len(keys) else []
        found = np.zeros(len(keys), dtype=np.bool_)
        found[order] = [there for answer in answers for there in self._there(answer)]
        return found

    @staticmethod
    def _ask(pipeline: Any, name: str, keys: list[bytes]) -> None:
        pipeline.smismember(name, keys)

    @staticmethod
    def _there(answer: list[Any]) -> list[Any]:
        return answer  # ones and zeros

    def add(self, keys: Iterable[bytes]) -> None:
        """Add keys (or key -> expires_at, as a mapping); all or an error."""
        self._each("sadd", keys)

    def remove(self, keys: Iterable[bytes]) -> None:
        """Remove keys; all or an error."""
        self._each("srem", keys)

    def add_some(self, keys: Iterable[bytes]) -> set[bytes]:
        """Add keys and return those that could not be added (a partition's command failed, others did not)."""
        pipeline = self._redis.pipeline(transaction=False)
        partitions = by_partition(keys)
        for partition, members in partitions.items():
            pipeline.sadd(outputs_set(partition), *members)
        results = self._execute(pipeline, raise_on_error=False)
        failed: set[bytes] = set()
        for members, result in zip(partitions.values(), results, strict=True):
            if isinstance(result, Exception):
                failed.update(members)
        return failed

    def has(self, key: bytes) -> tuple[bool, int | None]:
        """Tell whether a key is in the cache, and when it leaves it by itself (None: never)."""
        pipeline = self._redis.pipeline(transaction=False)
        pipeline.sismember(self._name(key[0]), key)
        return bool(self._execute(pipeline)[0]), None

    def members(self, partition: int) -> set[bytes]:
        """Return all keys of a partition that are there from the beginning to the end of the call."""
        return set(self._scan(partition))

    def counts(self) -> list[int]:
        """Return how many keys each partition holds."""
        return self._of_each("scard")

    def count(self) -> int:
        """Return how many keys the cache holds."""
        return sum(self.counts())

    def memory(self) -> int:
        """Return the bytes that the server uses for the keys, by its own account (a sample of each partition)."""
        pipeline = self._redis.pipeline(transaction=False)
        for partition in range(PARTITIONS):
            pipeline.memory_usage(self._name(partition), samples=100)
        return sum(int(size or 0) for size in self._execute(pipeline))

    def clear(self) -> None:
        """Forget every key. The next runs compute, or find, everything again, unless a rebuild comes first."""
        pipeline = self._redis.pipeline(transaction=False)
        for partition in range(PARTITIONS):
            pipeline.unlink(self._name(partition))
        self._execute(pipeline)

    def _scan(self, partition: int) -> Iterator[bytes]:
        try:
            for member in self._redis.sscan_iter(self._name(partition), count=CHUNK):
                yield bytes(member)
        except PASSING as error:
            raise TransientError(f"cache: {error}") from error

    def _of_each(self, command: str) -> list[int]:
        pipeline = self._redis.pipeline(transaction=False)
        for partition in range(PARTITIONS):
            getattr(pipeline, command)(self._name(partition))
        return [int(size) for size in self._execute(pipeline)]

    def _each(self, command: str, keys: Iterable[bytes]) -> None:
        pipeline = self._redis.pipeline(transaction=False)
        commands = 0
        for partition, members in by_partition(keys).items():
            for at in range(0, len(members), CHUNK):
                getattr(pipeline, command)(self._name(partition), *members[at : at + CHUNK])
                commands += 1
        if commands:
            self._execute(pipeline)

    @staticmethod
    def _execute(pipeline: Any, *, raise_on_error: bool = True) -> list[Any]:
        try:
            return list(pipeline.execute(raise_on_error=raise_on_error))
        except PASSING as error:
            raise TransientError(f"cache: {error}") from error


class ExpiringIndex(OutputIndex):
    """The same in hashes whose fields expire by themselves: Valkey 9 or Redis 8 (HSETEX).

    https://valkey.io/commands/hsetex
    """

    expires = True

    _name = staticmethod(outputs_hash)

    @staticmethod
    def _ask(pipeline: Any, name: str, keys: list[bytes]) -> None:
        pipeline.hmget(name, keys)

    @staticmethod
    def _there(answer: list[Any]) -> list[Any]:
        return [value is not None for value in answer]  # the value is empty

    def add(self, keys: Iterable[bytes]) -> None:
        """Add key -> expires_at; all or an error. A time that has passed adds nothing."""
        pipeline, commands = self._setting(keys)
        if commands:
            self._execute(pipeline)

    def add_some(self, keys: Iterable[bytes]) -> set[bytes]:
        """Add key -> expires_at and return those that could not be added."""
        pipeline, commands = self._setting(keys)
        results = self._execute(pipeline, raise_on_error=False) if commands else []
        return {
            key
            for members, result in zip(commands, results, strict=True)
            if isinstance(result, Exception)
            for key in members
        }

    def _setting(self, keys: Iterable[bytes]) -> tuple[Any, list[list[bytes]]]:
        if not isinstance(keys, Mapping):
            raise TypeError("a key that expires by itself needs the time at which it does")
        by_time: dict[int, list[bytes]] = {}
        for key, at in keys.items():
            by_time.setdefault(at, []).append(key)
        pipeline = self._redis.pipeline(transaction=False)
        commands: list[list[bytes]] = []
        for expires_at, together in by_time.items():
            for partition, members in by_partition(together).items():
                for at in range(0, len(members), CHUNK):
                    chunk = members[at : at + CHUNK]
                    fields = [part for key in chunk for part in (key, b"")]
                    name = self._name(partition)
                    pipeline.execute_command("HSETEX", name, "EXAT", expires_at, "FIELDS", len(chunk), *fields)
                    commands.append(chunk)
        return pipeline, commands

    def remove(self, keys: Iterable[bytes]) -> None:
        """Remove keys; all or an error."""
        self._each("hdel", keys)

    def has(self, key: bytes) -> tuple[bool, int | None]:
        """Tell whether a key is in the cache, and when it leaves it by itself."""
        pipeline = self._redis.pipeline(transaction=False)
        pipeline.hexists(self._name(key[0]), key)
        pipeline.execute_command("HEXPIRETIME", self._name(key[0]), "FIELDS", 1, key)
        there, times = self._execute(pipeline)
        at = times[0] if times else -2  # -1: never; -2: no such field
        return bool(there), int(at) if int(at) >= 0 else None

    def counts(self) -> list[int]:
        """Return how many keys each partition holds, those that have expired and are not reclaimed yet among them."""
        return self._of_each("hlen")

    def _scan(self, partition: int) -> Iterator[bytes]:
        try:
            for member, _ in self._redis.hscan_iter(self._name(partition), count=CHUNK):
                yield bytes(member)
        except PASSING as error:
            raise TransientError(f"cache: {error}") from error


def index_of(redis: Any, cache_expiry: str) -> OutputIndex:
    """Return the cache in the way in which this deployment keeps it."""
    return ExpiringIndex(redis) if cache_expiry == "hashfield" else OutputIndex(redis)
