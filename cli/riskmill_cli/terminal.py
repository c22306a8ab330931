"""The headline figures of a rollup in the terminal."""

from rich.console import Console
from rich.table import Table
from rich.text import Text

from riskmill.results import EpPoint, Summary, summary_ids
from riskmill_cli.figures import UNDEFINED, compact, duration, percent

TOP_DEALS = 10

_STYLES = {"gross": "bold", "ceded": "dim", "net": "cyan"}


def print_summary(summary: Summary, console: Console) -> None:
    """Print figures per group and perspective, the top deals by co-TVaR, and how the run went."""
    facts, run = summary.portfolio, summary.run
    console.print(
        Text.assemble(
            (facts.name, "bold"),
            f"  as at {facts.as_at}  {facts.trials:,} trials  {facts.deals:,} deals, {facts.layers:,} layers",
            f"  amounts in {facts.currency}",
        )
    )
    console.print(_groups(summary))
    if summary.deals:
        console.print(_deals(summary))
    where = ", ".join(f"{count:,} on {name}" for name, count in sorted(run.compute.items()))
    console.print(
        f"{run.jobs:,} jobs: {run.cached:,} cached, {run.computed:,} computed, {run.failed:,} failed; "
        f"{run.batches:,} batches{f' ({where})' if where else ''}, {run.rounds} rounds, {duration(run.seconds)}",
        highlight=False,
    )
    for error in summary.errors:
        console.print(Text(f"failed: {error.model} {error.subject}: {error.message}", style="red"))


def _groups(summary: Summary) -> Table:
    tail = f"TVaR {summary.tail * 100:g}%"
    table = Table(title="Groups", title_justify="left", header_style="bold")
    table.add_column("Group")
    table.add_column("Perspective")
    for heading in ("AAL", "± s.e.", "OEP 1/100", "OEP 1/250", "AEP 1/100", "AEP 1/250", tail):
        table.add_column(heading, justify="right", no_wrap=True)
    previous = ""
    for _, group in summary_ids(summary):
        if previous and previous != group.group_id:
            table.add_section()
        hundred, quarter, worst = group.at(100), group.at(250), group.at(summary.tail_return_period)
        cells = [compact(group.aal), compact(group.aal_se)]
        cells += [_oep(hundred), _oep(quarter), _aep(hundred), _aep(quarter)]
        cells.append(compact(worst.aep_tvar) if worst else UNDEFINED)
        name = group.group_name if group.group_id != previous else ""
        style = _STYLES[group.perspective]
        table.add_row(Text(name), Text(group.perspective, style=style), *(Text(cell, style=style) for cell in cells))
        previous = group.group_id
    return table


def _oep(point: EpPoint | None) -> str:
    return compact(point.oep if point else None)


def _aep(point: EpPoint | None) -> str:
    return compact(point.aep if point else None)


def _deals(summary: Summary) -> Table:
    table = Table(title=f"Top {TOP_DEALS} deals by co-TVaR (gross)", title_justify="left", header_style="bold")
    for heading in ("Deal", "Cedant", "Business unit"):
        table.add_column(heading)
    for heading in ("Premium", "AAL", "co-TVaR", "Share"):
        table.add_column(heading, justify="right", no_wrap=True)
    ordered = sorted(summary.deals, key=lambda deal: (-(deal.co_tvar or 0.0), deal.deal_id))
    for deal in ordered[:TOP_DEALS]:
        figures = (compact(deal.premium), compact(deal.aal), compact(deal.co_tvar), percent(deal.share_of_tvar))
        table.add_row(Text(deal.deal_id), Text(deal.cedant), Text(deal.business_unit), *figures)
    return table
