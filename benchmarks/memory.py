"""Memory of each model by the size of its work: `python benchmarks/memory.py [--json] [--quick] [--save FILE]`.

1. The example (small) is built with several numbers of trials, and every job of its graph runs once, from files to
   files.
2. Of each model and number of trials, the job with the most work, and of those the one that reads the most, runs again
   in a fresh process, as a worker runs it: inputs read and decoded, the model, its output encoded.
3. Its peak of resident memory, less what the process held before it read anything, is the job's growth; growth by work
   stands beside `MB_PER_WORK` of riskmill/strategy.py, and `BASE_MB` beside what a worker's imports take.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from common import BUILD, ROOT, machine

from riskmill.aws.worker_metrics import forget_peak, peak_mb
from riskmill.jobs import Job
from riskmill.models import run_model
from riskmill.outputs import Arrays, decode, encode
from riskmill.rollup_graph import rollup_graph
from riskmill.strategy import BASE_MB, MB_PER_WORK, MEMORY_MARGIN
from riskmill_cli.portfolio_folder import read_folder

#: Trials of the portfolios. A block has 100,000, so the models of a block end there; measures and allocations go on.
TRIALS = (20_000, 100_000, 300_000, 1_000_000)

#: Replicates of the bootstrap of the tail: its memory is that of its inputs, whatever their number.
REPLICATES = 10

#: MB of growth below which the allocator's own steps weigh more than the job.
NOISE_MB = 8.0


def run_all(folder: Path, trials: int, *, sampled: bool) -> list[dict[str, Any]]:
    """Run every job of the example with so many trials; return the chosen job of each model, with its inputs' files."""
    prepared = read_folder(folder)
    pricing = prepared.portfolio.pricing.model_copy(update={"cost_of_capital": 0.06})  # which needs price_tail
    portfolio = prepared.portfolio.model_copy(
        update={
            "trials": trials,
            "tail_fit_replicates": REPLICATES,
            "secondary_uncertainty": sampled,
            "pricing": pricing,
        }
    )
    graph = rollup_graph(portfolio)
    kept = BUILD / f"memory-{trials}{'-sampled' if sampled else ''}"
    kept.mkdir(parents=True, exist_ok=True)
    for key, data in prepared.objects.items():
        (kept / f"i{key}").write_bytes(data)
    shared: dict[str, Arrays] = {}  # the year-event tables, which nearly every job reads
    chosen: dict[str, tuple[float, int, Job]] = {}
    for number in range(len(graph)):
        job = graph.job(number)
        files = [kept / ref.replace(":", "") for ref in job.inputs]
        made = kept / job.ref.replace(":", "")
        if not made.exists():  # of an earlier run of this benchmark
            inputs = [shared.get(ref) or decode(file.read_bytes()) for ref, file in zip(job.inputs, files, strict=True)]
            data = encode(run_model(job.model, job.version, job.params, inputs))
            made.with_suffix(".part").write_bytes(data)
            made.with_suffix(".part").rename(made)
            if job.model == "simulate_years":
                shared[job.ref] = decode(data)
        size = sum(file.stat().st_size for file in files)
        if (job.work, size) > chosen.get(job.model, (0.0, 0))[:2]:
            chosen[job.model] = (job.work, size, job)
    return [{"folder": str(kept), "job": job.to_dict()} for _, _, job in chosen.values()]


def run_one(folder: Path, job: Job) -> dict[str, Any]:
    """Run one job as a worker does, in this process; return what it held before, and its growth, in MB."""
    import riskmill.aws.runtime
    import riskmill.aws.worker  # noqa: F401 - what a worker imports belongs to what it holds before

    forget_peak()
    base = peak_mb()
    inputs = [decode((folder / ref.replace(":", "")).read_bytes()) for ref in job.inputs]
    size = len(encode(run_model(job.model, job.version, job.params, inputs)))
    read = sum((folder / ref.replace(":", "")).stat().st_size for ref in job.inputs)
    return {"base_mb": base, "growth_mb": peak_mb() - base, "read_mb": read / 2**20, "written_mb": size / 2**20}


def example() -> Path:
    """Return the folder of the small example, built once."""
    folder = BUILD / "memory-example"
    if not (folder / "portfolio.json").exists():
        build = [sys.executable, str(ROOT / "examples" / "us_nat_cat" / "build.py"), "--size", "small"]
        subprocess.run([*build, "--out", str(folder), "--format", "parquet"], check=True, stdout=sys.stderr)
    return folder


def measure(trials: tuple[int, ...]) -> dict[str, Any]:
    """Return the figures of every model at every size."""
    facts, sizes, bases = machine(), dict[str, list[dict[str, Any]]](), []
    for sampled in (False, True):
        for number in trials:
            print(f"{number:,} trials{', sampled losses' if sampled else ''}", file=sys.stderr)
            for task in run_all(example(), number, sampled=sampled):
                name = task["job"]["model"]
                if sampled and name != "price_deal":
                    continue  # nothing else reads samples
                command = [sys.executable, __file__, "--one", json.dumps(task)]
                done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
                figures = json.loads(done.stdout)
                bases.append(figures["base_mb"])
                row = {"trials": number, "work": task["job"]["work"]} | figures
                sizes.setdefault(name + (" (sampled)" if sampled else ""), []).append(row)
    return facts | {
        "base_mb": {"measured": round(max(bases), 1), "constant": BASE_MB},
        "models": {name: summary(name, rows) for name, rows in sizes.items()},
    }


def summary(name: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return a model's sizes, and its growth by work: the most of any size that is above the noise."""
    rates = [row["growth_mb"] / row["work"] for row in rows if row["growth_mb"] > NOISE_MB]
    constant = MB_PER_WORK.get(name.partition(" ")[0], 0.0)
    estimates = [BASE_MB + constant * row["work"] for row in rows]
    short = max(row["base_mb"] + row["growth_mb"] - MEMORY_MARGIN * e for row, e in zip(rows, estimates, strict=True))
    return {
        "mb_per_work": max(rates, default=0.0),
        "constant": constant,
        "most_mb": max(row["growth_mb"] for row in rows),
        "within_margin": short <= 0,
        "sizes": [{key: round(value, 2) for key, value in row.items()} for row in rows],
    }


def main() -> None:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    parser.add_argument("--quick", action="store_true", help="up to 100,000 trials")
    parser.add_argument("--save", type=Path, help="also write the JSON to this file")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        task = json.loads(arguments.one)
        print(json.dumps(run_one(Path(task["folder"]), Job.from_dict(task["job"]))))
        return
    result = measure(TRIALS[:2] if arguments.quick else TRIALS)
    text = json.dumps(result, indent=1)
    if arguments.save:
        arguments.save.write_text(text + "\n", encoding="utf-8")
    if arguments.json:
        print(text)
        return
    print(f"imports of a worker: {result['base_mb']['measured']:.0f} MB (constant {BASE_MB:.0f})")
    print(f"{'model':24} {'MB per work':>12} {'constant':>10} {'most MB':>8}  within the margin")
    for name, model in result["models"].items():
        print(
            f"{name:24} {model['mb_per_work']:12.2e} {model['constant']:10.1e} {model['most_mb']:8.0f}  "
            f"{'yes' if model['within_margin'] else 'NO'}"
        )


if __name__ == "__main__":
    main()
