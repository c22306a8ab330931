"""End a run that did not get all its results: name the jobs that failed, and why."""

from typing import Any

from aws_lambda_powertools.metrics import MetricUnit
from aws_lambda_powertools.utilities.typing import LambdaContext

from riskmill.aws.runtime import steps
from riskmill.aws.steps import require
from riskmill.observability import logger, metrics, tracer


@logger.inject_lambda_context(correlation_id_path="run_id")
@tracer.capture_lambda_handler
@metrics.log_metrics
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Take {run_id, error: {Error, Cause}}; return {error, cause} for the state machine to fail with, and if noted."""
    run_id, error = require(event, "run_id", "error")
    ended = steps().finish_failed(run_id, error.get("Error", "Unknown"), error.get("Cause", ""))
    metrics.add_metric("runs_failed", MetricUnit.Count, int(ended["noted"]))  # EventBridge reports the end again
    logger.error("run failed", extra=ended)
    return ended
