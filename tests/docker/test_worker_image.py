"""The worker's image runs a batch as it will on Fargate: in a container, with nothing but its environment."""

import json
import os
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import boto3
import numpy as np
import pytest
from moto.server import ThreadedMotoServer

from docker_command import docker, done
from riskmill.jobs import Job, content_key, job_key, object_name
from riskmill.models import run_model
from riskmill.models.kernel import KERNEL
from riskmill.outputs import Arrays, encode
from riskmill_local.agent import Agent

pytestmark = pytest.mark.docker

CATALOGUE = Arrays(
    {
        "event": np.arange(1, 4, dtype=np.int32),
        "rate": np.array([0.5, 0.2, 0.1]),
        "peril": np.zeros(3, np.int32),
        "frequency": np.zeros(1, np.int32),
        "variance_to_mean": np.ones(1),
        "season": np.full((1, 12), 1 / 12),
        "peril_names": np.frombuffer(b'["wind"]', np.uint8),
    }
)
PARAMS = {"seed": 1, "first_trial": 0, "trials": 1_000}


@dataclass(frozen=True)
class Account:
    """What the worker needs of AWS, on a moto server."""

    endpoint: str
    queue: str
    item: dict[str, Any]
    job: Job

    def client(self, service: str) -> Any:
        return boto3.client(  # type: ignore[call-overload]
            service, endpoint_url=self.endpoint, region_name="eu-west-1",
            aws_access_key_id="testing", aws_secret_access_key="testing",
        )  # fmt: skip

    def in_flight(self) -> int:
        name = "ApproximateNumberOfMessagesNotVisible"
        answer = self.client("sqs").get_queue_attributes(QueueUrl=self.queue, AttributeNames=[name])
        return int(answer["Attributes"][name])


