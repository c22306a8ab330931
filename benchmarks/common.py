"""What the benchmarks share: the machine's facts, peak memory, a cache server of their own, the peers' environment."""

import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from riskmill_local.processes import free_port
from riskmill_local.servers import redis_binary

ROOT = Path(__file__).parents[1]

#: Where benchmarks keep what they make once; `make clean` removes it.
BUILD = ROOT / "build" / "benchmarks"

START_SECONDS = 20.0


def machine() -> dict[str, Any]:
    """Return what a reader must know of the machine: nothing that names the host or a path on it."""
    cpu = platform.processor()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line.partition(":")[2].strip() for line in info.read_text().splitlines() if "model name" in line]
        cpu = names[0] if names else cpu
    return {
        "cores": os.cpu_count(),
        "cpu": cpu or platform.machine(),
        "architecture": platform.machine(),
        "system": platform.system(),
        "python": platform.python_version(),
        "load_before": round(os.getloadavg()[0], 2),
    }


def peak_mb() -> float:
    """Return the largest resident size of this process so far, in MB of 10^6 bytes.

    Linux's ru_maxrss survives exec and so would count the parent's memory too: VmHWM belongs to this program alone.
    """
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024 / 1e6
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


@contextmanager
def cache_server() -> Iterator[tuple[int, str]]:
    """Start a Valkey or Redis server on a free port of 127.0.0.1, without persistence; yield (port, name and version).

    The server is stopped at the end, whatever happens in between.
    """
    port = free_port()
    command = [str(redis_binary()), "--bind", "127.0.0.1", "--port", str(port), "--save", "", "--appendonly", "no"]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        client = Redis(port=port)
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                client.ping()
                break
            except RedisConnectionError:
                if server.poll() is not None or time.monotonic() > deadline:
                    raise SystemExit("the cache server does not start") from None
                time.sleep(0.05)
        facts: Any = client.info("server")
        name = "valkey" if "valkey_version" in facts else "redis"
        yield port, f"{name} {facts[f'{name}_version']}"
    finally:
        server.terminate()
        server.wait()


def peers_python(name: str = "peers") -> Path:
    """Return the interpreter of an environment of peers, made by uv from its hash-locked file when absent or older."""
    folder, locked = ROOT / f".venv-{name}", ROOT / "requirements" / f"{name}.txt"
    python, stamp = folder / "bin" / "python", folder / ".stamp"
    if python.exists() and stamp.exists() and stamp.stat().st_mtime >= locked.stat().st_mtime:
        return python
    own = ROOT / ".tools" / "bin" / "uv"
    uv = str(own) if own.exists() else shutil.which("uv")
    if uv is None:
        raise SystemExit("the peer needs an environment of its own, and there is no uv: run `make setup` first")
    for command in (
        ["venv", "--quiet", "--clear", "--python", "3.13", str(folder)],
        ["pip", "sync", "--quiet", "--python", str(folder), "--require-hashes", str(locked)],
    ):
        subprocess.run([uv, *command], check=True, stdout=sys.stderr)
    stamp.touch()
    return python
