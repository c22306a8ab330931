"""Which cloud a command talks to, and how it says what goes wrong."""

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, Literal

import typer
from botocore.exceptions import BotoCoreError, ClientError
from rich.console import Console
from rich.markup import escape

from riskmill.aws.deployment import Deployment
from riskmill.errors import PortfolioInvalid, RiskmillError

type CloudName = Literal["auto", "local", "aws"]

#: People read this; a program reads standard output, which holds nothing but JSON with --json.
console = Console(stderr=True, highlight=False)

#: Faults shown on a terminal; with --json all of them.
FAULTS_SHOWN = 50

#: Exit codes: 1 something failed, 2 the input is bad, 130 stopped by the user.
FAILED, BAD_INPUT = 1, 2


@cache
def project_root() -> Path:
    """Return the checkout that this command works in: the folder above with template.yaml, or the current one."""
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / "template.yaml").is_file() and (folder / "statemachines").is_dir():
            return folder
    return here


def state_dir() -> Path:
    """Return where this checkout's embedded cloud keeps its state."""
    from riskmill_local.cloud import default_state_dir  # slow to import, and not every command needs it

    return Path(os.environ.get("RISKMILL_STATE_DIR") or default_state_dir(project_root()))


def connect(cloud: CloudName, stack: str) -> Deployment:
    """Return the deployment to talk to.

    `auto` takes the embedded cloud if it is up and AWS_ENDPOINT_URL is not set, else whatever the AWS configuration
    says (an endpoint in AWS_ENDPOINT_URL, or AWS itself).
    """
    if cloud == "local" or (cloud == "auto" and "AWS_ENDPOINT_URL" not in os.environ):
        from riskmill_local.cloud import status

        running = status(state_dir())
        if running is not None:
            os.environ.update(running.environment)
        elif cloud == "local":
            raise RiskmillError("the embedded cloud is not up: `riskmill local up` starts it")
    return Deployment(stack)


def emit(value: Any) -> None:
    """Print one JSON value to standard output."""
    json.dump(value, sys.stdout, indent=2, default=str, allow_nan=False)
    sys.stdout.write("\n")


@contextmanager
def told(as_json: bool) -> Iterator[None]:
    """Turn what a user can mend into one clear message and an exit code; a fault of ours keeps its traceback."""
    try:
        yield
    except PortfolioInvalid as error:
        if as_json:
            emit({"error": "PortfolioInvalid", "faults": error.faults})
        for fault in error.faults[:FAULTS_SHOWN]:
            console.print(f"[red]✗[/] {escape(fault)}")
        if len(error.faults) > FAULTS_SHOWN:
            console.print(f"… and {len(error.faults) - FAULTS_SHOWN} more (--json lists all)")
        number = len(error.faults)
        console.print(f"[red]{number} fault{'' if number == 1 else 's'}[/]; nothing was done")
        raise typer.Exit(BAD_INPUT) from error
    except (RiskmillError, BotoCoreError, ClientError) as error:
        if as_json:
            emit({"error": type(error).__name__, "message": str(error)})
        console.print(f"[red]error:[/] {escape(str(error))}")
        raise typer.Exit(FAILED) from error


def phases(as_json: bool) -> Callable[[str], None]:
    """Return what reports phases of a long command on the terminal."""
    return (lambda _: None) if as_json else (lambda words: console.print(f"[dim]· {escape(words)}[/]"))
