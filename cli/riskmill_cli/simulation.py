"""What a rollup would take on AWS: the shipped scaler and the planner's real waves against the documented quotas.

A discrete-event simulation (simpy). Of riskmill it runs the code itself: `scaler.decide` makes every launch, the
batches are the planner's, placed by the compute strategy. Of AWS it has the quotas of riskmill/quotas.py and the
assumptions below; none of them is a measurement of an account. Times are seconds.

One run: for each wave the Distributed Map starts children, at most 10,000 at a time, at Step Functions' rates. A
child's batch runs on Lambda, within its concurrency and the growth of its environments, or waits on the queue of its
size for a worker. Workers start as the scaler (or ECS services' target tracking) launches tasks, take batches, and
stop when idle. A batch reads and writes within S3's rates of the prefixes, and beats and answers within the rate of
task callbacks. The wave ends with its last batch. (The 120,000 messages that may be in flight are above what a Map can
have sent.)
"""

import math
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import simpy

from riskmill import quotas, scaler
from riskmill.scaler import PLANNED_SECONDS, Answer, Limits, Pool, Run, Seen, State

type Scaling = Literal["run-task", "service"]

#: State transitions of a batch's child execution: TakeItem, Where, the task, what comes of it, Done.
CHILD_TRANSITIONS = 5

#: Transitions of one iteration of the scaler: Scale, Decided, Pause.
ITERATION_TRANSITIONS = 3

#: Requests of SQS for a batch: sent, received, visibility, deleted.
BATCH_MESSAGES = 4


@dataclass(frozen=True, slots=True)
class Work:
    """One batch: where it runs, its seconds (with reading its inputs), its requests of S3, and its task's size."""

    target: str
    seconds: float
    reads: int = 0
    writes: int = 0
    size: str = "standard"


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
    #: a cold Lambda; a warm one starts in no time
    lambda_start: float = 3.0
    #: planning before the first wave; settling and publishing after the last
    before: float = 30.0
    after: float = 30.0
    #: from one wave's last batch to the first message of the next
    between_waves: float = 1.0
    #: a batch beside its jobs: claim, manifest, answer, and the next message
    batch_overhead: float = 0.2
    #: reserved concurrency of run_batch
    lambda_concurrency: int = 500
    lambda_gb: float = 3.455
    processes: int = 4
    vcpu: float = 4.0
    gigabytes: float = 16.0
    large_gigabytes: float = 30.0
    max_tasks: int = 3_000
    poll: float = 5.0
    #: seconds between a worker's beats for its token
    heartbeat: float = 300.0
    idle: float = 900.0
    #: an idle worker stops after this once no run can send work; 0: never before `idle`
    early_stop: float = 20.0
    #: the scaler waits no longer than this between iterations; 0: as long as it decides
    longest_wait: float = 0.0
    #: prefixes of `parts/` that S3 has partitions for: 256 where runs are frequent, 1 where all have merged back
    s3_prefixes: int = 256


@dataclass(slots=True)
class Outcome:
    """What came out. Dollars are of Fargate, Lambda, Step Functions, SQS and S3 requests together."""

    seconds: float = 0.0
    tasks_launched: int = 0
    #: when the last task was launched, and ran
    launched_at: float = 0.0
    ready_at: float = 0.0
    #: task-seconds, and those after the last batch ended
    task_seconds: float = 0.0
    idle_seconds: float = 0.0
    lambda_seconds: float = 0.0
    #: service -> requests that its quota made wait, or refused
    throttled: dict[str, int] = field(default_factory=dict)
    batches: dict[str, int] = field(default_factory=dict)
    #: [(second, how many)]: tasks that run, batches on the queues, batches on Lambda
    tasks: list[tuple[float, int]] = field(default_factory=list)
    waiting: list[tuple[float, int]] = field(default_factory=list)
    lambdas: list[tuple[float, int]] = field(default_factory=list)
    dollars: dict[str, float] = field(default_factory=dict)
    #: what batches waited for or did -> seconds of all of them together
    pressure: dict[str, float] = field(default_factory=dict)
    iterations: int = 0

    @property
    def throttles(self) -> int:
        """All requests that a quota made wait."""
        return sum(self.throttled.values())

    @property
    def bottleneck(self) -> str:
        """What batches spent most time on: their work, or waiting for one thing."""
        return max(self.pressure, key=lambda name: self.pressure[name]) if self.pressure else "nothing"

    @property
    def cost(self) -> float:
        """All dollars."""
        return sum(self.dollars.values())


