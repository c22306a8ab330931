"""The run report: one HTML file that works without a network, from a rollup's summary.

The figures that matter (headline tiles, groups, run facts, failures, notes) are written as HTML here. The charts and
the table of deals are drawn by `report_assets/report.js` from data embedded in the page; both the data and plotly.js
are embedded gzipped in base64, which keeps a report of 7,000 deals under 4 MB.

Nothing of a portfolio's text is ever markup: it is escaped here, set as text there, and the page's content security
policy allows neither the network nor any script but ours. The same summary gives the same bytes.
"""

import base64
import gzip
import hashlib
import json
import math
from collections.abc import Iterable, Sequence
from functools import cache
from html import escape
from itertools import pairwise
from pathlib import Path
from string import Template
from typing import Any

from plotly.offline import get_plotlyjs

from riskmill.results import PERSPECTIVES, EpPoint, GroupResult, PerilResult, Summary
from riskmill_cli.figures import UNDEFINED, compact, duration, interval, percent
from riskmill_cli.report_fits import fits_sections

_DEAL_COLUMNS = (
    "deal_id",
    "cedant",
    "business_unit",
    "premium",
    "limit",
    "aal",
    "sd",
    "co_tvar",
    "share_of_tvar",
    "net_co_tvar",
    "marginal_tvar",
    "aal_se",
    "sd_se",
    "co_tvar_se",
    "share_of_tvar_se",
    "net_co_tvar_se",
    "marginal_tvar_se",
)
_LAYER_COLUMNS = (
    "layer_id",
    "type",
    "expected_loss",
    "sd",
    "prob_attach",
    "prob_exhaust",
    "expected_reinstatement_premium",
    "loss_on_line",
    "rate_on_line",
    "technical_premium",
    "premium",
    "limit",
    "expected_loss_se",
    "sd_se",
    "prob_attach_low",
    "prob_attach_high",
    "prob_exhaust_low",
    "prob_exhaust_high",
    "expected_reinstatement_premium_se",
    "loss_on_line_se",
    "technical_premium_se",
)
_PERIL_FIGURES = (
    "aal",
    "aal_se",
    "sd",
    "sd_se",
    "prob_loss",
    "prob_loss_low",
    "prob_loss_high",
    "tvar",
    "tvar_se",
    "co_tvar",
    "co_tvar_se",
    "marginal_tvar",
    "marginal_tvar_se",
)
#: what the page shows of a peril's exceedance figures
_PERIL_POINT = ("return_period", "oep", "oep_low", "oep_high", "aep", "aep_low", "aep_high")
_STATUS = {"SUCCEEDED": "Complete", "FAILED": "Failed"}
#: a list longer than this is no help on a page; the run's error file has them all
_FAILURES_SHOWN = 200
#: return periods of the chart's curves, with one step of 5% beyond either end of its axis
_FIRST, _LAST = 2 / 1.06, 1000 * 1.06


def render_report(summary: Summary) -> str:
    """Return the report as one HTML document."""
    data = pack(json.dumps(_data(summary), separators=(",", ":"), allow_nan=False).encode())
    facts, run = summary.portfolio, summary.run
    return Template(asset("report.html")).substitute(
        # a script in a deal's name cannot know the digest of the page that it is part of
        nonce=hashlib.blake2b(data.encode(), digest_size=16, key=facts.key.encode()[:64]).hexdigest(),
        title=escape(f"{facts.name} · risk rollup as at {facts.as_at}"),
        name=escape(facts.name),
        description=f'<p class="description">{escape(facts.description)}</p>' if facts.description else "",
        status=escape(_STATUS.get(run.status, run.status)),
        status_class="good" if run.status == "SUCCEEDED" and not summary.errors else "bad",
        currency=escape(facts.currency),
        facts=_definitions(_portfolio_facts(summary)),
        tiles=_tiles(summary),
        tail=f"{summary.tail * 100:g}%",
        groups=_groups(summary),
        tails=_tails(summary),
        failures=_failures(summary),
        fits=fits_sections(summary),
        run=_definitions(_run_facts(summary)),
        notes="".join(f"<li>{note}</li>" for note in _notes(summary)),
        run_id=escape(run.run_id),
        key=escape(facts.key),
        css=asset("report.css"),
        data=data,
        library=chart_library(),
        script=asset("report.js"),
    )


@cache
def asset(name: str) -> str:
    """Return the text of a file of report_assets."""
    return (Path(__file__).with_name("report_assets") / name).read_text(encoding="utf-8")


