"""What a rollup would take on AWS: the shipped scaler and the planner's real waves against the documented quotas.

A discrete-event simulation (simpy). Of riskmill it runs the code itself: `scaler.decide` makes every launch, the
batches are the planner's, placed by the compute strategy. Of AWS it has the quotas of riskmill/quotas.py and the
assumptions below; none of them is a measurement of an account. Times are seconds.

One run: for each wave the Distributed Map starts children at Step Functions' rate; a child's batch runs on Lambda,
within its concurrency, or waits on the queue for a worker; workers start as the scaler (or an ECS service's target
tracking) launches tasks, take batches, and stop when idle. The wave ends with its last batch.
"""

import math
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import simpy

from riskmill import quotas, scaler
from riskmill.scaler import Answer, Limits, Pool, Run, Seen, State

type Scaling = Literal["run-task", "service"]


@dataclass(frozen=True, slots=True)
class Work:
    """One batch: where it runs, its seconds (with reading its inputs), and its requests of S3."""

    target: str
    seconds: float
    reads: int = 0
    writes: int = 0


@dataclass(frozen=True, slots=True)
class Assumptions:
    """What no quota says. Change them to see what they matter."""

    #: from RunTask to RUNNING, and to the worker's first poll; tasks began at 30 s in 2022:
    #: https://www.vladionescu.me/posts/scaling-containers-on-aws-in-2022
    task_start: float = 35.0
    #: ECS shows a launched task after this
    ecs_lag: float = 2.0
    #: one iteration of the scaler beside its wait: observing, and the calls of RunTask, ten at a time
    iteration: float = 1.5
    #: a cold Lambda
    lambda_start: float = 3.0
    #: planning, settling and publishing a run
    around: float = 60.0
    #: reserved concurrency of run_batch
    lambda_concurrency: int = 500
    lambda_gb: float = 3.455
    processes: int = 4
    vcpu: float = 4.0
    gigabytes: float = 16.0
    max_tasks: int = 3_000
    poll: float = 5.0
    idle: float = 900.0
    #: an idle worker stops after this once no run can send work; 0: never before `idle`
    early_stop: float = 20.0


@dataclass(slots=True)
class Outcome:
    """What came out. Dollars are of Fargate, Lambda, Step Functions, SQS and S3 requests together."""

    seconds: float = 0.0
    tasks_launched: int = 0
    #: when the last needed task was launched, and ran
    launched_at: float = 0.0
    ready_at: float = 0.0
    #: task-seconds, and those after the last batch ended
    task_seconds: float = 0.0
    idle_seconds: float = 0.0
    lambda_seconds: float = 0.0
    throttles: int = 0
    batches: dict[str, int] = field(default_factory=dict)
    #: [(second, tasks that ran)], [(second, batches waiting)]
    tasks: list[tuple[float, int]] = field(default_factory=list)
    waiting: list[tuple[float, int]] = field(default_factory=list)
    dollars: dict[str, float] = field(default_factory=dict)
    #: what of the run's seconds a resource was the reason for waiting
    pressure: dict[str, float] = field(default_factory=dict)
    iterations: int = 0

    @property
    def bottleneck(self) -> str:
        """What the run waited for most."""
        return max(self.pressure, key=lambda name: self.pressure[name]) if self.pressure else "nothing"

    @property
    def cost(self) -> float:
        """All dollars."""
        return sum(self.dollars.values())


class _Bucket:
    """A token bucket of AWS."""

    def __init__(self, burst: float, rate: float) -> None:
        self.burst, self.rate, self.tokens, self.at = burst, rate, burst, 0.0

    def take(self, now: float, wanted: int) -> int:
        """Take as many tokens as there are, at most `wanted`; return how many."""
        self.tokens = min(self.burst, self.tokens + self.rate * (now - self.at))
        self.at = now
        taken = min(wanted, int(self.tokens + 1e-9))
        self.tokens -= taken
        return taken


