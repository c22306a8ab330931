"""Every shipped handler on its real event, and whole rollups through all of them with their fault paths."""

import json
import time
from types import SimpleNamespace
from typing import Any

import pytest
from redis import Redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from mock_cloud import ROOT, free_port
from riskmill.aws.control import ControlTable
from riskmill.aws.index import OutputIndex
from riskmill.aws.runtime import steps
from riskmill.aws.steps import _innermost
from riskmill.errors import AccessRefused, MissingInput, PortfolioInvalid, RiskmillError, RunCancelled, TransientError
from riskmill.index_events import outputs_message
from riskmill.jobs import content_key, object_name
from riskmill.run_files import errors_file, manifest_folder, portfolio_file, result_file, unfinished_file
from tiny_portfolio import TinyPortfolio, bad_elt, elt

# conftest's types are found by pytest alone
type Machine = Any
type Cache = Any

EVENTS = ROOT / "events"

#: 1 year-event table, 4 prices, 2 buckets, their sum, 1 retro, the net sum, 3 + 1 + 3 measures, 1 comparison,
#: what 2 paths of contracts leave, 2 allocations, 1 table
ALL_JOBS = 23


@pytest.fixture(scope="session")
def tiny() -> TinyPortfolio:
    return TinyPortfolio()


def event_of(name: str) -> dict[str, Any]:
    event: dict[str, Any] = json.loads((EVENTS / f"{name}.json").read_text(encoding="utf-8"))
    return event


# ---- every handler on its event


def test_every_function_has_one_event_of_its_name() -> None:
    functions = {path.parent.name for path in (ROOT / "functions").glob("*/app.py")}
    assert {path.stem for path in EVENTS.glob("*.json")} == functions


def test_build_graph_on_its_event(machine: Machine, tiny: TinyPortfolio) -> None:
    machine.upload(tiny)
    event = event_of("build_graph")
    assert event["portfolio"] == tiny.key, "the event names the tests' portfolio"
    assert machine.call("build_graph", event) == {"jobs": ALL_JOBS}
    facts = machine.facts(event["run_id"])
    assert facts["status"] == "RUNNING"
    assert facts["name"] == "Tiny Re"
    assert facts["jobs"] == len(machine.graph(event["run_id"])) == ALL_JOBS
    assert facts["options"] == event["options"]


def test_a_run_that_cannot_sample_its_losses_is_refused_before_any_job(machine: Machine) -> None:
    tiny = TinyPortfolio()
    fault = "elts: 'E1': exposure: event 3: is empty"
    portfolio = tiny.portfolio.model_copy(update={"sampling_faults": (fault,)})
    tiny.objects[portfolio_file(portfolio.key)] = portfolio.to_json()
    machine.upload(tiny)
    event = {"run_id": "refused", "portfolio": portfolio.key, "options": {"secondary_uncertainty": "on"}}
    with pytest.raises(PortfolioInvalid, match=fault):
        machine.call("build_graph", event)
    with pytest.raises(RiskmillError, match="option secondary_uncertainty is 'maybe': one of on, off"):
        machine.call("build_graph", event | {"options": {"secondary_uncertainty": "maybe"}})
    assert machine.names("runs/") == []
    assert machine.call("build_graph", event | {"options": {}}) == {"jobs": ALL_JOBS}


def test_look_up_keys_on_its_event(machine: Machine, tiny: TinyPortfolio, cache: Cache) -> None:
    machine.upload(tiny)
    machine.call("build_graph", event_of("build_graph"))
    graph = machine.graph(event_of("build_graph")["run_id"])
    OutputIndex(cache).add([graph.keys[0].tobytes(), graph.keys[3].tobytes()])
    assert machine.call("look_up_keys", event_of("look_up_keys")) == {"cached": 2}
    assert cache.keys("plan:*") == []


def test_plan_waves_on_its_event(machine: Machine, tiny: TinyPortfolio) -> None:
    machine.upload(tiny)
    machine.call("build_graph", event_of("build_graph"))
    machine.call("look_up_keys", event_of("look_up_keys"))
    event = event_of("plan_waves")
    plan = machine.call("plan_waves", event)
    assert plan["round"] == 0
    assert plan["jobs"] == ALL_JOBS
    items = [item for wave in range(plan["waves"]) for item in machine.items(event["run_id"], 0, wave)]
    assert sum(item["jobs"] for item in items) == ALL_JOBS
    facts = machine.facts(event["run_id"])
    assert facts["phase"] == "running"
    assert facts["to_run"] == ALL_JOBS
    assert [wave["batches"] for wave in facts["waves_r0"]] == [
        len(machine.items(event["run_id"], 0, wave)) for wave in range(plan["waves"])
    ]


