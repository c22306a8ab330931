"""The embedded cloud as a whole: up, status, down.

`up` in order:
1. take the state folder's lock (one `up` or `down` at a time);
2. keep the servers that still run, or end what is left of an earlier cloud and start both;
3. `sam build` if a source changed, while the servers start;
4. `sam deploy` if sources, stack name or parameters changed;
5. write cloud.json.
A crash anywhere is healed by the next `up`: the cloud's
id is on disk before its first process starts, every process can be recognised by it (see processes.py), and nothing but
the state folder holds anything.
"""

import fcntl
import json
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import boto3

from riskmill_local import deploy, processes, servers
from riskmill_local.processes import Started
from riskmill_local.servers import Layout

STACK_NAME = "riskmill"
REDIS_HOST = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Cloud:
    """A running embedded cloud; the content of <state_dir>/cloud.json.

    `outputs` are the stack's outputs by key, `seconds` how long each phase of the last `up` took, `deployed` the digest
    of what is deployed (empty until the first deployment succeeded), `parameters` the template parameters that it was
    deployed with, `processes` what must live for the cloud to be up.
    """

    cloud_id: str
    state_dir: Path
    endpoint: str
    redis_port: int
    processes: dict[str, Started]
    stack_name: str = STACK_NAME
    region: str = servers.REGION
    redis_host: str = REDIS_HOST
    deployed: str = ""
    parameters: dict[str, str] = field(default_factory=dict)
    outputs: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def redis_url(self) -> str:
        """The cache as a redis:// address."""
        return f"redis://{self.redis_host}:{self.redis_port}/0"

    @property
    def alive(self) -> bool:
        """Whether both servers that this cloud started still run."""
        return all(process.alive for process in self.processes.values())

    @property
    def environment(self) -> dict[str, str]:
        """Variables for a command or SDK that shall use this cloud."""
        return servers.aws_environment(self.endpoint)

    def client(self, service: str, **options: Any) -> Any:
        """A boto3 client of this cloud."""
        return boto3.client(service, **(deploy.client_options(self.endpoint) | options))  # type: ignore[call-overload]

    def save(self) -> None:
        """Write cloud.json, whole or not at all."""
        target = Layout(self.state_dir).record
        partial = target.with_suffix(".partial")
        partial.write_text(json.dumps(asdict(self), default=str, indent=1))
        partial.replace(target)

    @classmethod
    def load(cls, state_dir: Path) -> "Cloud | None":
        """The cloud that a state folder records, running or not; None when it records none."""
        try:
            data = json.loads(Layout(state_dir).record.read_text())
        except FileNotFoundError:
            return None
        data["state_dir"] = state_dir
        data["processes"] = {name: Started(**process) for name, process in data["processes"].items()}
        return cls(**data)


def default_state_dir(root: Path) -> Path:
    """Where a checkout's own cloud lives."""
    return root / ".riskmill" / "local"


def status(state_dir: Path) -> Cloud | None:
    """The running cloud of a state folder, or None."""
    cloud = Cloud.load(state_dir)
    return cloud if cloud is not None and cloud.alive else None


