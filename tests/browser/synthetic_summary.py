"""A realistic summary from a seeded simulation of a small book: figures add up as a rollup's do."""

import math
from datetime import UTC, date, datetime

import numpy as np

from riskmill.models.metrics import proportion_interval
from riskmill.results import (
    Curve,
    DealResult,
    EpPoint,
    Failure,
    FittedFigure,
    FittedLaw,
    GroupResult,
    LayerResult,
    PerilResult,
    PortfolioFacts,
    RecordFit,
    Run,
    Summary,
    TailFit,
)

RETURN_PERIODS = (2, 5, 10, 20, 25, 50, 100, 200, 250, 500, 1000)
UNITS = ("Florida & Gulf", "Northeast", "Midwest", "California", "Nationwide")
#: group id -> (name, parent, business units)
GROUPS = {
    "ALL": ("All business", None, UNITS),
    "WIND": ("Wind exposed", "ALL", ("Florida & Gulf", "Northeast")),
    "OTHER": ("Convective, fire and nationwide", "ALL", ("Midwest", "California", "Nationwide")),
    **{f"BU{i + 1}": (unit, "WIND" if i < 2 else "OTHER", (unit,)) for i, unit in enumerate(UNITS)},
}
#: what strikes each business unit
PERILS = ("Hurricane", "Hurricane", "Severe storm", "Wildfire", "Winter storm")
#: group -> occurrence retention and limit of its outwards cover (USD)
COVERS = {"BU1": (150e6, 350e6), "ALL": (400e6, 600e6)}
_FIRST = ("Palmetto", "Bayou", "Keystone", "Prairie", "Golden", "Granite", "Liberty", "Harbor", "Summit", "Pioneer")
_SECOND = ("Mutual", "Casualty", "Farm Bureau", "Property", "Indemnity", "National", "Home", "Fidelity", "Specialty")


