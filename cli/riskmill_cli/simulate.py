"""`riskmill simulate`: a portfolio's real plan, timed by the simulation; how long, how many tasks, what it costs."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from riskmill.graph import JobGraph
from riskmill.planner import PlanSettings, estimate_seconds, plan_waves
from riskmill.portfolio import Deal, Group, Layer, Outwards, Portfolio
from riskmill.rollup_graph import rollup_graph
from riskmill.strategy import Sizes, Wish, estimate_mb, place
from riskmill.terms import Terms
from riskmill_cli.simulation import Assumptions, Outcome, Scaling, Work, simulate

#: Deals of one group of an invented portfolio.
GROUP_DEALS = 250


@dataclass(frozen=True, slots=True)
class Size:
    """What is computed besides the jobs themselves."""

    #: bytes that the run reads in all, shared by the pricing jobs
    input_bytes: float = 0.0
    #: bytes a second that one process reads
    bytes_per_second: float = 75e6
    #: hours that all jobs take together, by longer pricing jobs; 0: the measured rates
    work_hours: float = 0.0


def invented(deals: int, trials: int) -> Portfolio:
    """Return a portfolio of this size: groups of 250 deals, two layers a deal, two outwards contracts on the top."""
    terms = Terms(type="CXL", occurrence_retention=1e6, occurrence_limit=1e7, reinstatements=(1.0,), premium=1e5)
    made = tuple(
        Deal(
            deal_id=f"D{number}", cedant="C", business_unit="Cat", inception=date(2025, 1, 1),
            expiry=date(2025, 12, 31), currency="USD", brokerage=0.1, elt=f"{number:032x}",
            layers=tuple(Layer(layer_id=f"D{number}-{layer}", terms=terms) for layer in (1, 2)),
        )
        for number in range(deals)
    )  # fmt: skip
    names = [f"G{number}" for number in range(-(-deals // GROUP_DEALS))]
    groups = [
        Group(group_id=name, name=name, deals=tuple(d.deal_id for d in made[at * GROUP_DEALS : (at + 1) * GROUP_DEALS]))
        for at, name in enumerate(names)
    ]
    contracts = (
        Outwards(contract_id=f"R{number}", name="R", group_id="top", priority=number, terms=terms) for number in (1, 2)
    )
    return Portfolio(
        name="invented", currency="USD", as_at=date(2024, 12, 31), trials=trials, seed=1, group="top",
        catalogue="0" * 32, deals=made, groups=(Group(group_id="top", name="top", groups=tuple(names)), *groups),
        outwards=tuple(contracts),
    )  # fmt: skip


def waves_of(
    graph: JobGraph, rates: Mapping[str, float], wish: Wish, size: Size, given: Assumptions, parallelism: int
) -> list[list[Work]]:
    """Return the planner's waves with their seconds, as the simulation takes them."""
    run = np.ones(len(graph), dtype=np.bool_)
    models = np.array([spec.model for spec in graph.specs])[graph.spec]
    pricing = models == "price_deal"
    seconds = estimate_seconds(graph, rates)
    if size.work_hours:
        rest = seconds[~pricing].sum()
        seconds[pricing] *= max(1.0, (size.work_hours * 3600 - rest) / seconds[pricing].sum())
    seconds = seconds + pricing * (size.input_bytes / max(1, int(np.count_nonzero(pricing))) / size.bytes_per_second)
    waves = plan_waves(graph, run, seconds, PlanSettings(parallelism=parallelism))
    sizes = Sizes(
        lambda_mb=given.lambda_gb * 1024,
        standard_mb=given.gigabytes * 1024 / given.processes,
        large_mb=given.large_gigabytes * 1024,
    )
    place(waves, graph, estimate_mb(graph), wish, sizes)
    reads = np.diff(graph.offsets).tolist()
    return [
        [Work(b.target, b.seconds, sum(reads[j] for j in b.jobs), len(b.jobs), b.size or "standard") for b in wave]
        for wave in waves
    ]


def predict(
    portfolio: Portfolio,
    *,
    wish: Wish,
    size: Size,
    given: Assumptions,
    scaling: Scaling = "run-task",
    rates: Mapping[str, float] | None = None,
    parallelism: int | None = None,
) -> dict[str, Any]:
    """Plan a portfolio and simulate its run; return what came out, as JSON takes it, and `outcome` itself."""
    graph = rollup_graph(portfolio)
    wanted = parallelism or given.max_tasks * given.processes
    waves = waves_of(graph, rates or {}, wish, size, given, wanted)
    outcome = simulate(waves, scaling, given)
    work = [work for wave in waves for work in wave]
    return {
        "jobs": len(graph),
        "waves": len(waves),
        "batches": outcome.batches,
        "work_hours": round(sum(w.seconds for w in work) / 3600, 2),
        "seconds": round(outcome.seconds, 1),
        "tasks_launched": outcome.tasks_launched,
        "last_launch": round(outcome.launched_at, 1),
        "most_tasks": max((count for _, count in outcome.tasks), default=0),
        "dollars": {name: round(amount, 2) for name, amount in outcome.dollars.items()},
        "cost": round(outcome.cost, 2),
        "idle_cost_share": round(outcome.idle_seconds / outcome.task_seconds, 4) if outcome.task_seconds else 0.0,
        "throttled": outcome.throttled,
        "bottleneck": outcome.bottleneck,
        "assumptions": asdict(given) | asdict(size),
        "outcome": outcome,
    }


def write_charts(outcome: Outcome, out: Path) -> Path:
    """Write one HTML page: what ran and waited over time, what batches waited for, what it cost.

    Returns its absolute path.
    """
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    figure = make_subplots(
        rows=2, cols=2, specs=[[{"colspan": 2}, None], [{}, {}]],
        subplot_titles=("Over time", "Hours of all batches together", "Dollars"),
    )  # fmt: skip
    for name, points in (
        ("tasks running", outcome.tasks),
        ("batches waiting", outcome.waiting),
        ("batches on Lambda", outcome.lambdas),
    ):
        if points:
            x, y = zip(*points, strict=True)
            figure.add_trace(go.Scatter(x=x, y=y, name=name, mode="lines", line_shape="hv"), row=1, col=1)
    hours = {name: seconds / 3600 for name, seconds in sorted(outcome.pressure.items()) if seconds >= 1}
    for column, (what, unit) in enumerate(((hours, "hours"), (outcome.dollars, "dollars")), start=1):
        names, values = list(what), list(what.values())
        figure.add_trace(go.Bar(x=values, y=names, orientation="h", showlegend=False, name=unit), row=2, col=column)
        figure.update_xaxes(title_text=unit, row=2, col=column)
    figure.update_layout(
        title=f"Simulated: {outcome.seconds:,.0f} s for ${outcome.cost:,.2f}; bottleneck: {outcome.bottleneck}",
        template="plotly_white", height=760,
    )  # fmt: skip
    figure.update_xaxes(title_text="seconds since the run began", row=1, col=1)
    figure.update_yaxes(title_text="count", row=1, col=1)
    figure.update_yaxes(automargin=True)
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.write_html(out, include_plotlyjs=True)
    return out.resolve()
