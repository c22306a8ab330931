"""The Fargate worker: one process a vCPU, each the queue's loop wired to the steps of this deployment; nothing else.

The first process only watches: it passes SIGTERM on, ends when all others have ended by themselves, ends one that is
stuck, and puts another in the place of one that was killed (its batch comes back by its message's visibility timeout).
`main.py health` is the container's health check: a process turned its loop lately.
"""

import logging
import os
import signal
import sys
import time
from functools import partial
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path
from tempfile import gettempdir

#: A loop turns at least every few seconds, also while a batch is at work. One that has not for so long is stuck; its
#: message is delivered again. A turn without work takes as long as a poll, 5 s, however short the visibility is.
HEALTHY_SECONDS = max(8.0, float(os.environ.get("VISIBILITY_SECONDS") or 120))

#: Importing the libraries takes a while on a busy machine.
START_SECONDS = 120.0

#: A process that was killed is replaced this often in a container's life; then the container ends, and says so.
REPLACEMENTS = 20


def pulse(number: int) -> Path:
    """Return the file whose time says when a process last turned its loop."""
    # Tasks of the embedded cloud share one folder; a container has its own.
    return Path(gettempdir()) / f"worker-{os.environ.get('ECS_TASK_ID', '')}-{number}.alive"


def work(number: int, parent: int) -> None:
    """Work until there is nothing left to do, SIGTERM comes, or the parent, whose process id this is, has gone."""
    # The imports below take seconds: until there is a worker, there is no message to give back, and it just ends.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    from riskmill.aws.runtime import scaling, steps
    from riskmill.aws.worker import Worker, WorkerSettings

    def alive() -> None:
        pulse(number).touch()
        if os.getppid() != parent:  # whoever watched is gone, and with it what would end this process
            worker.stop()

    worker = Worker(
        WorkerSettings.from_environment(os.environ),
        partial(steps().run_batch, where="fargate"),
        keep=steps().claims.keep,
        release=steps().claims.end,
        prepare=steps().prepare,
        work_may_come=lambda: scaling().table.work_may_come(time.time(), os.environ.get("POOL", "")),
        alive=alive,
    )
    for signal_number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signal_number, lambda *_: worker.stop())
    worker.run()
    logging.shutdown()
    # A job that still computes cannot be broken off, and must not hold the exit up: its batch was given back, and an
    # output is written whole or not at all.
    os._exit(0)


def watch(processes: int) -> int:
    """Run this many workers until all have ended; return the exit code."""
    asked = False

    def stop(*_: object) -> None:
        nonlocal asked
        asked = True
        for process in workers.values():
            process.terminate()

    workers: dict[int, BaseProcess] = {}
    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    context, left = get_context("spawn"), REPLACEMENTS
    begun: dict[int, float] = {}

    def start(number: int) -> None:
        pulse(number).unlink(missing_ok=True)
        begun[number] = time.time()
        workers[number] = context.Process(target=work, args=(number, os.getpid()))
        workers[number].start()

    for number in range(processes):
        start(number)
    if asked:
        stop()
    while workers:
        for number, process in list(workers.items()):
            process.join(timeout=0.5 / processes)
            if process.exitcode is None:
                if stuck(number, begun[number]):
                    logging.error("worker %d is stuck", number)
                    process.kill()
                continue
            del workers[number]
            if process.exitcode != 0 and not asked:
                logging.error("worker %d ended with %d", number, process.exitcode)
                if left == 0:
                    return 1
                left -= 1
                start(number)
    return 0


def stuck(number: int, begun: float) -> bool:
    """Tell whether a process that began then has stopped turning its loop."""
    try:
        return time.time() - pulse(number).stat().st_mtime > HEALTHY_SECONDS
    except FileNotFoundError:
        return time.time() - begun > START_SECONDS + HEALTHY_SECONDS


def healthy(processes: int) -> bool:
    """Tell whether a process turned its loop lately, of those that have not ended."""
    times = [pulse(number).stat().st_mtime for number in range(processes) if pulse(number).exists()]
    return bool(times) and time.time() - max(times) < HEALTHY_SECONDS


def main() -> int:
    """Do what the command line says; return the exit code."""
    processes = int(os.environ.get("WORKER_PROCESSES") or os.process_cpu_count() or 1)
    if sys.argv[1:] == ["health"]:
        return 0 if healthy(processes) else 1
    return watch(processes)


if __name__ == "__main__":
    sys.exit(main())
