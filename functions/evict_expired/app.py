"""The expiry flow, step 2: what DynamoDB's TTL deleted leaves the cache, unless it was made again."""

from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from riskmill.aws.runtime import cache_steps
from riskmill.observability import logger, tracer


@logger.inject_lambda_context
@tracer.capture_lambda_handler
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Take the expiry table's stream records of TTL deletes. Raises TransientError: Lambda tries the batch again."""
    records = event["Records"]
    answer = cache_steps().evict_expired(records)
    logger.info("outputs evicted", extra={"records": len(records)})
    return answer
