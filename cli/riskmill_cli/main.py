"""The `riskmill` command: validate, upload and roll up portfolios, and look at runs and their results.

The same commands work against the embedded cloud and AWS. With --json standard output is one JSON value.
"""

import os
import secrets
import sys
from collections.abc import Mapping
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.markup import escape
from rich.table import Table

from riskmill import __version__
from riskmill.aws.deployment import Deployment, Uploaded
from riskmill.errors import RiskmillError
from riskmill.run_options import secondary_uncertainty_of
from riskmill.strategy import Wish
from riskmill_cli.cache_commands import cache_app, dlq_app
from riskmill_cli.fit_command import fit
from riskmill_cli.model_commands import add_model_commands
from riskmill_cli.session import CloudName, connect, console, emit, phases, project_root, state_dir, told
from riskmill_cli.standards_commands import standards_app

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)
local_app = typer.Typer(no_args_is_help=True, help="The embedded cloud: everything on this machine, no account needed.")
app.add_typer(local_app, name="local")
app.add_typer(cache_app, name="cache")
app.add_typer(dlq_app, name="dlq")
add_model_commands(app)
app.command("fit")(fit)
app.add_typer(standards_app)

Folder = Annotated[Path, typer.Argument(help="portfolio folder (docs/portfolio-format.md)")]
RunId = Annotated[str | None, typer.Argument(help="run id; the latest run if left out")]
Cloud = Annotated[CloudName, typer.Option(help="auto: the embedded cloud if it is up, else the AWS configuration")]
Sampled = Annotated[
    Literal["on", "off"] | None,
    typer.Option(help="whether a run draws losses from their laws; as the portfolio says if left out"),
]
Stack = Annotated[str, typer.Option(envvar="RISKMILL_STACK", help="name of the CloudFormation stack")]
Json = Annotated[bool, typer.Option("--json", help="print one JSON value to standard output")]

STACK = "riskmill"


@app.command()
def version(as_json: Json = False) -> None:
    """Say which riskmill this is."""
    from riskmill.jobs import ENGINE_ABI
    from riskmill.models.kernel import KERNEL

    python = sys.version.split()[0]
    if as_json:
        facts = {"version": __version__, "engine": ENGINE_ABI, "kernel": KERNEL.name, "python": python}
        emit(facts | ({"kernel_why": KERNEL.why} if KERNEL.why else {}))
    else:
        why = f": {KERNEL.why}" if KERNEL.why else ""
        typer.echo(f"riskmill {__version__} ({ENGINE_ABI}, {KERNEL.name} kernel{why}; Python {python})")


# ---- the embedded cloud


def local_parameters() -> dict[str, str]:
    """Return template parameters for this machine: one batch a core at a time, twice as many planned."""
    cores = os.cpu_count() or 2
    return {"BatchConcurrency": str(cores), "Parallelism": str(2 * cores), "LogLevel": "WARNING"}


@local_app.command("up")
def local_up(as_json: Json = False) -> None:
    """Start the embedded cloud and deploy the template to it (or bring a running one up to date)."""
    from riskmill_local.cloud import up

    with told(as_json):
        cloud = up(root=project_root(), state_dir=state_dir(), parameters=local_parameters(), on_phase=phases(as_json))
        if as_json:
            emit(
                {
                    "endpoint": cloud.endpoint,
                    "redis": cloud.redis_url,
                    "seconds": cloud.seconds,
                    "outputs": cloud.outputs,
                }
            )
        else:
            total = sum(cloud.seconds.values())
            console.print(f"[green]up[/] at {cloud.endpoint}, cache at {cloud.redis_url} ({total:.1f} s)")


@local_app.command("down")
def local_down(as_json: Json = False) -> None:
    """Stop the embedded cloud; what it held is gone."""
    from riskmill_local.cloud import down

    with told(as_json):
        ended = down(state_dir())
        if as_json:
            emit({"processes_ended": ended})
        else:
            console.print(f"down: {ended} process(es) ended" if ended else "the embedded cloud was not up")


