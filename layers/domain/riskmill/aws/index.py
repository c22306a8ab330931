"""The cache: which outputs exist, as 256 sets of keys in Redis or Valkey.

S3 is the truth, this is an index of it: losing it costs time, never a result.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from redis.exceptions import ClusterDownError, OutOfMemoryError, ReadOnlyError, TryAgainError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from riskmill.errors import TransientError
from riskmill.partitions import by_partition, outputs_set, plan_set

#: A run's plan is deleted after the look-up; this takes it away should the planner die in between.
PLAN_SECONDS = 3600

#: Members in one SADD: a larger command holds the server up for others.
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
    """Looks keys up, adds and removes them. Keys are 16 bytes. Raises TransientError when the server is away."""

    def __init__(self, redis: Any) -> None:
        self._redis = redis

    def look_up(self, keys: NDArray[np.uint8], run_id: str) -> NDArray[np.bool_]:
        """Return which of the keys (uint8 [n, 16]) are in the cache (bool [n]).

        The plan is written to sets of its own and intersected with the outputs' sets, partition by partition, in one
        pipeline: four commands a partition, whatever the number of keys.
        """
        flat = keys.tobytes()
        numbers = {flat[at : at + 16]: at // 16 for at in range(0, len(flat), 16)}
        pipeline = self._redis.pipeline(transaction=False)
        answers: list[int] = []
        commands = 0
        for partition, members in by_partition(numbers).items():
            plan = plan_set(partition, run_id)
            for at in range(0, len(members), CHUNK):
                pipeline.sadd(plan, *members[at : at + CHUNK])
                commands += 1
            pipeline.expire(plan, PLAN_SECONDS)
            pipeline.sinter(plan, outputs_set(partition))
            pipeline.unlink(plan)
            answers.append(commands + 1)
            commands += 3
        results = self._execute(pipeline)
        found = np.zeros(len(keys), dtype=np.bool_)
        for position in answers:
            for member in results[position]:
                found[numbers[bytes(member)]] = True
        return found

    def add(self, keys: Iterable[bytes]) -> None:
        """Add keys; all or an error."""
        self._each("sadd", keys)

    def remove(self, keys: Iterable[bytes]) -> None:
        """Remove keys; all or an error."""
        self._each("srem", keys)

    def add_some(self, keys: Sequence[bytes]) -> set[bytes]:
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

    def count(self) -> int:
        """Return how many keys the cache holds."""
        pipeline = self._redis.pipeline(transaction=False)
        for partition in range(256):
            pipeline.scard(outputs_set(partition))
        return sum(int(size) for size in self._execute(pipeline))

    def _each(self, command: str, keys: Iterable[bytes]) -> None:
        pipeline = self._redis.pipeline(transaction=False)
        commands = 0
        for partition, members in by_partition(keys).items():
            for at in range(0, len(members), CHUNK):
                getattr(pipeline, command)(outputs_set(partition), *members[at : at + CHUNK])
                commands += 1
        if commands:
            self._execute(pipeline)

    @staticmethod
    def _execute(pipeline: Any, *, raise_on_error: bool = True) -> list[Any]:
        try:
            return list(pipeline.execute(raise_on_error=raise_on_error))
        except PASSING as error:
            raise TransientError(f"cache: {error}") from error
