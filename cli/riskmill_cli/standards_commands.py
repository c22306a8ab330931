"""Commands for the market's standards: OED reinsurance files in and out, ORD results out."""

from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.markup import escape

from riskmill_cli.session import console, emit, told

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
