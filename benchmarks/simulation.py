"""The simulation held against real runs on the embedded cloud.

1. Starts an embedded cloud with one process a task and as many tasks as there are cores.
2. A portfolio, forced onto Fargate, is run (once to warm the functions, once to count) to measure what no quota says
   of this machine: how long a task takes to start, what a batch costs beside its jobs, what a run costs around its
   waves. Its batches' rates are kept by the control table, as always.
3. Other portfolios (more years, another seed) are simulated from those figures alone, and then run. Both are compared:
   seconds from start to results, and tasks launched.

    python benchmarks/simulation.py [--json] [--save FILE]
"""

import argparse
import json
import os
import secrets
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any

from common import machine

from riskmill.strategy import Wish
from riskmill_cli.portfolio_folder import PreparedPortfolio, read_folder
from riskmill_cli.simulate import Size, predict
from riskmill_cli.simulation import Assumptions
from riskmill_local.cloud import Cloud, down, up

ROOT = Path(__file__).parents[1]

#: Years of the first portfolio, which measures the machine, and of those that are predicted.
MEASURED_TRIALS, PREDICTED_TRIALS = 20_000, (50_000, 200_000)

#: Waits of workers and scaler, so that a run of seconds is not mostly waiting.
EARLY_STOP, SCALER_WAIT = 3.0, 1.0


def portfolio(source: Path, trials: int, seed: int) -> PreparedPortfolio:
    """Return the small example with so many years of its own."""
    head = json.loads((source / "portfolio.json").read_text())
    (source / "portfolio.json").write_text(json.dumps(head | {"trials": trials, "seed": seed}))
    return read_folder(source)


def run(deployment: Any, prepared: PreparedPortfolio) -> dict[str, Any]:
    """Run a portfolio on Fargate; return its item, with the seconds that its caller waited."""
    document = prepared.portfolio
    deployment.upload(document.key, document.to_json(), prepared.objects)
    run_id, begun = f"sim-{secrets.token_hex(4)}", time.time()
    deployment.start(run_id, document.key, {"compute": "fargate"})
    item: dict[str, Any] = {}
    for item in deployment.watch(run_id, poll_seconds=0.1):  # noqa: B007 - the last one counts
        pass
    if item["status"] != "SUCCEEDED":
        raise SystemExit(f"run {run_id}: {item['status']} {item.get('error', '')}")
    return item | {"begun": begun, "wall_s": time.time() - begun}


def wait_for_rest(cloud: Cloud, seconds: float = 60.0) -> None:
    """Wait until no task and no scaler runs."""
    ecs, states = cloud.client("ecs"), cloud.client("stepfunctions")
    clusters = [cloud.outputs[f"{name}ClusterName"] for name in ("Worker", "Large")]
    deadline = time.monotonic() + seconds
    while (
        any(ecs.list_tasks(cluster=name)["taskArns"] for name in clusters)
        or (
            states.list_executions(stateMachineArn=cloud.outputs["FargateScalerArn"], statusFilter="RUNNING")[
                "executions"
            ]
        )
    ):
        if time.monotonic() > deadline:
            raise SystemExit("tasks or the scaler do not end")
        time.sleep(0.2)


def entered(cloud: Cloud, run_id: str) -> dict[str, list[float]]:
    """Return when a run's execution entered each of its states (seconds since the epoch)."""
    states = cloud.client("stepfunctions")
    arn = cloud.outputs["RiskRollupArn"].replace(":stateMachine:", ":execution:") + f":{run_id}"
    times: dict[str, list[float]] = {}
    for page in states.get_paginator("get_execution_history").paginate(executionArn=arn):
        for event in page["events"]:
            if event["type"].endswith("StateEntered"):
                name = event["stateEnteredEventDetails"]["name"]
                times.setdefault(name, []).append(event["timestamp"].timestamp())
    return times


def launched(cloud: Cloud, since: float) -> int:
    """Return how many tasks RunTask was asked for since then."""
    states, count = cloud.client("stepfunctions"), 0
    executions = states.list_executions(stateMachineArn=cloud.outputs["FargateScalerArn"])["executions"]
    for execution in executions:
        if execution["startDate"].timestamp() < since - 1:
            continue
        pages = states.get_paginator("get_execution_history").paginate(executionArn=execution["executionArn"])
        for page in pages:
            for event in page["events"]:
                if event["type"] == "MapStateExited":
                    answers = json.loads(event["stateExitedEventDetails"]["output"])["answers"]
                    count += sum(len(answer["answer"].get("tasks", [])) for answer in answers)
    return count


