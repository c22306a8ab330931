"""`riskmill fit`: its table, JSON and page, and errors that name file, row and field."""

import base64
import gzip
import json
import re
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from riskmill_cli.main import app

RECORD = Path(__file__).parents[2] / "examples/us_nat_cat/us_billion_dollar_events.csv"
COLUMNS = ["--loss-column", "cost_usd_m_cpi_adjusted", "--date-column", "begin"]


def run(*arguments):
    return CliRunner().invoke(app, ["fit", *map(str, arguments)], env={"COLUMNS": "300"})


@pytest.fixture
def out(tmp_path):
    return tmp_path / "pages" / "fit.html"


def written(folder, text):
    path = folder / "losses.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_the_record_is_fitted_by_peril_and_an_infinite_mean_is_refused(out):
    result = run(RECORD, *COLUMNS, "--by", "peril", "--threshold", 1000, "--bootstrap", 0, "--out", out, "--json")
    assert result.exit_code == 0, result.output
    answer = json.loads(result.stdout)
    assert answer["years"] == [1980, 2023]
    groups = {group["name"]: group for group in answer["groups"]}
    assert len(groups) == 7
    cyclone = groups["Tropical Cyclone"]
    assert cyclone["losses"] == 62
    assert cyclone["frequency"]["law"] == "negative_binomial"
    assert cyclone["frequency"]["variance_to_mean"]["value"] == pytest.approx(1.73, abs=0.005)
    gpd = cyclone["severity"][0]
    assert gpd["parameters"]["shape"]["value"] == pytest.approx(1.11, abs=0.005)
    assert gpd["mean"] is None
    assert gpd["refused"] == "the mean is infinite; state a maximum"
    assert cyclone["preferred"] == "lognormal"
    assert "severity: 9 losses above 1000: too few to fit a severity (at least 10)" in groups["Freeze"]["notes"]
    assert groups["Freeze"]["frequency"]["rate"]["value"] == pytest.approx(9 / 44)
    assert any("has a trend (+8.3% a year" in note for note in groups["Severe Storm"]["notes"])


def test_the_table_shows_intervals_and_what_is_refused(out):
    result = run(RECORD, *COLUMNS, "--threshold", 1000, "--bootstrap", 20, "--out", out)
    assert result.exit_code == 0, result.output
    assert re.search(r"generalised Pareto\W+shape [\d.]+ \([\d.]+ to [\d.]+\), scale", result.stdout)
    assert re.search(r"Pareto +alpha 0\.\d+ \(.*\) +refused", result.stdout)
    assert "! Pareto: refused, the mean is infinite; state a maximum (--maximum)" in result.stdout
    stated = run(RECORD, *COLUMNS, "--threshold", 1000, "--maximum", 500_000, "--bootstrap", 0, "--out", out)
    assert "refused, the mean" not in stated.stdout


def test_the_page_is_one_file_with_the_three_plots_and_is_the_same_each_time(out):
    arguments = [RECORD, *COLUMNS, "--by", "peril", "--threshold", 1000, "--bootstrap", 10, "--out", out]
    assert run(*arguments).exit_code == 0
    page = out.read_text(encoding="utf-8")
    assert run(*arguments).exit_code == 0
    assert out.read_text(encoding="utf-8") == page
    assert not re.search(r"(?:src|href)\s*=\s*[\"']?https?:", page)
    assert "default-src 'none'" in page
    packed = re.search(r'id="fit-data">([^<]+)<', page)[1]
    plots = json.loads(gzip.decompress(base64.b64decode(packed)))
    assert plots[2] == {}  # Freeze: too few
    cyclone = plots[4]
    assert [law["name"] for law in cyclone["laws"]] == ["generalised_pareto", "lognormal", "pareto"]
    assert cyclone["losses"] == sorted(cyclone["losses"])
    # The most frequent point is half a loss below the rate, the rarest half a loss above none.
    assert cyclone["exceedance"][0] == pytest.approx(61.5 / 44)
    assert cyclone["exceedance"][-1] == pytest.approx(0.5 / 44)
    assert all(len(law["qq"]) == 62 for law in cyclone["laws"])
    for kind in ("exceedance", "qq", "excess"):
        assert f'id="{kind}-4"' in page


def test_a_refused_law_that_fits_better_than_the_preferred_one_is_said(tmp_path, out):
    survival = (np.arange(200) + 0.5) / 200
    heavy = 1e6 + 1e5 / 1.4 * (survival**-1.4 - 1)
    path = written(tmp_path, "loss\n" + "".join(f"{loss:.3f}\n" for loss in heavy))
    [group] = json.loads(run(path, "--threshold", 1e6, "--bootstrap", 0, "--out", out, "--json").stdout)["groups"]
    assert group["preferred"] == "pareto"
    better = "generalised Pareto: is refused, yet its AIC is lower than the Pareto's: with a maximum (--maximum)"
    assert any(note.startswith(better) for note in group["notes"])


