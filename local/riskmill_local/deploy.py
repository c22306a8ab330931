"""Build and deploy the SAM application to an endpoint, with the sam command line and nothing else.

Used for the embedded cloud by cloud.up. sam lives in an environment of its own (it pins another boto3 than MiniStack).
"""

import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
from botocore.exceptions import ClientError

from riskmill.errors import RiskmillError
from riskmill_local.servers import aws_environment

SOURCES = ("template.yaml", "templates", "functions", "layers", "statemachines")
"""What the build depends on, relative to the repository's root."""

BUILD_STAMP = "riskmill-build"
ARTEFACT_BUCKET = "riskmill-artefacts"
SAM_ENV = "RISKMILL_SAM"
COMMAND_SECONDS = 900
PACK_BYTES = 10_000_000
"""Layers from this size on are zipped by the build instead of by every deployment."""
# A stack in one of these states cannot be updated: it goes, and is made again.
DEAD_STACK = {"ROLLBACK_COMPLETE", "ROLLBACK_FAILED", "CREATE_FAILED", "DELETE_FAILED", "REVIEW_IN_PROGRESS"}


class DeployError(RiskmillError):
    """The build or the deployment failed; the message names the resources that did, and the log."""


def sam_binary(root: Path) -> Path:
    """The sam command: $RISKMILL_SAM, <root>/.venv-sam/bin/sam, or the one on PATH."""
    if named := os.environ.get(SAM_ENV):
        if not Path(named).is_file():
            raise DeployError(f"{SAM_ENV}={named}: there is no such file")
        return Path(named)
    own = root / ".venv-sam" / "bin" / "sam"
    if own.is_file():
        return own
    if found := shutil.which("sam"):
        return Path(found)
    raise DeployError(
        f"the AWS SAM command line is not installed: run `make setup` (it creates {own.parent.parent}), "
        f"install it yourself, or set {SAM_ENV} to its path"
    )


def python_with_pip(root: Path) -> Path:
    """A folder whose python3.13 has pip: sam's Python builder takes the first python3.13 on PATH and runs pip with it.

    An environment that uv made has no pip, but its base interpreter usually has.
    """
    name = f"python{sys.version_info.major}.{sys.version_info.minor}"
    folders = [Path(sys.executable).parent, sam_binary(root).parent, Path(sys.base_prefix) / "bin"]
    folders += [Path(part) for part in os.get_exec_path()]
    for folder in folders:
        python = folder / name
        if (
            python.is_file()
            and subprocess.run([python, "-c", "import pip"], capture_output=True, check=False).returncode == 0
        ):
            return folder
    raise DeployError(
        f"sam build needs a {name} with pip on PATH, and there is none: install one, or pip into this one"
    )


def sources_digest(root: Path) -> str:
    """Digest of everything that the build reads: paths and contents, without bytecode."""
    digest = hashlib.blake2b(digest_size=16)
    for source in SOURCES:
        top = root / source
        files = [top] if top.is_file() else sorted(path for path in top.rglob("*") if path.is_file())
        for path in files:
            if "__pycache__" in path.parts:
                continue
            content = path.read_bytes()
            digest.update(f"{path.relative_to(root)}\0{len(content)}\0".encode())
            digest.update(content)
    return digest.hexdigest()


