"""What the index queue brings: S3's own notifications, and outputs put back by workers who found them there.

Pure: from SQS records to keys and the times at which S3 wrote them, with the records that cannot be read named, so that
only those go to the dead letters.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import unquote_plus

from riskmill.jobs import ref_of


@dataclass(frozen=True, slots=True)
class IndexBatch:
    """A batch of index messages, read."""

    #: message id -> 16-byte keys of outputs, with S3's time of writing; a message about other objects has none
    written: dict[str, dict[bytes, float]]
    #: message id -> why it could not be read
    unreadable: dict[str, str]

    @property
    def outputs(self) -> dict[bytes, float]:
        """All keys of the batch; of a key that comes twice, the later time."""
        merged: dict[bytes, float] = {}
        for outputs in self.written.values():
            for key, at in outputs.items():
                merged[key] = max(at, merged.get(key, 0.0))
        return merged

    def failures(self, failed: Iterable[bytes] = ()) -> dict[str, list[dict[str, str]]]:
        """Return SQS's partial batch answer: the messages with a key that could not be indexed."""
        lost = set(failed)
        ids = [message for message, keys in self.written.items() if lost and not lost.isdisjoint(keys)]
        return {"batchItemFailures": [{"itemIdentifier": message} for message in ids]}


def outputs_message(written: Mapping[str, float]) -> str:
    """Return the message that asks for objects, by name and time of writing, to be indexed again.

    No S3 event will come for them.
    """
    return json.dumps({"outputs": dict(written)})


def read_index_messages(records: Iterable[Mapping[str, Any]]) -> IndexBatch:
    """Read SQS records. S3 sends one `s3:TestEvent` when the notification is set up: it means nothing."""
    written: dict[str, dict[bytes, float]] = {}
    unreadable: dict[str, str] = {}
    for record in records:
        message = str(record["messageId"])
        try:
            outputs = [(ref_of(name), at) for name, at in _outputs(record["body"])]
            written[message] = {bytes.fromhex(ref[2:]): at for ref, at in outputs if ref and ref[0] == "p"}
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            unreadable[message] = f"{type(error).__name__}: {error}"
    return IndexBatch(written, unreadable)


def _outputs(body: str) -> list[tuple[str, float]]:
    content = json.loads(body)
    if not isinstance(content, dict):
        raise TypeError("an index message is an object")
    if content.get("Event") == "s3:TestEvent":
        return []
    if "outputs" in content:
        return [(str(name), float(at)) for name, at in content["outputs"].items()]
    # Names in S3 events are URL-encoded: https://docs.aws.amazon.com/AmazonS3/latest/userguide/notification-content-structure.html
    return [
        (unquote_plus(event["s3"]["object"]["key"]), datetime.fromisoformat(event["eventTime"]).timestamp())
        for event in content["Records"]
    ]
