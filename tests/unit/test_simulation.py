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
GIVEN = Assumptions(max_tasks=TASKS, processes=1, around=0.0)


def busy(tasks: int = TASKS, each: int = 4, seconds: float = 300.0) -> list[list[Work]]:
    return [[Work("fargate", seconds + number % 7, 1, 1) for number in range(tasks * each)]]


def test_run_task_comes_within_a_tenth_of_the_launch_limit_and_launches_what_is_needed() -> None:
    outcome = simulate(busy(), "run-task", GIVEN)
    # the last launch may wait for one more iteration; of 145 s for 3,000 tasks that is little
    assert outcome.launched_at <= launch_limit(TASKS) + GIVEN.iteration + LAUNCHING_SECONDS
    assert outcome.tasks_launched == TASKS
    assert outcome.throttles == 0


def test_no_policy_beats_the_account() -> None:
    for scaling in ("run-task", "service"):
        outcome = simulate(busy(), scaling, GIVEN)
        assert outcome.launched_at >= launch_limit(TASKS)


def test_a_service_waits_for_three_points_of_its_alarm() -> None:
    outcome = simulate(busy(), "service", GIVEN)
    assert outcome.launched_at > quotas.TRACKING_POINTS * quotas.TRACKING_PERIOD
    assert max(count for _, count in outcome.tasks) == TASKS


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
