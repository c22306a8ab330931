"""The shipped state machines on the embedded cloud: what happens when something goes wrong.

Every fault is a real one: an object is deleted, a worker is killed, a function has no concurrency left.
"""

import contextlib
import json
import time
import uuid
from collections.abc import Iterator

import psutil
import pytest

from riskmill.errors import RiskmillError
from riskmill.graph import JobGraph
from riskmill.jobs import object_name
from riskmill.portfolio import Portfolio
from riskmill.publish import summarise
from riskmill.rollup_graph import rollup_graph
from riskmill_cli.portfolio_folder import PreparedPortfolio
from rollup_cloud import (
    SMALL_BATCHES,
    Rollups,
    fresh_seed,
    keys_called,
    keys_of,
    labels_of,
    run_directly,
    tiny_portfolio,
    wait_until,
    with_changed_deal,
)

#: One process at a time: these tests change functions that all of them use.
pytestmark = [pytest.mark.cloud, pytest.mark.xdist_group("cloud")]

PLAN = ["Begin", "MergeInput", "MergeOptions", "Plan", "AnythingToRun"]
WAVE = ["NextWave", "RunWave", "WaveDone"]

#: Deals of a portfolio whose one batch is at work long enough (about a second or more) to have something happen to it.
MANY = 150


@contextlib.contextmanager
def configured(rollups: Rollups, function: str, **changes: int) -> Iterator[None]:
    """A function with another configuration for as long as this lasts."""
    before = rollups.lambda_client.get_function_configuration(FunctionName=function)
    rollups.lambda_client.update_function_configuration(FunctionName=function, **changes)
    try:
        yield
    finally:
        rollups.lambda_client.update_function_configuration(
            FunctionName=function, **{name: before[name] for name in changes}
        )


def test_a_failing_job_fails_alone_and_the_run_ends_with_its_name(rollups: Rollups) -> None:
    """D02's losses are not what a model can read: every job that does not need them is done, none is tried again, and
    the execution, the control table and unfinished.json say which job failed and why."""
    prepared = tiny_portfolio(seed=fresh_seed())
    expected = run_directly(prepared)
    key = rollups.upload(prepared)
    elt = object_name(f"i:{prepared.portfolio.deals[2].elt}")
    intact = rollups.bucket.get(elt)
    rollups.bucket.put(elt, b"\x00 not what was uploaded")
    try:
        restart_workers(rollups)  # the deals are the same in every test: a worker may hold the losses in memory
        ended = rollups.finish(rollups.start(key))
    finally:
        rollups.bucket.put(elt, intact)

    name = "price_deal deal D02 block 0"
    assert (ended.status, ended.error) == ("FAILED", "JobsFailed")
    assert ended.cause.startswith(f"{name}: price_deal version 1: ModelError: not a safetensors object")
    assert (ended.run["status"], ended.run["failed"], ended.run["error"]) == ("FAILED", 1, ended.cause)
    # north's bucket and sum are blocked, and all that needs north; south, its cover and its measures are done
    blocked = {
        "roll_up bucket group north/ block 0",
        "roll_up group all block 0",
        "roll_up group all before its outwards block 0",
        "apply_retro outwards R-all-1 block 0",
        "apply_retro outwards R-all-2 block 0",
        "measure group north gross block 0",
        "measure group all gross block 0",
        "measure group all net block 0",
        "measure group all ceded block 0",
        "compare_groups groups north to south block 0",
        "retained tail after 2 sets of outwards contracts block 0",
        "retained tail after 3 sets of outwards contracts block 0",
        "allocate bucket group north/ block 0",
        "allocate bucket group south/ block 0",
        "tabulate_deals deals of the portfolio block 0",
    }
    unfinished = rollups.deployment.unfinished(ended.run["run_id"])
    assert {job["job"]: job["status"] for job in unfinished} == {name: "failed"} | dict.fromkeys(
        blocked, "blocked by a failed input"
    )
    assert [job["error"] for job in unfinished if "error" in job] == [ended.cause.partition(": ")[2]]
    done = keys_of(expected.graph) - {job["key"] for job in unfinished}
    assert ended.run["computed"] == len(done) == len(expected.graph) - 1 - len(blocked)
    assert rollups.outputs(done) == {key: expected.outputs[key] for key in done}
    assert rollups.output_keys().isdisjoint(job["key"] for job in unfinished)
    # not retried: neither by the machine nor in another round
    assert {batch["attempts"] for batch in ended.batches} == {1}
    assert ended.states == [*PLAN, *WAVE * ended.states.count("RunWave"), "NextWave", "Settle", "Settled", "JobsFailed",
                            "RecordFailure", "Failed"]  # fmt: skip