@pytest.fixture
def account() -> Iterator[Account]:
    """A bucket with one batch's input and jobs, a control table with its run, and the queue with its message."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    try:
        # moto's state is the process's: whatever other tests made is forgotten first
        urlopen(Request(f"http://{host}:{port}/moto-api/reset", method="POST"), timeout=10).close()
        yield filled(f"http://{host}:{port}")
    finally:
        server.stop()


def filled(endpoint: str) -> Account:
    data = encode(CATALOGUE)
    reference = f"i:{content_key(data)}"
    key = job_key("simulate_years", 1, PARAMS, [reference])
    job = Job(key, "simulate_years", 1, PARAMS, (reference,), 1_000.0)
    line = json.dumps(job.to_dict()).encode()
    item = {"run_id": "run-1", "batch_id": "r0-w0-b0", "round": 0, "wave": 0, "jobs": 1, "object": "runs/run-1/jobs",
            "start": 0, "end": len(line)}  # fmt: skip
    bare = Account(endpoint, "", item, job)
    bare.client("s3").create_bucket(Bucket="data", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
    bare.client("s3").put_object(Bucket="data", Key=object_name(reference), Body=data)
    bare.client("s3").put_object(Bucket="data", Key="runs/run-1/jobs", Body=line)
    names = {"pk": "HASH", "sk": "RANGE"}
    bare.client("dynamodb").create_table(
        TableName="control",
        BillingMode="PAY_PER_REQUEST",
        AttributeDefinitions=[{"AttributeName": name, "AttributeType": "S"} for name in names],
        KeySchema=[{"AttributeName": name, "KeyType": kind} for name, kind in names.items()],
    )
    run = {"pk": {"S": "runs"}, "sk": {"S": "run-1"}, "cancelled": {"BOOL": False}, "status": {"S": "RUNNING"}}
    bare.client("dynamodb").put_item(TableName="control", Item=run)
    queue = bare.client("sqs").create_queue(QueueName="batches")["QueueUrl"]
    return Account(endpoint, queue, item, job)


def arguments(account: Account, **environment: str) -> list[str]:
    given = {
        "AWS_ENDPOINT_URL": account.endpoint,
        "AWS_DEFAULT_REGION": "eu-west-1",
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "BUCKET": "data",
        "CONTROL_TABLE": "control",
        "QUEUE_URL": account.queue,
    } | environment
    return ["--network", "host", *(word for name, value in given.items() for word in ("--env", f"{name}={value}"))]


def test_the_worker_runs_a_batch_writes_the_same_bytes_as_this_process_and_ends_when_idle(
    image: str, account: Account
) -> None:
    account.client("sqs").send_message(QueueUrl=account.queue, MessageBody=json.dumps({"item": account.item}))
    done("run", "--rm", *arguments(account, IDLE_MINUTES="0.02"), image, seconds=120)
    written = account.client("s3").get_object(Bucket="data", Key=object_name(account.job.ref))["Body"].read()
    assert written == encode(run_model("simulate_years", 1, PARAMS, [CATALOGUE]))
    manifest = account.client("s3").get_object(Bucket="data", Key="runs/run-1/manifests/r0/r0-w0-b0.json")["Body"]
    assert list(json.load(manifest)["done"]) == [account.job.key]
    assert account.in_flight() == 0


class OneTask:
    """ECS as the agent asks it, with one task that is to run."""

    def __init__(self, image: str, environment: dict[str, str]) -> None:
        self.arn = f"arn:aws:ecs:eu-west-1:000000000000:task/c/{uuid.uuid4().hex}"
        self.stopped = ""
        self._definition = {
            "image": image,
            "environment": [{"name": name, "value": value} for name, value in environment.items()],
        }

    def list_clusters(self) -> dict[str, Any]:
        return {"clusterArns": ["c"]}

    def get_paginator(self, _: str) -> "OneTask":
        return self

    def paginate(self, **_: Any) -> list[dict[str, Any]]:
        return [{"taskArns": [] if self.stopped else [self.arn]}]

    def describe_tasks(self, **_: Any) -> dict[str, Any]:
        return {"tasks": [{"taskArn": self.arn, "taskDefinitionArn": "d"}]}

    def describe_task_definition(self, **_: Any) -> dict[str, Any]:
        return {"taskDefinition": {"containerDefinitions": [self._definition]}}

    def stop_task(self, *, reason: str, **_: Any) -> None:
        self.stopped = reason


def test_a_task_of_the_embedded_cloud_becomes_a_container_where_docker_has_its_image(
    image: str, account: Account, tmp_path: Path
) -> None:
    """Read-only but /tmp, as on Fargate; it runs its batch, ends when idle, and ECS hears its exit code."""
    account.client("sqs").send_message(QueueUrl=account.queue, MessageBody=json.dumps({"item": account.item}))
    own = {"BUCKET": "data", "CONTROL_TABLE": "control", "QUEUE_URL": account.queue, "IDLE_MINUTES": "0.05"}
    tasks = OneTask(image, own | {"WORKER_PROCESSES": "2"})
    keys = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing", "AWS_DEFAULT_REGION": "eu-west-1"}
    agent = Agent(tasks, environment=keys | {"AWS_ENDPOINT_URL": account.endpoint}, logs=tmp_path)
    name = f"riskmill-{tasks.arn.rpartition('/')[2]}"
    seen, until = False, time.monotonic() + 120
    try:
        while not tasks.stopped:
            assert time.monotonic() < until, (tmp_path / "workers.log").read_text()
            agent.turn()
            seen = seen or docker("inspect", name).returncode == 0
            time.sleep(0.3)
    finally:
        agent.close()
    assert seen
    assert tasks.stopped == "Essential container exited: 0"
    written = account.client("s3").get_object(Bucket="data", Key=object_name(account.job.ref))["Body"].read()
    assert written == encode(run_model("simulate_years", 1, PARAMS, [CATALOGUE]))


def test_the_image_holds_what_a_worker_imports_and_calls_and_little_else(image: str) -> None:
    """Besides its base: 190 MB, most of it numpy's and scipy's libraries."""
    script = (
        "import scipy.stats, scipy.optimize, riskmill.models, riskmill.aws.runtime, riskmill.aws.worker, boto3\n"
        "for name in ('s3', 'sqs', 'dynamodb', 'stepfunctions'): boto3.client(name, region_name='eu-west-1')\n"
        "boto3.resource('dynamodb', region_name='eu-west-1')\n"
        "from riskmill.models.kernel import KERNEL; print(KERNEL.name)"
    )
    named = done("run", "--rm", "--read-only", "--tmpfs", "/tmp", "--entrypoint", "python3", image, "-c", script)
    assert named == KERNEL.name  # the compiled kernel, where this checkout has one
    size = done("run", "--rm", "--entrypoint", "du", image, "--summarize", "--block-size=1M", "/opt").split()[0]
    assert int(size) < 220
    needless = ("-name", "tests", "-o", "-name", "*.pyi", "-o", "-name", "*.pxd")
    assert done("run", "--rm", "--entrypoint", "find", image, "/opt", *needless) == ""
    compiled = ("-path", "*/riskmill/aws/__pycache__/worker.*.pyc", "-o", "-path", "*/scipy/__pycache__/__init__.*.pyc")
    assert len(done("run", "--rm", "--entrypoint", "find", image, "/opt", *compiled).splitlines()) == 2


def test_the_health_check_says_whether_a_worker_turns_its_loop(image: str, account: Account) -> None:
    name = f"riskmill-worker-test-{os.getpid()}"
    done("run", "--detach", "--name", name, "--read-only", "--tmpfs", "/tmp", *arguments(account), image)
    check = ("exec", name, "python3", "/opt/app/main.py", "health")
    try:
        until = time.monotonic() + 60
        while docker(*check).returncode:
            assert time.monotonic() < until, done("logs", name)
            time.sleep(0.5)
        done("exec", name, "sh", "-c", "touch -d '10 minutes ago' /tmp/worker-*.alive; kill -STOP -1")
        assert docker(*check).returncode == 1
    finally:
        docker("rm", "--force", name)


def test_the_worker_is_not_root_and_cannot_write_its_own_code(image: str) -> None:
    assert done("run", "--rm", "--entrypoint", "id", image, "-u") == "10001"
    refused = docker("run", "--rm", "--entrypoint", "sh", image, "-c", "touch /opt/app/main.py /opt/python/x.py")
    assert refused.returncode != 0


def test_sigterm_ends_a_worker_that_has_not_started_yet(image: str, account: Account) -> None:
    name = f"riskmill-worker-test-{os.getpid()}"
    done("run", "--detach", "--name", name, *arguments(account), image)
    try:
        time.sleep(0.5)  # within its imports
        began = time.monotonic()
        done("stop", "--time", "30", name)
        assert time.monotonic() - began < 20
        assert done("inspect", "--format", "{{.State.ExitCode}}", name) == "0"
    finally:
        docker("rm", "--force", name)


def test_sigterm_ends_an_idle_worker_within_20_seconds_and_with_code_0(image: str, account: Account) -> None:
    name = f"riskmill-worker-test-{os.getpid()}"
    done("run", "--detach", "--name", name, *arguments(account), image)
    try:
        until = time.monotonic() + 60
        while "waiting for work" not in done("logs", name):
            assert time.monotonic() < until, "the worker did not start"
            time.sleep(0.5)
        time.sleep(1)  # into its first long poll
        began = time.monotonic()
        done("stop", "--time", "30", name)
        assert time.monotonic() - began < 20
        assert done("inspect", "--format", "{{.State.ExitCode}}", name) == "0"
    finally:
        docker("rm", "--force", name)
