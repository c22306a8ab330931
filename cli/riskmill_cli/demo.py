"""The demo: the example portfolio through the embedded cloud, from nothing to a report."""

import subprocess
import sys
from pathlib import Path

import typer
from rich.markup import escape

from riskmill.errors import RiskmillError
from riskmill_cli.main import local_parameters, new_run_id, run_rollup, write_report
from riskmill_cli.session import connect, console, phases, project_root, state_dir
from riskmill_cli.terminal import print_summary
from riskmill_local.cloud import down, status, up

EXAMPLE = Path("examples", "us_nat_cat")


def run_demo(*, keep: bool, out: Path) -> None:
    """Build the small example, roll it up on the embedded cloud, print the figures and write the report.

    The embedded cloud is taken down at the end unless it was up before, or `keep` is set.
    """
    root = project_root()
    say = phases(False)
    say("building the example portfolio (300 deals x 20,000 trials)")
    folder = build_example(root, "small")
    was_up = status(state_dir()) is not None
    try:
        cloud = up(root=root, state_dir=state_dir(), parameters=local_parameters(), on_phase=say)
        say(f"the embedded cloud is up at {cloud.endpoint} ({sum(cloud.seconds.values()):.1f} s)")
        deployment = connect("local", cloud.stack_name)
        run = run_rollup(deployment, str(folder), {}, run_id=new_run_id(), wait=True, quiet=False)
        if run["status"] != "SUCCEEDED":
            console.print(f"[red]{run['status']}[/] {escape(run.get('error', ''))}")
            raise typer.Exit(1)
        print_summary(deployment.summary(run["run_id"]), console)
        path = write_report(deployment, run["run_id"], out)
        console.print(f"\n[bold]Report:[/] {path.as_uri()}", soft_wrap=True)
    finally:
        if not (keep or was_up):
            down(state_dir())
    if keep or was_up:
        console.print("[dim]The embedded cloud is still up: `riskmill runs`, `riskmill local down`.[/]")


def build_example(root: Path, size: str) -> Path:
    """Build the example portfolio of this size and return its folder."""
    script = root / EXAMPLE / "build.py"
    if not script.is_file():
        raise RiskmillError(f"{script} is not there: run this inside a checkout of riskmill")
    folder = root / EXAMPLE / size
    built = subprocess.run([sys.executable, str(script), "--size", size, "--out", str(folder)], capture_output=True)
    if built.returncode:
        raise RiskmillError(f"building the example failed: {built.stderr.decode(errors='replace').strip()[-2000:]}")
    return folder
