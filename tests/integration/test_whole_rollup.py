"""Whole rollups on the embedded cloud, compared byte for byte with the same models called directly in one process."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from riskmill.portfolio import Portfolio
from riskmill.publish import summarise
from riskmill.rollup_graph import rollup_graph
from riskmill_cli.portfolio_folder import PreparedPortfolio, read_folder
from rollup_cloud import (
    SMALL_BATCHES,
    Direct,
    Ended,
    Rollups,
    fresh_seed,
    keys_of,
    labels_of,
    run_directly,
    tiny_portfolio,
    with_changed_deal,
)

#: One process at a time: these tests compare listings of the whole bucket.
pytestmark = [pytest.mark.cloud, pytest.mark.xdist_group("cloud")]

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "us_nat_cat"

#: What a run enters that finds everything cached.
NOTHING_TO_DO = ["Begin", "MergeInput", "MergeOptions", "Plan", "AnythingToRun", "Publish", "Succeeded"]


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> PreparedPortfolio:
    """The small example, built by its own script, with a seed that no other test of the session has rolled up."""
    folder = tmp_path_factory.mktemp("example")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(EXAMPLE)
        _module(EXAMPLE / "build.py").build("small", folder)
    prepared = read_folder(folder)
    document = prepared.portfolio.model_copy(update={"seed": fresh_seed()}).to_json()
    return PreparedPortfolio(Portfolio.from_json(document), prepared.objects)


def _module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"example_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def direct(example: PreparedPortfolio) -> Direct:
    """The example's models called in this process."""
    return run_directly(example)


@pytest.fixture(scope="module")
def first(rollups: Rollups, example: PreparedPortfolio) -> tuple[Ended, set[str]]:
    """The first rollup of the example, and the keys of the outputs that it added to the bucket."""
    before = rollups.output_keys()
    ended = rollups.roll_up(example)
    return ended, rollups.output_keys() - before


def test_a_whole_rollup_makes_exactly_the_outputs_of_its_graph_byte_for_byte(
    rollups: Rollups, first: tuple[Ended, set[str]], direct: Direct
) -> None:
    """What the machine leaves below parts/ is what the models give in one process, nothing more and nothing less."""
    ended, added = first
    assert (ended.status, ended.run["status"]) == ("SUCCEEDED", "SUCCEEDED")
    assert added == keys_of(direct.graph)
    assert rollups.outputs(added) == direct.outputs
    assert (ended.run["jobs"], ended.run["computed"], ended.run["cached"]) == (len(direct.graph), len(direct.graph), 0)


def test_the_published_summary_is_that_of_the_direct_outputs(
    rollups: Rollups, first: tuple[Ended, set[str]], direct: Direct
) -> None:
    """Figures, names and facts in results/summary.json follow from the models' outputs alone."""
    published = rollups.deployment.summary(first[0].run["run_id"])
    assert published == summarise(direct.portfolio, direct.portfolio.key, direct.targets, published.run)
    assert published.run.jobs == len(direct.graph)
    assert published.run.compute == {"lambda": len(direct.graph)}
    assert len(published.deals) == len(direct.portfolio.deals)


def test_a_second_rollup_computes_nothing_and_ends_in_a_few_states(
    rollups: Rollups, first: tuple[Ended, set[str]], example: PreparedPortfolio
) -> None:
    """Everything is cached: no wave, no batch, no settling, and the same results."""
    before = rollups.output_keys()
    again = rollups.roll_up(example)
    assert again.status == "SUCCEEDED"
    assert again.states == NOTHING_TO_DO
    assert (again.run["to_run"], again.run["cached"], again.batches) == (0, first[0].run["jobs"], [])
    assert rollups.output_keys() == before
    results = [rollups.deployment.summary(ended.run["run_id"]) for ended in (first[0], again)]
    assert results[0].model_copy(update={"run": results[1].run}) == results[1]


