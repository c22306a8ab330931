"""The page of `riskmill fit`: tables, and QQ, mean excess and exceedance plots, one HTML file that needs no network.

Made like the run report: data and plotly.js are embedded packed, text is never markup, the policy allows our script
only, and the same fits give the same bytes.
"""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from html import escape
from string import Template
from typing import Any

import numpy as np

from riskmill.models.occurrences import F64
from riskmill.models.severity_fits import Estimate, SeverityFit, mean_excess, severity_quantile
from riskmill_cli.fit_command import FREQUENCY_HEAD, SEVERITY_HEAD, facts, frequency_rows, number, severity_rows
from riskmill_cli.report import asset, chart_library, pack

#: Points of a plot; of more losses the largest are kept, and others evenly among the rest.
_POINTS, _LARGEST = 1500, 500


def render_fit(settings: Mapping[str, Any], groups: Sequence[tuple[F64, Mapping[str, Any]]]) -> str:
    """Return the page for what was fitted: settings of the command, and losses above the threshold with figures."""
    plots = [_plots(settings, losses, figures) for losses, figures in groups]
    data = pack(json.dumps(plots, separators=(",", ":"), allow_nan=False).encode())
    shown = [("File", settings["file"]), ("Losses in it", f"{settings['rows']:,}")]
    shown += [("Threshold", number(settings["threshold"])), ("Maximum", number(settings["maximum"]))]
    if settings["years"]:
        shown.append(("Years", "{}–{}".format(*settings["years"])))
    shown += [("Resamples", f"{settings['bootstrap']:,}"), ("Seed", str(settings["seed"]))]
    return Template(asset("fit.html")).substitute(
        nonce=hashlib.blake2b(data.encode(), digest_size=16).hexdigest(),
        title=escape(f"{settings['file']} · frequency and severity"),
        name=escape(settings["file"]),
        facts="".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in shown),
        groups="".join(_group(at, figures) for at, (_, figures) in enumerate(groups)),
        css=asset("report.css"),
        data=data,
        library=chart_library(),
        script=asset("fit.js"),
    )


def _group(at: int, figures: Mapping[str, Any]) -> str:
    tables = "".join(
        _table(head, rows)
        for head, rows in ((FREQUENCY_HEAD, frequency_rows(figures)), (SEVERITY_HEAD, severity_rows(figures)))
        if rows
    )
    words = "".join(f"<li>{escape(line)}</li>" for line in [*facts(figures), *figures["notes"]])
    charts = "".join(
        f'<figure><figcaption>{title}</figcaption><div id="{kind}-{at}" class="chart" role="img" '
        f'aria-label="{title}"></div></figure>'
        for kind, title in (
            ("exceedance", "Exceedance"),
            ("qq", "Quantiles against quantiles"),
            ("excess", "Mean excess"),
        )
    )
    return (
        f'<section aria-labelledby="h-{at}"><h2 id="h-{at}">{escape(figures["name"])} '
        f"<small>{figures['losses']:,} losses above the threshold</small></h2>{tables}"
        f'<div class="notes"><ul>{words}</ul></div>'
        + (f'<div class="plots">{charts}</div>' if figures["severity"] else "")
        + "</section>"
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    left = 2
    names = "".join(
        f'<th scope="col"{" class=text" if at < left else ""}>{escape(name)}</th>' for at, name in enumerate(head)
    )
    body = "".join(
        f'<tr><th scope="row" class="text">{escape(row[0])}</th>'
        + "".join(f"<td{' class=text' if at < left else ''}>{escape(cell)}</td>" for at, cell in enumerate(row[1:], 1))
        + "</tr>"
        for row in rows
    )
    return (
        '<div class="scroll" tabindex="0" role="region" aria-label="Fitted laws"><table class="figures"><thead>'
        f"<tr>{names}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _plots(settings: Mapping[str, Any], losses: F64, figures: Mapping[str, Any]) -> dict[str, Any]:
    if not figures["severity"]:
        return {}
    threshold = settings["threshold"]
    maximum = math.inf if settings["maximum"] is None else settings["maximum"]
    x = np.sort(losses)
    n = x.size
    frequency = figures["frequency"]
    rate = frequency["rate"]["value"] if frequency else 1.0
    kept = _kept(n)
    position = (kept + 0.5) / n
    # as far as five times beyond the record, evenly on a log scale
    survival = np.geomspace(1.0, 0.2 / n, 120)[1:]
    laws = []
    for figure in figures["severity"]:
        if figure["law"] == "empirical" or not figure["parameters"]:
            continue
        parameters = {name: Estimate(value["value"]) for name, value in figure["parameters"].items()}
        law = SeverityFit(figure["law"], parameters, None, None)
        laws.append(
            {
                "name": figure["law"],
                "qq": _numbers(severity_quantile(law, position, threshold)),
                "loss": _numbers(severity_quantile(law, 1 - survival, threshold, maximum=maximum)),
                "exceedance": _numbers(survival * rate),
            }
        )
    levels, excesses = mean_excess(x)
    at = _kept(levels.size)
    return {
        "annual": frequency is not None,
        "losses": _numbers(x[kept]),
        "exceedance": _numbers((1 - position) * rate),
        "laws": laws,
        "excess": {"level": _numbers(levels[at]), "mean": _numbers(excesses[at])},
    }


def _kept(n: int) -> "np.ndarray[Any, np.dtype[np.int64]]":
    if n <= _POINTS:
        return np.arange(n)
    rest = np.linspace(0, n - _LARGEST - 1, _POINTS - _LARGEST).astype(np.int64)
    return np.concatenate([rest, np.arange(n - _LARGEST, n)])


def _numbers(values: F64) -> list[float | None]:
    return [float(f"{value:.7g}") if math.isfinite(value) else None for value in values.tolist()]
