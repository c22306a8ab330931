"""How keys are spread: 256 stable partitions by the first byte of the key, in S3 and in the cache alike."""

from collections.abc import Iterable, Sequence

from riskmill.jobs import KEY_BYTES

PARTITIONS = 256


def partition_prefix(partition: int) -> str:
    """Return what the names of a partition's outputs in S3 begin with."""
    return f"parts/{partition:02x}/"


def outputs_set(partition: int) -> str:
    """Return the name of the cache's set of a partition. The braces are Redis Cluster's hash tag: one slot."""
    return f"outputs:{{{partition:02x}}}"


def outputs_hash(partition: int) -> str:
    """Return the name of the cache's hash of a partition, where keys expire by themselves (CacheExpiry: hashfield)."""
    return f"expiring:{{{partition:02x}}}"


def by_partition(keys: Iterable[bytes]) -> dict[int, list[bytes]]:
    """Return 16-byte keys grouped by partition. Raises ValueError for a key of another length."""
    partitions: dict[int, list[bytes]] = {}
    for key in keys:
        if len(key) != KEY_BYTES:
            raise ValueError(f"a key has {KEY_BYTES} bytes, not {len(key)}: {key!r}")
        partitions.setdefault(key[0], []).append(key)
    return partitions


def imbalance(counts: Sequence[int]) -> float:
    """Return how much fuller the fullest partition is than the mean (1 = even)."""
    return max(counts) * len(counts) / sum(counts) if sum(counts) else 1.0
