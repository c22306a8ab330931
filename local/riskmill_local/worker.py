"""Lambda execution environments as processes: the parent's side of bootstrap.py, in place of MiniStack's own workers.

One worker runs one invocation at a time, and stays warm after it, whether the handler returned or raised. It differs
from MiniStack's in what the patches' docstrings say: error names, speed, where code comes from, and what is in its
environment.
"""

import contextlib
import hashlib
import importlib.util
import io
import json
import os
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
import zipfile
from pathlib import Path
from typing import Any

from ministack.core import lambda_runtime
from ministack.services import lambda_svc

from riskmill_local import bootstrap
from riskmill_local.launcher_env import ARTEFACTS, HANDLER_ENV
from riskmill_local.processes import CLOUD_ID

# AWS gives the init phase 10 s and then runs it again inside the invocation; a cold numpy and scipy without compiled
# bytecode on a busy laptop may need longer than both.
INIT_SECONDS = 120.0
LOG_GRACE_SECONDS = 1.0

# What AWS's Python runtime carries besides the standard library.
RUNTIME_MODULES = ("boto3", "botocore", "s3transfer", "jmespath", "dateutil", "urllib3", "six")

# Kept from the launcher's environment; the rest of it is not the handler's business.
INHERITED = ("PATH", "LANG", "LC_ALL", "TMPDIR", "LD_LIBRARY_PATH", CLOUD_ID)


def artefacts_dir() -> Path:
    """Where zips are extracted, once per content: a folder of the cloud's state, set by the launcher."""
    return Path(os.environ[ARTEFACTS])


def extracted(archive: bytes) -> Path:
    """The folder with the archive's files, extracted at most once per content.

    Extraction goes to a temporary name and is renamed, so that two workers that start at once, or a crash in between,
    never leave a half extracted folder under the final name.
    """
    target = artefacts_dir() / hashlib.sha256(archive).hexdigest()[:32]
    if not target.is_dir():
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(dir=target.parent, prefix="partial-"))
        with zipfile.ZipFile(io.BytesIO(archive)) as zipped:
            zipped.extractall(partial)
        try:
            partial.rename(target)
        except OSError:  # another worker was first
            if not target.is_dir():
                raise
            shutil.rmtree(partial)
    return target


def runtime_dir() -> Path:
    """A folder of links to the modules that AWS's runtime brings (boto3 and what it needs), and to nothing else."""
    target = artefacts_dir() / "runtime"
    target.mkdir(parents=True, exist_ok=True)
    for name in RUNTIME_MODULES:
        spec = importlib.util.find_spec(name)
        if spec is None or spec.origin is None:
            raise RuntimeError(f"{name} is not installed beside MiniStack")
        source = Path(spec.origin)
        source = source.parent if source.name == "__init__.py" else source
        with contextlib.suppress(FileExistsError):
            (target / source.name).symlink_to(source)
    return target


def environment(config: dict[str, Any], task_root: Path) -> dict[str, str]:
    """The worker's environment: https://docs.aws.amazon.com/lambda/latest/dg/configuration-envvars.html"""
    _, region = lambda_runtime._account_region_from_function_config(config)
    name = config["FunctionName"]
    own = {key: str(value) for key, value in (config.get("Environment") or {}).get("Variables", {}).items()}
    variables: dict[str, str] = (
        {key: os.environ[key] for key in INHERITED if key in os.environ}
        | {"TZ": ":UTC", "AWS_ENDPOINT_URL": f"http://127.0.0.1:{os.environ['GATEWAY_PORT']}"}
        | json.loads(os.environ.get(HANDLER_ENV, "{}"))
        | own
        | {
            "AWS_REGION": region,
            "AWS_DEFAULT_REGION": region,
            "AWS_EXECUTION_ENV": f"AWS_Lambda_{config['Runtime']}",
            "AWS_LAMBDA_FUNCTION_NAME": name,
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(config.get("MemorySize", 128)),
            "AWS_LAMBDA_FUNCTION_VERSION": config.get("Version", "$LATEST"),
            "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
            "AWS_LAMBDA_LOG_GROUP_NAME": (config.get("LoggingConfig") or {}).get("LogGroup") or f"/aws/lambda/{name}",
            "AWS_LAMBDA_LOG_STREAM_NAME": f"{time.strftime('%Y/%m/%d')}/[$LATEST]{uuid.uuid4().hex}",
            "LAMBDA_TASK_ROOT": str(task_root),
            "_HANDLER": config["Handler"],
        }
        | lambda_runtime.execution_credentials(config)
    )
    return variables


