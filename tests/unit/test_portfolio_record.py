"""The record of losses in a portfolio folder: from its rows to fitted laws among the results, and its faults."""

import json
import math
from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np
import pytest

from riskmill.models import run_model
from riskmill.models.fit_models import fit_models_work
from riskmill.outputs import Arrays, decode
from riskmill.planner import estimate_seconds
from riskmill.portfolio import LossRecord, Portfolio
from riskmill.publish import summarise
from riskmill.results import Run, Summary, fits_table, tail_fits_table
from riskmill.rollup_graph import record_fit_name, rollup_graph, tail_fit_name
from riskmill_cli.portfolio_folder import FolderInvalid, PreparedPortfolio, read_folder
from unit.portfolio_fixtures import Folder

type Change = Callable[[Folder], None]

#: Twenty hurricanes, heavy enough for an infinite mean, and three winter storms, too few to fit.
LOSSES = [round(1000 + 300 * ((40 / (2 * at + 1)) ** 1.3 - 1), 1) for at in range(20)]
ROWS = [
    *(
        {"peril": "hurricane", "date": f"{1990 + at * 7 % 30}-09-{1 + at:02}", "loss": str(x)}
        for at, x in enumerate(LOSSES)
    ),
    *({"peril": "winter", "date": f"{year}-01-05", "loss": "50"} for year in (1991, 2000, 2001)),
]


def rows(*changed: dict[str, str]) -> Change:
    return lambda folder: folder.rows.update({"loss_record": [dict(row) for row in (*ROWS, *changed)]})


def head(**fields: object) -> Change:
    return lambda folder: folder.head.update(fields)


def peril(number: int, **cells: str) -> Change:
    return lambda folder: folder.rows["perils"][number].update(cells)


def read(path: Path, *changes: Change, parquet: bool = False) -> PreparedPortfolio:
    folder = Folder()
    for change in changes:
        change(folder)
    return read_folder(folder.write(path, parquet=parquet))


def test_the_record_of_each_peril_is_an_object_of_its_own(tmp_path: Path) -> None:
    prepared = read(
        tmp_path / "csv", rows(), head(fit_replicates=50, record_first_year=1985), peril(0, record_threshold="1000")
    )
    hurricane, winter = prepared.portfolio.records
    assert (hurricane.peril, hurricane.count, hurricane.threshold, hurricane.maximum) == ("hurricane", 20, 1000.0, None)
    assert (winter.count, winter.threshold) == (3, 0.0)
    # Years from portfolio.json where it says, else those of the whole record.
    assert (hurricane.first_year, hurricane.last_year) == (winter.first_year, winter.last_year) == (1985, 2019)
    arrays = decode(prepared.objects[winter.losses])
    assert [date.fromordinal(day).isoformat() for day in arrays["day"].tolist()] == [
        "1991-01-05",
        "2000-01-05",
        "2001-01-05",
    ]
    assert arrays["loss"].tolist() == [50, 50, 50]
    assert sorted(decode(prepared.objects[hurricane.losses])["loss"].tolist()) == sorted(LOSSES)


def test_neither_the_order_of_rows_nor_the_kind_of_file_matters(tmp_path: Path) -> None:
    given = [rows(), peril(0, record_threshold="1000", record_maximum="1e6")]
    first = read(tmp_path / "csv", *given)

    def turned(folder: Folder) -> None:
        folder.rows["loss_record"].reverse()

    second = read(tmp_path / "parquet", *given, turned, parquet=True)
    assert (first.portfolio.key, first.objects) == (second.portfolio.key, second.objects)


def test_a_portfolio_without_a_record_keeps_its_key_and_its_jobs(tmp_path: Path) -> None:
    plain, empty = (
        read(tmp_path / "plain"),
        read(tmp_path / "empty", lambda folder: folder.raw.update({"loss_record.csv": b"peril,date,loss\n"})),
    )
    assert plain.portfolio.key == empty.portfolio.key
    assert not {"records", "fit_replicates"} & json.loads(plain.portfolio.to_json()).keys()
    recorded = read(tmp_path / "recorded", rows())
    graph, more = rollup_graph(plain.portfolio), rollup_graph(recorded.portfolio)
    keys = {graph.key(job) for job in range(len(graph))}
    assert {more.label(job) for job in range(len(more)) if more.key(job) not in keys} == {
        "fit_models record of hurricane block 0",
        "fit_models record of winter block 0",
    }


