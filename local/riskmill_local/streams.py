"""What MiniStack lacks of DynamoDB's TTL and of Lambda's event source mappings on streams; patches.py puts it in place.

The reaper thread of MiniStack sleeps 60 s, fixed, and deletes without a stream record. Ours takes its place: every
RISKMILL_TTL_SECONDS it deletes what has expired, as the service dynamodb.amazonaws.com.
"""

import contextvars
import json
import logging
import os
import sys
import threading
import time
from typing import Any

from ministack.core.responses import AccountRegionScopedDict, _request_account_id, _request_region
from ministack.services import dynamodb, sqs

from riskmill_local.launcher_env import TTL_SECONDS

log = logging.getLogger("riskmill")

#: Set while an item is deleted by the TTL service.
deleting: contextvars.ContextVar[bool] = contextvars.ContextVar("riskmill_ttl_delete", default=False)

#: https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/time-to-live-ttl-streams.html
SERVICE = {"type": "Service", "principalId": "dynamodb.amazonaws.com"}

#: batches in a row that failed, by mapping and shard
_failed: dict[tuple[str, str], int] = {}


def signed(record: dict[str, Any]) -> dict[str, Any]:
    """Return a stream record, with the service's identity if the TTL made it."""
    if deleting.get():
        record["userIdentity"] = dict(SERVICE)
    return record


def sweep(now: float) -> int:
    """Delete every item of every table whose TTL attribute has passed; how many there were."""
    deleted = 0
    with dynamodb._lock:
        for (account, region, name), setting in list(dynamodb._ttl_settings.all_items()):
            table = dynamodb._tables.get_scoped(account, region, name)
            attribute = setting.get("AttributeName")
            if table is None or setting.get("TimeToLiveStatus") != "ENABLED":
                continue
            expired = [
                (partition, sort)
                for partition, items in list(table["items"].items())
                for sort, item in list(items.items())
                # only numbers count: https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/time-to-live-ttl-before-you-start.html
                if "N" in item.get(attribute, {}) and float(item[attribute]["N"]) <= now
            ]
            if not expired:
                continue
            contextvars.copy_context().run(_delete, account, region, name, table, expired)
            deleted += len(expired)
    return deleted


def _delete(account: str, region: str, name: str, table: dict[str, Any], expired: list[tuple[Any, Any]]) -> None:
    _request_account_id.set(account)
    _request_region.set(region)
    deleting.set(True)
    for partition, sort in expired:
        old = dynamodb._remove_item(table, partition, sort)
        dynamodb._emit_stream_event(name, "REMOVE", old, None)


def reap() -> None:
    """Sweep for ever."""
    while True:
        time.sleep(float(os.environ.get(TTL_SECONDS, "5")))
        try:
            sweep(time.time())
        except Exception:
            log.exception("TTL")


def start_reaper() -> None:
    """End MiniStack's reaper, which runs since it was imported, when it wakes up, and start ours."""
    original = AccountRegionScopedDict.all_items

    def all_items(self: Any) -> Any:
        if threading.current_thread().name == "dynamodb-ttl-reaper":
            sys.exit()  # ends that thread only
        return original(self)

    AccountRegionScopedDict.all_items = all_items
    threading.Thread(target=reap, daemon=True, name="riskmill-ttl").start()


def set_ttl(name: str, properties: dict[str, Any]) -> None:
    """Switch a table's TTL on or off as its CloudFormation properties say."""
    specification = properties.get("TimeToLiveSpecification") or {}
    enabled = str(specification.get("Enabled", "")).lower() == "true"
    dynamodb._ttl_settings[name] = {
        "TimeToLiveStatus": "ENABLED" if enabled else "DISABLED",
        "AttributeName": specification.get("AttributeName", ""),
    }


def number_of(record: dict[str, Any]) -> str:
    """Return the sequence number of a stream record."""
    inner = record.get("kinesis") or record.get("dynamodb") or {}
    return str(inner.get("sequenceNumber") or inner.get("SequenceNumber"))


def again_from(
    mapping: dict[str, Any], shard: str, result: dict[str, Any], records: list[dict[str, Any]]
) -> str | None:
    """Return the sequence number from which a batch comes again, or None if all of it is done with.

    Partial batch answers are honoured. A batch that fails more often than MaximumRetryAttempts, or is older than
    MaximumRecordAgeInSeconds, is passed over and goes to the OnFailure queue (its position only, as on AWS).
    https://docs.aws.amazon.com/lambda/latest/dg/services-kinesis-batchfailurereporting.html
    """
    numbers = [number_of(record) for record in records]
    first = numbers[0] if result.get("error") else _first_failure(mapping, result, numbers)
    key = (mapping["UUID"], shard)
    if first != numbers[0]:
        _failed.pop(key, None)
        return first
    _failed[key] = _failed.get(key, 0) + 1
    attempts, age = (int(mapping.get(name, -1)) for name in ("MaximumRetryAttempts", "MaximumRecordAgeInSeconds"))
    if 0 <= attempts < _failed[key]:
        condition = "RetryAttemptsExhausted"
    elif 0 <= age < time.time() - _arrival(records[0]):
        condition = "MaxRecordAgeExceeded"
    else:
        return first
    _failed.pop(key)
    _give_up(mapping, shard, records, condition)
    return None


def _first_failure(mapping: dict[str, Any], result: dict[str, Any], numbers: list[str]) -> str | None:
    if "ReportBatchItemFailures" not in (mapping.get("FunctionResponseTypes") or []):
        return None
    body = result.get("body")
    body = json.loads(body) if isinstance(body, str) and body else body
    failed = {str(item.get("itemIdentifier")) for item in (body or {}).get("batchItemFailures", ())}
    if not failed:
        return None
    return next((number for number in numbers if number in failed), numbers[0])


def _arrival(record: dict[str, Any]) -> float:
    inner = record.get("kinesis") or record.get("dynamodb") or {}
    return float(inner.get("approximateArrivalTimestamp") or inner.get("ApproximateCreationDateTime") or time.time())


def _give_up(mapping: dict[str, Any], shard: str, records: list[dict[str, Any]], condition: str) -> None:
    target = ((mapping.get("DestinationConfig") or {}).get("OnFailure") or {}).get("Destination")
    queue = sqs._queue_by_arn(target) if target else None
    if queue is None:
        return
    kind = "KinesisBatchInfo" if "kinesis" in records[0] else "DDBStreamBatchInfo"
    body = {
        "requestContext": {"functionArn": mapping["FunctionArn"], "condition": condition},
        "version": "1.0",
        kind: {
            "shardId": shard,
            "startSequenceNumber": number_of(records[0]),
            "endSequenceNumber": number_of(records[-1]),
            "batchSize": len(records),
            "streamArn": mapping["EventSourceArn"],
        },
    }
    sqs._act_send_message({"MessageBody": json.dumps(body)}, queue["url"])
