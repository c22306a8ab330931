"""The expiry flow's stores: the stream that keys take to the table, and the table whose TTL makes them leave the cache.

Kinesis and DynamoDB answer 200 even when they took only a part: the rest is sent again, more and more slowly, and what
was never taken is returned, so that the caller's event source tries exactly that again.
"""

import random
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from riskmill.aws.clients import client, translating
from riskmill.errors import TransientError
from riskmill.expiry import expiry_records

#: https://docs.aws.amazon.com/kinesis/latest/APIReference/API_PutRecords.html
PUT_RECORDS = 500

#: https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_BatchWriteItem.html
WRITE_ITEMS = 25

#: https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_BatchGetItem.html
GET_ITEMS = 100

TRIES = 6
FIRST_WAIT_SECONDS = 0.05


def _in_tries[T](waiting: Sequence[T], send: Callable[[Sequence[T]], Sequence[T]]) -> Sequence[T]:
    """Send, send again what was refused, and return what was refused to the end. Full jitter between the tries."""
    for attempt in range(TRIES):
        waiting = send(waiting)
        if not waiting:
            break
        time.sleep(random.uniform(0, FIRST_WAIT_SECONDS * 2**attempt))
    return waiting


class ExpiryStream:
    """The Kinesis stream."""

    def __init__(self, name: str) -> None:
        self._name = name

    def put_some(self, times: Mapping[bytes, int]) -> set[bytes]:
        """Send key -> expires_at on its way, and return the keys that Kinesis did not take."""
        records = expiry_records(times)
        lost: set[bytes] = set()
        for at in range(0, len(records), PUT_RECORDS):
            try:
                refused = _in_tries(records[at : at + PUT_RECORDS], self._put)
            except TransientError:
                refused = records[at : at + PUT_RECORDS]
            lost.update(key for _, keys in refused for key in keys)
        return lost

    def _put(self, records: Sequence[tuple[bytes, list[bytes]]]) -> Sequence[tuple[bytes, list[bytes]]]:
        entries = [{"Data": data, "PartitionKey": keys[0].hex()} for data, keys in records]
        with translating("PutRecords"):
            answer = client("kinesis").put_records(StreamName=self._name, Records=entries)
        return [
            record
            for record, result in zip(records, answer["Records"], strict=True)
            if result.get("ErrorCode") is not None
        ]


class ExpiryTable:
    """The DynamoDB table: `key` (binary, 16 bytes) and `expires_at` (Unix seconds), its TTL attribute."""

    def __init__(self, name: str) -> None:
        self._name = name

    def put_some(self, times: Mapping[bytes, int]) -> set[bytes]:
        """Write items and return the keys that DynamoDB did not take. Writing one twice changes nothing."""
        items: list[dict[str, Any]] = [
            {"PutRequest": {"Item": {"key": {"B": key}, "expires_at": {"N": str(at)}}}} for key, at in times.items()
        ]
        lost: set[bytes] = set()
        for at in range(0, len(items), WRITE_ITEMS):
            try:
                refused = _in_tries(items[at : at + WRITE_ITEMS], self._write)
            except TransientError:
                refused = items[at:]  # throttled beyond the client's own retries: the rest would be, too
            lost.update(bytes(item["PutRequest"]["Item"]["key"]["B"]) for item in refused)
            if len(refused) > WRITE_ITEMS:
                break
        return lost

    def _write(self, items: Sequence[Any]) -> Sequence[Any]:
        with translating("BatchWriteItem"):
            answer = client("dynamodb").batch_write_item(RequestItems={self._name: list(items)})
        unprocessed: Sequence[Any] = answer.get("UnprocessedItems", {}).get(self._name, [])
        return unprocessed

    def current(self, keys: Collection[bytes]) -> dict[bytes, int]:
        """Return key -> expires_at of these keys that have an item now. Raises TransientError."""
        wanted = [{"key": {"B": key}} for key in dict.fromkeys(keys)]
        found: dict[bytes, int] = {}

        def get(part: Sequence[Any]) -> Sequence[Any]:
            request = {"Keys": list(part), "ConsistentRead": True}
            with translating("BatchGetItem"):
                answer = client("dynamodb").batch_get_item(RequestItems={self._name: request})
            for item in answer["Responses"].get(self._name, []):
                found[bytes(item["key"]["B"])] = int(item["expires_at"]["N"])
            unprocessed: Sequence[Any] = answer.get("UnprocessedKeys", {}).get(self._name, {}).get("Keys", [])
            return unprocessed

        for at in range(0, len(wanted), GET_ITEMS):
            left = _in_tries(wanted[at : at + GET_ITEMS], get)
            if left:
                raise TransientError(f"DynamoDB did not answer for {len(left)} keys in {TRIES} tries")
        return found