class _Bucket:
    """A token bucket of AWS."""

    def __init__(self, burst: float, rate: float) -> None:
        self.burst, self.rate, self.tokens, self.at = burst, rate, burst, 0.0
        #: tokens a second that something takes all the time
        self.drain = 0.0

    def _refill(self, now: float) -> None:
        self.tokens = min(self.burst, self.tokens + (self.rate - self.drain) * (now - self.at))
        self.at = now

    def drained(self, now: float, drain: float) -> None:
        """From now on, something takes so many tokens a second."""
        self._refill(now)
        self.drain = drain

    def take(self, now: float, wanted: int) -> int:
        """Take as many tokens as there are, at most `wanted`; return how many."""
        self._refill(now)
        taken = min(wanted, int(self.tokens + 1e-9))
        self.tokens -= taken
        return taken

    def reserve(self, now: float, wanted: float) -> float:
        """Take tokens, those to come included; return the seconds until they are there."""
        self._refill(now)
        self.tokens -= wanted
        return max(0.0, -self.tokens / self.rate)


class _Pool:
    """Workers of one size: their queue, and their tasks as they are launched, run and end."""

    def __init__(self, env: simpy.Environment, name: str, processes: int, hourly: float) -> None:
        self.pool = Pool(name, processes, hourly)
        self.queue: simpy.Store = simpy.Store(env)
        self.launched: list[tuple[float, int]] = []
        self.running = self.in_hand = self.ended = self.planned = 0
        #: [(began to run, ended)] of each task
        self.lives: list[tuple[float, float]] = []

    def there(self) -> int:
        """Tasks that were launched and have not ended."""
        return sum(count for _, count in self.launched) - self.ended

    def shown(self, now: float, lag: float) -> int:
        """Tasks that ECS shows."""
        return max(0, sum(count for at, count in self.launched if at <= now - lag) - self.ended)


