"""Write the run's results (tables and summary) and mark it succeeded."""

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
    """Take {run_id}; return {results, seconds}. Raises MissingInput when a cached result is gone."""
    (run_id,) = require(event, "run_id")
    published = steps().publish(run_id)
    metrics.add_metric("run_seconds", MetricUnit.Seconds, published["seconds"])
    logger.info("results published", extra=published)
    return published
