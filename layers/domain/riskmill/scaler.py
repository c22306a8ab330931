"""The Fargate scaler's decision: pure, so that one iteration is a row of a table, in a test as in the simulator.

One iteration of statemachines/fargate_scaler.asl.json:

1. `scale_workers` observes (aws/scaling.py): every running run's demand, the queues' depth, the tasks of each cluster,
   how long the execution's history is, what the last calls of RunTask answered, and what was spent.
2. `decide` says one of
   - restart: the history or the iterations are nearly used up, so the successor starts and this execution ends;
   - launch: tasks are missing: these calls of RunTask, ten tasks each;
   - wait: nothing to launch now, look again after some seconds;
   - stop: no demand, no message, nothing announced: the execution ends (on condition that no demand came in between).
3. A Map makes the calls; their answers, `failures[]` included, come back with the next observation.

A crash between any two steps is safe: what runs is counted anew from ECS, a call that is repeated carries the same
client token, and the state that is carried (launch tokens, launches that ECS may not show yet) only makes the successor
of a crashed execution more careful than it need be.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from riskmill.quotas import FARGATE_MINIMUM, HISTORY_EVENTS, LAUNCH_BURST, LAUNCH_RATE, MAP_CHILDREN, TASKS_A_CALL

type Action = Literal["restart", "launch", "wait", "stop"]
type Reason = Literal["throttled", "capacity", "quota", "refused"]

#: ECS shows a launched task within seconds; for this long a launch that it has not shown yet is believed rather than a
#: lower count. Once it was shown, a lower count means that tasks have ended.
BELIEVED_SECONDS = 15.0

#: Seconds between iterations: while tasks are missing (a little less than what refills half of the launch bucket, so
#: that it never overflows), while there is work, and at rest.
LAUNCHING_SECONDS, WORKING_SECONDS, REST_SECONDS = 3.0, 10.0, 60.0

#: A provider without capacity is left alone for so long, if there is another.
CAPACITY_SECONDS = 60.0

#: After a quota was met nothing is launched beyond what ran then, for so long.
QUOTA_SECONDS = 300.0

#: A wave's planned batches count for so long after it began; then the queue knows better.
PLANNED_SECONDS = 60.0

#: Iterations of one execution, as in the system this one replaces.
ITERATIONS = 500

#: History events of the states of a quiet iteration: 5 of the task, 2 of the choice, 2 of the wait.
QUIET_EVENTS = 9
#: More when something is launched: 4 of the Map, and of each call 9 (iteration started and succeeded, the task's 5,
#: the Pass after a refusal 2) and 3 for each of its retries.
MAP_EVENTS, CALL_EVENTS, RETRY_EVENTS = 4, 9, 3
#: Calls and retries at the most (the machine's RunTask state says the same; a test compares them).
MAX_CALLS, CALL_RETRIES = LAUNCH_BURST // TASKS_A_CALL, 4
#: Retries of the observing task itself.
OBSERVE_RETRIES = 6
WORST_ITERATION = (
    QUIET_EVENTS + OBSERVE_RETRIES * RETRY_EVENTS + MAP_EVENTS + MAX_CALLS * (CALL_EVENTS + CALL_RETRIES * RETRY_EVENTS)
)
#: Events of starting the successor and ending, with all retries.
HANDOVER_EVENTS = 40
#: An execution hands over when one more iteration, at its worst, could overrun.
MAX_EVENTS = HISTORY_EVENTS - WORST_ITERATION - HANDOVER_EVENTS

#: What AWS's texts say, most telling first. Throttles come dressed as other exceptions: a ClientException that says
#: "Rate exceeded", or an InvalidParameterException "Error retrieving security group information [...]: Request limit
#: exceeded" (https://github.com/dask/dask-cloudprovider/issues/56).
_REASONS: tuple[tuple[re.Pattern[str], Reason], ...] = (
    (re.compile(r"reached the limit on the number of|vcpu.{0,20}limit|limit.{0,30}vcpu", re.IGNORECASE), "quota"),
    (re.compile(r"throttl|rate exceeded|request ?limit ?exceeded|too ?many ?requests|concurrency", re.I), "throttled"),
    (re.compile(r"capacity|^RESOURCE:|insufficient", re.IGNORECASE), "capacity"),
    (re.compile(r"ServerException|InternalError|ServiceUnavailable|SdkClientException|timeout", re.I), "throttled"),
)


def reason_of(*texts: str) -> Reason:
    """Return what an error of RunTask, or a reason in its `failures[]`, means, whatever exception it is dressed as."""
    text = " ".join(texts).strip()
    return next((reason for pattern, reason in _REASONS if pattern.search(text)), "refused")


@dataclass(frozen=True, slots=True)
class Pool:
    """Workers of one size: a queue, a task definition and a cluster of their own."""

    name: str
    #: batches that one task runs at a time
    processes: int = 1
    dollars_per_hour: float = 0.0


@dataclass(frozen=True, slots=True)
class Limits:
    """What the scaler must not pass, and how it may launch."""

    max_tasks: int = 3_000
    #: dollars of Fargate a run and a day (UTC) may cost
    run_dollars: float = math.inf
    day_dollars: float = math.inf
    #: share of Spot in the mix (0 to 1)
    spot: float = 0.0
    burst: int = LAUNCH_BURST
    rate: float = LAUNCH_RATE
    iterations: int = ITERATIONS
    max_events: int = MAX_EVENTS


@dataclass(frozen=True, slots=True)
class Run:
    """A running run's demand."""

    run_id: str
    #: pool -> batches that are planned for the current wave and may not be on the queue yet
    planned: Mapping[str, int] = field(default_factory=dict)
    #: whether a batch may still come, in this wave or a later one
    expects: bool = False
    dollars: float = 0.0


