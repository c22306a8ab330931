"""What runs inside a Lambda worker process of the embedded cloud: the counterpart of AWS's awslambdaric.

It is started as a script by an interpreter without site-packages (`python -I -S bootstrap.py`), so it imports nothing
but the standard library: all that a handler can import is its own artefact, its layers and the runtime folder, in AWS's
order.

1. Read one JSON line: module, handler, the folders for sys.path.
2. Import the handler and answer {"status": "ready"} or {"status": "init_error", ...}.
3. For every further line, an invocation: run the handler, answer {"status": "ok", "result"} or {"status": "error", ...}
   with the exception's class as AWS names it, then write the end mark to stderr, where all log output goes.
A handler that raises leaves the process warm, as on AWS; whatever ends the process is the parent's to report.
"""

import importlib
import json
import os
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any, BinaryIO

END_OF_LOG = "\x1eEND "
"""Starts the line on stderr that says: the log of this invocation is complete."""

# https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html: response of a synchronous invocation
MAX_RESPONSE_BYTES = 6 * 1024 * 1024


class Context:
    """The context object: https://docs.aws.amazon.com/lambda/latest/dg/python-context.html"""

    def __init__(self, invocation: dict[str, Any]) -> None:
        self.function_name = os.environ["AWS_LAMBDA_FUNCTION_NAME"]
        self.function_version = os.environ["AWS_LAMBDA_FUNCTION_VERSION"]
        self.memory_limit_in_mb = os.environ["AWS_LAMBDA_FUNCTION_MEMORY_SIZE"]
        self.log_group_name = os.environ["AWS_LAMBDA_LOG_GROUP_NAME"]
        self.log_stream_name = os.environ["AWS_LAMBDA_LOG_STREAM_NAME"]
        self.aws_request_id: str = invocation["request_id"]
        self.invoked_function_arn: str = invocation["arn"]
        self.identity = None
        self.client_context = None
        self._deadline: float = invocation["deadline"]

    def get_remaining_time_in_millis(self) -> int:
        """Milliseconds until the parent kills this process."""
        return max(0, int((self._deadline - time.time()) * 1000))


def failure(error: BaseException, **more: Any) -> dict[str, Any]:
    """The error as Lambda reports it (and as Step Functions puts it into Cause)."""
    stack = traceback.format_exception(type(error), error, error.__traceback__)
    print(f"[ERROR] {type(error).__name__}: {error}\n{''.join(stack)}", file=sys.stderr, end="")  # noqa: T201 - the log
    return {"errorType": type(error).__name__, "errorMessage": str(error), "stackTrace": stack, **more}


def load(init: dict[str, Any]) -> Callable[[Any, Context], Any] | dict[str, Any]:
    """The handler, or the init error as AWS names it."""
    try:
        module = importlib.import_module(init["module"])
    except ImportError as error:
        return failure(error) | {
            "status": "init_error",
            "errorType": "Runtime.ImportModuleError",
            "errorMessage": f"Unable to import module '{init['module']}': {error}",
        }
    except Exception as error:  # noqa: BLE001 - user code: whatever it raises is the answer
        return failure(error, status="init_error")
    handler: Callable[[Any, Context], Any] | None = getattr(module, init["handler"], None)
    if handler is None:
        message = f"Handler '{init['handler']}' missing on module '{init['module']}'"
        return {"status": "init_error", "errorType": "Runtime.HandlerNotFound", "errorMessage": message}
    return handler


def answer(handler: Callable[[Any, Context], Any], invocation: dict[str, Any]) -> bytes:
    """Run one invocation; its answer as one JSON line."""
    if trace := invocation.get("trace_id"):
        os.environ["_X_AMZN_TRACE_ID"] = trace
    else:
        os.environ.pop("_X_AMZN_TRACE_ID", None)
    try:
        result = handler(invocation["event"], Context(invocation))
    except Exception as error:  # noqa: BLE001 - user code: whatever it raises is the answer
        return json.dumps(failure(error, status="error", requestId=invocation["request_id"])).encode()
    try:
        line = json.dumps({"status": "ok", "result": result}).encode()
    except (TypeError, ValueError) as error:
        problem = f"Unable to marshal response: {error}"
        return json.dumps(
            {"status": "error", "errorType": "Runtime.MarshalError", "errorMessage": problem, "stackTrace": []}
        ).encode()
    if len(line) > MAX_RESPONSE_BYTES:
        problem = f"Response payload size exceeded maximum allowed payload size ({MAX_RESPONSE_BYTES} bytes)."
        return json.dumps(
            {"status": "error", "errorType": "Function.ResponseSizeTooLarge", "errorMessage": problem, "stackTrace": []}
        ).encode()
    return line


def main() -> None:
    """Serve until the parent closes our stdin."""
    # The protocol gets private descriptors: neither the handler nor a process that it starts can read or write them.
    requests: BinaryIO = os.fdopen(os.dup(0), "rb")
    answers: BinaryIO = os.fdopen(os.dup(1), "wb", buffering=0)
    with open(os.devnull) as nothing:  # noqa: PTH123 - a descriptor is all we need
        os.dup2(nothing.fileno(), 0)
    os.dup2(2, 1)

    init = json.loads(requests.readline())
    sys.path[:0] = init["path"]
    sys.path.append(init["runtime"])
    loaded = load(init)
    if isinstance(loaded, dict):
        answers.write(json.dumps(loaded).encode() + b"\n")
        return
    answers.write(b'{"status": "ready"}\n')

    while line := requests.readline():
        invocation = json.loads(line)
        reply = answer(loaded, invocation)
        sys.stdout.flush()
        sys.stderr.write(f"{END_OF_LOG}{invocation['request_id']}\n")
        sys.stderr.flush()
        answers.write(reply + b"\n")


if __name__ == "__main__":
    main()
