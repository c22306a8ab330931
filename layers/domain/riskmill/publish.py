"""From the outputs of a run's last jobs to its results: pure arithmetic on small arrays, and names put back."""

import math
from collections.abc import Mapping

import numpy as np

from riskmill.models.allocation import read_ids
from riskmill.models.contracts import layer_limit
from riskmill.models.pricing import PRICE_FIGURES
from riskmill.outputs import Arrays
from riskmill.portfolio import Deal, Group, Portfolio
from riskmill.results import (
    PERSPECTIVES,
    Curve,
    DealResult,
    EpPoint,
    GroupResult,
    LayerResult,
    Perspective,
    PortfolioFacts,
    Run,
    Summary,
    tables,
)
from riskmill.rollup_graph import DEALS, measure_name
from riskmill.terms import Terms

_EP = ("oep", "oep_low", "oep_high", "oep_tvar", "aep", "aep_low", "aep_high", "aep_tvar")


def summarise(portfolio: Portfolio, key: str, targets: Mapping[str, Arrays], run: Run) -> Summary:
    """Return the summary of a run from the outputs of its targets, by the names of riskmill.rollup_graph."""
    top = targets[measure_name(portfolio.group, "gross")]
    tvar = float(top["tvar"][0])
    parents: dict[str, list[str]] = {group.group_id: [] for group in portfolio.groups}
    for group in portfolio.groups:
        for child in group.groups:
            parents[child].append(group.group_id)
    groups = [
        _group(group, perspective, targets[name], parents[group.group_id], top=group.group_id == portfolio.group)
        for group in portfolio.groups
        for perspective in PERSPECTIVES
        if (name := measure_name(group.group_id, perspective)) in targets
    ]
    deals = {deal.deal_id: deal for deal in portfolio.deals}
    return Summary(
        run=run,
        portfolio=_facts(portfolio, key),
        groups=tuple(groups),
        deals=_deals(deals, targets[DEALS], tvar),
        layers=_layers(deals, targets[DEALS]),
        tail=float(top["tail"][0]),
        tvar=tvar,
    )


def result_tables(summary: Summary) -> dict[str, bytes]:
    """Return the run's result files by name: the summary, and every table as CSV."""
    files = {f"{table.name}.csv": table.to_csv().encode() for table in tables(summary)}
    return {"summary.json": summary.to_json()} | files


def _facts(portfolio: Portfolio, key: str) -> PortfolioFacts:
    return PortfolioFacts(
        name=portfolio.name,
        description=portfolio.description or None,
        currency=portfolio.currency,
        as_at=portfolio.as_at,
        trials=portfolio.trials,
        seed=portfolio.seed,
        deals=len(portfolio.deals),
        layers=sum(len(deal.layers) for deal in portfolio.deals),
        cedants=len({deal.cedant for deal in portfolio.deals}),
        groups=len(portfolio.groups),
        outwards=len(portfolio.outwards),
        premium=sum(_premium(deal) for deal in portfolio.deals),
        key=key,
    )


def _premium(deal: Deal) -> float:
    return sum(layer.terms.premium * layer.terms.participation for layer in deal.layers)


def _limit(terms: Terms) -> float | None:
    """Return our share of a layer's limit, the one that its rates are on; None if it is unlimited."""
    limit = layer_limit(terms)
    return limit * terms.participation if math.isfinite(limit) else None


def _group(group: Group, perspective: Perspective, measured: Arrays, parents: list[str], *, top: bool) -> GroupResult:
    columns = {name: measured[name].tolist() for name in _EP}
    points = [
        EpPoint(return_period=period, **{name: values[at] for name, values in columns.items()})
        for at, period in enumerate(measured["return_period"].tolist())
    ]
    return GroupResult(
        group_id=group.group_id,
        group_name=group.name,
        top=top,
        parent_ids=tuple(sorted(parents)),
        perspective=perspective,
        **{name: float(measured[name][0]) for name in ("aal", "aal_se", "sd", "prob_loss")},
        ep=tuple(points),
        # measured from the rarest year on; a chart reads from the most frequent one
        curve=Curve(
            return_period=tuple(measured["curve_return_period"][::-1].tolist()),
            oep=tuple(measured["curve_oep"][::-1].tolist()),
            aep=tuple(measured["curve_aep"][::-1].tolist()),
        ),
    )


def _deals(deals: Mapping[str, Deal], table: Arrays, tvar: float) -> tuple[DealResult, ...]:
    results = []
    figures = np.column_stack([table["aal"], table["sd"], table["co_tvar"]]).tolist()
    for deal_id, (aal, sd, co_tvar) in zip(read_ids(table["deal_ids"]), figures, strict=True):
        deal = deals[deal_id]
        limits = [_limit(layer.terms) for layer in deal.layers]
        results.append(
            DealResult(
                deal_id=deal_id,
                cedant=deal.cedant,
                business_unit=deal.business_unit,
                premium=_premium(deal),
                limit=None if None in limits else sum(limit for limit in limits if limit is not None),
                aal=aal,
                sd=sd,
                co_tvar=co_tvar,
                share_of_tvar=co_tvar / tvar if tvar else None,
            )
        )
    return tuple(results)


def _layers(deals: Mapping[str, Deal], table: Arrays) -> tuple[LayerResult, ...]:
    ids = iter(zip(read_ids(table["layer_ids"]), table["price_figures"].tolist(), strict=True))
    results = []
    for deal_id in read_ids(table["deal_ids"]):
        terms = {layer.layer_id: layer.terms for layer in deals[deal_id].layers}
        for _ in terms:
            layer_id, figures = next(ids)
            named = dict(zip(PRICE_FIGURES, figures, strict=True))
            rate = named["rate_on_line"]
            results.append(
                LayerResult(
                    layer_id=layer_id,
                    deal_id=deal_id,
                    type=terms[layer_id].type,
                    **named,
                    premium=terms[layer_id].premium * terms[layer_id].participation,
                    limit=_limit(terms[layer_id]),
                    payback=1 / rate if rate and rate > 0 else None,
                )
            )
    return tuple(results)
