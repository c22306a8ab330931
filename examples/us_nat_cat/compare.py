"""Hold the example against its record, and show its book.

`python examples/us_nat_cat/compare.py [--fits | --book DIR]` prints Markdown. As it stands: the simulated annual
insured loss of the whole market against the as-if record, by peril. With `--fits`: what was fitted to the record. With
`--book`: the figures of a built portfolio folder, from the models that a rollup runs, called directly in this process.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from build import SEED, SIZES, market_of
from nat_cat_market import Market
from nat_cat_record import INSURED_SHARE, YEARS, PerilFit, fit_record

from riskmill.models.catalogue import SimulateYearsParams, simulate_years
from riskmill.models.contracts import layer_limit
from riskmill.models.metrics import RETURN_PERIODS, MeasureParams, measure
from riskmill.models.occurrences import F64
from riskmill.models.pricing import LAYER_STATS, PriceDealParams, price_deal
from riskmill.models.rollup import ApplyRetroParams, RollUpParams, apply_retro, roll_up
from riskmill.outputs import Arrays, decode
from riskmill.portfolio import Portfolio
from riskmill_cli.portfolio_folder import read_folder


@dataclass(frozen=True, slots=True)
class Comparison:
    """One peril's (or the total's) annual insured market loss in USD billion: record, as-if record, simulation."""

    name: str
    insured_share: float | None
    recorded: float
    as_if: float
    as_if_se: float
    simulated: float
    simulated_se: float

    @property
    def deviation(self) -> float:
        """Return simulated less as-if mean, in combined standard errors."""
        return (self.simulated - self.as_if) / float(np.hypot(self.as_if_se, self.simulated_se))


def compare(market: Market, trials: int) -> list[Comparison]:
    """Simulate `trials` years of the market and compare each peril, then the total.

    Standard errors are those of a mean of independent years: 44 recorded ones, `trials` simulated ones.
    """
    years = simulate_years(SimulateYearsParams(seed=SEED, first_trial=0, trials=trials), [market.catalogue()])
    position = years["event"].astype(np.int64) - 1
    loss, peril = market.loss[position] / 1e9, market.peril[position]
    rows = []
    simulated_total, as_if_total, recorded_total = np.zeros(trials), np.zeros(YEARS), np.zeros(YEARS)
    for number, (name, fit) in enumerate(market.fits.items()):
        simulated = np.bincount(years["trial"], loss * (peril == number), minlength=trials)
        recorded, as_if = fit.record.annual * INSURED_SHARE[name] / 1e3, fit.as_if / 1e3
        rows.append(_comparison(name.replace("_", " "), INSURED_SHARE[name], recorded, as_if, simulated))
        simulated_total += simulated
        as_if_total += as_if
        recorded_total += recorded
    return [*rows, _comparison("all perils", None, recorded_total, as_if_total, simulated_total)]


def _comparison(name: str, share: float | None, recorded: F64, as_if: F64, simulated: F64) -> Comparison:
    def se(annual: F64) -> float:
        return float(annual.std(ddof=1) / np.sqrt(annual.size))

    return Comparison(
        name, share, float(recorded.mean()), float(as_if.mean()), se(as_if), float(simulated.mean()), se(simulated)
    )


def comparison_table(rows: Sequence[Comparison]) -> str:
    """Return the comparison as a Markdown table."""
    lines = [
        "| peril | insured share | recorded | as-if 1980-2023 | simulated | difference, in combined s.e. |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    lines += [
        f"| {row.name} | {'' if row.insured_share is None else f'{row.insured_share:.0%}'} | {row.recorded:.2f} | "
        f"{row.as_if:.2f} ± {row.as_if_se:.2f} | {row.simulated:.2f} ± {row.simulated_se:.2f} | {row.deviation:+.1f} |"
        for row in rows
    ]
    return "\n".join(lines)


#: Maxima of one tropical cyclone's economic loss (USD million) that `maximum_table` compares.
MAXIMA = (250_000.0, 350_000.0, 500_000.0, 750_000.0, 1_000_000.0, 2_000_000.0)


def fits_table(fits: dict[str, PerilFit]) -> str:
    """Return what was fitted to each peril as a Markdown table."""
    lines = [
        "| peril | events | a year | variance to mean (p) | trend: Spearman (p) | simulated | shape | scale | KS p |",
        "|---|--:|--:|--:|--:|---|--:|--:|--:|",
    ]
    for name, fit in fits.items():
        law = f"{fit.law.replace('_', ' ')}, {fit.rate:.2f} a year"
        if fit.law != "poisson":
            law += f", variance to mean {fit.variance_to_mean:.2f}"
        severity = f"{fit.severity.shape:.2f} | {fit.severity.scale:,.0f}"
        # Too few events to fit a shape: it is set, and there is nothing to test.
        severity += " | " if fit.gpd is None else f" | {fit.gpd.ks_p_value:.2f}"
        lines.append(
            f"| {name.replace('_', ' ')} | {fit.record.losses.size} | {fit.frequency.rate:.2f} | "
            f"{fit.frequency.variance_to_mean:.2f} ({fit.frequency.p_value:.2g}) | "
            f"{fit.trend.spearman:+.2f} ({fit.trend.p_value:.1g}) | {law} | {severity} |"
        )
    return "\n".join(lines)


def maximum_table(fit: PerilFit) -> str:
    """Return the insured AAL of tropical cyclones against the maximum that their severity is truncated at."""
    share, record = INSURED_SHARE["tropical_cyclone"], fit.record
    lines = ["| severity of a tropical cyclone | mean, USD bn | insured AAL, USD bn |", "|---|--:|--:|"]
    laws = [
        (f"truncated at USD {maximum / 1e3:,.0f}bn", replace(fit.severity, maximum=maximum).mean())
        for maximum in MAXIMA
    ]
    laws.append((f"lognormal, mu {fit.lognormal.mu:.2f}, sigma {fit.lognormal.sigma:.2f}", fit.lognormal.mean))
    laws.append(("the record itself", float(record.losses.mean())))
    lines += [f"| {name} | {mean / 1e3:.1f} | {fit.rate * mean * share / 1e3:.1f} |" for name, mean in laws]
    return "\n".join(lines)


@dataclass(frozen=True, slots=True)
class BookFigures:
    """Figures of a portfolio on one block of trials; amounts are ours, in USD million."""

    deals: int
    layers: int
    premium: float
    reinstatement_premium: float
    limit: float
    rows_per_deal: float
    median_deal_trials: float
    median_attach: float
    measures: dict[str, Arrays]
    by_type: dict[str, tuple[int, float, float]]  # layers, premium, expected loss
    by_group: dict[str, tuple[float, float]]  # gross AAL, 1-in-100 OEP
    retro: dict[str, tuple[float, float]]  # premium for the placed share, expected recovery

    @property
    def loss_ratio(self) -> float:
        """Return expected loss over premium with expected reinstatement premium, before retro."""
        return float(self.measures["gross"]["aal"][0]) / 1e6 / (self.premium + self.reinstatement_premium)


def book_figures(folder: Path) -> BookFigures:
    """Run the models on a folder: years, deals, groups, retro, measures. At most the first block of trials."""
    prepared = read_folder(folder)
    portfolio, objects = prepared.portfolio, prepared.objects
    trials = min(portfolio.trials, 100_000)
    catalogue = decode(objects[portfolio.catalogue])
    yet = Arrays(simulate_years(SimulateYearsParams(seed=portfolio.seed, first_trial=0, trials=trials), [catalogue]))
    yelts: dict[str, Arrays] = {}
    shares, attach = [], []
    by_type: dict[str, list[tuple[float, float]]] = {}
    premium = reinstatement = limit = 0.0
    for deal in portfolio.deals:
        terms = tuple(layer.terms for layer in deal.layers)
        priced = Arrays(price_deal(PriceDealParams(layers=terms), [decode(objects[deal.elt]), yet]))
        yelts[deal.deal_id] = priced
        shares.append(np.unique(yet["trial"][priced["row"]]).size / trials)
        for layer, stats in zip(terms, priced["layer_stats"], strict=True):
            figures = dict(zip(LAYER_STATS, stats.tolist(), strict=True))
            signed = layer.participation * layer.premium
            premium += signed
            reinstatement += signed * figures["reinstated"] / trials
            limit += layer.participation * layer_limit(layer)
            expected = layer.participation * figures["recovery"] / trials
            by_type.setdefault(layer.type, []).append((signed, expected))
            if layer.type == "CXL":
                attach.append(figures["attached"] / trials)
    gross, net, retro = _roll_up(portfolio, yelts, yet, trials)
    top = portfolio.group
    measures = {
        "gross": Arrays(measure(MeasureParams(blocks=1), [yet, gross[top]])),
        "net": Arrays(measure(MeasureParams(blocks=1, perspective="net"), [yet, net[top]])),
    }
    return BookFigures(
        len(portfolio.deals),
        sum(len(deal.layers) for deal in portfolio.deals),
        premium / 1e6,
        reinstatement / 1e6,
        limit / 1e6,
        float(np.mean([yelt["row"].size for yelt in yelts.values()])),
        float(np.median(shares)),
        float(np.median(attach)),
        measures,
        {
            kind: (len(rows), sum(a for a, _ in rows) / 1e6, sum(b for _, b in rows) / 1e6)
            for kind, rows in sorted(by_type.items())
        },
        {group: _group_figures(yelt, yet) for group, yelt in gross.items()},
        retro,
    )


def _group_figures(yelt: Arrays, yet: Arrays) -> tuple[float, float]:
    measured = measure(MeasureParams(blocks=1), [yet, yelt])
    return float(measured["aal"][0]) / 1e6, float(measured["oep"][RETURN_PERIODS.index(100)]) / 1e6


def _roll_up(
    portfolio: Portfolio, deals: dict[str, Arrays], yet: Arrays, trials: int
) -> tuple[dict[str, Arrays], dict[str, Arrays], dict[str, tuple[float, float]]]:
    """Return gross and net losses of each group, and premium and expected recovery of each retro contract."""
    groups = {group.group_id: group for group in portfolio.groups}
    gross: dict[str, Arrays] = {}
    net: dict[str, Arrays] = {}
    retro: dict[str, tuple[float, float]] = {}

    def visit(group_id: str) -> None:
        group = groups[group_id]
        for child in group.groups:
            visit(child)
        own = [deals[deal] for deal in group.deals]
        gross[group_id] = Arrays(roll_up(RollUpParams(), [*own, *(gross[child] for child in group.groups)]))
        losses = Arrays(roll_up(RollUpParams(), [*own, *(net[child] for child in group.groups)]))
        contracts = [contract for contract in portfolio.outwards if contract.group_id == group_id]
        for priority in sorted({contract.priority for contract in contracts}):
            same = [contract for contract in contracts if contract.priority == priority]
            for contract in same:
                alone = apply_retro(ApplyRetroParams(contracts=(contract.terms,)), [losses, yet])
                paid = contract.terms.participation * contract.terms.premium
                retro[contract.contract_id] = paid / 1e6, float(alone["ceded"].sum()) / trials / 1e6
            terms = tuple(contract.terms for contract in same)
            losses = Arrays(apply_retro(ApplyRetroParams(contracts=terms), [losses, yet]))
        net[group_id] = losses

    visit(portfolio.group)
    return gross, net, retro


def book_report(figures: BookFigures) -> str:
    """Return the figures of a book as Markdown."""
    gross, net = figures.measures["gross"], figures.measures["net"]
    lines = [
        f"{figures.deals:,} deals, {figures.layers:,} layers ({figures.layers / figures.deals:.2f} a deal); our limits "
        f"USD {figures.limit:,.0f}m, premium USD {figures.premium:,.0f}m, expected reinstatement premium "
        f"USD {figures.reinstatement_premium:,.0f}m, expected loss ratio {figures.loss_ratio:.1%}.",
        f"Median cat layer attaches in {figures.median_attach:.1%} of years; the median deal has losses in "
        f"{figures.median_deal_trials:.1%} of trials; {figures.rows_per_deal:,.0f} rows a deal on average.",
        "",
        "| USD million | gross | net | net / gross |",
        "|---|--:|--:|--:|",
        _line("AAL", float(gross["aal"][0]), float(net["aal"][0])),
    ]
    for kind in ("oep", "aep"):
        for period in (10, 50, 100, 250):
            at = RETURN_PERIODS.index(period)
            lines.append(_line(f"{kind.upper()} 1 in {period}", float(gross[kind][at]), float(net[kind][at])))
    lines += ["", "| layers | number | premium | expected loss | loss ratio |", "|---|--:|--:|--:|--:|"]
    for name, (number, premium, expected) in figures.by_type.items():
        lines.append(f"| {name} | {number:,} | {premium:,.1f} | {expected:,.1f} | {expected / premium:.0%} |")
    lines += ["", "| group | gross AAL | gross OEP 1 in 100 |", "|---|--:|--:|"]
    lines += [f"| {name} | {aal:,.1f} | {oep:,.1f} |" for name, (aal, oep) in figures.by_group.items()]
    lines += ["", "| retro contract | premium | expected recovery |", "|---|--:|--:|"]
    lines += [f"| {name} | {premium:,.1f} | {expected:,.1f} |" for name, (premium, expected) in figures.retro.items()]
    return "\n".join(lines)


def _line(name: str, gross: float, net: float) -> str:
    return f"| {name} | {gross / 1e6:,.0f} | {net / 1e6:,.0f} | {net / gross:.0%} |"


def main() -> None:
    """Print the comparison, or the figures of a folder."""
    parser = argparse.ArgumentParser(description="Compare the example with its record, or show a built book.")
    parser.add_argument("--size", choices=SIZES, default="full")
    parser.add_argument("--trials", type=int, help="simulated years (default: the size's)")
    parser.add_argument("--fits", action="store_true", help="what was fitted to the record")
    parser.add_argument("--book", type=Path, help="a built portfolio folder to show instead")
    arguments = parser.parse_args()
    if arguments.book:
        print(book_report(book_figures(arguments.book)))
    elif arguments.fits:
        fits = fit_record()
        print(f"{fits_table(fits)}\n\n{maximum_table(fits['tropical_cyclone'])}")
    else:
        trials = arguments.trials or SIZES[arguments.size].trials
        print("Annual insured market loss, USD billion at 2023 prices, mean ± standard error.\n")
        print(comparison_table(compare(market_of(arguments.size), trials)))


if __name__ == "__main__":
    main()
