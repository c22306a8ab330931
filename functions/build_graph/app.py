"""Planner, step 1: load and validate the portfolio, build its job graph, note the run."""

from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from riskmill.aws.runtime import steps
from riskmill.aws.steps import require
from riskmill.observability import logger, tracer


@logger.inject_lambda_context(correlation_id_path="run_id")
@tracer.capture_lambda_handler
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Take {run_id, portfolio, options}; return {jobs}. Raises PortfolioInvalid."""
    run_id, portfolio, options = require(event, "run_id", "portfolio", "options")
    built = steps().build_graph(run_id, portfolio, options)
    logger.info("graph built", extra=built)
    return built