@contextmanager
def build_folder(root: Path) -> Iterator[Path]:
    """<root>/.aws-sam, held alone: two clouds of one checkout share its build, but must not write it at once.

    sam inherits the lock, so that a sam which outlives a killed `up` keeps the next one waiting until it has ended.
    """
    folder = root / ".aws-sam"
    folder.mkdir(exist_ok=True)
    with (folder / "riskmill.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        os.set_inheritable(lock.fileno(), True)
        yield folder


def built_digest(folder: Path) -> str:
    """Digest of the sources of what is built."""
    stamp = folder / BUILD_STAMP
    if not stamp.is_file():
        raise DeployError(f"nothing is built in {folder}: build first")
    return stamp.read_text()


def build(root: Path, folder: Path, digest: str, log: Path) -> bool:
    """`sam build`, unless what is built is of the same sources; whether it built."""
    stamp = folder / BUILD_STAMP
    built = folder / "build"
    if (built / "template.yaml").is_file() and stamp.is_file() and stamp.read_text() == digest:
        return False
    stamp.unlink(missing_ok=True)
    arguments = ["build", "--cached", "--parallel", "--template-file", str(root / "template.yaml")]
    arguments += ["--build-dir", str(built), "--cache-dir", str(folder / "cache")]
    path = os.pathsep.join((str(python_with_pip(root)), os.environ.get("PATH", "")))
    _sam(root, arguments, {**os.environ, "PATH": path}, log, "sam build")
    # Bytecode of whoever imported the sources would make every artefact look changed.
    for cached in sorted(built.rglob("__pycache__")):
        shutil.rmtree(cached)
    pack_layers(built, folder / "zips")
    stamp.write_text(digest)
    return True


def pack_layers(built: Path, zips: Path) -> None:
    """Zip the large layers of a build once per content, and point its template at the zips.

    `sam deploy` would zip them for every deployment, which for the dependencies (200 MB) is most of its time.
    """
    template = built / "template.yaml"
    text = template.read_text()
    zips.mkdir(exist_ok=True)
    wanted = set()
    for name in set(re.findall(r"^ *ContentUri: (\w+)$", text, re.MULTILINE)):
        files = sorted(path for path in (built / name).rglob("*") if path.is_file())
        if sum(path.stat().st_size for path in files) < PACK_BYTES:
            continue
        digest = hashlib.blake2b(digest_size=16)
        for path in files:
            digest.update(f"{path.relative_to(built)}\0{path.stat().st_size}\0".encode() + path.read_bytes())
        packed = zips / f"{digest.hexdigest()}.zip"
        wanted.add(packed)
        if not packed.is_file():
            partial = packed.with_suffix(".partial")
            with zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as zipped:
                for path in files:
                    zipped.write(path, path.relative_to(built / name))
            partial.replace(packed)
        text = re.sub(rf"^( *ContentUri:) {name}$", rf"\1 {packed}", text, flags=re.MULTILINE)
    template.write_text(text)
    for old in set(zips.iterdir()) - wanted:
        old.unlink()


def deploy(
    root: Path, folder: Path, endpoint: str, stack_name: str, parameters: Mapping[str, str], log: Path
) -> dict[str, str]:
    """`sam deploy` what is built; the stack's outputs."""
    client = boto3.client("cloudformation", **client_options(endpoint))
    storage: Any = boto3.client("s3", **client_options(endpoint))
    region = client.meta.region_name
    try:
        storage.create_bucket(Bucket=ARTEFACT_BUCKET, CreateBucketConfiguration={"LocationConstraint": region})
    except ClientError as error:
        if error.response["Error"]["Code"] != "BucketAlreadyOwnedByYou":
            raise
    _remove_dead_stack(client, stack_name)
    arguments = ["deploy", "--template-file", str(folder / "build" / "template.yaml"), "--stack-name", stack_name]
    arguments += ["--s3-bucket", ARTEFACT_BUCKET, "--region", region, "--no-confirm-changeset", "--no-progressbar"]
    arguments += ["--no-fail-on-empty-changeset", "--capabilities", "CAPABILITY_IAM", "CAPABILITY_AUTO_EXPAND"]
    if parameters:
        arguments += ["--parameter-overrides", *(f"{key}={value}" for key, value in sorted(parameters.items()))]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("AWS_")}
    environment |= aws_environment(endpoint) | {"SAM_CLI_POLL_DELAY": "0.3"}
    try:
        _sam(root, arguments, environment, log, "sam deploy")
    except DeployError as error:
        raise DeployError("\n".join((str(error), *_failures(client, stack_name)))) from None
    stack = client.describe_stacks(StackName=stack_name)["Stacks"][0]
    return {output["OutputKey"]: output["OutputValue"] for output in stack.get("Outputs", [])}


def client_options(endpoint: str) -> dict[str, Any]:
    """Keyword arguments for boto3.client that reach the cloud whatever the user's AWS configuration says."""
    environment = aws_environment(endpoint)
    return {
        "endpoint_url": endpoint,
        "region_name": environment["AWS_REGION"],
        "aws_access_key_id": environment["AWS_ACCESS_KEY_ID"],
        "aws_secret_access_key": environment["AWS_SECRET_ACCESS_KEY"],
    }


def _sam(root: Path, arguments: list[str], environment: Mapping[str, str], log: Path, what: str) -> None:
    """Run sam with its output in a file; DeployError with the last lines of it when it fails."""
    log.parent.mkdir(parents=True, exist_ok=True)
    quiet = {"SAM_CLI_TELEMETRY": "0", "PYTHONDONTWRITEBYTECODE": "1"}
    # sam leaves temporary folders behind; beside the log, a killed one's go with the logs.
    with log.open("wb") as output, tempfile.TemporaryDirectory(prefix="sam-", dir=log.parent) as temporary:
        ended = subprocess.run(
            [str(sam_binary(root)), *arguments],
            cwd=root,
            env={**environment, **quiet, "TMPDIR": temporary},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            timeout=COMMAND_SECONDS,
            check=False,
            close_fds=False,  # see build_folder
        )
    if ended.returncode != 0:
        lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
        raise DeployError(f"{what} failed (exit code {ended.returncode}, log: {log}):\n  " + "\n  ".join(lines[-8:]))


def _remove_dead_stack(client: Any, stack_name: str) -> None:
    try:
        status = client.describe_stacks(StackName=stack_name)["Stacks"][0]["StackStatus"]
    except ClientError:  # there is none yet
        return
    if status in DEAD_STACK:
        client.delete_stack(StackName=stack_name)
        client.get_waiter("stack_delete_complete").wait(
            StackName=stack_name, WaiterConfig={"Delay": 1, "MaxAttempts": 60}
        )


def _failures(client: Any, stack_name: str) -> list[str]:
    """The stack events that failed, oldest first: what went wrong, not what was then cancelled."""
    try:
        events = client.describe_stack_events(StackName=stack_name)["StackEvents"]
    except ClientError:
        return []
    return [
        f"  {event['LogicalResourceId']} ({event.get('ResourceType', '?')}): {event.get('ResourceStatusReason', '')}"
        for event in reversed(events)
        if event["ResourceStatus"].endswith("_FAILED")
        and "cancelled" not in event.get("ResourceStatusReason", "").lower()
    ]


def deployment_digest(sources: str, stack_name: str, parameters: Mapping[str, str]) -> str:
    """Digest of a deployment: equal to the deployed one means that there is nothing to deploy."""
    return hashlib.blake2b(
        json.dumps([sources, stack_name, sorted(parameters.items())]).encode(), digest_size=16
    ).hexdigest()
