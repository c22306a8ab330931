import pytest

from riskmill.errors import RiskmillError
from riskmill.settings import Settings


def test_what_the_environment_does_not_say_has_its_default() -> None:
    assert Settings.from_environment({"PATH": "/bin", "bucket": "lower case is another variable"}) == Settings()


def test_every_variable_is_read_as_its_type() -> None:
    found = Settings.from_environment(
        {
            "BUCKET": "data",
            "CONTROL_TABLE": "runs",
            "INDEX_QUEUE_URL": "https://sqs/q",
            "REDIS_HOST": "cache",
            "REDIS_PORT": "7000",
            "REDIS_TLS": "true",
            "REDIS_CLUSTER": "False",
            "RETENTION_DAYS": "30",
            "LIFECYCLE_DAYS": "37",
            "DAY_SECONDS": "60.5",
            "CACHE_EXPIRY": "hashfield",
            "EXPIRY_STREAM": "expiries",
            "EXPIRY_TABLE": "table",
            "DEAD_LETTERS_URL": "https://sqs/d",
            "PARALLELISM": "12",
            "MAX_BATCH_SECONDS": "7.5",
            "MAX_ROUNDS": "3",
            "MEMORY_CACHE_BYTES": "1000",
        }
    )
    cache = (30, 37, 60.5, "hashfield", "expiries", "table", "https://sqs/d")
    assert found == Settings("data", "runs", "https://sqs/q", "cache", 7000, True, False, *cache, 12, 7.5, 3, 1000)
    assert found.retention_seconds == 30 * 60.5
    assert found.lifecycle_seconds == 37 * 60.5


@pytest.mark.parametrize(
    ("name", "text", "kind"),
    [
        ("REDIS_PORT", "", "int"),
        ("REDIS_PORT", "6379.5", "int"),
        ("REDIS_TLS", "yes", "bool"),
        ("MAX_BATCH_SECONDS", "a minute", "float"),
    ],
)
def test_a_value_that_cannot_be_read_is_named(name: str, text: str, kind: str) -> None:
    with pytest.raises(RiskmillError, match=f"environment variable {name}: '{text}' is not a {kind}"):
        Settings.from_environment({name: text})
