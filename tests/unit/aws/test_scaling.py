"""One iteration of the scaler on moto: its lease, what it sees, what it answers the state machine."""

import json
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import boto3
import pytest

from riskmill.aws import clients, scaling
from riskmill.aws.scaler_table import LEASE_SECONDS, ScalerTable
from riskmill.aws.scaling import Scaling
from riskmill.settings import ScalingSettings, Settings

ROLE = "arn:aws:iam::123456789012:role/x"
WAITING = {"StartAt": "Wait", "States": {"Wait": {"Type": "Wait", "Seconds": 600, "End": True}}}


@pytest.fixture
def made(aws: SimpleNamespace) -> SimpleNamespace:
    """Queues, clusters and a machine on moto, and a scaler that is told of them."""
    ecs, sqs, states = boto3.client("ecs"), boto3.client("sqs"), boto3.client("stepfunctions")
    clusters = [ecs.create_cluster(clusterName=name)["cluster"]["clusterArn"] for name in ("standard", "large")]
    queues = [sqs.create_queue(QueueName=name)["QueueUrl"] for name in ("work", "large")]
    machine = states.create_state_machine(name="scaler", definition=json.dumps(WAITING), roleArn=ROLE)
    told = ScalingSettings(
        scaler_arn=machine["stateMachineArn"],
        rollup_arn="arn:aws:states:eu-west-1:123456789012:stateMachine:rollup",
        standard_queue_url=queues[0],
        standard_cluster=clusters[0],
        standard_task="standard-task",
        large_queue_url=queues[1],
        large_cluster=clusters[1],
        large_task="large-task",
        worker_processes=4,
    )
    settings = Settings(control_table=aws.table)

    def with_settings(**changes: Any) -> Scaling:
        values = {name: getattr(told, name) for name in ScalingSettings.__annotations__} | changes
        return Scaling(settings, ScalingSettings(**values))

    return SimpleNamespace(
        scaling=with_settings(),
        with_settings=with_settings,
        table=ScalerTable(aws.table),
        states=states,
        sqs=sqs,
        queues=queues,
        machine=machine["stateMachineArn"],
    )


def begin(made: SimpleNamespace) -> str:
    """Start an execution of the scaler's machine."""
    return str(made.states.start_execution(stateMachineArn=made.machine)["executionArn"])


def running(made: SimpleNamespace, run_id: str = "run-1", **facts: Any) -> None:
    given = {
        "options": {"compute": "auto"},
        "fargate_waves": [{"standard": 9}],
        "at_wave": 0,
        "at_entered": time.time(),
    }
    made.table.begin_run(run_id, **(given | facts))


def test_an_iteration_sees_demand_and_asks_for_the_missing_tasks(made: SimpleNamespace) -> None:
    running(made)
    execution = begin(made)
    answer = made.scaling.iterate(execution, {}, [])
    assert answer["action"] == "launch"
    (call,) = answer["calls"]
    assert (call["count"], call["task_definition"], call["provider"]) == (3, "standard-task", "FARGATE")
    assert call["token"] == "1-1-0"
    lease = made.table.lease()
    assert (lease["generation"], lease["execution"], lease["expects"]) == (1, execution, True)
    assert lease["sentence"] == answer["sentence"]
    json.dumps(answer)


def test_messages_count_whatever_was_planned(made: SimpleNamespace) -> None:
    running(made, fargate_waves=[], at_entered=0.0)
    for number in range(3):
        made.sqs.send_message(QueueUrl=made.queues[1], MessageBody=str(number))
    answer = made.scaling.iterate(begin(made), {}, [])
    assert [(call["task_definition"], call["count"]) for call in answer["calls"]] == [("large-task", 3)]


@pytest.mark.parametrize(
    ("facts", "launched"),
    [
        ({}, True),
        # a minute after the wave began the queue knows better
        ({"at_entered": 0.0}, False),
        ({"at_wave": 1}, False),
        ({"fargate_waves": [{}, {"standard": 2}], "at_wave": 1}, True),
        # as NoteWave writes it
        ({"at_entered": "2000-01-01T00:00:00.000Z"}, False),
        ({"options": {"compute": "lambda"}}, False),
        ({"status": "FAILED"}, False),
    ],
)
def test_only_what_a_running_runs_present_wave_plans_is_launched_ahead(
    made: SimpleNamespace, facts: dict[str, Any], launched: bool
) -> None:
    running(made, **facts)
    assert (made.scaling.iterate(begin(made), {}, [])["action"] == "launch") is launched


def test_answers_of_run_task_are_taken_into_the_next_iteration(made: SimpleNamespace) -> None:
    running(made)
    execution = begin(made)
    first = made.scaling.iterate(execution, {}, [])
    answers = [
        call | {"answer": {"tasks": ["a", "b"], "failures": ["Capacity is unavailable"]}} for call in first["calls"]
    ]
    second = made.scaling.iterate(execution, first["state"], answers)
    assert [call["count"] for call in second["calls"]] == [1]
    refused = [
        call | {"answer": {"Error": "Ecs.ClientException", "Cause": "Rate exceeded"}} for call in second["calls"]
    ]
    third = made.scaling.iterate(execution, second["state"], refused)
    assert (third["action"], "throttled" in third["sentence"]) == ("wait", True)


