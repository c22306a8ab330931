"""When an output leaves the cache, and what the records of the expiry flow say. Pure.

An output is written to S3 at some moment `written` (S3's clock). Three times follow from it and from nothing else:

| time | what happens |
|---|---|
| `written` + 0.9 x retention | a worker that makes the job again writes the object anew, and does not leave it |
| `written` + retention = `expires_at` | the key leaves the cache (by DynamoDB's TTL: minutes to days late) |
| `written` + retention + MARGIN_DAYS | S3's lifecycle deletes the object |

So whatever the cache promises can be read for as long as a key leaves it less than MARGIN_DAYS late. docs/cache.md goes
through every race.
"""

import base64
import binascii
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from riskmill.jobs import KEY_BYTES

SECONDS_A_DAY = 86_400

#: Days that S3 keeps an output after it has left the cache: longer than a TTL delete is late ("within a few days":
#: https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/TTL.html) plus the longest run, half a day.
MARGIN_DAYS = 7

#: An output found there with less than this share of its retention left is written again: made once more, it counts
#: as new.
WORN_SHARE = 0.1

#: Keys in one Kinesis record: about 24 KB, just below the 25 KB that Kinesis bills as one unit.
#: https://aws.amazon.com/kinesis/data-streams/pricing/
KEYS_A_RECORD = 500

#: Bytes of a rejected record that are kept; SQS takes 256 KiB at the least.
#: https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/quotas-messages.html
REJECT_BYTES = 200_000


def lifecycle_days(retention_days: int) -> int:
    """Return the days after which S3 deletes an output. The template's Mapping is proven to say the same."""
    return retention_days + MARGIN_DAYS


def expires_at(written: float, retention_seconds: float) -> int:
    """Return the second (Unix time) at which an output written then leaves the cache."""
    return int(written + retention_seconds)


def is_worn(age_seconds: float, retention_seconds: float) -> bool:
    """Tell whether an output of this age is better written anew than relied upon."""
    return age_seconds > (1 - WORN_SHARE) * retention_seconds


def expiries(written: Mapping[bytes, float], now: float, retention_seconds: float) -> dict[bytes, int]:
    """Return key -> expires_at of outputs that have not expired yet.

    This is what keeps a replayed dead letter from indexing an object that S3 may have deleted since.
    """
    times = {key: expires_at(at, retention_seconds) for key, at in written.items()}
    return {key: at for key, at in times.items() if at > now}


# ---- the records of the flow


@dataclass(frozen=True, slots=True)
class StreamBatch[T]:
    """A batch of stream records, read. Both by sequence number, in the order of the shard."""

    content: dict[str, T]
    #: why a record could not be read
    unreadable: dict[str, str]

    def failures(self, failed: Iterable[str] = ()) -> dict[str, list[dict[str, str]]]:
        """Return the partial batch answer: the first record that failed. Lambda tries again from there on.

        https://docs.aws.amazon.com/lambda/latest/dg/services-kinesis-batchfailurereporting.html
        """
        lost = set(failed)
        first = next((number for number in self.content if number in lost), None)
        return {"batchItemFailures": [] if first is None else [{"itemIdentifier": first}]}


def expiry_records(times: Mapping[bytes, int]) -> list[tuple[bytes, list[bytes]]]:
    """Return records for the expiry stream, each with the keys that it carries."""
    keys = list(times)
    groups = [keys[at : at + KEYS_A_RECORD] for at in range(0, len(keys), KEYS_A_RECORD)]
    return [
        (json.dumps({"expiries": [[key.hex(), times[key]] for key in group]}, separators=(",", ":")).encode(), group)
        for group in groups
    ]


def read_expiry_records(records: Iterable[Mapping[str, Any]]) -> StreamBatch[dict[bytes, int]]:
    """Read Kinesis records, as Lambda gets them, into key -> expires_at."""
    content: dict[str, dict[bytes, int]] = {}
    unreadable: dict[str, str] = {}
    for record in records:
        number = str(record["kinesis"]["sequenceNumber"])
        try:
            data = json.loads(base64.b64decode(record["kinesis"]["data"], validate=True))
            content[number] = {_key(bytes.fromhex(key)): _seconds(at) for key, at in data["expiries"]}
        except (ValueError, KeyError, TypeError, binascii.Error, RecursionError) as error:
            unreadable[number] = f"{type(error).__name__}: {error}"
    return StreamBatch(content, unreadable)


def read_removals(records: Iterable[Mapping[str, Any]]) -> StreamBatch[bytes]:
    """Read the expiry table's stream records of deleted items into keys."""
    content: dict[str, bytes] = {}
    unreadable: dict[str, str] = {}
    for record in records:
        number = str(record["dynamodb"]["SequenceNumber"])
        try:
            content[number] = _key(base64.b64decode(record["dynamodb"]["Keys"]["key"]["B"], validate=True))
        except (ValueError, KeyError, TypeError, binascii.Error) as error:
            unreadable[number] = f"{type(error).__name__}: {error}"
    return StreamBatch(content, unreadable)


def to_evict(keys: Sequence[bytes], current: Mapping[bytes, int], now: float) -> list[bytes]:
    """Return which of these deleted keys leave the cache.

    `current` is what the expiry table says now: an output made again in the meantime has an item that lives.
    """
    return [key for key in keys if current.get(key, 0) <= now]


def reject(function: str, record: Mapping[str, Any], error: str) -> str:
    """Return the dead letter for a record that no retry helps: the error beside the record, to look at and replay."""
    text = json.dumps(record)
    if len(text) > REJECT_BYTES:
        return json.dumps({"function": function, "error": error, "record": None, "excerpt": text[:1_000]})
    return json.dumps({"function": function, "error": error, "record": record})


def _key(key: bytes) -> bytes:
    if len(key) != KEY_BYTES:
        raise ValueError(f"a key has {KEY_BYTES} bytes, not {len(key)}")
    return key


def _seconds(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f"not a time in seconds: {value!r}")
    return value
