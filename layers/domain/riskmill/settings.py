"""What a deployed function is told by its environment, as one typed object. The handlers read it once."""

from collections.abc import Mapping
from dataclasses import dataclass

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
    #: days after which S3 deletes an output
    lifecycle_days: int = 90
    #: batches wanted at the same time
    parallelism: int = 256
    max_batch_seconds: float = 60.0
    #: rounds of planning before a run gives up
    max_rounds: int = 5
    #: bytes of inputs and outputs that a worker keeps in memory
    memory_cache_bytes: int = 512 * 1024 * 1024

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> "Settings":
        """Read the variables that are there. Raises RiskmillError naming a variable whose value cannot be read."""
        values: dict[str, object] = {}
        for name, kind in cls.__annotations__.items():
            text = environment.get(name.upper())
            if text is None:
                continue
            try:
                values[name] = {"true": True, "false": False}[text.lower()] if kind is bool else kind(text)
            except (KeyError, ValueError) as error:
                raise RiskmillError(
                    f"environment variable {name.upper()}: {text!r} is not a {kind.__name__}"
                ) from error
        return cls(**values)  # type: ignore[arg-type]
