"""What the index queue brings: S3's own notifications, and names put back by workers who found their output there.

Pure: from SQS records to keys, with the records that cannot be read named, so that only those go to the dead letters.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote_plus

from riskmill.jobs import ref_of


@dataclass(frozen=True, slots=True)
class IndexBatch:
    """A batch of index messages, read."""

    #: message id -> 16-byte keys of outputs that now exist; a message about other objects has none
    keys: dict[str, list[bytes]]
    #: message id -> why it could not be read
    unreadable: dict[str, str]

    def failures(self, failed: Iterable[bytes] = ()) -> dict[str, list[dict[str, str]]]:
        """Return SQS's partial batch answer: unreadable messages, and those with a key that could not be added."""
        lost = set(failed)
        ids = [*self.unreadable, *(m for m, keys in self.keys.items() if lost and not lost.isdisjoint(keys))]
        return {"batchItemFailures": [{"itemIdentifier": message} for message in ids]}


def names_message(names: Iterable[str]) -> str:
    """Return the message that asks for objects to be indexed again (no S3 event will come for them)."""
    return json.dumps({"names": list(names)})


def read_index_messages(records: Iterable[Mapping[str, Any]]) -> IndexBatch:
    """Read SQS records. S3 sends one `s3:TestEvent` when the notification is set up: it means nothing."""
    keys: dict[str, list[bytes]] = {}
    unreadable: dict[str, str] = {}
    for record in records:
        message = str(record["messageId"])
        try:
            keys[message] = [
                bytes.fromhex(ref[2:]) for ref in map(ref_of, _names(record["body"])) if ref and ref[0] == "p"
            ]
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            unreadable[message] = f"{type(error).__name__}: {error}"
    return IndexBatch(keys, unreadable)


def _names(body: str) -> list[str]:
    content = json.loads(body)
    if not isinstance(content, dict):
        raise TypeError("an index message is an object")
    if content.get("Event") == "s3:TestEvent":
        return []
    if "names" in content:
        return [str(name) for name in content["names"]]
    # Names in S3 events are URL-encoded: https://docs.aws.amazon.com/AmazonS3/latest/userguide/notification-content-structure.html
    return [unquote_plus(event["s3"]["object"]["key"]) for event in content["Records"]]