def test_a_throttled_batch_is_tried_again_until_there_is_concurrency(rollups: Rollups) -> None:
    """Reserved concurrency 0 for some seconds throttles every invocation: the run waits and then succeeds."""
    function = rollups.function("RunBatchFunction")
    before = rollups.lambda_client.get_function_concurrency(FunctionName=function).get("ReservedConcurrentExecutions")
    prepared = tiny_portfolio(seed=fresh_seed())
    key = rollups.upload(prepared)
    rollups.lambda_client.put_function_concurrency(FunctionName=function, ReservedConcurrentExecutions=0)
    try:
        run_id = rollups.start(key)
        wait_until(lambda: bool(rollups.batch_tasks(run_id)), "a batch is throttled")
        assert rollups.control.batches(run_id) == []
    finally:
        rollups.lambda_client.put_function_concurrency(FunctionName=function, ReservedConcurrentExecutions=before)
    ended = rollups.finish(run_id)
    assert ended.status == "SUCCEEDED"
    assert ended.rounds == 1
    tasks = rollups.batch_tasks(run_id)
    assert set(tasks) == {"Lambda.TooManyRequestsException", "succeeded"}
    assert tasks.count("succeeded") == len(ended.batches)
    # throttled invocations never began, so they are no attempts
    assert {batch["attempts"] for batch in ended.batches} == {1}


def test_a_batch_that_runs_out_of_time_hands_back_what_is_left(rollups: Rollups) -> None:
    """With a second to work in, and a worker that stood still for longer, the batch stops early and in good order; the
    next round does the rest, same bytes."""
    prepared = tiny_portfolio(seed=fresh_seed(), deals=MANY, trials=20_000)
    expected = run_directly(prepared)
    function = rollups.function("RunBatchFunction")
    with configured(rollups, function, Timeout=11):  # ten of them are the batch's reserve
        run_id = rollups.start(rollups.upload(prepared), parallelism=1)
        wait_for_deals(rollups, run_id, expected.graph)
        workers = rollups.workers(function)
        for worker in workers:
            worker.suspend()
        time.sleep(1.2)
        for worker in workers:
            worker.resume()
        ended = rollups.finish(run_id)
    assert ended.status == "SUCCEEDED"
    assert ended.rounds > 1
    manifests = rollups.manifests(run_id)
    assert any(m["left"] and m["done"] for m in manifests if m["batch_id"].startswith("r0-"))
    # no job was computed twice: what a round left, and nothing else, went to the next
    done = [key for manifest in manifests for key in manifest["done"]]
    assert len(done) == len(set(done)) == len(expected.graph)
    assert {batch["attempts"] for batch in ended.batches} == {1}
    assert rollups.outputs(keys_of(expected.graph)) == expected.outputs


def test_a_result_that_vanished_from_under_the_cache_is_made_again(rollups: Rollups) -> None:
    """The cache promises all results, S3 lost one: Publish notices, the run plans that one job, and publishes."""
    prepared = tiny_portfolio(seed=fresh_seed())
    expected = run_directly(prepared)
    assert rollups.roll_up(prepared).status == "SUCCEEDED"
    (lost,) = keys_called(expected.graph, "measure group all net")
    rollups.delete(f"p:{lost}")

    ended = rollups.roll_up(prepared)
    assert ended.status == "SUCCEEDED"
    assert ended.states == [*PLAN, "Publish", "ResultVanished", "Settle", "Settled", "PlanAgain", *WAVE, "NextWave",
                            "Settle", "Settled", "Publish", "Succeeded"]  # fmt: skip
    assert [list(manifest["done"]) for manifest in rollups.manifests(ended.run["run_id"])] == [[lost]]
    assert rollups.outputs({lost}) == {lost: expected.outputs[lost]}
    assert rollups.cached({lost}) == {lost}


