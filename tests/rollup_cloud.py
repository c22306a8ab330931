"""What tests of Risk Rollups share: tiny portfolios, the same models called directly, and runs on the embedded cloud.

`rollups` (a fixture) is the deployed application as a test uses it. Every test makes a portfolio with a seed of its
own, so its jobs have keys of their own and nothing of it is cached before, whichever tests ran on the same cloud.
"""

import itertools
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy as np
import psutil
import pytest
from redis import Redis

from riskmill.aws import clients
from riskmill.aws.deployment import Deployment
from riskmill.graph import JobGraph
from riskmill.jobs import content_key, object_name
from riskmill.models.registry import run_model
from riskmill.outputs import Array, Arrays, decode, encode
from riskmill.partitions import outputs_set
from riskmill.portfolio import Deal, Group, Layer, Outwards, Portfolio
from riskmill.rollup_graph import rollup_graph
from riskmill.terms import Terms
from riskmill_cli.portfolio_folder import PreparedPortfolio
from riskmill_local import processes
from riskmill_local.cloud import Cloud

#: Two batches at a time, as on a laptop, all of them on Lambda; test_fargate.py is about the others.
OPTIONS = {"parallelism": 4, "max_concurrency": 2, "compute": "lambda"}

#: With this, a batch holds one or two jobs, and a tiny portfolio has as many waves as its graph has levels.
SMALL_BATCHES = {"max_batch_seconds": 0.02}

EVENTS = 40

_seeds = itertools.count(uuid.uuid4().int % 2**40)


def fresh_seed() -> int:
    """A seed that no earlier test used."""
    return next(_seeds)


def _encoded(objects: dict[str, bytes], arrays: dict[str, Array]) -> str:
    data = encode(arrays)
    key = content_key(data)
    objects[key] = data
    return key


def tiny_portfolio(*, seed: int, deals: int = 6, trials: int = 2_000) -> PreparedPortfolio:
    """A sound portfolio. ELTs and catalogue depend on nothing but the deal's number.

    Deals D00, D01, ... have two layers each; even ones are in group north, odd ones in south, both in group all.
    Contract R-south covers south; R-all-1, and then R-all-2, cover all.
    """
    objects: dict[str, bytes] = {}
    rng = np.random.default_rng(5)
    catalogue: dict[str, Array] = {
        "event": np.arange(1, EVENTS + 1, dtype=np.int32),
        "rate": rng.uniform(0.005, 0.1, EVENTS),
        "peril": (np.arange(EVENTS) % 2).astype(np.int32),
        "frequency": np.array([0, 1], np.int32),
        "variance_to_mean": np.array([1.0, 1.5]),
        "season": np.full((2, 12), 1 / 12),
        "peril_names": np.frombuffer(b'["winter","hurricane"]', np.uint8),
    }
    members: dict[str, list[str]] = {"north": [], "south": []}
    made = []
    for number in range(deals):
        own = np.random.default_rng(number)
        events = np.sort(own.choice(np.arange(1, EVENTS + 1, dtype=np.int32), 15, replace=False))
        mean = own.uniform(10, 200, 15)
        elt: dict[str, Array] = {
            "event": events,
            "mean": mean,
            "sd_independent": 0.3 * mean,
            "exposure": np.full(15, 2_000.0),
        }
        deal_id = f"D{number:02d}"
        members["south" if number % 2 else "north"].append(deal_id)
        excess = Terms(type="CXL", occurrence_retention=30, occurrence_limit=90, reinstatements=(1.0,), premium=11)
        share = Terms(type="QS", ceded_share=0.25, premium=6, participation=0.5)
        made.append(
            Deal(
                deal_id=deal_id,
                cedant=f"Cedant {number % 3}",
                business_unit="Cat",
                inception=date(2025, 1, 1),
                expiry=date(2025, 12, 31),
                currency="USD",
                brokerage=0.1,
                elt=_encoded(objects, elt),
                layers=(
                    Layer(layer_id=f"{deal_id}-1", terms=excess),
                    Layer(layer_id=f"{deal_id}-2", terms=share),
                ),
            )
        )
    cover = Terms(type="CXL", occurrence_retention=100, occurrence_limit=200, reinstatements=(1.0,), premium=9)
    portfolio = Portfolio(
        name="Tiny Re",
        currency="USD",
        as_at=date(2024, 12, 31),
        trials=trials,
        seed=seed,
        group="all",
        catalogue=_encoded(objects, catalogue),
        deals=tuple(made),
        groups=(
            Group(group_id="all", name="All", groups=("north", "south")),
            Group(group_id="north", name="North", deals=tuple(members["north"])),
            Group(group_id="south", name="South", deals=tuple(members["south"])),
        ),
        outwards=(
            Outwards(contract_id="R-south", name="South", group_id="south", priority=1, terms=cover),
            Outwards(contract_id="R-all-1", name="First", group_id="all", priority=1, terms=cover),
            Outwards(
                contract_id="R-all-2",
                name="Second",
                group_id="all",
                priority=2,
                terms=cover.model_copy(update={"occurrence_retention": 300.0}),
            ),
        ),
    )
    return PreparedPortfolio(portfolio, objects)


