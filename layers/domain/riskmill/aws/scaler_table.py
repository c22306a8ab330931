"""What the scaler keeps in the control table: its lease, what is announced, and what was spent.

| pk | sk | attributes |
|---|---|---|
| `scaler` | `lease` | generation, execution, expires, stopped, demand_version, announced_until, and what it says |
| `spend` | day (UTC) | dollars |

`accounted` in the lease is when spending was last added up; what it says is `expects`, `spare` and `sentence` (`say`).

One execution holds the lease, and renews it each iteration. Taking it is a compare-and-set on the generation, so of two
executions that start at once one finds that it lost. Whoever announces demand raises `demand_version`; the scaler stops
only if the version is still the one that it read, so no demand falls in between.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from botocore.exceptions import ClientError

from riskmill.aws.clients import code_of, translating
from riskmill.aws.control import ControlTable, plain, stored

LEASE = {"pk": "scaler", "sk": "lease"}

#: Seconds after its last renewal that a lease is believed: longer than the longest wait and the slowest iteration.
LEASE_SECONDS = 240.0

#: Seconds within which an announced message is on its queue.
ANNOUNCED_SECONDS = 120.0

#: Seconds that the day's spending is kept.
KEEP_SPEND = 400 * 86_400


class ScalerTable(ControlTable):
    """Reads and writes the scaler's items."""

    def lease(self) -> dict[str, Any]:
        """Return the lease's item; empty before the first scaler."""
        with translating("read the scaler's lease"):
            item = self._table.get_item(Key=LEASE, ConsistentRead=True).get("Item", {})
        return dict(plain(item))

    def announce(self, now: float) -> dict[str, Any]:
        """Say that a message is about to come; return the lease's item."""
        with translating("announce demand"):
            answer = self._table.update_item(
                Key=LEASE,
                UpdateExpression="ADD demand_version :one SET announced_until = :until",
                ExpressionAttributeValues={":one": 1, ":until": stored(now + ANNOUNCED_SECONDS)},
                ReturnValues="ALL_NEW",
            )
        return dict(plain(answer["Attributes"]))

    def take(self, execution: str, generation: int, now: float) -> bool:
        """Take the lease over from this generation (0: from nobody); tell whether it was still that one's."""
        condition = "attribute_not_exists(generation)" if generation == 0 else "generation = :from"
        values = {":next": generation + 1, ":me": execution, ":no": False, ":true": True}
        values |= {":expires": stored(now + LEASE_SECONDS), ":now": stored(now)}
        if generation:
            values[":from"] = generation
        return self._update(
            "SET generation = :next, execution = :me, stopped = :no, expects = :true, expires = :expires, "
            "accounted = :now",
            condition,
            values,
        )

    def renew(self, generation: int, now: float) -> bool:
        """Renew the lease; tell whether it is still ours."""
        return self._update(
            "SET expires = :expires, accounted = :now",
            "generation = :mine AND stopped = :no",
            {":expires": stored(now + LEASE_SECONDS), ":now": stored(now), ":mine": generation, ":no": False},
        )

    def say(self, generation: int, expects: bool, sentence: str, spare: Sequence[str] = ()) -> None:
        """Tell the workers whether work may come, and to which pools none, and whoever asks what was decided last."""
        self._update(
            "SET expects = :expects, spare = :spare, sentence = :sentence",
            "generation = :mine",
            {":expects": expects, ":spare": list(spare), ":sentence": sentence, ":mine": generation},
        )

    def stop(self, generation: int, demand_version: int) -> bool:
        """End the scaling, unless demand was announced since this version was read; tell whether it ended."""
        return self._update(
            "SET stopped = :yes, expects = :no",
            "generation = :mine AND (demand_version = :read OR attribute_not_exists(demand_version))",
            {":yes": True, ":no": False, ":mine": generation, ":read": demand_version},
        )

    def work_may_come(self, now: float, pool: str = "") -> bool:
        """Tell an idle worker whether to wait for more; yes, unless a living scaler, or one that stopped, says no.

        A living one also says it to the workers of a pool that has tasks to spare while another has too few.
        """
        lease = self.lease()
        believed = lease.get("stopped", False) or now < lease.get("expires", 0.0)
        return not believed or (bool(lease.get("expects", True)) and pool not in lease.get("spare", ()))

    def _update(self, expression: str, condition: str, values: dict[str, Any]) -> bool:
        with translating("update the scaler's lease"):
            try:
                self._table.update_item(
                    Key=LEASE,
                    UpdateExpression=expression,
                    ConditionExpression=condition,
                    ExpressionAttributeValues=values,
                )
            except ClientError as error:
                if code_of(error) != "ConditionalCheckFailedException":
                    raise
                return False
        return True

    # ---- spending

    def day_dollars(self, now: float) -> float:
        """Return what Fargate has cost today (UTC)."""
        with translating("read the day's spending"):
            item = self._table.get_item(Key={"pk": "spend", "sk": _day(now)}, ConsistentRead=True).get("Item", {})
        return float(item.get("dollars", 0.0))

    def spend(self, dollars: float, shares: dict[str, float], now: float) -> None:
        """Add to the day's spending, and to each run its share."""
        with translating("add to the day's spending"):
            self._table.update_item(
                Key={"pk": "spend", "sk": _day(now)},
                UpdateExpression="ADD dollars :dollars SET expires_at = :expires",
                ExpressionAttributeValues={":dollars": stored(dollars), ":expires": int(now) + KEEP_SPEND},
            )
            for run_id, share in shares.items():
                self._table.update_item(
                    Key={"pk": "runs", "sk": run_id},
                    UpdateExpression="ADD fargate_dollars :dollars",
                    ExpressionAttributeValues={":dollars": stored(share)},
                )


def _day(now: float) -> str:
    return f"{datetime.fromtimestamp(now, UTC):%Y-%m-%d}"
