"""The Fargate worker's loop: one message of its queue is one batch.

1. Long-poll the queue. A message's body is {"token": <Step Functions task token, or absent>, "item": <a wave's item>}.
2. Beat once before the work: a token that is dead (timed out, run stopped) means that nobody waits, so the message is
   dropped.
3. Run the batch in a thread of its own, while another beats for the token and the message's visibility together.
4. Shortly before it ends, take the next message, if one waits, and begin to fetch what its batch reads. Its token and
   visibility are kept alive too, but it is not begun: no claim, no attempt. Should the batch in hand go on for longer
   than thought, the message is given back.
5. Answer the token (success with counts, or failure with the error's class), then delete the message.
6. Stop by itself after some minutes without a message. When asked to stop (SIGTERM), give both messages back at once.

A crash anywhere is safe: the message becomes visible again with the same token, outputs are written whole or not at
all, and the next attempt finds those that are there. A message that cannot be read is left for the dead-letter queue.
"""

import json
import math
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Any

from botocore.exceptions import ClientError

from riskmill.aws.clients import client, code_of, translating
from riskmill.aws.worker_metrics import WorkerMetrics
from riskmill.compute import seconds_left
from riskmill.errors import BatchBusy, RiskmillError, RunCancelled, TransientError
from riskmill.observability import logger
from riskmill.settle import Manifest

#: Codes that say that nobody waits for a token any more.
#: https://docs.aws.amazon.com/step-functions/latest/apireference/API_SendTaskHeartbeat.html
DEAD_TOKEN = frozenset({"TaskTimedOut", "TaskDoesNotExist", "InvalidToken"})

#: Codes that say that a message is no longer ours: deleted, or visible to others again.
LOST_MESSAGE = frozenset({"MessageNotInflight", "ReceiptHandleIsInvalid", "InvalidParameterValue"})

#: Characters of an error that Step Functions takes.
#: https://docs.aws.amazon.com/step-functions/latest/apireference/API_SendTaskFailure.html
ERROR_LENGTH, CAUSE_LENGTH = 256, 32_768

#: How long this thread waits before it looks again at batch, heartbeats and signals.
TURN_SECONDS = 0.25

#: While the batch in hand nears its end, the queue is asked for the next message this often. It is asked without
#: waiting: a message that an idle worker waits for is gone by then.
LOOK_SECONDS = 0.5

#: A message that was taken ahead is given back when the batch in hand goes on for longer than thought.
HOLD_SECONDS = 10.0

#: Runs one item, asking the callable before each job how many seconds are left, as `Steps.run_batch` does.
type RunItem = Callable[[Mapping[str, Any], Callable[[], float]], Manifest]


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """What a worker is told by its environment. Times are in seconds."""

    queue_url: str
    #: without a message for so long, the worker ends
    idle_seconds: float = 900.0
    #: Fargate kills 30 s after SIGTERM, and a poll cannot be broken off, so it is short
    poll_seconds: int = 5
    #: a message whose worker died is delivered again after this
    visibility_seconds: int = 120
    heartbeat_seconds: float = 30.0
    #: seconds between beats for a token (or a quarter of its HeartbeatSeconds): Step Functions takes 500 callbacks a
    #: second of all workers together, of which 10,000 that beat every 30 s would need 333; SQS has no such limit
    token_seconds: float = 300.0
    #: asked to stop, a batch may end if it is about to; else its message is given back
    grace_seconds: float = 0.5
    #: idle for so long, it stops if no running run can send work any more; 0 waits for idle_seconds in any case
    early_stop_seconds: float = 0.0
    #: the next message is taken so long before the batch in hand is thought to end; 0 takes none ahead
    ahead_seconds: float = 1.0

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> "WorkerSettings":
        """Read QUEUE_URL, IDLE_MINUTES, EARLY_STOP_SECONDS, VISIBILITY_SECONDS, HEARTBEAT_SECONDS and AHEAD_SECONDS.

        IDLE_MINUTES may be `inf`: a worker of an ECS service must not end, or the service starts another.
        Raises RiskmillError naming what is missing or cannot be read.
        """
        queue_url = environment.get("QUEUE_URL", "")
        if not queue_url:
            raise RiskmillError("environment variable QUEUE_URL: the worker's queue is not named")
        minutes = environment.get("IDLE_MINUTES", "15")
        try:
            idle_seconds = 60 * float(minutes)
        except ValueError as error:
            raise RiskmillError(f"environment variable IDLE_MINUTES: {minutes!r} is not a number") from error
        numbers: dict[str, Any] = {"idle_seconds": idle_seconds}
        kinds = {"early_stop_seconds": float, "visibility_seconds": int, "heartbeat_seconds": float}
        for name, kind in (kinds | {"ahead_seconds": float}).items():
            if text := environment.get(name.upper()):
                try:
                    numbers[name] = kind(text)
                except ValueError as error:
                    raise RiskmillError(f"environment variable {name.upper()}: {text!r} is not a number") from error
        if "visibility_seconds" in numbers:  # several beats before a message is delivered again
            numbers.setdefault("heartbeat_seconds", numbers["visibility_seconds"] / 4)
        return cls(queue_url, **numbers)