@dataclass(frozen=True, slots=True)
class Seen:
    """What one observation saw of a pool."""

    visible: int = 0
    in_flight: int = 0
    running: int = 0
    pending: int = 0

    @property
    def backlog(self) -> int:
        """Messages that somebody works on or should."""
        return self.visible + self.in_flight

    @property
    def tasks(self) -> int:
        """Tasks that ECS shows."""
        return self.running + self.pending


@dataclass(frozen=True, slots=True)
class Answer:
    """What one call of RunTask answered."""

    pool: str
    provider: str
    asked: int
    launched: int
    #: of the tasks that did not start: what AWS said, one entry each, or one for the whole call
    reasons: tuple[Reason, ...] = ()


@dataclass(slots=True)
class State:
    """What one iteration hands to the next, and an execution to its successor. JSON through Step Functions."""

    generation: int = 0
    iteration: int = 0
    #: history events by arithmetic, for where the history itself cannot be read
    events: int = 0
    #: launch tokens that are left, and when (seconds) that was
    tokens: float = LAUNCH_BURST
    at: float = 0.0
    #: [when, pool, tasks that there must be since then]
    carried: list[list[Any]] = field(default_factory=list)
    #: pool -> tasks that there were at the last decision
    present: dict[str, int] = field(default_factory=dict)
    #: provider -> until when it is left alone
    avoid: dict[str, float] = field(default_factory=dict)
    #: until when, and at how many tasks, a quota holds
    held_until: float = 0.0
    held_at: int = 0
    #: iterations in a row in which RunTask was throttled or refused everything
    setbacks: int = 0

    def handed_over(self) -> "State":
        """Return what an execution hands to its successor, whose iterations and history begin anew."""
        return State.from_dict(self.to_dict() | {"iteration": 0, "events": 0})

    def to_dict(self) -> dict[str, Any]:
        """Return the state as JSON carries it."""
        return {name: getattr(self, name) for name in self.__slots__}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "State":
        """Read a state; fields that are not there are those of a first iteration."""
        return cls(**{name: value for name, value in data.items() if name in cls.__slots__})


