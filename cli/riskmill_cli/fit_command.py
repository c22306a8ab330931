"""`riskmill fit`: frequency and severity of a record of losses, as a table, as JSON and as one HTML page."""

import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from riskmill.checks import FaultList
from riskmill.errors import ModelError, RiskmillError
from riskmill.models.occurrences import F64, I64
from riskmill_cli.figures import UNDEFINED, law_name
from riskmill_cli.figures import number as significant
from riskmill_cli.session import BAD_INPUT, FAULTS_SHOWN, console, emit, told

#: Resamples of the bootstrap when none are asked for.
BOOTSTRAP = 200

#: A preferred law with a p-value below this is pointed out; so is a trend.
POOR_FIT = TREND = 0.05


@dataclass(frozen=True, slots=True)
class GroupFit:
    """What was fitted to one group of losses; `losses` [n], those above the threshold, are for its plots."""

    name: str
    losses: F64
    figures: dict[str, Any]


def fit(
    losses: Annotated[Path, typer.Argument(help="CSV with a header and one loss a row (docs/fitting.md)")],
    loss_column: Annotated[str | None, typer.Option(help="column of amounts; `loss` if left out")] = None,
    date_column: Annotated[
        str | None, typer.Option(help="column of dates (2005-08-25) or years; `date` if left out and there is one")
    ] = None,
    by: Annotated[str | None, typer.Option(help="column whose values are fitted apart, such as peril")] = None,
    threshold: Annotated[float, typer.Option(min=0, help="losses above this are counted and fitted")] = 0.0,
    maximum: Annotated[
        float | None, typer.Option(help="largest possible loss: truncates the means, which makes infinite ones finite")
    ] = None,
    years: Annotated[
        str | None, typer.Option(help="years that the record covers, as 1980-2023; first to last loss if left out")
    ] = None,
    bootstrap: Annotated[
        int, typer.Option(min=0, max=100_000, help="resamples for intervals and p-values; 0 for none")
    ] = BOOTSTRAP,
    seed: Annotated[int, typer.Option(min=0, max=2**63 - 1, help="seed of the resamples")] = 0,
    out: Annotated[Path, typer.Option(help="HTML file to write")] = Path("fit.html"),
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON value to standard output")] = False,
) -> None:
    """Fit laws of frequency and severity to losses; prints a table and writes a page of plots."""
    from riskmill_cli.loss_file import LossesInvalid, read_losses

    with told(as_json):
        try:
            record = read_losses(losses, loss_column=loss_column, date_column=date_column, by=by)
            top = math.inf if maximum is None else maximum
            _check_maximum(record.file, record.losses, record.lines, threshold, top, loss_column)
            span = _span(record.file, years, record.years, record.lines, date_column)
        except LossesInvalid as error:
            if as_json:
                emit({"error": "LossesInvalid", "faults": error.faults})
            for fault in error.faults[:FAULTS_SHOWN]:
                console.print(f"[red]✗[/] {escape(fault)}", soft_wrap=True)
            if len(error.faults) > FAULTS_SHOWN:
                console.print(f"… and {len(error.faults) - FAULTS_SHOWN} more (--json lists all)")
            raise typer.Exit(BAD_INPUT) from error
        settings = {
            "file": record.file,
            "rows": record.losses.size,
            "threshold": threshold,
            "maximum": maximum,
            "years": None if span is None else list(span),
            "bootstrap": bootstrap,
            "seed": seed,
        }
        fits = []
        for name in sorted(set(record.groups)):
            chosen = np.array([group == name for group in record.groups]) & (record.losses > threshold)
            dated = [None if x is None else x[chosen] for x in (record.years, record.months, record.days)]
            fits.append(_fit_group(name or "all losses", record.losses[chosen], dated, span, settings))
        if not any(group.figures["severity"] or group.figures["frequency"] for group in fits):
            raise ModelError(f"{record.file}: nothing can be fitted: {'; '.join(fits[0].figures['notes'])}")
        page = _write_page(settings, fits, out)
        if as_json:
            emit(settings | {"groups": [group.figures for group in fits], "page": str(page)})
        else:
            for group in fits:
                _print_group(settings, group)
            console.print(f"plots: {page.as_uri()}", soft_wrap=True)


def _check_maximum(file: str, losses: F64, lines: I64, threshold: float, maximum: float, column: str | None) -> None:
    from riskmill_cli.loss_file import LOSS_COLUMN, LossesInvalid

    faults = FaultList()
    if maximum <= threshold or math.isnan(maximum) or not math.isfinite(threshold):
        faults.add(file, None, f"--maximum {maximum:g} is not above --threshold {threshold:g}")
    else:
        faults.add_rows(
            file,
            column or LOSS_COLUMN,
            np.flatnonzero(losses > maximum).tolist(),
            kind="is above --maximum",
            allowed=f"at most {maximum:.15g}",
            line=lambda row: int(lines[row]),
            problem=lambda row: f"{losses[row]:.15g} is above --maximum",
        )
    if faults:
        raise LossesInvalid(faults)