def test_a_whole_subtree_that_vanished_heals_in_one_extra_round(rollups: Rollups) -> None:
    """D03 of south changes, but north's sum, its deals and the year-event table are gone: the first job that misses one
    makes Settle look at all of them, and one more round makes them and what waited for them."""
    before = tiny_portfolio(seed=fresh_seed())
    after = with_changed_deal(before, "D03")
    expected = run_directly(after)
    assert rollups.roll_up(before).status == "SUCCEEDED"
    subtree = set(
        keys_called(
            expected.graph,
            "simulate_years years",
            "price_deal deal D00",
            "price_deal deal D02",
            "price_deal deal D04",
            "roll_up bucket group north/",
        )
    )
    restart_workers(rollups)  # else they may still hold some of it in memory, and rightly use it
    rollups.delete(*(f"p:{key}" for key in subtree))

    ended = rollups.roll_up(after)
    assert ended.status == "SUCCEEDED"
    assert ended.rounds == 2
    assert ended.states.count("PlanAgain") == 1
    manifests = rollups.manifests(ended.run["run_id"])
    again = {key for m in manifests if m["batch_id"].startswith("r1-") for key in m["done"]}
    assert subtree <= again
    assert {key for manifest in manifests for key in manifest["done"]} == subtree | (
        keys_of(expected.graph) - keys_of(rollup_graph(before.portfolio))
    )
    assert rollups.outputs(keys_of(expected.graph)) == expected.outputs
    assert rollups.cached(keys_of(expected.graph)) == keys_of(expected.graph)


def restart_workers(rollups: Rollups) -> None:
    """End the idle workers of run_batch, so that the next batch begins with nothing in memory."""
    workers = rollups.workers(rollups.function("RunBatchFunction"))
    for worker in workers:
        worker.kill()
    psutil.wait_procs(workers, timeout=5)


def wait_for_deals(rollups: Rollups, run_id: str, graph: JobGraph) -> None:
    """Wait until the first deals of a run are priced: its one batch is in the middle of its work."""
    rollups.wait_for_batch(run_id)
    some = [object_name(f"p:{key}") for key in keys_called(graph, "price_deal")[:20]]
    wait_until(lambda: len(rollups.bucket.missing(some)) < len(some), "the first deals are priced", every=0.005)


def test_a_worker_killed_in_the_middle_of_its_batch_costs_a_round_and_changes_no_byte(rollups: Rollups) -> None:
    """SIGKILL leaves no manifest: Settle looks at what the batch wrote, and the next round makes the rest."""
    prepared = tiny_portfolio(seed=fresh_seed(), deals=MANY, trials=20_000)
    expected = run_directly(prepared)
    function = rollups.function("RunBatchFunction")
    run_id = rollups.start(rollups.upload(prepared), parallelism=1)
    wait_for_deals(rollups, run_id, expected.graph)
    (at_work,) = [batch["batch_id"] for batch in rollups.control.batches(run_id) if "seconds" not in batch]
    for worker in rollups.workers(function):
        worker.kill()

    ended = rollups.finish(run_id)
    assert ended.status == "SUCCEEDED"
    assert ended.rounds == 2
    assert at_work not in {manifest["batch_id"] for manifest in rollups.manifests(run_id)}
    assert [task for task in rollups.batch_tasks(run_id) if task != "succeeded"] == ["Runtime.ExitError"]
    assert rollups.outputs(keys_of(expected.graph)) == expected.outputs
    # what it wrote before it died was not computed again, only looked up
    done = [key for manifest in rollups.manifests(run_id) for key in manifest["done"]]
    assert len(done) == len(set(done)) < len(expected.graph)


def test_a_cache_flushed_during_a_run_costs_nothing_but_what_it_held(rollups: Rollups) -> None:
    """The run never waits for the cache; what it makes is indexed at its end, so the next run computes nothing."""
    prepared = tiny_portfolio(seed=fresh_seed(), deals=MANY, trials=20_000)
    run_id = rollups.start(rollups.upload(prepared))
    rollups.wait_for_batch(run_id)
    rollups.redis.flushall()

    ended = rollups.finish(run_id)
    assert (ended.status, ended.rounds) == ("SUCCEEDED", 1)
    again = rollups.roll_up(prepared)
    assert (again.status, again.run["to_run"]) == ("SUCCEEDED", 0)


def test_outputs_that_only_the_cache_forgot_are_found_and_not_written_again(rollups: Rollups) -> None:
    """After a flush all is computed again, S3 answers 412 to every write, and the objects stay what they were."""
    prepared = tiny_portfolio(seed=fresh_seed())
    keys = keys_of(rollup_graph(prepared.portfolio))
    assert rollups.roll_up(prepared).status == "SUCCEEDED"
    written = {entry["Key"]: entry["LastModified"] for entry in entries(rollups, keys)}
    rollups.redis.flushall()

    ended = rollups.roll_up(prepared)
    assert (ended.status, ended.rounds) == ("SUCCEEDED", 1)
    found = {key for manifest in rollups.manifests(ended.run["run_id"]) for key in manifest["found"]}
    assert found == keys
    assert {entry["Key"]: entry["LastModified"] for entry in entries(rollups, keys)} == written
    wait_until(
        lambda: rollups.cached(keys) == keys, "what was found is indexed by the workers' own messages", seconds=30
    )


