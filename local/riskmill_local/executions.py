"""What MiniStack's Step Functions interpreter lacks for us; patches.py weaves these functions into it.

The interpreter runs an execution in a thread, and items of a Map in threads of a pool, each with a copy of the
starter's context variables. `_running` in that context holds the records of the executions that the thread works for,
outermost first: a parent, its Map's child, a nested execution. As soon as one of them is not RUNNING any more
(StopExecution, machine TimeoutSeconds), `check` raises Stopped at the next state or slice of a wait.
"""

import contextvars
import json
import random
import threading
import time
from collections.abc import Callable
from typing import Any

from ministack.core.responses import new_uuid, now_iso
from ministack.services import stepfunctions as sfn

Execution = dict[str, Any]
State = dict[str, Any]

# https://docs.aws.amazon.com/step-functions/latest/dg/service-quotas.html: input or output of a state or an execution
MAX_DATA_BYTES = 256 * 1024
SLICE_SECONDS = 0.1
# https://docs.aws.amazon.com/step-functions/latest/dg/concepts-error-handling.html: States.ALL does not match these
UNCATCHABLE_BY_ALL = {"States.DataLimitExceeded", "States.Runtime"}

_running: contextvars.ContextVar[tuple[Execution, ...]] = contextvars.ContextVar("riskmill_running", default=())


class Stopped(Exception):
    """An execution that this thread works for was stopped or timed out."""


def push(execution: Execution) -> None:
    """From here on this thread also works for `execution`; its context is its own copy, so nothing pops it."""
    _running.set((*_running.get(), execution))


def apart[R](start: Callable[[dict[str, Any]], R], request: dict[str, Any]) -> R:
    """Call `start` so that what it starts does not belong to the executions that this thread works for."""

    def alone() -> R:
        _running.set(())
        return start(request)

    return contextvars.copy_context().run(alone)


def stopped() -> bool:
    """Whether one of the executions that this thread works for is not running any more."""
    return any(execution["status"] != "RUNNING" for execution in _running.get())


def check() -> None:
    """Raise Stopped if `stopped()`."""
    if stopped():
        raise Stopped


def check_size(data: Any) -> None:
    """Raise States.DataLimitExceeded for a state's output that AWS would refuse."""
    size = len(json.dumps(data, separators=(",", ":"), ensure_ascii=False).encode())
    if size > MAX_DATA_BYTES:
        raise sfn._ExecutionError(
            "States.DataLimitExceeded",
            f"The state/task returned a result with a size exceeding the maximum number of bytes service limit: {size}",
        )


def run(original: Callable[[str], None], arn: str) -> None:
    """Run one execution by the interpreter's loop (`original`) under its machine's TimeoutSeconds."""
    execution = sfn._executions.get(arn)
    if execution is None:
        return
    machine = sfn._state_machines.get(execution["stateMachineArn"])
    seconds = json.loads(machine["definition"]).get("TimeoutSeconds") if machine else None
    context = contextvars.copy_context()
    timer = None
    if seconds is not None:
        timer = threading.Timer(float(seconds), context.copy().run, args=(end, execution, "TIMED_OUT"))
        timer.daemon = True
        timer.start()
    try:
        context.run(push, execution)
        context.run(original, arn)
    finally:
        if timer is not None:
            timer.cancel()


def end(execution: Execution, status: str) -> None:
    """Mark a running execution ABORTED or TIMED_OUT; one that has ended already stays what it is."""
    if execution["status"] != "RUNNING":
        return
    execution["status"] = status
    execution["stopDate"] = now_iso()
    event = {"ABORTED": "ExecutionAborted", "TIMED_OUT": "ExecutionTimedOut"}[status]
    if status == "TIMED_OUT":
        execution["error"] = "States.Timeout"
    sfn._add_event(execution, event)
    sfn._emit_execution_status_event(execution)


def abort_children(execution: Execution) -> None:
    """Abort the children of the Map runs of an execution that was stopped."""
    runs = {arn for arn, run in sfn._map_runs.items() if run["executionArn"] == execution["executionArn"]}
    for child in list(sfn._executions.values()):
        if child.get("mapRunArn") in runs and child["status"] == "RUNNING":
            child["status"] = "ABORTED"
            child["stopDate"] = now_iso()


