"""What a worker counts of itself, as CloudWatch metrics in its log.

The lines are in CloudWatch's embedded metric format: whatever reaches CloudWatch Logs in it becomes a metric, also by
way of Fargate's awslogs driver, and nothing else need be set up.
https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format.html

Names and dimensions are those of the functions: `jobs_done` and `batch_seconds` are sums over Lambda and Fargate.
"""

import json
import resource
import sys
from contextlib import suppress
from pathlib import Path

from aws_lambda_powertools.metrics import MetricUnit

from riskmill.observability import logger, metrics
from riskmill.settle import Manifest

#: Writing 5 there forgets the highest resident size so far; VmHWM in `status` is the highest since.
#: https://docs.kernel.org/filesystems/proc.html
CLEAR_REFS, STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")


class WorkerMetrics:
    """The counts since the last line; a line is written when a batch ends, and when the worker does."""

    def __init__(self) -> None:
        self._counts: dict[str, float] = {}

    def _add(self, name: str, value: float = 1.0) -> None:
        self._counts[name] = self._counts.get(name, 0.0) + value

    def begin(self, *, idle: float) -> None:
        """A message came after so many seconds without work."""
        self._add("worker_idle_seconds", idle)
        forget_peak()

    def ahead(self) -> None:
        """A message was taken before the batch in hand had ended."""
        self._add("messages_ahead")

    def missed_beat(self) -> None:
        """A heartbeat could not be sent."""
        self._add("heartbeats_missed")

    def give_back(self) -> None:
        """A message was given back."""
        self._add("messages_given_back")

    def batch(self, seconds: float, manifest: Manifest | None, *, answered: bool) -> None:
        """Write what was counted, of a batch that was at work for so long; without a manifest it failed."""
        peak = peak_mb()
        self._add("worker_seconds", seconds)
        self._add("batches", float(answered))
        self._add("batches_failed", float(answered and manifest is None))
        models: list[str] = []
        if manifest is not None:
            done = {name: len(getattr(manifest, name)) for name in ("done", "failed", "missing", "left")}
            for name, count in done.items():
                self._add(f"jobs_{name}", count)
            self._add("batch_seconds", manifest.seconds)
            models = sorted({name.partition("@")[0] for name in manifest.rates})
            facts = {"attempt": manifest.attempt, "peak_mb": round(peak), "models": models}
            logger.info("batch ended", extra=done | facts)
        self._counts["batch_peak_mb"] = peak
        self._write()
        # by model: the peak of the whole batch, so that of each of its models at the most
        for model in models:
            metrics.add_dimension("model", model)
            self._counts["batch_peak_mb"] = peak
            self._write()

    def end(self, *, idle: float) -> None:
        """Write what was counted since the last batch: the worker ends after so many seconds without work."""
        self._add("worker_idle_seconds", idle)
        self._write()

    def _write(self) -> None:
        for name, value in self._counts.items():
            unit = MetricUnit.Seconds if name.endswith("_seconds") else MetricUnit.Count
            metrics.add_metric(name, MetricUnit.Megabytes if name.endswith("_mb") else unit, value)
        self._counts.clear()
        # One write a line: several processes share a container's log, and flush_metrics() writes the newline apart.
        line = json.dumps(metrics.serialize_metric_set(), separators=(",", ":"))
        metrics.clear_metrics()
        sys.stdout.write(line + "\n")
        sys.stdout.flush()


def forget_peak() -> None:
    """Begin to measure the highest resident size anew, where the system can."""
    with suppress(OSError):
        CLEAR_REFS.write_text("5")


def peak_mb() -> float:
    """Return the highest resident size of this process, in MB: since `forget_peak` on Linux, else in its life."""
    try:
        fields = dict(line.split(":", 1) for line in STATUS.read_text().splitlines() if ":" in line)
        return int(fields["VmHWM"].split()[0]) / 1024
    except (OSError, KeyError):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak / (1024 if sys.platform != "darwin" else 1024 * 1024)
