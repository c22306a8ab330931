"""Where a batch runs, and why: tables of estimates, wishes and sizes."""

import numpy as np
import pytest

from riskmill.errors import RiskmillError
from riskmill.graph import GraphBuilder, JobGraph
from riskmill.planner import Batch
from riskmill.strategy import BASE_MB, MB_PER_WORK, Sizes, Wish, demand_of, estimate_mb, place

SIZES = Sizes(lambda_mb=3_000, standard_mb=4_000, large_mb=30_000)


def graph_of(*models: str, work: float = 1.0) -> JobGraph:
    builder = GraphBuilder()
    elt = builder.external(f"i:{'0' * 32}")
    for number, model in enumerate(models):
        spec = builder.spec(model, 1, {"number": number})
        builder.target(str(number), builder.job(spec, [elt], subject=builder.subject(model), work=work))
    return builder.build()


def placed(seconds: float, megabytes: float, wish: Wish | None = None, model: str = "measure") -> tuple[str, str, str]:
    batch = Batch(0, [0], seconds)
    place([[batch]], graph_of(model), np.array([megabytes]), wish or Wish(), SIZES)
    return batch.target, batch.size, batch.why


@pytest.mark.parametrize(
    ("seconds", "megabytes", "target", "size", "why"),
    [
        (1, 300, "lambda", "", "fits with margin"),
        (180, 300, "lambda", "", "fits with margin"),
        (181, 300, "fargate", "standard", "longer than Lambda's 900 s with a margin of 5"),
        (1, 2_000, "lambda", "", "fits with margin"),
        (1, 2_001, "fargate", "standard", "more memory than Lambda's 3,000 MB with a margin of 1.5"),
        (1, 2_667, "fargate", "large", "more memory than Lambda's 3,000 MB with a margin of 1.5"),
    ],
)
def test_lambda_when_it_fits_with_margin_else_the_task_that_fits(
    seconds: float, megabytes: float, target: str, size: str, why: str
) -> None:
    assert placed(seconds, megabytes) == (target, size, why)


@pytest.mark.parametrize(
    ("wish", "target", "why"),
    [
        (Wish("fargate"), "fargate", "as wished for the run"),
        (Wish("lambda"), "lambda", "as wished for the run"),
        (Wish("auto", {"measure": "fargate"}), "fargate", "as wished for its model"),
        (Wish("fargate", {"measure": "lambda"}), "lambda", "as wished for its model"),
        (Wish("fargate", {"measure": "auto"}), "lambda", "fits with margin"),
        (Wish("fargate", {"allocate": "lambda"}), "fargate", "as wished for the run"),
    ],
)
def test_a_models_wish_goes_before_the_runs_and_both_before_the_estimate(wish: Wish, target: str, why: str) -> None:
    assert placed(1, 300, wish)[::2] == (target, why)


def test_a_wish_for_lambda_holds_for_a_batch_that_does_not_fit() -> None:
    assert placed(10_000, 10_000, Wish("lambda"))[0] == "lambda"


def test_a_mixed_batch_goes_where_one_of_its_models_must() -> None:
    batch = Batch(0, [0, 1], 1.0)
    wish = Wish("auto", {"measure": "lambda", "allocate": "fargate"})
    place([[batch]], graph_of("measure", "allocate"), np.array([300.0, 300.0]), wish, SIZES)
    assert batch.target == "fargate"


def test_memory_grows_with_the_work_of_models_that_hold_all_blocks() -> None:
    megabytes = estimate_mb(graph_of("measure", "roll_up", work=1e6))
    assert megabytes.tolist() == [BASE_MB + 1e6 * MB_PER_WORK["measure"], BASE_MB]


def test_demand_counts_each_waves_batches_by_size() -> None:
    waves = [
        [Batch(0, [0], 1.0, "fargate", "standard"), Batch(0, [1], 1.0, "fargate", "large"), Batch(0, [2], 1.0)],
        [Batch(1, [3], 1.0)],
    ]
    assert demand_of(waves) == [{"standard": 1, "large": 1}, {}]


@pytest.mark.parametrize("options", [{"compute": "ec2"}, {"compute_models": {"measure": "ec2"}}, {"compute_models": 3}])
def test_a_word_that_is_no_place_is_refused(options: dict[str, object]) -> None:
    with pytest.raises(RiskmillError, match="compute"):
        Wish.of(options)


def test_options_that_say_nothing_leave_it_to_the_estimate() -> None:
    assert Wish.of({}) == Wish("auto", {})
