"""What MiniStack 1.5.33 gets wrong for riskmill, put right: one small function per patch.

`apply` runs them all, in the launcher's process, before MiniStack serves. Before a function of MiniStack is edited or
replaced, the digest of its source is compared with the one that the patch was written for: another version stops with a
PatchError that names the function, instead of running half patched. tests/local/test_patches.py holds a contract test
per patch: what is wrong without it, and that it is right with it; when the first half fails, the patch has become
needless.

`edit` changes a few lines of a function where they stand (the text must occur exactly once), so that the rest of it
stays MiniStack's own.
"""

import functools
import hashlib
import inspect
import json
import os
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from ministack.core import lambda_runtime, responses
from ministack.services import dynamodb, ecs, lambda_svc, s3, sqs, stepfunctions
from ministack.services.cloudformation import provisioners

from riskmill_local import executions, streams, worker

#: Name of the file of ecs_faults, in MiniStack's STATE_DIR.
RUN_TASK_FAULTS = "run-task-faults.jsonl"

MINISTACK_VERSION = "1.5.33"

# sha256 (first 16 hex digits) of the source of every function that a patch touches, in MINISTACK_VERSION.
DIGESTS = {
    "dynamodb._build_change_record": "45f604ee477218c3",
    "dynamodb._ttl_reaper": "66841bfd60279dd7",
    "ecs._run_task": "6e96d8f5a5b850d7",
    "lambda_runtime._worker_class_for": "b5a23849280af819",
    "lambda_svc._execute_function_warm": "62b9218bef5b948a",
    "lambda_svc._poll_dynamodb_streams": "2b2460e933a9f3c3",
    "lambda_svc._poll_kinesis": "0d590120d060b0a8",
    "lambda_svc._poll_sqs": "e438a6a1e09482dc",
    "provisioners._ddb_create": "277586e016c693bd",
    "provisioners._ddb_update": "0665980ffdd06491",
    "provisioners._lambda_create": "8b2cf80e961d92ee",
    "provisioners._lambda_update": "4855410e37d7a80d",
    "s3._deliver_event_to_sqs": "268b46f4a97c2dfd",
    "sqs._receive_messages_for_esm": "f230dbcd4974adcf",
    "stepfunctions._call_lambda": "25830369b12636da",
    "stepfunctions._error_matches": "519b9dc729c56a3c",
    "stepfunctions._evaluate_rule": "728e6547c8ca20e5",
    "stepfunctions._execute_task": "53c818d247dba62c",
    "stepfunctions._fail_execution": "e6da895fa0b74cdd",
    "stepfunctions._invoke_nested_start_execution": "fc2b83eed27ac70b",
    "stepfunctions._invoke_with_callback": "bbb38423156a0d3d",
    "stepfunctions._nested_execution_failure": "aa53a760707b05bc",
    "stepfunctions._resolve_path": "4ca0c5fe9f7014c6",
    "stepfunctions._run_distributed_map": "2b77d3ec0e04f8f1",
    "stepfunctions._run_execution": "996dff84e0e0605a",
    "stepfunctions._run_map_items": "5df19a8074ce768c",
    "stepfunctions._run_sub_machine": "f8d844168b1459f8",
    "stepfunctions._scaled_sleep": "5ed19df2efa98412",
    "stepfunctions._stop_execution": "44d2d84ccd5c9702",
    "stepfunctions._with_retry_and_catch": "b351699db7b381ef",
}

_sources: dict[str, str] = {}


class PatchError(RuntimeError):
    """MiniStack is not the version that a patch was written for."""


def digest(function: Callable[..., Any]) -> str:
    """First 16 hex digits of the sha256 of a function's source."""
    return hashlib.sha256(inspect.getsource(function).encode()).hexdigest()[:16]


