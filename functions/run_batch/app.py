"""Run one batch of jobs, as an item of a wave's file names it."""

from typing import Any

from aws_lambda_powertools.metrics import MetricUnit
from aws_lambda_powertools.utilities.typing import LambdaContext

from riskmill.aws.runtime import steps
from riskmill.observability import logger, metrics, tracer


@logger.inject_lambda_context(correlation_id_path="run_id")
@tracer.capture_lambda_handler
@metrics.log_metrics
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Take a wave's item; return counts (the manifest in S3 has the rest). Raises RunCancelled, TransientError."""
    done = steps().run_batch(event, lambda: context.get_remaining_time_in_millis() / 1000, where="lambda")
    counts = {"done": len(done.done), "failed": len(done.failed), "missing": len(done.missing), "left": len(done.left)}
    for name, count in counts.items():
        metrics.add_metric(f"jobs_{name}", MetricUnit.Count, count)
    metrics.add_metric("batch_seconds", MetricUnit.Seconds, done.seconds)
    logger.info("batch ended", extra=counts | {"batch_id": done.batch_id, "attempt": done.attempt})
    return counts
