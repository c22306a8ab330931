"""The cache against the truth: what a rebuild and the sweep change, and why a key is where it is. Pure.

S3's listing of a partition is the truth. A rebuild and the slow sweep are the same act: make a partition of the cache
equal to it.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from riskmill.expiry import expires_at, expiries


@dataclass(frozen=True, slots=True)
class Change:
    """What makes a partition of the cache equal to S3."""

    #: outputs that are there and not in the cache, with the time at which they leave it again
    add: dict[bytes, int]
    #: keys in the cache whose outputs are gone or have expired
    remove: list[bytes]


def reconcile(
    members: Collection[bytes], written: Mapping[bytes, float], *, now: float, retention_seconds: float
) -> Change:
    """Return what makes a partition right.

    `members` must have been read before the listing (`written`, key -> S3's time of writing) began: then a key in the
    cache that the listing lacks was not there at that moment. An output made while this runs is in neither or is added
    by its own event; at worst it is removed and computed again.
    """
    alive = expiries(written, now, retention_seconds)
    known = set(members)
    return Change(
        {key: at for key, at in alive.items() if key not in known}, [key for key in known if key not in alive]
    )


@dataclass(frozen=True, slots=True)
class KeyFacts:
    """What is known of one key. Times are Unix seconds."""

    key: str
    indexed: bool
    #: when S3 wrote the output; None if it is not there
    written: float | None
    #: what the expiry table (or the field's own expiry) says; None if nothing
    expiry: int | None


def explain(facts: KeyFacts, *, now: float, retention_seconds: float, lifecycle_seconds: float) -> str:
    """Return one sentence: what the cache says of this key, whether it is right, and what happens next."""
    if facts.written is None:
        if facts.indexed:
            return (
                "indexed, but S3 has no such output: the next job that reads it raises MissingInput, which un-indexes "
                "it and computes it again; the sweep would find it, too"
            )
        return "not there: never made, or deleted by S3's lifecycle; a run that needs it computes it"
    leaves = expires_at(facts.written, retention_seconds)
    deleted = _time(facts.written + lifecycle_seconds)
    if leaves <= now:
        where = "still indexed, TTL deletes come late" if facts.indexed else "not indexed any more"
        return f"expired at {_time(leaves)} ({where}); S3 keeps the output until {deleted}"
    if not facts.indexed:
        return (
            "in S3, but not indexed: its event is under way or waits in a dead-letter queue, or the cache was lost; a "
            "run that needs it finds it there when it writes it, `riskmill cache rebuild` indexes it at once"
        )
    if facts.expiry is None:
        return (
            "indexed without an expiry: the record of it is under way or was lost; "
            f"the sweep evicts it after {_time(leaves)}"
        )
    return f"indexed until {_time(facts.expiry)}; S3 keeps the output until {deleted}"


def _time(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S} UTC"
