"""Two MiniStacks side by side for the contract tests: `plain` as published, `patched` as our launcher runs it."""

import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from cloud_fixtures import Endpoint
from riskmill_local import processes, servers
from riskmill_local.servers import Layout


@pytest.fixture(scope="session")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    """Where the patched MiniStack keeps its files."""
    return Layout(tmp_path_factory.mktemp("patched"))


@pytest.fixture(scope="session")
def patched(layout: Layout) -> Iterator[Endpoint]:
    """MiniStack with our patches."""
    cloud_id = uuid.uuid4().hex
    _, port = servers.start_ministack(layout, cloud_id, redis_port=1)
    yield Endpoint(f"http://127.0.0.1:{port}")
    processes.end_all(cloud_id, layout.redis)


@pytest.fixture(scope="session")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    """MiniStack as published."""
    folder: Path = tmp_path_factory.mktemp("plain")
    port = processes.free_port()
    cloud_id = uuid.uuid4().hex
    environment = {key: os.environ[key] for key in ("PATH", "HOME") if key in os.environ} | {
        "GATEWAY_PORT": str(port),
        "BIND_HOST": "127.0.0.1",
        "MINISTACK_HOST": "127.0.0.1",
        "MINISTACK_REGION": servers.REGION,
        "IOT_MTLS_ENABLED": "0",
        "DOCKER_HOST": "unix:///nonexistent.sock",
        "LOG_LEVEL": "WARNING",
        "TMPDIR": str(folder),
        processes.CLOUD_ID: cloud_id,
    }
    command = [sys.executable, "-c", "from ministack import app; app.main()"]
    with subprocess.Popen(command, env=environment, cwd=folder, start_new_session=True) as server:
        deadline = time.monotonic() + 60
        while True:
            assert server.poll() is None
            assert time.monotonic() < deadline
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/_ministack/health", timeout=2).close()
                break
            except (OSError, urllib.error.URLError):
                time.sleep(0.05)
        yield Endpoint(f"http://127.0.0.1:{port}")
        processes.end_all(cloud_id, folder)
