"""What a report says of fits: the top group's fitted tail by threshold, and the laws of each peril's recorded losses.

Written as HTML and SVG, so that it needs no script. Text of a portfolio is escaped.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from html import escape

from riskmill.results import PERSPECTIVES, FittedFigure, FittedLaw, RecordFit, Summary, TailFit
from riskmill_cli.figures import UNDEFINED, compact, law_name, number, percent

type _Limits = tuple[float | None, float | None, float | None]
type _Show = Callable[[float | None], str]

_TITLES = {"oep": "Largest occurrence of a year (OEP)", "aep": "Sum of a year (AEP)"}
_COLOURS = {"gross": "#1f3f66", "net": "#0f7b72"}

#: Return periods, in years, of the table of tails; the chart shows the second.
_PERIODS = (250.0, 1_000.0, 10_000.0)

#: A p-value below this is marked: the law does not fit.
_POOR = 0.05

#: Size of a chart, and its margins: left, right, top, bottom.
_WIDTH, _HEIGHT = 560, 250
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 12, 14, 44


def fits_sections(summary: Summary) -> str:
    """Return the sections of the fitted tail and of the records, each where the run has it."""
    return _tails(summary) + _records(summary)


# ---- the tail ----


def _tails(summary: Summary) -> str:
    if not summary.tail_fits:
        return ""
    charts, tables = "", ""
    for kind, title in _TITLES.items():
        fits = [fit for fit in summary.tail_fits if fit.kind == kind]
        for what, of in (("Shape", _shape), ("1 in 1,000 years", _quantile)):
            head = f"{what}: {title}"
            views = "".join(
                f' <span class="c-{view}">{view}</span>'
                for view in PERSPECTIVES
                if view in {f.perspective for f in fits}
            )
            charts += f"<figure><figcaption>{escape(head)}:{views}</figcaption>{_chart(head, fits, of)}</figure>"
        tables += _tail_table(title, fits)
    return (
        '<section aria-labelledby="h-tail" id="fitted-tail"><h2 id="h-tail">Fitted tail <small>generalised Pareto '
        "law of the worst years, with 95% bootstrap limits</small></h2>"
        '<p class="lede">Where the law holds, shape and quantiles do not depend on which years are taken for the tail: '
        "look for the largest share of years from which on they stay level and the p-values do not speak against it. "
        f"p-values below {_POOR:g} are marked. Years whose losses rise to an end, as capped contracts make them, have "
        "no law with a shape above -0.5; resamples without one are left out of the limits (failed).</p>"
        f'<div class="split even">{charts}</div>{tables}</section>'
    )


def _tail_table(title: str, fits: Sequence[TailFit]) -> str:
    heads = (
        "Years",
        "Threshold",
        "Excesses",
        "Shape",
        "KS p",
        "AD p",
        "Failed",
        *(f"1 in {period:,.0f}" for period in _PERIODS),
    )
    rows = []
    for fit in sorted(fits, key=lambda fit: (PERSPECTIVES.index(fit.perspective), -fit.share)):
        at = dict(zip(fit.return_period, zip(fit.loss, fit.low, fit.high, strict=True), strict=True))
        cells = [
            f"{fit.share * 100:g}%",
            compact(fit.threshold),
            number(fit.excesses, 6),
            _with_limits(fit.shape, fit.shape_low, fit.shape_high, _decimals)
            if fit.shape is not None or not fit.excesses
            else "below -0.5",
            _p_value(fit.ks_p),
            _p_value(fit.ad_p),
            percent(fit.failed_share, 0),
            *(_with_limits(*at.get(period, (None, None, None)), compact) for period in _PERIODS),
        ]
        rows.append((f'<th scope="row" class="text c-{fit.perspective}">{fit.perspective}</th>', cells))
    return _table(title, ("", *heads), rows)


def _decimals(value: float | None) -> str:
    return UNDEFINED if value is None else f"{value:.2f}"


def _shape(fit: TailFit) -> _Limits:
    return fit.shape, fit.shape_low, fit.shape_high


def _quantile(fit: TailFit) -> _Limits:
    at = fit.return_period.index(_PERIODS[1])
    return fit.loss[at], fit.low[at], fit.high[at]


def _chart(title: str, fits: Sequence[TailFit], of: Callable[[TailFit], _Limits]) -> str:
    """Return an SVG of a figure by threshold: gross and net beside each other, with their limits."""
    shares = sorted({fit.share for fit in fits}, reverse=True)
    points = [(fit, of(fit)) for fit in fits]
    ends = [value for _, limits in points for value in limits if value is not None]
    if not ends:
        return '<p class="note">No law can be fitted.</p>'
    low, high = min(ends), max(ends)
    room = (high - low) * 0.06 or 1.0
    low, high = low - room, high + room
    step = (_WIDTH - _LEFT - _RIGHT) / len(shares)

    def y_of(value: float) -> float:
        return _TOP + (high - value) / (high - low) * (_HEIGHT - _TOP - _BOTTOM)

    def text(x: float, y: float, words: str, anchor: str = "middle") -> str:
        return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'

    parts = []
    for value in _ticks(low, high):
        label = f"{value:g}" if max(abs(low), abs(high)) < 100 else compact(value)
        y = y_of(value)
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(text(_LEFT - 6, y + 4, label, "end"))
    for at, share in enumerate(shares):
        parts.append(text(_LEFT + step * (at + 0.5), _HEIGHT - _BOTTOM + 18, f"{share * 100:g}%"))
    parts.append(text((_LEFT + _WIDTH - _RIGHT) / 2, _HEIGHT - 6, "Share of the years that is the tail"))
    views = [view for view in PERSPECTIVES if any(fit.perspective == view for fit in fits)]
    for fit, (middle, below, above) in points:
        if middle is None:
            continue
        x = _LEFT + step * (shares.index(fit.share) + 0.5) + 9 * (views.index(fit.perspective) - (len(views) - 1) / 2)
        colour = _COLOURS.get(fit.perspective, "#51606e")
        if below is not None and above is not None:
            parts.append(
                f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{y_of(below):.1f}" y2="{y_of(above):.1f}" stroke="{colour}"/>'
            )
        parts.append(f'<circle cx="{x:.1f}" cy="{y_of(middle):.1f}" r="3.5" fill="{colour}"/>')
    return (
        f'<svg class="fit-chart" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(title)}, '
        f'{" and ".join(views)}; the table below has the figures">{"".join(parts)}</svg>'
    )


def _ticks(low: float, high: float) -> list[float]:
    """Return about five round numbers between two."""
    rough = (high - low) / 5
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(unit * factor for factor in (1, 2, 5, 10) if unit * factor >= rough)
    return [round(at * step, 12) for at in range(math.ceil(low / step), math.floor(high / step) + 1)]


# ---- the records ----


def _records(summary: Summary) -> str:
    if not summary.record_fits:
        return ""
    return (
        '<section aria-labelledby="h-fits" id="fits"><h2 id="h-fits">Laws of the recorded losses <small>by peril, '
        "with 95% bootstrap limits</small></h2>"
        '<p class="lede">Severities are those of a loss above the threshold, in the record\'s unit. * marks the law '
        "with the lowest AIC whose mean is not refused, and the frequency that the dispersion of the counts calls for. "
        f"p-values below {_POOR:g} are marked.</p>"
        f"{''.join(_record(record) for record in summary.record_fits)}</section>"
    )


def _record(record: RecordFit) -> str:
    heads = ("", "Parameters", "Mean", "Log-likelihood", "AIC", "KS", "p", "AD", "p")
    rows = [
        (
            f'<th scope="row" class="text">{escape(law_name(law.law))}{" *" if law.preferred else ""}</th>',
            [
                "<br>".join(f"{escape(law_name(each.name))} {_limits(each, inline=True)}" for each in law.parameters)
                or escape(f"refused: {law.refused}"),
                _mean(law),
                number(law.log_likelihood, 6),
                number(law.aic, 6),
                number(law.ks),
                _p_value(law.ks_p),
                number(law.ad),
                _p_value(law.ad_p),
            ],
        )
        for law in record.laws
    ]
    chosen = next((law.aic for law in record.laws if law.preferred and law.kind == "severity"), None)
    above = f" above {number(record.threshold, 6)}" if record.threshold else ""
    maximum = "not stated" if record.maximum is None else number(record.maximum, 6)
    facts = [
        f"{record.losses:,} losses{above} in {record.first_year}–{record.last_year}; "
        f"largest {number(record.largest, 6)}; maximum {maximum}.",
        f"Rate {_limits(record.rate, inline=True)} a year, variance to mean "
        f"{_limits(record.variance_to_mean, inline=True)} (p {number(record.dispersion_p, 2)}).",
        f"Trend of the number {percent(record.count_growth)} a year (p {number(record.count_growth_p, 2)}), of the "
        f"size {percent(record.size_growth)} (p {number(record.size_growth_p, 2)}); variance to mean about the trend "
        f"{number(record.dispersion_about_trend)}. Season: p {number(record.season_p, 2)}.",
        *(escape(note[0].upper() + note[1:]) + "." for note in record.notes),
        *(
            escape(f"{law_name(law.law)}: refused, {law.refused}{_though_better(law, chosen)}.")
            for law in record.laws
            if law.refused and law.kind == "severity"
        ),
        *(
            escape(f"{law_name(law.law)}: {percent(law.infinite_share)} of the resamples have an infinite mean.")
            for law in record.laws
            if law.infinite_share and not law.refused
        ),
    ]
    return f'<h3 class="peril">{escape(record.peril)}</h3><p class="note">{" ".join(facts)}</p>' + (
        _table(f"Laws of {record.peril}", heads, rows, texts=1) if rows else ""
    )


def _though_better(law: FittedLaw, chosen: float | None) -> str:
    better = law.aic is not None and chosen is not None and law.aic < chosen
    return ", though its AIC is lower than that of the law marked *" if better else ""


def _mean(law: FittedLaw) -> str:
    if law.mean is not None:
        return _limits(law.mean)
    return "refused" if law.kind == "severity" and law.refused else UNDEFINED


def _limits(figure: FittedFigure, *, inline: bool = False) -> str:
    high = "∞" if figure.infinite else None
    if figure.low is None and figure.high is None and high is None:
        return number(figure.value, 4)
    low = "∞" if figure.low is None else number(figure.low, 4)
    words = f"{low} to {high or number(figure.high, 4)}"
    return f'{number(figure.value, 4)} <span class="interval">{f"({words})" if inline else words}</span>'


def _with_limits(value: float | None, low: float | None, high: float | None, show: _Show) -> str:
    if value is None or low is None or high is None:
        return show(value)
    return f'{show(value)}<span class="interval">{show(low)} to {show(high)}</span>'


def _p_value(value: float | None) -> str:
    if value is None:
        return UNDEFINED
    return f'<span class="poor">{value:.2g}</span>' if value < _POOR else f"{value:.2g}"


def _table(title: str, heads: Iterable[str], rows: Iterable[tuple[str, Sequence[str]]], texts: int = 0) -> str:
    """Return a table; a row is its head, and cells that are markup, of which the first `texts` are set as text."""
    names = "".join(
        f'<th scope="col"{" class=text" if at <= texts else ""}>{escape(head)}</th>' for at, head in enumerate(heads)
    )
    body = "".join(
        f"<tr>{head}"
        + "".join(f"<td{' class=text' if at < texts else ''}>{cell}</td>" for at, cell in enumerate(cells))
        + "</tr>"
        for head, cells in rows
    )
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(title)}"><table class="figures">'
        f"<caption>{escape(title)}</caption><thead><tr>{names}</tr></thead><tbody>{body}</tbody></table></div>"
    )
