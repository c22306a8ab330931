"""Fits of laws on one core: our generalised Pareto maximum likelihood beside scipy's, and the jobs made of them.

1. Laws a second: resamples of 62, 1,000 and 5,000 excesses, by `fit_gpd_excesses` (many at once) and by scipy's
   `genpareto.fit` (one by one). The likelihoods that both reach are compared, or the speed would mean nothing.
2. The models as a job calls them: CPU seconds per replicate of `fit_tail` (100,000 years, eight thresholds, two kinds
   of loss, resamples and p-values) and of `fit_models` (the example's record, by peril), and per unit of their work,
   which is what the planner's first rates say (`DEFAULT_RATES`).

    python benchmarks/fits.py [--json] [--quick] [--save FILE]

Rates are per CPU second of the best of three rounds, in one process with one thread.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
from common import ROOT, machine, peak_mb
from scipy import stats

from riskmill.models import run_model
from riskmill.models.fit_models import fit_models_work
from riskmill.models.severity_fits import fit_gpd_excesses
from riskmill.models.tail_fit import tail_work
from riskmill.outputs import Arrays
from riskmill.planner import DEFAULT_RATES

sys.path.append(str(ROOT / "examples" / "us_nat_cat"))
import nat_cat_record

ROUNDS = 3
TRIALS = 100_000

#: Replicates of the `full` example (examples/us_nat_cat/build.py), to which seconds are scaled.
FULL = {"fit_tail": 12_000, "fit_models": 10_000}


def cpu(function: Callable[[], object], rounds: int = ROUNDS) -> float:
    """Return the CPU seconds of the best round."""
    best = np.inf
    for _ in range(rounds):
        begun = time.process_time()
        function()
        best = min(best, time.process_time() - begun)
    return float(best)


def gpd(excesses: int, samples: int, scipys: int) -> dict[str, Any]:
    """Return laws per CPU second, ours and scipy's, on resamples of so many excesses with a shape of 0.3."""
    draw = np.random.default_rng(excesses)
    losses = stats.genpareto.rvs(0.3, scale=50.0, size=excesses, random_state=draw)
    resamples = losses[draw.integers(0, excesses, (samples, excesses))]
    ours = fit_gpd_excesses(resamples)
    theirs = [stats.genpareto.fit(sample, floc=0) for sample in resamples[:scipys]]
    behind = max(
        stats.genpareto.logpdf(sample, k, scale=scale).sum()
        - stats.genpareto.logpdf(sample, *law[:1], scale=law[1]).sum()
        for sample, law, (k, _, scale) in zip(resamples, ours, theirs, strict=False)
    )
    if behind > 1e-6:
        raise SystemExit(f"scipy finds a likelihood that is better by {behind:g}")
    seconds = cpu(lambda: fit_gpd_excesses(resamples)) / samples
    scipy_seconds = cpu(lambda: [stats.genpareto.fit(sample, floc=0) for sample in resamples[:scipys]]) / scipys
    return {
        "excesses": excesses,
        "laws_per_s": round(1 / seconds, 1),
        "scipy_laws_per_s": round(1 / scipy_seconds, 1),
        "ratio": round(scipy_seconds / seconds, 1),
        "best_likelihood_behind_scipys": float(behind),
    }


def tail(replicates: int) -> dict[str, Any]:
    """Return what fit_tail costs on years with an occurrence each, so that every threshold has all of its excesses."""
    draw = np.random.default_rng(5)
    rows = np.arange(TRIALS, dtype=np.int32)
    years = Arrays(
        {
            "trial": rows,
            "day": np.zeros(TRIALS, np.int16),
            "event": np.ones(TRIALS, np.int32),
            "trials": np.array([TRIALS], np.int64),
        }
    )
    losses = Arrays({"row": rows, "loss": stats.genpareto.rvs(0.1, scale=1e8, size=TRIALS, random_state=draw)})
    params = {"blocks": 1, "replicates": replicates, "seed": 1}
    seconds = cpu(lambda: run_model("fit_tail", 2, params, [years, losses]))
    return costs("fit_tail", seconds, replicates, tail_work(TRIALS, replicates), tail_work(TRIALS, FULL["fit_tail"]))


def records(replicates: int) -> dict[str, Any]:
    """Return what fit_models costs on the example's record, each peril."""
    found = {}
    span = {"first_year": nat_cat_record.FIRST_YEAR, "last_year": nat_cat_record.LAST_YEAR}
    for peril, (days, losses) in record().items():
        params = {"threshold": nat_cat_record.THRESHOLD, "replicates": replicates, "seed": 1, **span}
        arrays = Arrays({"day": days, "loss": losses})
        seconds = cpu(lambda params=params, arrays=arrays: run_model("fit_models", 1, params, [arrays]))  # type: ignore[misc]
        works = (fit_models_work(losses.size, nat_cat_record.YEARS, n) for n in (replicates, FULL["fit_models"]))
        found[peril] = {"losses": losses.size} | costs("fit_models", seconds, replicates, *works)
    return found


def record() -> dict[str, tuple[Any, Any]]:
    """Return days and losses of the example's record by peril."""
    import csv

    with nat_cat_record.RECORD.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    found = {}
    for peril, name in nat_cat_record.PERILS.items():
        its = [row for row in rows if row["peril"] == name]
        days = np.array([date.fromisoformat(row["begin"]).toordinal() for row in its], np.int32)
        found[peril] = days, np.array([float(row["cost_usd_m_cpi_adjusted"]) for row in its])
    return found


def costs(model: str, seconds: float, replicates: int, work: float, full_work: float) -> dict[str, Any]:
    """Return a model's seconds per replicate and unit of work, and those of the full example beside the planner's."""
    return {
        "replicates": replicates,
        "cpu_s": round(seconds, 3),
        "ms_per_replicate": round(1e3 * seconds / replicates, 4),
        "s_per_work": float(f"{seconds / work:.3g}"),
        "full_cpu_s": round(seconds / work * full_work, 1),
        "full_planned_s": round(DEFAULT_RATES[model] * full_work, 1),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--quick", action="store_true", help="fewer samples and replicates")
    parser.add_argument("--save", type=Path, help="file to write the JSON to")
    arguments = parser.parse_args()
    less = 5 if arguments.quick else 1
    figures: dict[str, Any] = {"machine": machine()}
    figures["gpd"] = [
        gpd(n, samples // less, 60 // less) for n, samples in ((62, 20_000), (1_000, 2_000), (5_000, 500))
    ]
    figures["gpd_ratio"] = next(each["ratio"] for each in figures["gpd"] if each["excesses"] == 1_000)
    figures["fit_tail"] = tail(500 // less)
    figures["fit_models"] = records(2_000 // less)
    figures["peak_mb"] = round(peak_mb(), 1)
    text = json.dumps(figures, indent=2)
    if arguments.save:
        arguments.save.write_text(text + "\n", encoding="utf-8")
    if arguments.json:
        print(text)
        return
    for each in figures["gpd"]:
        print(
            f"{each['excesses']:>6,} excesses: {each['laws_per_s']:>10,.0f} laws/s, "
            f"scipy {each['scipy_laws_per_s']:,.0f}: {each['ratio']:.0f} times"
        )
    for name, each in {"fit_tail": figures["fit_tail"], **figures["fit_models"]}.items():
        print(
            f"{name:<18} {each['ms_per_replicate']:>9.3f} ms a replicate, {each['s_per_work']:.2g} s a unit of work; "
            f"full: {each['full_cpu_s']:.0f} s CPU, planned {each['full_planned_s']:.0f} s"
        )


if __name__ == "__main__":
    main()
