import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest

from mock_cloud import Answer, json_error, scripted
from riskmill.aws.control import KEEP_SECONDS, RATE_HISTORY_JOBS, ControlTable
from riskmill.errors import AccessRefused, RiskmillError, TransientError

type Endpoint = Callable[[str], None]


@pytest.fixture
def control(aws: SimpleNamespace) -> ControlTable:
    return ControlTable(aws.table)


def test_a_run_begins_with_its_facts(control: ControlTable) -> None:
    before = time.time()
    options = {"parallelism": 4, "share": 0.25, "list": [1, 2.5]}
    run = control.begin_run(
        "r1", portfolio="ab" * 16, jobs=12, options={"parallelism": 4, "share": 0.25, "list": [1, 2.5]}
    )
    assert run["run_id"] == "r1"
    assert run["status"] == "RUNNING"
    assert run["phase"] == "planning"
    assert run["cancelled"] is False
    assert run["demand"] == 0
    assert run["jobs"] == 12
    assert run["options"] == options
    assert before <= run["started"] <= time.time()
    assert 0 <= run["expires_at"] - int(before) - KEEP_SECONDS < 60


def test_a_start_that_is_retried_finds_the_first_and_changes_nothing(control: ControlTable) -> None:
    first = control.begin_run("r1", jobs=12)
    assert control.begin_run("r1", jobs=99, portfolio="other") == first


def test_a_run_that_does_not_exist_is_named(control: ControlTable) -> None:
    for ask in (control.run, control.is_over, control.cancel_run):
        with pytest.raises(RiskmillError, match="no run 'r9'"):
            ask("r9")
    with pytest.raises(RiskmillError, match="no run 'r9'"):
        control.update_run("r9", phase="running")
    with pytest.raises(RiskmillError, match="no run 'r9'"):
        control.update_run("r9", status="FAILED")


def test_the_latest_runs_come_first_whatever_their_names(control: ControlTable) -> None:
    for name, started in (("b", 30.0), ("a", 10.5), ("c", 20)):
        control.begin_run(name, started=started)
    assert [run["run_id"] for run in control.runs()] == ["b", "c", "a"]
    assert [run["run_id"] for run in control.runs(limit=1)] == ["b"]


def test_facts_of_a_run_are_set_and_others_left(control: ControlTable) -> None:
    control.begin_run("r1", jobs=12)
    control.update_run("r1", phase="running", demand=7, waves_r0=[{"jobs": 3, "seconds": 1.5}], error="")
    run = control.run("r1")
    assert (run["phase"], run["demand"], run["jobs"]) == ("running", 7, 12)
    assert run["waves_r0"] == [{"jobs": 3, "seconds": 1.5}]


def test_a_run_that_has_ended_keeps_its_status(control: ControlTable) -> None:
    control.begin_run("r1")
    control.update_run("r1", status="SUCCEEDED", phase="ended", ended=12.5)
    control.update_run("r1", status="FAILED", phase="late", error="too late")
    run = control.run("r1")
    assert run["status"] == "SUCCEEDED"
    assert run["ended"] == 12.5
    assert run["phase"] == "ended"
    assert "error" not in run


def test_cancelling_stops_a_running_run_once(control: ControlTable) -> None:
    control.begin_run("r1")
    control.update_run("r1", demand=9)
    assert control.is_over("r1") is False
    assert control.cancel_run("r1") is True
    run = control.run("r1")
    assert (run["status"], run["cancelled"], run["demand"]) == ("CANCELLED", True, 0)
    assert control.is_over("r1") is True
    assert control.cancel_run("r1") is False


def test_a_run_that_has_ended_cannot_be_cancelled(control: ControlTable) -> None:
    control.begin_run("r1")
    control.update_run("r1", status="SUCCEEDED")
    assert control.cancel_run("r1") is False
    assert control.run("r1")["status"] == "SUCCEEDED"
    assert control.is_over("r1") is True


def test_a_cancelled_run_demands_no_containers_whatever_a_late_plan_says(control: ControlTable) -> None:
    control.begin_run("r1")
    control.cancel_run("r1")
    control.update_run("r1", demand=50, phase="running")
    assert control.run("r1")["demand"] == 0


def test_what_a_run_did_is_noted_after_its_end_too(control: ControlTable) -> None:
    control.begin_run("r1")
    control.cancel_run("r1")
    control.note("r1", unfinished=5)
    assert control.run("r1")["unfinished"] == 5


