import json
import time
from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import pytest

from mock_cloud import Answer, free_port, s3_error, scripted
from riskmill.aws.objects import CONFLICT_TRIES, Bucket, Outputs
from riskmill.aws.queues import send_all
from riskmill.errors import AccessRefused, MissingInput, ModelError, TransientError
from riskmill.index_events import outputs_message, read_index_messages
from riskmill.jobs import object_name
from riskmill.outputs import encode

REF = "p:" + "ab" * 16
NAME = object_name(REF)
type Endpoint = Callable[[str], None]


def data_of(value: float, size: int = 1) -> bytes:
    return encode({"x": np.full(size, value)})


def outputs(bucket: str, requeued: list[str], *, retention: float = 86_400.0, memory_bytes: int = 10_000) -> Outputs:
    return Outputs(Bucket(bucket), memory_bytes=memory_bytes, retention_seconds=retention, requeue=requeued.extend)


@pytest.fixture
def no_waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Take the waits between tries away; give what they would have been."""
    waits: list[float] = []
    monkeypatch.setattr("riskmill.aws.objects.time.sleep", waits.append)
    return waits


# ---- the bucket, on moto


def test_what_is_put_is_got_whole_or_in_part(aws: SimpleNamespace) -> None:
    bucket = Bucket(aws.bucket)
    bucket.put("runs/r/graph", b"0123456789")
    assert bucket.get("runs/r/graph") == b"0123456789"
    assert bucket.get("runs/r/graph", start=0, end=1) == b"0"
    assert bucket.get("runs/r/graph", start=3, end=7) == b"3456"
    bucket.put_json("runs/r/x.json", {"a": [1, 2.5, None], "ü": "é"})
    assert bucket.get_json("runs/r/x.json") == {"a": [1, 2.5, None], "ü": "é"}


def test_nan_is_never_written_as_json(aws: SimpleNamespace) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        Bucket(aws.bucket).put_json("runs/r/x.json", {"a": float("nan")})


def test_what_is_not_there_is_a_key_error_with_its_name(aws: SimpleNamespace) -> None:
    bucket = Bucket(aws.bucket)
    with pytest.raises(KeyError, match="runs/r/none"):
        bucket.get("runs/r/none")
    assert bucket.age("runs/r/none") is None


def test_an_object_is_written_once(aws: SimpleNamespace) -> None:
    bucket = Bucket(aws.bucket)
    assert bucket.put_new(NAME, b"first") is True
    assert bucket.put_new(NAME, b"second") is False
    assert bucket.get(NAME) == b"first"
    age = bucket.age(NAME)
    assert age is not None
    assert -1 < age < 60


def test_many_objects_come_in_the_order_asked_for(aws: SimpleNamespace) -> None:
    bucket = Bucket(aws.bucket)
    names = [f"runs/r/manifests/r0/b{n}.json" for n in range(50)]
    bucket.put_many({name: name.encode() for name in names})
    assert list(bucket.get_many(names[::-1])) == [name.encode() for name in names[::-1]]
    assert list(bucket.get_many([])) == []
    with pytest.raises(KeyError, match="nowhere"):
        list(bucket.get_many([names[0], "nowhere", names[1]]))


def test_missing_names_those_that_are_not_there_in_order(aws: SimpleNamespace) -> None:
    bucket = Bucket(aws.bucket)
    bucket.put("b", b"")
    assert bucket.missing(["c", "b", "a"]) == ["c", "a"]
    assert bucket.missing([]) == []


def test_names_lie_below_their_prefix_in_order(aws: SimpleNamespace) -> None:
    for name in ("runs/r/manifests/r0/b", "runs/r/manifests/r0/a", "runs/r/manifests/r1/x"):
        aws.s3.put_object(Bucket=aws.bucket, Key=name, Body=b"")
    bucket = Bucket(aws.bucket)
    assert list(bucket.names("runs/r/manifests/r0/")) == ["runs/r/manifests/r0/a", "runs/r/manifests/r0/b"]
    assert list(bucket.names("runs/none/")) == []


# ---- outputs, on moto


def test_a_new_output_is_written_and_not_put_on_the_queue(aws: SimpleNamespace) -> None:
    requeued: list[str] = []
    assert outputs(aws.bucket, requeued).write(REF, data_of(1)).result() is True
    assert Bucket(aws.bucket).get(NAME) == data_of(1)
    assert requeued == []


def test_an_output_that_is_there_is_left_and_its_name_goes_to_the_index_queue(aws: SimpleNamespace) -> None:
    """S3 sends no event for a 412, so the worker asks for the index itself."""
    Bucket(aws.bucket).put(NAME, data_of(1))
    store = Outputs(
        Bucket(aws.bucket),
        memory_bytes=10_000,
        retention_seconds=86_400.0,
        requeue=lambda written: send_all(aws.queue_url, [outputs_message(written)]),
    )
    assert store.write(REF, data_of(2)).result() is False
    assert Bucket(aws.bucket).get(NAME) == data_of(1)
    messages = aws.sqs.receive_message(QueueUrl=aws.queue_url, MaxNumberOfMessages=10)["Messages"]
    records = [{"messageId": message["MessageId"], "body": message["Body"]} for message in messages]
    ((key, written),) = read_index_messages(records).outputs.items()
    assert key == bytes.fromhex(REF[2:])
    assert written == Bucket(aws.bucket).written(NAME)


@pytest.mark.parametrize(("age", "new"), [(0.5, False), (0.85, False), (0.95, True), (2.0, True)])
def test_an_output_with_less_than_a_tenth_of_its_retention_left_is_written_anew(
    aws: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, age: float, new: bool
) -> None:
    """Left as it is, it would expire, or vanish, soon after the run that relies on it."""
    Bucket(aws.bucket).put(NAME, data_of(1))
    requeued: list[str] = []
    store = outputs(aws.bucket, requeued, retention=86_400.0)
    now = time.time()
    monkeypatch.setattr("riskmill.aws.objects.time.time", lambda: now + age * 86_400)
    assert store.write(REF, data_of(2)).result() is new
    assert Bucket(aws.bucket).get(NAME) == data_of(2 if new else 1)
    assert requeued == ([] if new else [NAME])


def test_exists_tells_whether_an_output_is_there(aws: SimpleNamespace) -> None:
    requeued: list[str] = []
    store = outputs(aws.bucket, requeued)
    assert store.exists(REF) is False
    Bucket(aws.bucket).put(NAME, data_of(1))
    assert store.exists(REF) is True
    assert requeued == [NAME]  # no event will index it: the worker that wrote it may have died before


def test_an_input_that_is_gone_is_a_missing_input_with_its_reference(aws: SimpleNamespace) -> None:
    store = outputs(aws.bucket, [])
    with pytest.raises(MissingInput) as caught:
        store.read(REF)
    assert caught.value.ref == REF
    store.expect([REF])
    with pytest.raises(MissingInput):
        store.read(REF)


def test_an_object_that_no_model_wrote_is_a_model_error(aws: SimpleNamespace) -> None:
    Bucket(aws.bucket).put(NAME, b"{}")
    with pytest.raises(ModelError, match="not a safetensors object"):
        outputs(aws.bucket, []).read(REF)


def refs(count: int) -> list[str]:
    return [f"p:{n:032x}" for n in range(count)]


def test_what_was_read_or_made_stays_in_memory(aws: SimpleNamespace) -> None:
    store = outputs(aws.bucket, [])
    Bucket(aws.bucket).put(NAME, data_of(1))
    first = store.read(REF)
    aws.s3.delete_object(Bucket=aws.bucket, Key=NAME)
    assert store.read(REF) is first
    store.keep("p:" + "00" * 16, first)
    assert store.read("p:" + "00" * 16) is first


def test_memory_is_bounded_and_the_longest_unused_goes_first(aws: SimpleNamespace) -> None:
    """Each object has 4,000 bytes: two fit into 10,000."""
    store = outputs(aws.bucket, [])
    a, b, c = refs(3)
    for ref in (a, b, c):
        Bucket(aws.bucket).put(object_name(ref), data_of(1, 500))
    store.read(a)
    store.read(b)
    store.read(a)
    store.read(c)
    for ref in (a, b, c):
        aws.s3.delete_object(Bucket=aws.bucket, Key=object_name(ref))
    store.read(a)
    store.read(c)
    with pytest.raises(MissingInput):
        store.read(b)


def test_an_object_larger_than_the_memory_is_still_readable(aws: SimpleNamespace) -> None:
    store = outputs(aws.bucket, [], memory_bytes=10)
    for ref in refs(3):
        Bucket(aws.bucket).put(object_name(ref), data_of(1, 500))
    assert [len(store.read(ref)["x"]) for ref in refs(3)] == [500, 500, 500]


def test_expected_objects_are_fetched_ahead_of_the_reader(aws: SimpleNamespace) -> None:
    store = outputs(aws.bucket, [], memory_bytes=1_000_000)
    expected = refs(60)
    for number, ref in enumerate(expected):
        Bucket(aws.bucket).put(object_name(ref), data_of(number))
    store.expect(expected)
    assert [float(store.read(ref)["x"][0]) for ref in expected] == list(range(60))


def test_an_expected_object_that_nobody_reads_does_not_hold_up_the_next_batch(aws: SimpleNamespace) -> None:
    store = outputs(aws.bucket, [], memory_bytes=1_000_000)
    for number, ref in enumerate(refs(80)):
        Bucket(aws.bucket).put(object_name(ref), data_of(number))
    store.expect(refs(40))
    store.expect(refs(80)[40:])
    assert [float(store.read(ref)["x"][0]) for ref in refs(80)[40:]] == list(range(40, 80))


def test_what_the_next_batch_reads_is_fetched_after_what_this_one_expects_and_kept_for_it(
    aws: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, asked = outputs(aws.bucket, [], memory_bytes=1_000_000), list[str]()
    for number, ref in enumerate(refs(40)):
        Bucket(aws.bucket).put(object_name(ref), data_of(number))
    fetch = store._fetch
    monkeypatch.setattr(store, "_fetch", lambda ref: (asked.append(ref), fetch(ref))[1])
    now, later = refs(40)[:20], refs(40)[20:]
    store.expect(now)
    store.expect_later(later)
    assert [float(store.read(ref)["x"][0]) for ref in now] == list(range(20))
    store.expect(later)
    assert [float(store.read(ref)["x"][0]) for ref in later] == list(range(20, 40))
    assert sorted(asked) == refs(40)  # each once


def test_what_was_not_there_for_an_early_fetch_is_looked_for_again(aws: SimpleNamespace) -> None:
    store = outputs(aws.bucket, [])
    store.expect_later([REF])
    store._fetching[REF].exception(timeout=10)
    Bucket(aws.bucket).put(NAME, data_of(7))
    store.expect([REF])
    assert store.read(REF)["x"][0] == 7


# ---- what moto cannot do: a scripted server


@pytest.fixture
def conflict() -> Answer:
    return s3_error(409, "ConditionalRequestConflict")


def test_a_conflict_with_another_writer_is_tried_again(
    endpoint: Endpoint, no_waits: list[float], conflict: Answer
) -> None:
    with scripted(conflict, conflict, Answer()) as server:
        endpoint(server.url)
        assert Bucket("data").put_new(NAME, b"x") is True
        assert server.methods == ["PUT"] * 3
        assert all(headers["If-None-Match"] == "*" for _, headers, _ in server.requests)
    assert no_waits == sorted(no_waits)
    assert len(no_waits) == 2


def test_a_conflict_that_the_other_writer_won_means_that_the_object_is_there(
    endpoint: Endpoint, no_waits: list[float], conflict: Answer
) -> None:
    with scripted(conflict, s3_error(412, "PreconditionFailed")) as server:
        endpoint(server.url)
        assert Bucket("data").put_new(NAME, b"x") is False


def test_a_conflict_without_end_is_a_passing_fault(endpoint: Endpoint, no_waits: list[float], conflict: Answer) -> None:
    with scripted(conflict) as server:
        endpoint(server.url)
        with pytest.raises(TransientError, match="still in conflict"):
            Bucket("data").put_new(NAME, b"x")
        assert len(server.requests) == CONFLICT_TRIES


def test_names_goes_past_the_thousand_that_one_list_gives(endpoint: Endpoint) -> None:
    page = (
        '<?xml version="1.0"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>data</Name>'
        "<IsTruncated>{more}</IsTruncated>{token}<Contents><Key>{name}</Key></Contents></ListBucketResult>"
    )
    token = "<NextContinuationToken>next</NextContinuationToken>"
    pages = [page.format(more="true", token=token, name="a"), page.format(more="false", token="", name="b")]
    with scripted(*(Answer(200, body, {"Content-Type": "application/xml"}) for body in pages)) as server:
        endpoint(server.url)
        assert list(Bucket("data").names("")) == ["a", "b"]


def test_slow_down_is_retried_by_the_client(endpoint: Endpoint) -> None:
    slow = s3_error(503, "SlowDown")
    with scripted(slow, slow, Answer(200, "data")) as server:
        endpoint(server.url)
        assert Bucket("data").get(NAME) == b"data"
        assert len(server.requests) == 3


@pytest.mark.parametrize(
    ("status", "code"), [(503, "SlowDown"), (500, "InternalError"), (503, "ServiceUnavailable"), (500, "Unheard0f")]
)
def test_a_fault_of_s3_that_outlives_the_clients_retries_is_a_passing_one(
    endpoint: Endpoint, status: int, code: str
) -> None:
    with scripted(s3_error(status, code)) as server:
        endpoint(server.url)
        with pytest.raises(TransientError, match=f"PUT {NAME}: {code}"):
            Bucket("data").put_new(NAME, b"x")
        assert len(server.requests) == 3


def test_a_throttled_head_is_a_passing_fault(endpoint: Endpoint) -> None:
    """HEAD has no body, so the code is the bare status."""
    with scripted(Answer(503)) as server:
        endpoint(server.url)
        with pytest.raises(TransientError):
            Bucket("data").age(NAME)


def test_refused_access_is_a_fault_of_the_deployment(endpoint: Endpoint) -> None:
    with scripted(s3_error(403, "AccessDenied")) as server:
        endpoint(server.url)
        bucket = Bucket("data")
        with pytest.raises(AccessRefused, match=f"GET {NAME}"):
            bucket.get(NAME)
        with pytest.raises(AccessRefused, match=f"PUT {NAME}"):
            bucket.put_new(NAME, b"x")
        with pytest.raises(AccessRefused, match=f"HEAD {NAME}"):
            bucket.age(NAME)
        with pytest.raises(AccessRefused, match="LIST runs/"):
            list(bucket.names("runs/"))


def test_an_expired_token_is_a_passing_fault(endpoint: Endpoint) -> None:
    """Credentials of a role are renewed while the process lives."""
    with scripted(s3_error(400, "ExpiredToken")) as server:
        endpoint(server.url)
        with pytest.raises(TransientError):
            Bucket("data").get(NAME)


def test_a_body_that_breaks_off_is_a_passing_fault(endpoint: Endpoint) -> None:
    with scripted(Answer(200, "half", length=8)) as server:
        endpoint(server.url)
        with pytest.raises(TransientError, match=f"GET {NAME}"):
            Bucket("data").get(NAME)


def test_a_server_that_is_not_there_is_a_passing_fault(endpoint: Endpoint) -> None:
    endpoint(f"http://127.0.0.1:{free_port()}")
    with pytest.raises(TransientError, match=f"GET {NAME}"):
        Bucket("data").get(NAME)


def test_an_unknown_bucket_is_nobodys_passing_fault(endpoint: Endpoint) -> None:
    with scripted(s3_error(404, "NoSuchBucket")) as server:
        endpoint(server.url)
        with pytest.raises(Exception, match="NoSuchBucket"):
            Bucket("data").get(NAME)


def test_an_output_deleted_between_the_412_and_the_look_at_its_age_is_written(endpoint: Endpoint) -> None:
    requeued: list[str] = []
    with scripted(s3_error(412, "PreconditionFailed"), Answer(404), Answer()) as server:
        endpoint(server.url)
        assert outputs("data", requeued).write(REF, data_of(1)).result() is True
        assert server.methods == ["PUT", "HEAD", "PUT"]
        assert "If-None-Match" not in server.requests[2][1]
    assert requeued == []


def test_a_failed_write_comes_out_of_its_future(endpoint: Endpoint) -> None:
    with scripted(s3_error(503, "SlowDown")) as server:
        endpoint(server.url)
        writes = [outputs("data", []).write(ref, data_of(1)) for ref in refs(3)]
        for write in writes:
            with pytest.raises(TransientError):
                write.result()


def test_the_clients_slow_themselves_down_from_the_start() -> None:
    from riskmill.aws.clients import CONFIG

    assert CONFIG.retries == {"mode": "adaptive", "total_max_attempts": 8}  # type: ignore[attr-defined]


def test_json_is_compact(aws: SimpleNamespace) -> None:
    """A wave's file has up to 40 MB on a large run, so spaces count."""
    bucket = Bucket(aws.bucket)
    bucket.put_json("x.json", [{"a": 1}])
    assert bucket.get("x.json") == json.dumps([{"a": 1}], separators=(",", ":")).encode()
