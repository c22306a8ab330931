"""The peer of benchmarks/planner.py: redun evaluates a graph of the same shape whose jobs do nothing.

Runs in an environment of its own (requirements/peers.txt), so it imports nothing of riskmill. The first run of a
database finds nothing cached, every later one finds everything.

    python planner_peer.py SHAPE.json DATABASE        prints one JSON object
"""

import argparse
import json
import logging
import time
from pathlib import Path

import redun
from redun import Scheduler, task
from redun.config import Config

redun_namespace = "planner_benchmark"


@task()
def job(number: int, inputs: list[int]) -> int:
    """Do nothing. The number makes every job a job of its own, as parameters do in a real graph."""
    return number


def main() -> None:
    """Evaluate every job of a shape: {"inputs": [[numbers of jobs, lower ones] of each job], "targets": [...]}."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("shape", type=Path)
    parser.add_argument("database", type=Path)
    options = parser.parse_args()
    logging.getLogger("redun").setLevel(logging.ERROR)  # a line of log per job is not what is compared
    shape = json.loads(options.shape.read_text())
    scheduler = Scheduler(config=Config({"backend": {"db_uri": f"sqlite:///{options.database}"}}))
    scheduler.load()
    begun, begun_cpu = time.perf_counter(), time.process_time()
    jobs: list[object] = []
    for number, inputs in enumerate(shape["inputs"]):
        jobs.append(job(number, [jobs[i] for i in inputs]))
    result = scheduler.run([jobs[target] for target in shape["targets"]])
    seconds, cpu = time.perf_counter() - begun, time.process_time() - begun_cpu
    if result != shape["targets"]:
        raise SystemExit("the peer's answer is wrong")
    print(json.dumps({"jobs": len(jobs), "seconds": seconds, "cpu_s": cpu, "version": redun.__version__}))


if __name__ == "__main__":
    main()