def entries(rollups: Rollups, keys: set[str]) -> list[dict[str, object]]:
    """What S3 lists of these outputs."""
    names = {object_name(f"p:{key}") for key in keys}
    pages = rollups.cloud.client("s3").get_paginator("list_objects_v2")
    listed = pages.paginate(Bucket=rollups.bucket.name, Prefix="parts/")
    return [entry for page in listed for entry in page.get("Contents", []) if entry["Key"] in names]


def test_a_portfolio_that_is_not_there_fails_at_once_with_one_clear_cause(rollups: Rollups) -> None:
    """No retry, no wave: the machine says what is missing and what to do, and so does the control table."""
    begun = time.monotonic()
    ended = rollups.finish(rollups.start("0" * 32))
    assert time.monotonic() - begun < 15
    missing = f"portfolio {'0' * 32} is not in bucket {rollups.bucket.name}: upload it first"
    said = f"PortfolioInvalid: 1 fault(s): {missing}"
    assert (ended.status, ended.error, ended.cause) == ("FAILED", "PortfolioInvalid", said)
    assert (ended.run["status"], ended.run["error"]) == ("FAILED", said)
    assert ended.states == ["Begin", "MergeInput", "MergeOptions", "Plan", "RecordFailure", "Failed"]


def test_one_portfolio_runs_with_and_without_secondary_uncertainty_as_the_run_says(rollups: Rollups) -> None:
    """The option alone decides, the outputs are those of a portfolio that says the same, and a third run finds them."""
    prepared = tiny_portfolio(seed=fresh_seed())
    document = prepared.portfolio.model_copy(update={"secondary_uncertainty": True}).to_json()
    means = run_directly(prepared)
    sampled = run_directly(PreparedPortfolio(Portfolio.from_json(document), prepared.objects))
    key = rollups.upload(prepared)
    for option, expected, calc in (("on", sampled, 2), ("off", means, 1)):
        ended = rollups.finish(rollups.start(key, secondary_uncertainty=option))
        assert (ended.status, ended.run["computed"] > 0) == ("SUCCEEDED", True)
        assert rollups.outputs(keys_of(expected.graph)) == expected.outputs
        published = rollups.deployment.summary(ended.run["run_id"])
        assert (published.portfolio.key, published.ep_calc) == (key, calc)
        assert published.run.secondary_uncertainty is (option == "on")
        assert published == summarise(expected.portfolio, key, expected.targets, published.run)
    again = rollups.finish(rollups.start(key, secondary_uncertainty="on"))
    assert (again.status, again.run["to_run"], again.run["cached"]) == ("SUCCEEDED", 0, len(sampled.graph))
    refused = rollups.finish(rollups.start(key, secondary_uncertainty="perhaps"))
    assert (refused.status, refused.error) == ("FAILED", "RiskmillError")
    assert "option secondary_uncertainty is 'perhaps': one of on, off" in refused.cause


def test_an_execution_started_by_hand_needs_no_options_and_no_name(rollups: Rollups) -> None:
    """As from the console: the portfolio's key alone; the execution's generated name is the run id."""
    prepared = tiny_portfolio(seed=fresh_seed())
    started = rollups.states_client.start_execution(
        stateMachineArn=rollups.cloud.outputs["RiskRollupArn"],
        input=json.dumps({"portfolio": rollups.upload(prepared)}),
    )
    run_id = started["executionArn"].rpartition(":")[2]
    ended = rollups.finish(run_id)
    assert (ended.status, ended.run["status"]) == ("SUCCEEDED", "SUCCEEDED")
    assert ended.run["computed"] == len(rollup_graph(prepared.portfolio))
    assert rollups.deployment.summary(run_id).run.run_id == run_id


def test_an_execution_started_by_hand_without_a_portfolio_says_so(rollups: Rollups) -> None:
    """An empty input is refused with a cause that a person understands."""
    name = f"t-{uuid.uuid4().hex[:12]}"
    rollups.states_client.start_execution(
        stateMachineArn=rollups.cloud.outputs["RiskRollupArn"], name=name, input=json.dumps({})
    )
    ended = rollups.finish(name)
    assert (ended.status, ended.error) == ("FAILED", "PortfolioInvalid")
    assert "portfolio" in ended.cause


