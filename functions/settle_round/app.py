"""After a round: account for every job by the batches' manifests, index what was made, say what comes next."""

from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from riskmill.aws.runtime import steps
from riskmill.aws.steps import require
from riskmill.observability import logger, tracer


@logger.inject_lambda_context(correlation_id_path="run_id")
@tracer.capture_lambda_handler
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Take {run_id, round, suspect}; return {outcome: complete | replan | failed, round, remaining, failed}."""
    run_id, round_number = require(event, "run_id", "round")
    settled = steps().settle(run_id, round_number, suspect=bool(event.get("suspect")))
    logger.info("round settled", extra=settled)
    return settled
