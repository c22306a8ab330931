"""What lies in the dead-letter queues, and what it takes to replay it. Pure.

| body | from | replay |
|---|---|---|
| as it was sent | a queue whose consumer failed five times | send it to the queue again |
| {token, item} | a batch that workers received 50 times | to its size's queue, while somebody waits for it |
| {function, error, record} | a record that no retry helps, put aside by the function | give it to the function again |
| {requestContext, ...BatchInfo} | Lambda, for a stream's batch that got too old | none (a position only): rebuild |
"""

import json
from dataclasses import dataclass
from typing import Any, Literal

type Way = Literal["send", "invoke", "batch", "none"]

#: Characters of a body that a list shows.
SHOWN = 200


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One dead letter, read."""

    error: str
    way: Way
    #: body to send, for `send` and `batch`
    body: str = ""
    #: a batch's size of worker, and its task token
    size: str = ""
    token: str = ""
    #: function and event, for `invoke`
    function: str = ""
    event: dict[str, Any] | None = None
    excerpt: str = ""


def read_dead_letter(body: str) -> DeadLetter:
    """Read a dead letter's body; whatever it is, it is one."""
    try:
        content = json.loads(body)
    except ValueError:
        content = None
    if isinstance(content, dict) and {"function", "error", "record"} <= content.keys():
        return _rejected(content)
    if isinstance(content, dict) and ("KinesisBatchInfo" in content or "DDBStreamBatchInfo" in content):
        info = content["KinesisBatchInfo"] if "KinesisBatchInfo" in content else content["DDBStreamBatchInfo"]
        condition = content.get("requestContext", {}).get("condition", "unknown")
        excerpt = f"{info.get('batchSize')} records from {info.get('startSequenceNumber')} of {info.get('streamArn')}"
        return DeadLetter(f"given up: {condition}", "none", excerpt=excerpt)
    if isinstance(content, dict) and isinstance(item := content.get("item"), dict) and "batch_id" in item:
        return DeadLetter(
            "no worker ended it",
            "batch",
            body=body,
            size=str(item.get("size") or "standard"),
            token=str(content.get("token") or ""),
            excerpt=f"batch {item['batch_id']} of run {item.get('run_id')}: {item.get('jobs')} job(s)",
        )
    return DeadLetter("failed in every try", "send", body=body, excerpt=body[:SHOWN])


def _rejected(content: dict[str, Any]) -> DeadLetter:
    function, error, record = str(content["function"]), str(content["error"]), content["record"]
    if not isinstance(record, dict):
        return DeadLetter(error, "none", function=function, excerpt=str(content.get("excerpt", ""))[:SHOWN])
    if "body" in record:  # it came by a queue
        return DeadLetter(
            error, "send", body=str(record["body"]), function=function, excerpt=str(record["body"])[:SHOWN]
        )
    excerpt = json.dumps(record.get("kinesis") or record.get("dynamodb") or record)[:SHOWN]
    return DeadLetter(error, "invoke", function=function, event={"Records": [record]}, excerpt=excerpt)
