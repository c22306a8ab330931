"""The scaler's decisions as tables, and whole ramps by calling it again and again."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from riskmill import scaler
from riskmill.quotas import HISTORY_EVENTS, LAUNCH_BURST, LAUNCH_RATE, TASKS_A_CALL
from riskmill.scaler import Answer, Decision, Limits, Pool, Run, Seen, State, decide, reason_of

MACHINE = Path(__file__).resolve().parents[2] / "statemachines" / "fargate_scaler.asl.json"
STANDARD, LARGE = Pool("standard", processes=4, dollars_per_hour=0.2), Pool("large", dollars_per_hour=0.3)
POOLS = (STANDARD, LARGE)
BUSY = Run("run-1", expects=True)


def look(
    standard: Seen | None = None, *, large: Seen | None = None, runs: tuple[Run, ...] = (BUSY,), **more: Any
) -> Decision:
    """Decide on what a test saw at second 1,000 with a full bucket, unless it says otherwise."""
    facts: dict[str, Any] = {"now": 1_000.0, "state": State(at=1_000.0), "limits": Limits()}
    return decide(
        pools=POOLS, seen={"standard": standard or Seen(), "large": large or Seen()}, runs=runs, **(facts | more)
    )


def counts(decision: Decision, pool: str = "standard") -> int:
    return sum(call.count for call in decision.calls if call.pool == pool)


@pytest.mark.parametrize(
    ("seen", "launched"),
    [
        # (visible, in flight, running, pending): one task of four processes for four batches
        (Seen(1, 0, 0, 0), 1),
        (Seen(4, 0, 0, 0), 1),
        (Seen(5, 0, 0, 0), 2),
        (Seen(40, 0, 0, 0), 10),
        (Seen(40, 0, 4, 2), 4),
        (Seen(10, 30, 4, 2), 4),
        (Seen(0, 40, 10, 0), 0),
        (Seen(0, 0, 3, 0), 0),
        # no more than the burst at once
        (Seen(4_000, 0, 0, 0), LAUNCH_BURST),
    ],
)
def test_exactly_the_missing_tasks_are_launched(seen: Seen, launched: int) -> None:
    decision = look(seen)
    assert counts(decision) == launched
    assert decision.action == ("launch" if launched else "wait")
    assert max([call.count for call in decision.calls], default=0) <= TASKS_A_CALL


def test_what_is_planned_is_launched_before_its_messages_are_there() -> None:
    assert counts(look(runs=(Run("run-1", {"standard": 40}, expects=True),))) == 10
    # messages that have arrived meanwhile are the same batches
    assert counts(look(Seen(visible=25), runs=(Run("run-1", {"standard": 40}, expects=True),))) == 10


def test_no_more_is_launched_than_a_map_can_have_sent() -> None:
    """A wave of 50,000 batches has 10,000 of them on the queue at a time: work for 2,500 tasks of four processes."""
    state = State(at=1_000.0, tokens=9_000.0, present={})
    decision = look(
        runs=(Run("run-1", {"standard": 50_000}, expects=True),),
        state=state,
        limits=Limits(burst=9_000, max_tasks=9_000),
    )
    assert "2,500 wanted" in decision.sentence


def test_each_size_has_tasks_of_its_own() -> None:
    decision = look(Seen(visible=8), large=Seen(visible=3))
    assert (counts(decision), counts(decision, "large")) == (2, 3)
    assert len({call.token for call in decision.calls}) == len(decision.calls)


@pytest.mark.parametrize(
    ("facts", "action"),
    [
        ({"runs": ()}, "stop"),
        ({"runs": (Run("run-1"),)}, "stop"),
        ({"runs": (), "announced": True}, "wait"),
        ({"runs": (Run("run-1", expects=True),)}, "wait"),
        # leftovers of a cancelled run are nobody's work
        ({"standard": Seen(visible=7, running=3), "runs": ()}, "stop"),
        # what a running run escalated is work, planned or not
        ({"standard": Seen(visible=1), "runs": (Run("run-1"),)}, "launch"),
        ({"standard": Seen(in_flight=1, running=1), "runs": (Run("run-1"),)}, "wait"),
    ],
)
def test_it_stops_when_nothing_can_come_and_not_before(facts: dict[str, Any], action: str) -> None:
    assert look(**facts).action == action


@pytest.mark.parametrize(
    ("facts", "expects"),
    [
        ({"runs": (Run("run-1", expects=True),)}, True),
        ({"runs": (Run("run-1"),)}, False),
        ({"runs": (Run("run-1"),), "announced": True}, True),
        ({"standard": Seen(in_flight=1, running=1), "runs": (Run("run-1"),)}, True),
    ],
)
def test_idle_workers_hear_whether_work_may_come(facts: dict[str, Any], expects: bool) -> None:
    assert look(**facts).expects is expects


@pytest.mark.parametrize(
    ("facts", "action"),
    [
        ({"state": State(at=1_000.0, iteration=499)}, "launch"),
        ({"state": State(at=1_000.0, iteration=500)}, "restart"),
        ({"history": scaler.MAX_EVENTS}, "launch"),
        ({"history": scaler.MAX_EVENTS + 1}, "restart"),
        # where the history cannot be read, arithmetic counts it
        ({"state": State(at=1_000.0, events=scaler.MAX_EVENTS)}, "restart"),
    ],
)
def test_it_hands_over_after_500_iterations_or_near_the_end_of_its_history(facts: dict[str, Any], action: str) -> None:
    assert look(Seen(visible=40), **facts).action == action


def test_the_rest_is_waited_for_at_rest_and_looked_at_often_while_tasks_are_missing() -> None:
    assert look().wait == scaler.REST_SECONDS
    assert look(Seen(in_flight=4, running=1)).wait == scaler.WORKING_SECONDS
    assert look(Seen(visible=4_000)).wait == scaler.LAUNCHING_SECONDS


def test_launches_that_ecs_does_not_show_yet_are_not_made_again() -> None:
    first = look(Seen(visible=40))
    answers = [Answer(call.pool, call.provider, call.count, call.count) for call in first.calls]
    second = look(Seen(visible=40), state=first.state, now=1_003.0, answers=answers)
    assert second.action == "wait"
    # one of them never came: it is missed once the launch is no longer believed
    late = look(Seen(visible=40, running=9), state=second.state, now=1_003.0 + scaler.BELIEVED_SECONDS)
    assert counts(late) == 1


def test_a_task_that_died_is_replaced() -> None:
    assert counts(look(Seen(visible=2, in_flight=38, running=9))) == 1


@pytest.mark.parametrize(
    ("error", "cause", "reason"),
    [
        ("Ecs.ThrottlingException", "Rate exceeded", "throttled"),
        ("Ecs.ClientException", "Rate exceeded", "throttled"),
        # https://github.com/dask/dask-cloudprovider/issues/56
        (
            "Ecs.InvalidParameterException",
            "Error retrieving security group information for [sg-1]: Request limit exceeded. "
            "(ErrorCode: RequestLimitExceeded)",
            "throttled",
        ),
        ("Ecs.ServerException", "Service Unavailable. Please try again later.", "throttled"),
        ("", "Capacity is unavailable at this time. Please try again later or in a different availability zone",
         "capacity"),
        ("", "RESOURCE:ENI", "capacity"),
        ("Ecs.ClientException", "You've reached the limit on the number of vCPUs you can run concurrently", "quota"),
        ("", "You've reached the limit on the number of tasks you can run concurrently", "quota"),
        ("Ecs.AccessDeniedException", "not authorized to perform ecs:RunTask", "refused"),
        ("Ecs.ClientException", "Unable to find task definition", "refused"),
    ],
)  # fmt: skip
def test_what_aws_says_is_understood_whatever_it_is_dressed_as(error: str, cause: str, reason: str) -> None:
    assert reason_of(error, cause) == reason


def refused(reason: scaler.Reason, provider: str = "FARGATE") -> list[Answer]:
    return [Answer("standard", provider, 10, 0, (reason,))]


def test_after_a_throttle_it_begins_with_an_empty_bucket_and_waits_longer_each_time() -> None:
    decision = look(Seen(visible=400), answers=refused("throttled"))
    assert decision.action == "wait"
    assert "launch rate" in decision.sentence
    assert "1 throttled" in decision.sentence
    waits = []
    state = State(at=1_000.0)
    for number in range(8):
        decision = look(Seen(visible=400), state=state, answers=refused("throttled"), now=1_000.0 + number)
        state = decision.state
        waits.append(decision.wait)
    assert waits == [6, 12, 24, 48, 60, 60, 60, 60]
    # tokens come back at the launch rate
    assert counts(look(Seen(visible=400), state=state, now=1_009.0)) == math.floor(2 * LAUNCH_RATE)


def test_without_capacity_the_other_provider_is_asked() -> None:
    mixed = Limits(spot=0.5)
    asked = {call.provider: call.count for call in look(Seen(visible=80), limits=mixed).calls}
    assert asked == {"FARGATE_SPOT": 10, "FARGATE": 10}
    decision = look(Seen(visible=80), limits=mixed, answers=refused("capacity", "FARGATE_SPOT"))
    assert {call.provider for call in decision.calls} == {"FARGATE"}
    decision = look(Seen(visible=80), limits=mixed, answers=refused("capacity", "FARGATE"))
    assert {call.provider for call in decision.calls} == {"FARGATE_SPOT"}
    # nobody asked for Spot: it is not used
    decision = look(Seen(visible=80), answers=refused("capacity", "FARGATE"))
    assert {call.provider for call in decision.calls} == {"FARGATE"}


def test_part_of_a_call_that_failed_is_carried_into_the_next_iteration() -> None:
    """Seven of ten started, three found no capacity: exactly three are still missing."""
    first = look(Seen(visible=40))
    answers = [Answer("standard", "FARGATE", 10, 7, ("capacity",) * 3)]
    second = look(Seen(visible=40), state=first.state, now=1_005.0, answers=answers)
    assert counts(second) == 3
    assert "3 capacity" in second.sentence


def test_a_quota_holds_at_what_ran_and_is_tried_again_later() -> None:
    held = look(Seen(visible=400, running=6), answers=refused("quota"))
    assert held.action == "wait"
    assert "quota at 6 tasks" in held.sentence
    assert counts(look(Seen(visible=400, running=4), state=held.state, now=1_010.0)) == 2
    later = look(Seen(visible=400, running=6), state=held.state, now=1_001.0 + scaler.QUOTA_SECONDS)
    assert counts(later) == 94


@pytest.mark.parametrize(
    ("limits", "facts", "launched", "word"),
    [
        (Limits(max_tasks=7), {}, 5, "MaxTasks 7"),
        # a minute of a task costs a third of a cent
        (Limits(day_dollars=1.0), {"day_dollars": 0.98}, 4, "budget"),
        (Limits(run_dollars=0.02), {"runs": (Run("run-1", expects=True, dollars=0.005),)}, 2, "budget"),
        (Limits(day_dollars=100.0), {"day_dollars": 1.0}, 98, ""),
    ],
)
def test_max_tasks_and_budgets_are_never_passed(
    limits: Limits, facts: dict[str, Any], launched: int, word: str
) -> None:
    decision = look(Seen(visible=400, running=2), limits=limits, **facts)
    assert counts(decision) == launched
    assert word in decision.sentence


def test_a_run_whose_budget_is_spent_is_named_and_its_work_counts_no_more() -> None:
    spent = Run("run-1", {"standard": 40}, expects=True, dollars=5.0)
    decision = look(runs=(spent,), limits=Limits(run_dollars=5.0))
    assert decision.over_budget == ("run-1",)
    assert decision.action == "stop"
    both = look(runs=(spent, Run("run-2", {"standard": 8}, expects=True)), limits=Limits(run_dollars=5.0))
    assert (both.over_budget, counts(both)) == (("run-1",), 2)
    other = Run("run-2", expects=True)
    assert look(runs=(spent, other), limits=Limits(day_dollars=3.0), day_dollars=3.0).over_budget == ("run-1", "run-2")


@pytest.mark.parametrize(
    ("facts", "sentence"),
    [
        (
            {"standard": Seen(9, 1, 1, 1)},
            "1 run(s); standard: 9 waiting, 1 in hand, 1 running, 1 pending, 3 wanted: launch, 1 of 1 missing",
        ),
        ({"runs": ()}, "no run, nothing queued, no tasks: stop, no running run has work for workers"),
        (
            {"standard": Seen(visible=440)},
            "1 run(s); standard: 440 waiting, 0 in hand, 0 running, 0 pending, 110 wanted: launch, 100 of 110 missing, "
            "10 more at the launch rate (100 at once, 20/s)",
        ),
    ],
)
def test_one_sentence_says_what_it_saw_and_decided_and_why(facts: dict[str, Any], sentence: str) -> None:
    assert look(**facts).sentence == sentence


def test_the_state_survives_json() -> None:
    state = look(Seen(visible=40)).state
    assert State.from_dict(json.loads(json.dumps(state.to_dict()))) == state


def ramp(tasks: int, *, period: float = 5.0, shown_after: float = 0.0) -> tuple[float, int]:
    """Launch as the machine would; return when the last task was launched, and how many were."""
    state, now, launched = State(at=0.0), 0.0, [(-1e9, 0)]
    answers: list[Answer] = []
    while True:
        shown = sum(count for when, count in launched if when <= now - shown_after)
        decision = look(
            Seen(visible=4 * tasks, running=shown), state=state, now=now, answers=answers, limits=Limits(tasks)
        )
        if decision.action != "launch" and sum(count for _, count in launched) >= tasks:
            return launched[-1][0], sum(count for _, count in launched)
        answers = [Answer(call.pool, call.provider, call.count, call.count) for call in decision.calls]
        if counts(decision):
            launched.append((now, counts(decision)))
        state, now = decision.state, now + period
        assert now < 10_000


@pytest.mark.parametrize("shown_after", [0.0, 4.0, 12.0])
def test_3_000_tasks_are_launched_at_the_accounts_rate_and_not_one_more(shown_after: float) -> None:
    seconds, launched = ramp(3_000, shown_after=shown_after)
    assert launched == 3_000
    assert seconds == (3_000 - LAUNCH_BURST) / LAUNCH_RATE


def test_the_worst_iteration_and_the_handover_fit_in_what_is_left_of_the_history() -> None:
    """The constants are those of the machine: its calls, its retries, and the events that AWS writes for each."""
    machine = json.loads(MACHINE.read_text())
    launch = machine["States"]["Launch"]
    run_task = launch["ItemProcessor"]["States"]["RunTask"]
    assert max(retry["MaxAttempts"] for retry in run_task["Retry"]) == scaler.CALL_RETRIES
    assert max(retry["MaxAttempts"] for retry in machine["States"]["Scale"]["Retry"]) == scaler.OBSERVE_RETRIES
    assert scaler.MAX_CALLS * TASKS_A_CALL == LAUNCH_BURST
    assert scaler.MAX_EVENTS + scaler.WORST_ITERATION + scaler.HANDOVER_EVENTS == HISTORY_EVENTS
    assert scaler.MAX_EVENTS > 24_000
    # 500 quiet iterations are far from it; 500 that all launch would not fit, so the history ends those earlier
    assert 500 * scaler.QUIET_EVENTS < scaler.MAX_EVENTS < 500 * scaler.WORST_ITERATION


def test_idle_tasks_of_one_size_make_room_for_missing_ones_of_the_other() -> None:
    """All places are taken by standard tasks, one of them idle: its worker is told to end, then a large one starts."""
    full = Limits(max_tasks=2)
    crowded = look(Seen(in_flight=4, running=2), large=Seen(visible=1), limits=full)
    assert (crowded.action, crowded.spare) == ("wait", ("standard",))
    assert "held by MaxTasks 2" in crowded.sentence
    relieved = look(Seen(in_flight=4, running=1), large=Seen(visible=1), limits=full, state=crowded.state, now=1_020.0)
    assert (counts(relieved), counts(relieved, "large"), relieved.spare) == (0, 1, ())


def test_idle_tasks_are_kept_while_there_is_room_for_others() -> None:
    kept = look(Seen(in_flight=4, running=2), large=Seen(visible=1), limits=Limits(max_tasks=3))
    assert (counts(kept, "large"), kept.spare) == (1, ())


def test_a_launch_that_was_shown_is_not_believed_any_more_when_its_task_has_ended() -> None:
    launched = look(Seen(visible=1))
    answers = [Answer("standard", "FARGATE", 1, 1)]
    unseen = look(Seen(visible=1), state=launched.state, now=1_001.0, answers=answers)
    assert counts(unseen) == 0
    shown = look(Seen(in_flight=1, pending=1), state=unseen.state, now=1_002.0)
    assert counts(shown) == 0
    killed = look(Seen(in_flight=1), state=shown.state, now=1_003.0)
    assert counts(killed) == 1
