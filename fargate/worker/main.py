"""The Fargate worker: wires the queue's loop to the steps of this deployment; nothing else."""

import logging
import os
import signal
from functools import partial


def main() -> None:
    """Work until there is nothing left to do or SIGTERM comes."""
    # Process 1 of a container has no default handlers, and the imports below take seconds: until there is a worker,
    # there is no message to give back, and it just ends.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    from riskmill.aws.runtime import steps
    from riskmill.aws.worker import Worker, WorkerSettings

    worker = Worker(WorkerSettings.from_environment(os.environ), partial(steps().run_batch, where="fargate"))
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: worker.stop())
    worker.run()


if __name__ == "__main__":
    main()
    logging.shutdown()
    # A job that still computes cannot be broken off, and must not hold the exit up: its batch was given back, and an
    # output is written whole or not at all.
    os._exit(0)
