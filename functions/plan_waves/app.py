"""Planner, step 3: prune, level and batch what must run; one file a wave."""

from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from riskmill.aws.runtime import steps
from riskmill.aws.steps import require
from riskmill.observability import logger, tracer


@logger.inject_lambda_context(correlation_id_path="run_id")
@tracer.capture_lambda_handler
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Take {run_id, round}; return counts only: {round, waves, jobs}."""
    run_id, round_number = require(event, "run_id", "round")
    plan = steps().plan(run_id, round_number)
    logger.info("waves planned", extra=plan)
    return plan
