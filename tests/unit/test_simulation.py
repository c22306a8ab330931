"""The simulation: the shipped scaler against the quotas, and what must hold of any run."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from riskmill import quotas
from riskmill.scaler import LAUNCHING_SECONDS
from riskmill.strategy import Wish
from riskmill_cli.main import app
from riskmill_cli.simulate import Size, invented, predict
from riskmill_cli.simulation import Assumptions, Work, launch_limit, simulate

TASKS = 400
GIVEN = Assumptions(max_tasks=TASKS, processes=1, before=0.0, after=0.0, between_waves=0.0, batch_overhead=0.0)


def busy(tasks: int = TASKS, each: int = 4, seconds: float = 300.0) -> list[list[Work]]:
    return [[Work("fargate", seconds + number % 7, 1, 1) for number in range(tasks * each)]]


def test_run_task_comes_within_a_tenth_of_the_launch_limit_and_launches_what_is_needed() -> None:
    outcome = simulate(busy(), "run-task", GIVEN)
    # the last launch may wait for one more iteration; of 145 s for 3,000 tasks that is little
    assert outcome.launched_at <= launch_limit(TASKS) + GIVEN.iteration + LAUNCHING_SECONDS
    assert outcome.tasks_launched == TASKS
    assert "Fargate launches" not in outcome.throttled


def test_no_policy_beats_the_account() -> None:
    for scaling in ("run-task", "service"):
        outcome = simulate(busy(), scaling, GIVEN)
        assert outcome.launched_at >= launch_limit(TASKS)


def test_a_service_waits_for_three_points_of_its_alarm() -> None:
    outcome = simulate(busy(), "service", GIVEN)
    assert outcome.launched_at > quotas.TRACKING_POINTS * quotas.TRACKING_PERIOD
    assert max(count for _, count in outcome.tasks) == TASKS


@pytest.mark.parametrize("size", ["standard", "large"])
def test_a_service_starts_from_nothing_for_a_single_batch(size: str) -> None:
    outcome = simulate([[Work("fargate", 60.0, size=size)]], "service", replace(GIVEN, processes=4))
    assert outcome.batches == {"fargate": 1}
    assert outcome.seconds > quotas.TRACKING_POINTS * quotas.TRACKING_PERIOD


def test_a_service_keeps_its_tasks_for_fifteen_points_of_its_alarm_after_the_last_batch() -> None:
    outcome = simulate(busy(40), "service", GIVEN)
    a_task = quotas.TRACKING_POINTS_IN * quotas.TRACKING_PERIOD
    assert outcome.idle_seconds == pytest.approx(outcome.tasks_launched * a_task, rel=0.05)


def test_all_work_is_done_in_no_less_than_its_time() -> None:
    waves = busy(40)
    outcome = simulate(waves, "run-task", replace(GIVEN, max_tasks=40))
    work = sum(w.seconds for w in waves[0])
    assert outcome.batches == {"fargate": len(waves[0])}
    assert outcome.seconds >= work / 40
    assert outcome.task_seconds >= work
    assert outcome.cost > 0


def test_idle_workers_that_stop_early_save_what_fifteen_minutes_cost() -> None:
    early = simulate(busy(), "run-task", GIVEN)
    late = simulate(busy(), "run-task", replace(GIVEN, early_stop=0.0))
    assert early.idle_seconds / early.task_seconds < 0.03
    assert late.idle_seconds == pytest.approx(TASKS * GIVEN.idle, rel=0.35)


def test_small_work_launches_few_tasks() -> None:
    outcome = simulate([[Work("fargate", 60.0) for _ in range(3)]], "run-task", GIVEN)
    assert outcome.tasks_launched == 3


def test_a_wave_of_more_batches_than_a_map_has_children_does_not_launch_for_all_of_them() -> None:
    """10,000 children keep 100 tasks of 100 processes busy, whatever waits behind them."""
    waves = [[Work("fargate", 30.0) for _ in range(12_000)]]
    outcome = simulate(waves, "run-task", replace(GIVEN, processes=100, max_tasks=400))
    assert outcome.tasks_launched == quotas.MAP_CHILDREN / 100
    assert outcome.pressure["Distributed Map's children"] > 0


def test_tasks_of_both_sizes_are_launched_for_their_own_batches() -> None:
    waves = [[Work("fargate", 60.0), Work("fargate", 60.0, size="large"), Work("fargate", 60.0, size="large")]]
    outcome = simulate(waves, "run-task", replace(GIVEN, processes=4))
    assert outcome.tasks_launched == 3
    dear = simulate(waves, "run-task", replace(GIVEN, processes=4, large_gigabytes=120.0))
    assert dear.dollars["Fargate"] > outcome.dollars["Fargate"]


def test_lambda_gains_environments_at_its_rate_and_keeps_them_warm() -> None:
    """2,500 batches at once: the first 1,000 environments start at once, the others at 100 a second."""
    waves = [[Work("lambda", 60.0) for _ in range(2_500)], [Work("lambda", 1.0) for _ in range(100)]]
    outcome = simulate(waves, "run-task", replace(GIVEN, lambda_concurrency=3_000, lambda_start=2.0))
    # 1,500 of them wait for growth, the last for 15 s less what Step Functions takes to start the children
    assert 60 + 2 + 1 + 10 < outcome.seconds < 60 + 2 + 1 + 15.1
    assert outcome.pressure["Lambda starts"] == 2_500 * 2.0


def test_cold_prefixes_of_s3_are_a_bottleneck_that_warm_ones_are_not() -> None:
    waves = [[Work("lambda", 1.0, reads=0, writes=500) for _ in range(500)]]
    warm, cold = (simulate(waves, "run-task", replace(GIVEN, s3_prefixes=n)) for n in (256, 1))
    assert warm.throttled == {}
    assert cold.bottleneck == "S3 writes"
    # 250,000 writes at 3,500 a second, the first second's at once
    assert cold.seconds - warm.seconds == pytest.approx(250_000 / quotas.S3_WRITES - 1, rel=0.01)


def test_answers_of_very_short_batches_wait_for_the_rate_of_task_callbacks() -> None:
    waves = [[Work("fargate", 0.1) for _ in range(9_000)]]
    outcome = simulate(waves, "run-task", replace(GIVEN, processes=100, max_tasks=90))
    assert outcome.throttled["Step Functions' callbacks"] > 0
    # two callbacks a batch at 500 a second, the bucket's 3,000 at once
    assert outcome.seconds > (2 * 9_000 - quotas.TASK_CALLBACK_BURST) / quotas.TASK_CALLBACK_RATE


def test_workers_stop_before_the_run_ends_when_only_lambda_has_work_left() -> None:
    waves = [[Work("fargate", 60.0)], [Work("lambda", 600.0)]]
    outcome = simulate(waves, "run-task", GIVEN)
    assert outcome.tasks[-1][1] == 0
    assert outcome.tasks[-1][0] < outcome.seconds - 400


def test_work_on_lambda_launches_no_task_and_keeps_to_its_concurrency() -> None:
    waves = [[Work("lambda", 10.0) for _ in range(100)]]
    outcome = simulate(waves, "run-task", replace(GIVEN, lambda_concurrency=10, lambda_start=0.0))
    assert (outcome.tasks_launched, outcome.batches) == (0, {"lambda": 100})
    assert outcome.seconds == pytest.approx(100.0)
    assert outcome.bottleneck == "Lambda concurrency"


@pytest.mark.parametrize("compute", ["auto", "fargate"])
def test_a_prediction_covers_every_job_of_the_plan(compute: str) -> None:
    answer = predict(
        invented(300, 200_000), wish=Wish.of({"compute": compute}), size=Size(input_bytes=1e12), given=GIVEN
    )
    outcome = answer.pop("outcome")
    assert json.loads(json.dumps(answer))["jobs"] > 600
    assert set(answer["batches"]) == {"lambda" if compute == "auto" else "fargate"}
    # 1 TB at 75 MB/s is 3.7 hours of reading
    assert answer["work_hours"] >= 3.7
    assert outcome.seconds > 0


def test_given_hours_of_work_are_the_hours_that_are_simulated() -> None:
    answer = predict(
        invented(50, 100_000), wish=Wish.of({"compute": "fargate"}), size=Size(work_hours=10.0), given=GIVEN
    )
    assert answer["work_hours"] == pytest.approx(10.0, rel=0.01)


def test_the_command_answers_with_one_json_value_and_writes_charts(tmp_path: Path) -> None:
    page = tmp_path / "charts" / "run.html"
    answer = CliRunner().invoke(
        app, ["simulate", "--deals", "60", "--trials", "100000", "--tasks", "4", "--out", str(page), "--json"]
    )
    assert answer.exit_code == 0, answer.output
    told = json.loads(answer.stdout)
    assert told["most_tasks"] <= 4
    assert told["assumptions"]["max_tasks"] == 4
    assert "tasks running" in page.read_text(encoding="utf-8")


@pytest.mark.parametrize("arguments", [["--compute", "ec2"], ["--scaling", "magic"]])
def test_a_word_that_the_command_does_not_know_is_refused(arguments: list[str]) -> None:
    answer = CliRunner().invoke(app, ["simulate", "--deals", "3", *arguments])
    assert answer.exit_code != 0
    assert arguments[1] in answer.output