def test_two_losses_that_are_alike_are_two_losses(tmp_path: Path) -> None:
    once, twice = read(tmp_path / "once", rows()), read(tmp_path / "twice", rows(ROWS[-1]))
    assert [record.count for record in once.portfolio.records] == [20, 3]
    assert [record.count for record in twice.portfolio.records] == [20, 4]


ONE_FAULT: dict[str, tuple[list[Change], str]] = {
    "an unknown peril": (
        [rows({"peril": "quake", "date": "2000-01-01", "loss": "5"})],
        "loss_record.csv:25: peril: 'quake' is not in perils (allowed: a peril of perils)",
    ),
    "a day that is none": (
        [rows({"peril": "winter", "date": "2001-02-29", "loss": "5"})],
        "loss_record.csv:25: date: '2001-02-29' is not a date (allowed: a date as YYYY-MM-DD)",
    ),
    "a negative loss": (
        [rows({"peril": "winter", "date": "2001-02-28", "loss": "-5"})],
        "loss_record.csv:25: loss: '-5' is below 0 (allowed: a number >= 0)",
    ),
    "no loss": (
        [rows({"peril": "winter", "date": "2001-02-28", "loss": ""})],
        "loss_record.csv:25: loss: is empty (allowed: a number >= 0)",
    ),
    "a loss above the maximum": (
        [rows(), peril(1, record_maximum="60"), rows({"peril": "winter", "date": "2001-02-28", "loss": "61"})],
        "loss_record.csv:25: loss: 61 is above the record_maximum of 'winter' (allowed: at most record_maximum)",
    ),
    "a maximum below the threshold": (
        [rows(), peril(1, record_threshold="70", record_maximum="60")],
        "perils.csv:3: record_maximum: 60 is not above the threshold 70 (allowed: a number above the threshold)",
    ),
    "a loss before the record": (
        [rows({"peril": "winter", "date": "1979-12-31", "loss": "5"}), head(record_first_year=1980)],
        "loss_record.csv:25: date: 1979-12-31 is before the record_first_year "
        "(allowed: a day in the years that the record covers)",
    ),
    "a loss after the record": (
        [rows({"peril": "winter", "date": "2020-01-01", "loss": "5"}), head(record_last_year=2019)],
        "loss_record.csv:25: date: 2020-01-01 is after the record_last_year "
        "(allowed: a day in the years that the record covers)",
    ),
    "years the wrong way round": (
        [rows(), head(record_first_year=2020, record_last_year=1980)],
        "portfolio.json: record_last_year: 1980 is before the first year 2020 (allowed: record_first_year or later)",
    ),
    "years without a record": (
        [head(record_last_year=1980)],
        "portfolio.json: record_last_year: is given, and there is no loss_record (allowed: a table loss_record)",
    ),
    "too many replicates": (
        [rows(), head(fit_replicates=100_001)],
        "portfolio.json: fit_replicates: 100001 is above 100,000 (allowed: 0 to 100,000)",
    ),
}


@pytest.mark.parametrize("name", ONE_FAULT)
def test_a_fault_of_the_record_names_file_row_and_field(tmp_path: Path, name: str) -> None:
    changes, expected = ONE_FAULT[name]
    with pytest.raises(FolderInvalid) as refused:
        read(tmp_path / "folder", *changes)
    assert list(refused.value.faults) == [expected]


def test_an_unsound_record_in_a_document_is_refused(tmp_path: Path) -> None:
    sound = read(tmp_path / "folder", rows()).portfolio
    document = json.loads(sound.to_json())
    first = document["records"][0]
    document["records"] = [first | {"maximum": 1.0, "threshold": 2.0}, first | {"last_year": 1900}]
    with pytest.raises(Exception, match="stands twice") as refused:
        Portfolio.from_json(json.dumps(document).encode())
    text = str(refused.value)
    assert "records[0].maximum: 1 is not above the threshold 2" in text
    assert "records[1].last_year: 1900 is before the first year 1990" in text


def test_the_seconds_of_a_record_are_estimated_from_its_losses_and_replicates(tmp_path: Path) -> None:
    graph = rollup_graph(read(tmp_path / "folder", rows(), head(fit_replicates=10_000)).portfolio)
    job = int(graph.targets[graph.target_names.index(record_fit_name("hurricane"))])
    assert graph.work[job] == fit_models_work(20, 30, 10_000)
    assert 0.1 < estimate_seconds(graph, {})[job] < 10


