"""Look at the cache, or take keys out of it, for the command line: the cache answers nobody outside the network."""

from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from riskmill.aws.runtime import cache_steps
from riskmill.observability import logger, tracer


@logger.inject_lambda_context
@tracer.capture_lambda_handler
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Take {action: status | why | evict | clear, keys?}; return the answer. Raises RiskmillError, TransientError."""
    logger.info("cache inspected", extra={"action": event.get("action"), "keys": len(event.get("keys", ()))})
    return cache_steps().inspect(event)
