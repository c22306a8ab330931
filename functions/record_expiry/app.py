"""The expiry flow, step 1: write down when each indexed output leaves the cache."""

from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from riskmill.aws.runtime import cache_steps
from riskmill.observability import logger, tracer


@logger.inject_lambda_context
@tracer.capture_lambda_handler
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Take Kinesis records; return the first one to try again from (partial batch response)."""
    records = event["Records"]
    answer = cache_steps().record_expiries(records)
    logger.info("expiries recorded", extra={"records": len(records), "again": answer["batchItemFailures"]})
    return answer