def _source(module: ModuleType, name: str) -> str:
    """The function's source as the patches so far left it; PatchError if its original is not the expected one."""
    key = f"{module.__name__.rpartition('.')[2]}.{name}"
    if key not in _sources:
        function = getattr(module, name, None)
        if function is None or digest(function) != DIGESTS[key]:
            raise PatchError(
                f"{module.__name__}.{name} is not the one of MiniStack {MINISTACK_VERSION} that our patch was "
                f"written for. Install ministack=={MINISTACK_VERSION}, or read the new source and adapt "
                "riskmill_local/patches.py and its tests."
            )
        _sources[key] = textwrap.dedent(inspect.getsource(function))
    return _sources[key]


def edit(module: ModuleType, name: str, *changes: tuple[str, str]) -> None:
    """Replace pieces of a function's source, each of which must occur exactly once, and compile it in its module."""
    source = _source(module, name)
    for old, new in changes:
        if source.count(old) != 1:
            raise PatchError(f"{module.__name__}.{name} has {source.count(old)} times instead of once: {old!r}")
        source = source.replace(old, new)
    _sources[f"{module.__name__.rpartition('.')[2]}.{name}"] = source
    exec(compile(source, f"<{module.__name__}.{name}, patched by riskmill>", "exec"), module.__dict__)


def replace(module: ModuleType, name: str, function: Callable[..., Any]) -> None:
    """Put our function in the place of a module's, whose source must be the expected one."""
    _source(module, name)
    setattr(module, name, function)


# --- Lambda ---------------------------------------------------------------------------------------------------------


def lambda_workers() -> None:
    """Python handlers run in our workers.

    MiniStack's wait 50 ms for log lines of a handler that logs nothing, die on every exception, extract every layer
    again for every process, put layers before the function's own code and the launcher's whole venv after it, and pass
    the launcher's whole environment on.
    """
    original = lambda_runtime._worker_class_for

    def worker_class_for(config: dict[str, Any]) -> Any:
        return worker.ProcessWorker if str(config.get("Runtime", "")).startswith("python") else original(config)

    replace(lambda_runtime, "_worker_class_for", worker_class_for)


def lambda_error_names() -> None:
    """A handler's exception reaches the caller as errorType (its class), errorMessage and stackTrace."""
    edit(
        lambda_svc,
        "_execute_function_warm",
        (
            'error_msg = result.get("error", "Unknown error")',
            'error_msg = result.get("errorMessage", result.get("error", "Unknown error"))',
        ),
        ('error_type = "Runtime.HandlerError"', 'error_type = result.get("errorType", "Runtime.HandlerError")'),
        (
            '"errorType": error_type,\n',
            '"errorType": error_type,\n'
            '                    "requestId": request_id,\n'
            '                    "stackTrace": result.get("stackTrace", []),\n',
        ),
        # Our workers' log has the trace already.
        (
            '"log": "\\n".join(filter(None, [result.get("log", ""), result.get("trace", result.get("error", ""))])),',
            '"log": result.get("log", ""),',
        ),
    )


def lambda_throttles() -> None:
    """A throttled invocation fails its Task with Lambda.TooManyRequestsException, not with Lambda.Unknown."""
    edit(
        stepfunctions,
        "_call_lambda",
        (
            '    if result.get("error"):\n',
            '    if result.get("throttle"):\n'
            '        raise _ExecutionError("Lambda.TooManyRequestsException", result["body"]["message"])\n'
            '    if result.get("error"):\n',
        ),
    )


def lambda_reserved_concurrency() -> None:
    """CloudFormation's ReservedConcurrentExecutions holds; MiniStack drops the property."""

    def reserve(name: str, properties: dict[str, Any]) -> None:
        reserved = properties.get("ReservedConcurrentExecutions")
        lambda_svc._functions[name]["concurrency"] = None if reserved is None else int(reserved)

    create, update = provisioners._lambda_create, provisioners._lambda_update

    @functools.wraps(create)
    def lambda_create(logical_id: str, props: dict[str, Any], stack_name: str) -> Any:
        name, attributes = create(logical_id, props, stack_name)
        reserve(name, props)
        return name, attributes

    @functools.wraps(update)
    def lambda_update(*args: Any, **kwargs: Any) -> Any:
        bound = inspect.signature(update).bind(*args, **kwargs).arguments
        name, attributes = update(*args, **kwargs)
        reserve(name, bound["new_props"])
        return name, attributes

    replace(provisioners, "_lambda_create", lambda_create)
    replace(provisioners, "_lambda_update", lambda_update)
    handlers = provisioners._RESOURCE_HANDLERS["AWS::Lambda::Function"]
    if handlers["create"] is not create or handlers["update"] is not update:
        raise PatchError("AWS::Lambda::Function is not provisioned by _lambda_create and _lambda_update any more")
    handlers.update(create=lambda_create, update=lambda_update)


