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