def make_summary(*, deals: int = 300, trials: int = 20_000, seed: int = 7, failures: int = 0) -> Summary:
    """A summary of `deals` deals in eight groups by three perspectives; the same seed gives the same summary."""
    rng = np.random.default_rng(seed)
    trial = np.repeat(np.arange(trials), rng.poisson(1.8, trials))
    unit_of_event = rng.choice(len(UNITS), trial.size, p=(0.3, 0.12, 0.33, 0.15, 0.1))
    severity = 0.4e9 * (rng.pareto(1.45, trial.size) + 1) * np.array([1.2, 1.2, 0.9, 1.1, 1.2])[unit_of_event]
    severity = np.minimum(severity, 150e9)

    units = rng.choice(len(UNITS), deals, p=(0.28, 0.14, 0.26, 0.18, 0.14))
    event_loss = {unit: np.zeros(trial.size) for unit in range(len(UNITS))}
    annual = np.zeros((deals, trials), dtype=np.float64)
    limits, premiums = np.zeros(deals), np.zeros(deals)
    layers: list[LayerResult] = []
    for deal in range(deals):
        hit = np.flatnonzero(unit_of_event == units[deal])
        market_share = float(rng.uniform(0.002, 0.03))
        subject = severity[hit] * market_share * rng.lognormal(-0.3, 0.8, hit.size)
        share = float(rng.uniform(0.05, 0.4)) * min(1.0, 300 / deals)
        attachment = 2e9 * float(rng.lognormal(0, 0.6))
        for number in range(1, 1 + int(rng.integers(1, 4))):
            # a tower: each layer attaches where the one below ends, and is twice as wide
            limit = market_share * attachment * 2.0**number
            loss = share * np.clip(subject - limit, 0, limit)
            by_trial = np.bincount(trial[hit], loss, trials)
            annual[deal] += by_trial
            event_loss[int(units[deal])][hit] += loss
            expected, sd = float(by_trial.mean()), float(by_trial.std(ddof=1))
            premium = (expected * 1.15 + 0.05 * sd) / 0.9 * float(rng.lognormal(0, 0.2))
            limits[deal] += share * limit
            premiums[deal] += premium
            exhausted = np.bincount(trial[hit], loss >= share * limit, trials) > 0
            layers.append(
                LayerResult(
                    layer_id=f"D{deal + 1:04d}-L{number}",
                    deal_id=f"D{deal + 1:04d}",
                    type="CXL" if number > 1 or deal % 7 else "QS",
                    expected_loss=expected,
                    sd=sd,
                    prob_attach=float((by_trial > 0).mean()),
                    prob_exhaust=float(exhausted.mean()),
                    expected_reinstatement_premium=expected / (share * limit) * premium,
                    loss_on_line=expected / (share * limit),
                    rate_on_line=premium / (share * limit),
                    technical_premium=premium * float(rng.uniform(0.8, 1.1)),
                    premium=premium,
                    limit=share * limit,
                    payback=share * limit / premium if premium else math.inf,
                    expected_loss_se=sd / math.sqrt(trials),
                    sd_se=_sd_error(by_trial),
                    **_limits("prob_attach", by_trial > 0),
                    **_limits("prob_exhaust", exhausted),
                    expected_reinstatement_premium_se=sd / math.sqrt(trials) / (share * limit) * premium,
                    loss_on_line_se=sd / math.sqrt(trials) / (share * limit),
                    technical_premium_se=sd / math.sqrt(trials) / 0.9,
                )
            )

    total = annual.sum(axis=0)
    tail = np.argsort(total, kind="stable")[-trials // 100 :]
    tvar = float(total[tail].mean())
    co_tvar = annual[:, tail].mean(axis=1)
    groups = [_group(gid, event_loss, trial, trials, view) for gid in GROUPS for view in ("gross", "ceded", "net")]
    net_tvar = next(group.tvar for group in groups if group.top and group.perspective == "net")
    cedants = [f"{_FIRST[i % 10]} {_SECOND[i // 10 % 9]}" for i in rng.integers(0, 90, deals)]
    return Summary(
        run=Run(
            run_id="run-20260701-0600",
            status="FAILED" if failures else "SUCCEEDED",
            started=datetime(2026, 7, 1, 6, 0, tzinfo=UTC),
            seconds=41.7,
            jobs=deals + 60,
            cached=deals - 20,
            computed=80 - failures,
            failed=failures,
            batches=9,
            rounds=1,
            compute={"lambda": 9},
        ),
        portfolio=PortfolioFacts(
            name="US natural catastrophe treaty",
            description="Synthetic book of US property catastrophe treaties, for tests of the report.",
            currency="USD",
            as_at=date(2026, 7, 1),
            trials=trials,
            seed=seed,
            deals=deals,
            layers=len(layers),
            cedants=len(set(cedants)),
            groups=len(GROUPS),
            outwards=len(COVERS),
            premium=float(premiums.sum()),
            key="0123456789abcdef" * 2,
        ),
        groups=tuple(groups),
        deals=tuple(
            DealResult(
                deal_id=f"D{i + 1:04d}",
                cedant=cedants[i],
                business_unit=UNITS[int(units[i])],
                premium=float(premiums[i]),
                limit=float(limits[i]),
                aal=float(annual[i].mean()),
                sd=float(annual[i].std(ddof=1)),
                co_tvar=float(co_tvar[i]),
                share_of_tvar=float(co_tvar[i] / tvar),
                aal_se=float(annual[i].std(ddof=1) / math.sqrt(trials)),
                sd_se=_sd_error(annual[i]),
                co_tvar_se=float(annual[i, tail].std() / math.sqrt(tail.size)),
                share_of_tvar_se=float(annual[i, tail].std() / math.sqrt(tail.size) / tvar),
                marginal_tvar=tvar - _tvar(total - annual[i]),
                marginal_tvar_se=float(annual[i, tail].std() / math.sqrt(tail.size)),
                net_co_tvar=float(co_tvar[i] / tvar) * (net_tvar or 0.0),
                net_co_tvar_se=float(annual[i, tail].std() / math.sqrt(tail.size)) / 2,
                **_limits("prob_loss", annual[i] > 0),
                prob_loss=float((annual[i] > 0).mean()),
            )
            for i in range(deals)
        ),
        layers=tuple(layers),
        tail=0.99,
        tvar=tvar,
        net_tvar=net_tvar,
        errors=tuple(
            Failure(
                key=f"{i:032x}", model="price_deal", subject=f"deal D{i + 1:04d}, block 0", message="negative mean loss"
            )
            for i in range(failures)
        ),
    )


def _group(gid: str, event_loss: dict[int, np.ndarray], trial: np.ndarray, trials: int, view: str) -> GroupResult:
    name, parent, members = GROUPS[gid]
    gross = sum(event_loss[UNITS.index(unit)] for unit in members)
    ceded = np.zeros_like(gross)
    for cover, (retention, limit) in COVERS.items():
        covered = GROUPS[cover][2]
        if set(covered) <= set(members):
            subject = sum(event_loss[UNITS.index(unit)] for unit in covered)
            ceded = ceded + np.clip(subject - (ceded if cover == "ALL" else 0) - retention, 0, limit)
    loss = {"gross": gross, "ceded": ceded, "net": gross - ceded}[view]
    annual, oep, aep = _curves(trial, loss, trials)
    tail = np.argsort(annual, kind="stable")[-trials // 100 :]
    whole = sum(event_loss.values())
    worst = np.argsort(np.bincount(trial, whole, trials), kind="stable")[-trials // 100 :]
    hit = [unit for unit in event_loss if UNITS[unit] in members]
    by_peril = {
        peril: np.where(sum(event_loss[unit] > 0 for unit in hit if PERILS[unit] == peril) > 0, loss, 0.0)
        for peril in dict.fromkeys(PERILS[unit] for unit in hit)
    }
    ranks = np.unique(np.geomspace(1, trials / 2, 160).astype(int))
    ranks = ranks[ranks >= trials / 2000][::-1]
    return GroupResult(
        group_id=gid,
        group_name=name,
        top=parent is None,
        parent_ids=() if parent is None else (parent,),
        perspective=view,  # type: ignore[arg-type]
        aal=float(annual.mean()),
        aal_se=float(annual.std(ddof=1) / math.sqrt(trials)),
        sd=float(annual.std(ddof=1)),
        prob_loss=float((annual > 0).mean()),
        **_limits("prob_loss", annual > 0),
        sd_se=_sd_error(annual),
        tvar=float(annual[tail].mean()),
        tvar_se=_mean_error(annual[tail]),
        co_tvar=None if view == "ceded" else float(annual[worst].mean()),
        co_tvar_se=None if view == "ceded" else _mean_error(annual[worst]),
        marginal_tvar=float(annual[worst].mean()) * 0.8 if view == "gross" else None,
        marginal_tvar_se=_mean_error(annual[worst]) if view == "gross" else None,
        perils=tuple(_peril(name, trial, its, annual, tail) for name, its in by_peril.items()),
        ep=tuple(_point(rp, oep, aep, trials) for rp in RETURN_PERIODS),
        curve=Curve(
            return_period=tuple(float(trials / rank) for rank in ranks),
            oep=tuple(float(oep[rank - 1]) for rank in ranks),
            aep=tuple(float(aep[rank - 1]) for rank in ranks),
        ),
    )


def _curves(trial: np.ndarray, loss: np.ndarray, trials: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Annual losses, and the largest occurrences and the annual losses from the largest."""
    annual = np.bincount(trial, loss, trials)
    largest = np.zeros(trials)
    np.maximum.at(largest, trial, loss)
    return annual, np.sort(largest)[::-1], np.sort(annual)[::-1]


def _peril(name: str, trial: np.ndarray, loss: np.ndarray, total: np.ndarray, tail: np.ndarray) -> PerilResult:
    annual, oep, aep = _curves(trial, loss, total.size)
    return PerilResult(
        peril=name,
        aal=float(annual.mean()),
        aal_se=float(annual.std(ddof=1) / math.sqrt(annual.size)),
        sd=float(annual.std(ddof=1)),
        sd_se=_sd_error(annual),
        prob_loss=float((annual > 0).mean()),
        **_limits("prob_loss", annual > 0),
        tvar=_tvar(annual),
        tvar_se=_mean_error(aep[: tail.size]),
        co_tvar=float(annual[tail].mean()),
        co_tvar_se=_mean_error(annual[tail]),
        marginal_tvar=_tvar(total) - _tvar(total - annual),
        marginal_tvar_se=_mean_error(annual[tail]),
        ep=tuple(_point(rp, oep, aep, total.size) for rp in RETURN_PERIODS),
    )


def _tvar(annual: np.ndarray) -> float:
    return float(np.sort(annual)[-annual.size // 100 :].mean())


def _mean_error(values: np.ndarray) -> float:
    return float(values.std() / math.sqrt(values.size))


def _sd_error(annual: np.ndarray) -> float:
    sd = float(annual.std(ddof=1))
    fourth = float(((annual - annual.mean()) ** 4).mean())
    return math.sqrt(max(fourth - sd**4, 0.0) / annual.size) / (2 * sd) if sd else 0.0


def _limits(name: str, years: np.ndarray) -> dict[str, float]:
    low, high = proportion_interval(int(np.count_nonzero(years)), years.size)
    return {f"{name}_low": low, f"{name}_high": high}


def _point(rp: int, oep: np.ndarray, aep: np.ndarray, trials: int) -> EpPoint:
    rank = trials // rp
    spread = 1.96 * math.sqrt(rank * (1 - 1 / rp))
    low, high = min(trials, math.ceil(rank + spread)), max(1, math.floor(rank - spread))
    nan = math.nan
    figures = {}
    for name, curve in (("oep", oep), ("aep", aep)):
        figures |= {
            name: float(curve[rank - 1]) if rank else nan,
            f"{name}_low": float(curve[low - 1]) if rank else nan,
            f"{name}_high": float(curve[high - 1]) if rank else nan,
            f"{name}_tvar": float(curve[:rank].mean()) if rank else nan,
            f"{name}_tvar_se": _mean_error(curve[:rank]) if rank > 1 else nan,
        }
    return EpPoint(return_period=rp, **figures)


def with_fits(summary: Summary) -> Summary:
    """The summary with fitted tails at three thresholds, one of them without a law, and one record with markup."""
    tails = []
    for perspective in ("gross", "net"):
        for kind in ("oep", "aep"):
            for at, share in enumerate((0.1, 0.02, 0.01)):
                none = (perspective, kind, share) == ("gross", "oep", 0.02)
                shape = None if none else 0.1 + 0.05 * at
                loss = [None if none else 1e9 * (1 + at / 10) * period for period in (1, 2, 4)]
                tails.append(
                    TailFit(
                        perspective=perspective,
                        kind=kind,
                        share=share,
                        threshold=5e8,
                        excesses=2000 * share * 10,
                        **dict.fromkeys(("shape", "scale"), shape),
                        **dict.fromkeys(("shape_low", "scale_low"), None if shape is None else shape - 0.05),
                        **dict.fromkeys(("shape_high", "scale_high"), None if shape is None else shape + 0.06),
                        **dict.fromkeys(("ks", "ks_p", "ad", "ad_p", "failed_share"), None if none else 0.04),
                        return_period=(250, 1000, 10_000),
                        loss=tuple(loss),
                        low=tuple(None if x is None else x * 0.9 for x in loss),
                        high=tuple(None if x is None else x * 1.2 for x in loss),
                    )
                )
    return summary.model_copy(update={"tail_fits": tuple(tails), "record_fits": (_record_fit(),)})


def _record_fit() -> RecordFit:
    def law(kind, name, refused="", mean=None, **parameters):  # type: ignore[no-untyped-def]
        figures = tuple(FittedFigure(name=of, value=x, low=x * 0.8, high=x * 1.3) for of, x in parameters.items())
        return FittedLaw(
            kind=kind,
            law=name,
            preferred=name in ("lognormal", "poisson"),
            refused=refused,
            parameters=figures,
            mean=mean,
            **dict.fromkeys(("log_likelihood", "aic"), 120.5),
            **dict.fromkeys(("ks", "ks_p", "ad", "ad_p"), 0.02),
        )

    infinite = "the mean is infinite; state a maximum"
    rate = FittedFigure(name="rate", value=1.4, low=1.0, high=1.9)
    return RecordFit(
        peril='<script>window.hacked=1</script><img src=x onerror="window.hacked=1">',
        first_year=1980,
        last_year=2023,
        threshold=1000.0,
        maximum=None,
        losses=62,
        total=1.3e6,
        largest=195_000.0,
        rate=rate,
        variance_to_mean=rate,
        **dict.fromkeys(
            (
                "dispersion_p",
                "count_growth",
                "count_growth_p",
                "dispersion_about_trend",
                "dispersion_about_trend_p",
                "size_growth",
                "size_growth_p",
                "season_p",
            ),
            0.03,
        ),
        season=(1 / 12,) * 12,
        laws=(
            law("severity", "generalised_pareto", infinite, shape=1.11, scale=5023.0),
            law(
                "severity",
                "lognormal",
                mean=FittedFigure(name="mean", value=22_000.0, low=14_000.0, infinite=True),
                mu=8.9,
                sigma=1.4,
            ),
            law("frequency", "poisson"),
        ),
    )
