"""A user's model, from a file in a checkout to its bytes: on Lambda, on a Fargate worker, and with run-model.

The checkout is a copy of this one with the worked example in user_models, and everything runs from the copy: the
command line, the embedded cloud, its functions and its workers.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cloud_fixtures import ROOT
from riskmill_local import deploy
from riskmill_local.cloud import Cloud
from rollup_cloud import fresh_seed
from unit.portfolio_fixtures import Folder

#: One process at a time: a second cloud is as much as a small machine has room for.
pytestmark = [pytest.mark.cloud, pytest.mark.xdist_group("cloud")]

#: What a deployment and its commands need of a checkout.
PARTS = ("template.yaml", "templates", "functions", "layers", "statemachines", "fargate", "local", "cli")
MODEL = "nth_event_cover"

#: The portfolio's jobs run one after the other from the copy's own code; digests of their outputs by key.
DIRECTLY = """
import json, sys
from hashlib import blake2b
from riskmill_cli.portfolio_folder import read_folder
from rollup_cloud import run_directly
direct = run_directly(read_folder(sys.argv[1]))
models = {direct.graph.key(job): direct.graph.job(job).model for job in range(len(direct.graph))}
digests = {key: blake2b(data).hexdigest() for key, data in direct.outputs.items()}
print(json.dumps({"digests": digests, "models": models}))
"""


class Checkout:
    """A copy of this checkout's parts, with the worked example among its models, and commands run from it."""

    def __init__(self, root: Path) -> None:
        self.root, self.state = root, root / "state"
        for name in PARTS:
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(source, root / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy2(source, root / name)
        own = ROOT / "examples" / "own_models" / f"{MODEL}.py"
        shutil.copy2(own, root / "layers" / "domain" / "riskmill" / "user_models")
        self._share_dependencies()

    def _share_dependencies(self) -> None:
        """Let sam build find the packages that it fetched for this checkout: the requirements are the same."""
        with deploy.build_folder(ROOT) as built:
            record = (built / "build.toml").read_text()
            (self.root / ".aws-sam").mkdir()
            (self.root / ".aws-sam" / "build.toml").write_text(record.replace(f'"{ROOT}/', f'"{self.root}/'))
            for name in ("deps", "zips"):
                shutil.copytree(built / name, self.root / ".aws-sam" / name, copy_function=os.link)

    @property
    def environment(self) -> dict[str, str]:
        """The variables of a user's shell, and this checkout's packages before any that are installed."""
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "RISKMILL_"))}
        packages = [str(self.root / folder) for folder in ("layers/domain", "cli", "local")]
        return clean | {
            "PYTHONPATH": os.pathsep.join([*packages, str(ROOT / "tests")]),
            "RISKMILL_STATE_DIR": str(self.state),
            "RISKMILL_SAM": str(deploy.sam_binary(ROOT)),
        }

    def python(self, *arguments: str) -> Any:
        """Run Python in the checkout to its end; the JSON value that it printed."""
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=self.root,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return json.loads(done.stdout)

    def riskmill(self, *arguments: str) -> Any:
        """Run the command to its end; the JSON value that it printed."""
        return self.python("-m", "riskmill_cli.main", *arguments, "--json")

    def outputs(self, keys: set[str]) -> dict[str, str]:
        """Digests of the outputs in the bucket, by key: those of `keys` that are there."""
        cloud = Cloud.load(self.state)
        assert cloud is not None
        s3, bucket = cloud.client("s3"), cloud.outputs["DataBucketName"]
        pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix="parts/")
        names = [entry["Key"] for page in pages for entry in page.get("Contents", [])]
        return {
            name.rpartition("/")[2]: blake2b(s3.get_object(Bucket=bucket, Key=name)["Body"].read()).hexdigest()
            for name in names
            if name.rpartition("/")[2] in keys
        }


@pytest.fixture(scope="module")
def checkout(cloud: Cloud, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Checkout]:
    """The copy with its own embedded cloud. `cloud` has built this checkout before: its packages are shared."""
    made = Checkout(tmp_path_factory.mktemp("checkout"))
    try:
        assert "endpoint" in made.riskmill("local", "up")
        yield made
    finally:
        made.riskmill("local", "down")


def write_portfolio(path: Path) -> Path:
    """Write the tiny portfolio with deal D1 priced by the user's model, and a seed of its own."""
    folder = Folder()
    folder.head |= {"seed": fresh_seed(), "trials": 20_000}
    own = {"event_number": 2, "qualifying_loss": 10}
    folder.rows["deals"][0] |= {"pricing_model": f"{MODEL}@1", "pricing_params": json.dumps(own)}
    return folder.write(path)


@pytest.mark.parametrize("place", ["lambda", "fargate"])
def test_a_deal_is_priced_by_a_users_model_wherever_its_batch_runs(
    checkout: Checkout, tmp_path: Path, place: str
) -> None:
    """Every output of the rollup is, to the byte, what the models give in one process."""
    folder = write_portfolio(tmp_path / "portfolio")
    run = checkout.riskmill("rollup", str(folder), "--compute", place)
    assert run["status"] == "SUCCEEDED", run.get("error")
    direct = checkout.python("-c", DIRECTLY, str(folder))
    assert sorted(direct["models"].values()).count(MODEL) == 1
    assert checkout.outputs(set(direct["digests"])) == direct["digests"]
    where = {batch["where"] for batch in checkout.riskmill("status", run["run_id"])["batches"]}
    assert where == {place}


def test_the_model_is_listed_and_runs_by_itself(checkout: Checkout, tmp_path: Path) -> None:
    """The worked example of docs/model-sdk.md: 90 - 50 in the first year, the limit of 60 in the third."""
    assert (MODEL, 1) in [(each["model"], each["version"]) for each in checkout.riskmill("models")]
    (tmp_path / "elt.csv").write_text("event,mean:float64\n1,120\n2,90\n")
    np.savez(
        tmp_path / "yet.npz",
        trial=np.int32([0, 0, 1, 2, 2]),
        day=np.int16([5, 90, 7, 20, 300]),
        event=np.int32([1, 2, 2, 2, 1]),
        trials=np.int64([3]),
    )
    layer = {"type": "CXL", "occurrence_retention": 50, "occurrence_limit": 60}
    (tmp_path / "params.json").write_text(json.dumps({"event_number": 2, "layers": [layer]}))
    files = ["--params", "params.json", "--input", "elt.csv", "--input", "yet.npz", "--out", "out.npz"]
    checkout.riskmill("run-model", MODEL, *(str(tmp_path / name) if "." in name else name for name in files))
    made = np.load(tmp_path / "out.npz")
    assert made["row"].tolist() == [1, 4]
    assert made["loss"].tolist() == [40.0, 60.0]
