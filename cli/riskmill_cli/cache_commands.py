"""`riskmill cache` and `riskmill dlq`: look at the cache, repair it, and see to what was put aside."""

from datetime import UTC, datetime
from typing import Annotated, Any

import typer
from rich.table import Table

from riskmill.aws.cache_admin import CacheAdmin
from riskmill_cli.session import CloudName, connect, console, emit, phases, told

cache_app = typer.Typer(no_args_is_help=True, help="The cache: which outputs exist. It may be lost and is rebuilt.")
dlq_app = typer.Typer(no_args_is_help=True, help="Dead letters: messages and records that no retry helped.")

Cloud = Annotated[CloudName, typer.Option(help="auto: the embedded cloud if it is up, else the AWS configuration")]
Stack = Annotated[str, typer.Option(envvar="RISKMILL_STACK", help="name of the CloudFormation stack")]
Json = Annotated[bool, typer.Option("--json", help="print one JSON value to standard output")]
Keys = Annotated[list[str], typer.Argument(help="keys of outputs, 32 hex digits each")]
Queue = Annotated[str | None, typer.Option(help="one queue only (`riskmill dlq list` names them)")]
Ids = Annotated[list[str] | None, typer.Argument(help="message ids; all of them if left out")]
Limit = Annotated[int, typer.Option(min=1, help="most messages of a queue that are looked at")]

STACK = "riskmill"


def _admin(cloud: CloudName, stack: str) -> CacheAdmin:
    return CacheAdmin(connect(cloud, stack).outputs)


@cache_app.command()
def status(cloud: Cloud = "auto", stack: Stack = STACK, as_json: Json = False) -> None:
    """Say how many keys there are, what they cost, and what waits to be indexed."""
    with told(as_json):
        facts = _admin(cloud, stack).status()
        if as_json:
            emit(facts)
            return
        console.print(
            f"[bold]{facts['keys']:,}[/] keys ({facts['mode']}), {facts['emptiest']:,} to {facts['fullest']:,} a "
            f"partition, {facts['bytes'] / 1e6:.1f} MB ({facts['bytes_per_key'] or 0} bytes a key)"
        )
        console.print(
            f"a key leaves {facts['retention_days']} days after its output was written, S3 keeps the output for "
            f"{facts['lifecycle_days']} days"
        )
        console.print("waiting: " + ", ".join(f"{name} {count:,}" for name, count in facts["waiting"].items()))
        if last := facts["last_rebuild"]:
            console.print(f"last rebuild or sweep: {last['status']}, {_time(last['started'])}")


@cache_app.command()
def rebuild(
    concurrency: Annotated[int, typer.Option(min=1, max=40, help="partitions at the same time")] = 16,
    cloud: Cloud = "auto",
    stack: Stack = STACK,
    as_json: Json = False,
) -> None:
    """Make the cache equal to what S3 holds, while runs go on."""
    with told(as_json):
        phases(as_json)("comparing 256 partitions with S3")
        done = _admin(cloud, stack).rebuild(concurrency)
        if as_json:
            emit(done)
        else:
            console.print(
                f"[green]rebuilt[/]: {done['objects']:,} outputs in S3, {done['indexed_before']:,} were indexed, "
                f"{done['added']:,} added, {done['removed']:,} removed"
            )


@cache_app.command()
def evict(
    keys: Annotated[list[str] | None, typer.Argument(help="keys of outputs, 32 hex digits each")] = None,
    everything: Annotated[bool, typer.Option("--all", help="every key; `rebuild` brings them back")] = False,
    cloud: Cloud = "auto",
    stack: Stack = STACK,
    as_json: Json = False,
) -> None:
    """Take keys out of the cache: a run that needs them computes them, or finds them in S3."""
    if bool(keys) == everything:
        raise typer.BadParameter("name keys, or say --all")
    with told(as_json):
        done = _admin(cloud, stack).inspect("clear" if everything else "evict", keys or ())
        if as_json:
            emit(done)
        else:
            console.print(f"{done['evicted']:,} key(s) taken out of the cache")


@cache_app.command()
def why(keys: Keys, cloud: Cloud = "auto", stack: Stack = STACK, as_json: Json = False) -> None:
    """Say of each key whether it is cached, until when, and whether that is right."""
    with told(as_json):
        found = _admin(cloud, stack).inspect("why", keys)["keys"]
        if as_json:
            emit(found)
            return
        for facts in found:
            console.print(f"{facts['key']}: {facts['why']}", markup=False)


@dlq_app.command("list")
def list_letters(
    queue: Queue = None, limit: Limit = 100, cloud: Cloud = "auto", stack: Stack = STACK, as_json: Json = False
) -> None:
    """List dead letters with their errors. They stay where they are."""
    with told(as_json):
        admin = _admin(cloud, stack)
        rows = [
            {"queue": held.queue, "id": held.message_id, "sent": held.sent, "function": held.letter.function,
             "error": held.letter.error, "replay": held.letter.way, "excerpt": held.letter.excerpt}
            for held in admin.dead_letters(queue, limit=limit)
        ]  # fmt: skip
        if as_json:
            emit(rows)
        elif rows:
            _show(rows)
        else:
            console.print(f"no dead letters in {', '.join(admin.queues())}")


def _show(rows: list[dict[str, Any]]) -> None:
    table = Table("queue", "id", "sent", "error", "content", box=None)
    for row in rows:
        table.add_row(row["queue"], row["id"], _time(row["sent"]), row["error"], row["excerpt"])
    console.print(table, markup=False)


@dlq_app.command()
def replay(
    ids: Ids = None,
    queue: Queue = None,
    limit: Limit = 1000,
    cloud: Cloud = "auto",
    stack: Stack = STACK,
    as_json: Json = False,
) -> None:
    """Give dead letters to who failed on them again; what fails again stays. Exit code 1 if anything stays."""
    with told(as_json):
        ended = _admin(cloud, stack).replay(queue, ids or (), limit=limit)
        _say(ended, as_json)
    raise typer.Exit(0 if set(ended) <= {"replayed"} else 1)


@dlq_app.command()
def drop(
    ids: Ids = None,
    everything: Annotated[bool, typer.Option("--all", help="every dead letter of the queue, or of all")] = False,
    queue: Queue = None,
    limit: Limit = 1000,
    cloud: Cloud = "auto",
    stack: Stack = STACK,
    as_json: Json = False,
) -> None:
    """Delete dead letters for good."""
    if bool(ids) == everything:
        raise typer.BadParameter("name message ids, or say --all")
    with told(as_json):
        _say(_admin(cloud, stack).drop(queue, ids or (), limit=limit), as_json)


def _say(ended: dict[str, list[str]], as_json: bool) -> None:
    if as_json:
        emit(ended)
    else:
        console.print(", ".join(f"{len(ids):,} {what}" for what, ids in ended.items()) or "nothing there")


def _time(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S} UTC"