def with_changed_deal(prepared: PreparedPortfolio, deal_id: str) -> PreparedPortfolio:
    """The same portfolio, but one deal's first layer has other terms: half the participation."""
    deals = []
    for deal in prepared.portfolio.deals:
        if deal.deal_id == deal_id:
            first = deal.layers[0]
            terms = first.terms.model_copy(update={"participation": first.terms.participation / 2})
            layers = (first.model_copy(update={"terms": terms}), *deal.layers[1:])
            deal = deal.model_copy(update={"layers": layers})
        deals.append(deal)
    document = prepared.portfolio.model_copy(update={"deals": tuple(deals)}).to_json()
    return PreparedPortfolio(Portfolio.from_json(document), prepared.objects)


@dataclass(frozen=True)
class Direct:
    """The jobs of a portfolio run one after the other in this process, without planner, batches, cloud or cache."""

    portfolio: Portfolio
    graph: JobGraph
    #: bytes of every job's output, by key
    outputs: dict[str, bytes]

    @property
    def targets(self) -> dict[str, Arrays]:
        """What `summarise` reads: the targets' outputs by name."""
        jobs = self.graph.targets.tolist()
        named = zip(self.graph.target_names, jobs, strict=True)
        return {name: decode(self.outputs[self.graph.key(job)]) for name, job in named}


def run_directly(prepared: PreparedPortfolio) -> Direct:
    """Call every model of a portfolio's graph in this process, in the graph's order."""
    graph = rollup_graph(prepared.portfolio)
    held = {f"i:{key}": decode(data) for key, data in prepared.objects.items()}
    outputs: dict[str, bytes] = {}
    for number in range(len(graph)):
        job = graph.job(number)
        data = encode(run_model(job.model, job.version, job.params, [held[ref] for ref in job.inputs]))
        outputs[job.key] = data
        held[job.ref] = decode(data)
    return Direct(prepared.portfolio, graph, outputs)


def keys_of(graph: JobGraph) -> set[str]:
    """The keys of all jobs of a graph."""
    return {graph.key(job) for job in range(len(graph))}


def labels_of(graph: JobGraph, keys: set[str]) -> set[str]:
    """What a person calls those jobs of a graph that have these keys."""
    return {graph.label(job) for job in range(len(graph)) if graph.key(job) in keys}


def keys_called(graph: JobGraph, *beginnings: str) -> list[str]:
    """The keys of the jobs whose label begins with one of these; at least one each."""
    found = []
    for beginning in beginnings:
        keys = [graph.key(job) for job in range(len(graph)) if graph.label(job).startswith(beginning)]
        assert keys, f"no job is called {beginning}..."
        found += keys
    return found


@dataclass(frozen=True)
class Ended:
    """A run that has ended: its item of the control table, its batches, and what its execution says."""

    run: dict[str, Any]
    batches: list[dict[str, Any]]
    status: str
    error: str
    cause: str
    #: the states that the execution entered, in order
    states: list[str]

    @property
    def rounds(self) -> int:
        """How often waves were planned."""
        return int(self.run["round"]) + 1