def test_after_one_deal_changed_the_example_computes_exactly_the_keys_that_differ(
    rollups: Rollups, first: tuple[Ended, set[str]], example: PreparedPortfolio, direct: Direct
) -> None:
    """New outputs are the graph's keys less the old graph's; each of them is on the changed deal's path."""
    deal = example.portfolio.deals[123].deal_id
    changed = with_changed_deal(example, deal)
    graph = rollup_graph(changed.portfolio)
    expected = keys_of(graph) - keys_of(direct.graph)

    before = rollups.output_keys()
    ended = rollups.roll_up(changed)
    assert ended.status == "SUCCEEDED"
    assert rollups.output_keys() - before == expected
    assert ended.run["to_run"] == ended.run["computed"] == len(expected)
    assert ended.run["cached"] == len(graph) - len(expected)

    # the same, said without keys: of the deals only this one, of the groups only those above it
    labels = labels_of(graph, expected)
    assert {label for label in labels if label.startswith("price_deal")} == {f"price_deal deal {deal} block 0"}
    assert not any(label.startswith("simulate_years") for label in labels)
    above = _groups_above(example, deal)
    measured = {label.split(" group ")[1].split(" ")[0] for label in labels if label.startswith("measure")}
    assert measured == above
    assert len([label for label in labels if label.startswith("roll_up bucket")]) >= 1
    leaves = {graph.label(job) for job in range(len(graph)) if graph.label(job).startswith("allocate")}
    assert {label for label in labels if label.startswith("allocate")} == leaves


def _groups_above(prepared: PreparedPortfolio, deal: str) -> set[str]:
    above = {group.group_id for group in prepared.portfolio.groups if deal in group.deals}
    while more := {g.group_id for g in prepared.portfolio.groups if above.intersection(g.groups)} - above:
        above |= more
    return above


def test_a_changed_deals_path_is_the_deal_what_sums_it_what_covers_it_and_what_is_measured_of_those(
    rollups: Rollups,
) -> None:
    """Every job of the path is named here. D03 is in group south, in two blocks of trials; of north only the shares
    of the tails are computed again (and what outwards contracts leave of them), since their years are the whole's."""
    before = tiny_portfolio(seed=fresh_seed(), trials=100_500)
    after = with_changed_deal(before, "D03")
    assert rollups.roll_up(before).status == "SUCCEEDED"

    there = rollups.output_keys()
    ended = rollups.roll_up(after)
    assert ended.status == "SUCCEEDED"
    assert labels_of(rollup_graph(after.portfolio), rollups.output_keys() - there) == {
        "price_deal deal D03 block 0",
        "price_deal deal D03 block 1",
        "roll_up bucket group south/ block 0",
        "roll_up bucket group south/ block 1",
        "roll_up group all block 0",
        "roll_up group all block 1",
        "apply_retro outwards R-south block 0",
        "apply_retro outwards R-south block 1",
        "roll_up group all before its outwards block 0",
        "roll_up group all before its outwards block 1",
        "apply_retro outwards R-all-1 block 0",
        "apply_retro outwards R-all-1 block 1",
        "apply_retro outwards R-all-2 block 0",
        "apply_retro outwards R-all-2 block 1",
        "measure group south gross block 0",
        "measure group south net block 0",
        "measure group south ceded block 0",
        "measure group all gross block 0",
        "measure group all net block 0",
        "measure group all ceded block 0",
        "compare_groups groups north to south block 0",
        "retained tail after 2 sets of outwards contracts block 0",
        "retained tail after 2 sets of outwards contracts block 1",
        "retained tail after 3 sets of outwards contracts block 0",
        "retained tail after 3 sets of outwards contracts block 1",
        "allocate bucket group north/ block 0",
        "allocate bucket group south/ block 0",
        "tabulate_deals deals of the portfolio block 0",
    }


@pytest.mark.parametrize(
    ("options", "batches"),
    [
        pytest.param({"parallelism": 1, "max_concurrency": 1, "max_batch_seconds": 60}, "few", id="one worker"),
        pytest.param({"parallelism": 64, "max_concurrency": 8} | SMALL_BATCHES, "many", id="a batch a job"),
    ],
)
def test_outputs_do_not_depend_on_how_the_work_was_cut(
    rollups: Rollups, options: dict[str, float], batches: str
) -> None:
    """One worker with everything in one batch, or eight with a job or two each: the same bytes."""
    prepared = tiny_portfolio(seed=fresh_seed(), deals=12, trials=100_500)
    expected = run_directly(prepared)
    ended = rollups.roll_up(prepared, **options)
    assert ended.status == "SUCCEEDED"
    assert (len(ended.batches) <= 4) == (batches == "few")
    assert rollups.outputs(keys_of(expected.graph)) == expected.outputs
