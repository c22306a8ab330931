"""The execution planner: seconds and memory from a portfolio's document to the files of its waves, beside a peer.

1. A plan of the example portfolio (7,000 deals x 100,000 trials), cold (nothing cached) and fully cached.
2. Plans of about 10,000, 100,000 and 1,000,000 jobs: is the time per job flat, does a million fit in memory?
3. redun on the same graph with jobs that do nothing, cold and fully cached.

Every plan is made in a process of its own and against a real Valkey (or Redis) that this program starts and stops. The
best of several rounds counts: whatever else the machine does can only make a round slower. What was planned is checked
(every job once, or none), so a fast wrong plan stops the benchmark.

    python benchmarks/planner.py [--json] [--quick] [--save FILE]
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import Any

import common
import numpy as np
from redis import Redis

from riskmill.aws.index import OutputIndex
from riskmill.graph import JobGraph
from riskmill.planner import PlanSettings, estimate_seconds, plan_waves, prune, wave_files
from riskmill.portfolio import Portfolio
from riskmill.rollup_graph import rollup_graph

EXAMPLE = common.ROOT / "examples" / "us_nat_cat"

#: Trials of the scaled portfolios: ten blocks, so a deal is ten jobs.
SCALED_TRIALS = 1_000_000

#: Deals of the scaled portfolios: sums, measures and allocations bring ten jobs a deal to about these numbers of jobs.
SCALED_DEALS = {"10k": 970, "100k": 9_700, "1M": 97_000}

#: Aims on two cores, from the issue that asked for this benchmark.
AIMS = {"cached_s": 0.5, "million_jobs_s": 30.0, "million_jobs_peak_mb": 1_500.0}


# ---- the portfolios


def example_document() -> bytes:
    """Return the canonical document of the example at full size; it is kept by the content of what it is made from."""
    digest = blake2b(digest_size=8)
    for path in sorted([*EXAMPLE.glob("*.py"), *EXAMPLE.glob("*.csv")]):
        digest.update(path.read_bytes())
    kept = common.BUILD / f"us_nat_cat-full-{digest.hexdigest()}.json"
    if not kept.exists():
        from riskmill_cli.portfolio_folder import read_folder

        with tempfile.TemporaryDirectory(prefix="riskmill-bench-") as folder:
            build = [sys.executable, str(EXAMPLE / "build.py"), "--size", "full", "--out", folder]
            subprocess.run(build, check=True, stdout=sys.stderr)
            document = read_folder(folder).portfolio.to_json()
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_bytes(document)
    return kept.read_bytes()


def scaled(document: bytes, deals: int, trials: int) -> bytes:
    """Return a portfolio of this many deals: copies of the example's groups under one top group.

    Copies have ids and ELT keys of their own, or their jobs would be the same jobs. A part of a copy takes deals at
    even steps through the example, so that every group keeps its share.
    """
    base = json.loads(document)
    scaled_up: dict[str, Any] = base | {"trials": trials, "group": "TOP", "deals": [], "groups": [], "outwards": []}
    tops = []
    for copy in range(-(-deals // len(base["deals"]))):
        suffix = f"-{copy}"
        count = min(len(base["deals"]), deals - len(scaled_up["deals"]))
        part = [base["deals"][at * len(base["deals"]) // count] for at in range(count)]
        taken = {deal["deal_id"] for deal in part}
        for deal in part:
            elt = blake2b((deal["elt"] + suffix).encode(), digest_size=16).hexdigest()
            layers = [layer | {"layer_id": layer["layer_id"] + suffix} for layer in deal["layers"]]
            scaled_up["deals"].append(deal | {"deal_id": deal["deal_id"] + suffix, "elt": elt, "layers": layers})
        for group in base["groups"]:
            members = {
                "deals": [deal + suffix for deal in group["deals"] if deal in taken],
                "groups": [child + suffix for child in group["groups"]],
            }
            scaled_up["groups"].append(group | {"group_id": group["group_id"] + suffix} | members)
        for contract in base["outwards"]:
            ids = {"contract_id": contract["contract_id"] + suffix, "group_id": contract["group_id"] + suffix}
            scaled_up["outwards"].append(contract | ids)
        tops.append(base["group"] + suffix)
    scaled_up["groups"].append({"group_id": "TOP", "name": "All copies", "deals": [], "groups": tops})
    return json.dumps(scaled_up).encode()


# ---- what runs in a process of its own


class Clock:
    """Notes the seconds of each step."""

    def __init__(self) -> None:
        self.steps: dict[str, float] = {}

    def step[R](self, name: str, function: Callable[[], R]) -> R:
        """Return what the function returns, and note how long it took."""
        begun = time.perf_counter()
        result = function()
        self.steps[name] = time.perf_counter() - begun
        return result


def expect(what: str, found: int, wanted: int) -> None:
    """Stop the benchmark if a plan is not what it must be."""
    if found != wanted:
        raise SystemExit(f"a wrong plan: {what}: {found}, not {wanted}")


def plan(document: bytes, port: int, *, cached: bool) -> dict[str, Any]:
    """Plan once, from the document to the waves' files (made, not stored), and say what each step took."""
    index = OutputIndex(Redis(port=port))
    clock, cpu = Clock(), time.process_time()
    portfolio = clock.step("from_json", lambda: Portfolio.from_json(document))
    graph = clock.step("rollup_graph", lambda: rollup_graph(portfolio))
    found = clock.step("look_up", lambda: index.look_up(graph.keys))
    run = clock.step("prune", lambda: prune(graph, found))
    seconds = clock.step("estimate_seconds", lambda: estimate_seconds(graph, {}))
    waves = clock.step("plan_waves", lambda: plan_waves(graph, run, seconds, PlanSettings()))

    def write() -> tuple[int, int, int]:
        jobs = size = files = 0
        for wave in waves:
            for _, data, items in wave_files(graph, wave, run_id="benchmark", round_number=0):
                jobs += sum(int(str(item["jobs"])) for item in items)
                size += len(data)
                files += 1
        return jobs, size, files

    jobs, size, files = clock.step("wave_files", write)
    cpu, peak = time.process_time() - cpu, common.peak_mb()
    expect("jobs found in the cache", int(np.count_nonzero(found)), len(graph) if cached else 0)
    expect("jobs in the waves' files", jobs, 0 if cached else len(graph))
    between = Clock()  # on AWS the graph goes from function to function as one object; not part of the sum
    data = between.step("to_bytes", graph.to_bytes)
    between.step("from_bytes", lambda: JobGraph.from_bytes(data))
    return {
        "jobs": len(graph),
        "edges": len(graph.inputs),
        "jobs_to_run": jobs,
        "seconds": sum(clock.steps.values()),
        "steps_s": clock.steps,
        "cpu_s": cpu,
        "peak_mb": peak,
        "waves": len(waves),
        "batches": sum(len(wave) for wave in waves),
        "files": files,
        "files_mb": size / 1e6,
        "document_mb": len(document) / 1e6,
        "between_functions_s": between.steps,
        "graph_mb": len(data) / 1e6,
    }