def rolled_up(prepared: PreparedPortfolio) -> Summary:
    """Run every job of a rollup and return its summary."""
    graph = rollup_graph(prepared.portfolio)
    objects = [decode(prepared.objects[name[2:]]) for name in graph.externals]
    made: list[Arrays] = []
    for number in range(len(graph)):
        job = graph.job(number)
        inputs = [made[i] if i >= 0 else objects[~i] for i in graph.inputs_of(number).tolist()]
        made.append(Arrays(run_model(job.model, job.version, job.params, inputs)))
    run = Run(
        run_id="r1", status="SUCCEEDED", started=datetime(2026, 1, 1, tzinfo=UTC), seconds=1.0,
        jobs=len(graph), cached=0, computed=len(graph), failed=0, batches=1, rounds=1,
    )  # fmt: skip
    targets = {name: made[job] for name, job in zip(graph.target_names, graph.targets.tolist(), strict=True)}
    return summarise(prepared.portfolio, prepared.portfolio.key, targets, run)


@pytest.fixture(scope="module")
def summary(tmp_path_factory: pytest.TempPathFactory) -> Summary:
    folder = tmp_path_factory.mktemp("record") / "folder"
    options = head(fit_replicates=99, tail_fit_replicates=9, trials=4000, record_first_year=1990)
    return rolled_up(read(folder, rows(), options, peril(0, record_threshold="1000")))


def test_the_fits_are_among_the_results(summary: Summary) -> None:
    hurricane, winter = summary.record_fits
    assert (hurricane.peril, hurricane.losses, hurricane.first_year, hurricane.last_year) == (
        "hurricane",
        20,
        1990,
        2019,
    )
    assert hurricane.rate.value == pytest.approx(20 / 30, rel=1e-5)
    assert hurricane.rate.low < hurricane.rate.value < hurricane.rate.high
    laws = {(law.kind, law.law): law for law in hurricane.laws}
    gpd = laws["severity", "generalised_pareto"]
    assert [figure.name for figure in gpd.parameters] == ["shape", "scale"]
    assert gpd.parameters[0].value > 1
    assert gpd.mean is None
    assert gpd.refused == "the mean is infinite; state a maximum"
    assert laws["severity", "empirical"].mean.value == pytest.approx(np.mean(LOSSES), rel=1e-5)
    severity, frequency = (law for law in hurricane.laws if law.preferred)
    assert severity.aic == min(
        law.aic for law in hurricane.laws if law.kind == "severity" and law.aic and not law.refused
    )
    assert frequency.kind == "frequency"
    assert frequency.law == "binomial"  # about two thirds of the years have one, and none has two
    assert winter.notes == ("severity: 3 losses above 0: too few to fit a severity (at least 10)",)
    assert {law.kind for law in winter.laws} == {"frequency"}
    assert Summary.model_validate_json(summary.to_json()) == summary


def test_the_table_of_fits_has_a_row_a_figure(summary: Summary) -> None:
    table = fits_table(summary)
    names = [column.name for column in table.columns]
    found = {(*row[:3], row[4]): dict(zip(names, row, strict=True)) for row in table.rows}
    assert len(found) == len(table.rows)
    shape = found["hurricane", "severity", "generalised_pareto", "shape"]
    assert shape["low"] < shape["value"] < shape["high"]
    assert shape["refused"] == "the mean is infinite; state a maximum"
    assert ("hurricane", "severity", "generalised_pareto", "mean") not in found
    assert found["hurricane", "record", "", "season_09"]["value"] == 1
    assert found["winter", "frequency", "poisson", "mean"]["value"] == pytest.approx(0.1)
    # A size that resamples have infinite has an infinite limit, which is not an undefined one.
    size = found.get(("hurricane", "frequency", "negative_binomial", "size"))
    assert size is None or size["high"] == math.inf


def test_the_fitted_tails_have_a_row_a_threshold_and_return_period(summary: Summary) -> None:
    table = tail_fits_table(summary)
    assert len(summary.tail_fits) == 2 * 2 * 8
    assert len(table.rows) == len(summary.tail_fits) * 6
    first = dict(zip((column.name for column in table.columns), table.rows[0], strict=True))
    fit = summary.tail_fits[0]
    assert (first["perspective"], first["kind"], first["share"], first["threshold"]) == (
        "gross",
        "oep",
        0.1,
        fit.threshold,
    )
    assert first["return_period"] == 250
    assert tail_fit_name("gross") == "tail_fit/gross"


def test_a_record_is_part_of_a_portfolios_key(tmp_path: Path) -> None:
    sound = read(tmp_path / "folder", rows()).portfolio
    other = sound.model_copy(
        update={"records": (sound.records[0].model_copy(update={"threshold": 5.0}), sound.records[1])}
    )
    assert isinstance(other.records[0], LossRecord)
    assert other.key != sound.key