class ProcessWorker(lambda_runtime.Worker):  # type: ignore[misc]
    """One execution environment of a Python function."""

    _proc: Any  # the process while there is one; MiniStack's pool looks at it and kills it
    _buffers: dict[str, bytes]

    def _spawn(self) -> None:
        """Start the process and import the handler; raises InitError with the answer when that fails."""
        task_root = extracted(self.code_zip)
        layers = [
            extracted(lambda_svc._resolve_layer_zip(layer))
            for layer in self.config.get("Layers") or []
            if lambda_svc._resolve_layer_zip(layer)
        ]
        # /var/task, then the layers, then the runtime: AWS's order. A later layer is extracted over an earlier one.
        path = [str(task_root), *(str(layer / "python") for layer in reversed(layers))]
        self._proc = subprocess.Popen(
            [sys.executable, "-I", "-S", bootstrap.__file__],
            cwd=task_root,
            env=environment(self.config, task_root),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
        )
        self._buffers = {"answer": b"", "log": b""}
        module, _, handler = self.config["Handler"].rpartition(".")
        init = {"module": module.replace("/", "."), "handler": handler, "path": path, "runtime": str(runtime_dir())}
        self._proc.stdin.write(json.dumps(init).encode() + b"\n")
        reply = self._exchange(None, time.time() + INIT_SECONDS)
        if reply["status"] != "ready":
            self._stop()
            raise InitError({"errorType": "Sandbox.Timedout", "errorMessage": "The init phase timed out"} | reply)

    def invoke(
        self,
        event: Any,
        request_id: str,
        *,
        trace_id: str | None = None,
        depth: int | None = None,
        durable: dict[str, str] | None = None,
        invoked_function_arn: str | None = None,
    ) -> dict[str, Any]:
        """Run one invocation: {"status": "ok", "result"} or {"status": "error", "errorType", ...}, and its "log"."""
        with self._lock:
            cold = self._proc is None or self._proc.poll() is not None
            if cold:
                try:
                    self._spawn()
                except InitError as error:
                    return {**error.reply, "status": "error", "cold_start": True}
            seconds = float(self.config.get("Timeout") or 3)
            deadline = time.time() + seconds
            invocation = {
                "event": event,
                "request_id": request_id,
                "arn": invoked_function_arn or self.config["FunctionArn"],
                "deadline": deadline,
                "trace_id": trace_id,
            }
            try:
                self._proc.stdin.write(json.dumps(invocation).encode() + b"\n")
                reply = self._exchange(request_id, deadline)
            except BrokenPipeError:
                reply = self._ended(request_id)
            if reply["status"] == "timeout":
                self._stop()
                reply |= {
                    "status": "error",
                    "errorType": "Sandbox.Timedout",
                    "errorMessage": f"RequestId: {request_id} Error: Task timed out after {seconds:.2f} seconds",
                }
            return {**reply, "cold_start": cold}

    def _exchange(self, request_id: str | None, deadline: float) -> dict[str, Any]:
        """Read the answer's line, and the log up to its end mark; wait no longer than it takes to write them."""
        proc = self._proc
        end = None if request_id is None else f"{bootstrap.END_OF_LOG}{request_id}\n".encode()
        with selectors.DefaultSelector() as selector:
            selector.register(proc.stdout, selectors.EVENT_READ, "answer")
            selector.register(proc.stderr, selectors.EVENT_READ, "log")
            while True:
                answer, found, rest = self._buffers["answer"].partition(b"\n")
                complete = end is None or end in self._buffers["log"]
                if found and complete:
                    break
                if found:  # the mark was written before the answer: only a handler that closed stderr gets here
                    deadline = min(deadline, time.time() + LOG_GRACE_SECONDS)
                wait = deadline - time.time()
                if wait <= 0:
                    break
                for key, _ in selector.select(wait):
                    chunk = os.read(key.fd, 1 << 16)
                    self._buffers[key.data] += chunk
                    if not chunk:
                        selector.unregister(key.fileobj)
                        if key.data == "answer":
                            return self._ended(request_id or "")
        log, _, later = self._buffers["log"].partition(end) if end else (self._buffers["log"], b"", b"")
        self._buffers = {"answer": rest, "log": later}
        text = log.decode(errors="replace").rstrip("\n")
        if not found:
            return {"status": "timeout", "log": text}
        return {**json.loads(answer), "log": text}

    def _ended(self, request_id: str) -> dict[str, Any]:
        """The answer when the process ended by itself: sys.exit, a crash in C, the kernel's memory killer."""
        proc = self._proc
        log = self._buffers["log"] + proc.stderr.read()
        code = proc.wait()
        self._stop()
        how = f"signal: {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"
        return {
            "status": "error",
            "errorType": "Runtime.ExitError",
            "errorMessage": f"RequestId: {request_id} Error: Runtime exited with error: {how}",
            "stackTrace": [],
            "log": log.decode(errors="replace"),
        }

    def _stop(self) -> None:
        proc, self._proc = self._proc, None
        if proc is None:
            return
        proc.kill()
        proc.wait()
        for pipe in (proc.stdin, proc.stdout, proc.stderr):
            with contextlib.suppress(OSError):
                pipe.close()


class InitError(Exception):
    """The handler's module could not be imported; `reply` is the worker's answer."""

    def __init__(self, reply: dict[str, Any]) -> None:
        self.reply = reply
        super().__init__(reply["errorMessage"])
