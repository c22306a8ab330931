"""What taking the next message ahead saves: `python benchmarks/prefetch.py [--json] [--save FILE]`.

A real worker process runs the small example's batches, all forced onto it, from a queue and bucket of the emulator;
once with the next message taken ahead, once without, and each with the emulator's own latency and with some added to
every answer, as a network has it. Seconds between batches: the long waves' wall time, less what the models computed, by
batch. Each run has keys of its own (another seed), so nothing is found.
"""

import argparse
import asyncio
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import numpy as np
from common import BUILD, ROOT, machine
from memory import example

from riskmill.aws.steps import Steps
from riskmill.run_files import portfolio_file, wave_file
from riskmill.settings import Settings
from riskmill_cli.portfolio_folder import read_folder
from riskmill_local import processes, servers
from riskmill_local.deploy import aws_environment
from riskmill_local.servers import Layout

#: ms added to every answer: none, and a little less than what S3 and SQS take for small objects within a region.
LATENCIES = (0.0, 15.0)

#: Planned seconds of a batch: short ones, so that what lies between them shows.
BATCH_SECONDS = 0.1
#: Batches of a wave that is measured: between waves a worker waits for the next one, which no looking ahead shortens.
MANY = 8
ROUNDS = 3


@contextlib.contextmanager
def slower(port: int, milliseconds: float) -> Iterator[int]:
    """Yield a port that answers as `port` does, but later."""

    async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter, delay: float) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await source.read(1 << 16):
                if delay:
                    await asyncio.sleep(delay)
                sink.write(data)
                await sink.drain()
        sink.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        onward, back = await asyncio.open_connection("127.0.0.1", port)
        # the request is held up, once; an answer's parts follow each other
        await asyncio.gather(pump(reader, back, milliseconds / 1000), pump(onward, writer, 0.0))

    loop, own = asyncio.new_event_loop(), processes.free_port()
    loop.run_until_complete(asyncio.start_server(serve, "127.0.0.1", own))
    threading.Thread(target=loop.run_forever, daemon=True).start()
    try:
        yield own
    finally:
        loop.call_soon_threadsafe(loop.stop)


def prepare(steps: Steps, run_id: str, seed: int) -> list[list[dict[str, Any]]]:
    """Plan the example with a seed of its own; return the items of each wave."""
    prepared = read_folder(example())
    portfolio = prepared.portfolio.model_copy(update={"seed": seed})
    steps.bucket.put_many({f"inputs/{key[:2]}/{key}": data for key, data in prepared.objects.items()})
    steps.bucket.put(portfolio_file(portfolio.key), portfolio.to_json())
    options = {"compute": "fargate", "max_batch_seconds": BATCH_SECONDS, "parallelism": 64}
    jobs = steps.build_graph(run_id, portfolio.key, options)["jobs"]
    steps._put_status(run_id, 0, np.zeros(jobs, dtype=np.uint8))
    waves = steps.plan(run_id, 0)["waves"]
    return [steps.bucket.get_json(wave_file(run_id, 0, wave)) for wave in range(waves)]


def timed(steps: Steps, queue: str, environment: dict[str, str], seed: int) -> dict[str, float]:
    """Run one rollup's batches by one worker; return batches and seconds."""
    run_id = f"prefetch-{uuid.uuid4().hex[:8]}"
    waves = prepare(steps, run_id, seed)
    sqs, wall = boto3.client("sqs"), 0.0
    command = [sys.executable, str(ROOT / "fargate" / "worker" / "main.py")]
    worker = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    assert worker.stdout is not None
    try:
        while "waiting for work" not in worker.stdout.readline():
            pass
        threading.Thread(target=worker.stdout.read, daemon=True).start()
        done = 0
        for wave in waves:
            began = time.monotonic()
            for item in wave:
                sqs.send_message(QueueUrl=queue, MessageBody=json.dumps({"item": item}))
            done += len(wave)
            while sum("seconds" in batch for batch in steps.control.batches(run_id)) < done:
                time.sleep(0.02)
            if len(wave) >= MANY:
                wall += time.monotonic() - began
    finally:
        worker.terminate()
        worker.wait()
    long = {number for number, wave in enumerate(waves) if len(wave) >= MANY}
    batches = [batch for batch in steps.control.batches(run_id) if batch["wave"] in long]
    computed = sum(batch["model_seconds"] for batch in batches)
    return {
        "batches": len(batches),
        "wall_s": wall,
        "models_s": computed,
        "between_s": (wall - computed) / len(batches),
    }


