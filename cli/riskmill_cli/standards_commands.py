"""Commands for the market's standards: OED reinsurance files in and out, ORD results out."""

from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.markup import escape

from riskmill_cli.session import CloudName, connect, console, emit, told

standards_app = typer.Typer()

Json = Annotated[bool, typer.Option("--json", help="print one JSON value to standard output")]


@standards_app.command("import-oed")
def import_oed(
    reins_info: Annotated[Path, typer.Argument(help="OED ReinsInfo, CSV or Parquet")],
    reins_scope: Annotated[Path, typer.Argument(help="OED ReinsScope, CSV or Parquet")],
    portfolio: Annotated[Path, typer.Option(help="portfolio folder that the contracts cover")],
    out: Annotated[Path, typer.Option(help="folder to write: a copy with the contracts in it")],
    as_: Annotated[
        Literal["outwards", "layers"],
        typer.Option("--as", help="outwards: reinsurance that we buy; layers: cedants' programmes that we write"),
    ] = "outwards",
    replace: Annotated[
        bool, typer.Option("--replace", help="in place of the outwards contracts, or of the deals' layers")
    ] = False,
    as_json: Json = False,
) -> None:
    """Import OED reinsurance files into a copy of a portfolio folder (docs/standards.md)."""
    from riskmill_cli import oed_files

    with told(as_json):
        done = oed_files.import_oed(reins_info, reins_scope, portfolio, out, side=as_, replace=replace)
        if as_json:
            emit({"folder": str(done.folder), "contracts": done.contracts, "notes": done.notes})
            return
        for note in done.notes:
            console.print(f"[yellow]·[/] {escape(note)}")
        console.print(f"[green]✓[/] {done.contracts} contracts as {as_} in {escape(str(done.folder))}")


@standards_app.command("export-oed")
def export_oed(
    portfolio: Annotated[Path, typer.Argument(help="portfolio folder")],
    out: Annotated[Path, typer.Option(help="folder to write ReinsInfo.csv and ReinsScope.csv to")] = Path("oed"),
    as_json: Json = False,
) -> None:
    """Export a portfolio's outwards contracts as OED reinsurance files."""
    from riskmill_cli import oed_files

    with told(as_json):
        files = [str(path) for path in oed_files.export_oed(portfolio, out)]
        if as_json:
            emit({"files": files})
            return
        for name in files:
            console.print(f"  {name}", markup=False)


@standards_app.command("export-ord")
def export_ord(
    run_id: Annotated[str | None, typer.Argument(help="run id; the latest run if left out")] = None,
    cloud: Annotated[CloudName, typer.Option(help="auto, local or aws")] = "auto",
    stack: Annotated[str, typer.Option(envvar="RISKMILL_STACK", help="name of the CloudFormation stack")] = "riskmill",
    out: Annotated[Path, typer.Option(help="folder to write the tables to")] = Path("ord"),
    group: Annotated[
        list[str] | None, typer.Option(help="group of the period loss tables, several times; the top group if left out")
    ] = None,
    periods: Annotated[bool, typer.Option(help="write period loss tables: a row for each loss")] = True,
    as_json: Json = False,
) -> None:
    """Export a run's results as ORD: EPT, ALT, PSEPT, MPLT and SPLT as CSV and Parquet (docs/standards.md)."""
    from riskmill_cli.ord_files import write_ord

    with told(as_json):
        deployment = connect(cloud, stack)
        run = run_id or deployment.latest_run()
        files = [str(path) for path in write_ord(deployment, run, out, (group or None) if periods else ())]
        if as_json:
            emit({"run_id": run, "files": files})
            return
        for name in files:
            console.print(f"  {name}", markup=False)