@local_app.command("status")
def local_status(as_json: Json = False) -> None:
    """Say whether the embedded cloud is up; exit code 1 if it is not."""
    from riskmill_local.cloud import status

    with told(as_json):
        cloud = status(state_dir())
        if as_json:
            emit({"up": cloud is not None} | ({"endpoint": cloud.endpoint, "redis": cloud.redis_url} if cloud else {}))
        else:
            console.print(f"up at {cloud.endpoint}, cache at {cloud.redis_url}" if cloud else "not up")
    raise typer.Exit(0 if cloud else 1)


# ---- portfolios


@app.command()
def validate(folder: Folder, secondary_uncertainty: Sampled = None, as_json: Json = False) -> None:
    """List every fault of a portfolio (file, row, field, what is allowed); exit code 2 if there is any."""
    from riskmill_cli.portfolio_folder import read_folder

    with told(as_json):
        portfolio = read_folder(folder, sampled=secondary_uncertainty == "on").portfolio
        facts = {"portfolio": portfolio.key, "deals": len(portfolio.deals), "trials": portfolio.trials, "faults": []}
        if as_json:
            emit(facts)
        else:
            console.print(
                f"[green]✓[/] {escape(portfolio.name)}: {len(portfolio.deals):,} deals, "
                f"{sum(len(deal.layers) for deal in portfolio.deals):,} layers, {portfolio.trials:,} trials; no fault"
            )


def _upload(deployment: Deployment, folder: Path, *, check: bool = False, sampled: bool = False) -> Uploaded:
    from riskmill_cli.portfolio_folder import read_folder

    prepared = read_folder(folder, sampled=sampled)
    return deployment.upload(prepared.portfolio.key, prepared.portfolio.to_json(), prepared.objects, check=check)


@app.command()
def upload(
    folder: Folder,
    cloud: Cloud = "auto",
    stack: Stack = STACK,
    check: Annotated[
        bool, typer.Option(help="look for every object, though the portfolio was uploaded before")
    ] = False,
    as_json: Json = False,
) -> None:
    """Validate a portfolio and upload what changed of it."""
    with told(as_json):
        done = _upload(connect(cloud, stack), folder, check=check)
        facts = {"portfolio": done.portfolio, "objects": done.objects, "uploaded": done.new, "bytes": done.bytes}
        if as_json:
            emit(facts)
        else:
            size = f"{done.bytes / 1e6:.1f} MB"
            console.print(f"portfolio {done.portfolio}: {done.new} of {done.objects} objects uploaded ({size})")


# ---- runs


def new_run_id() -> str:
    """Return a run id that begins with the time."""
    return f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"


@app.command()
def rollup(
    portfolio: Annotated[str, typer.Argument(help="portfolio folder, or the key of an uploaded portfolio")],
    cloud: Cloud = "auto",
    stack: Stack = STACK,
    wait: Annotated[bool, typer.Option(help="follow the run until it ends")] = True,
    run_id: Annotated[str | None, typer.Option(help="name of the run; made from the time if left out")] = None,
    parallelism: Annotated[int | None, typer.Option(min=1, help="batches wanted at the same time")] = None,
    max_concurrency: Annotated[int | None, typer.Option(min=1, help="batches run at the same time")] = None,
    max_batch_seconds: Annotated[float | None, typer.Option(min=0.1, help="longest batch planned")] = None,
    compute: Annotated[str | None, typer.Option(help="auto, lambda or fargate: where the batches run")] = None,
    compute_model: Annotated[
        list[str] | None, typer.Option(help="MODEL=auto|lambda|fargate, for one model; may be given again")
    ] = None,
    secondary_uncertainty: Sampled = None,
    as_json: Json = False,
) -> None:
    """Run a Risk Rollup of a portfolio, with live progress. Ctrl-C asks whether to stop the run."""
    options = {
        name: value
        for name, value in (
            ("parallelism", parallelism),
            ("max_concurrency", max_concurrency),
            ("max_batch_seconds", max_batch_seconds),
            ("compute", compute),
            ("compute_models", dict(pair.partition("=")[::2] for pair in compute_model) if compute_model else None),
            ("secondary_uncertainty", secondary_uncertainty),
        )
        if value is not None
    }
    with told(as_json):
        Wish.of(options)
        deployment = connect(cloud, stack)
        run = run_rollup(deployment, portfolio, options, run_id=run_id or new_run_id(), wait=wait, quiet=as_json)
        if as_json:
            emit(run)
        elif not wait:
            console.print(f"run {run['run_id']} started: `riskmill status {run['run_id']}`")
        elif run["status"] == "SUCCEEDED":
            _say_how_it_went(deployment, run)
        if run["status"] in ("FAILED", "CANCELLED"):
            _say_failure(run)
            raise typer.Exit(1)