def test_a_run_whose_portfolio_lost_an_input_gives_up_after_its_rounds_and_names_the_jobs(rollups: Rollups) -> None:
    """No round can make an uploaded object: after the last one the run fails and says which deal needs which object."""
    prepared = tiny_portfolio(seed=fresh_seed())
    key = rollups.upload(prepared)
    elt = f"i:{prepared.portfolio.deals[1].elt}"
    restart_workers(rollups)
    rollups.delete(elt)
    try:
        ended = rollups.finish(rollups.start(key, max_rounds=2))
    finally:
        rollups.bucket.put(object_name(elt), prepared.objects[elt[2:]])

    job = "price_deal deal D01 block 0"
    assert (ended.status, ended.error, ended.rounds) == ("FAILED", "JobsFailed", 2)
    assert ended.cause == f"{job}: input {elt} is not in the bucket: `riskmill upload --check` puts it back"
    unfinished = {job["job"]: job["status"] for job in rollups.deployment.unfinished(ended.run["run_id"])}
    assert unfinished[job] == "failed"
    assert "price_deal deal D03 block 0" not in unfinished
    assert "measure group south gross block 0" in unfinished


def test_a_run_without_a_round_left_names_the_job_that_it_could_not_make_again(rollups: Rollups) -> None:
    """A vanished result in a run of one round only: the run says which one, instead of publishing a gap."""
    prepared = tiny_portfolio(seed=fresh_seed())
    assert rollups.roll_up(prepared).status == "SUCCEEDED"
    (lost,) = keys_called(rollup_graph(prepared.portfolio), "measure group all ceded")
    rollups.delete(f"p:{lost}")

    ended = rollups.roll_up(prepared, max_rounds=1)
    assert (ended.status, ended.error) == ("FAILED", "JobsFailed")
    assert ended.cause.startswith("measure group all ceded block 0: ")
    assert [job["key"] for job in rollups.deployment.unfinished(ended.run["run_id"])] == [lost]
    # the cache no longer promises it, so the next run needs no second look
    healed = rollups.roll_up(prepared)
    assert (healed.status, healed.run["to_run"], healed.states.count("ResultVanished")) == ("SUCCEEDED", 1, 0)


def test_a_full_cache_does_not_fail_a_run(rollups: Rollups) -> None:
    """The look-up only reads, and what cannot be indexed now is indexed by its own message later."""
    prepared = tiny_portfolio(seed=fresh_seed())
    key = rollups.upload(prepared)
    rollups.redis.config_set("maxmemory", 1)
    try:
        ended = rollups.finish(rollups.start(key))
    finally:
        rollups.redis.config_set("maxmemory", 0)
    assert (ended.status, ended.rounds) == ("SUCCEEDED", 1)


def test_two_rollups_of_one_portfolio_at_once_both_succeed_with_the_same_bytes(rollups: Rollups) -> None:
    """Neither knows of the other: an output that the other wrote first counts as done."""
    prepared = tiny_portfolio(seed=fresh_seed(), deals=30)
    expected = run_directly(prepared)
    key = rollups.upload(prepared)
    both = [rollups.finish(run_id) for run_id in [rollups.start(key, **SMALL_BATCHES) for _ in range(2)]]
    assert [ended.status for ended in both] == ["SUCCEEDED", "SUCCEEDED"]
    assert rollups.outputs(keys_of(expected.graph)) == expected.outputs
    results = [rollups.deployment.summary(ended.run["run_id"]) for ended in both]
    assert results[0].model_copy(update={"run": results[1].run}) == results[1]


def test_a_run_id_names_one_run(rollups: Rollups) -> None:
    """A second start under a run's id is refused, and the run goes on as if nothing had been."""
    prepared = tiny_portfolio(seed=fresh_seed())
    key = rollups.upload(prepared)
    run_id = rollups.start(key)
    with pytest.raises(RiskmillError, match=f"run id {run_id} is taken"):
        rollups.deployment.start(run_id, key, {"parallelism": 1})
    assert rollups.finish(run_id).status == "SUCCEEDED"


