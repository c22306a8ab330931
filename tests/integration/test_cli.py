"""The `riskmill` command as a user runs it: a process with arguments, an exit code and output."""

import csv
import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from riskmill.jobs import object_name
from riskmill_cli.portfolio_folder import read_folder
from riskmill_local.cloud import Cloud
from rollup_cloud import fresh_seed
from unit.portfolio_fixtures import write_tiny_portfolio

COMMAND = [sys.executable, "-m", "riskmill_cli.main"]
ROOT = Path(__file__).parents[2]
PACKAGES = os.pathsep.join(str(ROOT / folder) for folder in ("layers/domain", "cli", "local"))


def environment(cloud: Cloud | None, state: Path) -> dict[str, str]:
    """The variables of a user's shell with this cloud configured, and no embedded cloud of the checkout in reach."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "RISKMILL_"))}
    clean |= {"PYTHONPATH": PACKAGES, "RISKMILL_STATE_DIR": str(state), "COLUMNS": "100", "TERM": "dumb"}
    return clean | ({**cloud.environment, "RISKMILL_STACK": cloud.stack_name} if cloud else {})


def riskmill(cloud: Cloud | None, tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    return subprocess.run(
        [*COMMAND, *arguments],
        env=environment(cloud, tmp_path / "state"),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def answer(done: subprocess.CompletedProcess[str]) -> Any:
    """The one JSON value on standard output of a command that succeeded."""
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A tiny portfolio with a seed of its own, so that nothing of it is cached."""
    path = write_tiny_portfolio(tmp_path / "portfolio")
    head = json.loads((path / "portfolio.json").read_text())
    (path / "portfolio.json").write_text(json.dumps(head | {"seed": fresh_seed()}))
    return path


def test_a_bad_portfolio_is_refused_with_every_fault_and_exit_code_2(tmp_path: Path, folder: Path) -> None:
    deals = (folder / "deals.csv").read_text()
    (folder / "deals.csv").write_text(deals.replace("USD", "EUR", 1))
    (folder / "portfolio.json").write_text(json.dumps({"format": 1}))
    done = riskmill(None, tmp_path, "validate", str(folder))
    assert done.returncode == 2
    assert re.search(r"portfolio\.json.*trials", done.stderr)
    listed = riskmill(None, tmp_path, "validate", str(folder), "--json")
    assert listed.returncode == 2
    faults = json.loads(listed.stdout)["faults"]
    assert len(faults) > 3
    assert done.stdout == ""


def test_a_good_portfolio_is_validated_without_any_cloud(tmp_path: Path, folder: Path) -> None:
    facts = answer(riskmill(None, tmp_path, "validate", str(folder), "--json"))
    assert facts["deals"] == 2
    assert facts["faults"] == []


def test_a_portfolio_whose_losses_cannot_be_sampled_is_refused_when_a_run_is_to_sample_them(
    tmp_path: Path, folder: Path
) -> None:
    """`validate` lists the rows that want an exposure; without the option nothing is wrong; another word is refused."""
    elts = [line.split(",") for line in (folder / "elts.csv").read_text().splitlines()]
    at = elts[0].index("exposure")
    bare = "\n".join(
        ",".join([*row[:at], *([""] if number else row[at : at + 1]), *row[at + 1 :]])
        for number, row in enumerate(elts)
    )
    (folder / "elts.csv").write_text(bare + "\n")
    assert answer(riskmill(None, tmp_path, "validate", str(folder), "--json"))["faults"] == []
    refused = riskmill(None, tmp_path, "validate", str(folder), "--secondary-uncertainty", "on", "--json")
    assert refused.returncode == 2
    faults = json.loads(refused.stdout)["faults"]
    assert faults[0].startswith("elts.csv:2: exposure: is empty, and secondary uncertainty needs it")
    assert all(fault.startswith("elts.csv:") for fault in faults)
    assert riskmill(None, tmp_path, "rollup", str(folder), "--secondary-uncertainty", "maybe").returncode == 2


