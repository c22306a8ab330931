"""The headline figures of a rollup in the terminal."""

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from riskmill.results import EpPoint, FittedFigure, Summary, summary_ids
from riskmill_cli.figures import UNDEFINED, compact, duration, law_name, number, percent

TOP_DEALS = 10

#: Columns of a terminal from which figures of two return periods fit.
WIDE_TERMINAL = 110

#: Return periods of the fitted tail that are shown.
_TAIL_PERIODS = (250, 1_000, 10_000)

#: Columns that a figure needs; where a terminal is narrow, names give way, never figures.
FIGURE_WIDTH = 6

#: Perspective of a group whose losses nothing is ceded of.
UNTOUCHED = "gross=net"

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
    console.print(f"secondary uncertainty {'on' if summary.sampled else 'off'}", highlight=False)
    console.print(_groups(summary, console.width))
    top = summary.top("gross")
    if top is not None and top.perils:
        console.print(_perils(summary, wide=console.width >= WIDE_TERMINAL))
    if summary.deals:
        console.print(_deals(summary, console.width))
    if summary.tail_fits:
        console.print(_tails(summary, wide=console.width >= WIDE_TERMINAL))
    if summary.record_fits:
        console.print(_records(summary, wide=console.width >= WIDE_TERMINAL))
    where = ", ".join(f"{count:,} on {name}" for name, count in sorted(run.compute.items()))
    console.print(
        f"{run.jobs:,} jobs: {run.cached:,} cached, {run.computed:,} computed{f' ({where})' if where else ''}, "
        f"{run.failed:,} failed; {run.batches:,} batches, "
        f"{run.rounds} round{'' if run.rounds == 1 else 's'}, {duration(run.seconds)}",
        highlight=False,
    )
    for why, count in sorted(run.why.items()):
        if why.startswith("fargate"):
            console.print(f"{count:,} on {why}", highlight=False)
    for error in summary.errors:
        console.print(Text(f"failed: {error.model} {error.subject}: {error.message}", style="red"))


def _groups(summary: Summary, width: int) -> Table:
    """Return the table of groups; a narrow terminal gets the figures of one return period only."""
    tail = f"TVaR {summary.tail * 100:g}%"
    wide = width >= WIDE_TERMINAL
    table = Table(title="Groups", title_justify="left", header_style="bold", box=SIMPLE_HEAD)
    figures = (7 if wide else 5) * (FIGURE_WIDTH + 5)
    table.add_column(
        "Group", overflow="ellipsis", no_wrap=True, max_width=max(10, width - figures - len(UNTOUCHED) - 6)
    )
    table.add_column("", no_wrap=True)
    headings = ("AAL", "± s.e.", *(f"{x} 1/{period}" for x in ("OEP", "AEP") for period in _periods(wide)), tail)
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    ceded = {group.group_id for group in summary.groups if group.perspective == "ceded"}
    previous = ""
    for _, group in summary_ids(summary):
        untouched = group.group_id not in ceded
        if untouched and group.perspective == "net":
            continue  # nothing is ceded: the row of the gross figures says so
        if previous and previous != group.group_id:
            table.add_section()
        worst = group.at(summary.tail_return_period)
        cells = [compact(group.aal), compact(group.aal_se)]
        cells += [_oep(group.at(period)) for period in _periods(wide)]
        cells += [_aep(group.at(period)) for period in _periods(wide)]
        cells.append(compact(worst.aep_tvar) if worst else UNDEFINED)
        name = group.group_name if group.group_id != previous else ""
        style = _STYLES[group.perspective]
        perspective = UNTOUCHED if untouched else group.perspective
        table.add_row(Text(name), Text(perspective, style=style), *(Text(cell, style=style) for cell in cells))
        previous = group.group_id
    return table


def _perils(summary: Summary, *, wide: bool) -> Table:
    """Return the table of the top group's perils, gross, the largest part of the tail first.

    Standard errors stand where a terminal is wide.
    """
    tail = f"TVaR {summary.tail * 100:g}%"
    table = Table(title="Perils (gross)", title_justify="left", header_style="bold", box=SIMPLE_HEAD)
    table.add_column("Peril", overflow="ellipsis", no_wrap=True, max_width=24)
    error = ("± s.e.",) if wide else ()
    for heading in ("AAL", *error, "OEP 1/100", "AEP 1/100", "co-TVaR", *error, f"of {tail}"):
        table.add_column(heading, justify="right", no_wrap=True)
    top = summary.top("gross")
    for peril in sorted(top.perils if top else (), key=lambda peril: -(peril.co_tvar or 0.0)):
        point = peril.at(100)
        aal, co_tvar = (
            ([peril.aal, peril.aal_se], [peril.co_tvar, peril.co_tvar_se]) if wide else ([peril.aal], [peril.co_tvar])
        )
        losses = (point.oep, point.aep) if point else (None, None)
        part = peril.co_tvar / summary.tvar if peril.co_tvar is not None and summary.tvar else None
        cells = [compact(value) for value in (*aal, *losses, *co_tvar)]
        table.add_row(Text(peril.peril), *cells, percent(part))
    return table


