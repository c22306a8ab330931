"""The steps of the cache: index, record, evict, rebuild and look. Each reads, asks a pure function, and does its word.

A step may run twice (queues and streams deliver at least once): what it adds or removes is a set, what it writes is a
put of the same item.
"""

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from riskmill.aws.clients import redis_of
from riskmill.aws.expiries import ExpiryStream, ExpiryTable
from riskmill.aws.index import OutputIndex, index_of
from riskmill.aws.objects import Bucket
from riskmill.aws.queues import send_all
from riskmill.cache import KeyFacts, explain, reconcile
from riskmill.errors import RiskmillError, TransientError
from riskmill.expiry import expiries, read_expiry_records, read_removals, reject, to_evict
from riskmill.index_events import read_index_messages
from riskmill.jobs import object_name, ref_of
from riskmill.settings import Settings

type Failures = dict[str, list[dict[str, str]]]


class CacheSteps:
    """The steps with this deployment's resources. One instance lives as long as a function's environment."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.bucket = Bucket(settings.bucket)
        self.stream = ExpiryStream(settings.expiry_stream)
        self.table = ExpiryTable(settings.expiry_table)

    @property
    def index(self) -> OutputIndex:
        """The cache of this deployment."""
        return index_of(redis_of(self.settings), self.settings.cache_expiry)

    # ---- the flow

    def index_outputs(self, records: Sequence[Mapping[str, Any]]) -> Failures:
        """Add the outputs that these queue messages name to the cache; answer with the messages to try again.

        The expiry goes first: a key that is in the cache has an expiry on its way.
        """
        batch = read_index_messages(records)
        self._reject("index_outputs", records, lambda record: record["messageId"], batch.unreadable)
        fresh = expiries(batch.outputs, time.time(), self.settings.retention_seconds)
        lost = self._send_expiries(fresh)
        fresh = {key: at for key, at in fresh.items() if key not in lost}
        return batch.failures(lost | self.index.add_some(fresh) if fresh else lost)

    def record_expiries(self, records: Sequence[Mapping[str, Any]]) -> Failures:
        """Write the expiries that these stream records carry to the table; answer with where to try again from."""
        batch = read_expiry_records(records)
        self._reject("record_expiry", records, lambda record: record["kinesis"]["sequenceNumber"], batch.unreadable)
        times: dict[bytes, int] = {}
        for part in batch.content.values():
            times |= {key: max(at, times.get(key, 0)) for key, at in part.items()}
        lost = self.table.put_some(times)
        return batch.failures(number for number, part in batch.content.items() if not lost.isdisjoint(part))

    def evict_expired(self, records: Sequence[Mapping[str, Any]]) -> Failures:
        """Remove the keys whose items DynamoDB deleted, unless they were made again. Raises TransientError."""
        batch = read_removals(records)
        self._reject("evict_expired", records, lambda record: record["dynamodb"]["SequenceNumber"], batch.unreadable)
        keys = list(batch.content.values())
        self.index.remove(to_evict(keys, self.table.current(keys), time.time()))
        return batch.failures()

    def _send_expiries(self, times: Mapping[bytes, int]) -> set[bytes]:
        """Send expiries on their way, where keys need one, and return the keys whose could not be sent."""
        return set() if self.index.expires else self.stream.put_some(times)

    def _reject(
        self, function: str, records: Iterable[Mapping[str, Any]], number: Any, unreadable: Mapping[str, str]
    ) -> None:
        """Put records that no retry helps aside, with their errors, so that they block nothing."""
        if unreadable:
            rejects = [
                reject(function, record, unreadable[str(number(record))])
                for record in records
                if str(number(record)) in unreadable
            ]
            send_all(self.settings.dead_letters_url, rejects)

    # ---- rebuild and sweep

    def rebuild(self, partition: int) -> dict[str, int]:
        """Make one partition of the cache equal to what S3 holds, while runs go on. Raises TransientError.

        The cache is read before the listing: see riskmill.cache.reconcile.
        """
        members = self.index.members(partition)
        written = self.bucket.outputs(partition)
        change = reconcile(members, written, now=time.time(), retention_seconds=self.settings.retention_seconds)
        lost = self._send_expiries(change.add)
        if lost:
            raise TransientError(f"{len(lost)} expiries of partition {partition:02x} could not be sent")
        self.index.add(change.add)
        self.index.remove(change.remove)
        return {
            "partition": partition,
            "objects": len(written),
            "indexed_before": len(members),
            "added": len(change.add),
            "removed": len(change.remove),
        }

    # ---- looking at it

    def inspect(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Answer {action: status | why | evict | clear, keys?}. Raises RiskmillError for anything else."""
        action = request.get("action")
        if action == "status":
            return self._status()
        keys = [_checked(key) for key in request.get("keys", ())]
        if action == "why":
            return {"keys": [self._why(key) for key in keys]}
        if action == "evict":
            self.index.remove(keys)
            return {"evicted": len(keys)}
        if action == "clear":
            evicted = self.index.count()
            self.index.clear()
            return {"evicted": evicted}
        raise RiskmillError(f"no such action: {action!r}")

    def _status(self) -> dict[str, Any]:
        counts, memory = self.index.counts(), self.index.memory()
        return {
            "mode": self.settings.cache_expiry,
            "keys": sum(counts),
            "fullest": max(counts),
            "emptiest": min(counts),
            "bytes": memory,
            "bytes_per_key": round(memory / sum(counts), 1) if sum(counts) else None,
            "retention_days": self.settings.retention_days,
            "lifecycle_days": self.settings.lifecycle_days,
        }

    def _why(self, key: bytes) -> dict[str, Any]:
        indexed, expiry = self.index.has(key)
        if not self.index.expires:
            expiry = self.table.current([key]).get(key)
        facts = KeyFacts(key.hex(), indexed, self.bucket.written(object_name(f"p:{key.hex()}")), expiry)
        why = explain(
            facts,
            now=time.time(),
            retention_seconds=self.settings.retention_seconds,
            lifecycle_seconds=self.settings.lifecycle_seconds,
        )
        return {"key": facts.key, "indexed": indexed, "written": facts.written, "expires_at": expiry, "why": why}


def _checked(key: str) -> bytes:
    if ref_of(f"parts/{key[:2]}/{key}") is None:
        raise RiskmillError(f"{key!r} is not a key: 32 hex digits, as `riskmill status` prints them")
    return bytes.fromhex(key)