def _span(file: str, text: str | None, years: I64 | None, lines: I64, column: str | None) -> tuple[int, int] | None:
    """Return the first and last year that the record covers; None without dates."""
    from riskmill_cli.loss_file import DATE_COLUMN, LossesInvalid

    faults = FaultList()
    if years is None:
        if text is None:
            return None
        faults.add(file, None, "--years is of no use without a column of dates; --date-column names it")
        raise LossesInvalid(faults)
    if text is None:
        return int(years.min()), int(years.max())
    match = re.fullmatch(r"([0-9]{4})-([0-9]{4})", text)
    if match is None or int(match[1]) > int(match[2]):
        faults.add(file, None, f"--years {text!r} is not a span of years", "first-last, such as 1980-2023")
        raise LossesInvalid(faults)
    first, last = int(match[1]), int(match[2])
    faults.add_rows(
        file,
        column or DATE_COLUMN,
        np.flatnonzero((years < first) | (years > last)).tolist(),
        kind="is outside --years",
        allowed=text,
        line=lambda row: int(lines[row]),
        problem=lambda row: f"{years[row]} is outside --years",
    )
    if faults:
        raise LossesInvalid(faults)
    return first, last


def _fit_group(
    name: str, losses: F64, dated: list[I64 | None], span: tuple[int, int] | None, settings: Mapping[str, Any]
) -> GroupFit:
    from riskmill.models.frequency_fits import fit_counts, fit_season
    from riskmill.models.severity_fits import fit_severities, severity_trend

    threshold, maximum = settings["threshold"], settings["maximum"]
    bootstrap, seed = settings["bootstrap"], settings["seed"]
    years, months, days = dated
    figures: dict[str, Any] = {
        "name": name,
        "losses": losses.size,
        "total": float(losses.sum()),
        "largest": float(losses.max()) if losses.size else None,
        "frequency": None,
        "season": None,
        "severity": [],
        "preferred": None,
        "severity_trend": None,
        "notes": [],
    }
    notes: list[str] = figures["notes"]
    if years is None or span is None:
        notes.append("no column of dates: no frequency, season or trend")
    else:
        counts = np.bincount(years - span[0], minlength=span[1] - span[0] + 1)
        try:
            report = fit_counts(counts, bootstrap=bootstrap, seed=seed)
            figures["frequency"] = _plain(asdict(report))
            if report.growth_p < TREND:
                notes.append(
                    f"the number of losses has a trend ({report.growth * 100:+.1f}% a year, p {report.growth_p:.2g}): "
                    "the rate of all years is not today's"
                )
        except ModelError as error:
            notes.append(f"frequency: {error}")
        if months is not None and days is not None and months.size:
            figures["season"] = _plain(asdict(fit_season(months, days)))
        when: F64 = years + (np.zeros(years.size) if days is None else days / 365)
        trend = severity_trend(when, losses)
        figures["severity_trend"] = None if trend is None else _plain(asdict(trend))
    try:
        top = math.inf if maximum is None else maximum
        fits = fit_severities(losses, threshold, maximum=top, bootstrap=bootstrap, seed=seed)
    except ModelError as error:
        notes.append(f"severity: {error}")
        return GroupFit(name, losses, figures)
    figures["severity"] = [_plain(asdict(law)) for law in fits]
    for law in fits:
        if law.refused:
            notes.append(f"{law_name(law.law)}: refused, {law.refused}{' (--maximum)' if law.parameters else ''}")
        elif law.infinite_share:
            notes.append(f"{law_name(law.law)}: {law.infinite_share:.1%} of the resamples have an infinite mean")
        if law.failed_share:
            notes.append(
                f"{law_name(law.law)}: {law.failed_share:.1%} of the resamples have no such law; "
                "intervals leave them out"
            )
    ranked = sorted((law.aic, law.law) for law in fits if law.aic is not None and not law.refused)
    figures["preferred"] = ranked[0][1] if ranked else None
    for law in fits:
        if law.refused and law.aic is not None and ranked and law.aic < ranked[0][0]:
            notes.append(
                f"{law_name(law.law)}: is refused, yet its AIC is lower than the {law_name(ranked[0][1])}'s: "
                "with a maximum (--maximum) it would be preferred"
            )
    for law in fits:
        worst = min((p for p in (law.ks_p, law.ad_p) if p is not None), default=1.0)
        if law.law == figures["preferred"] and worst < POOR_FIT:
            notes.append(f"{law_name(law.law)}: has the lowest AIC, but fits poorly (p {worst:.2g})")
    return GroupFit(name, losses, figures)