def test_a_second_execution_finds_the_first_and_ends(made: SimpleNamespace) -> None:
    running(made)
    first, second = begin(made), begin(made)
    made.scaling.iterate(first, {}, [])
    assert made.scaling.iterate(second, {}, [])["action"] == "lost"
    # also one that was started with the generation before
    assert made.scaling.iterate(second, {"generation": 0}, [])["action"] == "lost"
    assert made.table.lease()["execution"] == first


def test_a_successor_takes_the_lease_and_the_predecessor_launches_nothing_any_more(made: SimpleNamespace) -> None:
    running(made)
    first, second = begin(made), begin(made)
    ended = made.scaling.iterate(first, {}, [])["state"] | {"iteration": 500}
    restart = made.scaling.iterate(first, ended, [])
    assert (restart["action"], restart["state"]["iteration"], restart["state"]["generation"]) == ("restart", 0, 1)
    taken = made.scaling.iterate(second, restart["state"], [])
    assert taken["state"]["generation"] == 2
    assert made.table.lease()["execution"] == second
    assert made.scaling.iterate(first, ended, [])["action"] == "lost"
    # the step is tried again after its answer was lost
    assert made.scaling.iterate(second, restart["state"], [])["state"]["generation"] == 2


def test_a_dead_scalers_lease_is_taken_over(made: SimpleNamespace) -> None:
    running(made)
    first, second = begin(made), begin(made)
    made.scaling.iterate(first, {}, [])
    made.states.stop_execution(executionArn=first)
    assert made.scaling.iterate(second, {}, [])["state"]["generation"] == 2


def test_it_stops_without_demand_unless_demand_comes_in_between(
    made: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    execution = begin(made)
    real: Callable[..., Any] = scaling.scaler.decide

    def demand_in_between(**facts: Any) -> Any:
        made.table.announce(0.0)
        return real(**facts)

    monkeypatch.setattr(scaling.scaler, "decide", demand_in_between)
    answer = made.scaling.iterate(execution, {}, [])
    assert (answer["action"], answer["wait"]) == ("wait", 0)
    monkeypatch.setattr(scaling.scaler, "decide", real)
    assert made.scaling.iterate(execution, answer["state"], [])["action"] == "stop"
    assert made.table.lease()["stopped"]
    assert not made.table.work_may_come(time.time())


def test_ensure_starts_one_scaler_and_finds_it_again(made: SimpleNamespace) -> None:
    running(made)
    first = made.scaling.ensure()["scaler"]
    made.scaling.iterate(first, {"generation": 0}, [])
    assert made.scaling.ensure()["scaler"] == first
    made.states.stop_execution(executionArn=first)
    assert made.scaling.ensure(announce=False)["scaler"] != first
    assert made.table.lease()["demand_version"] == 2


def test_ensure_starts_none_after_a_failure_when_no_run_wants_workers(made: SimpleNamespace) -> None:
    assert made.scaling.ensure(announce=False)["scaler"].startswith("none")
    assert made.with_settings(worker_scaling="service").ensure()["scaler"].startswith("none")


def test_workers_expect_work_as_long_as_a_living_scaler_says_so(made: SimpleNamespace) -> None:
    now = time.time()
    assert made.table.work_may_come(now), "before the first scaler"
    made.table.take("a", 0, now)
    assert made.table.work_may_come(now)
    made.table.say(1, True, "large ones are missing", ["standard"])
    assert not made.table.work_may_come(now, "standard")
    assert made.table.work_may_come(now, "large")
    made.table.say(1, False, "nothing")
    assert not made.table.work_may_come(now)
    assert made.table.work_may_come(now + LEASE_SECONDS + 1), "a dead scaler knows nothing"


def test_spending_is_added_up_and_shared_by_the_runs(made: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    running(made, "run-1")
    running(made, "run-2")
    execution = begin(made)
    state = made.scaling.iterate(execution, {}, [])["state"]
    begun = made.table.lease()["accounted"]
    monkeypatch.setattr(made.scaling, "_seen", lambda: dict.fromkeys(("standard", "large"), scaling.Seen(running=10)))
    monkeypatch.setattr(scaling, "time", SimpleNamespace(time=lambda: begun + 36.0))
    made.scaling.iterate(execution, state, [])
    hourly = 10 * sum(place.pool.dollars_per_hour for place in made.scaling.places)
    assert made.table.day_dollars(begun + 36.0) == pytest.approx(hourly / 100, rel=1e-4)
    assert made.table.run("run-1")["fargate_dollars"] == pytest.approx(hourly / 200, rel=1e-4)


def test_a_run_over_its_budget_is_ended(made: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    stopped: list[str] = []
    monkeypatch.setattr(
        clients.client("stepfunctions"), "stop_execution", lambda **call: stopped.append(call["executionArn"])
    )
    running(made, fargate_dollars=2.0)
    answer = made.with_settings(run_budget=1.5).iterate(begin(made), {}, [])
    run = made.table.run("run-1")
    assert (answer["action"], run["status"]) == ("stop", "FAILED")
    assert run["error"].startswith("BudgetSpent")
    assert stopped == ["arn:aws:states:eu-west-1:123456789012:execution:rollup:run-1"]