def run_rollup(
    deployment: Deployment, portfolio: str, options: Mapping[str, Any], *, run_id: str, wait: bool, quiet: bool
) -> dict[str, Any]:
    """Upload a portfolio if it is a folder, start a run and follow it; return the run's item at the end."""
    key = portfolio
    if len(portfolio) != 32 or Path(portfolio).exists():
        phases(quiet)(f"validating and uploading {portfolio}")
        sampled = secondary_uncertainty_of(options) is True
        key = _upload(deployment, Path(portfolio), sampled=sampled).portfolio
    deployment.start(run_id, key, options)
    if not wait:
        return {"run_id": run_id, "status": "RUNNING", "portfolio": key}
    phases(quiet)(f"run {run_id}")
    while True:
        try:
            return _follow(deployment, run_id, quiet=quiet)
        except KeyboardInterrupt:
            if quiet or not typer.confirm(f"\nStop run {run_id}? (No leaves it running)", err=True):
                console.print(f"run {run_id} goes on: `riskmill status {run_id}`, `riskmill cancel {run_id}`")
                raise typer.Exit(130) from None
            if not deployment.has_ended(run_id):  # it may end while the question stands
                unfinished = deployment.cancel(run_id)
                console.print(f"run {run_id} stopped; {len(unfinished):,} jobs unfinished")


def _follow(deployment: Deployment, run_id: str, *, quiet: bool) -> dict[str, Any]:
    from riskmill_cli.progress import RunProgress

    last: dict[str, Any] = {}
    progress = None if quiet else RunProgress(console)
    with progress or nullcontext():
        for run in deployment.watch(run_id):
            last = run
            if progress is not None:
                progress.show(run)
    return last


def _say_how_it_went(deployment: Deployment, run: Mapping[str, Any]) -> None:
    from riskmill_cli.terminal import print_summary

    summary = deployment.summary(run["run_id"])
    print_summary(summary, console)
    console.print(
        f"[green]{run['status'].lower()}[/]: `riskmill report` writes the report, `riskmill results` the tables"
    )


def _say_failure(run: Mapping[str, Any]) -> None:
    console.print(f"[red]{run['status'].lower()}[/] {escape(run.get('error', ''))}".rstrip())
    console.print(f"`riskmill status {run['run_id']}` lists what was not made")


@app.command()
def status(run_id: RunId = None, cloud: Cloud = "auto", stack: Stack = STACK, as_json: Json = False) -> None:
    """Say how a run is doing: its waves, and what failed."""
    from riskmill_cli.progress import wave_progress, waves_of

    with told(as_json):
        deployment = connect(cloud, stack)
        run = deployment.control.run(run_id or deployment.latest_run())
        run["batches"] = deployment.control.batches(run["run_id"])
        failures = [job for job in deployment.unfinished(run["run_id"]) if job.get("error")]
        if as_json:
            emit(run | {"failures": failures})
            return
        counts = ", ".join(f"{run[n]:,} {w}" for n, w in _COUNTS.items() if n in run)
        asked = run.get("options", {}).get("secondary_uncertainty")
        also = f" · secondary uncertainty {asked}" if asked is not None else ""
        console.print(f"run [bold]{run['run_id']}[/]: {run['status']} ({run['phase']}) · {counts}{also}")
        for (round_number, wave), planned in waves_of(run):
            finished, batches = wave_progress(run, round_number, wave)
            console.print(
                f"  round {round_number + 1} wave {wave + 1}: {finished:,} of {planned['jobs']:,} jobs, "
                f"{batches} of {planned['batches']} batches"
            )
        if run.get("error"):
            console.print(f"  {run['error']}", style="red", markup=False)
        for job in failures:
            console.print(f"  {job['job']} ({job['key']}): {job['error']}", markup=False)


