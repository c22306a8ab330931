"""Contract tests of the patches: what MiniStack as published does wrong, and that the patched one does it right.

A failing first half means that MiniStack has changed and the patch can go (or must be looked at); a failing second half
that the patch does not work any more.
"""

import json
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from cloud_fixtures import ROLE, ROOT
from cloud_fixtures import Endpoint as Stack
from riskmill_local import patches
from riskmill_local.deploy import client_options
from riskmill_local.servers import Layout

RAISES = """
import os
class TransientError(Exception): pass
def handler(event, context):
    if event.get("exit"): os._exit(7)
    if event.get("raise"): raise TransientError("no such luck")
    return {"pid": os.getpid()}
"""
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT / "local")}
SLEEPS = "import time\ndef handler(event, context): time.sleep(event['seconds']); return event"


def task(resource: str, **fields: Any) -> dict[str, Any]:
    """A machine of one Task."""
    return {"StartAt": "Task", "States": {"Task": {"Type": "Task", "Resource": resource, "End": True} | fields}}


def both(plain: Stack, patched: Stack, scenario: Callable[[Stack], Any]) -> tuple[Any, Any]:
    """The scenario's result on both, side by side in time."""
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.submit(scenario, plain), pool.submit(scenario, patched)
        return first.result(), second.result()


