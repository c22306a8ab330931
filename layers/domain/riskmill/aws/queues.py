"""Sending to SQS, whose batch answer is 200 even when some messages were not taken."""

import time
from collections.abc import Sequence
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from riskmill.aws.clients import client, translated
from riskmill.errors import TransientError

#: https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SendMessageBatch.html
BATCH = 10

TRIES = 6


def send_all(queue_url: str, bodies: Sequence[str]) -> None:
    """Send messages; those that SQS did not take are sent again. Raises TransientError when some never were."""
    waiting = list(bodies)
    for attempt in range(TRIES):
        refused: list[str] = []
        for at in range(0, len(waiting), BATCH):
            refused.extend(_send(queue_url, waiting[at : at + BATCH]))
        if not refused:
            return
        waiting = refused
        time.sleep(0.1 * 2**attempt)
    raise TransientError(f"SQS did not take {len(waiting)} of {len(bodies)} messages in {TRIES} tries")


def _send(queue_url: str, bodies: Sequence[str]) -> list[str]:
    entries: list[dict[str, Any]] = [{"Id": str(number), "MessageBody": body} for number, body in enumerate(bodies)]
    try:
        answer = client("sqs").send_message_batch(QueueUrl=queue_url, Entries=entries)
    except (ClientError, BotoCoreError) as error:
        ours = translated(error, "SendMessageBatch")
        if ours is None:
            raise
        raise ours from error
    return [bodies[int(failed["Id"])] for failed in answer.get("Failed", [])]