def test_run_batch_on_its_event(machine: Machine, tiny: TinyPortfolio) -> None:
    key = machine.upload(tiny)
    event = event_of("run_batch")
    machine.plan(event["run_id"], key, {})
    item = machine.items(event["run_id"], 0, 0)[0]
    estimates = {name: item[name] for name in ("seconds", "end", "jobs")}
    assert event | estimates == item, "the event is an item as the planner writes it"
    answer = machine.call("run_batch", event | estimates)
    assert answer == {"done": item["jobs"], "failed": 0, "missing": 0, "left": 0}
    (name,) = machine.names(manifest_folder(event["run_id"], 0))
    manifest = json.loads(machine.get(name))
    assert manifest["batch_id"] == event["batch_id"]
    assert manifest["attempt"] == 1
    assert sorted(manifest["done"]) == sorted(part.rpartition("/")[2] for part in machine.parts())
    (batch,) = ControlTable(machine.aws.table).batches(event["run_id"])
    assert (batch["attempts"], batch["done"], batch["where"]) == (1, item["jobs"], "lambda")


def test_settle_round_on_its_event(machine: Machine, tiny: TinyPortfolio, cache: Cache) -> None:
    key = machine.upload(tiny)
    event = event_of("settle_round")
    machine.run_waves(event["run_id"], machine.plan(event["run_id"], key, {}))
    assert machine.call("settle_round", event) == {"outcome": "complete", "round": 1, "remaining": 0, "failed": 0}
    assert OutputIndex(cache).count() == ALL_JOBS, "the next run need not wait for S3's events"
    assert machine.facts(event["run_id"])["computed"] == ALL_JOBS
    assert set(ControlTable(machine.aws.table).rates()) >= {"price_deal@1", "simulate_years@1", "measure@3"}


def test_publish_results_on_its_event(machine: Machine, tiny: TinyPortfolio) -> None:
    key = machine.upload(tiny)
    event = event_of("publish_results")
    run_id = event["run_id"]
    machine.run_waves(run_id, machine.plan(run_id, key, {}))
    machine.call("settle_round", event_of("settle_round"))
    answer = machine.call("publish_results", event)
    assert answer["results"] == f"runs/{run_id}/results/"
    summary = json.loads(machine.get(result_file(run_id, "summary.json")))
    assert summary["run"]["jobs"] == summary["run"]["computed"] == ALL_JOBS
    assert summary["run"]["cached"] == summary["run"]["failed"] == 0
    assert summary["run"]["compute"] == {"lambda": ALL_JOBS}
    assert summary["portfolio"]["key"] == key
    named = {(group["group_id"], group["perspective"]) for group in summary["groups"]}
    assert named >= {("all", "gross"), ("all", "net"), ("all", "ceded"), ("US", "ceded"), ("EU", "gross")}
    assert sorted(deal["deal_id"] for deal in summary["deals"]) == ["D1", "D2", "D3", "D4"]
    assert all(deal["aal"] > 0 for deal in summary["deals"])
    gross = {group["group_id"]: group["aal"] for group in summary["groups"] if group["perspective"] == "gross"}
    assert gross["all"] == pytest.approx(gross["US"] + gross["EU"])
    assert gross["all"] == pytest.approx(sum(deal["aal"] for deal in summary["deals"]), rel=1e-6)
    facts = machine.facts(run_id)
    assert (facts["status"], facts["phase"], facts["demand"]) == ("SUCCEEDED", "ended", 0)


def test_record_failure_on_its_event(machine: Machine) -> None:
    """The event is what the planner's nested execution leaves when the portfolio was never uploaded."""
    event = event_of("record_failure")
    answer = machine.call("record_failure", event)
    assert answer["error"] == "PortfolioInvalid"
    assert answer["cause"].startswith("PortfolioInvalid: 1 fault(s): portfolio ")
    facts = machine.facts(event["run_id"])
    assert (facts["status"], facts["error"]) == ("FAILED", answer["cause"])