def fill(document: bytes, port: int) -> dict[str, Any]:
    """Put every key of a portfolio's graph into the cache."""
    graph = rollup_graph(Portfolio.from_json(document))
    index = OutputIndex(Redis(port=port))
    index.add(key.tobytes() for key in graph.keys)
    return {"keys": index.count()}


def shape(document: bytes, path: Path) -> dict[str, Any]:
    """Write the shape of a portfolio's graph for the peer."""
    graph = rollup_graph(Portfolio.from_json(document))
    inputs = [[i for i in graph.inputs_of(job).tolist() if i >= 0] for job in range(len(graph))]
    path.write_text(json.dumps({"inputs": inputs, "targets": graph.targets.tolist()}))
    return {"jobs": len(graph)}


def child(arguments: list[str]) -> dict[str, Any]:
    """Do one thing in this process: `plan`, `fill` or `shape`, with a document's file and what the thing needs."""
    match arguments:
        case ["plan", document, port, cached]:
            return plan(Path(document).read_bytes(), int(port), cached=cached == "cached")
        case ["fill", document, port]:
            return fill(Path(document).read_bytes(), int(port))
        case ["shape", document, path]:
            return shape(Path(document).read_bytes(), Path(path))
    raise SystemExit(f"unknown: {arguments}")


# ---- what starts those processes


