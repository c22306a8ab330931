"""Who is at which batch: attempts are counted when work starts, and a worker that died is noticed by its claim.

A worker claims a batch before it begins and gives the claim back when it ends, in whatever way, except when it is
killed. So a claim that its owner keeps no more (it lasts a little longer than the time between heartbeats) means that
the owner died. A queue's receive count cannot say that: prefetching and giving back raise it too.
"""

import time
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from botocore.exceptions import ClientError

from riskmill.aws.clients import code_of, translating
from riskmill.aws.control import KEEP_SECONDS, ControlTable, plain, stored
from riskmill.errors import BatchBusy, WorkerDied

#: A claim is believed without a sign of life for this share of a message's visibility, so that who gets a dead
#: worker's message finds its claim run out.
CLAIM_SHARE = 0.8

#: Attempts that a batch's history names.
HISTORY = 20


class Claims(ControlTable):
    """Reads and writes the claims, which are part of the batches' items."""

    def __init__(self, name: str, visibility_seconds: float) -> None:
        super().__init__(name)
        self._seconds = CLAIM_SHARE * visibility_seconds
        self._me = uuid.uuid4().hex[:12]

    def begin(self, item: Mapping[str, Any], facts: Mapping[str, Any]) -> int:
        """Claim a batch, and return the attempt's number (1 is the first).

        Raises BatchBusy when a living worker is at it, and WorkerDied when as many died at it as the item's patience
        allows.
        """
        key, now = _key(item), time.time()
        with translating("read a claim"):
            known = dict(plain(self._table.get_item(Key=key, ConsistentRead=True).get("Item", {})))
        until, owner = float(known.get("claimed_until", 0.0)), known.get("owner", "")
        if owner and owner != self._me and until > now:
            raise BatchBusy(f"{item['batch_id']} is in the hands of worker {owner}")
        died = int(known.get("deaths", 0)) + (1 if owner and owner != self._me else 0)
        if died >= int(item.get("patience", 1)):
            self._write(key, until, {"deaths": died, "claimed_until": 0.0, "owner": ""}, item, began=False)
            raise WorkerDied(f"{died} worker(s) died at {item['batch_id']}: {self.history(item)}")
        attempt = {"at": round(now, 3), "worker": self._me, "size": item.get("size", "")}
        facts = dict(facts) | {
            "deaths": died,
            "owner": self._me,
            "claimed_until": now + self._seconds,
            "expires_at": int(now) + KEEP_SECONDS,
            "history": [*known.get("history", []), attempt][-HISTORY:],
        }
        return self._write(key, until, facts, item, began=True)

    def _write(
        self, key: Mapping[str, str], until: float, facts: Mapping[str, Any], item: Mapping[str, Any], *, began: bool
    ) -> int:
        with translating("claim a batch"):
            try:
                answer = self._table.update_item(
                    Key=dict(key),
                    UpdateExpression="ADD attempts :one SET " + ", ".join(f"#{name} = :{name}" for name in facts),
                    ConditionExpression="attribute_not_exists(claimed_until) OR claimed_until = :seen",
                    ExpressionAttributeNames={f"#{name}": name for name in facts},
                    ExpressionAttributeValues={":one": int(began), ":seen": stored(until)}
                    | {f":{name}": stored(value) for name, value in facts.items()},
                    ReturnValues="ALL_NEW",
                )
            except ClientError as error:
                if code_of(error) != "ConditionalCheckFailedException":
                    raise
                raise BatchBusy(f"{item['batch_id']} was claimed by another worker just now") from error
        return int(answer["Attributes"]["attempts"])

    def keep(self, item: Mapping[str, Any]) -> None:
        """Give a sign of life for a batch in hand."""
        self._mine(item, "SET claimed_until = :until", {":until": stored(time.time() + self._seconds)})

    def end(self, item: Mapping[str, Any]) -> None:
        """Give a claim back: the attempt ended, well or not, or the message was given back."""
        self._mine(item, "SET claimed_until = :until, #owner = :none", {":until": stored(0.0), ":none": ""})

    def died(self, item: Mapping[str, Any]) -> None:
        """Count a death that the worker itself survived: it ran out of memory."""
        self._mine(item, "ADD deaths :one SET claimed_until = :until", {":one": 1, ":until": stored(0.0)})

    def _mine(self, item: Mapping[str, Any], expression: str, values: dict[str, Any]) -> None:
        with translating("update a claim"):
            try:
                self._table.update_item(
                    Key=_key(item),
                    UpdateExpression=expression,
                    ConditionExpression="#owner = :me",
                    ExpressionAttributeNames={"#owner": "owner"},
                    ExpressionAttributeValues={":me": self._me} | values,
                )
            except ClientError as error:
                if code_of(error) != "ConditionalCheckFailedException":
                    raise

    def history(self, item: Mapping[str, Any]) -> str:
        """Return a batch's attempts on Fargate in words."""
        with translating("read a claim"):
            known = dict(plain(self._table.get_item(Key=_key(item), ConsistentRead=True).get("Item", {})))
        attempts = [
            f"{datetime.fromtimestamp(a['at'], UTC):%H:%M:%S} on a {a['size']} task by worker {a['worker']}"
            for a in known.get("history", [])
        ]
        return f"{int(known.get('deaths', 0))} of {len(attempts)} attempts killed ({'; '.join(attempts)})"


def _key(item: Mapping[str, Any]) -> dict[str, str]:
    return {"pk": f"batches#{item['run_id']}", "sk": str(item["batch_id"])}