def sleep(seconds: float) -> None:
    """Sleep (scaled by SFN_WAIT_SCALE), but give up within a slice when the execution is stopped."""
    until = time.monotonic() + seconds * sfn._SFN_WAIT_SCALE
    while (left := until - time.monotonic()) > 0:
        check()
        time.sleep(min(left, SLICE_SECONDS))
    check()


def retry_delay(retrier: State, retries: int) -> float:
    """Seconds before retry number `retries` + 1: IntervalSeconds, BackoffRate, MaxDelaySeconds and JitterStrategy."""
    delay = float(retrier.get("IntervalSeconds", 1)) * float(retrier.get("BackoffRate", 2.0)) ** retries
    delay = min(delay, float(retrier.get("MaxDelaySeconds", delay)))
    return random.uniform(0, delay) if retrier.get("JitterStrategy", "NONE") == "FULL" else delay


def matches(error_equals: list[str], error: str) -> bool:
    """Whether a Retry's or Catch's ErrorEquals covers an error name.

    https://docs.aws.amazon.com/step-functions/latest/dg/concepts-error-handling.html: States.Timeout also covers a
    missed heartbeat; States.TaskFailed covers all but States.Timeout; States.ALL covers neither States.Runtime nor
    States.DataLimitExceeded.
    """
    if error in error_equals:
        return True
    if error in UNCATCHABLE_BY_ALL:
        return False
    if error == "States.HeartbeatTimeout" and "States.Timeout" in error_equals:
        return True
    return "States.ALL" in error_equals or ("States.TaskFailed" in error_equals and error != "States.Timeout")


def with_seconds(state: State, raw_input: Any, ctx: dict[str, Any]) -> State:
    """The state with TimeoutSecondsPath and HeartbeatSecondsPath replaced by what they point at."""
    resolved = {}
    for field in ("TimeoutSeconds", "HeartbeatSeconds"):
        if path := state.get(f"{field}Path"):
            value = sfn._resolve_path_or_ctx(path, sfn._apply_input_path(state, raw_input, ctx), ctx)
            if not isinstance(value, int) or isinstance(value, bool) or value <= 0:
                raise sfn._ExecutionError(
                    "States.Runtime", f"{field}Path {path} gives {value!r}, not a positive integer"
                )
            resolved[field] = value
    return state | resolved if resolved else state


def max_concurrency(state: State, effective: Any, ctx: dict[str, Any]) -> int:
    """A Map's MaxConcurrency or what MaxConcurrencyPath points at; 0 = no bound."""
    if path := state.get("MaxConcurrencyPath"):
        value = sfn._resolve_path_or_ctx(path, effective, ctx)
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise sfn._ExecutionError(
                "States.Runtime", f"MaxConcurrencyPath {path} gives {value!r}, not an integer >= 0"
            )
        return value
    return int(state.get("MaxConcurrency") or 0)


def await_callback(token: str, state: State) -> None:
    """Wait until the task token is answered; raise on TimeoutSeconds, HeartbeatSeconds or a stopped execution."""
    info = sfn._task_tokens[token]
    started = beat = time.monotonic()
    seen = info["heartbeat"]
    timeout = float(state.get("TimeoutSeconds", 99_999_999))
    heartbeat = float(state.get("HeartbeatSeconds", 99_999_999))
    while not info["event"].wait(SLICE_SECONDS):
        now = time.monotonic()
        if info["heartbeat"] != seen:
            seen, beat = info["heartbeat"], now
        error = None
        if now - started >= timeout:
            error = sfn._ExecutionError("States.Timeout", "")
        elif now - beat >= heartbeat:
            error = sfn._ExecutionError("States.HeartbeatTimeout", "")
        if error is not None or stopped():
            sfn._task_tokens.pop(token, None)
            raise error or Stopped()