# --- SQS and S3 events ----------------------------------------------------------------------------------------------


def sqs_batch_size() -> None:
    """An event source mapping's BatchSize may be up to 10,000; MiniStack cuts it to 10."""
    edit(sqs, "_receive_messages_for_esm", ("min(int(max_number or 1), 10)", "int(max_number or 1)"))


def batch_is_ready(queue: dict[str, Any], mapping: dict[str, Any], now: float) -> bool:
    """Whether a mapping's next batch is full, or its first message as old as MaximumBatchingWindowInSeconds."""
    window = float(mapping.get("MaximumBatchingWindowInSeconds") or 0)
    size = int(mapping.get("BatchSize") or 10)
    visible = [message["visible_at"] for message in queue["messages"] if message["visible_at"] <= now]
    return len(visible) >= size or (bool(visible) and now - min(visible) >= window)


def sqs_batching_window() -> None:
    """MaximumBatchingWindowInSeconds holds; MiniStack invokes at once with whatever has arrived."""
    lambda_svc.__dict__["_riskmill_batch_is_ready"] = batch_is_ready
    edit(
        lambda_svc,
        "_poll_sqs",
        (
            "            batch = _sqs._receive_messages_for_esm(queue_url, batch_size)\n",
            "            if not _riskmill_batch_is_ready(queue, esm, now):\n"
            "                continue\n"
            "            batch = _sqs._receive_messages_for_esm(queue_url, batch_size)\n",
        ),
    )


def s3_events_are_kept() -> None:
    """An S3 event enters its queue under the queues' lock.

    Without the lock, the event is lost when it arrives while a batch is being deleted, which rebuilds the queue's list.
    """
    edit(
        s3,
        "_deliver_event_to_sqs",
        (
            '    queue["messages"].append(msg)\n',
            '    with _sqs._queues_lock:\n        queue["messages"].append(msg)\n',
        ),
    )


# --- DynamoDB's TTL, and streams as event sources --------------------------------------------------------------------


def dynamodb_ttl() -> None:
    """TTL deletes come every RISKMILL_TTL_SECONDS, with a stream record by the service; CloudFormation switches TTL on.

    MiniStack sweeps every 60 s, writes no stream record, and drops CloudFormation's TimeToLiveSpecification.
    """
    dynamodb.__dict__["_riskmill_streams"] = streams
    edit(dynamodb, "_build_change_record", ("    return record\n", "    return _riskmill_streams.signed(record)\n"))
    create, update = provisioners._ddb_create, provisioners._ddb_update

    @functools.wraps(create)
    def ddb_create(logical_id: str, props: dict[str, Any], stack_name: str) -> Any:
        name, attributes = create(logical_id, props, stack_name)
        streams.set_ttl(name, props)
        return name, attributes

    @functools.wraps(update)
    def ddb_update(*args: Any, **kwargs: Any) -> Any:
        bound = inspect.signature(update).bind(*args, **kwargs).arguments
        name, attributes = update(*args, **kwargs)
        streams.set_ttl(name, bound["new_props"])
        return name, attributes

    replace(provisioners, "_ddb_create", ddb_create)
    replace(provisioners, "_ddb_update", ddb_update)
    handlers = provisioners._RESOURCE_HANDLERS["AWS::DynamoDB::Table"]
    if handlers["create"] is not create or handlers["update"] is not update:
        raise PatchError("AWS::DynamoDB::Table is not provisioned by _ddb_create and _ddb_update any more")
    handlers.update(create=ddb_create, update=ddb_update)
    _source(dynamodb, "_ttl_reaper")
    streams.start_reaper()