def test_attempts_of_a_batch_are_counted_when_they_begin(control: ControlTable) -> None:
    facts = {"round": 0, "wave": 1, "jobs": 5, "where": "lambda"}
    assert [control.begin_batch("r1", "b1", **facts) for _ in range(3)] == [1, 2, 3]
    assert control.begin_batch("r1", "b2") == 1
    assert control.begin_batch("r2", "b1") == 1
    control.end_batch("r1", "b1", done=4, failed=1, seconds=2.5)
    control.end_batch("r1", "b1", done=4, failed=1, seconds=2.5)
    batches = {batch["batch_id"]: batch for batch in control.batches("r1")}
    assert set(batches) == {"b1", "b2"}
    assert batches["b1"]["attempts"] == 3
    assert (batches["b1"]["done"], batches["b1"]["seconds"], batches["b1"]["where"]) == (4, 2.5, "lambda")


def test_attempts_that_begin_at_the_same_time_have_different_numbers(control: ControlTable) -> None:
    """The first attempt does not look for outputs of an earlier one, so there must be only one first."""
    barrier = threading.Barrier(8)

    def begin(_: int) -> int:
        barrier.wait()
        return control.begin_batch("r1", "b1", round=0)

    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(begin, range(8))) == list(range(1, 9))


def test_a_start_that_is_raced_has_one_winner_and_all_see_it(control: ControlTable) -> None:
    barrier = threading.Barrier(6)

    def begin(number: int) -> object:
        barrier.wait()
        return control.begin_run("r1", jobs=number)["jobs"]

    with ThreadPoolExecutor(6) as pool:
        assert len(set(pool.map(begin, range(6)))) == 1


def test_rates_add_up_over_batches(control: ControlTable) -> None:
    assert control.rates() == {}
    control.add_rates({"price_deal@1": (10, 1000.0, 2.0), "roll_up@1": (1, 64.0, 0.032)})
    control.add_rates({"price_deal@1": (30, 3000.0, 2.0)})
    assert control.rates() == pytest.approx({"price_deal@1": 0.001, "roll_up@1": 0.0005})


def test_work_of_nothing_has_no_rate(control: ControlTable) -> None:
    control.add_rates({"tabulate_deals@1": (1, 0.0, 0.5)})
    assert control.rates() == {}


def test_a_long_history_is_halved_so_that_new_hardware_shows(control: ControlTable, aws: SimpleNamespace) -> None:
    control.add_rates({"price_deal@1": (RATE_HISTORY_JOBS, 1e6, 100.0)})
    control.add_rates({"price_deal@1": (2, 2.0, 0.1234567)})
    item = aws.dynamodb.get_item(TableName=aws.table, Key={"pk": {"S": "rates"}, "sk": {"S": "price_deal@1"}})["Item"]
    assert item["jobs"]["N"] == str((RATE_HISTORY_JOBS + 2) // 2)
    assert float(item["work"]["N"]) == 500_001.0
    assert control.rates()["price_deal@1"] == pytest.approx(100.123457 / 1_000_002.0)


@pytest.mark.parametrize(
    ("status", "code", "error"),
    [
        (400, "ProvisionedThroughputExceededException", TransientError),
        (400, "ThrottlingException", TransientError),
        (500, "InternalServerError", TransientError),
        (400, "AccessDeniedException", AccessRefused),
    ],
)
def test_faults_of_dynamodb_are_translated_in_every_call(
    endpoint: Endpoint, status: int, code: str, error: type[Exception]
) -> None:
    calls: dict[str, Callable[[ControlTable], object]] = {
        "begin run": lambda table: table.begin_run("r1"),
        "read run": lambda table: table.run("r1"),
        "list runs": lambda table: table.runs(),
        "update run": lambda table: table.update_run("r1", phase="x"),
        "cancel run": lambda table: table.cancel_run("r1"),
        "begin batch": lambda table: table.begin_batch("r1", "b1"),
        "write facts": lambda table: table.end_batch("r1", "b1", done=1),
        "list batches": lambda table: table.batches("r1"),
        "read rates": lambda table: table.rates(),
        "add rates": lambda table: table.add_rates({"m@1": (1, 1.0, 1.0)}),
    }
    with scripted(json_error(status, code)) as server:
        endpoint(server.url)
        table = ControlTable("control")
        for what, call in calls.items():
            with pytest.raises(error, match=rf"^{what}: .*{code}"):
                call(table)


def test_a_throttled_request_is_retried_by_the_client(endpoint: Endpoint) -> None:
    item = '{"Item": {"pk": {"S": "runs"}, "sk": {"S": "r1"}, "status": {"S": "RUNNING"}}}'
    slow = json_error(400, "ProvisionedThroughputExceededException")
    with scripted(slow, slow, Answer(200, item, {"Content-Type": "application/x-amz-json-1.0"})) as server:
        endpoint(server.url)
        assert ControlTable("control").run("r1")["status"] == "RUNNING"
        assert len(server.requests) == 3
