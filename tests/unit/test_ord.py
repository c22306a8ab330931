"""ORD tables: the standard's columns exactly, and figures that agree with the summary."""

import csv
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from riskmill.aws.deployment import Deployment
from riskmill.errors import RiskmillError
from riskmill.graph import JobGraph
from riskmill.jobs import object_name
from riskmill.models import run_model
from riskmill.ord import losses_of, period_rows
from riskmill.outputs import Arrays, decode, encode
from riskmill.publish import summarise
from riskmill.results import Run, Summary
from riskmill.rollup_graph import rollup_graph
from riskmill.run_files import graph_file, portfolio_file
from riskmill_cli.ord_files import write_ord
from tiny_portfolio import TRIALS, TinyPortfolio

#: Schema/ORD_Data_Types.csv of https://github.com/OasisLMF/ODS_OpenResultsData, codes of version 1
STANDARD = {
    "ept": "SummaryId EPCalc EPType ReturnPeriod Loss",
    "alt": "SummaryId SampleType MeanLoss SDLoss",
    "psept": "SummaryId SampleId EPType ReturnPeriod Loss",
    "mplt": "Period PeriodWeight EventId Year Month Day Hour Minute SummaryId SampleType ChanceOfLoss MeanLoss SDLoss "
    "MaxLoss FootprintExposure MeanImpactedExposure MaxImpactedExposure",
    "splt": "Period PeriodWeight EventId Year Month Day Hour Minute SummaryId SampleId Loss ImpactedExposure",
}


class Objects:
    """A bucket that is a dictionary."""

    def __init__(self) -> None:
        self.held: dict[str, bytes] = {}

    def get(self, name: str) -> bytes:
        return self.held[name]

    def get_many(self, names: list[str]) -> list[bytes]:
        return [self.held[name] for name in names]


class Rolled:
    """A deployment that has rolled up the tiny portfolio, in this process."""

    def __init__(self, **changed: Any) -> None:
        tiny = TinyPortfolio()
        portfolio = tiny.portfolio.model_copy(update=changed)
        self.bucket = Objects()
        self.bucket.held |= tiny.objects
        self.graph: JobGraph = rollup_graph(portfolio)
        for number in range(len(self.graph)):
            job = self.graph.job(number)
            inputs = [decode(self.bucket.get(object_name(ref))) for ref in job.inputs]
            made = run_model(job.model, job.version, job.params, inputs)
            self.bucket.held[object_name(job.ref)] = encode(made)
        targets = {
            name: decode(self.bucket.get(object_name(f"p:{self.graph.key(int(target))}")))
            for name, target in zip(self.graph.target_names, self.graph.targets, strict=True)
        }
        run = Run(run_id="r", status="SUCCEEDED", started=datetime(2026, 1, 1, tzinfo=UTC), seconds=1, jobs=1, cached=0,
                  computed=1, failed=0, batches=1, rounds=1)  # fmt: skip
        self.of_run = summarise(portfolio, portfolio.key, targets, run)
        self.bucket.held[graph_file("r")] = self.graph.to_bytes()
        self.bucket.held[portfolio_file(portfolio.key)] = portfolio.to_json()

    def summary(self, run_id: str) -> Summary:
        return self.of_run

    def write(self, folder: Path, groups: list[str] | None = None) -> dict[str, pa.Table]:
        write_ord(cast(Deployment, self), "r", folder, groups)
        return {path.stem: pq.read_table(path) for path in folder.glob("*.parquet")}


@pytest.fixture(scope="module")
def rolled() -> Rolled:
    return Rolled()


def test_every_table_has_exactly_the_columns_of_the_standard_in_csv_and_parquet(rolled: Rolled, tmp_path: Path) -> None:
    tables = rolled.write(tmp_path)
    assert set(tables) == {"ept", "alt", "mplt", "splt", "summary_info"}
    for name, table in tables.items():
        with (tmp_path / f"{name}.csv").open() as text:
            header, *rows = csv.reader(text)
        assert header == table.column_names
        assert header == STANDARD.get(name, " ".join(header)).split()
        assert len(rows) == table.num_rows > 0
        whole = {"Period", "EventId", "Year", "SummaryId", "SampleId", "EPType", "EPCalc", "SampleType"}
        for field in table.schema:
            if name in STANDARD:
                assert (field.type == pa.int32()) == (field.name in whole | {"Month", "Day", "Hour", "Minute"})


def test_a_csv_and_a_parquet_file_hold_the_same_values(rolled: Rolled, tmp_path: Path) -> None:
    table = rolled.write(tmp_path)["mplt"]
    with (tmp_path / "mplt.csv").open() as text:
        rows = list(csv.DictReader(text))
    assert [float(row["MeanLoss"]) for row in rows] == table["MeanLoss"].to_pylist()
    assert {row["SDLoss"] for row in rows} == {""}


@pytest.mark.parametrize("table", ["mplt", "splt"])
def test_the_weighted_losses_of_a_period_table_add_up_to_the_average_loss_of_each_summary(
    rolled: Rolled, tmp_path: Path, table: str
) -> None:
    tables = rolled.write(tmp_path, ["all", "US"])
    rows = tables[table]
    loss = rows["MeanLoss" if table == "mplt" else "Loss"].to_numpy() * rows["PeriodWeight"].to_numpy()
    found = np.bincount(rows["SummaryId"].to_numpy(), loss)
    info = {row["SummaryId"]: row for row in tables["summary_info"].to_pylist()}
    means = {row["SummaryId"]: row for row in tables["alt"].to_pylist()}
    wanted = [number for number, row in info.items() if row["GroupId"] in ("all", "US")]
    assert {info[number]["Perspective"] for number in wanted} == {"gross", "ceded", "net"}
    for number in wanted:
        assert found[number] == pytest.approx(means[number]["MeanLoss"], rel=1e-9)