@cache
def chart_library() -> str:
    """Return plotly.js as a page embeds it."""
    return pack(get_plotlyjs().encode())


def pack(data: bytes) -> str:
    """Return data as a page embeds it: gzip in base64, the same bytes every time."""
    return base64.b64encode(gzip.compress(data, 9, mtime=0)).decode()


# ---- what the script draws from ----


def _data(summary: Summary) -> dict[str, Any]:
    position = {deal.deal_id: index for index, deal in enumerate(summary.deals)}
    layers = [layer for layer in summary.layers if layer.deal_id in position]
    return {
        "currency": summary.portfolio.currency,
        "groups": [
            {
                "name": views[0].group_name,
                "depth": depth,
                "views": {view.perspective: _view(view) for view in views},
            }
            for depth, views in _ordered_groups(summary)
        ],
        "deals": {name: [_short(getattr(deal, name)) for deal in summary.deals] for name in _DEAL_COLUMNS},
        "layers": {"deal": [position[layer.deal_id] for layer in layers]}
        | {name: [_short(getattr(layer, name)) for layer in layers] for name in _LAYER_COLUMNS},
    }


def _view(group: GroupResult) -> dict[str, Any]:
    whole = {name: _short(getattr(group, name)) for name in ("aal", "aal_se", "tvar", "tvar_se")}
    perils = [_peril(peril) for peril in sorted(group.perils, key=lambda peril: (-(peril.co_tvar or 0), peril.peril))]
    return whole | {"ep": _points(group), "curve": _curve(group), "perils": perils}


def _peril(peril: PerilResult) -> dict[str, Any]:
    points = sorted(peril.ep, key=lambda point: point.return_period)
    figures = {name: _short(getattr(peril, name)) for name in _PERIL_FIGURES}
    return {
        "peril": peril.peril,
        **figures,
        "ep": [{name: _short(getattr(point, name)) for name in _PERIL_POINT} for point in points],
    }


def _short(value: str | float | None) -> str | float | None:
    """Seven significant digits are more than the page shows, and halve its data."""
    return float(f"{value:.7g}") if isinstance(value, float) else value


def _points(group: GroupResult) -> list[dict[str, Any]]:
    return [
        {name: _short(value) for name, value in point.model_dump().items()}
        for point in sorted(group.ep, key=lambda point: point.return_period)
    ]


def _curve(group: GroupResult) -> dict[str, list[float | None]]:
    """The dense curves with a confidence band; the EP points stand in where a run has no dense curve."""
    points = sorted(group.ep, key=lambda point: point.return_period)
    periods: Sequence[float | None] = group.curve.return_period
    losses: dict[str, Sequence[float | None]] = {"oep": group.curve.oep, "aep": group.curve.aep}
    if not periods:
        periods = [point.return_period for point in points]
        losses = {"oep": [point.oep for point in points], "aep": [point.aep for point in points]}
    # a measure's curve runs from N years down to 1; the chart shows what the table covers, and a point beyond each end
    kept = sorted(
        (period, index) for index, period in enumerate(periods) if period is not None and _FIRST <= period <= _LAST
    )
    curve: dict[str, list[float | None]] = {"return_period": [_number(period) for period, _ in kept]}
    for basis, values in losses.items():
        curve[basis] = [_number(values[index]) for _, index in kept]
        for side in ("low", "high"):
            ratios = _ratios(points, basis, side)
            curve[f"{basis}_{side}"] = [
                None
                if period is None or loss is None or (ratio := _interpolate(ratios, period)) is None
                else _number(loss * ratio)
                for period, loss in zip(curve["return_period"], curve[basis], strict=True)
            ]
    return curve


def _number(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.7g}")


def _ratios(points: Iterable[EpPoint], basis: str, side: str) -> list[tuple[float, float]]:
    """(log return period, interval's end / quantile), where both are there and the quantile is not zero."""
    ratios = []
    for point in points:
        loss, end = getattr(point, basis), getattr(point, f"{basis}_{side}")
        if loss and end is not None:
            ratios.append((math.log(point.return_period), end / loss))
    return ratios


def _interpolate(ratios: list[tuple[float, float]], period: float) -> float | None:
    """Linear in the logarithm of the return period; None outside the tabulated ones."""
    x = math.log(period)
    for (x0, y0), (x1, y1) in pairwise(ratios):
        if x0 - 1e-12 <= x <= x1 + 1e-12:
            return y0 + (y1 - y0) * (x - x0) / (x1 - x0)
    return None


