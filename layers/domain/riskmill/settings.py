"""What a deployed function is told by its environment, as one typed object. The handlers read it once."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from riskmill.errors import RiskmillError


@dataclass(frozen=True, slots=True)
class Settings:
    """Names of the stack's resources and its parameters. A function is given only those that it uses."""

    bucket: str = ""
    control_table: str = ""
    index_queue_url: str = ""
    redis_host: str = ""
    redis_port: int = 6379
    redis_tls: bool = False
    redis_cluster: bool = False
    #: days after which an output leaves the cache, and after which S3 deletes it (see riskmill.expiry)
    retention_days: int = 90
    lifecycle_days: int = 97
    #: seconds in a day; only tests on the embedded cloud make days shorter
    day_seconds: float = 86_400.0
    #: how keys leave the cache: `dynamodb` (TTL of an item each) or `hashfield` (they expire in it by themselves)
    cache_expiry: str = "dynamodb"
    expiry_stream: str = ""
    expiry_table: str = ""
    dead_letters_url: str = ""
    #: batches wanted at the same time
    parallelism: int = 256
    max_batch_seconds: float = 60.0
    #: rounds of planning before a run gives up
    max_rounds: int = 5
    #: bytes of inputs and outputs that a worker keeps in memory
    memory_cache_bytes: int = 512 * 1024 * 1024
    #: MB of memory of run_batch, of a standard Fargate task (shared by its processes), and of a large one (for one)
    lambda_memory: float = 3_538.0
    worker_memory: float = 16_384.0
    worker_processes: int = 4
    large_memory: float = 30_720.0
    #: seconds after which a dead worker's message is delivered again
    visibility_seconds: int = 120

    @property
    def retention_seconds(self) -> float:
        """Seconds for which the cache knows an output."""
        return self.retention_days * self.day_seconds

    @property
    def lifecycle_seconds(self) -> float:
        """Seconds for which S3 keeps an output."""
        return self.lifecycle_days * self.day_seconds

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> "Settings":
        """Read the variables that are there. Raises RiskmillError naming a variable whose value cannot be read."""
        return cls(**_values(cls.__annotations__, environment))


@dataclass(frozen=True, slots=True)
class ScalingSettings:
    """What the scaler's functions are told besides: the workers' sizes, their limits, and who is who."""

    #: run-task (the scaler) or service (ECS services with target tracking)
    worker_scaling: str = "run-task"
    scaler_arn: str = ""
    rollup_arn: str = ""
    standard_queue_url: str = ""
    standard_cluster: str = ""
    standard_task: str = ""
    large_queue_url: str = ""
    large_cluster: str = ""
    large_task: str = ""
    #: batches that a standard task runs at a time; a large one runs one
    worker_processes: int = 4
    #: CPU units (1,024 are a vCPU) and MB of memory of a task
    worker_cpu: int = 4096
    worker_memory: int = 16384
    large_memory: int = 30720
    max_tasks: int = 3_000
    #: dollars of Fargate; 0 is no limit
    run_budget: float = 0.0
    day_budget: float = 0.0
    #: percent of tasks asked of Spot
    spot_percent: int = 0
    #: iterations of one execution, and seconds that replace every wait (0: the scaler's own); for tests
    scaler_iterations: int = 500
    scaler_wait: float = 0.0

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> "ScalingSettings":
        """Read the variables that are there. Raises RiskmillError naming a variable whose value cannot be read."""
        return cls(**_values(cls.__annotations__, environment))


def _values(fields: Mapping[str, Any], environment: Mapping[str, str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, kind in fields.items():
        text = environment.get(name.upper())
        if text is None:
            continue
        try:
            values[name] = {"true": True, "false": False}[text.lower()] if kind is bool else kind(text)
        except (KeyError, ValueError) as error:
            raise RiskmillError(f"environment variable {name.upper()}: {text!r} is not a {kind.__name__}") from error
    return values