def in_process(*arguments: object, python: Path | str = sys.executable, script: Path | None = None) -> dict[str, Any]:
    """Run this program (or another script) once, in a fresh process, and return the object that it prints."""
    command = [str(python), str(script or __file__), *([] if script else ["--child"]), *map(str, arguments)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def best(rounds: int, once: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return the fastest round, with the seconds of all of them and the least CPU seconds and memory of any."""
    results = [once() for _ in range(rounds)]
    fastest = min(results, key=lambda result: float(result["seconds"]))
    least = {name: min(r[name] for r in results) for name in ("cpu_s", "peak_mb") if name in fastest}
    return fastest | least | {"rounds_s": [result["seconds"] for result in results]}


def measure_planner(folder: Path, document: bytes, rounds: int) -> dict[str, Any]:
    """Return the plans of the example, cold and cached, and of the scaled portfolios."""
    example = folder / "example.json"
    example.write_bytes(document)
    with common.cache_server() as (port, server):

        def planned(path: Path, how: str) -> dict[str, Any]:
            say(f"{path.stem}, {how}")
            return best(rounds, lambda: in_process("plan", path, port, how))

        results: dict[str, Any] = {"server": server, "cold": planned(example, "cold")}
        scales = results["scales"] = {}
        for name, deals in SCALED_DEALS.items():
            path = folder / f"{name}.json"
            path.write_bytes(scaled(document, deals, SCALED_TRIALS))
            scales[name] = {"deals": deals, "trials": SCALED_TRIALS} | planned(path, "cold")
        in_process("fill", example, port)
        results["cached"] = planned(example, "cached")
    return results


def measure_peer(folder: Path, document: bytes, deals: list[int], rounds: int) -> list[dict[str, Any]]:
    """Return the peer's runs of the example's graph cut to each of these numbers of deals, cold and then cached."""
    python, script = common.peers_python(), Path(__file__).with_name("planner_peer.py")
    trials = int(json.loads(document)["trials"])
    results = []
    for count in deals:
        path, form = folder / f"peer-{count}.json", folder / f"shape-{count}.json"
        path.write_bytes(scaled(document, count, trials))
        in_process("shape", path, form)

        def peer(database: Path, form: Path = form) -> dict[str, Any]:
            return in_process(form, database, python=python, script=script)

        say(f"redun, {count} deals, cold")
        cold = [peer(folder / f"{count}-{number}.db") for number in range(rounds)]
        say(f"redun, {count} deals, cached")
        cached = best(2 * rounds, partial(peer, folder / f"{count}-0.db"))
        coldest = min(float(run["seconds"]) for run in cold)
        jobs = int(cached["jobs"])
        results.append(
            {
                "deals": count,
                "jobs": jobs,
                "version": cached["version"],
                "cold_s": coldest,
                "cold_cpu_s": min(float(run["cpu_s"]) for run in cold),
                "cached_s": cached["seconds"],
                "cached_cpu_s": cached["cpu_s"],
                "cold_ms_per_job": 1e3 * coldest / jobs,
                "cached_ms_per_job": 1e3 * cached["seconds"] / jobs,
            }
        )
    return results


def say(what: str) -> None:
    """Tell the person who waits what is measured now."""
    print(f"planner: {what} ...", file=sys.stderr, flush=True)


def measure(*, quick: bool, peer_deals: list[int]) -> dict[str, Any]:
    """Return all figures. Quick: one round of each."""
    machine = common.machine()
    rounds = 1 if quick else 3
    document = example_document()
    deals = len(json.loads(document)["deals"])
    with tempfile.TemporaryDirectory(prefix="riskmill-bench-") as name:
        ours = measure_planner(Path(name), document, rounds)
        peers = measure_peer(Path(name), document, [min(count, deals) for count in peer_deals], min(rounds, 2))
    jobs, scales = ours["cold"]["jobs"], ours["scales"]
    peer, whole = peers[-1], peers[-1]["deals"] == deals
    per_job = {name: 1e6 * scale["seconds"] / scale["jobs"] for name, scale in scales.items()}
    peer_cold, peer_cached = (peer[key] * jobs / peer["jobs"] for key in ("cold_s", "cached_s"))
    peer_cached_cpu = peer["cached_cpu_s"] * jobs / peer["jobs"]
    figures = {
        "benchmark": "planner",
        "machine": machine | {"cache": ours["server"]},
        "rounds": rounds,
        "note": "the best of the rounds, each in a fresh process; machine.load_before tells how busy the machine was",
        "quick": quick,
        "jobs": jobs,
        "deals": deals,
        "cold_s": ours["cold"]["seconds"],
        "cached_s": ours["cached"]["seconds"],
        "cold_peak_mb": ours["cold"]["peak_mb"],
        "cached_peak_mb": ours["cached"]["peak_mb"],
        "million_jobs": scales["1M"]["jobs"],
        "million_jobs_s": scales["1M"]["seconds"],
        "million_jobs_cpu_s": scales["1M"]["cpu_s"],
        "million_jobs_peak_mb": scales["1M"]["peak_mb"],
        "microseconds_per_job": per_job,
        "per_job_1M_over_10k": per_job["1M"] / per_job["10k"],
        "per_job_cpu_1M_over_10k": (scales["1M"]["cpu_s"] / scales["1M"]["jobs"])
        / (scales["10k"]["cpu_s"] / scales["10k"]["jobs"]),
        "peer": f"redun {peer['version']}",
        "peer_cold_s": peer_cold,
        "peer_cached_s": peer_cached,
        "peer_cached_cpu_s": peer_cached_cpu,
        "peer_note": (
            f"the whole graph of {jobs} jobs, measured"
            if whole
            else f"measured on {peer['jobs']} jobs, scaled to {jobs}"
        ),
        "peer_over_ours_cold": peer_cold / ours["cold"]["seconds"],
        "peer_over_ours_cached": peer_cached / ours["cached"]["seconds"],
        "peer_over_ours_cached_cpu": peer_cached_cpu / ours["cached"]["cpu_s"],
        "plans": {"example_cold": ours["cold"], "example_cached": ours["cached"], **scales},
        "peer_runs": peers,
    }
    figures["aims"] = {name: {"aim": aim, "met": figures[name] <= aim} for name, aim in AIMS.items()}
    result: dict[str, Any] = rounded(figures)
    return result


def rounded(value: Any) -> Any:
    """Return the figures with four significant digits: more would be noise."""
    match value:
        case float():
            return float(f"{value:.4g}")
        case dict():
            return {key: rounded(item) for key, item in value.items()}
        case list():
            return [rounded(item) for item in value]
    return value


def table(figures: dict[str, Any]) -> str:
    """Return the figures as a person reads them."""
    plans = figures["plans"]
    steps = list(plans["example_cold"]["steps_s"])
    lines = [
        f"{figures['machine']['cpu']}, {figures['machine']['cores']} cores, Python {figures['machine']['python']}, "
        f"{figures['machine']['cache']}; best of {figures['rounds']}, each in a fresh process",
        "",
        f"{'seconds':18}" + "".join(f"{name:>16}" for name in plans),
        f"{'jobs':18}" + "".join(f"{p['jobs']:>16,}" for p in plans.values()),
        f"{'jobs to run':18}" + "".join(f"{p['jobs_to_run']:>16,}" for p in plans.values()),
        *(f"{step:18}" + "".join(f"{p['steps_s'][step]:>16.3f}" for p in plans.values()) for step in steps),
        f"{'total':18}" + "".join(f"{p['seconds']:>16.3f}" for p in plans.values()),
        f"{'CPU':18}" + "".join(f"{p['cpu_s']:>16.3f}" for p in plans.values()),
        f"{'microseconds/job':18}" + "".join(f"{1e6 * p['seconds'] / p['jobs']:>16.1f}" for p in plans.values()),
        f"{'peak MB':18}" + "".join(f"{p['peak_mb']:>16.0f}" for p in plans.values()),
        "",
        *(
            f"{figures['peer']}: {run['jobs']:,} jobs: cold {run['cold_s']:.1f} s ({run['cold_ms_per_job']:.1f} ms a "
            f"job), cached {run['cached_s']:.1f} s ({run['cached_ms_per_job']:.1f} ms a job)"
            for run in figures["peer_runs"]
        ),
        f"the same {figures['jobs']:,} jobs ({figures['peer_note']}): the peer takes "
        f"{figures['peer_over_ours_cold']:,.0f} times as long cold, "
        f"{figures['peer_over_ours_cached']:,.0f} times as long fully cached "
        f"({figures['peer_over_ours_cached_cpu']:,.0f} times the CPU seconds)",
        "",
        *(
            f"{name}: {figures[name]:,.3g} (aim {aim['aim']:,g}): {'met' if aim['met'] else 'MISSED'}"
            for name, aim in figures["aims"].items()
        ),
    ]
    return "\n".join(lines)


def main() -> None:
    """Measure, and print a table or one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--quick", action="store_true", help="one round each, the peer on 300 deals")
    parser.add_argument(
        "--peer-deals",
        nargs="+",
        type=int,
        metavar="N",
        help="deals of the peer's graphs; the last one is scaled to the whole unless it is (default: 930 1900 7000)",
    )
    parser.add_argument("--save", type=Path, metavar="FILE", help="write the JSON object to a file too")
    parser.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(child(options.child)))
        return
    peer_deals = options.peer_deals or ([300] if options.quick else [930, 1_900, 7_000])
    figures = measure(quick=options.quick, peer_deals=peer_deals)
    text = json.dumps(figures, indent=2)
    if options.save:
        options.save.parent.mkdir(parents=True, exist_ok=True)
        options.save.write_text(text + "\n")
    print(text if options.json else table(figures))


if __name__ == "__main__":
    main()