def stream_batch_failures() -> None:
    """Kinesis and DynamoDB mappings honour partial batch answers, MaximumRetryAttempts, record age and OnFailure.

    MiniStack takes every answer for success, and a batch that raises blocks its Kinesis shard for ever.
    """
    lambda_svc.__dict__["_riskmill_streams"] = streams
    edit(
        lambda_svc,
        "_poll_kinesis",
        (
            '                result = _execute_function(func_rec, event)\n\n                if result.get("error"):\n',
            "                result = _execute_function(func_rec, event)\n"
            "                again = _riskmill_streams.again_from(esm, shard_id, result, records)\n"
            '                if again is not None and not result.get("error"):\n'
            '                    positions[shard_id] = pos + [r["SequenceNumber"] for r in raw_records].index(again)\n'
            "                    _esm_backoff_until[esm_id] = time.time() + _ESM_BACKOFF_SECONDS\n"
            "                    continue\n"
            "                if again is not None:\n",
        ),
    )
    edit(
        lambda_svc,
        "_poll_dynamodb_streams",
        ("            raw_len = len(batch)\n", "            raw_len = len(batch)\n            raw_batch = batch\n"),
        (
            '            result = _execute_function(func_rec, event)\n\n            if result.get("error"):\n',
            "            result = _execute_function(func_rec, event)\n"
            "            again = _riskmill_streams.again_from(esm, table_name, result, batch)\n"
            '            if again is not None and not result.get("error"):\n'
            "                numbers = [_riskmill_streams.number_of(r) for r in raw_batch]\n"
            "                with _dynamodb_stream_positions_lock:\n"
            "                    _dynamodb_stream_positions[esm_id] = pos + numbers.index(again)\n"
            "                _esm_backoff_until[esm_id] = time.time() + _ESM_BACKOFF_SECONDS\n"
            "                continue\n"
            "            if again is not None:\n",
        ),
    )


# --- Step Functions -------------------------------------------------------------------------------------------------


def sfn_data_limit() -> None:
    """A state's output above 256 KiB fails the execution with States.DataLimitExceeded, as on AWS."""
    edit(
        stepfunctions,
        "_run_execution",
        (
            '            _add_event(execution, f"{state_type}StateExited", {\n',
            "            _riskmill.check_size(current_input)\n"
            '            _add_event(execution, f"{state_type}StateExited", {\n',
        ),
    )
    edit(
        stepfunctions,
        "_run_sub_machine",
        ("    return current_input\n", "        _riskmill.check_size(current_input)\n\n    return current_input\n"),
    )


def sfn_stop() -> None:
    """StopExecution and a machine's TimeoutSeconds end an execution for good.

    MiniStack ignores the timeout, lets a stopped execution's Map children, waits, retries and nested executions go on,
    and turns it from ABORTED to FAILED when what it waited for fails. An execution also starts without its delay of
    150 ms.
    """
    edit(
        stepfunctions,
        "_run_execution",
        ("    time.sleep(0.15)\n\n", ""),
        (
            "            state_def = all_states.get(current_name)\n",
            "            _riskmill.check()\n            state_def = all_states.get(current_name)\n",
        ),
        (
            "    except _ExecutionError as err:\n",
            "    except _riskmill.Stopped:\n"
            '        _riskmill.end(execution, "ABORTED")\n'
            "    except _ExecutionError as err:\n",
        ),
    )
    replace(stepfunctions, "_run_execution", functools.partial(executions.run, stepfunctions._run_execution))
    edit(
        stepfunctions,
        "_fail_execution",
        (
            '    execution["status"] = "FAILED"\n',
            '    if execution["status"] != "RUNNING":\n        return\n    execution["status"] = "FAILED"\n',
        ),
    )
    edit(
        stepfunctions,
        "_run_sub_machine",
        ("    while current_name:\n", "    while current_name:\n        _riskmill.check()\n"),
    )
    edit(
        stepfunctions,
        "_run_distributed_map",
        (
            '        name = new_uuid()\n        child = {\n            "executionArn"',
            "        if _riskmill.stopped():\n"
            "            return\n"
            "        name = new_uuid()\n"
            "        child = {\n"
            '            "executionArn"',
        ),
        (
            '        _executions[child["executionArn"]] = child\n',
            '        _executions[child["executionArn"]] = child\n        _riskmill.push(child)\n',
        ),
        (
            "        except Exception as exc:\n",
            "        except _riskmill.Stopped:\n"
            '            child["status"] = "ABORTED"\n'
            '            outcome = "aborted"\n'
            "        except Exception as exc:\n",
        ),
        (
            "    failed = sum(",
            "    if _riskmill.stopped():\n"
            '        run.update(status="ABORTED", stopDate=now_iso())\n'
            "        _riskmill.check()\n"
            "    failed = sum(",
        ),
    )
    replace(stepfunctions, "_scaled_sleep", executions.sleep)
    stop = stepfunctions._stop_execution

    def stop_execution(data: dict[str, Any]) -> Any:
        answer = stop(data)
        if execution := stepfunctions._executions.get(data.get("executionArn")):
            executions.abort_children(execution)
        return answer

    replace(stepfunctions, "_stop_execution", stop_execution)


