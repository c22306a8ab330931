"""The Fargate scaler's eyes and mind: one iteration of observing and deciding."""

from typing import Any

from aws_lambda_powertools.metrics import MetricUnit
from aws_lambda_powertools.utilities.typing import LambdaContext

from riskmill.aws.runtime import scaling
from riskmill.aws.steps import require
from riskmill.observability import logger, metrics, tracer


@logger.inject_lambda_context(correlation_id_path="execution")
@tracer.capture_lambda_handler
@metrics.log_metrics
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Take {execution, state, answers}; return {action, wait, calls, state, sentence}. Raises TransientError."""
    decision = scaling().iterate(*require(event, "execution", "state", "answers"))
    metrics.add_metric("tasks_asked", MetricUnit.Count, sum(call["count"] for call in decision["calls"]))
    return decision
