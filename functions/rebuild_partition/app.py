"""Make one partition of the cache equal to what S3 holds: a rebuild's and the sweep's only step."""

from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from riskmill.aws.runtime import cache_steps
from riskmill.aws.steps import require
from riskmill.observability import logger, tracer


@logger.inject_lambda_context
@tracer.capture_lambda_handler
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Take {partition}; return {partition, objects, indexed_before, added, removed}. Raises TransientError."""
    (partition,) = require(event, "partition")
    changed = cache_steps().rebuild(partition)
    logger.info("partition rebuilt", extra=changed)
    return changed