def sfn_retries() -> None:
    """Retry honours MaxDelaySeconds and JitterStrategy; MiniStack ignores both and caps every delay at 60 s."""
    edit(
        stepfunctions,
        "_execute_task",
        (
            '                interval = retrier.get("IntervalSeconds", 1)\n'
            '                backoff = retrier.get("BackoffRate", 2.0)\n'
            "                sleep_sec = interval * (backoff ** count)\n"
            "                _scaled_sleep(min(sleep_sec, 60))\n",
            "                _scaled_sleep(_riskmill.retry_delay(retrier, count))\n",
        ),
    )
    edit(
        stepfunctions,
        "_with_retry_and_catch",
        (
            '                interval = retrier.get("IntervalSeconds", 1)\n'
            '                _scaled_sleep(min(interval * (retrier.get("BackoffRate", 2.0) ** count), 60))\n',
            "                _scaled_sleep(_riskmill.retry_delay(retrier, count))\n",
        ),
    )


def sfn_error_matching() -> None:
    """States.ALL matches neither States.Runtime nor States.DataLimitExceeded; States.Timeout a missed heartbeat too."""
    replace(stepfunctions, "_error_matches", executions.matches)


def sfn_callbacks() -> None:
    """Tasks that wait for a token honour HeartbeatSeconds and the *Path forms and can be stopped.

    Every attempt has a token of its own. A Lambda task that waits for a token also fails when the
    invocation fails, instead of waiting for ever.
    """
    edit(
        stepfunctions,
        "_execute_task",
        (
            '    if is_callback:\n        ctx["Task"] = {"Token": new_uuid()}\n',
            "    state_def = _riskmill.with_seconds(state_def, raw_input, ctx)\n",
        ),
        (
            "        # Each attempt sees its own $$.State.RetryCount.\n",
            '        _riskmill.check()\n        if is_callback:\n            ctx["Task"] = {"Token": new_uuid()}\n'
            "        # Each attempt sees its own $$.State.RetryCount.\n",
        ),
    )
    edit(
        stepfunctions,
        "_invoke_with_callback",
        (
            "        except _ExecutionError:\n            pass\n",
            "        except _ExecutionError:\n            _task_tokens.pop(token, None)\n            raise\n",
        ),
        (
            '    timeout = state_def.get("TimeoutSeconds", 99999)\n'
            "    if not evt.wait(timeout=timeout):\n"
            "        _task_tokens.pop(token, None)\n"
            '        raise _ExecutionError("States.Timeout",\n'
            '                              "Task timed out waiting for callback")\n',
            "    _riskmill.await_callback(token, state_def)\n",
        ),
    )


