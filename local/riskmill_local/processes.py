"""Processes of a cloud: start them apart from the caller's terminal, recognise them for certain, end all of them.

A process is ours when its id and its start time are those that we recorded, or when its environment holds the cloud's
id (MiniStack, the agents and every Lambda worker inherit it), or when it is a Valkey/Redis server working in the
cloud's own folder (it overwrites its environment with its title, so that one cannot be read). Nothing else is ever
signalled.
"""

import contextlib
import os
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil  # type: ignore[import-untyped]

CLOUD_ID = "RISKMILL_CLOUD_ID"
"""Environment variable with the cloud's id, in every process of it but Valkey's."""

REDIS_NAMES = ("valkey-server", "redis-server")
START_TIME_TOLERANCE = 0.05


@dataclass(frozen=True, slots=True)
class Started:
    """A process that we started: its id, and when the kernel says that it began (seconds since the epoch)."""

    pid: int
    created: float

    @property
    def alive(self) -> bool:
        """Whether that very process still runs (a later one with the same id does not count, nor does a zombie)."""
        try:
            process = psutil.Process(self.pid)
            same = abs(process.create_time() - self.created) < START_TIME_TOLERANCE
            return bool(same and process.status() != psutil.STATUS_ZOMBIE)
        except psutil.NoSuchProcess:
            return False


def start(command: Sequence[str], *, env: Mapping[str, str], cwd: Path, log: Path) -> Started:
    """Start a process in a session of its own, with its output appended to a file."""
    cwd.mkdir(parents=True, exist_ok=True)
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        process = subprocess.Popen(
            command,
            env=dict(env),
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    _children.append(process)
    return Started(process.pid, psutil.Process(process.pid).create_time())


# Kept so that a child which ends while we live is reaped by poll() instead of staying a zombie.
_children: list[subprocess.Popen[bytes]] = []


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def listening(port: int) -> bool:
    """Whether something accepts connections on 127.0.0.1:port."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def members(cloud_id: str, redis_dir: Path) -> Iterator[psutil.Process]:
    """Every living process of the cloud with this id, whoever its parent is now; never the caller itself."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            if process.pid == os.getpid() or process.status() == psutil.STATUS_ZOMBIE:
                continue
            if process.name() in REDIS_NAMES:
                if process.cwd() == str(redis_dir.resolve()):
                    yield process
            elif process.environ().get(CLOUD_ID) == cloud_id:
                yield process


def end_all(cloud_id: str, redis_dir: Path, *, seconds: float = 10) -> int:
    """Kill every process of the cloud, again until none is left (a worker may be born meanwhile); how many there were.

    Nothing in the cloud outlives it, so there is nothing to save and no reason to ask politely first.
    """
    deadline = time.monotonic() + seconds
    ended: set[int] = set()
    while found := list(members(cloud_id, redis_dir)):
        for process in found:
            ended.add(process.pid)
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        time.sleep(0.02)
        for child in _children:
            child.poll()
        if time.monotonic() > deadline:
            raise TimeoutError(f"processes of the embedded cloud do not end: {sorted(p.pid for p in found)}")
    return len(ended)
