"""Running docker from tests."""

import os
import subprocess


def docker(*arguments: str, seconds: float = 300) -> subprocess.CompletedProcess[str]:
    """Run docker and return what came of it."""
    environment = os.environ | {"DOCKER_BUILDKIT": "0"}  # the classic builder is in every daemon
    return subprocess.run(
        ["docker", *arguments], capture_output=True, text=True, timeout=seconds, check=False, env=environment
    )


def done(*arguments: str, seconds: float = 300) -> str:
    """Run docker and return its output; the test fails with docker's own words."""
    ended = docker(*arguments, seconds=seconds)
    assert ended.returncode == 0, f"docker {' '.join(arguments)}\n{ended.stdout[-2000:]}\n{ended.stderr[-2000:]}"
    return ended.stdout.strip()
