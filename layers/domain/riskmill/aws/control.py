"""The control table: what must be known while runs run. No other component keeps run state.

| pk | sk | attributes |
|---|---|---|
| `runs` | run id | status, phase, portfolio, counts, waves, demand, cancelled, started, ended, error |
| `batches#<run id>` | batch id | attempts, wave, round, jobs, done, failed, left, seconds |
| `rates` | `<model>@<version>` | jobs, work, seconds |

The local secondary index `by_start` (pk, started) gives the latest runs first.
"""

import time
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import boto3
from boto3.dynamodb.conditions import Key
from botocore.exceptions import ClientError

from riskmill.aws.clients import CONFIG, code_of, translating
from riskmill.errors import RiskmillError

RUNS, RATES = "runs", "rates"

#: Seconds that control items of a run are kept after its start.
KEEP_SECONDS = 180 * 86_400

#: A rate forgets: once a model's history holds this many jobs, it is halved, so that new hardware shows soon.
RATE_HISTORY_JOBS = 200_000


def _plain(value: Any) -> Any:
    """Return DynamoDB's value with its decimals as int or float."""
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value


def _stored(value: Any) -> Any:
    if isinstance(value, float):
        return Decimal(repr(value))
    if isinstance(value, dict):
        return {name: _stored(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_stored(item) for item in value]
    return value


#: What the control table's other readers and writers need of this module.
plain, stored = _plain, _stored


class ControlTable:
    """Reads and writes the control table."""

    def __init__(self, name: str) -> None:
        # The stubs of attribute values are wider than what this table holds.
        self._table: Any = boto3.resource("dynamodb", config=CONFIG).Table(name)

    def begin_run(self, run_id: str, **facts: Any) -> dict[str, Any]:
        """Note that a run begins, and return its item. A retried start finds the first item and changes nothing."""
        item = {
            "status": "RUNNING",
            "phase": "planning",
            "started": time.time(),
            "cancelled": False,
            "demand": 0,
        } | facts
        item["expires_at"] = int(time.time()) + KEEP_SECONDS
        with translating("begin run"):
            try:
                self._table.put_item(
                    Item={"pk": RUNS, "sk": run_id} | _stored(item), ConditionExpression="attribute_not_exists(pk)"
                )
            except ClientError as error:
                if code_of(error) != "ConditionalCheckFailedException":
                    raise
        return self.run(run_id)

    def run(self, run_id: str) -> dict[str, Any]:
        """Return a run's item. Raises RiskmillError if there is none."""
        with translating("read run"):
            item = self._table.get_item(Key={"pk": RUNS, "sk": run_id}, ConsistentRead=True).get("Item")
        if item is None:
            raise RiskmillError(f"no run {run_id!r}")
        return dict(_plain(item)) | {"run_id": run_id}

    def runs(self, limit: int = 20) -> list[dict[str, Any]]:
        """Return the latest runs, newest first."""
        with translating("list runs"):
            answer = self._table.query(
                IndexName="by_start", KeyConditionExpression=Key("pk").eq(RUNS), ScanIndexForward=False, Limit=limit
            )
        return [dict(_plain(item)) | {"run_id": item["sk"]} for item in answer["Items"]]

    def update_run(self, run_id: str, **facts: Any) -> bool:
        """Set facts of a run; tell whether they were set. A run that has ended keeps its status and demands nothing."""
        names = {f"#{name}": name for name in facts}
        values = {f":{name}": _stored(value) for name, value in facts.items()}
        condition = "attribute_exists(pk)"
        if "status" in facts or "demand" in facts:
            condition += " AND #now = :running"
            names["#now"] = "status"
            values[":running"] = "RUNNING"
        with translating("update run"):
            try:
                self._table.update_item(
                    Key={"pk": RUNS, "sk": run_id},
                    UpdateExpression="SET " + ", ".join(f"#{name} = :{name}" for name in facts),
                    ConditionExpression=condition,
                    ExpressionAttributeNames=names,
                    ExpressionAttributeValues=values,
                )
            except ClientError as error:
                if code_of(error) != "ConditionalCheckFailedException":
                    raise
                self.run(run_id)  # raises for a run that does not exist; one that has ended is left as it is
                return False
        return True

    def note(self, run_id: str, **facts: Any) -> None:
        """Add facts to a run, also to one that has ended."""
        self._set({"pk": RUNS, "sk": run_id}, facts)

    def cancel_run(self, run_id: str) -> bool:
        """Set a running run's cancel flag; tell whether it was running."""
        with translating("cancel run"):
            try:
                self._table.update_item(
                    Key={"pk": RUNS, "sk": run_id},
                    UpdateExpression="SET cancelled = :yes, #s = :cancelled, ended = :now, demand = :none",
                    ConditionExpression="#s = :running",
                    ExpressionAttributeNames={"#s": "status"},
                    ExpressionAttributeValues={
                        ":yes": True,
                        ":cancelled": "CANCELLED",
                        ":running": "RUNNING",
                        ":now": _stored(time.time()),
                        ":none": 0,
                    },
                )
            except ClientError as error:
                if code_of(error) != "ConditionalCheckFailedException":
                    raise
                self.run(run_id)
                return False
        return True

    def is_over(self, run_id: str) -> bool:
        """Tell whether a run no longer wants work: it was cancelled, or it has ended in another way."""
        run = self.run(run_id)
        return bool(run.get("cancelled")) or run["status"] != "RUNNING"

    def begin_batch(self, run_id: str, batch_id: str, **facts: Any) -> int:
        """Note that an attempt at a batch begins, and return its number (1 is the first).

        Attempts are counted here when work starts: a queue's receive count is raised by give-backs too.
        """
        names = {f"#{name}": name for name in facts}
        sets = ", ".join(["expires_at = :expiry", *(f"#{name} = :{name}" for name in facts)])
        values = {f":{name}": _stored(value) for name, value in facts.items()}
        with translating("begin batch"):
            answer = self._table.update_item(
                Key={"pk": f"batches#{run_id}", "sk": batch_id},
                UpdateExpression=f"ADD attempts :one SET {sets}",
                ExpressionAttributeValues={":one": 1, ":expiry": int(time.time()) + KEEP_SECONDS} | values,
                ReturnValues="UPDATED_NEW",
                **({"ExpressionAttributeNames": names} if names else {}),
            )
        return int(answer["Attributes"]["attempts"])

    def end_batch(self, run_id: str, batch_id: str, **facts: Any) -> None:
        """Note what an attempt did (counts, seconds). Repeating it changes nothing."""
        self._set({"pk": f"batches#{run_id}", "sk": batch_id}, facts)

    def _set(self, key: dict[str, str], facts: Mapping[str, Any]) -> None:
        with translating("write facts"):
            self._table.update_item(
                Key=key,
                UpdateExpression="SET " + ", ".join(f"#{name} = :{name}" for name in facts),
                ExpressionAttributeNames={f"#{name}": name for name in facts},
                ExpressionAttributeValues={f":{name}": _stored(value) for name, value in facts.items()},
            )

    def batches(self, run_id: str) -> list[dict[str, Any]]:
        """Return all batches of a run that have begun."""
        items: list[dict[str, Any]] = []
        start: dict[str, Any] = {}
        with translating("list batches"):
            while True:
                answer = self._table.query(KeyConditionExpression=Key("pk").eq(f"batches#{run_id}"), **start)
                items.extend(dict(_plain(item)) | {"batch_id": item["sk"]} for item in answer["Items"])
                if "LastEvaluatedKey" not in answer:
                    return items
                start = {"ExclusiveStartKey": answer["LastEvaluatedKey"]}

    def rates(self) -> dict[str, float]:
        """Return measured seconds per unit of work, by `model@version`."""
        with translating("read rates"):
            answer = self._table.query(KeyConditionExpression=Key("pk").eq(RATES))
        return {
            str(item["sk"]): float(item["seconds"]) / float(item["work"])
            for item in answer["Items"]
            if item.get("work", 0) > 0
        }

    def add_rates(self, measured: Mapping[str, tuple[float, float, float]]) -> None:
        """Add finished jobs' (jobs, work, seconds) to the history of each `model@version`."""
        for name, (jobs, work, seconds) in measured.items():
            with translating("add rates"):
                answer = self._table.update_item(
                    Key={"pk": RATES, "sk": name},
                    UpdateExpression="ADD jobs :jobs, #work :work, seconds :seconds",
                    ExpressionAttributeNames={"#work": "work"},  # a reserved word of DynamoDB
                    ExpressionAttributeValues={
                        ":jobs": int(jobs),
                        ":work": _stored(float(work)),
                        ":seconds": _stored(round(float(seconds), 6)),
                    },
                    ReturnValues="UPDATED_NEW",
                )["Attributes"]
                if answer["jobs"] > RATE_HISTORY_JOBS:
                    self._table.update_item(
                        Key={"pk": RATES, "sk": name},
                        UpdateExpression="SET jobs = :jobs, #work = :work, seconds = :seconds",
                        ExpressionAttributeNames={"#work": "work"},
                        ExpressionAttributeValues={
                            ":jobs": int(answer["jobs"]) // 2,
                            ":work": answer["work"] / 2,
                            ":seconds": answer["seconds"] / 2,
                        },
                    )