class _Simulation:
    def __init__(self, waves: Sequence[Sequence[Work]], scaling: Scaling, given: Assumptions) -> None:
        self.waves, self.scaling, self.given = waves, scaling, given
        self.env = simpy.Environment()
        self.queue: simpy.Store = simpy.Store(self.env)
        self.lambdas = simpy.Container(self.env, capacity=given.lambda_concurrency, init=given.lambda_concurrency)
        self.launches = _Bucket(quotas.LAUNCH_BURST, quotas.LAUNCH_RATE)
        self.pool = Pool("standard", given.processes, quotas.task_dollars_per_hour(given.vcpu, given.gigabytes))
        self.out = Outcome()
        self.running = self.in_hand = 0
        self.launched: list[tuple[float, int]] = []
        self.ended_tasks = 0
        self.planned, self.wave_began = 0, 0.0
        self.over = self.expects = False
        self.last_batch = 0.0
        self.stops: list[tuple[float, float]] = []
        self.demand = self.env.event()

    def run(self) -> Outcome:
        self.expects = True
        self.env.process(self._rollup())
        self.env.process(self._scaler() if self.scaling == "run-task" else self._service())
        self.env.run()
        out, given = self.out, self.given
        out.idle_seconds = sum(max(0.0, end - max(begun, self.last_batch)) for begun, end in self.stops)
        hourly = self.pool.dollars_per_hour
        children = sum(out.batches.values())
        requests = [work for wave in self.waves for work in wave]
        out.dollars = {
            "Fargate": out.task_seconds / 3600 * hourly,
            "Lambda": out.lambda_seconds * given.lambda_gb * quotas.LAMBDA_GB_SECOND
            + out.batches.get("lambda", 0) * quotas.LAMBDA_REQUEST,
            "Step Functions": (children * 6 + out.iterations * 3) * quotas.TRANSITION,
            "SQS": out.batches.get("fargate", 0) * 4 * quotas.SQS_REQUEST,
            "S3": sum(w.reads for w in requests) * quotas.S3_GET + sum(w.writes for w in requests) * quotas.S3_PUT,
        }
        return out

    # ---- the run

    def _rollup(self) -> Generator[Any, Any]:
        yield self.env.timeout(self.given.around / 2)
        starts = _Bucket(quotas.START_EXECUTION_BURST, quotas.START_EXECUTION_RATE)
        for wave in self.waves:
            self.wave_began = self.env.now
            self.planned = sum(work.target == "fargate" for work in wave)
            if self.planned and not self.demand.triggered:
                self.demand.succeed()
            left = list(wave)
            done = []
            while left:
                taken = starts.take(self.env.now, len(left))
                for work in left[:taken]:
                    done.append(self.env.event())
                    self.out.batches[work.target] = self.out.batches.get(work.target, 0) + 1
                    if work.target == "fargate":
                        self.queue.put((work, done[-1], self.env.now))
                    else:
                        self.env.process(self._on_lambda(work, done[-1]))
                left = left[taken:]
                if left:
                    self._press("StartExecution", 0.1)
                    yield self.env.timeout(0.1)
            yield simpy.AllOf(self.env, done)
        self.last_batch = self.env.now
        self.over = True
        yield self.env.timeout(self.given.around / 2)
        self.out.seconds = self.env.now

    def _press(self, what: str, seconds: float) -> None:
        self.out.pressure[what] = self.out.pressure.get(what, 0.0) + seconds

    def _on_lambda(self, work: Work, done: simpy.Event) -> Generator[Any, Any]:
        begun = self.env.now
        yield self.lambdas.get(1)
        self._press("Lambda concurrency", (self.env.now - begun) / self.given.lambda_concurrency)
        yield self.env.timeout(self.given.lambda_start + work.seconds)
        self.out.lambda_seconds += work.seconds
        self.lambdas.put(1)
        self.last_batch = max(self.last_batch, self.env.now)
        done.succeed()

    # ---- workers

    def _launch(self, count: int) -> int:
        """Ask for tasks; return how many AWS admits."""
        admitted = self.launches.take(self.env.now, count)
        self.out.throttles += count > admitted
        if admitted:
            self.out.tasks_launched += admitted
            self.out.launched_at = self.env.now
            self.launched.append((self.env.now, admitted))
        for _ in range(admitted):
            self.env.process(self._task())
        return admitted

    def _task(self) -> Generator[Any, Any]:
        yield self.env.timeout(self.given.task_start)
        begun = self.env.now
        self.running += 1
        self.out.ready_at = begun
        self.out.tasks.append((begun, self.running))
        yield simpy.AllOf(self.env, [self.env.process(self._worker()) for _ in range(self.given.processes)])
        self.running -= 1
        self.ended_tasks += 1
        self.out.tasks.append((self.env.now, self.running))
        self.stops.append((begun, self.env.now))
        self.out.task_seconds += max(quotas.FARGATE_MINIMUM, self.env.now - begun)

    def _worker(self) -> Generator[Any, Any]:
        last = self.env.now
        while True:
            message = self.queue.get()
            got = yield message | self.env.timeout(self.given.poll)
            if message in got:
                work, done, sent = got[message]
                self._press("workers", (self.env.now - sent) / max(1, self.given.processes * self.given.max_tasks))
                self.in_hand += 1
                yield self.env.timeout(work.seconds)
                self.in_hand -= 1
                self._press("work", work.seconds / max(1, self.given.processes * self.given.max_tasks))
                done.succeed()
                last = self.last_batch = self.env.now
                continue
            message.cancel()
            idle = self.env.now - last
            if idle > self.given.idle or (self.given.early_stop and idle > self.given.early_stop and not self.expects):
                return

    def _shown(self) -> int:
        """Tasks that ECS shows now."""
        return sum(n for at, n in self.launched if at <= self.env.now - self.given.ecs_lag) - self.ended_tasks

    # ---- the scaler, by its own code

    def _scaler(self) -> Generator[Any, Any]:
        yield self.demand
        limits = Limits(max_tasks=self.given.max_tasks)
        state, answers = State(at=self.env.now), list[Answer]()
        while True:
            waiting = len(self.queue.items)
            self.out.waiting.append((self.env.now, waiting))
            fresh = self.env.now - self.wave_began < 60
            later = not self.over
            runs = [] if self.over else [Run("run", {"standard": self.planned if fresh else 0}, expects=later)]
            decision = scaler.decide(
                now=self.env.now,
                state=state,
                limits=limits,
                pools=[self.pool],
                seen={"standard": Seen(waiting, self.in_hand, running=max(0, self._shown()))},
                runs=runs,
                answers=answers,
            )
            self.out.iterations += 1
            state, self.expects = decision.state, decision.expects
            if decision.action == "stop":
                return
            if decision.action == "restart":
                state = State(generation=state.generation + 1, tokens=state.tokens, at=state.at,
                              carried=state.carried, present=state.present)  # fmt: skip
                answers = []
                yield self.env.timeout(1.0)
                continue
            answers = [
                Answer(call.pool, call.provider, call.count, n, ("throttled",) if n < call.count else ())
                for call in decision.calls
                for n in [self._launch(call.count)]
            ]
            yield self.env.timeout(self.given.iteration + math.ceil(decision.wait))

    # ---- an ECS service with target tracking on messages per task

    def _service(self) -> Generator[Any, Any]:
        yield self.demand
        desired, breaches = 0, 0
        minute = _Bucket(quotas.SERVICE_LAUNCHES_A_MINUTE, quotas.SERVICE_LAUNCHES_A_MINUTE / 60)
        minute.tokens = 0.0
        minute.at = self.env.now
        next_point = self.env.now + quotas.TRACKING_PERIOD
        while not (self.over and self.running == 0 and self._shown() <= 0):
            yield self.env.timeout(1.0)
            there = sum(n for _, n in self.launched) - self.ended_tasks
            if self.env.now >= next_point:
                next_point += quotas.TRACKING_PERIOD
                backlog = len(self.queue.items) + self.in_hand
                self.out.waiting.append((self.env.now, len(self.queue.items)))
                breaches = breaches + 1 if backlog > self.given.processes * max(self.running, 1) else 0
                if breaches >= quotas.TRACKING_POINTS:
                    desired = min(self.given.max_tasks, -(-backlog // self.given.processes))
            missing = min(desired - there, minute.take(self.env.now, max(0, desired - there)))
            if missing > 0:
                self._launch(missing)
            if self.over:
                # Scaling in takes fifteen points of low metric; the workers' own idle stop is sooner, if it is on.
                self.expects = False
                desired = 0


def simulate(waves: Sequence[Sequence[Work]], scaling: Scaling, given: Assumptions) -> Outcome:
    """Return what these waves of batches take."""
    return _Simulation(waves, scaling, given).run()


def launch_limit(tasks: int) -> float:
    """Return the seconds in which an account may launch so many tasks: the burst at once, the rest at the rate."""
    return max(0.0, (tasks - quotas.LAUNCH_BURST) / quotas.LAUNCH_RATE)