def up(
    *,
    root: Path,
    state_dir: Path | None = None,
    stack_name: str = STACK_NAME,
    parameters: dict[str, str] | None = None,
    build: bool = True,
    on_phase: Callable[[str], None] = lambda _: None,
) -> Cloud:
    """Bring a cloud up, or the running one up to date; returns when the stack is deployed.

    Template parameters: Target=local is given, `parameters` adds to it; as in
    CloudFormation, one that was given once keeps its value until it is given again, or the cloud is down. `build=False`
    deploys what was built before. `on_phase` is told what starts, in words. Raises StartError or DeployError, each with
    a message that says what to do; the servers then stay up for a look at them.
    """
    root = root.resolve()
    layout = Layout((state_dir or default_state_dir(root)).resolve())
    deploy.sam_binary(root)  # before anything is started
    seconds: dict[str, float] = {}
    with _locked(layout.state_dir), deploy.build_folder(root) as folder, ThreadPoolExecutor(1) as background:
        sources = deploy.sources_digest(root) if build else deploy.built_digest(folder)
        log = layout.logs / "build.log"
        building = background.submit(_timed, seconds, "build", deploy.build, root, folder, sources, log)
        with _phase(seconds, "start", "starting MiniStack and Valkey", on_phase):
            cloud = _running(layout)
        if not building.done():
            on_phase("building (sam build)")
        building.result()
        given = {"Target": "local"}
        wanted = cloud.parameters | given | (parameters or {})
        digest = deploy.deployment_digest(sources, stack_name, wanted)
        outputs = cloud.outputs
        if cloud.deployed != digest:
            with _phase(seconds, "deploy", "deploying (sam deploy)", on_phase):
                outputs = deploy.deploy(root, folder, cloud.endpoint, stack_name, wanted, layout.logs / "deploy.log")
        cloud = _changed(
            cloud, stack_name=stack_name, deployed=digest, parameters=wanted, outputs=outputs, seconds=seconds
        )
        cloud.save()
    return cloud


def down(state_dir: Path) -> int:
    """End every process of the state folder's cloud and remove what it kept; how many processes there were.

    Works whatever state the cloud is in, also after a crash, and when there is none. The build cache in .aws-sam stays.
    """
    layout = Layout(state_dir.resolve())
    if not layout.state_dir.is_dir():
        return 0
    with _locked(layout.state_dir):
        ended = _clear(layout)
        shutil.rmtree(layout.logs, ignore_errors=True)
        layout.identity.unlink(missing_ok=True)
        if not any(layout.state_dir.iterdir()):  # somebody else's files in it are none of our business
            layout.state_dir.rmdir()
    return ended


def _running(layout: Layout) -> Cloud:
    """The cloud that still runs, or a new one in the place of what is left of the last."""
    cloud = Cloud.load(layout.state_dir)
    if cloud is not None and cloud.alive:
        return cloud
    _clear(layout)
    cloud_id = uuid.uuid4().hex
    layout.identity.write_text(cloud_id)
    redis, redis_port = servers.start_redis(layout, cloud_id)
    ministack, port = servers.start_ministack(layout, cloud_id, redis_port)
    cloud = Cloud(
        cloud_id=cloud_id,
        state_dir=layout.state_dir,
        endpoint=f"http://127.0.0.1:{port}",
        redis_port=redis_port,
        processes={"ministack": ministack, "redis": redis},
    )
    cloud.save()
    return cloud


def _clear(layout: Layout) -> int:
    """End the processes of a cloud and remove its files, except the logs; how many processes there were."""
    ended = 0
    if layout.identity.is_file():
        ended = processes.end_all(layout.identity.read_text(), layout.redis)
    for folder in (layout.redis, layout.tmp, layout.artefacts):
        shutil.rmtree(folder, ignore_errors=True)
    layout.record.unlink(missing_ok=True)
    layout.record.with_suffix(".partial").unlink(missing_ok=True)
    return ended


def _changed(cloud: Cloud, **changes: Any) -> Cloud:
    return Cloud(**{name: getattr(cloud, name) for name in Cloud.__slots__} | changes)


def _timed[**P, R](
    seconds: dict[str, float], name: str, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs
) -> R:
    started = time.perf_counter()
    try:
        return function(*args, **kwargs)
    finally:
        seconds[name] = round(time.perf_counter() - started, 2)


@contextmanager
def _phase(seconds: dict[str, float], name: str, words: str, on_phase: Callable[[str], None]) -> Iterator[None]:
    on_phase(words)
    started = time.perf_counter()
    yield
    seconds[name] = round(time.perf_counter() - started, 2)


@contextmanager
def _locked(state_dir: Path) -> Iterator[None]:
    """Hold the state folder alone. The lock is on the folder itself, so there is no lock file to leave behind."""
    while True:
        state_dir.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(state_dir, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if state_dir.is_dir() and os.fstat(descriptor).st_ino == state_dir.stat().st_ino:
                yield
                return
        finally:
            os.close(descriptor)