def _ordered_groups(summary: Summary) -> list[tuple[int, list[GroupResult]]]:
    """(depth, [gross, ceded, net]) from the top group downwards, by name within a parent.

    A group shared by several parents stands once, under the one that is reached first.
    """
    views: dict[str, list[GroupResult]] = {}
    for group in summary.groups:
        views.setdefault(group.group_id, []).append(group)
    children: dict[str, list[str]] = {}
    for group_id, records in views.items():
        records.sort(key=lambda group: PERSPECTIVES.index(group.perspective))
        for parent in records[0].parent_ids:
            children.setdefault(parent, []).append(group_id)

    def rank(group_id: str) -> tuple[bool, str, str]:
        first = views[group_id][0]
        return not first.top, first.group_name, group_id

    ordered: list[tuple[int, list[GroupResult]]] = []
    seen: set[str] = set()
    roots = sorted((gid for gid, records in views.items() if not records[0].parent_ids), key=rank)
    # every group hangs on a root in a sound portfolio; whatever does not still gets its line
    for start in [*roots, *sorted(views, key=rank)]:
        stack = [(0, start)]
        while stack:
            depth, group_id = stack.pop()
            if group_id in seen:
                continue
            seen.add(group_id)
            ordered.append((depth, views[group_id]))
            below = sorted(children.get(group_id, ()), key=rank, reverse=True)
            stack.extend((depth + 1, child) for child in below)
    return ordered


# ---- what is written as HTML ----


def _definitions(pairs: Iterable[tuple[str, str]]) -> str:
    return "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in pairs)


def _portfolio_facts(summary: Summary) -> list[tuple[str, str]]:
    facts = summary.portfolio
    return [
        ("As at", f"{facts.as_at.day} {facts.as_at:%B %Y}"),
        ("Currency", facts.currency),
        ("Simulated years", f"{facts.trials:,}"),
        ("Deals", f"{facts.deals:,}"),
        ("Layers", f"{facts.layers:,}"),
        ("Cedants", f"{facts.cedants:,}"),
        ("Groups", f"{facts.groups:,}"),
        ("Outwards contracts", f"{facts.outwards:,}"),
    ]


def _run_facts(summary: Summary) -> list[tuple[str, str]]:
    run = summary.run
    return [
        ("Started (UTC)", f"{run.started:%Y-%m-%d %H:%M}"),
        ("Took", duration(run.seconds)),
        ("Jobs", f"{run.jobs:,}"),
        ("From the cache", f"{run.cached:,} ({percent(run.cached / run.jobs if run.jobs else None, 0)})"),
        ("Computed", f"{run.computed:,}"),
        ("Failed", f"{run.failed:,}"),
        ("Batches", f"{run.batches:,}"),
        ("Rounds", f"{run.rounds:,}"),
        ("Where they ran", ", ".join(f"{n:,} on {name}" for name, n in sorted(run.compute.items())) or UNDEFINED),
        ("Why there", "; ".join(f"{n:,} on {why}" for why, n in sorted(run.why.items())) or UNDEFINED),
        ("Random seed", str(summary.portfolio.seed)),
        ("Secondary uncertainty", _sampling(summary)),
        ("Run", run.run_id),
    ]


def _sampling(summary: Summary) -> str:
    asked = "as the portfolio says" if summary.run.secondary_uncertainty is None else "as this run asked"
    return f"{'on' if summary.sampled else 'off'}, {asked}"


def _tiles(summary: Summary) -> str:
    tiles = []
    for perspective in PERSPECTIVES:
        group = summary.top(perspective)
        error = f"± {compact(group.aal_se)} standard error" if group else ""
        tiles.append(
            _tile(f"quarter {perspective}", f"AAL {perspective}", compact(group.aal if group else None), escape(error))
        )
    ratio_error = summary.gross_loss_ratio_se
    spread = f" ± {percent(ratio_error)}" if ratio_error is not None else ""
    loss_ratio = f"{escape(percent(summary.gross_loss_ratio) + spread)} gross loss ratio"
    tiles.append(_tile("quarter", "Premium", compact(summary.portfolio.premium), loss_ratio))
    for field, title in (("oep", "OEP"), ("aep", "AEP")):
        for period in (100, 250):
            tiles.append(_gross_net(summary, f"{title} 1 in {period}", period, field, "wide"))
    tail = f"TVaR {summary.tail * 100:g}% (annual)"
    tiles.append(_gross_net(summary, tail, summary.tail_return_period, "aep_tvar", "wide", gross=summary.tvar))
    return "".join(tiles)