def sfn_maps() -> None:
    """MaxConcurrencyPath, and ResultWriter's output: where the results are, instead of all of them."""
    edit(
        stepfunctions,
        "_run_map_items",
        (
            'max_conc = state_def.get("MaxConcurrency", 0)',
            "max_conc = _riskmill.max_concurrency(state_def, effective, ctx)",
        ),
    )
    edit(
        stepfunctions,
        "_run_distributed_map",
        (
            'max_conc = int(state_def.get("MaxConcurrency") or 0)',
            "max_conc = _riskmill.max_concurrency(state_def, effective, ctx)",
        ),
        (
            "result = _apply_result_selector(state_def, results)",
            "result = _apply_result_selector(\n"
            "        state_def, _riskmill.written(state_def, results, failures, run, effective, ctx))",
        ),
    )


def sfn_nested_failure() -> None:
    """A failed startExecution.sync:2 is States.TaskFailed with the child's description as Cause, not its own error."""
    replace(stepfunctions, "_nested_execution_failure", executions.nested_failure)


def sfn_started_executions() -> None:
    """An execution that another one starts without waiting for it lives on when that one has ended."""
    edit(
        stepfunctions,
        "_invoke_nested_start_execution",
        ("= _start_execution(request)\n", "= _riskmill.apart(_start_execution, request)\n"),
    )


def sfn_paths() -> None:
    """A JSONPath that finds nothing fails the execution; MiniStack goes on with null. IsPresent sees nulls."""
    replace(stepfunctions, "_resolve_path", executions.resolve_path)
    edit(
        stepfunctions,
        "_evaluate_rule",
        (
            "    value = _resolve_path_or_ctx(variable, data, ctx)\n\n",
            '    if "IsPresent" in rule:\n'
            '        return _riskmill.present(variable, data, ctx) == rule["IsPresent"]\n'
            "    value = _resolve_path_or_ctx(variable, data, ctx)\n\n",
        ),
        ('    if "IsPresent" in rule:\n        return (value is not None) == rule["IsPresent"]\n', ""),
    )


# --- ECS ------------------------------------------------------------------------------------------------------------


def ecs_faults() -> None:
    """RunTask answers what a file in the cloud's folder says, line by line, as long as it has lines: faults for tests.

    A line is {"error", "message"} (the call is refused) or {"failures": [reasons]} (so many of its tasks do not start).
    """
    run_task = ecs._run_task

    def with_faults(data: dict[str, Any]) -> Any:
        faults = Path(os.environ.get("STATE_DIR", "")) / RUN_TASK_FAULTS
        lines = faults.read_text().splitlines() if faults.is_file() else []
        if not lines:
            return run_task(data)
        faults.write_text("\n".join(lines[1:]))
        fault = json.loads(lines[0])
        if "error" in fault:
            return responses.error_response_json(fault["error"], fault["message"], 400)
        started = int(data.get("count", 1)) - len(fault["failures"])
        status, headers, body = run_task(data | {"count": started})
        answer = json.loads(body)
        answer["failures"] = [{"reason": reason} for reason in fault["failures"]]
        return status, headers, json.dumps(answer).encode()

    if ecs._ACTION_MAP["RunTask"] is not run_task:
        raise PatchError("RunTask is not answered by _run_task any more")
    replace(ecs, "_run_task", with_faults)
    ecs._ACTION_MAP["RunTask"] = with_faults


PATCHES: tuple[Callable[[], None], ...] = (
    lambda_workers,
    lambda_error_names,
    lambda_throttles,
    lambda_reserved_concurrency,
    sqs_batch_size,
    sqs_batching_window,
    s3_events_are_kept,
    dynamodb_ttl,
    stream_batch_failures,
    sfn_data_limit,
    sfn_stop,
    sfn_retries,
    sfn_error_matching,
    sfn_callbacks,
    sfn_maps,
    sfn_nested_failure,
    sfn_started_executions,
    sfn_paths,
    ecs_faults,
)


def apply() -> float:
    """Apply every patch to the MiniStack that is imported in this process; seconds taken. Raises PatchError."""
    started = time.perf_counter()
    stepfunctions.__dict__["_riskmill"] = executions
    for patch in PATCHES:
        patch()
    return time.perf_counter() - started