def test_a_run_can_be_cancelled_before_it_has_noted_itself(rollups: Rollups) -> None:
    """Somebody who stops a run in its first second stops it, not just the command that started it."""
    prepared = tiny_portfolio(seed=fresh_seed(), deals=MANY)
    keys = keys_of(rollup_graph(prepared.portfolio))
    run_id = rollups.start(rollups.upload(prepared))
    rollups.deployment.cancel(run_id)
    assert rollups.deployment.execution(run_id)[0] == "ABORTED"
    assert rollups.control.run(run_id)["status"] == "CANCELLED"
    time.sleep(2)
    assert rollups.control.run(run_id)["status"] == "CANCELLED"
    assert rollups.output_keys().isdisjoint(keys)


def test_cancelling_does_not_wait_for_a_batch_whose_worker_died_in_an_earlier_round(rollups: Rollups) -> None:
    """Such a batch never notes its end; only the wave at work can still have one that does."""
    run_id = f"t-{uuid.uuid4().hex[:12]}"
    rollups.control.begin_run(run_id, portfolio="0" * 32, jobs=1, options={})
    rollups.control.begin_batch(run_id, "r0-w0-b0", round=0, wave=0, jobs=1, where="lambda")
    rollups.control.begin_batch(run_id, "r1-w0-b0", round=1, wave=0, jobs=1, where="lambda")
    rollups.control.end_batch(run_id, "r1-w0-b0", done=1, seconds=0.1)
    begun = time.monotonic()
    assert rollups.deployment.cancel(run_id) == []
    assert time.monotonic() - begun < 5


def test_an_execution_that_somebody_stopped_is_noted_though_nobody_watches_it(rollups: Rollups) -> None:
    """Stopped from the console the machine cannot note its own end: a rule has it done, with what was left."""
    prepared = tiny_portfolio(seed=fresh_seed(), deals=MANY, trials=20_000)
    run_id = rollups.start(rollups.upload(prepared), max_concurrency=1, **SMALL_BATCHES)
    rollups.wait_for_batch(run_id)
    rollups.states_client.stop_execution(
        executionArn=rollups.execution_arn(run_id), error="Mine", cause="wrong portfolio"
    )
    wait_until(lambda: rollups.control.run(run_id)["status"] != "RUNNING", "the run's end is noted", seconds=30)
    run = rollups.control.run(run_id)
    assert (run["status"], run["demand"]) == ("FAILED", 0)
    assert run["error"] == "ABORTED: its execution ended from outside: stopped, timed out or failed"
    assert rollups.deployment.unfinished(run_id)


def test_a_cancelled_run_stops_working_lists_what_it_left_and_a_later_one_finishes_it(rollups: Rollups) -> None:
    """Cancel flags the run, stops its execution and drains its batches; nothing of it works afterwards, and a rollup of
    the same portfolio computes what is missing and nothing else."""
    prepared = tiny_portfolio(seed=fresh_seed(), deals=MANY, trials=20_000)
    expected = run_directly(prepared)
    keys = keys_of(expected.graph)
    run_id = rollups.start(rollups.upload(prepared), max_concurrency=1, **SMALL_BATCHES)
    wait_until(lambda: len(rollups.control.batches(run_id)) > 3, "some batches have begun", seconds=60)
    unfinished = rollups.deployment.cancel(run_id)

    assert rollups.deployment.execution(run_id)[0] == "ABORTED"
    run = rollups.control.run(run_id)
    assert (run["status"], run["cancelled"], run["demand"], run["unfinished"]) == (
        "CANCELLED",
        True,
        0,
        len(unfinished),
    )
    with pytest.raises(RiskmillError, match="has ended: CANCELLED"):
        rollups.deployment.cancel(run_id)
    batches = rollups.control.batches(run_id)
    assert all("seconds" in batch for batch in batches)
    assert rollups.deployment.unfinished(run_id) == unfinished
    assert {job["status"] for job in unfinished} == {"not run"}
    made = {key for manifest in rollups.manifests(run_id) for key in manifest["done"]}
    assert made
    assert keys - made >= {job["key"] for job in unfinished}

    there = rollups.output_keys() & keys
    time.sleep(2)
    assert rollups.output_keys() & keys == there
    assert rollups.control.batches(run_id) == batches
    assert rollups.deployment.execution(run_id)[0] == "ABORTED"

    wait_until(lambda: rollups.cached(there) == there, "S3's events are indexed")
    ended = rollups.roll_up(prepared)
    assert ended.status == "SUCCEEDED"
    computed = {key for manifest in rollups.manifests(ended.run["run_id"]) for key in manifest["done"]}
    assert computed.isdisjoint(there)
    assert rollups.outputs(keys) == expected.outputs
    assert labels_of(expected.graph, computed) <= {job["job"] for job in unfinished}
