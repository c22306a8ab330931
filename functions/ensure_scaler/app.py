"""Make sure that a scaler runs: asked by a run before it sends work, by EventBridge when one did not end well."""

from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from riskmill.aws.runtime import scaling
from riskmill.observability import logger, tracer


@logger.inject_lambda_context
@tracer.capture_lambda_handler
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Take {run_id} or EventBridge's event of an execution; return {scaler}: its execution, or why there is none."""
    answer = scaling().ensure(announce="run_id" in event)
    logger.info("scaler ensured", extra=answer)
    return answer
