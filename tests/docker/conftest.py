"""The worker's image, built as `make image` builds it, on a base that needs no container registry.

The base is Debian with the Python that the worker runs on, made by mmdebstrap from the host's package mirror; the
worker's locked wheels are fetched on the host and laid into it, so the build itself needs no network.
"""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from docker_command import docker, done

ROOT = Path(__file__).resolve().parents[2]
REQUIREMENTS = ROOT / "layers" / "dependencies" / "requirements.txt"

#: Kept between sessions, since it takes a minute and does not depend on riskmill.
BASE = "riskmill-test-base:trixie"
DEBIAN = (
    "mmdebstrap",
    "--variant=essential",
    "--include=python3,python3-pip,ca-certificates,libstdc++6,passwd",
    '--aptopt=APT::Install-Recommends "false"',
    "trixie",
)


@pytest.fixture(scope="session")
def daemon() -> None:
    """Skip, with the reason, where no Docker daemon answers."""
    if shutil.which("docker") is None:
        pytest.skip("docker is not installed")
    answer = docker("info", seconds=30)
    if answer.returncode:
        pytest.skip(f"no Docker daemon answers: {(answer.stderr or answer.stdout).strip().splitlines()[-1]}")


@pytest.fixture(scope="session")
def base(daemon: None, tmp_path_factory: pytest.TempPathFactory) -> str:
    """An image with Python 3.13 and pip: RISKMILL_BASE_IMAGE, or one made here."""
    if given := os.environ.get("RISKMILL_BASE_IMAGE"):
        return given
    if docker("image", "inspect", BASE).returncode == 0:
        return BASE
    if shutil.which("mmdebstrap") is None:
        pytest.skip("no base image: mmdebstrap is not installed and RISKMILL_BASE_IMAGE names none")
    tar = tmp_path_factory.mktemp("base") / "base.tar"
    made = subprocess.run([*DEBIAN, str(tar)], capture_output=True, text=True, timeout=400, check=False)
    if made.returncode:
        pytest.skip(f"no base image: mmdebstrap: {made.stderr.strip().splitlines()[-1]}")
    done("import", str(tar), BASE)
    tar.unlink()
    return BASE


@pytest.fixture(scope="session")
def image(base: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The worker's image."""
    context = tmp_path_factory.mktemp("wheels")
    fetched = subprocess.run(
        [str(ROOT / ".venv-sam" / "bin" / "python"), "-m", "pip", "download", "--quiet", "--only-binary=:all:",
         "--disable-pip-version-check", "--require-hashes", "--dest", str(context / "wheels"), "-r", str(REQUIREMENTS)],
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    if fetched.returncode:
        pytest.skip(f"the worker's wheels cannot be fetched: {fetched.stderr.strip().splitlines()[-1]}")
    (context / "Dockerfile").write_text(
        f"FROM {base}\nCOPY wheels /wheels\nENV PIP_NO_INDEX=1 PIP_FIND_LINKS=/wheels\n", encoding="utf-8"
    )
    tag = f"riskmill-worker-test:{os.getpid()}"
    prepared = f"riskmill-test-wheels:{os.getpid()}"
    try:
        done("build", "--quiet", "--tag", prepared, str(context))
        dockerfile = str(ROOT / "fargate" / "worker" / "Dockerfile")
        done("build", "--quiet", "--build-arg", f"BASE_IMAGE={prepared}", "--file", dockerfile, "--tag", tag, str(ROOT))
        yield tag
    finally:
        docker("rmi", "--force", tag, prepared)