class _Simulation:
    def __init__(self, waves: Sequence[Sequence[Work]], scaling: Scaling, given: Assumptions) -> None:
        self.waves, self.scaling, self.given = waves, scaling, given
        self.env = env = simpy.Environment()
        self.lambdas = simpy.Container(env, capacity=given.lambda_concurrency, init=given.lambda_concurrency)
        self.children = simpy.Container(env, capacity=quotas.MAP_CHILDREN, init=quotas.MAP_CHILDREN)
        self.warm = self.on_lambda = 0
        price = quotas.task_dollars_per_hour
        self.pools = {
            "standard": _Pool(env, "standard", given.processes, price(given.vcpu, given.gigabytes)),
            "large": _Pool(env, "large", 1, price(given.vcpu, given.large_gigabytes)),
        }
        self.launches = _Bucket(quotas.LAUNCH_BURST, quotas.LAUNCH_RATE)
        self.starts = _Bucket(quotas.START_EXECUTION_BURST, quotas.START_EXECUTION_RATE)
        self.transitions = _Bucket(quotas.STATE_TRANSITIONS, quotas.STATE_TRANSITIONS)
        self.callbacks = _Bucket(quotas.TASK_CALLBACK_BURST, quotas.TASK_CALLBACK_RATE)
        self.environments = _Bucket(quotas.LAMBDA_GROWTH_A_10_S, quotas.LAMBDA_GROWTH_A_10_S / 10)
        reads, writes = quotas.S3_READS * given.s3_prefixes, quotas.S3_WRITES * given.s3_prefixes
        self.reads, self.writes = _Bucket(reads, reads), _Bucket(writes, writes)
        self.out = Outcome()
        self.wave_began = self.last_batch = 0.0
        self.over = self.expects = self.to_come = self.scaled_in = False
        self.demand = env.event()

    def run(self) -> Outcome:
        self.expects = True
        self.env.process(self._rollup())
        self.env.process(self._scaler() if self.scaling == "run-task" else self._service())
        self.env.run()
        out, given = self.out, self.given
        fargate = 0.0
        for pool in self.pools.values():
            seconds = sum(max(quotas.FARGATE_MINIMUM, end - begun) for begun, end in pool.lives)
            out.task_seconds += seconds
            out.idle_seconds += sum(max(0.0, end - max(begun, self.last_batch)) for begun, end in pool.lives)
            fargate += seconds / 3600 * pool.pool.dollars_per_hour
        work = [work for wave in self.waves for work in wave]
        transitions = len(work) * CHILD_TRANSITIONS + out.iterations * ITERATION_TRANSITIONS
        out.dollars = {
            "Fargate": fargate,
            "Lambda": out.lambda_seconds * given.lambda_gb * quotas.LAMBDA_GB_SECOND
            + out.batches.get("lambda", 0) * quotas.LAMBDA_REQUEST,
            "Step Functions": transitions * quotas.TRANSITION,
            "SQS": out.batches.get("fargate", 0) * BATCH_MESSAGES * quotas.SQS_REQUEST,
            "S3": sum(w.reads for w in work) * quotas.S3_GET + sum(w.writes for w in work) * quotas.S3_PUT,
        }
        return out

    # ---- the run

    def _rollup(self) -> Generator[Any, Any]:
        yield self.env.timeout(self.given.before)
        for number, wave in enumerate(self.waves):
            self.wave_began = self.env.now
            self.to_come = any(work.target == "fargate" for later in self.waves[number:] for work in later)
            for pool in self.pools.values():
                pool.planned = sum(work.target == "fargate" and work.size == pool.pool.name for work in wave)
            if any(pool.planned for pool in self.pools.values()) and not self.demand.triggered:
                self.demand.succeed()
            done = []
            for work in wave:
                begun = self.env.now
                yield self.children.get(1)
                if self.env.now > begun:
                    self._press("Distributed Map's children", self.env.now - begun)
                yield from self._reserve("Step Functions' executions", self.starts, 1)
                yield from self._reserve("Step Functions' transitions", self.transitions, CHILD_TRANSITIONS)
                self.out.batches[work.target] = self.out.batches.get(work.target, 0) + 1
                done.append(self.env.event())
                if work.target == "fargate":
                    self.pools[work.size].queue.put((work, done[-1], self.env.now))
                else:
                    self.env.process(self._on_lambda(work, done[-1]))
            yield simpy.AllOf(self.env, done)
            yield self.env.timeout(self.given.between_waves)
        self.over = True
        if not self.demand.triggered:
            self.demand.succeed()
        yield self.env.timeout(self.given.after)
        self.out.seconds = self.env.now

    def _press(self, what: str, seconds: float) -> None:
        self.out.pressure[what] = self.out.pressure.get(what, 0.0) + seconds

    def _reserve(self, what: str, bucket: _Bucket, count: float) -> Generator[Any, Any]:
        """Wait until a quota allows so many requests."""
        wait = bucket.reserve(self.env.now, count)
        if wait > 0:
            self.out.throttled[what] = self.out.throttled.get(what, 0) + 1
            self._press(what, wait)
            yield self.env.timeout(wait)

    def _work(self, work: Work) -> Generator[Any, Any]:
        """Do a batch's work, between its reads and its writes."""
        yield from self._reserve("S3 reads", self.reads, work.reads)
        yield self.env.timeout(work.seconds + self.given.batch_overhead)
        self._press("work", work.seconds + self.given.batch_overhead)
        yield from self._reserve("S3 writes", self.writes, work.writes)

    def _ended(self, done: simpy.Event) -> None:
        self.last_batch = self.env.now
        self.children.put(1)
        done.succeed()

    def _on_lambda(self, work: Work, done: simpy.Event) -> Generator[Any, Any]:
        begun = self.env.now
        yield self.lambdas.get(1)
        self._press("Lambda concurrency", self.env.now - begun)
        self.on_lambda += 1
        self.out.lambdas.append((self.env.now, self.on_lambda))
        if self.warm:
            self.warm -= 1
        else:
            yield from self._reserve("Lambda's growth", self.environments, 1)
            yield self.env.timeout(self.given.lambda_start)
            self._press("Lambda starts", self.given.lambda_start)
        begun = self.env.now
        yield from self._work(work)
        self.out.lambda_seconds += self.env.now - begun
        self.on_lambda -= 1
        self.out.lambdas.append((self.env.now, self.on_lambda))
        self.warm += 1
        self.lambdas.put(1)
        self._ended(done)

    # ---- workers

    def _launch(self, pool: _Pool, count: int) -> int:
        """Ask for tasks; return how many AWS admits."""
        admitted = self.launches.take(self.env.now, count)
        if count > admitted:
            self.out.throttled["Fargate launches"] = self.out.throttled.get("Fargate launches", 0) + 1
        if admitted:
            self.out.tasks_launched += admitted
            self.out.launched_at = self.env.now
            pool.launched.append((self.env.now, admitted))
        for _ in range(admitted):
            self.env.process(self._task(pool))
        return admitted

    def _task(self, pool: _Pool) -> Generator[Any, Any]:
        yield self.env.timeout(self.given.task_start)
        begun = self.env.now
        pool.running += 1
        self.out.ready_at = begun
        self._note_tasks()
        yield simpy.AllOf(self.env, [self.env.process(self._worker(pool)) for _ in range(pool.pool.processes)])
        pool.running -= 1
        pool.ended += 1
        self._note_tasks()
        pool.lives.append((begun, self.env.now))

    def _in_hand(self, pool: _Pool, change: int) -> None:
        """A worker begins or ends a batch; those that have one beat for their tokens."""
        pool.in_hand += change
        beats = sum(p.in_hand for p in self.pools.values()) / self.given.heartbeat
        self.callbacks.drained(self.env.now, beats)

    def _note_tasks(self) -> None:
        self.out.tasks.append((self.env.now, sum(pool.running for pool in self.pools.values())))

    def _worker(self, pool: _Pool) -> Generator[Any, Any]:
        given = self.given
        last = self.env.now
        while True:
            message = pool.queue.get()
            got = yield message | self.env.timeout(given.poll)
            if message in got:
                work, done, sent = got[message]
                # While tasks are still being launched a batch waits for these, later for those that are there.
                launching = min(self.env.now, self.out.ready_at) - sent
                self._press("Fargate launches", max(0.0, launching))
                self._press("workers", self.env.now - sent - max(0.0, launching))
                yield from self._reserve("Step Functions' callbacks", self.callbacks, 1)  # a beat before it begins
                self._in_hand(pool, 1)
                yield from self._work(work)
                yield from self._reserve("Step Functions' callbacks", self.callbacks, 1)  # the answer
                self._in_hand(pool, -1)
                last = self.env.now
                self._ended(done)
                continue
            message.cancel()
            if self.scaling == "service":  # such a worker does not end by itself: its service would start another
                if self.scaled_in:
                    return
                continue
            idle = self.env.now - last
            if idle > given.idle or (given.early_stop and idle > given.early_stop and not self.expects):
                return

    # ---- the scaler, by its own code

    def _scaler(self) -> Generator[Any, Any]:
        yield self.demand
        limits = Limits(max_tasks=self.given.max_tasks)
        state, answers = State(at=self.env.now), list[Answer]()
        while True:
            self._note_waiting()
            fresh = self.env.now - self.wave_began < PLANNED_SECONDS
            planned = {name: pool.planned if fresh else 0 for name, pool in self.pools.items()}
            decision = scaler.decide(
                now=self.env.now,
                state=state,
                limits=limits,
                pools=[pool.pool for pool in self.pools.values()],
                seen={
                    name: Seen(len(pool.queue.items), pool.in_hand, pool.shown(self.env.now, self.given.ecs_lag))
                    for name, pool in self.pools.items()
                },
                runs=[] if self.over else [Run("run", planned, expects=self.to_come)],
                answers=answers,
            )
            self.out.iterations += 1
            state, self.expects = decision.state, decision.expects
            if decision.action == "stop":
                return
            if decision.action == "restart":
                state = state.handed_over()
                answers = []
                yield self.env.timeout(1.0)
                continue
            answers = [
                Answer(call.pool, call.provider, call.count, n, ("throttled",) if n < call.count else ())
                for call in decision.calls
                for n in [self._launch(self.pools[call.pool], call.count)]
            ]
            wait = min(decision.wait, self.given.longest_wait) if self.given.longest_wait else math.ceil(decision.wait)
            yield self.env.timeout(self.given.iteration + wait)

    def _note_waiting(self) -> None:
        self.out.waiting.append((self.env.now, sum(len(pool.queue.items) for pool in self.pools.values())))

    # ---- ECS services with target tracking on messages per task

    def _service(self) -> Generator[Any, Any]:
        yield self.demand
        minute = _Bucket(quotas.SERVICE_LAUNCHES_A_MINUTE, quotas.SERVICE_LAUNCHES_A_MINUTE / 60)
        minute.tokens, minute.at = 0.0, self.env.now
        desired, breaches = dict.fromkeys(self.pools, 0), dict.fromkeys(self.pools, 0)
        next_point = self.env.now + quotas.TRACKING_PERIOD
        while True:
            yield self.env.timeout(1.0)
            if self.over:
                yield self.env.timeout(quotas.TRACKING_POINTS_IN * quotas.TRACKING_PERIOD)
                self.scaled_in = True
                return
            point = self.env.now >= next_point
            if point:
                next_point += quotas.TRACKING_PERIOD
                self._note_waiting()
            for name, pool in self.pools.items():
                backlog, target = len(pool.queue.items) + pool.in_hand, pool.pool.processes
                if point:
                    # The template's metric: without a task, a single message must already be above the target.
                    metric = backlog / pool.running if pool.running else backlog + target if backlog else 0.0
                    breaches[name] = breaches[name] + 1 if metric > target else 0
                    if breaches[name] >= quotas.TRACKING_POINTS:
                        desired[name] = min(self.given.max_tasks, math.ceil(max(pool.running, 1) * metric / target))
                missing = minute.take(self.env.now, max(0, desired[name] - pool.there()))
                if missing > 0:
                    self._launch(pool, missing)


def simulate(waves: Sequence[Sequence[Work]], scaling: Scaling, given: Assumptions) -> Outcome:
    """Return what these waves of batches take."""
    return _Simulation(waves, scaling, given).run()


def launch_limit(tasks: int) -> float:
    """Return the seconds in which an account may launch so many tasks: the burst at once, the rest at the rate."""
    return max(0.0, (tasks - quotas.LAUNCH_BURST) / quotas.LAUNCH_RATE)