def _tails(summary: Summary, *, wide: bool) -> Table:
    """Return the fitted tails at the share of years nearest to that of the summary's TVaR; reports have all.

    Limits stand where a terminal is wide.
    """
    share = min((fit.share for fit in summary.tail_fits), key=lambda share: abs(share - (1 - summary.tail)))
    title = f"Fitted tail: the worst {share * 100:g}% of years (other thresholds, limits: report)"
    table = Table(title=title, title_justify="left", header_style="bold", box=SIMPLE_HEAD)
    for heading in ("", "", "Shape", "AD p", *(f"1/{period:,}" for period in _TAIL_PERIODS)):
        table.add_column(heading, justify="right" if heading else "left", no_wrap=True)
    for fit in summary.tail_fits:
        if fit.share != share:
            continue
        at = dict(zip(fit.return_period, zip(fit.loss, fit.low, fit.high, strict=True), strict=True))
        losses = []
        for period in _TAIL_PERIODS:
            loss, low, high = at.get(period, (None, None, None))
            losses.append(compact(loss) + ("" if low is None or not wide else f" ({compact(low)}-{compact(high)})"))
        shape = "below -0.5" if fit.shape is None and fit.excesses else number(fit.shape, 2)
        table.add_row(
            Text(fit.perspective, style=_STYLES[fit.perspective]), fit.kind.upper(), shape, number(fit.ad_p, 2), *losses
        )
    return table


def _records(summary: Summary, *, wide: bool) -> Table:
    """Return the preferred laws of each peril's record; reports have all. Limits stand where a terminal is wide."""
    table = Table(title="Recorded losses (all laws, limits: report)", title_justify="left", header_style="bold")
    table.box = SIMPLE_HEAD
    for heading in ("Peril", "Losses", "A year", "Number", "Size", "Mean above threshold"):
        table.add_column(heading, justify="right" if heading in ("Losses", "A year") else "left")
    for record in summary.record_fits:
        laws = {law.kind: law for law in record.laws if law.preferred}
        severity = laws.get("severity")
        refused = [law for law in record.laws if law.kind == "severity" and law.refused]
        size = UNDEFINED if severity is None else law_name(severity.law)
        mean = severity.mean if severity else None
        note = f"; refused: {', '.join(law_name(law.law) for law in refused)}" if refused else ""
        table.add_row(
            Text(record.peril),
            f"{record.losses:,}",
            _with_limits(record.rate, wide),
            law_name(laws["frequency"].law) if "frequency" in laws else UNDEFINED,
            Text(size + note),
            _with_limits(mean, wide) if mean else UNDEFINED,
        )
    return table


def _with_limits(figure: FittedFigure, wide: bool) -> str:
    if not wide or (figure.low is None and figure.high is None and not figure.infinite):
        return number(figure.value)
    return f"{number(figure.value)} ({number(figure.low)} to {'∞' if figure.infinite else number(figure.high)})"


def _periods(wide: bool) -> tuple[int, ...]:
    return (100, 250) if wide else (100,)


def _oep(point: EpPoint | None) -> str:
    return compact(point.oep if point else None)


def _aep(point: EpPoint | None) -> str:
    return compact(point.aep if point else None)


def _deals(summary: Summary, width: int) -> Table:
    table = Table(title=f"Top {TOP_DEALS} deals by co-TVaR (gross)", title_justify="left", header_style="bold")
    table.box = SIMPLE_HEAD
    table.add_column("Deal", overflow="ellipsis", no_wrap=True, max_width=14)
    names = max(10, (width - 14 - 4 * (FIGURE_WIDTH + 4) - 6) // 2)
    for heading in ("Cedant", "Business unit"):
        table.add_column(heading, overflow="ellipsis", no_wrap=True, max_width=names)
    for heading in ("Premium", "AAL", "co-TVaR", "Share"):
        table.add_column(heading, justify="right", no_wrap=True)
    ordered = sorted(summary.deals, key=lambda deal: (-(deal.co_tvar or 0.0), deal.deal_id))
    for deal in ordered[:TOP_DEALS]:
        figures = (compact(deal.premium), compact(deal.aal), compact(deal.co_tvar), percent(deal.share_of_tvar))
        table.add_row(Text(deal.deal_id), Text(deal.cedant), Text(deal.business_unit), *figures)
    return table
