"""Planner, step 2: look every key of the graph up in the cache."""

from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from riskmill.aws.runtime import steps
from riskmill.aws.steps import require
from riskmill.observability import logger, tracer


@logger.inject_lambda_context(correlation_id_path="run_id")
@tracer.capture_lambda_handler
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Take {run_id, without_cache?}; return {cached}. Raises TransientError while the cache is away."""
    (run_id,) = require(event, "run_id")
    found = steps().look_up(run_id, without_cache=bool(event.get("without_cache")))
    logger.info("keys looked up", extra=found)
    return found
