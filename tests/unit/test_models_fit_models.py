"""The fits of a record as a job makes them: the figures of `riskmill fit`, in arrays, the same whatever the host."""

import csv
import json
import os
import subprocess
import sys
from datetime import date
from pathlib import Path

import numpy as np
import pytest
from numpy._core._multiarray_umath import __cpu_dispatch__, __cpu_features__
from typer.testing import CliRunner

from riskmill.errors import ModelError
from riskmill.models import run_model, severity_fits
from riskmill.models.allocation import read_ids
from riskmill.models.fit_models import (
    COUNT_FIGURES,
    FREQUENCY_FIGURES,
    FREQUENCY_LAWS,
    SEVERITY_FIGURES,
    SEVERITY_LAWS,
    fit_models_work,
)
from riskmill.outputs import Arrays, encode
from riskmill_cli.main import app

RECORD = Path(__file__).parents[2] / "examples/us_nat_cat/us_billion_dollar_events.csv"
SPAN = {"threshold": 1000.0, "first_year": 1980, "last_year": 2023, "replicates": 40, "seed": 3}


def record_of(peril: str) -> Arrays:
    """Return one peril's record as a job reads it."""
    with RECORD.open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["peril"] == peril]
    return Arrays(
        {
            "day": np.array([date.fromisoformat(row["begin"]).toordinal() for row in rows], np.int32),
            "loss": np.array([float(row["cost_usd_m_cpi_adjusted"]) for row in rows]),
        }
    )


def fit(record: Arrays, **params: object) -> dict[str, np.ndarray]:
    return run_model("fit_models", 1, SPAN | params, [record])


def test_a_job_makes_the_figures_of_riskmill_fit(tmp_path: Path) -> None:
    """Every figure of the command's JSON stands in the arrays, with six digits."""
    output = fit(record_of("Tropical Cyclone"))
    options = ["--loss-column", "cost_usd_m_cpi_adjusted", "--date-column", "begin", "--by", "peril"]
    options += ["--threshold", "1000", "--bootstrap", "40", "--seed", "3", "--out", str(tmp_path / "fit.html")]
    answer = json.loads(CliRunner().invoke(app, ["fit", str(RECORD), *options, "--json"]).stdout)
    group = next(group for group in answer["groups"] if group["name"] == "Tropical Cyclone")

    def same(found: float, wanted: float | None) -> None:
        if wanted is None:
            assert not np.isfinite(found)
        else:
            assert found == pytest.approx(wanted, rel=1e-5)

    def estimates(found: np.ndarray, wanted: dict[str, float | None]) -> None:
        for value, name in zip(found, ("value", "low", "high"), strict=True):
            same(value, wanted[name])

    for at, law in enumerate(group["severity"]):
        assert [*SEVERITY_LAWS][at] == law["law"]
        for number, name in enumerate(SEVERITY_LAWS[law["law"]]):
            estimates(output["severity_parameters"][at, number], law["parameters"][name])
        estimates(output["severity_mean"][at], law["mean"] or dict.fromkeys(("value", "low", "high")))
        for number, name in enumerate(SEVERITY_FIGURES):
            same(output["severity_figures"][at, number], law[name])
    frequency = group["frequency"]
    for at, law in enumerate(frequency["laws"]):
        for number, name in enumerate(FREQUENCY_LAWS[law["law"]] if law["parameters"] else ()):
            estimates(output["frequency_parameters"][at, number], law["parameters"][name])
        for number, name in enumerate(FREQUENCY_FIGURES):
            same(output["frequency_figures"][at, number], law[name])
    for number, name in enumerate(COUNT_FIGURES):
        same(output["counts"][number], frequency[name])
    estimates(output["rate"], frequency["rate"])
    estimates(output["variance_to_mean"], frequency["variance_to_mean"])
    assert output["season"] == pytest.approx(group["season"]["weights"], rel=1e-5)
    same(output["season_p"][0], group["season"]["rayleigh_p"])
    for value, name in zip(output["sizes"], ("spearman", "spearman_p", "growth", "growth_p"), strict=True):
        same(value, group["severity_trend"][name])
    assert [*SEVERITY_LAWS][int(output["preferred"][0])] == group["preferred"]
    assert [*FREQUENCY_LAWS][int(output["preferred"][1])] == frequency["law"]


def test_an_infinite_mean_is_refused_without_a_maximum_and_truncated_with_one() -> None:
    record = record_of("Tropical Cyclone")
    open_ended, stated = fit(record), fit(record, maximum=500_000.0)
    assert read_ids(open_ended["severity_refused"])[0] == "the mean is infinite; state a maximum"
    assert np.isnan(open_ended["severity_mean"][0]).all()
    # The lognormal's mean exists: of some resamples, if of any, the law does not.
    assert np.isfinite(open_ended["severity_mean"][1]).all()
    assert read_ids(stated["severity_refused"]) == [""] * 4
    assert np.isfinite(stated["severity_mean"]).all()
    np.testing.assert_array_equal(stated["severity_parameters"], open_ended["severity_parameters"])


