"""A deployed stack as the command line sees it: its resources, and what can be asked of them."""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from riskmill.aws.clients import client, code_of
from riskmill.aws.objects import Bucket
from riskmill.aws.steps import Steps
from riskmill.errors import RiskmillError
from riskmill.jobs import object_name
from riskmill.results import Summary
from riskmill.run_files import checked_run_id, portfolio_file, result_file, unfinished_file
from riskmill.settings import Settings

#: Statuses of a run that has ended.
ENDED = ("SUCCEEDED", "FAILED", "CANCELLED")

#: Seconds for which a cancelled run's batches may still work: a batch looks at the flag every two seconds or job.
DRAIN_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Uploaded:
    """What an upload did."""

    portfolio: str
    objects: int
    new: int
    bytes: int


class Deployment:
    """One stack. Raises RiskmillError with one clear sentence when it cannot be reached."""

    def __init__(self, stack_name: str) -> None:
        self.stack_name = stack_name
        outputs = _outputs(stack_name)
        try:
            self._rollup_arn = outputs["RiskRollupArn"]
            self.batch_concurrency = int(outputs["BatchConcurrency"])
            settings = Settings(bucket=outputs["DataBucketName"], control_table=outputs["ControlTableName"])
        except KeyError as error:
            raise RiskmillError(f"stack {stack_name!r} has no output {error}: is it riskmill's?") from error
        self.steps = Steps(settings)
        self.bucket: Bucket = self.steps.bucket
        self.control = self.steps.control

    def upload(self, portfolio: str, document: bytes, objects: Mapping[str, bytes], *, check: bool = False) -> Uploaded:
        """Put a portfolio's objects that are not there yet, the document last: where it is, all of it was put.

        With `check`, objects are looked for one by one though the document is there: somebody may have deleted some.
        """
        if not check and not self.bucket.missing([portfolio_file(portfolio)]):
            return Uploaded(portfolio, len(objects), 0, 0)
        names = {object_name(f"i:{key}"): data for key, data in objects.items()}
        absent = self.bucket.missing(list(names))
        self.bucket.put_many({name: names[name] for name in absent})
        self.bucket.put(portfolio_file(portfolio), document)
        return Uploaded(portfolio, len(objects), len(absent), sum(len(names[name]) for name in absent))

    def start(self, run_id: str, portfolio: str, options: Mapping[str, Any]) -> None:
        """Start a Risk Rollup. Its execution's name is the run id."""
        checked_run_id(run_id)
        merged = {"max_concurrency": self.batch_concurrency} | dict(options)
        try:
            client("stepfunctions").start_execution(
                stateMachineArn=self._rollup_arn,
                name=run_id,
                input=json.dumps({"portfolio": portfolio, "options": merged}),
            )
        except ClientError as error:
            if code_of(error) == "ExecutionAlreadyExists":
                raise RiskmillError(f"run id {run_id} is taken (execution names stay taken for 90 days)") from error
            raise

    def _execution_arn(self, run_id: str) -> str:
        return self._rollup_arn.replace(":stateMachine:", ":execution:") + f":{run_id}"

    def execution(self, run_id: str) -> tuple[str, str]:
        """Return the status of a run's execution and the cause of its failure. NONE if there is no such execution."""
        try:
            answer = client("stepfunctions").describe_execution(executionArn=self._execution_arn(run_id))
        except ClientError as error:
            if code_of(error) == "ExecutionDoesNotExist":
                return "NONE", ""
            raise
        return str(answer["status"]), f"{answer.get('error', '')}: {answer.get('cause', '')}"

    def watch(self, run_id: str, *, poll_seconds: float = 0.25) -> Iterator[dict[str, Any]]:
        """Yield a run's item, with its `batches`, until it has ended; the last one has the status it ended with."""
        while True:
            status, cause = self.execution(run_id)
            try:
                run = self.control.run(run_id)
            except RiskmillError:
                run = {"run_id": run_id, "status": "RUNNING", "phase": "starting"}
            if run["status"] not in ENDED and status not in ("RUNNING", "NONE"):
                # The execution ended without noting it: timed out, or stopped from the console.
                if status != "SUCCEEDED":
                    self.steps.finish_failed(run_id, f"Execution{status.title()}", cause)
                run = self.control.run(run_id)
            yield run | {"batches": self.control.batches(run_id)}
            if run["status"] in ENDED:
                return
            time.sleep(poll_seconds)

    def has_ended(self, run_id: str) -> bool:
        """Tell whether a run has ended; one that has not noted itself yet has not."""
        try:
            return self.control.run(run_id)["status"] in ENDED
        except RiskmillError:
            return False

    def cancel(self, run_id: str) -> list[dict[str, str]]:
        """Stop a run: flag it, stop its execution, wait for its batches, and mark every job that it did not finish.

        Raises RiskmillError for a run that has ended already.
        """
        running = self.execution(run_id)[0] == "RUNNING"
        if running:
            self.control.begin_run(run_id)  # a run that was just started may not have noted itself yet
        if not self.control.cancel_run(run_id):
            raise RiskmillError(f"run {run_id} has ended: {self.control.run(run_id)['status']}")
        if running:
            client("stepfunctions").stop_execution(
                executionArn=self._execution_arn(run_id), error="Cancelled", cause="cancelled by the user"
            )
        deadline = time.monotonic() + DRAIN_SECONDS
        while _at_work(self.control.batches(run_id)) and time.monotonic() < deadline:
            time.sleep(0.5)
        unfinished = self.steps.unfinished(run_id)
        self.control.note(run_id, unfinished=len(unfinished))
        return unfinished

    def unfinished(self, run_id: str) -> list[dict[str, str]]:
        """Return the jobs that a failed or cancelled run did not make, as it wrote them down when it ended."""
        try:
            jobs: list[dict[str, str]] = self.bucket.get_json(unfinished_file(run_id))
        except KeyError:
            return []
        return jobs

    def summary(self, run_id: str) -> Summary:
        """Return the results of a run. Raises RiskmillError if it has none."""
        try:
            return Summary.model_validate_json(self.bucket.get(result_file(run_id, "summary.json")))
        except KeyError as error:
            run = self.control.run(run_id)
            raise RiskmillError(f"run {run_id} has no results: it is {run['status']}") from error

    def latest_run(self) -> str:
        """Return the id of the latest run. Raises RiskmillError if there is none."""
        runs = self.control.runs(limit=1)
        if not runs:
            raise RiskmillError(f"no run yet in stack {self.stack_name!r}")
        return str(runs[0]["run_id"])


def _at_work(batches: Sequence[Mapping[str, Any]]) -> bool:
    """Tell whether a batch of the latest wave has not ended; one of an earlier wave that has not has died."""
    latest = max(((batch["round"], batch["wave"]) for batch in batches), default=None)
    return any((batch["round"], batch["wave"]) == latest and "seconds" not in batch for batch in batches)


def _outputs(stack_name: str) -> dict[str, str]:
    try:
        stacks = client("cloudformation").describe_stacks(StackName=stack_name)["Stacks"]
    except ClientError as error:
        raise RiskmillError(f"stack {stack_name!r}: {error.response.get('Error', {}).get('Message', error)}") from error
    except BotoCoreError as error:
        raise RiskmillError(f"AWS cannot be reached: {error}") from error
    return {output["OutputKey"]: output["OutputValue"] for output in stacks[0].get("Outputs", [])}