@dataclass(frozen=True, slots=True)
class Call:
    """One call of RunTask."""

    pool: str
    count: int
    provider: str
    token: str


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do now, why (one sentence), and what the next iteration must know."""

    action: Action
    wait: float
    sentence: str
    state: State
    calls: tuple[Call, ...] = ()
    #: whether workers should expect more work; without it an idle one may stop early
    expects: bool = True
    #: pools whose idle workers should end, since they take the place of tasks that are missing in another
    spare: tuple[str, ...] = ()
    #: runs whose budget, or the day's, is spent
    over_budget: tuple[str, ...] = ()


def decide(
    *,
    now: float,
    state: State,
    limits: Limits,
    pools: Sequence[Pool],
    seen: Mapping[str, Seen],
    runs: Sequence[Run],
    answers: Sequence[Answer] = (),
    announced: bool = False,
    day_dollars: float = 0.0,
    history: int = 0,
) -> Decision:
    """Return what one iteration does. Times are seconds of one clock.

    `seen` by pool; `answers` are those of this state's last calls; `announced` tells that a message is about to come;
    `history` is the number of events of this execution so far, or 0 when it cannot be read.
    """
    state = State.from_dict(state.to_dict())
    told = _take_answers(state, answers, seen, limits, now)
    state.iteration += 1
    state.events += QUIET_EVENTS
    present = {pool.name: _present(state, pool.name, seen[pool.name], now) for pool in pools}
    over = tuple(r.run_id for r in runs if r.dollars >= limits.run_dollars or day_dollars >= limits.day_dollars)
    able = [run for run in runs if run.run_id not in over]
    wanted = {pool.name: _wanted(pool, seen[pool.name], able) for pool in pools}
    # Messages without a running run are leftovers of one that was cancelled: the next workers will drop them.
    expects = announced or any(run.expects for run in able) or any(wanted.values())
    saw = _saw(pools, seen, wanted, able) + told
    if over:
        saw += f"; budget spent: {', '.join(over)} ended"

    missing = {pool.name: max(0, wanted[pool.name] - present[pool.name]) for pool in pools}
    room = limits.max_tasks if now >= state.held_until else min(limits.max_tasks, state.held_at)
    crowded = sum(missing.values()) > max(0, room - sum(present.values()))
    spare = tuple(pool.name for pool in pools if crowded and present[pool.name] > wanted[pool.name])

    def decision(action: Action, wait: float, why: str, calls: tuple[Call, ...] = ()) -> Decision:
        return Decision(action, wait, f"{saw}: {action}, {why}", state, calls, expects, spare, over)

    if not expects:
        return decision("stop", 0.0, "no running run has work for workers")
    if state.iteration > limits.iterations:
        return decision("restart", 0.0, f"{limits.iterations} iterations are used up")
    if max(history, state.events) > limits.max_events:
        return decision("restart", 0.0, f"{max(history, state.events):,} events of history, near {HISTORY_EVENTS:,}")

    total, why = _allowed(state, limits, pools, present, missing, able, day_dollars, now)
    if total == 0:
        if not any(missing.values()):
            idle = not any(wanted.values())
            return decision("wait", REST_SECONDS if idle else WORKING_SECONDS, "no task is missing")
        return decision("wait", _delay(state), f"{sum(missing.values()):,} missing but {why}")
    calls = _calls(state, limits, pools, missing, total, now)
    launched = sum(call.count for call in calls)
    state.tokens -= launched
    state.events += MAP_EVENTS + len(calls) * CALL_EVENTS
    rest = sum(missing.values()) - launched
    then = f", {rest:,} more {why}" if rest else ""
    return decision("launch", _delay(state), f"{launched:,} of {sum(missing.values()):,} missing{then}", calls)


def _take_answers(state: State, answers: Sequence[Answer], seen: Mapping[str, Seen], limits: Limits, now: float) -> str:
    """Learn from the last calls: what is launched is carried, what was refused gives its tokens back and has a cause.

    Returns what there is to say of it.
    """
    state.tokens = min(float(limits.burst), state.tokens + limits.rate * max(0.0, now - state.at))
    state.at = now
    reasons = [reason for answer in answers for reason in answer.reasons]
    launched = sum(answer.launched for answer in answers)
    for pool in sorted({answer.pool for answer in answers if answer.launched}):
        new = sum(answer.launched for answer in answers if answer.pool == pool)
        state.carried.append([now, pool, state.present.get(pool, 0) + new])
    for answer in answers:
        if "capacity" in answer.reasons:
            state.avoid[answer.provider] = now + CAPACITY_SECONDS
    if "quota" in reasons:
        state.held_until, state.held_at = now + QUOTA_SECONDS, sum(pool.tasks for pool in seen.values())
    if "throttled" in reasons:
        state.tokens = 0.0  # somebody else launches too, or our count is wrong: begin with an empty bucket
    state.setbacks = state.setbacks + 1 if answers and not launched else 0
    if not reasons:
        return ""
    counts = ", ".join(f"{reasons.count(reason)} {reason}" for reason in dict.fromkeys(reasons))
    return f"; of the last calls {counts}"


def _present(state: State, pool: str, seen: Seen, now: float) -> int:
    """Return the tasks of a pool: what ECS shows, or what launches of the last seconds say if that is more."""
    state.carried = [
        c for c in state.carried if c[0] > now - BELIEVED_SECONDS and not (c[1] == pool and seen.tasks >= c[2])
    ]
    state.present[pool] = max([seen.tasks, *(int(c[2]) for c in state.carried if c[1] == pool)])
    return state.present[pool]


def _wanted(pool: Pool, seen: Seen, runs: Sequence[Run]) -> int:
    """Return the tasks that a pool's work can use: one process a batch. Without a run, messages are only leftovers."""
    # However many batches a wave has, its Map does not send more of them at a time.
    planned = sum(min(run.planned.get(pool.name, 0), MAP_CHILDREN) for run in runs)
    batches = max(seen.backlog, planned) if runs else 0
    return -(-batches // pool.processes)


def _allowed(
    state: State,
    limits: Limits,
    pools: Sequence[Pool],
    present: Mapping[str, int],
    missing: Mapping[str, int],
    runs: Sequence[Run],
    day_dollars: float,
    now: float,
) -> tuple[int, str]:
    """Return how many tasks may be launched now, and what holds the rest back."""
    bounds = [(sum(missing.values()), "")]
    there = sum(present.values())
    bounds.append((limits.max_tasks - there, f"held by MaxTasks {limits.max_tasks:,}"))
    if now < state.held_until:
        bounds.append((state.held_at - there, f"held by the account's quota at {state.held_at:,} tasks"))
    bounds.append((int(state.tokens + 1e-6), f"at the launch rate ({limits.burst} at once, {limits.rate:g}/s)"))
    bounds.append((MAX_CALLS * TASKS_A_CALL, "in the next iteration"))
    price = max((pool.dollars_per_hour for pool in pools if missing[pool.name]), default=0.0)
    if price:
        # Each task costs at least a minute, those that run already go on for as long: the budget must cover them all.
        a_minute = price * FARGATE_MINIMUM / 3600
        left = min(
            limits.day_dollars - day_dollars,
            sum(limits.run_dollars - run.dollars for run in runs) if runs else math.inf,
        )
        if math.isfinite(left):
            bounds.append((int(left / a_minute) - there, f"held by the budget (${left:,.2f} left)"))
    total, why = min(bounds, key=lambda bound: bound[0])
    return max(0, total), why


def _calls(
    state: State, limits: Limits, pools: Sequence[Pool], missing: Mapping[str, int], total: int, now: float
) -> tuple[Call, ...]:
    """Cut the launches into calls. Large tasks first: few, and somebody's batch has waited long already."""
    calls: list[Call] = []
    for pool in reversed(pools):
        left = min(missing[pool.name], total)
        total -= left
        spot = _spot(state, limits, left, now)
        for provider, count in (("FARGATE_SPOT", spot), ("FARGATE", left - spot)):
            while count > 0 and len(calls) < MAX_CALLS:
                size = min(TASKS_A_CALL, count)
                token = f"{state.generation}-{state.iteration}-{len(calls)}"
                calls.append(Call(pool.name, size, provider, token))
                count -= size
    return tuple(calls)


def _spot(state: State, limits: Limits, count: int, now: float) -> int:
    """Return how many of these tasks are asked of Spot: the share wanted, or where there is capacity."""
    away = {provider for provider, until in state.avoid.items() if until > now}
    if "FARGATE_SPOT" in away and "FARGATE" not in away:
        return 0
    if "FARGATE" in away and "FARGATE_SPOT" not in away and limits.spot > 0:
        return count
    return round(count * limits.spot)


def _delay(state: State) -> float:
    """Seconds until the next look while tasks are missing: longer the more often nothing could be launched."""
    return min(REST_SECONDS, LAUNCHING_SECONDS * 2.0 ** min(state.setbacks, 10))


def _saw(pools: Sequence[Pool], seen: Mapping[str, Seen], wanted: Mapping[str, int], runs: Sequence[Run]) -> str:
    parts = []
    for pool in pools:
        it = seen[pool.name]
        if it.backlog or it.tasks or wanted[pool.name]:
            parts.append(
                f"{pool.name}: {it.visible:,} waiting, {it.in_flight:,} in hand, {it.running:,} running, "
                f"{it.pending:,} pending, {wanted[pool.name]:,} wanted"
            )
    demand = f"{len(runs)} run(s)" if runs else "no run"
    return "; ".join([demand, *parts]) if parts else f"{demand}, nothing queued, no tasks"
