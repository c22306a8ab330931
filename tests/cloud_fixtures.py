"""Fixtures for tests that run on the embedded cloud.

`cloud` (marker `cloud`) is the whole application, built and deployed once per test session in a folder of its own: with
pytest-xdist, the first worker that asks brings it up, the others use the same one, and the last one takes it down.
`Endpoint` holds shortcuts to what tests make in any MiniStack.
"""

import fcntl
import io
import json
import os
import time
import uuid
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest

from riskmill_local import cloud as embedded
from riskmill_local import servers
from riskmill_local.cloud import Cloud
from riskmill_local.deploy import client_options

ROOT = Path(__file__).resolve().parent.parent
ROLE = f"arn:aws:iam::{servers.ACCOUNT}:role/test"


#: Waits of the workers and their scaler, so that a test need not wait minutes.
SHORTENED = {"EarlyStopSeconds": "3", "WorkerVisibility": "8", "ScalerWait": "1"}


@dataclass(frozen=True)
class Endpoint:
    """One MiniStack and shortcuts to what the tests make in it."""

    endpoint: str

    def client(self, service: str) -> Any:
        return boto3.client(service, **client_options(self.endpoint))  # type: ignore[call-overload]

    def function(self, code: str, **options: Any) -> str:
        """Create a function from the text of its app.py; its ARN."""
        archive = io.BytesIO()
        with zipfile.ZipFile(archive, "w") as zipped:
            zipped.writestr("app.py", code)
        created = self.client("lambda").create_function(
            FunctionName=f"f{uuid.uuid4().hex[:8]}",
            Runtime="python3.13",
            Handler="app.handler",
            Role=ROLE,
            Code={"ZipFile": archive.getvalue()},
            **({"Timeout": 10} | options),
        )
        return str(created["FunctionArn"])

    def invoke(self, function: str, event: Any = None) -> Any:
        """Payload of a synchronous invocation."""
        answer = self.client("lambda").invoke(FunctionName=function, Payload=json.dumps(event))
        return json.loads(answer["Payload"].read())

    def start(self, definition: dict[str, Any], event: Any = None) -> str:
        """Create a machine and start it; the execution's ARN."""
        states = self.client("stepfunctions")
        name = f"m{uuid.uuid4().hex[:8]}"
        machine = states.create_state_machine(name=name, definition=json.dumps(definition), roleArn=ROLE)
        started = states.start_execution(stateMachineArn=machine["stateMachineArn"], input=json.dumps(event or {}))
        return str(started["executionArn"])

    def run(self, definition: dict[str, Any], event: Any = None, *, seconds: float = 15) -> dict[str, Any]:
        """Run a machine to its end; its description with the output parsed."""
        return self.wait(self.start(definition, event), seconds=seconds)

    def wait(self, execution: str, *, seconds: float = 15) -> dict[str, Any]:
        """Wait for an execution's end; its description with the output parsed."""
        states = self.client("stepfunctions")
        deadline = time.monotonic() + seconds
        while True:
            described: dict[str, Any] = states.describe_execution(executionArn=execution)
            if described["status"] != "RUNNING" or time.monotonic() > deadline:
                break
            time.sleep(0.05)
        if described["status"] == "SUCCEEDED":
            described["output"] = json.loads(described["output"])
        return described

    def bucket(self) -> str:
        """A new bucket's name."""
        name = f"b{uuid.uuid4().hex[:12]}"
        self.client("s3").create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": servers.REGION})
        return name


@contextmanager
def _users(folder: Path) -> Iterator[set[str]]:
    """The set of test processes that use the session's cloud, under a lock; changes to it are kept."""
    with (folder / "cloud.users").open("a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        users = set(file.read().split())
        yield users
        file.seek(0)
        file.truncate()
        file.write(" ".join(sorted(users)))


@pytest.fixture(scope="session")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    """The application on an embedded cloud of this test session, taken down at its end."""
    worker = os.environ.get("PYTEST_XDIST_WORKER", "")
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if worker else base
    state_dir, me = shared / "cloud", worker or "main"
    with _users(shared) as users:
        running = embedded.up(root=ROOT, state_dir=state_dir, parameters=SHORTENED)
        users.add(me)
    yield running
    with _users(shared) as users:
        users.discard(me)
        if not users:
            embedded.down(state_dir)


@pytest.fixture
def endpoint(cloud: Cloud) -> "Endpoint":
    """Shortcuts to what a test makes beside the deployed application."""
    return Endpoint(cloud.endpoint)