class Rollups:
    """The deployed application, and Risk Rollups on it."""

    def __init__(self, cloud: Cloud) -> None:
        self.cloud = cloud
        self.deployment = Deployment(cloud.stack_name)
        self.bucket = self.deployment.bucket
        self.control = self.deployment.control
        self.redis = Redis(cloud.redis_host, cloud.redis_port)
        self.states_client = cloud.client("stepfunctions")
        self.lambda_client = cloud.client("lambda")
        self.sqs = cloud.client("sqs")

    # ---- runs

    def upload(self, prepared: PreparedPortfolio) -> str:
        """Upload a portfolio; its key."""
        key = prepared.portfolio.key
        self.deployment.upload(key, prepared.portfolio.to_json(), prepared.objects)
        return key

    def start(self, portfolio: str, **options: Any) -> str:
        """Start a Risk Rollup of an uploaded portfolio; its run id."""
        run_id = f"t-{uuid.uuid4().hex[:12]}"
        self.deployment.start(run_id, portfolio, OPTIONS | options)
        return run_id

    def finish(self, run_id: str, *, seconds: float = 120) -> Ended:
        """Wait until a run's execution has ended."""
        wait_until(lambda: self.deployment.execution(run_id)[0] != "RUNNING", f"run {run_id} ends", seconds=seconds)
        return self.ended(run_id)

    def ended(self, run_id: str) -> Ended:
        """What is known of a run whose execution has ended."""
        answer = self.states_client.describe_execution(executionArn=self.execution_arn(run_id))
        return Ended(
            run=self.control.run(run_id),
            batches=self.control.batches(run_id),
            status=answer["status"],
            error=answer.get("error", ""),
            cause=answer.get("cause", ""),
            states=self.states(run_id),
        )

    def roll_up(self, prepared: PreparedPortfolio, **options: Any) -> Ended:
        """Upload a portfolio, run a rollup of it, and wait for its end."""
        return self.finish(self.start(self.upload(prepared), **options))

    def execution_arn(self, run_id: str) -> str:
        """The execution of a run."""
        return self.cloud.outputs["RiskRollupArn"].replace(":stateMachine:", ":execution:") + f":{run_id}"

    def states(self, run_id: str) -> list[str]:
        """The states that a run's execution entered, in order."""
        pages = self.states_client.get_paginator("get_execution_history")
        return [
            event["stateEnteredEventDetails"]["name"]
            for page in pages.paginate(executionArn=self.execution_arn(run_id))
            for event in page["events"]
            if event["type"].endswith("StateEntered")
        ]

    def batch_tasks(self, run_id: str) -> list[str]:
        """How each invocation of a run's batches ended: `succeeded`, or the error's name."""
        ended: list[str] = []
        for run in self.states_client.list_map_runs(executionArn=self.execution_arn(run_id))["mapRuns"]:
            for child in self.states_client.list_executions(mapRunArn=run["mapRunArn"])["executions"]:
                ended += self.task_ends(child["executionArn"])
        return ended

    def task_ends(self, execution: str) -> list[str]:
        """How each task of an execution ended: `succeeded`, or the error's name."""
        pages = self.states_client.get_paginator("get_execution_history")
        return [
            event["taskFailedEventDetails"]["error"] if event["type"] == "TaskFailed" else "succeeded"
            for page in pages.paginate(executionArn=execution)
            for event in page["events"]
            if event["type"] in ("TaskFailed", "TaskSucceeded")
        ]

    def manifests(self, run_id: str) -> list[dict[str, Any]]:
        """All manifests of a run's batches."""
        return [self.bucket.get_json(name) for name in self.bucket.names(f"runs/{run_id}/manifests/")]

    def wait_for_batch(self, run_id: str) -> None:
        """Wait until a batch of the run is at work."""
        wait_until(
            lambda: bool(self.control.batches(run_id)), f"a batch of run {run_id} begins", seconds=60, every=0.005
        )

    # ---- outputs

    def outputs(self, keys: set[str] | None = None) -> dict[str, bytes]:
        """Outputs in the bucket by key: these, or all."""
        names = list(self.bucket.names("parts/")) if keys is None else [object_name(f"p:{key}") for key in keys]
        return {name.rpartition("/")[2]: data for name, data in zip(names, self.bucket.get_many(names), strict=True)}

    def output_keys(self) -> set[str]:
        """The keys of all outputs in the bucket."""
        return {name.rpartition("/")[2] for name in self.bucket.names("parts/")}

    def delete(self, *refs: str) -> None:
        """Delete objects behind the application's back."""
        s3 = self.cloud.client("s3")
        for ref in refs:
            s3.delete_object(Bucket=self.bucket.name, Key=object_name(ref))

    def cached(self, keys: set[str]) -> set[str]:
        """Those of these keys that the cache holds."""
        members = {at: self.redis.smembers(outputs_set(at)) for at in {int(key[:2], 16) for key in keys}}
        return {key for key in keys if bytes.fromhex(key) in members[int(key[:2], 16)]}

    # ---- the machine room

    def function(self, logical_id: str) -> str:
        """The name of a function of the stack."""
        resource = self.cloud.client("cloudformation").describe_stack_resource(
            StackName=self.cloud.stack_name, LogicalResourceId=logical_id
        )
        return str(resource["StackResourceDetail"]["PhysicalResourceId"])

    def workers(self, function: str) -> list[psutil.Process]:
        """The processes of this cloud in which a function runs."""
        found = []
        for process in processes.members(self.cloud.cloud_id, self.cloud.state_dir / "redis"):
            try:
                if process.environ().get("AWS_LAMBDA_FUNCTION_NAME") == function:
                    found.append(process)
            except (psutil.NoSuchProcess, psutil.ZombieProcess):
                continue
        return found


def wait_until(holds: Callable[[], bool], what: str, *, seconds: float = 30, every: float = 0.05) -> None:
    """Wait until something holds, and fail with its name when it does not in time."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"not within {seconds:.0f} s: {what}"
        time.sleep(every)


@contextmanager
def connected(cloud: Cloud) -> Iterator[Rollups]:
    """An embedded cloud's application; this process's AWS clients talk to it as long as this lasts."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in cloud.environment.items():
            patch.setenv(name, value)
        _forget_clients()
        yield Rollups(cloud)
    _forget_clients()


@pytest.fixture(scope="module")
def rollups(cloud: Cloud) -> Iterator[Rollups]:
    """The deployed application; this process's AWS clients talk to it as long as the module's tests run."""
    with connected(cloud) as application:
        yield application


def _forget_clients() -> None:
    clients.client.cache_clear()
    clients.redis_client.cache_clear()