@dataclass(slots=True)
class _Batch:
    """A message in hand, or taken ahead."""

    receipt: str
    token: str | None
    item: Mapping[str, Any]
    #: when it came, and when its last heartbeat was answered
    taken: float = field(default_factory=time.monotonic)
    beaten: float = -math.inf
    token_beaten: float = -math.inf
    #: jobs that were begun
    begun: int = 0
    #: nobody waits for the token any more
    dead: threading.Event = field(default_factory=threading.Event)


class Worker:
    """Polls, runs, answers; one batch at a time, and shortly before its end one more message in hand."""

    def __init__(
        self,
        settings: WorkerSettings,
        run_item: RunItem,
        *,
        keep: Callable[[Mapping[str, Any]], None] = lambda _: None,
        release: Callable[[Mapping[str, Any]], None] = lambda _: None,
        prepare: Callable[[Mapping[str, Any]], None] = lambda _: None,
        work_may_come: Callable[[], bool] = lambda: True,
        alive: Callable[[], None] = lambda: None,
    ) -> None:
        """`keep` and `release` tell of the batch in hand (aws/claims.py); `alive` is called at every turn.

        `prepare` begins to fetch what a batch reads while another one is at work.
        """
        self._settings = settings
        self._run_item = run_item
        self._keep, self._release, self._prepare = keep, release, prepare
        self._work_may_come, self._alive = work_may_come, alive
        self._stop = threading.Event()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="batch")
        self._readers = ThreadPoolExecutor(1, thread_name_prefix="ahead")
        self._ahead: _Batch | None = None
        self._look_at = 0.0
        self._metrics = WorkerMetrics()

    def stop(self) -> None:
        """Ask the worker to end soon; may be called from a signal handler or another thread."""
        self._stop.set()

    def run(self) -> int:
        """Work until idle for too long or asked to stop. Returns the number of batches that were answered."""
        answered, last = 0, time.monotonic()
        logger.info("waiting for work", extra={"queue": self._settings.queue_url})
        while not self._stop.is_set():
            self._alive()
            try:
                batch, self._ahead = self._ahead, None
                if batch is None:
                    if self._idle(time.monotonic() - last):
                        logger.info("no work: ending", extra={"answered": answered})
                        break
                    message = self._receive(self._settings.poll_seconds)
                    if message is None:
                        continue
                    batch = _read(message)
                if batch is not None:
                    self._metrics.begin(idle=time.monotonic() - last)
                    answered += self._handle(batch)
            except TransientError as error:
                logger.warning("trying again", extra={"error": str(error)})
                self._stop.wait(self._settings.poll_seconds)
            logger.remove_keys(["run_id", "batch_id"])
            last = time.monotonic()
        self._give_ahead_back()
        self._metrics.end(idle=time.monotonic() - last)
        return answered

    def _idle(self, seconds: float) -> bool:
        """Tell whether to end after so long without a message. Raises TransientError."""
        if seconds > self._settings.idle_seconds:
            return True
        early = self._settings.early_stop_seconds
        return bool(early and seconds > early and not self._work_may_come())

    def _receive(self, wait_seconds: int) -> dict[str, Any] | None:
        with translating("ReceiveMessage"):
            messages = client("sqs").receive_message(
                QueueUrl=self._settings.queue_url,
                MaxNumberOfMessages=1,
                WaitTimeSeconds=wait_seconds,
                VisibilityTimeout=self._settings.visibility_seconds,
            )
        return next(iter(messages.get("Messages", [])), None)

    def _handle(self, batch: _Batch) -> bool:
        """Run one message's batch; tell whether it was answered (and so deleted)."""
        logger.append_keys(run_id=batch.item["run_id"], batch_id=batch.item["batch_id"])
        if self._stop.is_set():  # it came with the last poll
            self._give_back(batch)
            return False
        # One that was taken ahead was found alive lately, and its next heartbeat comes with the others.
        if time.monotonic() - batch.beaten > self._settings.heartbeat_seconds and self._is_dropped(batch):
            return False
        began = time.monotonic()
        future = self._run(batch)
        answered = self._settle(batch, future)
        manifest = future.result() if future.done() and future.exception() is None else None
        self._metrics.batch(time.monotonic() - began, manifest, answered=answered)
        return answered

    def _is_dropped(self, batch: _Batch) -> bool:
        """Beat for a message that nothing was done for yet, and delete it when nobody waits for it any more."""
        self._beat(batch)
        if batch.dead.is_set():
            logger.info("nobody waits for this batch any more", extra={"batch": dict(batch.item)})
            self._delete(batch)
        return batch.dead.is_set()

    def _run(self, batch: _Batch) -> Future[Manifest]:
        """Run the batch while heartbeats go out; returns when it ended, or when it would not end soon enough."""

        def time_left() -> float:
            batch.begun += 1
            return 0.0 if self._stop.is_set() or batch.dead.is_set() else math.inf

        future = self._pool.submit(self._run_item, batch.item, time_left)
        began, self._look_at = time.monotonic(), 0.0
        # This thread only waits, so that a signal is handled at once however long a numpy call takes.
        while not future.done() and not self._stop.is_set():
            self._alive()
            for held in filter(None, (batch, self._ahead)):
                if time.monotonic() - held.beaten >= self._settings.heartbeat_seconds:
                    self._beat_if_possible(held)
            if self._ahead is None:
                self._look_ahead(batch, time.monotonic() - began)
            elif self._ahead.dead.is_set() or time.monotonic() - self._ahead.taken > HOLD_SECONDS:
                self._give_ahead_back()  # a dead one is dropped by whoever takes it next
                self._look_at = math.inf
            wait([future], timeout=min(TURN_SECONDS, self._settings.heartbeat_seconds))
        if self._stop.is_set():
            self._give_ahead_back()
        wait([future], timeout=self._settings.grace_seconds)
        return future

    def _look_ahead(self, batch: _Batch, elapsed: float) -> None:
        """Take the next message if the batch in hand is about to end, and begin to fetch what its batch reads."""
        now = time.monotonic()
        left = seconds_left(
            float(batch.item.get("seconds", 0.0)),
            elapsed,
            jobs=int(batch.item.get("jobs", 1)),
            finished=batch.begun - 1,
        )
        if now < self._look_at or left >= self._settings.ahead_seconds:
            return
        self._look_at = now + LOOK_SECONDS
        try:
            message = self._receive(0)
            ahead = _read(message) if message else None
            if ahead is None:
                return
            if ahead.token is not None and ahead.token == batch.token:
                self._give_back(ahead, delay=self._settings.visibility_seconds)  # the one in hand, delivered twice
            elif not self._is_dropped(ahead):
                self._ahead = ahead
                self._metrics.ahead()
                self._readers.submit(self._prepare_if_possible, ahead)
        except TransientError as error:
            logger.warning("no look ahead", extra={"error": str(error)})

    def _prepare_if_possible(self, batch: _Batch) -> None:
        try:
            self._prepare(batch.item)
        except Exception as error:  # noqa: BLE001 - whatever it is, the batch meets it again, where it is seen to
            logger.warning("not prepared", extra={"batch": dict(batch.item), "error": repr(error)})

    def _give_ahead_back(self) -> None:
        ahead, self._ahead = self._ahead, None
        if ahead is None:
            return
        try:
            self._give_back(ahead)
        except TransientError as error:  # its visibility runs out by itself
            logger.warning("not given back", extra={"error": str(error)})

    def _settle(self, batch: _Batch, future: Future[Manifest]) -> bool:
        """Answer the token and delete the message, or give the message back."""
        if not future.done():
            logger.warning("asked to stop within a job: giving its batch back", extra={"batch": dict(batch.item)})
            self._release(batch.item)
            self._give_back(batch)
            return False
        error = future.exception()
        if error is None and self._stop.is_set() and future.result().left:
            self._give_back(batch)
            return False
        if isinstance(error, BatchBusy):
            logger.info("delivered twice: left to its owner", extra={"batch": dict(batch.item)})
            self._give_back(batch, delay=self._settings.visibility_seconds)
            return False
        if error is not None:
            logger.error("batch failed", extra={"error": f"{type(error).__name__}: {error}"})
            if batch.token is None and not isinstance(error, RunCancelled):
                self._give_back(batch, delay=self._settings.poll_seconds)  # its queue counts and ends the attempts
                return False
        if batch.token and not batch.dead.is_set():
            self._answer(batch.token, future)
        self._delete(batch)
        return True

    def _answer(self, token: str, future: Future[Manifest]) -> None:
        error = future.exception()
        with translating("SendTaskSuccess or SendTaskFailure"):
            try:
                if error is None:
                    client("stepfunctions").send_task_success(
                        taskToken=token, output=json.dumps(counts(future.result()))
                    )
                else:
                    client("stepfunctions").send_task_failure(
                        taskToken=token, error=type(error).__name__[:ERROR_LENGTH], cause=str(error)[:CAUSE_LENGTH]
                    )
            except ClientError as refused:
                if code_of(refused) not in DEAD_TOKEN:
                    raise
                logger.info("the answer came too late", extra={"code": code_of(refused)})

    def _beat(self, batch: _Batch) -> None:
        """Beat for the message's visibility, and before it for the token when that is due. Raises TransientError."""
        due = min(self._settings.token_seconds, float(batch.item.get("heartbeat_seconds", math.inf)) / 4)
        with translating("heartbeat"):
            if batch.token and time.monotonic() - batch.token_beaten >= due:
                try:
                    client("stepfunctions").send_task_heartbeat(taskToken=batch.token)
                    batch.token_beaten = time.monotonic()
                except ClientError as error:
                    if code_of(error) not in DEAD_TOKEN:
                        raise
                    batch.dead.set()
                    return
            self._set_visibility(batch, self._settings.visibility_seconds)
        batch.beaten = time.monotonic()

    def _beat_if_possible(self, batch: _Batch) -> None:
        batch.beaten = time.monotonic()  # a beat that fails is not tried at once again: the next one comes in time
        try:
            self._beat(batch)
            if batch is not self._ahead:  # which is not claimed
                self._keep(batch.item)
        except TransientError as error:
            logger.warning("heartbeat missed", extra={"error": str(error)})
            self._metrics.missed_beat()

    def _give_back(self, batch: _Batch, delay: int = 0) -> None:
        self._metrics.give_back()
        with translating("ChangeMessageVisibility"):
            self._set_visibility(batch, delay)

    def _set_visibility(self, batch: _Batch, seconds: int) -> None:
        try:
            client("sqs").change_message_visibility(
                QueueUrl=self._settings.queue_url, ReceiptHandle=batch.receipt, VisibilityTimeout=seconds
            )
        except ClientError as error:
            if code_of(error).rpartition(".")[2] not in LOST_MESSAGE:
                raise

    def _delete(self, batch: _Batch) -> None:
        with translating("DeleteMessage"):
            client("sqs").delete_message(QueueUrl=self._settings.queue_url, ReceiptHandle=batch.receipt)


def counts(manifest: Manifest) -> dict[str, int]:
    """Return what a batch's answer carries; the manifest in S3 has the rest."""
    return {
        "done": len(manifest.done),
        "failed": len(manifest.failed),
        "missing": len(manifest.missing),
        "left": len(manifest.left),
    }


def _read(message: Mapping[str, Any]) -> _Batch | None:
    """Return the batch that a message carries, or None (with an error in the log) when it carries none."""
    try:
        body = json.loads(message["Body"])
        item = body["item"]
        logger.debug("message taken", extra={"taken": f"{item['run_id']} {item['batch_id']}"})
    except (ValueError, KeyError, TypeError) as error:
        logger.error("message carries no batch", extra={"message_id": message.get("MessageId"), "error": repr(error)})
        return None
    return _Batch(message["ReceiptHandle"], body.get("token"), item)
