"""From the outputs of a run's last jobs to its results: pure arithmetic on small arrays, and names put back."""

import math
from collections.abc import Iterator, Mapping
from typing import Literal

import numpy as np

from riskmill.figure_names import PERIL_FIGURES, TAIL_FIGURES
from riskmill.graph import topological_order
from riskmill.models.allocation import DEAL_FIGURES, DEAL_PERIODS, DEAL_TABLES, read_ids
from riskmill.models.contracts import layer_limit
from riskmill.models.fit_models import (
    COUNT_FIGURES,
    FREQUENCY_FIGURES,
    FREQUENCY_LAWS,
    SEVERITY_FIGURES,
    SEVERITY_LAWS,
    SIZE_FIGURES,
)
from riskmill.models.metrics import EP_COLUMNS
from riskmill.models.pricing import PRICE_FIGURES
from riskmill.outputs import Arrays
from riskmill.portfolio import Deal, Group, LossRecord, Portfolio
from riskmill.results import (
    PERSPECTIVES,
    Curve,
    DealResult,
    EpPoint,
    FittedFigure,
    FittedLaw,
    GroupResult,
    LayerResult,
    PerilResult,
    Perspective,
    PortfolioFacts,
    RecordFit,
    Run,
    Summary,
    TailFit,
    tables,
)
from riskmill.rollup_graph import DEALS, compared_groups, groups_name, measure_name, record_fit_name, tail_fit_name
from riskmill.terms import Terms

_EP = tuple(name + column for name in ("oep", "aep") for column in EP_COLUMNS)


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
    deals = {deal.deal_id: (deal, portfolio.rate_of(deal.currency)) for deal in portfolio.deals}
    deal_results = _deals(deals, targets[DEALS], tvar, portfolio.trials)
    return Summary(
        run=run,
        portfolio=_facts(portfolio, key),
        groups=_with_tails(portfolio, groups, deal_results, targets),
        deals=deal_results,
        layers=_layers(deals, targets[DEALS]),
        tail_fits=tuple(_tail_fits(targets)),
        record_fits=tuple(
            _record_fit(record, targets[name])
            for record in portfolio.records
            if (name := record_fit_name(record.peril)) in targets
        ),
        tail=float(top["tail"][0]),
        tvar=tvar,
        net_tvar=float(targets[measure_name(portfolio.group, "net")]["tvar"][0]),
        ep_calc=2 if portfolio.secondary_uncertainty else 1,
    )


def _tail_fits(targets: Mapping[str, Arrays]) -> Iterator[TailFit]:
    """Yield the fitted tails that are among the targets."""
    for perspective in PERSPECTIVES:
        fitted = targets.get(tail_fit_name(perspective))
        if fitted is None:
            continue
        for kind in ("oep", "aep"):
            for at, share in enumerate(fitted["share"].tolist()):
                yield TailFit(
                    perspective=perspective,
                    kind=kind,
                    share=share,
                    **dict(zip(TAIL_FIGURES, fitted[f"{kind}_fit"][at].tolist(), strict=True)),
                    return_period=tuple(fitted["return_period"].tolist()),
                    loss=tuple(fitted[kind][at].tolist()),
                    low=tuple(fitted[f"{kind}_low"][at].tolist()),
                    high=tuple(fitted[f"{kind}_high"][at].tolist()),
                )


def _record_fit(record: LossRecord, fitted: Arrays) -> RecordFit:
    """Return the fits to one peril's record from the output of fit_models."""
    losses, total, largest = fitted["record"].tolist()
    counts, sizes = (dict(zip(names, fitted[of].tolist(), strict=True)) for of, names in _RECORD_FIGURES.items())
    return RecordFit(
        peril=record.peril,
        first_year=record.first_year,
        last_year=record.last_year,
        threshold=record.threshold,
        maximum=record.maximum,
        losses=int(losses),
        total=total,
        largest=largest,
        rate=_fitted("rate", fitted["rate"].tolist()),
        variance_to_mean=_fitted("variance_to_mean", fitted["variance_to_mean"].tolist()),
        dispersion_p=counts["dispersion_p"],
        count_growth=counts["growth"],
        count_growth_p=counts["growth_p"],
        dispersion_about_trend=counts["dispersion_about_trend"],
        dispersion_about_trend_p=counts["dispersion_about_trend_p"],
        size_growth=sizes["growth"],
        size_growth_p=sizes["growth_p"],
        season=tuple(fitted["season"].tolist()),
        season_p=float(fitted["season_p"][0]),
        laws=(
            *_laws("severity", SEVERITY_LAWS, SEVERITY_FIGURES, fitted, 0),
            *_laws("frequency", FREQUENCY_LAWS, FREQUENCY_FIGURES, fitted, 1),
        ),
        notes=tuple(read_ids(fitted["notes"])),
    )


