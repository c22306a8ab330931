"""The example portfolio: it is built from the record, reads without a fault, and its figures are those of a book."""

import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

FOLDER = Path(__file__).parents[2] / "examples/us_nat_cat"


@pytest.fixture(scope="module", autouse=True)
def example():
    """Make the example's scripts importable, as they are to each other when one is run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(FOLDER))
        import build
        import compare
        import nat_cat_book
        import nat_cat_market
        import nat_cat_record

        yield {
            "build": build,
            "compare": compare,
            "book": nat_cat_book,
            "market": nat_cat_market,
            "record": nat_cat_record,
        }


@pytest.fixture(scope="module")
def small(example, tmp_path_factory):
    """Build the small size once; return its folder and its book."""
    out = tmp_path_factory.mktemp("example") / "small"
    return out, example["build"].build("small", out)


@pytest.fixture(scope="module")
def figures(example, small):
    """Run the models on the small size once."""
    return example["compare"].book_figures(small[0])


def test_the_small_size_reads_without_a_fault_and_has_its_size(small):
    from riskmill_cli.portfolio_folder import read_folder

    prepared = read_folder(small[0])
    portfolio = prepared.portfolio
    assert (len(portfolio.deals), portfolio.trials) == (300, 20_000)
    assert {layer.terms.type for deal in portfolio.deals for layer in deal.layers} == {"CXL", "QS", "AXL", "SL"}
    assert len({deal.cedant for deal in portfolio.deals}) > 100
    assert {contract.terms.type for contract in portfolio.outwards} == {"CXL", "QS", "AXL"}
    whole_account = [contract for contract in portfolio.outwards if contract.terms.type == "CXL"]
    assert len({contract.priority for contract in whole_account}) == 1 < len(whole_account)


def test_building_again_gives_the_same_bytes_and_parquet_the_same_portfolio(small, tmp_path):
    from riskmill_cli.portfolio_folder import read_folder

    out, _ = small
    run = [sys.executable, str(FOLDER / "build.py"), "--size", "small", "--out"]
    subprocess.run([*run, str(tmp_path / "again")], check=True, timeout=120, capture_output=True)
    assert {file.name: file.read_bytes() for file in out.iterdir()} == {
        file.name: file.read_bytes() for file in (tmp_path / "again").iterdir()
    }
    subprocess.run([*run, str(tmp_path / "again"), "--format", "parquet"], check=True, timeout=120, capture_output=True)
    assert not list((tmp_path / "again").glob("*.csv"))
    assert read_folder(tmp_path / "again").portfolio.to_json() == read_folder(out).portfolio.to_json()


def test_the_record_has_every_event_and_only_those_above_the_threshold(example):
    record = example["record"].read_record()
    assert sum(peril.losses.size for peril in record.values()) == 376
    assert min(peril.losses.min() for peril in record.values()) >= example["record"].THRESHOLD
    assert all(peril.annual.sum() == pytest.approx(peril.losses.sum()) for peril in record.values())


def test_the_catalogue_has_the_fitted_mean_loss_and_rate_of_each_peril(example):
    market = example["build"].market_of("small")
    for number, fit in enumerate(market.fits.values()):
        its = market.of_peril(number)
        assert market.rate[its].sum() == pytest.approx(fit.rate, rel=1e-9)
        assert (market.rate[its] * market.loss[its]).sum() == pytest.approx(fit.mean_insured_loss * 1e6, rel=1e-9)
    by_state = np.zeros(market.event.size)
    for states in market.footprint:
        for event, loss in states:
            by_state[event] += loss
    assert np.allclose(by_state, market.loss, rtol=1e-12)


def test_simulated_annual_losses_agree_with_the_as_if_record_within_three_standard_errors(example):
    """Tropical cyclones too: truncated at USD 500bn, their mean comes out below the record's by 5%."""
    rows = example["compare"].compare(example["build"].market_of("small"), 20_000)
    assert [row.name for row in rows[:-1]] == [peril.replace("_", " ") for peril in example["record"].PERILS]
    for row in rows:
        assert abs(row.deviation) < 3, row.name
        # Agreement within a wide error alone would prove little: the fits are to this record.
        assert row.simulated == pytest.approx(row.as_if, rel=0.10), row.name
    recorded = {row.name: row.recorded for row in rows}
    as_if = {row.name: row.as_if for row in rows}
    assert as_if["severe storm"] > 2 * recorded["severe storm"]
    assert as_if["flood"] == pytest.approx(recorded["flood"])


def test_modelled_cedants_hold_part_of_every_market_and_none_much_of_it(example):
    market = example["build"].market_of("small")
    cedants = example["market"].make_cedants(market, example["build"].SIZES["small"].cedants)
    total = np.zeros((len(market.states.codes), len(example["record"].PERILS)))
    for cedant in cedants:
        assert 0 <= cedant.share.min() <= cedant.share.max() <= example["market"].LARGEST_SHARE
        total[cedant.states] += cedant.share
    assert 0 < total.max() <= example["market"].MODELLED_SHARE + 1e-9


