"""Clients of AWS and Redis, made when first used and kept for the life of the process."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from http import HTTPStatus
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionError,
    FlexibleChecksumError,
    HTTPClientError,
    IncompleteReadError,
)
from redis import Redis
from redis.cluster import RedisCluster

from riskmill.errors import AccessRefused, RiskmillError, TransientError
from riskmill.settings import Settings

#: Cold S3 prefixes answer 503 SlowDown well below the documented ceiling, so clients slow themselves down from the
#: start: https://docs.aws.amazon.com/boto3/latest/guide/retries.html#adaptive-retry-mode
CONFIG = Config(
    retries={"mode": "adaptive", "total_max_attempts": 8},
    max_pool_connections=64,
    connect_timeout=5,
    read_timeout=60,
)

#: Codes that AWS gives for "slow down" and for its own faults, across services.
TRANSIENT_CODES = frozenset(
    {
        "SlowDown", "ServiceUnavailable", "InternalError", "InternalFailure", "InternalServerError", "RequestTimeout",
        "Throttling", "ThrottlingException", "ThrottledException", "RequestThrottled", "TooManyRequestsException",
        "ProvisionedThroughputExceededException", "RequestLimitExceeded", "LimitExceededException",
        "RequestTimeTooSkewed", "ExpiredToken", "ExpiredTokenException", "500", "502", "503", "504", "429",
    }
)  # fmt: skip

REFUSED_CODES = frozenset({"AccessDenied", "AccessDeniedException", "403", "Forbidden", "UnauthorizedOperation"})


#: Clients may be used by many threads, but boto3's default session may not make two at once:
#: https://docs.aws.amazon.com/boto3/latest/guide/clients.html#multithreading-or-multiprocessing-with-clients
_making = threading.Lock()


@cache
def client(service: str) -> Any:
    """Return the client of a service (endpoint, region and credentials come from the environment, as for any tool)."""
    with _making:
        return boto3.client(service, config=CONFIG)  # type: ignore[call-overload]


@cache
def redis_client(host: str, port: int, tls: bool, cluster: bool) -> Any:
    """Return the client of the cache. Members are raw bytes."""
    common: dict[str, Any] = {"host": host, "port": port, "ssl": tls, "socket_timeout": 30, "socket_connect_timeout": 5}
    return RedisCluster(**common) if cluster else Redis(**common)


def redis_of(settings: Settings) -> Any:
    """Return the cache's client for these settings."""
    return redis_client(settings.redis_host, settings.redis_port, settings.redis_tls, settings.redis_cluster)


def code_of(error: ClientError) -> str:
    """Return AWS's code of an error."""
    return str(error.response.get("Error", {}).get("Code", ""))


def _status(error: ClientError) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def translated(error: Exception, what: str) -> RiskmillError | None:
    """Return our error for one of AWS's, or None if it is neither a passing fault nor a refusal."""
    if isinstance(error, ClientError):
        code = code_of(error)
        if code in TRANSIENT_CODES or _status(error) >= HTTPStatus.INTERNAL_SERVER_ERROR:
            return TransientError(f"{what}: {code}")
        if code in REFUSED_CODES:
            return AccessRefused(f"{what}: {error}")
        return None
    if isinstance(error, ConnectionError | HTTPClientError | IncompleteReadError | FlexibleChecksumError):
        return TransientError(f"{what}: {error}")
    return None


@contextmanager
def translating(what: str) -> Iterator[None]:
    """Turn AWS's passing faults and refusals into ours, naming what was tried; others pass as they are."""
    try:
        yield
    except (ClientError, BotoCoreError) as error:
        ours = translated(error, what)
        if ours is None:
            raise
        raise ours from error