_RECORD_FIGURES = {"counts": COUNT_FIGURES, "sizes": SIZE_FIGURES}


def _laws(
    kind: Literal["severity", "frequency"],
    laws: Mapping[str, tuple[str, ...]],
    names: tuple[str, ...],
    fitted: Arrays,
    place: int,
) -> Iterator[FittedLaw]:
    """Yield the laws of one kind; of a record to which none could be fitted, none."""
    parameters, refused = fitted[f"{kind}_parameters"], read_ids(fitted[f"{kind}_refused"])
    for at, (law, named) in enumerate(laws.items()):
        if np.isnan(parameters[at]).all() and not refused[at]:
            continue
        figures = dict(zip(names, fitted[f"{kind}_figures"][at].tolist(), strict=True))
        figures.pop("ks_p_given", None)
        mean = fitted["severity_mean"][at].tolist() if kind == "severity" else [math.nan]
        yield FittedLaw(
            kind=kind,
            law=law,
            preferred=int(fitted["preferred"][place]) == at,
            refused=refused[at],
            parameters=tuple(
                _fitted(name, parameters[at, number].tolist())
                for number, name in enumerate(named)
                if not math.isnan(parameters[at, number, 0])
            ),
            mean=None if math.isnan(mean[0]) else _fitted("mean", mean),
            **figures,
        )


def _fitted(name: str, limits: list[float]) -> FittedFigure:
    value, low, high = limits
    return FittedFigure(name=name, value=value, low=low, high=high, infinite=math.isinf(high))


def result_tables(summary: Summary) -> dict[str, bytes]:
    """Return the run's result files by name: the summary, and every table as CSV."""
    files = {f"{table.name}.csv": table.to_csv().encode() for table in tables(summary)}
    return {"summary.json": summary.to_json()} | files


#: What comparing a group with the top group tells, beside its co-TVaR.
_COMPARED = ("co_tvar_se", "marginal_tvar", "marginal_tvar_se")


def _with_tails(
    portfolio: Portfolio, groups: list[GroupResult], deals: tuple[DealResult, ...], targets: Mapping[str, Arrays]
) -> tuple[GroupResult, ...]:
    """Return the groups with their parts of the top group's tail: sums of their deals', and what it is without them."""
    parts = {deal.deal_id: (deal.co_tvar or 0.0, deal.net_co_tvar or 0.0, deal.net_co_tvar_se) for deal in deals}
    members = {group.group_id: group for group in portfolio.groups}
    sums: dict[str, tuple[float, float, float | None]] = {}
    for group_id in topological_order({group.group_id: group.groups for group in portfolio.groups}):
        group = members[group_id]
        found = [*(parts[deal] for deal in group.deals), *(sums[child] for child in group.groups)]
        errors = [part[2] for part in found if part[2] is not None]
        sums[group_id] = (
            math.fsum(part[0] for part in found),
            math.fsum(part[1] for part in found),
            math.fsum(errors) if len(errors) == len(found) else None,
        )
    every = sums[portfolio.group][2]
    whole_net = float(targets[measure_name(portfolio.group, "net")]["tvar_se"][0])
    top = targets[measure_name(portfolio.group, "gross")]
    whole = float(top["tvar"][0]), float(top["tvar_se"][0])
    compared = {portfolio.group: dict(zip(_COMPARED, (whole[1], *whole), strict=True))}
    for names in compared_groups(portfolio):
        columns = (targets[groups_name(names)][column].tolist() for column in _COMPARED)
        for name, *values in zip(names, *columns, strict=True):
            compared[name] = dict(zip(_COMPARED, values, strict=True))
    changed = []
    for result in groups:
        update: dict[str, float | None] = {}
        gross, net, net_error = sums[result.group_id]
        if result.perspective == "gross":
            update = {"co_tvar": gross, **compared[result.group_id]}
        elif result.perspective == "net":
            update = {
                "co_tvar": net,
                "co_tvar_se": result.tvar_se if result.top else _at_most(net_error, every, whole_net),
            }
        changed.append(GroupResult.model_validate(result.model_dump() | update))
    return tuple(changed)


