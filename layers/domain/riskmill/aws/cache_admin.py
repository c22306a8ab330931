"""The cache and the dead-letter queues as the command line sees them.

A batch's dead letter is replayed while its task token lives: a worker would drop one that nobody waits for, and no
result would come of it, so it is not sent, and the answer says so.
"""

import json
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import ClientError

from riskmill.aws.clients import client, code_of
from riskmill.aws.worker import DEAD_TOKEN
from riskmill.dead_letters import DeadLetter, read_dead_letter
from riskmill.errors import RiskmillError

#: Stack outputs that name a dead-letter queue: `<name>DeadLettersUrl`.
DEAD_LETTERS = "DeadLettersUrl"

#: Stack outputs that name the functions that put records aside, by the name that they give themselves.
FUNCTIONS = {
    "record_expiry": "RecordExpiryFunctionName",
    "evict_expired": "EvictExpiredFunctionName",
}

#: Stack outputs that name the queue that a dead letter came from, by its dead-letter queue's name; what the cache's
#: flow put aside came by the index queue.
SOURCES = {"index": "IndexQueueUrl", "cache": "IndexQueueUrl"}
WORK_QUEUES = {"standard": "WorkQueueUrl", "large": "LargeQueueUrl"}

#: What becomes of a batch's dead letter whose run ended, or planned its jobs anew.
NOBODY_WAITS = "nobody waits for its batch any more: drop it"

#: https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_ReceiveMessage.html
RECEIVE = 10

#: Seconds for which a message that we hold is hidden from others, should we die with it.
HIDDEN_SECONDS = 120


@dataclass(frozen=True, slots=True)
class Held:
    """A message of a dead-letter queue that nobody else sees for the moment."""

    queue: str
    message_id: str
    receipt: str
    sent: float
    letter: DeadLetter