def measured(cloud: Cloud, deployment: Any, item: dict[str, Any], workers: int) -> Assumptions:
    """Return this machine's figures from one run: medians of what its batches and its execution say."""
    times = entered(cloud, item["run_id"])
    batches = deployment.control.batches(item["run_id"])
    begun = {b["batch_id"]: b["history"][0]["at"] for b in batches}
    ended = {b["batch_id"]: begun[b["batch_id"]] + b["seconds"] for b in batches}
    waves: dict[int, list[str]] = {}
    for batch in batches:
        waves.setdefault(int(batch["wave"]), []).append(batch["batch_id"])
    # from one batch of a worker to its next within a wave: what a batch costs beside its jobs
    gaps, by_worker = [], dict[tuple[int, str], list[str]]()
    for batch in sorted(batches, key=lambda b: begun[b["batch_id"]]):
        by_worker.setdefault((int(batch["wave"]), batch["history"][0]["worker"]), []).append(batch["batch_id"])
    for names in by_worker.values():
        gaps += [begun[after] - ended[before] for before, after in pairwise(names)]
    between = [
        min(begun[name] for name in waves[at + 1]) - max(ended[name] for name in waves[at])
        for at in sorted(waves)
        if at + 1 in waves
    ]
    first = min(begun[name] for name in waves[min(waves)])
    work = [b["seconds"] - b["model_seconds"] for b in batches]
    overhead = statistics.median(gaps) + statistics.median(work) if gaps else statistics.median(work)
    last = max(ended.values())
    return Assumptions(
        task_start=first - times["EnsureScaler"][0],
        ecs_lag=0.3,
        iteration=0.2,
        before=times["EnsureScaler"][0] - item["begun"],
        after=item["begun"] + item["wall_s"] - last,
        between_waves=max(0.0, statistics.median(between)) if between else 0.0,
        batch_overhead=max(0.0, overhead),
        processes=1,
        max_tasks=workers,
        lambda_concurrency=workers,
        vcpu=1.0,
        poll=5.0,
        early_stop=EARLY_STOP,
        longest_wait=SCALER_WAIT,
    )


def measure() -> dict[str, Any]:
    """Return simulated beside measured."""
    workers = os.cpu_count() or 1
    facts = machine()
    with tempfile.TemporaryDirectory(prefix="riskmill-bench-") as folder:
        source, state = Path(folder) / "portfolio", Path(folder) / "cloud"
        build = [sys.executable, str(ROOT / "examples" / "us_nat_cat" / "build.py"), "--size", "small"]
        subprocess.run([*build, "--out", str(source)], check=True, stdout=sys.stderr)
        parameters = {
            "BatchConcurrency": str(workers), "Parallelism": str(4 * workers), "MaxTasks": str(workers),
            "WorkerProcesses": "1", "EarlyStopSeconds": f"{EARLY_STOP:g}", "ScalerWait": f"{SCALER_WAIT:g}",
            "LogLevel": "WARNING",
        }  # fmt: skip
        try:
            cloud = up(root=ROOT, state_dir=state, parameters=parameters)
            os.environ.update(cloud.environment)
            from riskmill.aws.deployment import Deployment

            deployment = Deployment(cloud.stack_name)
            # Functions start cold once; it is warm ones that are predicted.
            run(deployment, portfolio(source, MEASURED_TRIALS, 0))
            wait_for_rest(cloud)
            first = run(deployment, portfolio(source, MEASURED_TRIALS, 1))
            given = measured(cloud, deployment, first, workers)
            runs = []
            for number, trials in enumerate(PREDICTED_TRIALS):
                wait_for_rest(cloud)
                prepared = portfolio(source, trials, 100 + number)
                said = predict(
                    prepared.portfolio,
                    wish=Wish.of({"compute": "fargate"}),
                    size=Size(bytes_per_second=1e12),
                    given=given,
                    rates=deployment.control.rates(),
                    parallelism=4 * workers,
                )
                done = run(deployment, prepared)
                runs.append(
                    {
                        "trials": trials,
                        "jobs": said["jobs"],
                        "waves": said["waves"],
                        "batches": said["batches"],
                        "measured_s": round(done["wall_s"], 2),
                        "simulated_s": said["seconds"],
                        "ratio": round(said["seconds"] / done["wall_s"], 3),
                        "tasks_launched": launched(cloud, done["begun"]),
                        "tasks_simulated": said["tasks_launched"],
                    }
                )
            wait_for_rest(cloud)
        finally:
            down(state)
    return {
        "machine": facts,
        "measured_with": {"trials": MEASURED_TRIALS, "seconds": round(first["wall_s"], 2)},
        "assumptions": {name: round(value, 3) for name, value in asdict(given).items()},
        "runs": runs,
        "worst_ratio": max((r["ratio"] for r in runs), key=lambda ratio: max(ratio, 1 / ratio)),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.add_argument("--save", type=Path, help="file to write the JSON object to")
    asked = parser.parse_args()
    figures = measure()
    if asked.save:
        asked.save.write_text(json.dumps(figures, indent=1) + "\n")
    if asked.json:
        print(json.dumps(figures, indent=1))
        return
    for one in figures["runs"]:
        print(
            f"{one['trials']:,} trials, {one['jobs']:,} jobs in {one['waves']} waves: "
            f"measured {one['measured_s']:.1f} s, simulated {one['simulated_s']:.1f} s ({one['ratio']:.2f}); "
            f"tasks {one['tasks_launched']} and {one['tasks_simulated']}"
        )


if __name__ == "__main__":
    main()