def _at_most(error: float | None, every: float | None, whole: float) -> float | None:
    """Return an upper bound of the standard error of a group's net co-TVaR, from the sums of deals' errors.

    A sum's standard error is at most the sum of its parts'; and the group is the whole less all other deals.
    """
    if error is None or every is None:
        return None
    return min(error, whole + (every - error)) if math.isfinite(whole) else error


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
        premium=sum(_premium(deal, portfolio.rate_of(deal.currency)) for deal in portfolio.deals),
        key=key,
    )


def _premium(deal: Deal, rate: float) -> float:
    return sum(layer.terms.premium * layer.terms.share for layer in deal.layers) * rate


def _limit(terms: Terms) -> float | None:
    """Return our share of a layer's limit, the one that its rates are on; None if it is unlimited."""
    limit = layer_limit(terms)
    return limit * terms.share if math.isfinite(limit) else None


_SINGLE = ("aal", "aal_se", "sd", "sd_se", "prob_loss", "prob_loss_low", "prob_loss_high", "tvar", "tvar_se")


def _perils(measured: Arrays) -> tuple[PerilResult, ...]:
    """Return the perils that cause a group any loss."""
    results = []
    for number, name in enumerate(read_ids(measured["peril_names"])):
        if measured["peril_aal"][number] == 0:
            continue
        columns = {column: measured[f"peril_{column}"][number].tolist() for column in _EP}
        points = tuple(
            EpPoint(return_period=period, **{column: values[at] for column, values in columns.items()})
            for at, period in enumerate(measured["return_period"].tolist())
        )
        figures = {single: float(measured[f"peril_{single}"][number]) for single in PERIL_FIGURES}
        results.append(PerilResult(peril=name, **figures, ep=points))
    return tuple(results)


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
        **{name: float(measured[name][0]) for name in _SINGLE},
        ep=tuple(points),
        perils=_perils(measured),
        # measured from the rarest year on; a chart reads from the most frequent one
        curve=Curve(
            return_period=tuple(measured["curve_return_period"][::-1].tolist()),
            oep=tuple(measured["curve_oep"][::-1].tolist()),
            aep=tuple(measured["curve_aep"][::-1].tolist()),
        ),
    )


def _deals(deals: Mapping[str, tuple[Deal, float]], table: Arrays, tvar: float, trials: int) -> tuple[DealResult, ...]:
    results = []
    figures = zip(*(table[name].tolist() for name in DEAL_FIGURES), strict=True)
    curves = zip(*(table[name].tolist() for name in DEAL_TABLES), strict=True)
    for deal_id, values, curve in zip(read_ids(table["deal_ids"]), figures, curves, strict=True):
        deal, rate = deals[deal_id]
        found = dict(zip(DEAL_FIGURES, values, strict=True))
        limits = [_limit(layer.terms) for layer in deal.layers]
        results.append(
            DealResult(
                deal_id=deal_id,
                cedant=deal.cedant,
                business_unit=deal.business_unit,
                premium=_premium(deal, rate),
                limit=None if None in limits else sum(limit for limit in limits if limit is not None) * rate,
                **found,
                aal_se=found["sd"] / math.sqrt(trials),
                share_of_tvar=found["co_tvar"] / tvar if tvar else None,
                ep=tuple(
                    EpPoint(return_period=period, **{name: column[at] for name, column in zip(_EP, curve, strict=True)})
                    for at, period in enumerate(DEAL_PERIODS)
                ),
            )
        )
    return tuple(results)


def _layers(deals: Mapping[str, tuple[Deal, float]], table: Arrays) -> tuple[LayerResult, ...]:
    ids = iter(zip(read_ids(table["layer_ids"]), table["price_figures"].tolist(), strict=True))
    results = []
    for deal_id in read_ids(table["deal_ids"]):
        deal, exchange = deals[deal_id]
        terms = {layer.layer_id: layer.terms.converted(exchange) for layer in deal.layers}
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
                    premium=terms[layer_id].premium * terms[layer_id].share,
                    limit=_limit(terms[layer_id]),
                    payback=1 / rate if rate and rate > 0 else None,
                )
            )
    return tuple(results)