class CacheAdmin:
    """The cache of one stack. Raises RiskmillError with one sentence when it refuses."""

    def __init__(self, outputs: Mapping[str, str]) -> None:
        self._outputs = outputs

    def inspect(self, action: str, keys: Collection[str] = ()) -> dict[str, Any]:
        """Ask the function inside the network: status, why, evict or clear."""
        return self._invoke(self._output("InspectCacheFunctionName"), {"action": action, "keys": list(keys)})

    def status(self) -> dict[str, Any]:
        """Return the cache's own facts, what waits in its queues, and how the last rebuild or sweep went."""
        states = client("stepfunctions")
        last = states.list_executions(stateMachineArn=self._output("RebuildCacheArn"), maxResults=1)["executions"]
        waiting = {"index": self._depth(self._output("IndexQueueUrl"))}
        waiting |= {f"{name} dead letters": self._depth(url) for name, url in self.queues().items()}
        rebuilt = {"status": last[0]["status"], "started": last[0]["startDate"].timestamp()} if last else None
        return self.inspect("status") | {"waiting": waiting, "last_rebuild": rebuilt}

    def rebuild(self, concurrency: int, *, poll_seconds: float = 0.5) -> dict[str, int]:
        """Rebuild the cache from S3 and return the sums of all partitions. Raises RiskmillError when it fails."""
        states = client("stepfunctions")
        started = states.start_execution(
            stateMachineArn=self._output("RebuildCacheArn"), input=json.dumps({"concurrency": concurrency})
        )
        while True:
            answer = states.describe_execution(executionArn=started["executionArn"])
            if answer["status"] != "RUNNING":
                break
            time.sleep(poll_seconds)
        if answer["status"] != "SUCCEEDED":
            raise RiskmillError(f"rebuild {answer['status']}: {answer.get('error', '')}: {answer.get('cause', '')}")
        partitions = json.loads(answer["output"])
        return {
            "partitions": len(partitions),
            **{name: sum(p[name] for p in partitions) for name in ("objects", "indexed_before", "added", "removed")},
        }

    # ---- dead letters

    def queues(self) -> dict[str, str]:
        """Return the dead-letter queues of the stack by name."""
        return {
            name.removesuffix(DEAD_LETTERS).lower(): url
            for name, url in sorted(self._outputs.items())
            if name.endswith(DEAD_LETTERS)
        }

    def dead_letters(self, queue: str | None, *, limit: int) -> list[Held]:
        """Return dead letters, of one queue or of all, without taking them out."""
        found = [held for name in self._named(queue) for held in self._receive(name, limit)]
        for held in found:
            self._release(held)
        return found

    def replay(self, queue: str | None, ids: Collection[str], *, limit: int) -> dict[str, list[str]]:
        """Replay dead letters (all if `ids` is empty); return ids by what became of them. What fails again stays."""
        return self._each(queue, ids, limit, self._replay)

    def drop(self, queue: str | None, ids: Collection[str], *, limit: int) -> dict[str, list[str]]:
        """Delete dead letters (all if `ids` is empty); return their ids."""
        return self._each(queue, ids, limit, lambda _: "dropped")

    def _each(
        self, queue: str | None, ids: Collection[str], limit: int, act: Callable[[Held], str]
    ) -> dict[str, list[str]]:
        ended: dict[str, list[str]] = {}
        sqs = client("sqs")
        for name in self._named(queue):
            url = self.queues()[name]
            for held in self._receive(name, limit):
                wanted = not ids or held.message_id in ids
                what = act(held) if wanted else ""
                if what in ("replayed", "dropped"):
                    sqs.delete_message(QueueUrl=url, ReceiptHandle=held.receipt)
                else:
                    self._release(held)
                if wanted:
                    ended.setdefault(what, []).append(held.message_id)
        return ended

    def _replay(self, held: Held) -> str:
        letter = held.letter
        if letter.way == "batch":
            if letter.token and not _is_awaited(letter.token):
                return NOBODY_WAITS
            queue = self._output(WORK_QUEUES.get(letter.size, WORK_QUEUES["standard"]))
            client("sqs").send_message(QueueUrl=queue, MessageBody=letter.body)
            return "replayed"
        if letter.way == "send" and held.queue in SOURCES:
            client("sqs").send_message(QueueUrl=self._output(SOURCES[held.queue]), MessageBody=letter.body)
            return "replayed"
        if letter.way == "invoke" and letter.function in FUNCTIONS:
            answer = self._invoke(self._output(FUNCTIONS[letter.function]), letter.event or {})
            return "failed again" if answer.get("batchItemFailures") else "replayed"
        return "cannot be replayed"

    def _release(self, held: Held) -> None:
        """Let others, and our next look, see the message at once."""
        url = self.queues()[held.queue]
        client("sqs").change_message_visibility(QueueUrl=url, ReceiptHandle=held.receipt, VisibilityTimeout=0)

    def _receive(self, queue: str, limit: int) -> list[Held]:
        found: dict[str, Held] = {}
        for message in self._messages(self.queues()[queue], limit):
            identity = str(message["MessageId"])
            sent = float(message.get("Attributes", {}).get("SentTimestamp", 0)) / 1000
            letter = read_dead_letter(message["Body"])
            found[identity] = Held(queue, identity, message["ReceiptHandle"], sent, letter)
        return list(found.values())

    @staticmethod
    def _messages(url: str, limit: int) -> Iterator[dict[str, Any]]:
        """Yield messages until none, or one that was seen, comes."""
        seen: set[str] = set()
        while len(seen) < limit:
            answer = client("sqs").receive_message(
                QueueUrl=url,
                MaxNumberOfMessages=min(RECEIVE, limit - len(seen)),
                VisibilityTimeout=HIDDEN_SECONDS,
                WaitTimeSeconds=1,
                AttributeNames=["SentTimestamp"],
            )
            messages = [m for m in answer.get("Messages", []) if m["MessageId"] not in seen]
            if not messages:
                return
            seen.update(m["MessageId"] for m in messages)
            yield from messages

    def _named(self, queue: str | None) -> list[str]:
        names = list(self.queues())
        if queue is not None and queue not in names:
            raise RiskmillError(f"no dead-letter queue {queue!r}: there are {', '.join(names)}")
        return names if queue is None else [queue]

    @staticmethod
    def _depth(url: str) -> int:
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        attributes = client("sqs").get_queue_attributes(QueueUrl=url, AttributeNames=names)["Attributes"]
        return sum(int(attributes[name]) for name in names)

    @staticmethod
    def _invoke(function: str, event: Mapping[str, Any]) -> dict[str, Any]:
        answer = client("lambda").invoke(FunctionName=function, Payload=json.dumps(event).encode())
        content: dict[str, Any] = json.loads(answer["Payload"].read())
        if "FunctionError" in answer:
            raise RiskmillError(f"{content.get('errorType', 'error')}: {content.get('errorMessage', content)}")
        return content

    def _output(self, name: str) -> str:
        if name not in self._outputs:
            raise RiskmillError(f"the stack has no output {name}: it was deployed without this part, or is older")
        return self._outputs[name]


def _is_awaited(token: str) -> bool:
    """Tell whether somebody waits for a task token, by a heartbeat for it."""
    try:
        client("stepfunctions").send_task_heartbeat(taskToken=token)
    except ClientError as error:
        if code_of(error) not in DEAD_TOKEN:
            raise
        return False
    return True