def at_time(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Let the cache's steps see this time."""
    monkeypatch.setattr("riskmill.aws.cache_steps.time", SimpleNamespace(time=lambda: seconds))


def members(cache: Cache) -> set[bytes]:
    return {member for partition in range(256) for member in cache.smembers(f"outputs:{{{partition:02x}}}")}


def dead_letters(machine: Machine) -> list[dict[str, Any]]:
    answer = machine.aws.sqs.receive_message(QueueUrl=machine.aws.dead_letters_url, MaxNumberOfMessages=10)
    return [json.loads(message["Body"]) for message in answer.get("Messages", [])]


def expiries_of(machine: Machine) -> dict[bytes, int]:
    items = machine.aws.dynamodb.scan(TableName=machine.aws.expiries)["Items"]
    return {bytes(item["key"]["B"]): int(item["expires_at"]["N"]) for item in items}


def test_index_outputs_on_its_event(machine: Machine, cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two notifications of S3, its test event, outputs put back by a worker, and one message of somebody else's."""
    event = event_of("index_outputs")
    at_time(monkeypatch, 1767579070.0)
    bodies = [json.loads(record["body"]) for record in event["Records"][:-1]]
    names = [record["s3"]["object"]["key"] for body in bodies for record in body.get("Records", [])]
    names += [name for body in bodies for name in body.get("outputs", {})]
    assert any(body.get("Event") == "s3:TestEvent" for body in bodies)
    assert machine.call("index_outputs", event) == {"batchItemFailures": []}
    assert members(cache) == {bytes.fromhex(name.replace("%2F", "/").rpartition("/")[2]) for name in names}
    assert len(members(cache)) == 4
    (put_aside,) = dead_letters(machine)
    assert put_aside["function"] == "index_outputs"
    assert put_aside["error"].startswith("JSONDecodeError")
    assert put_aside["record"] == event["Records"][-1]


def test_an_event_older_than_the_retention_indexes_nothing(
    machine: Machine, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A dead letter that is replayed after months must not promise what S3 has deleted."""
    at_time(monkeypatch, 1767579070.0 + 91 * 86_400)
    machine.call("index_outputs", event_of("index_outputs"))
    assert members(cache) == set()


def test_record_expiry_on_its_event(machine: Machine) -> None:
    """Two records of the stream, and one of somebody else's between them, which blocks nothing."""
    event = event_of("record_expiry")
    assert machine.call("record_expiry", event) == {"batchItemFailures": []}
    assert expiries_of(machine) == {
        bytes.fromhex("5029901212ffd54bd3f58d3ef24359eb"): 1775355069,
        bytes.fromhex("722ac03aa082b763ff51ffc37e6db44c"): 1775355069,
        bytes.fromhex("f998e1c132f07fe9ad6b22b03ca1ba9f"): 1775355070,
    }
    (put_aside,) = dead_letters(machine)
    assert (put_aside["function"], put_aside["record"]) == ("record_expiry", event["Records"][1])


def test_evict_expired_on_its_event_spares_what_was_made_again(
    machine: Machine, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    expired, again, other = (
        bytes.fromhex(key)
        for key in ("5029901212ffd54bd3f58d3ef24359eb", "722ac03aa082b763ff51ffc37e6db44c", "50" * 16)
    )
    OutputIndex(cache).add([expired, again, other])
    item = {"key": {"B": again}, "expires_at": {"N": "1775356002"}}
    machine.aws.dynamodb.put_item(TableName=machine.aws.expiries, Item=item)
    at_time(monkeypatch, 1775356001.0)
    event = event_of("evict_expired")
    assert machine.call("evict_expired", event) == {"batchItemFailures": []}
    assert members(cache) == {again, other}
    (put_aside,) = dead_letters(machine)
    assert put_aside["error"] == "ValueError: a key has 16 bytes, not 2"
    at_time(monkeypatch, 1775356003.0)  # the item's own time has come: it will be deleted, too
    machine.call("evict_expired", event)
    assert members(cache) == {other}


def test_rebuild_partition_on_its_event(machine: Machine, cache: Cache) -> None:
    there, gone, elsewhere = b"\x50" * 16, b"\x50" + b"\x01" * 15, b"\x51" * 16
    for key in (there, elsewhere):
        machine.aws.s3.put_object(Bucket=machine.aws.bucket, Key=object_name(f"p:{key.hex()}"), Body=b"x")
    OutputIndex(cache).add([gone])
    answer = machine.call("rebuild_partition", event_of("rebuild_partition"))
    assert answer == {"partition": 80, "objects": 1, "indexed_before": 1, "added": 1, "removed": 1}
    assert members(cache) == {there}


def test_a_rebuild_indexes_nothing_whose_expiry_cannot_be_sent(
    machine: Machine, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.aws.s3.put_object(Bucket=machine.aws.bucket, Key=object_name(f"p:{'50' * 16}"), Body=b"x")
    monkeypatch.setattr("riskmill.aws.expiries.ExpiryStream.put_some", lambda _, times: set(times))
    with pytest.raises(TransientError, match="1 expiries of partition 50 could not be sent"):
        machine.call("rebuild_partition", {"partition": 80})
    assert members(cache) == set()


def test_inspect_cache_on_its_event_and_on_others(machine: Machine, cache: Cache) -> None:
    event = event_of("inspect_cache")
    (key,) = event["keys"]

    def why() -> str:
        return str(machine.call("inspect_cache", event)["keys"][0]["why"])

    assert why().startswith("not there: never made")
    OutputIndex(cache).add([bytes.fromhex(key)])
    assert why().startswith("indexed, but S3 has no such output")
    machine.aws.s3.put_object(Bucket=machine.aws.bucket, Key=object_name(f"p:{key}"), Body=b"x")
    assert why().startswith("indexed without an expiry")
    assert machine.call("inspect_cache", {"action": "status"})["keys"] == 1
    assert machine.call("inspect_cache", {"action": "evict", "keys": [key]}) == {"evicted": 1}
    assert why().startswith("in S3, but not indexed")
    OutputIndex(cache).add([bytes.fromhex(key)])
    assert machine.call("inspect_cache", {"action": "clear"}) == {"evicted": 1}
    assert members(cache) == set()
    for bad in ({"action": "why", "keys": ["../x"]}, {"action": "burn"}, {}):
        with pytest.raises(RiskmillError):
            machine.call("inspect_cache", bad)


def test_what_kinesis_or_dynamodb_do_not_take_is_tried_again_and_nothing_else(
    machine: Machine, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The expiry goes first: what has none on its way is not indexed."""
    monkeypatch.setattr("riskmill.aws.expiries.time", SimpleNamespace(sleep=lambda _: None))
    records = [
        {"messageId": name, "body": outputs_message({object_name(f"p:{name * 16}"): time.time()})}
        for name in ("ab", "cd")
    ]
    monkeypatch.setattr("riskmill.aws.expiries.ExpiryStream.put_some", lambda _, times: {b"\xab" * 16} & set(times))
    assert machine.call("index_outputs", {"Records": records}) == {"batchItemFailures": [{"itemIdentifier": "ab"}]}
    assert members(cache) == {b"\xcd" * 16}
    event = event_of("record_expiry")
    lost = bytes.fromhex("f998e1c132f07fe9ad6b22b03ca1ba9f")
    monkeypatch.setattr("riskmill.aws.expiries.ExpiryTable.put_some", lambda _, times: {lost} & set(times))
    number = event["Records"][2]["kinesis"]["sequenceNumber"]
    assert machine.call("record_expiry", event) == {"batchItemFailures": [{"itemIdentifier": number}]}


@pytest.mark.parametrize("name", ["build_graph", "look_up_keys", "plan_waves", "settle_round", "publish_results"])
def test_an_event_without_a_field_is_refused_by_name(machine: Machine, name: str) -> None:
    with pytest.raises(RiskmillError, match="the event has no field 'run_id'"):
        machine.call(name, {})


# ---- whole rollups


def test_a_rollup_publishes_its_results(machine: Machine, tiny: TinyPortfolio) -> None:
    ended = machine.run("first", machine.upload(tiny))
    assert ended["results"] == "runs/first/results/"
    assert "runs/first/results/summary.json" in machine.names("runs/first/results/")
    assert len(machine.parts()) == ALL_JOBS


def test_a_second_rollup_computes_nothing_and_says_the_same(machine: Machine, tiny: TinyPortfolio) -> None:
    key = machine.upload(tiny)
    machine.run("first", key)
    before = machine.parts()
    machine.answers.clear()
    machine.run("second", key)
    assert [name for name, _ in machine.answers] == ["build_graph", "look_up_keys", "plan_waves", "publish_results"]
    assert machine.called("plan_waves") == [{"round": 0, "waves": 0, "jobs": 0, "workers": 0, "concurrency": 10_000}]
    assert machine.parts() == before
    first, second = (json.loads(machine.get(result_file(run, "summary.json"))) for run in ("first", "second"))
    assert second["run"]["cached"] == ALL_JOBS
    assert second["run"]["computed"] == 0
    assert first | {"run": None} == second | {"run": None}


def test_after_one_deal_changed_exactly_its_path_is_computed(machine: Machine, tiny: TinyPortfolio) -> None:
    machine.run("first", machine.upload(tiny))
    before = set(machine.parts())
    changed = TinyPortfolio(D4={"occurrence_retention": 2e6})
    machine.run("second", machine.upload(changed))
    path = {
        "price_deal deal D4 block 0",
        "roll_up bucket group EU/ block 0",
        "roll_up group all block 0",
        "roll_up group all before its outwards block 0",
        "measure group EU gross block 0",
        "measure group all gross block 0",
        "measure group all net block 0",
        "measure group all ceded block 0",
        "compare_groups groups EU to US block 0",
        "retained tail after 0 sets of outwards contracts block 0",
        "retained tail after 1 sets of outwards contracts block 0",
        "allocate bucket group EU/ block 0",
        "allocate bucket group US/ block 0",
        "tabulate_deals deals of the portfolio block 0",
    }
    assert machine.planned("second") == path
    assert set(machine.parts()) - before == {machine.part_of("second", label) for label in path}


def test_outputs_are_the_same_bytes_however_the_work_is_cut(
    machine: Machine, tiny: TinyPortfolio, cache: Cache
) -> None:
    key = machine.upload(tiny)
    machine.run("whole", key, parallelism=1)
    whole = machine.parts()
    machine.delete(*whole)
    cache.flushall()
    machine.run("cut", key, parallelism=64, max_batch_seconds=0.01)
    assert len(machine.names("runs/cut/manifests/")) > len(machine.names("runs/whole/manifests/"))
    assert machine.parts() == whole


def test_a_step_that_is_retried_leaves_the_same_behind(machine: Machine, tiny: TinyPortfolio) -> None:
    key = machine.upload(tiny)
    for _ in range(2):
        plan = machine.plan("run", key, {})
    for _ in range(2):
        machine.run_waves("run", plan)
    manifests = [json.loads(machine.get(name)) for name in machine.names("runs/run/manifests/")]
    assert {manifest["attempt"] for manifest in manifests} == {2}
    assert sum(len(manifest["found"]) for manifest in manifests) == ALL_JOBS
    settled = [machine.call("settle_round", {"run_id": "run", "round": 0}) for _ in range(2)]
    assert settled[0] == settled[1]
    assert settled[0]["outcome"] == "complete"
    first = machine.call("publish_results", {"run_id": "run"})["results"]
    assert machine.call("publish_results", {"run_id": "run"})["results"] == first


# ---- jobs that fail


def test_a_job_that_fails_is_named_and_the_rest_is_made(machine: Machine) -> None:
    broken = TinyPortfolio(tables={"D2": bad_elt()})
    ended = machine.run("run", machine.upload(broken))
    assert ended["error"] == "JobsFailed"
    said = "price_deal deal D2 block 0: price_deal version 1: ModelError: the event loss table's events are not sorted"
    assert said in ended["cause"]
    facts = machine.facts("run")
    assert (facts["status"], facts["phase"], facts["failed"]) == ("FAILED", "ended", 1)
    assert facts["error"] == ended["cause"]
    unfinished = {job["job"]: job for job in json.loads(machine.get(unfinished_file("run")))}
    assert unfinished["price_deal deal D2 block 0"]["status"] == "failed"
    assert "not sorted" in unfinished["price_deal deal D2 block 0"]["error"]
    assert unfinished["measure group US gross block 0"]["status"] == "blocked by a failed input"
    assert "measure group EU gross block 0" not in unfinished, "what does not read the deal is made"
    assert machine.part_of("run", "measure group EU gross block 0") in machine.parts()
    assert facts["blocked"] == len(unfinished) - 1
    assert len(json.loads(machine.get(errors_file("run")))) == 1


def test_a_failed_job_is_not_tried_again(machine: Machine) -> None:
    broken = TinyPortfolio(tables={"D2": bad_elt()})
    machine.run("run", machine.upload(broken))
    assert len(machine.called("settle_round")) == 1
    assert machine.called("settle_round")[0]["outcome"] == "failed"


def test_after_a_failed_job_nothing_is_looked_for_in_the_bucket(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its sum missed an input, but every job is accounted for: on a large run a look would be thousands of HEADs."""
    looked_for: list[str] = []
    machine.run_waves("run", machine.plan("run", machine.upload(TinyPortfolio(tables={"D2": bad_elt()})), {}))
    monkeypatch.setattr("riskmill.aws.objects.Bucket.age", lambda _, name: looked_for.append(name))
    assert machine.call("settle_round", {"run_id": "run", "round": 0})["outcome"] == "failed"
    assert looked_for == []


def test_a_failure_before_the_round_was_settled_names_its_jobs_too(machine: Machine) -> None:
    """The Map itself may fail (States.DataLimitExceeded): the manifests that are there are read all the same."""
    key = machine.upload(TinyPortfolio(tables={"D2": bad_elt()}))
    machine.run_waves("run", machine.plan("run", key, {}))
    ended = machine.fail("run", "States.DataLimitExceeded", "the Map's output is too large")
    assert "price_deal deal D2 block 0: " in ended["cause"]


# ---- inputs and outputs that are gone


def test_a_cached_output_that_vanished_is_found_out_and_made_again(
    machine: Machine, tiny: TinyPortfolio, cache: Cache
) -> None:
    machine.run("first", machine.upload(tiny))
    before = machine.parts()
    gone = machine.part_of("first", "roll_up bucket group US/ block 0")
    deeper = machine.part_of("first", "price_deal deal D1 block 0")
    machine.delete(gone, deeper)
    changed = TinyPortfolio(D4={"occurrence_retention": 2e6})
    ended = machine.run("second", machine.upload(changed))
    assert "results" in ended
    outcomes = [settled["outcome"] for settled in machine.called("settle_round")]
    assert outcomes == ["complete", "replan", "complete"], "one look finds every level"
    assert machine.parts()[gone] == before[gone]
    assert machine.parts()[deeper] == before[deeper]
    machine.delete(*machine.parts())
    cache.flushall()
    machine.run("fresh", changed.key)
    again, fresh = (json.loads(machine.get(result_file(run, "summary.json"))) for run in ("second", "fresh"))
    assert again | {"run": None} == fresh | {"run": None}


def test_a_vanished_output_is_taken_out_of_the_cache_until_it_is_there_again(
    machine: Machine, tiny: TinyPortfolio, cache: Cache
) -> None:
    machine.run("first", machine.upload(tiny))
    gone = machine.part_of("first", "roll_up bucket group US/ block 0")
    key = bytes.fromhex(gone.rpartition("/")[2])
    machine.delete(gone)
    changed = TinyPortfolio(D4={"occurrence_retention": 2e6})
    machine.run_waves("second", machine.plan("second", machine.upload(changed), {}))
    assert machine.call("settle_round", {"run_id": "second", "round": 0})["outcome"] == "replan"
    assert not cache.sismember(f"outputs:{{{key[0]:02x}}}", key)


def test_a_result_that_vanished_is_made_again_before_the_run_ends(machine: Machine, tiny: TinyPortfolio) -> None:
    key = machine.upload(tiny)
    machine.run("first", key)
    gone = machine.part_of("first", "measure group US net block 0")
    below = machine.part_of("first", "apply_retro outwards R1 block 0")
    before = machine.parts()
    machine.delete(gone, below)
    machine.answers.clear()
    assert "results" in machine.run("second", key)
    assert machine.called("settle_round")[0]["outcome"] == "replan"
    assert machine.called("settle_round")[0]["remaining"] == 2
    assert machine.parts() == before


def test_a_result_that_vanished_right_after_it_was_made_does_not_keep_the_run_going_round(
    machine: Machine, tiny: TinyPortfolio
) -> None:
    machine.run_waves("run", machine.plan("run", machine.upload(tiny), {}))
    assert machine.call("settle_round", {"run_id": "run", "round": 0})["outcome"] == "complete"
    machine.delete(machine.part_of("run", "measure group US net block 0"))
    with pytest.raises(MissingInput):
        machine.call("publish_results", {"run_id": "run"})
    settled = machine.call("settle_round", {"run_id": "run", "round": 0, "suspect": True})
    assert settled == {"outcome": "replan", "round": 1, "remaining": 1, "failed": 0}
    machine.run_waves("run", machine.call("plan_waves", {"run_id": "run", "round": 1}))
    assert machine.call("settle_round", {"run_id": "run", "round": 1})["outcome"] == "complete"
    assert "results" in machine.call("publish_results", {"run_id": "run"})


def test_an_input_of_the_portfolio_that_is_not_there_is_named_when_the_run_gives_up(
    machine: Machine, tiny: TinyPortfolio, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MAX_ROUNDS", "2")
    key = machine.upload(tiny)
    lost = content_key(elt(0.5))
    machine.delete(object_name(f"i:{lost}"))
    ended = machine.run("run", key)
    assert ended["error"] == "JobsFailed"
    assert (
        f"price_deal deal D2 block 0: input i:{lost} is not in the bucket: `riskmill upload --check` puts it back"
        in ended["cause"]
    )
    assert len(machine.called("settle_round")) == 2


# ---- batches that do not end


def test_a_killed_batch_is_planned_again_in_smaller_ones(
    machine: Machine, tiny: TinyPortfolio, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The largest batch of the first round is killed; in the next round its jobs stand in more batches."""
    sizes: dict[int, list[int]] = {}

    def before_batch(item: dict[str, Any]) -> None:
        sizes.setdefault(item["round"], []).append(item["jobs"])
        if item["round"] == 0 and item["jobs"] > 2:
            raise MemoryError("the Lambda is killed")

    machine.before_batch = before_batch
    ended = machine.run("run", machine.upload(tiny), parallelism=1)
    assert "results" in ended
    assert [settled["outcome"] for settled in machine.called("settle_round")] == ["replan", "complete"]
    assert max(sizes[1]) < max(sizes[0])


def test_further_rounds_plan_smaller_batches_until_a_job_is_alone(machine: Machine, tiny: TinyPortfolio) -> None:
    machine.plan("run", machine.upload(tiny), {"parallelism": 4, "max_batch_seconds": 30})
    rounds = [steps()._plan_settings("run", number) for number in range(5)]
    assert [one.max_batch_jobs for one in rounds] == [2000, 250, 31, 3, 1]
    assert [one.parallelism for one in rounds] == [4, 32, 256, 2048, 16384]
    assert {one.max_batch_seconds for one in rounds} == {30}


def test_outputs_of_a_batch_whose_manifest_was_lost_are_found_by_looking(machine: Machine, tiny: TinyPortfolio) -> None:
    machine.run_waves("run", machine.plan("run", machine.upload(tiny), {}))
    machine.delete(*machine.names(manifest_folder("run", 0)))
    settled = machine.call("settle_round", {"run_id": "run", "round": 0})
    assert settled == {"outcome": "complete", "round": 1, "remaining": 0, "failed": 0}


def test_a_job_whose_worker_is_killed_every_time_is_named_when_the_run_gives_up(
    machine: Machine, tiny: TinyPortfolio, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MAX_ROUNDS", "3")
    poison = ""

    def before_batch(item: dict[str, Any]) -> None:
        data = machine.get(item["object"])[item["start"] : item["end"]].decode()
        if poison in data:
            raise MemoryError("the Lambda is killed")

    key = machine.upload(tiny)
    machine.plan("look", key, {})
    graph = machine.graph("look")
    labels = [graph.label(job) for job in range(len(graph))]
    poison = f'"key":"{graph.key(labels.index("price_deal deal D3 block 0"))}"'
    machine.before_batch = before_batch
    ended = machine.run("run", key, parallelism=64, max_batch_seconds=0.001)
    assert ended["error"] == "JobsFailed"
    assert "price_deal deal D3 block 0: no attempt at this job ended: its worker was killed" in ended["cause"]
    assert len(machine.called("settle_round")) == 3
    unfinished = {job["job"]: job["status"] for job in json.loads(machine.get(unfinished_file("run")))}
    assert unfinished["price_deal deal D3 block 0"] == "failed"
    assert unfinished["measure group EU gross block 0"] == "not run"
    assert "price_deal deal D4 block 0" not in unfinished


def test_batches_out_of_time_leave_the_rest_and_the_run_names_it_when_it_gives_up(
    machine: Machine, tiny: TinyPortfolio, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MAX_ROUNDS", "2")
    machine.seconds = 5.0
    ended = machine.run("run", machine.upload(tiny))
    assert ended["error"] == "JobsFailed"
    assert "simulate_years years block 0: its batch had no time left for it" in ended["cause"]
    assert machine.parts() == {}


def test_a_batch_that_runs_out_of_time_is_finished_in_the_next_round(machine: Machine, tiny: TinyPortfolio) -> None:
    machine.seconds, machine.seconds_a_look = 60.0, 10.0
    ended = machine.run("run", machine.upload(tiny))
    assert "results" in ended
    assert machine.called("run_batch")[0] == {"done": 5, "failed": 0, "missing": 0, "left": ALL_JOBS - 5}
    settled = machine.called("settle_round")
    assert [one["outcome"] for one in settled] == ["replan"] * (len(settled) - 1) + ["complete"]
    assert len(settled) > 1


def test_a_fault_of_the_platform_ends_a_batch_without_blaming_a_job(
    machine: Machine, tiny: TinyPortfolio, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = machine.plan("run", machine.upload(tiny), {})

    def slow_down(*_: object) -> bool:
        raise TransientError("PUT: SlowDown")

    with monkeypatch.context() as patched:
        patched.setattr("riskmill.aws.objects.Bucket.put_new", slow_down)
        with pytest.raises(TransientError):
            machine.call("run_batch", machine.items("run", 0, 0)[0])
    machine.run_waves("run", plan)
    assert machine.call("settle_round", {"run_id": "run", "round": 0})["outcome"] == "complete"


def test_an_action_that_is_refused_ends_the_run_after_one_round_with_the_refusal_named(
    machine: Machine, tiny: TinyPortfolio, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fault of the deployment does not go away by planning again, and is not blamed on a killed worker."""

    def refuse(*_: object) -> bool:
        raise AccessRefused("PUT: AccessDenied")

    monkeypatch.setattr("riskmill.aws.objects.Bucket.put_new", refuse)
    plan = machine.plan("run", machine.upload(tiny), {})
    with pytest.raises(AccessRefused):
        machine.call("run_batch", machine.items("run", 0, 0)[0])
    machine.run_waves("run", plan)
    settled = machine.call("settle_round", {"run_id": "run", "round": 0})
    assert settled["outcome"] == "failed"
    ended = machine.fail("run", "JobsFailed", "")
    assert "no attempt at this job ended: AccessRefused: PUT: AccessDenied" in ended["cause"]
    assert ended["noted"] is True
    assert machine.fail("run", "FAILED", "")["noted"] is False  # EventBridge reports the same end again


# ---- cancelled runs


def test_a_cancelled_run_starts_no_batch_and_stays_cancelled(machine: Machine, tiny: TinyPortfolio) -> None:
    plan = machine.plan("run", machine.upload(tiny), {})
    control = ControlTable(machine.aws.table)
    assert control.cancel_run("run") is True
    with pytest.raises(RunCancelled):
        machine.call("run_batch", machine.items("run", 0, 0)[0])
    machine.run_waves("run", plan)
    assert machine.parts() == {}
    settled = machine.call("settle_round", {"run_id": "run", "round": 0})
    assert (settled["outcome"], settled["remaining"]) == ("replan", ALL_JOBS)
    with pytest.raises(RunCancelled):
        machine.call("plan_waves", {"run_id": "run", "round": 1})
    ended = machine.fail("run", "RunCancelled", '{"errorMessage": "run", "errorType": "RunCancelled"}')
    assert ended["error"] == "RunCancelled"
    facts = machine.facts("run")
    assert (facts["status"], facts["cancelled"], facts["demand"]) == ("CANCELLED", True, 0)
    unfinished = json.loads(machine.get(unfinished_file("run")))
    assert len(unfinished) == ALL_JOBS
    assert {job["status"] for job in unfinished} == {"not run"}


def test_a_batch_that_is_at_work_when_its_run_is_over_leaves_the_rest(
    machine: Machine, tiny: TinyPortfolio, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("riskmill.aws.steps.CHECKPOINT_SECONDS", 0.0)
    machine.plan("run", machine.upload(tiny), {})
    control = ControlTable(machine.aws.table)
    real = ControlTable.is_over
    asked: list[str] = []

    def cancel_at_the_second_look(self: ControlTable, run_id: str) -> bool:
        asked.append(run_id)
        if len(asked) == 2:
            control.cancel_run(run_id)
        return real(self, run_id)

    monkeypatch.setattr(ControlTable, "is_over", cancel_at_the_second_look)
    item = machine.items("run", 0, 0)[0]
    assert machine.call("run_batch", item) == {"done": 0, "failed": 0, "missing": 0, "left": item["jobs"]}


# ---- what the run is told


def test_a_portfolio_that_was_never_uploaded_fails_the_run_with_its_name(machine: Machine) -> None:
    with pytest.raises(PortfolioInvalid, match=f"portfolio {'0' * 32} is not in bucket"):
        machine.call("build_graph", {"run_id": "run", "portfolio": "0" * 32, "options": {}})


@pytest.mark.parametrize("run_id", ["", "a/b", "-x", "ü", "x" * 81, "a b"])
def test_a_run_id_that_cannot_name_an_execution_is_refused(machine: Machine, tiny: TinyPortfolio, run_id: str) -> None:
    with pytest.raises(RiskmillError, match="run id"):
        machine.call("build_graph", {"run_id": run_id, "portfolio": tiny.key, "options": {}})


def test_the_look_up_waits_for_the_cache_to_come_back(
    machine: Machine, tiny: TinyPortfolio, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.call("build_graph", {"run_id": "run", "portfolio": machine.upload(tiny), "options": {}})
    away = Redis(port=free_port(), retry=Retry(NoBackoff(), 0))
    with monkeypatch.context() as patched:
        patched.setattr("riskmill.aws.steps.redis_of", lambda _: away)
        with pytest.raises(TransientError, match="cache"):
            machine.call("look_up_keys", {"run_id": "run"})
    assert machine.call("look_up_keys", {"run_id": "run"}) == {"cached": 0}


def test_a_cause_is_read_out_of_nested_executions() -> None:
    lambda_cause = json.dumps({"errorMessage": "2 fault(s): x", "errorType": "PortfolioInvalid", "stackTrace": []})
    nested = json.dumps({"Status": "FAILED", "Error": "PortfolioInvalid", "Cause": lambda_cause})
    assert _innermost("States.TaskFailed", nested) == ("PortfolioInvalid", "2 fault(s): x")
    assert _innermost("PortfolioInvalid", lambda_cause) == ("PortfolioInvalid", "2 fault(s): x")
    assert _innermost("States.Timeout", "") == ("States.Timeout", "")
    assert _innermost("Lambda.Unknown", "The cause could not be determined") == (
        "Lambda.Unknown",
        "The cause could not be determined",
    )
    assert _innermost("X", "[1]") == ("X", "[1]")


def test_outputs_found_by_a_worker_reach_the_cache_by_the_queue(
    machine: Machine, tiny: TinyPortfolio, cache: Cache
) -> None:
    """The whole way of a 412: the worker's message, through SQS, to the sets."""
    key = machine.upload(tiny)
    machine.run("first", key)
    cache.flushall()
    machine.plan("second", key, {})
    machine.call("run_batch", machine.items("second", 0, 0)[0])
    messages = machine.aws.sqs.receive_message(QueueUrl=machine.aws.queue_url, MaxNumberOfMessages=10)["Messages"]
    records = [{"messageId": message["MessageId"], "body": message["Body"]} for message in messages]
    assert machine.call("index_outputs", {"Records": records}) == {"batchItemFailures": []}
    assert OutputIndex(cache).count() == len(records)


def test_a_partition_that_cannot_be_written_sends_only_its_messages_back(machine: Machine, cache: Cache) -> None:
    cache.set("outputs:{ab}", "somebody's string")
    records = [
        {"messageId": name, "body": outputs_message({object_name(f"p:{name * 16}"): time.time()})}
        for name in ("ab", "cd")
    ]
    assert machine.call("index_outputs", {"Records": records}) == {"batchItemFailures": [{"itemIdentifier": "ab"}]}
    assert cache.scard("outputs:{cd}") == 1