def test_another_ministack_is_refused_with_a_message_that_names_the_function() -> None:
    script = (
        "from ministack.services import sqs\n"
        "def _receive_messages_for_esm(queue_url, max_number): return []\n"
        "sqs._receive_messages_for_esm = _receive_messages_for_esm\n"
        "import inspect; get = inspect.getsource\n"
        "inspect.getsource = lambda f: 'changed' if f is _receive_messages_for_esm else get(f)\n"
        "import sys; from riskmill_local import launcher; sys.exit(launcher.main())\n"
    )
    ended = subprocess.run([sys.executable, "-c", script], env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert ended.returncode == 3
    assert "ministack.services.sqs._receive_messages_for_esm is not the one of MiniStack 1.5.33" in ended.stderr


# --- Lambda ---------------------------------------------------------------------------------------------------------


def test_an_exception_reaches_the_caller_by_its_class_and_leaves_the_worker_warm(plain: Stack, patched: Stack) -> None:
    def scenario(stack: Stack) -> Any:
        function = stack.function(RAISES)
        before = stack.invoke(function, {})
        error = stack.invoke(function, {"raise": True})
        return error, before == stack.invoke(function, {})

    (wrong, wrong_warm), (right, right_warm) = both(plain, patched, scenario)
    assert wrong["errorType"] == "Runtime.HandlerError"
    assert not wrong_warm
    assert right["errorType"] == "TransientError"
    assert right["errorMessage"] == "no such luck"
    assert any("raise TransientError" in line for line in right["stackTrace"])
    assert right_warm


def test_step_functions_retries_and_catches_a_handlers_own_exception(plain: Stack, patched: Stack) -> None:
    def scenario(stack: Stack) -> Any:
        catch = [{"ErrorEquals": ["TransientError"], "Next": "Caught", "ResultPath": "$.error"}]
        retry = [{"ErrorEquals": ["TransientError"], "IntervalSeconds": 1, "MaxAttempts": 1}]
        machine = task(stack.function(RAISES), Catch=catch, Retry=retry)
        machine["States"]["Caught"] = {"Type": "Succeed"}
        return stack.run(machine, {"raise": True})

    wrong, right = both(plain, patched, scenario)
    assert (wrong["status"], wrong["error"]) == ("FAILED", "Runtime.HandlerError")
    assert right["output"]["error"]["Error"] == "TransientError"
    assert json.loads(right["output"]["error"]["Cause"])["errorMessage"] == "no such luck"


def test_a_process_that_dies_is_a_runtime_exit_error(plain: Stack, patched: Stack) -> None:
    wrong, right = both(plain, patched, lambda stack: stack.invoke(stack.function(RAISES), {"exit": True}))
    assert wrong["errorType"] == "Runtime.HandlerError"
    assert right["errorType"] == "Runtime.ExitError"
    assert "exit status 7" in right["errorMessage"]


def test_a_handler_that_runs_out_of_time_is_killed_and_replaced(patched: Stack) -> None:
    function = patched.function(SLEEPS, Timeout=1)
    started = time.monotonic()
    error = patched.invoke(function, {"seconds": 30})
    assert time.monotonic() - started < 5
    assert error["errorType"] == "Sandbox.Timedout"
    assert "timed out after 1.00 seconds" in error["errorMessage"]
    assert patched.invoke(function, {"seconds": 0}) == {"seconds": 0}


def test_a_module_that_cannot_be_imported_says_so_and_one_that_is_missing_in_the_artefact_is_not_found(
    plain: Stack, patched: Stack
) -> None:
    """numpy is installed beside MiniStack, but not in the artefact: on AWS the import fails."""
    code = "import numpy\ndef handler(event, context): return numpy.__name__"
    wrong, right = both(plain, patched, lambda stack: stack.invoke(stack.function(code)))
    assert wrong == "numpy"
    assert right["errorType"] == "Runtime.ImportModuleError"
    assert "No module named 'numpy'" in right["errorMessage"]


def test_a_handler_can_import_boto3_but_nothing_else_of_the_launchers_environment(patched: Stack) -> None:
    code = (
        "import boto3, importlib.util as u, os\n"
        "def handler(event, context):\n"
        "    boto3.client('s3').list_buckets()\n"
        "    return [n for n in ('riskmill', 'riskmill_local', 'ministack', 'pytest') if u.find_spec(n)]"
    )
    assert patched.invoke(patched.function(code)) == []


def test_a_silent_handler_takes_no_50_ms(plain: Stack, patched: Stack) -> None:
    def scenario(stack: Stack) -> float:
        function = stack.function("def handler(event, context): return 1")
        client = stack.client("lambda")
        client.invoke(FunctionName=function)
        taken = []
        for _ in range(8):
            started = time.perf_counter()
            client.invoke(FunctionName=function)
            taken.append(time.perf_counter() - started)
        return min(taken)

    wrong, right = scenario(plain), scenario(patched)
    assert wrong > 0.05
    assert right < 0.04


def test_a_handlers_output_is_its_log(patched: Stack) -> None:
    code = "import sys\ndef handler(event, context): print('to stdout'); print('to stderr', file=sys.stderr); return 1"
    function = patched.function(code)
    patched.invoke(function)
    assert patched.invoke(function) == 1
    logs = patched.client("logs")
    events = logs.filter_log_events(logGroupName=f"/aws/lambda/{function.rpartition(':')[2]}")["events"]
    lines = [event["message"] for event in events]
    assert lines.count("to stdout") == lines.count("to stderr") == 2


def test_a_layer_is_extracted_once_and_comes_after_the_functions_own_code(patched: Stack) -> None:
    import io
    import zipfile

    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as zipped:
        zipped.writestr("python/shared.py", "WHERE = __file__")
        zipped.writestr("python/app.py", "def handler(event, context): return 'the layer is first'")
    layer = patched.client("lambda").publish_layer_version(LayerName="l", Content={"ZipFile": archive.getvalue()})
    code = "import shared, time\ndef handler(event, context): time.sleep(0.5); return shared.WHERE"
    function = patched.function(code, Layers=[layer["LayerVersionArn"]])
    with ThreadPoolExecutor(2) as pool:  # two workers
        places = set(pool.map(lambda _: patched.invoke(function), range(2)))
    assert len(places) == 1
    assert places.pop().endswith("/python/shared.py")


def test_a_throttled_invocation_has_aws_error_name_in_step_functions(plain: Stack, patched: Stack) -> None:
    def scenario(stack: Stack) -> Any:
        function = stack.function("def handler(event, context): return 1")
        stack.client("lambda").put_function_concurrency(FunctionName=function, ReservedConcurrentExecutions=0)
        return stack.run(task(function))["error"]

    assert both(plain, patched, scenario) == ("Lambda.Unknown", "Lambda.TooManyRequestsException")


def test_reserved_concurrency_declared_in_a_template_holds(plain: Stack, patched: Stack) -> None:
    def scenario(stack: Stack) -> Any:
        common = {
            "Runtime": "python3.13",
            "Handler": "index.handler",
            "Role": ROLE,
            "Code": {"ZipFile": "def handler(event, context): return 1"},
        }
        client = stack.client("cloudformation")
        name = f"s{uuid.uuid4().hex[:8]}"
        answers = []
        for change, reserved in (("create", {"ReservedConcurrentExecutions": 0}), ("update", {})):
            template = {"Resources": {"F": {"Type": "AWS::Lambda::Function", "Properties": common | reserved}}}
            getattr(client, f"{change}_stack")(StackName=name, TemplateBody=json.dumps(template))
            client.get_waiter(f"stack_{change}_complete").wait(StackName=name, WaiterConfig={"Delay": 1})
            function = client.describe_stack_resources(StackName=name)["StackResources"][0]["PhysicalResourceId"]
            try:
                answers.append(stack.invoke(function))
            except ClientError as error:
                answers.append(error.response["Error"]["Code"])
        return answers

    assert both(plain, patched, scenario) == ([1, 1], ["TooManyRequestsException", 1])


# --- SQS and S3 events ----------------------------------------------------------------------------------------------


def test_a_mapping_collects_a_batch_up_to_its_size_and_window(plain: Stack, patched: Stack) -> None:
    def scenario(stack: Stack) -> list[int]:
        sqs, table = stack.client("sqs"), f"t{uuid.uuid4().hex[:8]}"
        stack.client("dynamodb").create_table(
            TableName=table,
            BillingMode="PAY_PER_REQUEST",
            AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
            KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
        )
        function = stack.function(
            "import boto3\n"
            "def handler(event, context):\n"
            f"    boto3.client('dynamodb').put_item(TableName='{table}', Item={{'id': {{'S': context.aws_request_id}},"
            " 'n': {'N': str(len(event['Records']))}})"
        )
        url = sqs.create_queue(QueueName=f"q{uuid.uuid4().hex[:8]}")["QueueUrl"]
        arn = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
        stack.client("lambda").create_event_source_mapping(
            EventSourceArn=arn, FunctionName=function, BatchSize=1000, MaximumBatchingWindowInSeconds=2
        )
        for _ in range(3):
            sqs.send_message_batch(QueueUrl=url, Entries=[{"Id": str(i), "MessageBody": "x"} for i in range(10)])
            time.sleep(0.2)
        deadline = time.monotonic() + 10
        while True:
            items = stack.client("dynamodb").scan(TableName=table)["Items"]
            sizes = sorted(int(item["n"]["N"]) for item in items)
            if sum(sizes) == 30 or time.monotonic() > deadline:
                return sizes
            time.sleep(0.2)

    wrong, right = both(plain, patched, scenario)
    assert max(wrong) <= 10
    assert right == [30]


# --- Step Functions -------------------------------------------------------------------------------------------------


def test_a_stopped_execution_stops_its_waits_and_its_maps_children_and_stays_aborted(
    plain: Stack, patched: Stack
) -> None:
    def scenario(stack: Stack) -> Any:
        queue = stack.client("sqs").create_queue(QueueName=f"q{uuid.uuid4().hex[:8]}")["QueueUrl"]
        send = {
            "Type": "Task",
            "Resource": "arn:aws:states:::sqs:sendMessage",
            "Parameters": {"QueueUrl": queue, "MessageBody": "went on"},
            "End": True,
        }
        distributed = {
            "Type": "Map",
            "ItemProcessor": {
                "ProcessorConfig": {"Mode": "DISTRIBUTED", "ExecutionType": "STANDARD"},
                "StartAt": "Wait",
                "States": {"Wait": {"Type": "Wait", "Seconds": 2, "Next": "Send"}, "Send": send},
            },
            "MaxConcurrency": 2,
            "End": True,
        }
        states = stack.client("stepfunctions")
        execution = stack.start({"StartAt": "Map", "States": {"Map": distributed}}, [1, 2, 3, 4])
        time.sleep(0.7)
        states.stop_execution(executionArn=execution)
        time.sleep(3.5)
        attributes = stack.client("sqs").get_queue_attributes(QueueUrl=queue, AttributeNames=["All"])["Attributes"]
        run = states.describe_map_run(mapRunArn=states.list_map_runs(executionArn=execution)["mapRuns"][0]["mapRunArn"])
        return stack.wait(execution)["status"], int(attributes["ApproximateNumberOfMessages"]), run["status"]

    wrong, right = both(plain, patched, scenario)
    assert wrong[1] > 0
    assert right == ("ABORTED", 0, "ABORTED")


def test_a_stopped_execution_does_not_turn_failed(plain: Stack, patched: Stack) -> None:
    def scenario(stack: Stack) -> Any:
        code = "import time\ndef handler(event, context): time.sleep(1.5); raise ValueError('late')"
        execution = stack.start(task(stack.function(code)))
        time.sleep(0.7)
        stack.client("stepfunctions").stop_execution(executionArn=execution)
        time.sleep(2)
        return stack.wait(execution)["status"]

    assert both(plain, patched, scenario) == ("FAILED", "ABORTED")


def test_a_machines_timeout_ends_it(plain: Stack, patched: Stack) -> None:
    machine = {"TimeoutSeconds": 1, "StartAt": "Wait", "States": {"Wait": {"Type": "Wait", "Seconds": 3, "End": True}}}
    wrong, right = both(plain, patched, lambda stack: stack.run(machine))
    assert wrong["status"] == "SUCCEEDED"
    assert right["status"] == "TIMED_OUT"


def test_stopping_a_parent_stops_the_execution_that_it_waits_for(patched: Stack) -> None:
    states = patched.client("stepfunctions")
    child = {"StartAt": "Wait", "States": {"Wait": {"Type": "Wait", "Seconds": 60, "End": True}}}
    name = f"c{uuid.uuid4().hex[:8]}"
    machine = states.create_state_machine(name=name, definition=json.dumps(child), roleArn=ROLE)["stateMachineArn"]
    parameters = {"StateMachineArn": machine, "Input": {}}
    parent = patched.start(task("arn:aws:states:::states:startExecution.sync:2", Parameters=parameters))
    deadline = time.monotonic() + 5
    while not (found := states.list_executions(stateMachineArn=machine)["executions"]) and time.monotonic() < deadline:
        time.sleep(0.05)
    states.stop_execution(executionArn=parent)
    assert patched.wait(found[0]["executionArn"], seconds=3)["status"] == "ABORTED"
    assert patched.wait(parent)["status"] == "ABORTED"


def test_a_retry_keeps_to_its_maximal_delay(plain: Stack, patched: Stack) -> None:
    def scenario(stack: Stack) -> float:
        retry = {"ErrorEquals": ["States.ALL"], "IntervalSeconds": 4, "MaxDelaySeconds": 1, "MaxAttempts": 2}
        started = time.monotonic()
        stack.run(task(stack.function(RAISES), Retry=[retry]), {"raise": True}, seconds=20)
        return time.monotonic() - started

    wrong, right = both(plain, patched, scenario)
    assert wrong > 11
    assert right < 6


def test_full_jitter_spreads_a_retrys_delay_between_nothing_and_all_of_it() -> None:
    from riskmill_local import executions

    retrier = {"IntervalSeconds": 2, "BackoffRate": 3, "JitterStrategy": "FULL", "MaxDelaySeconds": 10}
    delays = [executions.retry_delay(retrier, 5) for _ in range(200)]
    assert max(delays) <= 10
    assert min(delays) < 2
    assert executions.retry_delay({"IntervalSeconds": 2, "BackoffRate": 3}, 2) == 18


def test_states_all_catches_neither_a_runtime_error_nor_too_much_data(plain: Stack, patched: Stack) -> None:
    def scenario(stack: Stack) -> Any:
        code = "def handler(event, context): return 'x' * 300_000"
        machine = task(stack.function(code), Catch=[{"ErrorEquals": ["States.ALL"], "Next": "Caught"}])
        machine["States"]["Caught"] = {"Type": "Succeed"}
        result = stack.run(machine)
        return result["status"], result.get("error")

    assert both(plain, patched, scenario) == (("SUCCEEDED", None), ("FAILED", "States.DataLimitExceeded"))


def test_a_path_that_finds_nothing_fails_the_execution_but_is_present_knows(plain: Stack, patched: Stack) -> None:
    def scenario(stack: Stack) -> Any:
        machine = {
            "StartAt": "Choice",
            "States": {
                "Choice": {
                    "Type": "Choice",
                    "Choices": [
                        {
                            "And": [
                                {"Variable": "$.null", "IsPresent": True},
                                {"Not": {"Variable": "$.gone", "IsPresent": True}},
                            ],
                            "Next": "Pass",
                        }
                    ],
                    "Default": "Fail",
                },
                "Pass": {"Type": "Pass", "Parameters": {"value.$": "$.gone"}, "End": True},
                "Fail": {"Type": "Fail", "Error": "IsPresent"},
            },
        }
        return stack.run(machine, {"null": None})

    wrong, right = both(plain, patched, scenario)
    assert wrong["error"] == "IsPresent"
    assert right["error"] == "States.Runtime"
    assert "'$.gone' could not be found" in right["cause"]


def callback(stack: Stack, **fields: Any) -> tuple[dict[str, Any], str]:
    """A machine that sends a task token to a new queue and waits; the queue's URL."""
    url = stack.client("sqs").create_queue(QueueName=f"q{uuid.uuid4().hex[:8]}")["QueueUrl"]
    body = {"token.$": "$$.Task.Token", "run.$": "$$.Execution.Name"}
    parameters = {"QueueUrl": url, "MessageBody": body}
    return task("arn:aws:states:::sqs:sendMessage.waitForTaskToken", Parameters=parameters, **fields), url


def token_of(stack: Stack, url: str) -> str:
    """The token in the queue's next message."""
    message = stack.client("sqs").receive_message(QueueUrl=url, WaitTimeSeconds=5)["Messages"][0]
    return str(json.loads(message["Body"])["token"])


def test_a_task_whose_worker_sends_no_heartbeat_times_out(plain: Stack, patched: Stack) -> None:
    def scenario(stack: Stack) -> Any:
        machine, _ = callback(stack, HeartbeatSeconds=1, TimeoutSeconds=4)
        started = time.monotonic()
        result = stack.run(machine)
        return result["error"], time.monotonic() - started

    (wrong, wrong_seconds), (right, right_seconds) = both(plain, patched, scenario)
    assert wrong == "States.Timeout"
    assert wrong_seconds > 3.5
    assert right == "States.HeartbeatTimeout"
    assert right_seconds < 3


def test_heartbeats_keep_a_task_alive_until_it_succeeds(patched: Stack) -> None:
    machine, url = callback(patched, HeartbeatSeconds=1)
    execution = patched.start(machine)
    token = token_of(patched, url)
    states = patched.client("stepfunctions")
    for _ in range(5):
        time.sleep(0.4)
        states.send_task_heartbeat(taskToken=token)
    states.send_task_success(taskToken=token, output='{"done": true}')
    assert patched.wait(execution)["output"] == {"done": True}


def test_every_attempt_of_a_callback_task_has_a_token_of_its_own(plain: Stack, patched: Stack) -> None:
    def scenario(stack: Stack) -> bool:
        machine, url = callback(stack, Retry=[{"ErrorEquals": ["Again"], "IntervalSeconds": 1, "MaxAttempts": 1}])
        execution = stack.start(machine)
        states, first = stack.client("stepfunctions"), token_of(stack, url)
        states.send_task_failure(taskToken=first, error="Again")
        second = token_of(stack, url)
        states.send_task_success(taskToken=second, output="{}")
        assert stack.wait(execution)["status"] == "SUCCEEDED"
        return first != second

    assert both(plain, patched, scenario) == (False, True)


def test_a_token_of_a_stopped_execution_is_dead(patched: Stack) -> None:
    machine, url = callback(patched)
    execution = patched.start(machine)
    token = token_of(patched, url)
    states = patched.client("stepfunctions")
    states.stop_execution(executionArn=execution)
    time.sleep(0.3)
    with pytest.raises(ClientError, match=r"TaskDoesNotExist|TaskTimedOut"):
        states.send_task_heartbeat(taskToken=token)


def distributed(function: str, bucket: str, **fields: Any) -> dict[str, Any]:
    """A Distributed Map over a JSON array in S3, as the rollup uses it."""
    invoke = {
        "Type": "Task",
        "Resource": "arn:aws:states:::lambda:invoke",
        "Parameters": {"FunctionName": function, "Payload.$": "$"},
        "OutputPath": "$.Payload",
        "End": True,
    }
    state = {
        "Type": "Map",
        "ItemReader": {
            "Resource": "arn:aws:states:::s3:getObject",
            "ReaderConfig": {"InputType": "JSON"},
            "Parameters": {
                "Bucket": bucket,
                "Key.$": "States.Format('runs/{}/wave-{}.json', $.run, States.ArrayGetItem($.waves, $.round))",
            },
        },
        "ItemSelector": {"batch.$": "$$.Map.Item.Value", "index.$": "$$.Map.Item.Index", "run.$": "$.run"},
        "ItemProcessor": {
            "ProcessorConfig": {"Mode": "DISTRIBUTED", "ExecutionType": "STANDARD"},
            "StartAt": "Invoke",
            "States": {"Invoke": invoke},
        },
        "MaxConcurrencyPath": "$.concurrency",
        "ToleratedFailurePercentage": 100,
        "ResultWriter": {
            "Resource": "arn:aws:states:::s3:putObject",
            "Parameters": {"Bucket": bucket, "Prefix.$": "States.Format('runs/{}/results', $.run)"},
        },
        "ResultPath": "$.written",
        "End": True,
    }
    return {"StartAt": "Map", "States": {"Map": state | fields}}


def test_a_distributed_map_keeps_its_concurrency_and_writes_its_results(plain: Stack, patched: Stack) -> None:
    def scenario(stack: Stack) -> Any:
        bucket = stack.bucket()
        code = (
            "import os, time\n"
            "def handler(event, context):\n"
            "    time.sleep(0.3)\n"
            "    if event['batch'] == 'bad': raise ValueError(event['run'])\n"
            "    return {'pid': os.getpid(), 'index': event['index']}"
        )
        function, s3 = stack.function(code), stack.client("s3")
        s3.put_object(Bucket=bucket, Key="runs/r1/wave-7.json", Body=json.dumps(["a", "b", "c", "bad", "e", "f"]))
        result = stack.run(distributed(function, bucket), {"run": "r1", "round": 1, "waves": [6, 7], "concurrency": 2})
        written = result["output"]["written"]
        if isinstance(written, list):
            return written, len({item["pid"] for item in written if item})
        manifest = json.loads(s3.get_object(**written["ResultWriterDetails"])["Body"].read())
        files = manifest["ResultFiles"]
        contents = {
            kind: json.loads(s3.get_object(Bucket=bucket, Key=files[kind][0]["Key"])["Body"].read())
            for kind in ("SUCCEEDED", "FAILED")
        }
        outputs = [json.loads(entry["Output"]) for entry in contents["SUCCEEDED"]]
        assert [entry["Error"] for entry in contents["FAILED"]] == ["ValueError"]
        return [output["index"] for output in outputs], len({output["pid"] for output in outputs})

    (wrong, wrong_workers), (right, right_workers) = both(plain, patched, scenario)
    assert len(wrong) == 6  # every result comes back through the state
    assert wrong_workers > 2
    assert right == [0, 1, 2, 4, 5]
    assert right_workers <= 2


def test_a_failed_nested_execution_is_a_failed_task_with_the_description_as_cause(plain: Stack, patched: Stack) -> None:
    def scenario(stack: Stack) -> Any:
        child = {"StartAt": "Fail", "States": {"Fail": {"Type": "Fail", "Error": "Own", "Cause": "why"}}}
        created = stack.client("stepfunctions").create_state_machine(
            name=f"c{uuid.uuid4().hex[:8]}", definition=json.dumps(child), roleArn=ROLE
        )
        parameters = {"StateMachineArn": created["stateMachineArn"], "Input": {"a": 1}}
        return stack.run(task("arn:aws:states:::states:startExecution.sync:2", Parameters=parameters))

    wrong, right = both(plain, patched, scenario)
    assert wrong["error"] == "Own"
    assert right["error"] == "States.TaskFailed"
    cause = json.loads(right["cause"])
    assert (cause["Error"], cause["Cause"], cause["Status"], cause["Input"]) == ("Own", "why", "FAILED", '{"a": 1}')


def test_an_execution_that_was_started_lives_on_when_its_starter_has_ended(patched: Stack) -> None:
    """Stopping an execution ends what works for it; what it only started is another matter (MiniStack has no such
    stopping of its own, so there is no wrong half)."""
    states = patched.client("stepfunctions")
    child = {"StartAt": "Wait", "States": {
        "Wait": {"Type": "Wait", "Seconds": 1, "Next": "Pass"}, "Pass": {"Type": "Pass", "End": True}}}  # fmt: skip
    created = states.create_state_machine(name=f"c{uuid.uuid4().hex[:8]}", definition=json.dumps(child), roleArn=ROLE)
    parameters = {"StateMachineArn": created["stateMachineArn"], "Input": {}}
    starter = patched.run(task("arn:aws:states:::states:startExecution", Parameters=parameters))
    assert starter["status"] == "SUCCEEDED"
    started = patched.wait(starter["output"]["ExecutionArn"])
    assert started["status"] == "SUCCEEDED"
    assert started["stopDate"] > starter["stopDate"]


def test_a_task_timeout_and_its_path_form_hold(plain: Stack, patched: Stack) -> None:
    def scenario(stack: Stack) -> Any:
        machine = task(stack.function(SLEEPS), TimeoutSecondsPath="$.limit")
        return stack.run(machine, {"seconds": 3, "limit": 1}).get("error")

    assert both(plain, patched, scenario) == (None, "States.Timeout")


def test_an_execution_starts_without_delay(plain: Stack, patched: Stack) -> None:
    def scenario(stack: Stack) -> float:
        described = stack.run({"StartAt": "Pass", "States": {"Pass": {"Type": "Pass", "End": True}}})
        return float((described["stopDate"] - described["startDate"]).total_seconds())

    wrong, right = scenario(plain), scenario(patched)
    assert wrong >= 0.15
    assert right < 0.1


# --- What we rely on and MiniStack does by itself -------------------------------------------------------------------


def test_what_the_state_machines_use_besides_works(patched: Stack) -> None:
    """Intrinsics, the context object, dynamodb:updateItem with its error names, paths in waits and choices."""
    table = f"t{uuid.uuid4().hex[:8]}"
    patched.client("dynamodb").create_table(
        TableName=table,
        BillingMode="PAY_PER_REQUEST",
        AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
        KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
    )
    update = {
        "Type": "Task",
        "Resource": "arn:aws:states:::dynamodb:updateItem",
        "Parameters": {
            "TableName": table,
            "Key": {"id": {"S.$": "$$.Execution.Name"}},
            "UpdateExpression": "SET #s = :s, n = if_not_exists(n, :z) + :o",
            "ConditionExpression": "attribute_not_exists(n)",
            "ExpressionAttributeNames": {"#s": "status"},
            "ExpressionAttributeValues": {
                ":s": {"S": "RUNNING"},
                ":z": {"N": "0"},
                ":o": {"N.$": "States.Format('{}', $.made.next)"},
            },
            "ReturnValues": "ALL_NEW",
        },
    }
    machine = {
        "StartAt": "Make",
        "States": {
            "Make": {
                "Type": "Pass",
                "Parameters": {
                    "next.$": "States.MathAdd($.round, 1)",
                    "wave.$": "States.ArrayGetItem($.waves, $.round)",
                    "parsed.$": "States.StringToJson($.text)",
                    "input.$": "$$.Execution.Input.round",
                },
                "ResultPath": "$.made",
                "Next": "Update",
            },
            "Update": update | {"ResultPath": "$.updated", "Next": "Choose"},
            "Choose": {
                "Type": "Choice",
                "Choices": [
                    {
                        "And": [
                            {"Variable": "$.made.next", "NumericLessThanPath": "$.most"},
                            {"Variable": "$.updated.Attributes.status.S", "StringEquals": "RUNNING"},
                        ],
                        "Next": "Again",
                    }
                ],
                "Default": "Failed",
            },
            "Again": update
            | {
                "ResultPath": None,
                "Catch": [
                    {
                        "ErrorEquals": ["DynamoDB.ConditionalCheckFailedException"],
                        "ResultPath": "$.caught",
                        "Next": "Wait",
                    }
                ],
                "Next": "Failed",
            },
            "Wait": {"Type": "Wait", "SecondsPath": "$.seconds", "End": True},
            "Failed": {"Type": "Fail", "ErrorPath": "$.text"},
        },
    }
    event = {"round": 1, "waves": ["a", "b"], "text": '{"k": 2}', "most": 3, "seconds": 1}
    output = patched.run(machine, event)["output"]
    assert output["made"] == {"next": 2, "wave": "b", "parsed": {"k": 2}, "input": 1}
    assert output["updated"]["Attributes"]["n"] == {"N": "2"}
    assert output["caught"]["Error"] == "DynamoDB.ConditionalCheckFailedException"


def test_objects_are_written_once_and_read_in_part(patched: Stack) -> None:
    storage, bucket = patched.client("s3"), patched.bucket()
    storage.put_object(Bucket=bucket, Key="parts/ab/key", Body=b"0123456789", IfNoneMatch="*")
    with pytest.raises(ClientError) as refused:
        storage.put_object(Bucket=bucket, Key="parts/ab/key", Body=b"other", IfNoneMatch="*")
    assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 412
    part = storage.get_object(Bucket=bucket, Key="parts/ab/key", Range="bytes=2-4")
    assert part["Body"].read() == b"234"
    with pytest.raises(storage.exceptions.NoSuchKey):
        storage.get_object(Bucket=bucket, Key="parts/ab/none")


def test_an_event_that_arrives_while_a_batch_is_deleted_is_not_lost() -> None:
    """In one process: the delivery waits for the lock under which a batch is deleted."""
    script = """
import os, threading, time
os.environ |= {"GATEWAY_PORT": "1", "MINISTACK_REGION": "eu-west-1"}
from ministack.services import s3, sqs
import sys
if sys.argv[1] == "patched":
    from riskmill_local import patches
    patches.apply()
queue = sqs._queues[sqs._act_create_queue({"QueueName": "q"}, "")["QueueUrl"]]
arn = queue["attributes"]["QueueArn"]
with sqs._queues_lock:
    threading.Thread(target=s3._deliver_event_to_sqs, args=(arn, {"Records": []}, "eu-west-1"), daemon=True).start()
    time.sleep(0.5)
    during = len(queue["messages"])
    queue["messages"] = []  # what deleting the batch ends with
time.sleep(0.5)
print(during, len(queue["messages"]))
"""
    results = [
        subprocess.run(
            [sys.executable, "-c", script, mode], env=ENVIRONMENT, capture_output=True, text=True, check=True
        ).stdout.split()
        for mode in ("plain", "patched")
    ]
    assert results == [["1", "0"], ["0", "1"]]


# --- DynamoDB's TTL, and streams as event sources --------------------------------------------------------------------

TABLE = """
Resources:
  Table:
    Type: AWS::DynamoDB::Table
    Properties:
      BillingMode: PAY_PER_REQUEST
      AttributeDefinitions: [{ AttributeName: key, AttributeType: B }]
      KeySchema: [{ AttributeName: key, KeyType: HASH }]
      TimeToLiveSpecification: { AttributeName: expires_at, Enabled: true }
      StreamSpecification: { StreamViewType: KEYS_ONLY }
Outputs:
  Name: { Value: !Ref Table }
  Stream: { Value: !GetAtt Table.StreamArn }
"""


def table_with_ttl(stack: Stack) -> tuple[str, str]:
    """A table that CloudFormation makes, with TTL on `expires_at`; its name and its stream."""
    name = f"s{uuid.uuid4().hex[:8]}"
    client = stack.client("cloudformation")
    client.create_stack(StackName=name, TemplateBody=TABLE)
    client.get_waiter("stack_create_complete").wait(StackName=name, WaiterConfig={"Delay": 1, "MaxAttempts": 20})
    outputs = client.describe_stacks(StackName=name)["Stacks"][0]["Outputs"]
    values = {output["OutputKey"]: output["OutputValue"] for output in outputs}
    return values["Name"], values["Stream"]


def stream_records(stack: Stack, arn: str) -> list[dict[str, Any]]:
    streams = stack.client("dynamodbstreams")
    (shard,) = streams.describe_stream(StreamArn=arn)["StreamDescription"]["Shards"]
    iterator = streams.get_shard_iterator(StreamArn=arn, ShardId=shard["ShardId"], ShardIteratorType="TRIM_HORIZON")
    return list(streams.get_records(ShardIterator=iterator["ShardIterator"])["Records"])


def test_cloudformation_switches_a_tables_ttl_on(plain: Stack, patched: Stack) -> None:
    def scenario(stack: Stack) -> Any:
        name, _ = table_with_ttl(stack)
        return stack.client("dynamodb").describe_time_to_live(TableName=name)["TimeToLiveDescription"]

    wrong, right = both(plain, patched, scenario)
    assert wrong == {"TimeToLiveStatus": "DISABLED"}
    assert right == {"TimeToLiveStatus": "ENABLED", "AttributeName": "expires_at"}


def test_what_ttl_deletes_leaves_a_stream_record_by_the_service_and_soon(plain: Stack, patched: Stack) -> None:
    """The published one sweeps every 60 s (whether that falls into this test is chance) and leaves no record of it."""

    def scenario(stack: Stack) -> Any:
        name, arn = table_with_ttl(stack)
        dynamodb = stack.client("dynamodb")
        specification = {"AttributeName": "expires_at", "Enabled": True}
        dynamodb.update_time_to_live(TableName=name, TimeToLiveSpecification=specification)
        past, future = str(int(time.time()) - 1), str(int(time.time()) + 1000)
        items = [
            (b"expired", {"N": past}),
            (b"alive", {"N": future}),
            (b"text", {"S": past}),
            (b"by hand", {"N": future}),
        ]
        for key, value in items:
            dynamodb.put_item(TableName=name, Item={"key": {"B": key}, "expires_at": value})
        dynamodb.put_item(TableName=name, Item={"key": {"B": b"no time"}})
        dynamodb.delete_item(TableName=name, Key={"key": {"B": b"by hand"}})
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline and dynamodb.scan(TableName=name)["Count"] > 3:
            time.sleep(0.2)
        left = {item["key"]["B"] for item in dynamodb.scan(TableName=name)["Items"]}
        removed = {
            record["dynamodb"]["Keys"]["key"]["B"]: record.get("userIdentity")
            for record in stream_records(stack, arn)
            if record["eventName"] == "REMOVE"
        }
        return left, removed

    (_, wrong_removed), (right, right_removed) = both(plain, patched, scenario)
    assert wrong_removed == {b"by hand": None}
    assert right == {b"alive", b"text", b"no time"}
    assert right_removed[b"by hand"] is None
    # spelled as in Lambda's events, not as in GetRecords' answers: the template's filter is tested with the whole flow
    assert right_removed[b"expired"] is not None


#: Answers with a failure at the record `bad`, as long as the queue's switch says so; notes what it was given.
PARTIAL = """
import base64, json, os, boto3
def handler(event, context):
    sqs, url = boto3.client("sqs"), os.environ["SEEN"]
    given = [base64.b64decode(record["kinesis"]["data"]).decode() for record in event["Records"]]
    sqs.send_message(QueueUrl=url, MessageBody=json.dumps(given))
    if os.environ["HOW"] == "raise": raise ValueError("no")
    bad = [r["kinesis"]["sequenceNumber"] for r, data in zip(event["Records"], given) if data == "bad"]
    return {"batchItemFailures": [{"itemIdentifier": number} for number in bad]}
"""


def fed_by_kinesis(stack: Stack, how: str, **mapping: Any) -> tuple[list[list[str]], list[dict[str, Any]]]:
    """Give one, bad, two to a function; what it was given, batch by batch, and what went to its OnFailure queue."""
    kinesis, sqs = stack.client("kinesis"), stack.client("sqs")
    name = f"k{uuid.uuid4().hex[:8]}"
    seen, dead = (sqs.create_queue(QueueName=f"{name}-{part}")["QueueUrl"] for part in ("seen", "dead"))
    target = sqs.get_queue_attributes(QueueUrl=dead, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    kinesis.create_stream(StreamName=name, ShardCount=1)
    kinesis.get_waiter("stream_exists").wait(StreamName=name)
    arn = kinesis.describe_stream(StreamName=name)["StreamDescription"]["StreamARN"]
    records = [{"Data": data.encode(), "PartitionKey": "1"} for data in ("one", "bad", "two")]
    kinesis.put_records(StreamName=name, Records=records)
    created = stack.client("lambda").create_event_source_mapping(
        EventSourceArn=arn,
        FunctionName=stack.function(PARTIAL, Environment={"Variables": {"SEEN": seen, "HOW": how}}),
        StartingPosition="TRIM_HORIZON",
        DestinationConfig={"OnFailure": {"Destination": target}},
        **mapping,
    )
    time.sleep(7)
    stack.client("lambda").delete_event_source_mapping(UUID=created["UUID"])

    def bodies(url: str) -> list[Any]:
        messages: list[Any] = []
        while part := sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages"):
            messages.extend(part)
        return [json.loads(message["Body"]) for message in messages]

    return bodies(seen), bodies(dead)


def test_a_stream_comes_again_from_the_first_record_that_failed(plain: Stack, patched: Stack) -> None:
    def scenario(stack: Stack) -> list[list[str]]:
        return fed_by_kinesis(stack, "answer", FunctionResponseTypes=["ReportBatchItemFailures"])[0]

    wrong, right = both(plain, patched, scenario)
    assert wrong == [["one", "bad", "two"]]
    assert right[0] == ["one", "bad", "two"]
    assert right[1] == ["bad", "two"]


def test_a_stream_batch_that_fails_too_often_goes_to_the_on_failure_queue(plain: Stack, patched: Stack) -> None:
    def scenario(stack: Stack) -> Any:
        return fed_by_kinesis(stack, "raise", MaximumRetryAttempts=1)

    (wrong, wrong_dead), (right, right_dead) = both(plain, patched, scenario)
    assert len(wrong) > 2
    assert wrong_dead == []
    assert len(right) == 2
    (given_up,) = right_dead
    assert given_up["requestContext"]["condition"] == "RetryAttemptsExhausted"
    assert given_up["KinesisBatchInfo"]["batchSize"] == 3


# --- ECS ------------------------------------------------------------------------------------------------------------


def test_run_task_answers_the_faults_that_a_test_lays_down_and_then_its_own(patched: Stack, layout: Layout) -> None:
    """A tool of our tests: nothing makes MiniStack's own RunTask refuse, so there is no wrong half."""
    ecs = patched.client("ecs")
    name = f"c{uuid.uuid4().hex[:8]}"
    ecs.create_cluster(clusterName=name)
    container = {"name": "worker", "image": "none", "essential": True}
    family = ecs.register_task_definition(family=name, containerDefinitions=[container])["taskDefinition"]["family"]
    faults = layout.tmp / "state" / patches.RUN_TASK_FAULTS
    faults.parent.mkdir(parents=True, exist_ok=True)
    lines: list[dict[str, Any]] = [
        {"error": "ThrottlingException", "message": "Rate exceeded"},
        {"failures": ["Capacity is unavailable at this time", "RESOURCE:ENI"]},
    ]
    faults.write_text("\n".join(json.dumps(line) for line in lines))
    # botocore would try a throttled call again by itself
    once = boto3.client("ecs", config=Config(retries={"total_max_attempts": 1}), **client_options(patched.endpoint))
    with pytest.raises(ClientError, match=r"ThrottlingException.*Rate exceeded"):
        once.run_task(cluster=name, taskDefinition=family, count=3)
    short = ecs.run_task(cluster=name, taskDefinition=family, count=3)
    assert [failure["reason"] for failure in short["failures"]] == lines[1]["failures"]
    assert len(short["tasks"]) == 1
    whole = ecs.run_task(cluster=name, taskDefinition=family, count=3)
    assert (len(whole["tasks"]), whole["failures"]) == (3, [])
    assert len(ecs.list_tasks(cluster=name)["taskArns"]) == 4
    for arn in ecs.list_tasks(cluster=name)["taskArns"]:
        ecs.stop_task(cluster=name, task=arn)


def test_the_documentation_names_every_patch() -> None:
    table = (ROOT / "docs" / "local.md").read_text(encoding="utf-8")
    assert [patch.__name__ for patch in patches.PATCHES if f"| `{patch.__name__}` |" not in table] == []