_COUNTS = {"jobs": "jobs", "cached": "cached", "to_run": "to run", "computed": "computed", "failed": "failed",
           "blocked": "blocked", "unfinished": "unfinished"}  # fmt: skip


@app.command()
def runs(
    cloud: Cloud = "auto",
    stack: Stack = STACK,
    limit: Annotated[int, typer.Option(min=1, max=500)] = 20,
    as_json: Json = False,
) -> None:
    """List the latest runs."""
    with told(as_json):
        found = connect(cloud, stack).control.runs(limit)
        if as_json:
            emit(found)
            return
        table = Table("run", "portfolio", "status", "started (UTC)", "seconds", "jobs", "cached", "computed", box=None)
        for run in found:
            seconds = f"{run['ended'] - run['started']:.1f}" if "ended" in run else ""
            numbers = (f"{run[name]:,}" if name in run else "" for name in ("jobs", "cached", "computed"))
            started = f"{datetime.fromtimestamp(run['started'], UTC):%Y-%m-%d %H:%M:%S}"
            table.add_row(run["run_id"], escape(run.get("name", "")), run["status"], started, seconds, *numbers)
        console.print(table)


@app.command()
def cancel(
    run_id: RunId = None,
    cloud: Cloud = "auto",
    stack: Stack = STACK,
    yes: Annotated[bool, typer.Option("--yes", help="do not ask")] = False,
    as_json: Json = False,
) -> None:
    """Stop a run, wait for its batches, and mark every job that it did not finish."""
    with told(as_json):
        deployment = connect(cloud, stack)
        if run_id is None:
            run_id = deployment.latest_run()  # it may be somebody else's
            if not yes and (as_json or not typer.confirm(f"Stop run {run_id} of stack {stack}?", err=True)):
                raise RiskmillError("no run stopped: name it, or say --yes for the latest")
        unfinished = deployment.cancel(run_id)
        if as_json:
            emit({"run_id": run_id, "unfinished": unfinished})
        else:
            console.print(f"run {run_id} stopped; {len(unfinished):,} jobs unfinished")


@app.command()
def results(
    run_id: RunId = None,
    cloud: Cloud = "auto",
    stack: Stack = STACK,
    out: Annotated[Path, typer.Option(help="folder to write the tables to")] = Path("results"),
    as_json: Json = False,
) -> None:
    """Fetch a run's tables (ORD's EPT, groups, perils, deals, layers) as CSV and Parquet (docs/results.md)."""
    from riskmill_cli.results_files import write_tables

    with told(as_json):
        deployment = connect(cloud, stack)
        summary = deployment.summary(run_id or deployment.latest_run())
        try:
            files = write_tables(summary, out)
        except OSError as error:
            raise RiskmillError(f"{error.filename or out}: {error.strerror}") from error
        if as_json:
            emit({"run_id": summary.run.run_id, "files": [str(path) for path in files]})
            return
        _say_files(files)


def _say_files(files: list[Path]) -> None:
    for path in files:
        console.print(f"  {path}", markup=False)


@app.command()
def report(
    run_id: RunId = None,
    cloud: Cloud = "auto",
    stack: Stack = STACK,
    out: Annotated[Path, typer.Option(help="HTML file to write")] = Path("report.html"),
    as_json: Json = False,
) -> None:
    """Write a run's report: one HTML file that needs no network."""
    with told(as_json):
        deployment = connect(cloud, stack)
        path = write_report(deployment, run_id or deployment.latest_run(), out)
        if as_json:
            emit({"file": str(path)})
        else:
            console.print(f"report: {path.as_uri()}", soft_wrap=True)