def measure() -> dict[str, Any]:
    """Return the figures of every latency, with and without the next message taken ahead: the best of some rounds."""
    facts: dict[str, Any] = machine() | {"batch_seconds": BATCH_SECONDS, "latencies": []}
    cloud_id = uuid.uuid4().hex
    with tempfile.TemporaryDirectory() as folder:
        layout = Layout(Path(folder))
        _, port = servers.start_ministack(layout, cloud_id, redis_port=1)
        try:
            for number, latency in enumerate(LATENCIES):
                with slower(port, latency) as near:
                    facts["latencies"].append(one_latency(port, near, latency, 100 * number))
        finally:
            processes.end_all(cloud_id, layout.redis)
    return facts


def one_latency(port: int, near: int, latency: float, seed: int) -> dict[str, Any]:
    """Return what a latency's runs took. The worker sees the slower port, the planning of it the emulator's own."""
    os.environ |= aws_environment(f"http://127.0.0.1:{port}")
    name = f"b{uuid.uuid4().hex[:8]}"
    region = {"LocationConstraint": servers.REGION}
    boto3.client("s3").create_bucket(Bucket=name, CreateBucketConfiguration=region)  # type: ignore[typeddict-item]
    keys = {"pk": "S", "sk": "S", "started": "N"}
    schema = {key: [{"AttributeName": "pk", "KeyType": "HASH"}, {"AttributeName": key, "KeyType": "RANGE"}]
              for key in ("sk", "started")}  # fmt: skip
    boto3.client("dynamodb").create_table(
        TableName=name,
        BillingMode="PAY_PER_REQUEST",
        AttributeDefinitions=[{"AttributeName": key, "AttributeType": kind} for key, kind in keys.items()],
        KeySchema=schema["sk"],
        LocalSecondaryIndexes=[
            {"IndexName": "by_start", "KeySchema": schema["started"], "Projection": {"ProjectionType": "ALL"}}
        ],
    )
    queue = boto3.client("sqs").create_queue(QueueName=name)["QueueUrl"]
    steps = Steps(Settings(bucket=name, control_table=name))
    result: dict[str, Any] = {"added_ms": latency}
    for ahead in ("0", "1"):
        environment = os.environ | aws_environment(f"http://127.0.0.1:{near}")
        environment |= {"BUCKET": name, "CONTROL_TABLE": name, "QUEUE_URL": queue.replace(str(port), str(near))}
        environment |= {"INDEX_QUEUE_URL": queue, "AHEAD_SECONDS": ahead, "WORKER_PROCESSES": "1"}
        environment |= {"PYTHONPATH": str(ROOT / "layers" / "domain"), "OMP_NUM_THREADS": "1"}
        rounds = [timed(steps, queue, environment, seed + 10 * int(ahead) + number) for number in range(ROUNDS)]
        best = min(rounds, key=lambda each: each["between_s"])
        result["ahead" if ahead == "1" else "one_at_a_time"] = {key: round(value, 4) for key, value in best.items()}
        print(f"{latency:g} ms added, ahead {ahead}: {best['between_s']:.3f} s between batches", file=sys.stderr)
    result["saved_s"] = round(result["one_at_a_time"]["between_s"] - result["ahead"]["between_s"], 4)
    return result


def main() -> None:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    parser.add_argument("--save", type=Path, help="also write the JSON to this file")
    arguments = parser.parse_args()
    BUILD.mkdir(parents=True, exist_ok=True)
    result = measure()
    text = json.dumps(result, indent=1)
    if arguments.save:
        arguments.save.write_text(text + "\n", encoding="utf-8")
    if arguments.json:
        print(text)


if __name__ == "__main__":
    main()