def test_an_elt_keeps_every_event_that_reaches_its_cat_layers(small):
    _, book = small
    least = dict(zip(book.elt_ids, (elt["mean_loss"].min() for elt in book.elts), strict=True))
    elt_of = {deal["deal_id"]: deal["elt_id"] for deal in book.deals}
    retentions = [
        (layer["occurrence_retention"], least[elt_of[layer["deal_id"]]])
        for layer in book.layers
        if layer["type"] == "CXL"
    ]
    # Retentions are rounded to two digits, so one may lie a little below the smallest loss that is kept.
    assert all(retention >= 0.94 * loss for retention, loss in retentions)


def test_layers_of_a_tower_stand_one_above_the_other(small):
    _, book = small
    towers = {}
    for layer in book.layers:
        if layer["type"] == "CXL":
            towers.setdefault(layer["deal_id"], []).append(layer)
    stacked = [tower for tower in towers.values() if len(tower) > 1]
    assert stacked
    for tower in stacked:
        for low, high in pairwise(tower):
            top = low["occurrence_retention"] + low["occurrence_limit"]
            assert high["occurrence_retention"] >= 0.94 * top


def test_the_book_is_one_that_a_portfolio_manager_would_believe(figures):
    gross, net = figures.measures["gross"], figures.measures["net"]
    hundred = gross["return_period"].tolist().index(100)
    assert 0.40 < figures.loss_ratio < 0.75
    assert 0.02 < figures.median_attach < 0.10
    assert 0.03 < figures.median_deal_trials < 0.10
    assert 1.3 < figures.layers / figures.deals < 1.8
    assert 0.03 < figures.premium / figures.limit < 0.15
    assert 0.10 < float(gross["oep"][hundred]) / 1e6 / figures.limit < 0.40
    assert 0.4 < float(net["oep"][hundred] / gross["oep"][hundred]) < 0.9
    for kind, (_, premium, expected) in figures.by_type.items():
        assert 0.3 < expected / premium < 0.9, kind
    for contract, (premium, expected) in figures.retro.items():
        assert 0 < expected < premium, contract


def test_the_comparison_prints_as_a_markdown_table(example):
    rows = example["compare"].compare(example["build"].market_of("small"), 1_000)
    lines = example["compare"].comparison_table(rows).splitlines()
    assert len(lines) == 2 + 7 + 1
    assert {line.count("|") for line in lines} == {7}
    assert lines[-1].startswith("| all perils |")


def test_the_documented_tables_are_those_that_the_code_prints(example):
    documented = (FOLDER.parents[1] / "docs/example.md").read_text(encoding="utf-8")
    compare, fits = example["compare"], example["record"].fit_record()
    rows = compare.compare(example["build"].market_of("full"), 100_000)
    for table in (
        compare.fits_table(fits),
        compare.maximum_table(fits["tropical_cyclone"]),
        compare.comparison_table(rows),
    ):
        assert table in documented


def test_the_record_is_part_of_the_portfolio_and_covers_its_years(example, small):
    from riskmill_cli.portfolio_folder import read_folder

    records = {record.peril: record for record in read_folder(small[0]).portfolio.records}
    assert {peril: record.count for peril, record in records.items()} == {
        peril: record.losses.size for peril, record in example["record"].read_record().items()
    }
    assert {(record.first_year, record.last_year, record.threshold) for record in records.values()} == {
        (1980, 2023, 1000.0)
    }
    assert {peril: record.maximum for peril, record in records.items()} == example["record"].MAXIMUM


def test_the_full_size_has_jobs_that_the_strategy_sends_to_fargate_of_its_own_accord(example, small):
    """The bootstrapped tails are too long for Lambda's clock with margin; the fits to the record are not."""
    from riskmill.planner import PlanSettings, estimate_seconds, plan_waves
    from riskmill.rollup_graph import rollup_graph
    from riskmill.strategy import Sizes, Wish, estimate_mb, place
    from riskmill_cli.portfolio_folder import read_folder

    full = example["build"].SIZES["full"]
    portfolio = read_folder(small[0]).portfolio.model_copy(
        update={
            "trials": full.trials,
            "tail_fit_replicates": full.tail_replicates,
            "fit_replicates": full.fit_replicates,
        }
    )
    graph = rollup_graph(portfolio)
    seconds = estimate_seconds(graph, {})
    waves = plan_waves(graph, np.ones(len(graph), np.bool_), seconds, PlanSettings())
    place(waves, graph, estimate_mb(graph), Wish(), Sizes())
    on_fargate = [(graph.label(job), batch.why) for wave in waves for batch in wave for job in batch.jobs if batch.size]
    why = "longer than Lambda's 900 s with a margin of 5"
    assert sorted(on_fargate) == [
        ("fit_tail group ALL gross block 0", why),
        ("fit_tail group ALL net block 0", why),
    ]
    fits = {graph.label(job): seconds[job] for job in range(len(graph)) if graph.label(job).startswith("fit_")}
    assert all(180 < length < 300 for label, length in fits.items() if label.startswith("fit_tail"))
    assert sum(label.startswith("fit_models") for label in fits) == 7
