"""The shipped handlers, called as the state machines call them, on moto and a real Valkey."""

import importlib.util
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from mock_cloud import ROOT
from riskmill.aws import steps
from riskmill.aws.control import ControlTable
from riskmill.errors import MissingInput, RiskmillError
from riskmill.graph import JobGraph
from riskmill.jobs import object_name
from riskmill.outputs import decode
from riskmill.planner import prune
from riskmill.run_files import graph_file, status_file, wave_file
from riskmill.settings import Settings
from riskmill.settle import AVAILABLE
from tiny_portfolio import TinyPortfolio

type Event = dict[str, Any]


def load_function(name: str) -> ModuleType:
    """Import functions/<name>/app.py under a name of its own: all of them are called `app`."""
    spec = importlib.util.spec_from_file_location(f"function_{name}", ROOT / "functions" / name / "app.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@dataclass
class Context:
    """What Lambda tells a handler beside its event."""

    function_name: str
    seconds: float = 900.0
    #: what passes between two looks at the clock
    seconds_a_look: float = 0.0
    memory_limit_in_mb: int = 3538
    aws_request_id: str = "c6af9ac6-7b61-11e6-9a41-93e8deadbeef"

    @property
    def invoked_function_arn(self) -> str:
        """The function's ARN."""
        return f"arn:aws:lambda:eu-west-1:123456789012:function:{self.function_name}"

    def get_remaining_time_in_millis(self) -> int:
        """Return what is left of the function's time."""
        left = int(self.seconds * 1000)
        self.seconds -= self.seconds_a_look
        return left


@dataclass
class Machine:
    """Walks the states of risk_rollup.asl.json, in this process."""

    aws: SimpleNamespace
    handlers: dict[str, Callable[[Event, Any], Any]]
    #: seconds of each batch's Lambda
    seconds: float = 900.0
    seconds_a_look: float = 0.0
    #: asked before each batch; a MemoryError of it is the batch's end without a word, as when its Lambda is killed
    before_batch: Callable[[Event], None] = lambda _: None
    #: every answer that went through the state machine, by function
    answers: list[tuple[str, Any]] = field(default_factory=list)

    def call(self, name: str, event: Event) -> Any:
        """Call a handler with an event that went through JSON, as Step Functions' do, and note its answer."""
        context = Context(name, self.seconds, self.seconds_a_look) if name == "run_batch" else Context(name)
        answer = self.handlers[name](json.loads(json.dumps(event)), context)
        answer = json.loads(json.dumps(answer))
        self.answers.append((name, answer))
        return answer

    def upload(self, tiny: TinyPortfolio) -> str:
        """Put a portfolio and its inputs into the bucket; return its key."""
        for name, data in tiny.objects.items():
            self.aws.s3.put_object(Bucket=self.aws.bucket, Key=name, Body=data)
        return tiny.key

    def plan(self, run_id: str, portfolio: str, options: Mapping[str, Any]) -> Event:
        """Run the execution planner; the workers of an earlier run, and what they hold in memory, are gone."""
        steps._outputs.cache_clear()
        self.call("build_graph", {"run_id": run_id, "portfolio": portfolio, "options": dict(options)})
        self.call("look_up_keys", {"run_id": run_id})
        plan: Event = self.call("plan_waves", {"run_id": run_id, "round": 0})
        return plan

    def run_waves(self, run_id: str, plan: Event) -> None:
        """Run every batch of every wave; a batch that fails ends as `NotThisTime` does."""
        for wave in range(plan["waves"]):
            for item in self.items(run_id, plan["round"], wave):
                try:
                    self.before_batch(item)
                    self.call("run_batch", item)
                except (RiskmillError, MemoryError):
                    continue

    def run(self, run_id: str, portfolio: str, **options: Any) -> Event:
        """Run a whole rollup; return what it ends with: {results, seconds} or {error, cause}."""
        plan = self.plan(run_id, portfolio, options)
        suspect = False
        if plan["jobs"] == 0:
            if (published := self._publish(run_id)) is not None:
                return published
            suspect = True
        for _ in range(20):
            self.run_waves(run_id, plan)
            event = {"run_id": run_id, "round": plan["round"], "suspect": suspect}
            settled = self.call("settle_round", event)
            if settled["outcome"] == "complete":
                if (published := self._publish(run_id)) is not None:
                    return published
                suspect, plan = True, plan | {"waves": 0}
            elif settled["outcome"] == "replan":
                plan = self.call("plan_waves", {"run_id": run_id, "round": settled["round"]})
            else:
                return self.fail(run_id, "JobsFailed", "jobs failed, or what is missing could not be made")
        raise AssertionError("the run does not end")

    def fail(self, run_id: str, error: str, cause: str) -> Event:
        """Record a failure as the state machine does."""
        ended: Event = self.call("record_failure", {"run_id": run_id, "error": {"Error": error, "Cause": cause}})
        return ended

    def _publish(self, run_id: str) -> Event | None:
        try:
            published: Event = self.call("publish_results", {"run_id": run_id})
        except MissingInput:
            return None
        return published

    # ---- what a test looks at

    def get(self, name: str) -> bytes:
        """Return an object of the bucket."""
        data: bytes = self.aws.s3.get_object(Bucket=self.aws.bucket, Key=name)["Body"].read()
        return data

    def names(self, prefix: str) -> list[str]:
        """Return the names below a prefix."""
        found = self.aws.s3.list_objects_v2(Bucket=self.aws.bucket, Prefix=prefix).get("Contents", [])
        return [entry["Key"] for entry in found]

    def parts(self) -> dict[str, bytes]:
        """Return every output, by name."""
        return {name: self.get(name) for name in self.names("parts/")}

    def delete(self, *names: str) -> None:
        """Delete objects."""
        for name in names:
            self.aws.s3.delete_object(Bucket=self.aws.bucket, Key=name)

    def items(self, run_id: str, round_number: int, wave: int) -> list[Event]:
        """Return a wave's items."""
        items: list[Event] = json.loads(self.get(wave_file(run_id, round_number, wave)))
        return items

    def graph(self, run_id: str) -> JobGraph:
        """Return a run's graph."""
        return JobGraph.from_bytes(self.get(graph_file(run_id)))

    def planned(self, run_id: str) -> set[str]:
        """Return the labels of the jobs that the first round of a run planned."""
        graph = self.graph(run_id)
        status = decode(self.get(status_file(run_id, 0)))["status"]
        run = prune(graph, np.isin(status, AVAILABLE))
        return {graph.label(job) for job in np.flatnonzero(run).tolist()}

    def part_of(self, run_id: str, label: str) -> str:
        """Return the object name of a job's output."""
        graph = self.graph(run_id)
        (job,) = [job for job in range(len(graph)) if graph.label(job) == label]
        return object_name(f"p:{graph.key(job)}")

    def facts(self, run_id: str) -> Event:
        """Return a run's item in the control table."""
        return ControlTable(self.aws.table).run(run_id)

    def called(self, name: str) -> list[Any]:
        """Return a function's answers so far."""
        return [answer for function, answer in self.answers if function == name]


@pytest.fixture
def machine(aws: SimpleNamespace, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """The handlers with the environment that the template gives them."""
    monkeypatch.setenv("POWERTOOLS_TRACE_DISABLED", "true")
    names = ("bucket", "control_table", "index_queue_url", "redis_host", "redis_port", "dead_letters_url")
    for name in (*names, "expiry_stream", "expiry_table"):
        monkeypatch.setenv(name.upper(), str(getattr(settings, name)))
    functions = sorted(path.parent.name for path in (ROOT / "functions").glob("*/app.py"))
    return Machine(aws, {name: load_function(name).handler for name in functions})