def write_report(deployment: Deployment, run_id: str, out: Path) -> Path:
    """Write a run's report and return its absolute path. Raises RiskmillError when the file cannot be written."""
    from riskmill_cli.report import render_report

    page = render_report(deployment.summary(run_id))
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(page, encoding="utf-8")
    except OSError as error:
        raise RiskmillError(f"{out}: {error.strerror}") from error
    return out.resolve()


@app.command()
def simulate(
    folder: Annotated[Path | None, typer.Argument(help="portfolio folder; else one is invented by size")] = None,
    deals: Annotated[int, typer.Option(min=1, help="deals of the invented portfolio")] = 7_000,
    trials: Annotated[int, typer.Option(min=1, help="trials of the invented portfolio")] = 1_000_000,
    input_tb: Annotated[float, typer.Option(min=0, help="terabytes that the pricing jobs read in all")] = 0.0,
    work_hours: Annotated[float, typer.Option(min=0, help="hours of all models together; 0: measured rates")] = 0.0,
    tasks: Annotated[int, typer.Option(min=1, help="Fargate tasks at the most")] = 3_000,
    compute: Annotated[str, typer.Option(help="auto, lambda or fargate")] = "fargate",
    scaling: Annotated[str, typer.Option(help="run-task (the scaler) or service (target tracking)")] = "run-task",
    cold_s3: Annotated[bool, typer.Option(help="S3 has no partitions for the prefixes yet")] = False,
    measured: Annotated[bool, typer.Option(help="take the rates that the deployed stack has measured")] = False,
    cloud: Cloud = "auto",
    stack: Stack = STACK,
    out: Annotated[Path | None, typer.Option(help="HTML file for charts")] = None,
    as_json: Json = False,
) -> None:
    """Predict a run on AWS: time, tasks, cost and bottleneck, by the planner's waves and the scaler's own code."""
    from riskmill_cli import simulate as simulator
    from riskmill_cli.portfolio_folder import read_folder
    from riskmill_cli.simulation import Assumptions

    with told(as_json):
        if scaling not in ("run-task", "service"):
            raise RiskmillError(f"--scaling {scaling!r}: run-task or service")
        portfolio = read_folder(folder).portfolio if folder else simulator.invented(deals, trials)
        answer = simulator.predict(
            portfolio,
            wish=Wish.of({"compute": compute}),
            size=simulator.Size(input_bytes=input_tb * 1e12, work_hours=work_hours),
            given=Assumptions(max_tasks=tasks, s3_prefixes=1 if cold_s3 else 256),
            scaling="service" if scaling == "service" else "run-task",
            rates=connect(cloud, stack).control.rates() if measured else None,
        )
        outcome = answer.pop("outcome")
        charts = simulator.write_charts(outcome, out) if out else None
        if as_json:
            emit(answer | ({"charts": str(charts)} if charts else {}))
            return
        console.print(
            f"{answer['jobs']:,} jobs in {answer['waves']} waves, {answer['work_hours']:,.1f} hours of work: "
            f"[bold]{answer['seconds'] / 60:,.1f} minutes[/] with up to {answer['most_tasks']:,} tasks, "
            f"[bold]${answer['cost']:,.2f}[/]; bottleneck: {answer['bottleneck']} (simulated)"
        )
        for what, requests in sorted(answer["throttled"].items()):
            console.print(f"  {requests:,} requests waited for {what}")
        if charts:
            console.print(f"charts: {charts.as_uri()}", soft_wrap=True)


@app.command()
def demo(
    keep: Annotated[bool, typer.Option(help="leave the embedded cloud up at the end")] = False,
    out: Annotated[Path, typer.Option(help="HTML file to write the report to")] = Path("report.html"),
) -> None:
    """Run the example portfolio (300 deals x 20,000 trials) through the whole machine, on this machine."""
    from riskmill_cli.demo import run_demo

    with told(as_json=False):
        run_demo(keep=keep, out=out)


def main() -> None:
    """Entry point of the `riskmill` command."""
    app()


if __name__ == "__main__":
    main()