def test_a_mean_that_only_resamples_have_infinite_has_an_infinite_limit() -> None:
    survival = (np.arange(100) + 0.5) / 100
    losses = 1000 + 500 / 0.8 * (survival**-0.8 - 1)
    output = fit(Arrays({"year": np.full(100, 2000), "loss": losses}), replicates=400)
    share = output["severity_figures"][0, SEVERITY_FIGURES.index("infinite_share")]
    assert 0.025 < share < 0.5
    assert np.isfinite(output["severity_mean"][0, :2]).all()
    assert output["severity_mean"][0, 2] == np.inf


def test_a_record_that_is_too_short_says_so_and_keeps_what_can_be_said() -> None:
    output = fit(record_of("Freeze"))
    assert read_ids(output["notes"]) == ["severity: 9 losses above 1000: too few to fit a severity (at least 10)"]
    assert output["rate"][0] == pytest.approx(9 / 44, rel=1e-5)
    assert np.isnan(output["severity_parameters"]).all()
    assert output["preferred"].tolist() == [-1, 0]
    nothing = fit(Arrays({"day": np.zeros(0, np.int32), "loss": np.zeros(0)}))
    assert len(read_ids(nothing["notes"])) == 2
    assert nothing["record"].tolist() == [0, 0, 0]


def test_years_alone_give_no_season() -> None:
    record = record_of("Flooding")
    years = np.array([date.fromordinal(day).year for day in record["day"].tolist()], np.int32)
    of_days, of_years = fit(record), fit(Arrays({"year": years, "loss": record["loss"]}))
    assert np.isnan(of_years["season"]).all()
    np.testing.assert_array_equal(of_years["counts"], of_days["counts"])
    np.testing.assert_array_equal(of_years["severity_parameters"], of_days["severity_parameters"])


def test_a_leap_day_is_the_28_of_february_and_the_order_of_losses_does_not_matter() -> None:
    days = [date(2000, 2, 29), date(2000, 12, 31), date(2001, 3, 1)]
    record = Arrays({"day": np.array([day.toordinal() for day in days]), "loss": np.array([2e3, 3e3, 4e3])})
    output = fit(record)
    assert output["season"][[1, 2, 11]] == pytest.approx([1 / 3] * 3, rel=1e-5)
    whole = record_of("Drought")
    falling = Arrays({name: array[::-1].copy() for name, array in whole.items()})
    assert encode(fit(falling)) == encode(fit(whole))


def test_how_many_samples_are_held_at_once_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = encode(fit(record_of("Flooding")))
    monkeypatch.setattr(severity_fits, "_CELLS", 100)
    monkeypatch.setattr(severity_fits, "_HOT", 50)
    assert encode(fit(record_of("Flooding"))) == expected


@pytest.mark.parametrize(
    ("record", "params", "message"),
    [
        ({"loss": np.ones(3)}, {}, "no array day or year"),
        ({"loss": np.ones(3), "year": np.array([2000, 2001])}, {}, "as long as each other"),
        ({"loss": np.ones(1), "year": np.array([2000.0])}, {}, "whole numbers"),
        ({"loss": -np.ones(1), "year": np.array([2000])}, {}, "below 0 or not finite"),
        ({"loss": np.ones(1), "year": np.array([1979])}, {}, "a loss in 1979, outside 1980-2023"),
        ({"loss": np.ones(1), "day": np.array([0])}, {}, "a day that no date has"),
        ({"loss": np.ones(0), "year": np.zeros(0, int)}, {"maximum": 900.0}, "not above the threshold"),
        ({"loss": np.ones(0), "year": np.zeros(0, int)}, {"last_year": 1979}, "before first_year"),
    ],
)
def test_what_is_no_record_is_refused(record: dict[str, np.ndarray], params: dict[str, float], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        fit(Arrays(record), **params)


def test_the_work_is_that_of_all_replicates() -> None:
    assert fit_models_work(62, 44, 999) == 106_000


def test_the_rounded_figures_do_not_depend_on_the_hosts_vector_instructions(tmp_path: Path) -> None:
    """The same bytes with numpy's dispatch switched off, for real records; the chain of all models pins others."""
    off = [name for name in __cpu_dispatch__ if __cpu_features__.get(name)]
    if not off:
        pytest.skip("this host has no vector instructions that numpy could do without")
    program = tmp_path / "fits.py"
    program.write_text(
        "import sys\n"
        "from unit.test_models_fit_models import fit, record_of\n"
        "from riskmill.outputs import encode\n"
        "made = [fit(record_of(peril)) for peril in ('Tropical Cyclone', 'Severe Storm', 'Drought')]\n"
        "sys.stdout.buffer.write(b''.join(map(encode, made)))\n"
    )

    def run(disabled: str) -> bytes:
        environment = os.environ | {"NPY_DISABLE_CPU_FEATURES": disabled, "PYTHONPATH": os.pathsep.join(sys.path)}
        return subprocess.run([sys.executable, program], env=environment, capture_output=True, check=True).stdout

    assert run(" ".join(off)) == run("")