def nested_failure(payload: dict[str, Any]) -> tuple[str, str]:
    """Error and cause of a failed startExecution.sync: always States.TaskFailed, with the execution's description."""
    described = {
        "ExecutionArn": payload.get("executionArn"),
        "Input": payload.get("input"),
        "Name": payload.get("name"),
        "StartDate": payload.get("startDate"),
        "StateMachineArn": payload.get("stateMachineArn"),
        "Status": payload.get("status"),
        "StopDate": payload.get("stopDate"),
    }
    described |= {name: payload[name.lower()] for name in ("Error", "Cause") if payload.get(name.lower())}
    return "States.TaskFailed", json.dumps(described)


def resolve_path(path: str, data: Any) -> Any:
    """The value at a JSONPath; what is not there fails the execution as on AWS, instead of becoming null."""
    if not path or not path.startswith("$") or path == "$":
        return data
    tokens = sfn._parse_jsonpath_tokens(path)
    if tokens is None:
        raise sfn._ExecutionError("States.Runtime", f"The embedded cloud does not understand the JSONPath '{path}'")
    values = [data]
    projected = False
    for kind, token in tokens:
        found: list[Any] = []
        for value in values:
            if kind == "wildcard":
                found.extend(value.values() if isinstance(value, dict) else value if isinstance(value, list) else [])
            elif (kind == "field" and isinstance(value, dict) and token in value) or (
                kind == "index" and isinstance(value, list) and -len(value) <= token < len(value)
            ):
                found.append(value[token])
        projected = projected or kind == "wildcard"
        values = found
    if projected:
        return values
    if not values:
        raise sfn._ExecutionError("States.Runtime", f"The JSONPath '{path}' could not be found in the input")
    return values[0]


def present(path: str, data: Any, ctx: dict[str, Any] | None) -> bool:
    """IsPresent: whether the path exists, be its value null or not."""
    try:
        sfn._resolve_path_or_ctx(path, data, ctx)
    except sfn._ExecutionError:
        return False
    return True


def written(
    state: State, results: list[Any], failures: list[Any], run: dict[str, Any], effective: Any, ctx: Any
) -> Any:
    """A Distributed Map's result: the children's outputs, or with a ResultWriter where they were written.

    Layout and names as in https://docs.aws.amazon.com/step-functions/latest/dg/input-output-resultwriter.html
    """
    writer = state.get("ResultWriter")
    if not writer:
        return results
    target = sfn._resolve_params_obj(writer.get("Parameters") or {}, effective, ctx)
    bucket, prefix = target["Bucket"], target.get("Prefix", "").strip("/")
    folder = "/".join(part for part in (prefix, run["mapRunArn"].rsplit(":", 1)[1] or new_uuid()) if part)
    files: dict[str, list[dict[str, Any]]] = {"FAILED": [], "PENDING": [], "SUCCEEDED": []}
    kinds = {
        "SUCCEEDED": [
            {"Output": json.dumps(r), "Status": "SUCCEEDED"} for r, f in zip(results, failures, strict=True) if not f
        ],
        "FAILED": [{"Error": f.error, "Cause": f.cause, "Status": "FAILED"} for f in failures if f],
    }
    for kind, entries in kinds.items():
        if entries:
            key = f"{folder}/{kind}_0.json"
            body = json.dumps(entries).encode()
            put_object(bucket, key, body)
            files[kind].append({"Key": key, "Size": len(body)})
    manifest = {"DestinationBucket": bucket, "MapRunArn": run["mapRunArn"], "ResultFiles": files}
    put_object(bucket, f"{folder}/manifest.json", json.dumps(manifest).encode())
    return {
        "MapRunArn": run["mapRunArn"],
        "ResultWriterDetails": {"Bucket": bucket, "Key": f"{folder}/manifest.json"},
    }


def put_object(bucket: str, key: str, body: bytes) -> None:
    """Write an object of the Map run; States.ResultWriterFailed when S3 refuses it."""
    from ministack.services import s3

    status, _, answer = s3._put_object(bucket, key, body, {"content-type": "application/json"})
    if status != 200:
        raise sfn._ExecutionError("States.ResultWriterFailed", f"s3://{bucket}/{key}: {answer!r}")