def _plain(value: Any) -> Any:
    """Return a value as JSON has it: what is infinite or undefined is null."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _write_page(settings: Mapping[str, Any], fits: list[GroupFit], out: Path) -> Path:
    from riskmill_cli.fit_page import render_fit

    page = render_fit(settings, [(group.losses, group.figures) for group in fits])
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(page, encoding="utf-8")
    except OSError as error:
        raise RiskmillError(f"{out}: {error.strerror}") from error
    return out.resolve()


# ---- on the terminal


def number(value: float | None) -> str:
    """Return four significant digits, without an exponent where they can be read without; a dash for None."""
    if value is None:
        return UNDEFINED
    return f"{value:,.0f}" if 9999.5 <= abs(value) < 1e15 else f"{value:.4g}"


def estimate(value: Mapping[str, Any] | None, infinite_share: float | None = 0.0) -> str:
    """Return a figure and its interval; an end that is infinite is written as such."""
    if value is None:
        return UNDEFINED
    if value["low"] is None and value["high"] is None and not infinite_share:
        return number(value["value"])
    low, high = (number(end) if end is not None else "∞" for end in (value["low"], value["high"]))
    return f"{number(value['value'])} ({low} to {high})"


def severity_rows(figures: Mapping[str, Any]) -> list[list[str]]:
    """Return the cells of the severity table: one row a law."""
    rows = []
    for law in figures["severity"]:
        star = " *" if law["law"] == figures["preferred"] else ""
        parameters = ", ".join(f"{name} {estimate(value)}" for name, value in law["parameters"].items())
        mean = (
            estimate(law["mean"], law["infinite_share"]) if law["mean"] else "refused" if law["refused"] else UNDEFINED
        )
        tests = [significant(law[name]) for name in ("ks", "ks_p", "ad", "ad_p")]
        likelihood = [f"{law[name]:.2f}" if law[name] is not None else UNDEFINED for name in ("log_likelihood", "aic")]
        rows.append([law_name(law["law"]) + star, parameters or UNDEFINED, mean, *likelihood, *tests])
    return rows


def frequency_rows(figures: Mapping[str, Any]) -> list[list[str]]:
    """Return the cells of the frequency table: one row a law."""
    frequency = figures["frequency"]
    rows = []
    for law in frequency["laws"] if frequency else ():
        star = " *" if law["law"] == frequency["law"] else ""
        parameters = ", ".join(f"{law_name(name)} {estimate(value)}" for name, value in law["parameters"].items())
        tests = [significant(law[name]) for name in ("ks", "ks_p", "ad", "ad_p")]
        likelihood = [f"{law[name]:.2f}" if law[name] is not None else UNDEFINED for name in ("log_likelihood", "aic")]
        rows.append([law_name(law["law"]) + star, parameters or f"refused: {law['refused']}", *likelihood, *tests])
    return rows


_TESTS = ("log likelihood", "AIC", "KS", "p", "AD", "p")
SEVERITY_HEAD = ("severity", "parameters", "mean loss above threshold", *_TESTS)
FREQUENCY_HEAD = ("frequency", "parameters", *_TESTS)


def facts(figures: Mapping[str, Any]) -> list[str]:
    """Return what the tables do not say, a sentence each."""
    lines = []
    if frequency := figures["frequency"]:
        lines.append(
            f"{frequency['events']:,} losses in {frequency['years']} years: rate {estimate(frequency['rate'])}, "
            f"variance to mean {estimate(frequency['variance_to_mean'])}, "
            f"dispersion p {frequency['dispersion_p']:.2g}: "
            f"{'no clustering shown' if frequency['clustering'] == 'none shown' else frequency['clustering']}"
        )
        lines.append(
            f"trend of the number: {frequency['growth'] * 100:+.1f}% a year (p {frequency['growth_p']:.2g}), Spearman "
            f"{frequency['spearman']:.2f} (p {frequency['spearman_p']:.2g}); variance to mean about the trend "
            f"{frequency['dispersion_about_trend']:.2f} (p {frequency['dispersion_about_trend_p']:.2g})"
        )
    if trend := figures["severity_trend"]:
        lines.append(
            f"trend of the size: {trend['growth'] * 100:+.1f}% a year (p {trend['growth_p']:.2g}), Spearman "
            f"{trend['spearman']:.2f} (p {trend['spearman_p']:.2g})"
        )
    if season := figures["season"]:
        weights = ";".join(f"{weight:.3g}" for weight in season["weights"])
        lines.append(f"season, January to December: {weights} (Rayleigh p {season['rayleigh_p']:.2g})")
    return lines


def _print_group(settings: Mapping[str, Any], group: GroupFit) -> None:
    # Tables are the command's answer, so they go to standard output.
    screen = Console(highlight=False)
    figures = group.figures
    screen.print(f"\n[bold]{escape(group.name)}[/]: {figures['losses']:,} losses above {number(settings['threshold'])}")
    for head, rows in ((FREQUENCY_HEAD, frequency_rows(figures)), (SEVERITY_HEAD, severity_rows(figures))):
        if rows:
            table = Table(box=None, pad_edge=False, header_style="dim")
            for at, title in enumerate(head):
                table.add_column(title, justify="left" if at < 2 else "right")
            for row in rows:
                table.add_row(*row)
            screen.print(table)
    for line in facts(figures):
        screen.print(f"  {line}", markup=False)
    for note in figures["notes"]:
        screen.print(f"  [yellow]![/] {escape(note)}")
