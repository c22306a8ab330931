"""How fast 3,000 Fargate tasks start: the scaler by RunTask, an ECS service, and the limit that the account sets.

By simulation (riskmill_cli/simulation.py): the shipped `scaler.decide` against the documented quotas. Nothing here is
measured on AWS. The run's work is an hour for all tasks, as the system this one replaces needed.

    python benchmarks/scaler.py [--json] [--tasks 3000] [--hours 1.0]
"""

import argparse
import json
import math
import time
from dataclasses import replace

from riskmill_cli.simulation import Assumptions, Outcome, Work, launch_limit, simulate

#: Seconds of one batch; they vary by a quarter up and down, so that tasks do not end in step.
BATCH_SECONDS = 300.0


def waves_of(tasks: int, hours: float, processes: int) -> list[list[Work]]:
    """Return one wave whose work keeps all tasks busy for so long."""
    batches = int(tasks * processes * hours * 3600 / BATCH_SECONDS)
    return [[Work("fargate", BATCH_SECONDS * (1 + 0.25 * math.sin(number)), 2, 1) for number in range(batches)]]


def figures(outcome: Outcome) -> dict[str, object]:
    """Return what is worth knowing of one run."""
    return {
        "all_running_s": round(outcome.ready_at, 1),
        "run_s": round(outcome.seconds, 1),
        "tasks_launched": outcome.tasks_launched,
        "idle_cost_share": round(outcome.idle_seconds / outcome.task_seconds, 4),
        "dollars": round(outcome.cost, 2),
        "throttled": outcome.throttled,
    }


def main() -> None:
    """Print the comparison."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.add_argument("--tasks", type=int, default=3_000)
    parser.add_argument("--hours", type=float, default=1.0, help="work of every task")
    asked = parser.parse_args()
    begun = time.perf_counter()
    given = Assumptions(max_tasks=asked.tasks, processes=1, before=0.0, after=0.0)
    waves = waves_of(asked.tasks, asked.hours, given.processes)
    ours = simulate(waves, "run-task", given)
    patient = simulate(waves, "run-task", replace(given, early_stop=0.0))
    service = simulate(waves, "service", given)
    limit = launch_limit(asked.tasks)
    result = {
        "run_task_s": round(ours.launched_at, 1),
        "service_s": round(service.launched_at, 1),
        "limit_s": round(limit, 1),
        "tasks_launched": ours.tasks_launched,
        "tasks_needed": asked.tasks,
        "idle_cost_share": round(ours.idle_seconds / ours.task_seconds, 4),
        "ratio_to_limit": round(ours.launched_at / limit, 3),
        "run_task": figures(ours),
        "run_task_without_early_stop": figures(patient),
        "service": figures(service),
        "simulated": True,
        "simulation_s": round(time.perf_counter() - begun, 1),
    }
    if asked.json:
        print(json.dumps(result, indent=1))
        return
    print(f"{asked.tasks:,} tasks, {asked.hours:g} h of work each, by simulation against the documented quotas")
    print(f"  limit (burst 100, then 20/s)   {limit:8.1f} s")
    print(f"  scaler, last task launched     {ours.launched_at:8.1f} s  ({ours.launched_at / limit:.3f} of the limit)")
    print(f"  service, last task launched    {service.launched_at:8.1f} s")
    print(f"  tasks launched                 {ours.tasks_launched:8,}    of {asked.tasks:,} needed")
    print(f"  idle cost after the last job   {100 * ours.idle_seconds / ours.task_seconds:8.2f} %")


if __name__ == "__main__":
    main()
