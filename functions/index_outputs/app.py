"""The cache update: every output that S3 reports is added to the cache, its expiry sent on its way."""

from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from riskmill.aws.runtime import cache_steps
from riskmill.observability import logger, tracer


@logger.inject_lambda_context
@tracer.capture_lambda_handler
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Take SQS records of S3 events; return the messages to try again (partial batch response)."""
    records = event["Records"]
    answer = cache_steps().index_outputs(records)
    logger.info("outputs indexed", extra={"messages": len(records), "failed": len(answer["batchItemFailures"])})
    return answer
