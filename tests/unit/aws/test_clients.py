import pytest
from botocore.exceptions import (
    ClientError,
    ConnectTimeoutError,
    EndpointConnectionError,
    FlexibleChecksumError,
    IncompleteReadError,
    ReadTimeoutError,
    ResponseStreamingError,
)

from riskmill.aws import clients
from riskmill.aws.clients import translated
from riskmill.errors import AccessRefused, RiskmillError, TransientError


def client_error(code: str, status: int = 400) -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": "m"}, "ResponseMetadata": {"HTTPStatusCode": status}}, "Op")  # type: ignore[typeddict-item]


@pytest.mark.parametrize(
    ("error", "ours"),
    [
        (client_error("SlowDown", 503), TransientError),
        (client_error("ProvisionedThroughputExceededException"), TransientError),
        (client_error("ThrottlingException"), TransientError),
        (client_error("RequestThrottled"), TransientError),
        (client_error("503", 503), TransientError),
        (client_error("SomethingNew", 500), TransientError),
        (client_error("ExpiredTokenException"), TransientError),
        (EndpointConnectionError(endpoint_url="https://s3"), TransientError),
        (ConnectTimeoutError(endpoint_url="https://s3"), TransientError),
        (ReadTimeoutError(endpoint_url="https://s3"), TransientError),
        (ResponseStreamingError(error="reset"), TransientError),
        (IncompleteReadError(actual_bytes=1, expected_bytes=2), TransientError),
        (FlexibleChecksumError(error_msg="crc32"), TransientError),
        (client_error("AccessDenied", 403), AccessRefused),
        (client_error("AccessDeniedException"), AccessRefused),
        (client_error("403", 403), AccessRefused),
        (client_error("ConditionalCheckFailedException"), None),
        (client_error("NoSuchBucket", 404), None),
        (client_error("ValidationException"), None),
        (ValueError("ours"), None),
    ],
)
def test_what_passes_and_what_is_refused_are_told_from_each_other(
    error: Exception, ours: type[RiskmillError] | None
) -> None:
    found = translated(error, "GET x")
    if ours is None:
        assert found is None
    else:
        assert type(found) is ours
        assert str(found).startswith("GET x: ")


def test_a_client_is_made_once(aws_environment: pytest.MonkeyPatch) -> None:
    assert clients.client("s3") is clients.client("s3")
    assert clients.client("s3") is not clients.client("sqs")
