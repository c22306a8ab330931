"""Makes the embedded cloud's ECS tasks real: `python -m riskmill_local.agent`, started by cloud.up.

MiniStack's tasks are records. For each one that is to run, the agent starts the worker: as a container of the task
definition's image when a Docker daemon answers and has that image, else as a process of this checkout's own code, with
the environment of the task definition either way. In turns of half a second:

1. list the tasks of every cluster;
2. start a worker for a task that has none;
3. stop the worker (SIGTERM, later SIGKILL) of a task that ECS stopped;
4. tell ECS of a worker that ended: StopTask with its exit code in the reason.

A crash of the agent is harmless: containers carry the task's id as their name, processes the cloud's id in their
environment, and `down` ends both.
"""

import contextlib
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3

from riskmill_local.launcher_env import HANDLER_ENV
from riskmill_local.processes import CLOUD_ID

TURN_SECONDS = 0.3

#: Between SIGTERM and SIGKILL, as the task definition's StopTimeout.
GRACE_SECONDS = 30.0

#: Whether tasks become containers: auto (if Docker answers and has the image), never, or always (fail without).
MODE = "RISKMILL_TASKS"

#: Label of containers, with the cloud's id.
LABEL = "riskmill.cloud"

ROOT = Path(__file__).resolve().parents[2]

log = logging.getLogger("riskmill.agent")


def docker(*arguments: str, seconds: float = 20.0) -> subprocess.CompletedProcess[str]:
    """Run a docker command."""
    return subprocess.run(
        ["docker", *arguments], capture_output=True, text=True, timeout=seconds, check=False, stdin=subprocess.DEVNULL
    )


def has_image(image: str) -> bool:
    """Tell whether a Docker daemon answers and has an image."""
    if shutil.which("docker") is None:
        return False
    try:
        return docker("image", "inspect", image, "--format", "{{.Id}}").returncode == 0
    except subprocess.TimeoutExpired:
        return False


def remove_containers(cloud_id: str) -> int:
    """End every container of a cloud; how many there were."""
    if shutil.which("docker") is None:
        return 0
    try:
        listed = docker("ps", "--all", "--quiet", "--filter", f"label={LABEL}={cloud_id}")
    except subprocess.TimeoutExpired:
        return 0
    names = listed.stdout.split() if listed.returncode == 0 else []
    if names:
        docker("rm", "--force", *names, seconds=60)
    return len(names)


@dataclass(slots=True)
class Worker:
    """The process of a task: the worker itself, or the docker client that waits for its container."""

    process: subprocess.Popen[bytes]
    #: name of the container, or nothing
    container: str = ""
    asked: float = field(default=0.0)

    def stop(self) -> None:
        """Ask the worker to end; after the grace, end it."""
        if not self.asked:
            self.asked = time.monotonic()
            if self.container:
                command = ["docker", "stop", "--time", str(int(GRACE_SECONDS)), self.container]
                subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
            else:
                self.process.terminate()
        elif not self.container and time.monotonic() - self.asked > GRACE_SECONDS:
            self.kill()

    def kill(self) -> None:
        """End the worker at once, and what it started."""
        if self.container:
            docker("rm", "--force", self.container)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)


class Agent:
    """Follows the tasks of one cloud."""

    def __init__(self, ecs: Any, *, environment: Mapping[str, str], logs: Path, mode: str = "auto") -> None:
        """`environment` is what every worker gets besides its task definition's own variables."""
        self._ecs = ecs
        self._environment, self._logs, self._mode = dict(environment), logs, mode
        self._workers: dict[str, Worker] = {}
        self._definitions: dict[str, dict[str, Any]] = {}
        self._done: set[str] = set()

    def turn(self) -> None:
        """Bring workers and tasks into line once."""
        wanted: dict[str, dict[str, Any]] = {}
        for cluster in self._ecs.list_clusters()["clusterArns"]:
            for page in self._ecs.get_paginator("list_tasks").paginate(cluster=cluster, desiredStatus="RUNNING"):
                arns = [arn for arn in page["taskArns"] if arn not in self._workers]
                wanted |= {arn: {} for arn in page["taskArns"] if arn in self._workers}
                for at in range(0, len(arns), 100):
                    tasks = self._ecs.describe_tasks(cluster=cluster, tasks=arns[at : at + 100])["tasks"]
                    wanted |= {task["taskArn"]: task for task in tasks}
        for arn, task in wanted.items():
            if arn not in self._workers and arn not in self._done:
                self._workers[arn] = self._start(arn, task)
        for arn, worker in list(self._workers.items()):
            if arn not in wanted:
                worker.stop()
            code = worker.process.poll()
            if code is None:
                continue
            log.info("task %s ended with %d", arn.rpartition("/")[2], code)
            if arn in wanted:
                cluster = arn.split("/")[-2]
                self._ecs.stop_task(cluster=cluster, task=arn, reason=f"Essential container exited: {code}")
            self._done.add(arn)
            del self._workers[arn]

    def close(self) -> None:
        """End all workers at once."""
        for worker in self._workers.values():
            worker.kill()

    def _start(self, arn: str, task: Mapping[str, Any]) -> Worker:
        name = arn.rpartition("/")[2]
        definition = self._definition(task["taskDefinitionArn"])["containerDefinitions"][0]
        own = {entry["name"]: str(entry["value"]) for entry in definition.get("environment", [])}
        environment = own | self._environment
        with (self._logs / "workers.log").open("ab") as output:
            if self._mode != "never" and (self._mode == "always" or has_image(definition["image"])):
                log.info("task %s: container of %s", name, definition["image"])
                return self._container(name, definition["image"], environment, output)
            log.info("task %s: process", name)
            inherited = {key: os.environ[key] for key in ("PATH", "LANG", "TMPDIR", CLOUD_ID) if key in os.environ}
            process = subprocess.Popen(
                [sys.executable, str(ROOT / "fargate" / "worker" / "main.py")],
                env=inherited | environment | {"PYTHONPATH": str(ROOT / "layers" / "domain"), "ECS_TASK_ID": name},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            return Worker(process)

    def _container(self, name: str, image: str, environment: Mapping[str, str], output: Any) -> Worker:
        # The host's network: the cloud listens on 127.0.0.1 only. Read-only but /tmp, as on Fargate.
        command = ["docker", "run", "--rm", "--name", f"riskmill-{name}", "--network", "host", "--read-only"]
        command += ["--tmpfs", "/tmp", "--label", f"{LABEL}={os.environ.get(CLOUD_ID, '')}"]
        for key, value in environment.items():
            command += ["--env", f"{key}={value}"]
        process = subprocess.Popen(
            [*command, image], stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
        return Worker(process, f"riskmill-{name}")

    def _definition(self, arn: str) -> dict[str, Any]:
        if arn not in self._definitions:
            self._definitions[arn] = self._ecs.describe_task_definition(taskDefinition=arn)["taskDefinition"]
        return self._definitions[arn]


def main() -> int:
    """Follow the cloud that the environment names, until told to end."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    ended = False

    def end(*_: object) -> None:
        nonlocal ended
        ended = True

    signal.signal(signal.SIGTERM, end)
    keys = ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION", "AWS_DEFAULT_REGION")
    environment = {key: os.environ[key] for key in keys} | json.loads(os.environ.get(HANDLER_ENV, "{}"))
    agent = Agent(boto3.client("ecs"), environment=environment, logs=Path.cwd(), mode=os.environ.get(MODE, "auto"))
    try:
        while not ended:
            try:
                agent.turn()
            except Exception:
                log.exception("this turn failed")
            time.sleep(TURN_SECONDS)
    finally:
        agent.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
