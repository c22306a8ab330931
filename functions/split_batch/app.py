"""What comes next for a batch that killed its workers: its halves, or, when one job is left, that job's failure."""

from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from riskmill.aws.runtime import steps
from riskmill.aws.steps import require
from riskmill.observability import logger, tracer


@logger.inject_lambda_context(correlation_id_path="item.run_id")
@tracer.capture_lambda_handler
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Take {item, waiting, died}; return {item, waiting, more}: the next piece, and those that wait."""
    item, waiting, died = require(event, "item", "waiting", "died")
    answer = steps().next_piece(item, waiting, died=died)
    logger.info("pieces of a batch", extra={"batch_id": item["batch_id"], "died": died, "more": answer["more"]})
    return answer