def test_a_group_cannot_put_markup_on_the_page(tmp_path, out):
    rows = "".join(f"{2 + at / 7},<script>alert(1)</script>\n" for at in range(12))
    assert run(written(tmp_path, "loss,kind\n" + rows), "--by", "kind", "--bootstrap", 0, "--out", out).exit_code == 0
    page = out.read_text(encoding="utf-8")
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(1)" in page


def test_losses_without_dates_have_a_severity_only(tmp_path, out):
    losses = np.exp(np.linspace(0, 3, 40))
    path = written(tmp_path, "loss\n" + "".join(f"{loss}\n" for loss in losses))
    result = run(path, "--bootstrap", 0, "--out", out, "--json")
    [group] = json.loads(result.stdout)["groups"]
    assert group["frequency"] is None
    assert "no column of dates: no frequency, season or trend" in group["notes"]
    assert group["severity"][1]["parameters"]["mu"]["value"] == pytest.approx(1.5)


def test_years_alone_give_a_frequency_but_no_season(tmp_path, out):
    rows = "".join(f"{1 + at},{2000 + at % 10}\n" for at in range(20))
    path = written(tmp_path, "loss,date\n" + rows)
    [group] = json.loads(run(path, "--bootstrap", 0, "--years", "1996-2015", "--out", out, "--json").stdout)["groups"]
    assert group["season"] is None
    assert group["frequency"]["years"] == 20
    assert group["frequency"]["rate"]["value"] == 1


@pytest.mark.parametrize(
    ("text", "options", "fault"),
    [
        ("loss\n5\nn/a\n", (), "losses.csv:3: loss: 'n/a' is not a number"),
        ('loss\n"1,000"\n', (), "losses.csv:2: loss: '1,000' is not a number"),
        ("loss\nnan\n", (), "losses.csv:2: loss: 'nan' is not a number"),
        ("loss\n1e999\n", (), "losses.csv:2: loss: '1e999' is too large"),
        ("loss\n-1\n", (), "losses.csv:2: loss: '-1' is below 0"),
        ("loss,x\n,1\n", (), "losses.csv:2: loss: is empty"),
        ("loss,date\n1,2001-02-30\n", (), "losses.csv:2: date: '2001-02-30' is not a date"),
        ("loss,peril\n1,\n", ("--by", "peril"), "losses.csv:2: peril: is empty"),
        ("loss,peril\n1\n", (), "losses.csv:2: the row has 1 cells and the header 2"),
        ("losses\n1\n", (), "losses.csv: loss: there is no such column (did you mean losses?); --loss-column names it"),
        ("loss\n1\n", ("--by", "peril"), "losses.csv: peril: there is no such column; --by names it"),
        ("loss,loss\n1,2\n", (), "losses.csv: loss: stands 2 times in the header"),
        ("loss\n", (), "losses.csv: has no rows"),
        ("", (), "losses.csv: is empty"),
        ("loss\n\n5\n50\n", ("--maximum", "20"), "losses.csv:4: loss: 50 is above --maximum"),
        ("loss\n5\n", ("--threshold", "9", "--maximum", "9"), "--maximum 9 is not above --threshold 9"),
        ("loss,date\n5,1999\n", ("--years", "2000-2005"), "losses.csv:2: date: 1999 is outside --years"),
        ("loss,date\n5,1999\n", ("--years", "soon"), "--years 'soon' is not a span of years"),
        ("loss\n5\n", ("--years", "2000-2005"), "--years is of no use without a column of dates"),
    ],
)
def test_a_fault_names_file_row_and_field(tmp_path, out, text, options, fault):
    result = run(written(tmp_path, text), *options, "--out", out, "--json")
    assert result.exit_code == 2
    [said] = json.loads(result.stdout)["faults"]
    assert fault in said
    assert fault in re.sub(r"\s+", " ", result.stderr)
    assert not out.exists()


def test_a_file_that_is_not_there_or_cannot_be_fitted_is_said(tmp_path, out):
    missing = run(tmp_path / "none.csv", "--out", out)
    assert (missing.exit_code, "none.csv: cannot be read" in missing.stderr) == (2, True)
    few = run(written(tmp_path, "loss\n1\n2\n"), "--out", out)
    assert few.exit_code == 1
    assert "2 losses above 0: too few" in few.stderr