def test_a_command_without_a_cloud_says_in_one_line_what_to_do(tmp_path: Path) -> None:
    done = riskmill(None, tmp_path, "runs", "--cloud", "local")
    assert done.returncode == 1
    assert "riskmill local up" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_endpoint_that_does_not_answer_is_one_clear_error(tmp_path: Path) -> None:
    variables = environment(None, tmp_path) | {
        "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "eu-west-1",
    }
    done = subprocess.run(
        [*COMMAND, "runs", "--json"], env=variables, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "cannot be reached" in json.loads(done.stdout)["message"]
    assert "Traceback" not in done.stderr


def test_names_with_brackets_are_shown_as_they_are(tmp_path: Path, folder: Path) -> None:
    """Square brackets are markup to the terminal library, and a name may hold them."""
    head = json.loads((folder / "portfolio.json").read_text())
    (folder / "portfolio.json").write_text(json.dumps(head | {"name": "Book [/2024] [red]\\"}))
    done = riskmill(None, tmp_path, "validate", str(folder))
    assert done.returncode == 0, done.stderr
    assert "Book [/2024] [red]\\" in done.stderr
    head.pop("name")
    (folder / "portfolio.json").write_text(json.dumps(head | {"[/x]": 1}))
    refused = riskmill(None, tmp_path, "validate", str(folder))
    assert refused.returncode == 2
    assert "[/x]" in refused.stderr


@pytest.mark.cloud
def test_an_upload_sends_only_what_changed(cloud: Cloud, tmp_path: Path, folder: Path) -> None:
    answer(riskmill(cloud, tmp_path, "upload", str(folder), "--json"))
    again = answer(riskmill(cloud, tmp_path, "upload", str(folder), "--json"))
    assert again["uploaded"] == 0
    elts = (folder / "elts.csv").read_text().splitlines()
    changed = elts[1].split(",")
    changed[2] = str(float(changed[2]) + fresh_seed() % 1000 / 1000)
    (folder / "elts.csv").write_text("\n".join([elts[0], ",".join(changed), *elts[2:]]) + "\n")
    changed_upload = answer(riskmill(cloud, tmp_path, "upload", str(folder), "--json"))
    assert changed_upload["uploaded"] == 1
    lost = object_name(f"i:{read_folder(folder).portfolio.deals[0].elt}")
    cloud.client("s3").delete_object(Bucket=cloud.outputs["DataBucketName"], Key=lost)
    assert answer(riskmill(cloud, tmp_path, "upload", str(folder), "--json"))["uploaded"] == 0
    assert answer(riskmill(cloud, tmp_path, "upload", str(folder), "--check", "--json"))["uploaded"] == 1


@pytest.mark.cloud
def test_a_rollup_is_followed_listed_and_its_results_and_report_fetched(
    cloud: Cloud, tmp_path: Path, folder: Path
) -> None:
    run = answer(riskmill(cloud, tmp_path, "rollup", str(folder), "--json"))
    assert run["status"] == "SUCCEEDED"
    run_id = run["run_id"]
    assert run_id in [one["run_id"] for one in answer(riskmill(cloud, tmp_path, "runs", "--json"))]
    status = answer(riskmill(cloud, tmp_path, "status", run_id, "--json"))
    assert status["computed"] == status["to_run"] == run["jobs"]
    files = answer(riskmill(cloud, tmp_path, "results", run_id, "--out", "tables", "--json"))["files"]
    with (tmp_path / "tables" / "ept.csv").open() as text:
        rows = list(csv.reader(text))
    assert rows[0] == ["SummaryId", "EPCalc", "EPType", "ReturnPeriod", "Loss"]
    table = pq.read_table(tmp_path / "tables" / "ept.parquet")
    assert table.column_names == rows[0]
    assert table.num_rows == len(rows) - 1 > 0
    assert len(files) == 2 * len({Path(file).stem for file in files})
    files = answer(riskmill(cloud, tmp_path, "export-ord", run_id, "--out", "ord", "--json"))["files"]
    assert {Path(file).name for file in files} >= {"ept.csv", "alt.csv", "mplt.parquet", "splt.csv"}
    answer(riskmill(cloud, tmp_path, "report", run_id, "--out", "report.html", "--json"))
    assert "Tiny Re" in (tmp_path / "report.html").read_text()
    again = riskmill(cloud, tmp_path, "rollup", str(folder))
    assert again.returncode == 0
    assert "0 computed" in again.stderr


@pytest.mark.cloud
def test_results_that_cannot_be_written_and_a_cancel_of_nothing_named_are_clear_errors(
    cloud: Cloud, tmp_path: Path, folder: Path
) -> None:
    answer(riskmill(cloud, tmp_path, "rollup", str(folder), "--json"))
    (tmp_path / "taken").write_text("a file")
    done = riskmill(cloud, tmp_path, "results", "--out", "taken")
    assert done.returncode == 1
    assert "taken" in done.stderr
    assert "Traceback" not in done.stderr
    refused = riskmill(cloud, tmp_path, "cancel", "--json")
    assert refused.returncode == 1
    assert "name it" in json.loads(refused.stdout)["message"]


@pytest.mark.cloud
def test_an_unknown_run_is_one_clear_error(cloud: Cloud, tmp_path: Path) -> None:
    for command in ("status", "results", "report", "cancel"):
        done = riskmill(cloud, tmp_path, command, "no-such-run")
        assert done.returncode == 1
        assert "no run 'no-such-run'" in done.stderr


@pytest.mark.cloud
def test_ctrl_c_asks_and_a_yes_stops_the_run_with_its_unfinished_jobs_marked(
    cloud: Cloud, tmp_path: Path, folder: Path
) -> None:
    head = json.loads((folder / "portfolio.json").read_text())
    (folder / "portfolio.json").write_text(json.dumps(head | {"trials": 5_000_000}))
    run_id = f"ctrl-c-{fresh_seed()}"
    keyboard, terminal = pty.openpty()
    command = subprocess.Popen(
        [*COMMAND, "rollup", str(folder), "--run-id", run_id, "--max-batch-seconds", "0.5"],
        env=environment(cloud, tmp_path / "state") | {"TERM": "xterm"},  # a dumb one gets no live progress
        cwd=tmp_path,
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        start_new_session=True,
    )
    os.close(terminal)
    try:
        shown = _read_until(keyboard, "wave 1")
        command.send_signal(signal.SIGINT)
        shown += _read_until(keyboard, "Stop run")
        os.write(keyboard, b"y\n")
        shown += _read_until(keyboard, "unfinished")
        assert command.wait(timeout=60) == 1
    finally:
        command.kill()
        os.close(keyboard)
    status = answer(riskmill(cloud, tmp_path, "status", run_id, "--json"))
    assert status["status"] == "CANCELLED"
    assert status["unfinished"] > 0
    refused = riskmill(cloud, tmp_path, "cancel", run_id)
    assert refused.returncode == 1
    assert "has ended" in refused.stderr


def _read_until(terminal: int, words: str, seconds: float = 90) -> str:
    """Read what a program shows until these words are there."""
    shown, deadline = "", time.monotonic() + seconds
    while words not in shown:
        assert time.monotonic() < deadline, f"{words!r} was not shown in {shown!r}"
        try:
            shown += os.read(terminal, 65536).decode(errors="replace")
        except OSError as error:  # the program has ended
            raise AssertionError(f"{words!r} was not shown in {shown!r}") from error
    return shown