def _gross_net(summary: Summary, title: str, period: float, field: str, style: str, gross: float | None = None) -> str:
    values: list[float | None] = []
    limits = ""
    for group in (summary.top("gross"), summary.top("net")):
        point = group.at(period) if group else None
        values.append(getattr(point, field) if point else None)
        if point is not None and group is not None and group.perspective == "gross":
            limits = _limits(point, field)
    return _tile(
        style,
        title,
        f"{compact(gross if gross is not None else values[0])}<small>gross</small>{limits}",
        f"<b>{compact(values[1])}</b> net",
    )


def _limits(point: EpPoint, field: str) -> str:
    """The 95% limits of a quantile, or the standard error of a TVaR, as small print."""
    if field.endswith("_tvar"):
        return _plus_minus(getattr(point, f"{field}_se"))
    text = interval(getattr(point, f"{field}_low"), getattr(point, f"{field}_high"))
    return f'<span class="interval">{text}</span>' if text else ""


def _plus_minus(error: float | None) -> str:
    return "" if error is None else f'<span class="interval">± {compact(error)}</span>'


def _tile(style: str, title: str, value: str, under: str) -> str:
    return (
        f'<div class="tile {style}"><h3>{escape(title)}</h3>'
        f'<div class="value">{value}</div><p class="under">{under}</p></div>'
    )


def _groups(summary: Summary) -> str:
    tail = f"TVaR {summary.tail * 100:g}%"
    bands = (("AAL", 4), ("OEP 1 in 100", 2), ("AEP 1 in 100", 2), ("AEP 1 in 250", 2), (tail, 2))
    head = "".join(f'<th colspan="{span}" scope="colgroup" class="sep">{escape(name)}</th>' for name, span in bands)
    second = [("gross", True), ("ceded", False), ("net", False), ("ceded %", False)]
    second += [(view, view == "gross") for _ in bands[1:] for view in ("gross", "net")]
    names = "".join(
        f'<th scope="col" class="{"sep " if first else ""}c-{name.split()[0]}">{name}</th>' for name, first in second
    )
    rows = "".join(_group_row(summary, depth, views) for depth, views in _ordered_groups(summary))
    return (
        '<table class="figures groups"><caption class="visually-hidden">Figures per group</caption><thead>'
        f'<tr class="band"><th></th>{head}</tr><tr><th scope="col" class="text">Group</th>{names}</tr></thead>'
        f"<tbody>{rows}</tbody></table>"
    )


def _group_row(summary: Summary, depth: int, views: list[GroupResult]) -> str:
    by_view = {view.perspective: view for view in views}
    gross, ceded, net = (by_view.get(perspective) for perspective in PERSPECTIVES)
    share = ceded.aal / gross.aal if gross and ceded and gross.aal and ceded.aal is not None else None
    cells = [
        compact(view.aal if view else None) + _plus_minus(view.aal_se if view else None) for view in (gross, ceded, net)
    ]
    cells.append(percent(share, 0))
    columns = ((100, "oep"), (100, "aep"), (250, "aep"), (summary.tail_return_period, "aep_tvar"))
    for period, field in columns:
        for view in (gross, net):
            point = view.at(period) if view else None
            cells.append(compact(getattr(point, field) if point else None) + (_limits(point, field) if point else ""))
    separated = {0, 4, 6, 8, 10}
    body = "".join(
        f'<td class="sep">{cell}</td>' if index in separated else f"<td>{cell}</td>" for index, cell in enumerate(cells)
    )
    style = ' class="topgroup"' if views[0].top else ""
    indent = f' style="padding-left:{10 + 18 * min(depth, 8)}px"'
    return f'<tr{style}><th scope="row" class="text"{indent}>{escape(views[0].group_name)}</th>{body}</tr>'


def _tails(summary: Summary) -> str:
    """Each group's own tail, its part of the portfolio's, gross and net, and what it adds to it."""
    tail = f"TVaR {summary.tail * 100:g}%"
    heads = (
        ("", "Group"),
        ("c-gross", f"Own {tail}"),
        ("c-gross", "co-TVaR"),
        ("c-gross", f"Share of {tail}"),
        ("c-gross", "Marginal TVaR"),
        ("c-net", f"Own {tail}, net"),
        ("c-net", "co-TVaR, net"),
    )
    head = "".join(f'<th scope="col" class="{style or "text"}">{escape(name)}</th>' for style, name in heads)
    rows = "".join(_tail_row(summary, depth, views) for depth, views in _ordered_groups(summary))
    return (
        '<table class="figures groups tails"><caption class="visually-hidden">Each group\'s part of the tail, with '
        f"standard errors</caption><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
    )