def test_the_yearly_sums_of_a_period_table_have_the_standard_deviation_of_the_average_loss_table(
    rolled: Rolled, tmp_path: Path
) -> None:
    tables = rolled.write(tmp_path)
    rows = tables["splt"].to_pydict()
    first = np.array(rows["SummaryId"]) == 1
    years = np.bincount(np.array(rows["Period"])[first] - 1, np.array(rows["Loss"])[first], minlength=TRIALS)
    assert years.std(ddof=1) == pytest.approx(tables["alt"].to_pylist()[0]["SDLoss"], rel=1e-6)


def test_the_exceedance_table_is_the_order_statistics_of_the_period_table(rolled: Rolled, tmp_path: Path) -> None:
    """Every row of EPT from the rows of SPLT alone: a year's largest loss or sum, rank k of N periods at N / k."""
    tables = rolled.write(tmp_path, ["all", "US"])
    rows = tables["splt"].to_pydict()
    assert min(rows["Loss"]) > 0
    years: dict[tuple[int, int], list[float]] = {}
    for summary, period, loss in zip(rows["SummaryId"], rows["Period"], rows["Loss"], strict=True):
        years.setdefault((summary, period), []).append(loss)
    compared = 0
    for row in tables["ept"].to_pylist():
        summary, ep_type = row["SummaryId"], row["EPType"]
        if summary not in rows["SummaryId"]:
            continue
        of_year = max if ep_type in (1, 2) else sum
        falling = sorted(
            (of_year(years.get((summary, period), [0.0])) for period in range(1, TRIALS + 1)), reverse=True
        )
        exceeding = TRIALS / row["ReturnPeriod"]
        whole = int(exceeding + 1e-9)
        if ep_type in (1, 3):
            wanted = falling[whole - 1]
        else:
            part = exceeding - whole if exceeding - whole > 1e-9 else 0.0
            wanted = (sum(falling[:whole]) + part * falling[whole]) / exceeding
        assert row["Loss"] == pytest.approx(wanted, rel=1e-6, abs=1e-6)
        compared += 1
    assert compared >= 4 * 6 * 10


def test_what_rounding_leaves_of_gross_less_net_is_no_ceded_loss() -> None:
    gross = Arrays({"row": np.array([0, 1, 2], np.int32), "loss": np.array([0.1 + 0.2, 5.0, 0.3])})
    net = Arrays({"row": np.array([0, 1, 2], np.int32), "loss": np.array([0.3, 2.0, 0.1 + 0.2])})
    row, loss = losses_of([gross, net], "ceded")
    assert (row.tolist(), loss.tolist()) == ([1], [3.0])


def test_means_are_sample_minus_one_and_have_no_curve_by_sample(rolled: Rolled, tmp_path: Path) -> None:
    tables = rolled.write(tmp_path)
    assert set(tables["splt"]["SampleId"].to_pylist()) == {-1}
    assert set(tables["alt"]["SampleType"].to_pylist()) == {1}
    assert "psept" not in tables


def test_sampled_losses_are_sample_one_and_their_curve_is_that_of_the_ept(rolled: Rolled, tmp_path: Path) -> None:
    sampled = Rolled(secondary_uncertainty=True, trial_year=2026)
    tables = sampled.write(tmp_path)
    assert set(tables) == {"ept", "alt", "psept", "splt", "summary_info"}
    assert tables["psept"].column_names == STANDARD["psept"].split()
    assert set(tables["splt"]["SampleId"].to_pylist()) == set(tables["psept"]["SampleId"].to_pylist()) == {1}
    assert tables["psept"]["Loss"].to_pylist() == tables["ept"]["Loss"].to_pylist()
    assert set(tables["alt"]["SampleType"].to_pylist()) == {2}
    assert set(tables["splt"]["Year"].to_pylist()) == {2026}


def test_periods_count_from_one_and_days_are_those_of_the_calendar() -> None:
    yet = Arrays(
        {
            "trial": np.array([0, 0, 4], np.int32),
            "day": np.array([0, 59, 364], np.int16),
            "event": np.array([7, 8, 9], np.int32),
        }
    )
    rows = period_rows(
        "splt",
        yet,
        np.array([0, 1, 2], np.int32),
        np.array([1.0, 2.0, 3.0]),
        first_trial=100,
        trials=1000,
        summary_id=5,
        sampled=False,
        trial_year=None,
    )
    columns = {name: None if values is None else values.tolist() for name, values in rows.items()}
    assert columns["Period"] == columns["Year"] == [101, 101, 105]
    assert columns["EventId"] == [7, 8, 9]
    dates = list(zip(columns["Month"] or (), columns["Day"] or (), strict=True))
    assert dates == [(day.month, day.day) for day in (date(2025, 1, 1), date(2025, 3, 1), date(2025, 12, 31))]
    assert columns["PeriodWeight"] == [0.001] * 3
    assert columns["ImpactedExposure"] is None


def test_a_group_that_the_run_does_not_have_and_an_output_that_expired_are_clear_errors(tmp_path: Path) -> None:
    rolled = Rolled()
    with pytest.raises(RiskmillError, match="has no group nowhere"):
        rolled.write(tmp_path, ["nowhere"])
    for name in [name for name in rolled.bucket.held if name.startswith("parts/")]:
        del rolled.bucket.held[name]
    with pytest.raises(RiskmillError, match="run the rollup again"):
        rolled.write(tmp_path)
    assert set(rolled.write(tmp_path / "without", [])) == {"ept", "alt", "summary_info"}
