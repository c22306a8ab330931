"""Claims of batches: attempts are counted when work starts, and a worker that died is noticed."""

import time
from types import SimpleNamespace
from typing import Any

import pytest

from riskmill.aws.claims import Claims
from riskmill.errors import BatchBusy, WorkerDied

FACTS = {"where": "fargate", "wave": 0, "round": 0, "jobs": 2}


def item(**more: Any) -> dict[str, Any]:
    return {"run_id": "run-1", "batch_id": "r0-w0-b0", "size": "standard", "patience": 1} | more


def worker(aws: SimpleNamespace, visibility: float = 120.0) -> Claims:
    return Claims(aws.table, visibility)


def test_attempts_are_counted_and_an_attempt_that_ended_is_no_death(aws: SimpleNamespace) -> None:
    claims = worker(aws)
    for attempt in (1, 2, 3):
        assert claims.begin(item(), FACTS) == attempt
        claims.end(item())
    (batch,) = claims.batches("run-1")
    assert (batch["attempts"], batch["deaths"], batch["owner"], batch["where"]) == (3, 0, "", "fargate")


def test_a_batch_in_the_hands_of_a_living_worker_is_busy(aws: SimpleNamespace) -> None:
    first, second = worker(aws), worker(aws)
    first.begin(item(), FACTS)
    with pytest.raises(BatchBusy):
        second.begin(item(), FACTS)
    first.end(item())
    assert second.begin(item(), FACTS) == 2


def test_a_claim_that_ran_out_means_that_its_worker_died(aws: SimpleNamespace) -> None:
    worker(aws, visibility=0.0).begin(item(), FACTS)
    time.sleep(0.01)
    with pytest.raises(WorkerDied, match=r"1 of 1 attempts killed \(\d\d:\d\d:\d\d on a standard task by worker"):
        worker(aws).begin(item(), FACTS)
    # in a larger task it is tried again; another death there is one too many
    larger = item(size="large", patience=2)
    assert worker(aws, visibility=0.0).begin(larger, FACTS) == 2
    time.sleep(0.01)
    with pytest.raises(WorkerDied, match="2 of 2 attempts killed"):
        worker(aws).begin(larger, FACTS)


def test_a_sign_of_life_keeps_a_claim(aws: SimpleNamespace) -> None:
    first = worker(aws, visibility=1.0)
    first.begin(item(), FACTS)
    for _ in range(3):
        time.sleep(0.4)
        first.keep(item())
    with pytest.raises(BatchBusy):
        worker(aws).begin(item(), FACTS)


def test_a_worker_that_was_given_up_does_not_touch_its_successors_claim(aws: SimpleNamespace) -> None:
    stuck, other = worker(aws, visibility=0.0), worker(aws)
    stuck.begin(item(patience=2), FACTS)
    time.sleep(0.01)
    other.begin(item(patience=2), FACTS)
    stuck.end(item())
    stuck.keep(item())
    (batch,) = other.batches("run-1")
    assert batch["owner"] == other._me
    assert batch["deaths"] == 1


def test_running_out_of_memory_counts_as_a_death(aws: SimpleNamespace) -> None:
    claims = worker(aws)
    claims.begin(item(), FACTS)
    claims.died(item())
    claims.end(item())
    with pytest.raises(WorkerDied):
        claims.begin(item(), FACTS)