def _tail_row(summary: Summary, depth: int, views: list[GroupResult]) -> str:
    by_view = {view.perspective: view for view in views}
    gross = by_view.get("gross")
    net = by_view.get("net")
    share = gross.co_tvar / summary.tvar if gross and gross.co_tvar is not None and summary.tvar else None

    def cell(view: GroupResult | None, name: str) -> str:
        value, error = (getattr(view, field) if view else None for field in (name, f"{name}_se"))
        return compact(value) + _plus_minus(error)

    cells = [
        cell(gross, "tvar"),
        cell(gross, "co_tvar"),
        percent(share),
        cell(gross, "marginal_tvar"),
        cell(net, "tvar"),
        cell(net, "co_tvar"),
    ]
    body = "".join(f"<td>{cell}</td>" for cell in cells)
    style = ' class="topgroup"' if views[0].top else ""
    indent = f' style="padding-left:{10 + 18 * min(depth, 8)}px"'
    return f'<tr{style}><th scope="row" class="text"{indent}>{escape(views[0].group_name)}</th>{body}</tr>'


def _failures(summary: Summary) -> str:
    if not summary.errors:
        return ""
    rows = "".join(
        f'<tr><td class="text">{escape(error.model)}</td><td class="text">{escape(error.subject)}</td>'
        f'<td class="text">{escape(error.message)}</td></tr>'
        for error in summary.errors[:_FAILURES_SHOWN]
    )
    number = len(summary.errors)
    more = f" The first {_FAILURES_SHOWN} are listed." if number > _FAILURES_SHOWN else ""
    return (
        '<section class="failures" aria-labelledby="h-failures">'
        f'<h2 id="h-failures">{number:,} failed job{"" if number == 1 else "s"}</h2>'
        f"<p>Figures that depend on them are missing or incomplete.{more}</p>"
        '<div class="scroll" tabindex="0" role="region" aria-label="Failed jobs"><table class="figures"><thead><tr>'
        '<th scope="col" class="text">Model</th><th scope="col" class="text">For</th>'
        f'<th scope="col" class="text">Error</th></tr></thead><tbody>{rows}</tbody></table></div></section>'
    )


def _notes(summary: Summary) -> list[str]:
    facts = summary.portfolio
    tail = f"{summary.tail * 100:g}%"
    severity = {
        1: "Each occurrence's loss is its event's mean loss (ORD EPCalc 1); uncertainty about the loss given the event "
        "is not sampled.",
        2: "Each occurrence's loss is sampled given its event, and all simulated years are ranked together "
        "(ORD EPCalc 2, full uncertainty).",
    }[summary.ep_calc]
    currency = escape(facts.currency)
    return [
        f"Amounts are in {currency} (k thousand, m million, bn thousand million), our share, per contract year.",
        f"{facts.trials:,} simulated contract years, shared by all deals. {severity}",
        "Gross is before outwards (retrocession) contracts, net is after; ceded is their difference, year by year, so "
        "return-period figures of ceded and net do not add up to gross, while AALs do.",
        "OEP ranks years by their largest occurrence, AEP by their sum; rank k of N years stands for a return period "
        "of N / k. Confidence intervals (95%, binomial order statistics) are those of the tabulated return periods, "
        "interpolated between them in the chart. They measure the simulation only, not the model.",
        f"TVaR {tail} is the mean of the worst {(1 - summary.tail) * 100:g}% of years. A deal's co-TVaR is its mean "
        "loss in those years of the gross portfolio, ties at the boundary shared, so that deals add up to the TVaR; a "
        "peril's is within the group that is shown. The net co-TVaR is the same in the worst years of the net "
        "portfolio, recoveries given back to the deals of their occurrence. Marginal TVaR is the TVaR less what it "
        "would be without the deal, group or peril; it does not add up.",
        "± is one standard error of the simulation; twice as much either side is about 95%. Of a group's net co-TVaR, "
        "and of some price figures of layers, it is an upper bound of it.",
        "An en dash stands for a figure that the number of simulated years cannot support, or that is undefined.",
        "Premium is before reinstatement premium and brokerage; the gross loss ratio is gross AAL over premium.",
    ]
