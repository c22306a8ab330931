"""The handlers of workers and scaler on their real events, and what they hand to each other."""

import json
from collections import Counter
from typing import Any

import boto3
import pytest

from mock_cloud import ROOT
from riskmill.aws.claims import Claims
from riskmill.aws.control import ControlTable
from riskmill.aws.objects import Bucket
from riskmill.aws.runtime import scaling, steps
from riskmill.aws.scaler_table import ScalerTable
from riskmill.run_files import errors_file, manifest_folder
from tiny_portfolio import TinyPortfolio

# conftest's types are found by pytest alone
type Machine = Any


def event_of(name: str) -> dict[str, Any]:
    event: dict[str, Any] = json.loads((ROOT / "events" / f"{name}.json").read_text(encoding="utf-8"))
    return event


@pytest.fixture
def workers(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """The handlers, told of queues, clusters and a machine on moto."""
    waiting = {"StartAt": "Wait", "States": {"Wait": {"Type": "Wait", "Seconds": 600, "End": True}}}
    made = boto3.client("stepfunctions").create_state_machine(
        name="riskmill-FargateScaler", definition=json.dumps(waiting), roleArn="arn:aws:iam::123456789012:role/x"
    )
    monkeypatch.setenv("SCALER_ARN", made["stateMachineArn"])
    for size in ("STANDARD", "LARGE"):
        cluster = boto3.client("ecs").create_cluster(clusterName=size)["cluster"]["clusterArn"]
        monkeypatch.setenv(f"{size}_CLUSTER", cluster)
        monkeypatch.setenv(f"{size}_QUEUE_URL", boto3.client("sqs").create_queue(QueueName=size)["QueueUrl"])
        monkeypatch.setenv(f"{size}_TASK", f"riskmill-{size.lower()}:1")
    scaling.cache_clear()
    return machine


def test_scale_workers_on_its_event_stops_without_demand(workers: Machine) -> None:
    answer = workers.call("scale_workers", event_of("scale_workers"))
    assert (answer["action"], answer["calls"]) == ("stop", [])
    assert answer["sentence"] == "no run, nothing queued, no tasks: stop, no running run has work for workers"
    assert ScalerTable(workers.aws.table).lease()["stopped"]


def test_ensure_scaler_on_its_event_starts_the_scaler(workers: Machine) -> None:
    answer = workers.call("ensure_scaler", event_of("ensure_scaler"))
    assert ":execution:riskmill-FargateScaler:" in answer["scaler"]
    lease = ScalerTable(workers.aws.table).lease()
    assert lease["demand_version"] == 1


def test_ensure_scaler_on_eventbridges_event_announces_nothing(workers: Machine) -> None:
    event = {"source": "aws.states", "detail-type": "Step Functions Execution Status Change",
             "detail": {"status": "ABORTED"}}  # fmt: skip
    assert workers.call("ensure_scaler", event) == {"scaler": "none: no run wants workers"}
    assert ScalerTable(workers.aws.table).lease() == {}


def planned(machine: Machine, tiny: TinyPortfolio, run_id: str) -> dict[str, Any]:
    """Plan a run on Fargate; the item of its one batch."""
    plan = machine.plan(run_id, machine.upload(tiny), {"compute": "fargate", "parallelism": 1})
    assert plan["workers"] == 1
    (item,) = machine.items(run_id, 0, 0)
    return dict(item)


def test_split_batch_on_its_event_halves_the_batch_and_keeps_the_rest_for_later(workers: Machine) -> None:
    tiny = TinyPortfolio()
    event = event_of("split_batch")
    item = planned(workers, tiny, event["item"]["run_id"])
    assert set(event["item"]) == set(item), "the event's item has the fields of a planned one"
    answer = workers.call("split_batch", event | {"item": item})
    first, (second,) = answer["item"], answer["waiting"]
    assert answer["more"]
    assert first["jobs"] + second["jobs"] == item["jobs"]
    assert (first["start"], first["end"] + 1, second["end"]) == (item["start"], second["start"], item["end"])
    # the first piece is done: the second comes next, and then nothing
    answer = workers.call("split_batch", {"item": first, "waiting": [second], "died": False})
    assert (answer["item"], answer["waiting"], answer["more"]) == (second, [], True)
    assert not workers.call("split_batch", {"item": second, "waiting": [], "died": False})["more"]


def test_a_prepared_batch_reads_neither_its_jobs_nor_its_inputs_again_and_is_not_claimed(
    workers: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    item = planned(workers, TinyPortfolio(), "prepared")
    worker, asked = steps(), list[str]()
    get = Bucket.get

    def spy(self: Bucket, name: str, **bounds: Any) -> bytes:
        asked.append(name)
        return get(self, name, **bounds)

    monkeypatch.setattr(Bucket, "get", spy)
    worker.prepare(item)
    assert ControlTable(workers.aws.table).batches("prepared") == []
    manifest = worker.run_batch(item, lambda: 900.0, where="fargate")
    assert len(manifest.done) == item["jobs"]
    assert manifest.attempt == 1
    assert item["object"] in asked
    assert [name for name, times in Counter(asked).items() if times > 1] == []
    assert any(name.startswith("inputs/") for name in asked)


def test_a_job_that_kills_its_workers_alone_is_failed_with_its_history_and_the_run_ends_with_its_name(
    workers: Machine,
) -> None:
    item = planned(workers, TinyPortfolio(), "poisoned")
    while item["jobs"] > 1:
        item = workers.call("split_batch", {"item": item, "waiting": [], "died": True})["item"]
    claims = Claims(workers.aws.table, 0.0)
    claims.begin(item, {"round": 0, "wave": 0, "jobs": 1, "where": "fargate"})
    claims.died(item)
    answer = workers.call("split_batch", {"item": item, "waiting": [], "died": True})
    assert not answer["more"]
    (name,) = workers.names(manifest_folder("poisoned", 0))
    (error,) = json.loads(workers.get(name))["failed"].values()
    assert error.startswith("simulate_years version 1 kills its workers: 1 of 1 attempts killed (")
    settled = workers.call("settle_round", {"run_id": "poisoned", "round": 0})
    assert settled["outcome"] == "replan" or settled["failed"] == 1
    assert "kills its workers" in workers.get(errors_file("poisoned")).decode()


def test_a_job_whose_worker_was_killed_after_it_had_written_its_output_has_not_failed(workers: Machine) -> None:
    item = planned(workers, TinyPortfolio(), "late")
    while item["jobs"] > 1:
        item = workers.call("split_batch", {"item": item, "waiting": [], "died": True})["item"]
    assert len(steps().run_batch(item, lambda: 900.0, where="fargate").done) == 1
    assert not workers.call("split_batch", {"item": item, "waiting": [], "died": True})["more"]
    (name,) = workers.names(manifest_folder("late", 0))
    assert json.loads(workers.get(name))["failed"]
    settled = workers.call("settle_round", {"run_id": "late", "round": 0})
    assert (settled["outcome"], settled["failed"]) == ("replan", 0)
