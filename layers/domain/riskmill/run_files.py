"""Names of a run's files in the data bucket. Everything of a run is below `runs/<run id>/`."""

import re

from riskmill.errors import RiskmillError

#: A run id is also an execution name and part of object names, so it keeps to what all of them allow.
RUN_ID = re.compile(r"[0-9A-Za-z][0-9A-Za-z_-]{0,79}")


def checked_run_id(run_id: str) -> str:
    """Return the run id. Raises RiskmillError for one that cannot name an execution and an object."""
    if not RUN_ID.fullmatch(run_id):
        raise RiskmillError(f"run id {run_id!r}: 1 to 80 letters, digits, '-' or '_', starting with a letter or digit")
    return run_id


def portfolio_file(key: str) -> str:
    """The canonical portfolio, by its content."""
    return f"portfolios/{key}.json"


def graph_file(run_id: str) -> str:
    """The job graph of a run."""
    return f"runs/{run_id}/graph"


def status_file(run_id: str, round_number: int) -> str:
    """What is known of every job before a round."""
    return f"runs/{run_id}/status/r{round_number}"


def wave_file(run_id: str, round_number: int, wave: int) -> str:
    """One wave's batches, as the Distributed Map reads them."""
    return f"runs/{run_id}/plan/r{round_number}/w{wave}.json"


def manifest_folder(run_id: str, round_number: int) -> str:
    """Where the batches of a round say what they did."""
    return f"runs/{run_id}/manifests/r{round_number}/"


def errors_file(run_id: str) -> str:
    """Jobs that failed, by number, with their errors."""
    return f"runs/{run_id}/errors.json"


def unfinished_file(run_id: str) -> str:
    """The jobs that a failed or cancelled run did not finish, with what became of each."""
    return f"runs/{run_id}/unfinished.json"


def result_file(run_id: str, name: str) -> str:
    """One of a run's results."""
    return f"runs/{run_id}/results/{name}"
