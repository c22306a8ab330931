"""The chain of all models gives the same bytes as when its digests were pinned, on every host of the architecture."""

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
from numpy._core._multiarray_umath import __cpu_dispatch__, __cpu_features__

from golden import chain

#: A change here is a change of every result: it needs a new model version, or a new ENGINE_ABI in jobs.py.
DIGESTS = {
    "years": "4d520b8d2fc62fec09ecd8b6cbb158360a10b01b2ee63b0ad8d199e3378f8a88",
    "deal": "41dc771f0cc3bbde4dc9cd5495f3c6dbc820d024a8f5a5c62bc2a4d1756eca12",
    "leaf": "ac077c977c5c14df4bf764da523b00cd106966d5a43fd2b1237530b2ed0a2284",
    "gross": "02bf87622f533de5ebb6fcb30328b50b45aebbca23f90feff058231d26c7d5b1",
    "cover": "4b81fc3045f0c242208d113e50bb3c5896f072d16232be741c85590ef264caec",
    "stop": "5167a29a347b744b1cc70a5294f239cb4f54c582ac12ae97b57ecd30ec519325",
    "measure": "9c0d67fa33ec21049ccd90c1c3257bb66f86967b2ee9c0535f8e7729d546d660",
    "allocate": "c9e6e5cd01d0d140e712840f993b82aa75aa6e66f38ec666fb273e72dd8472ab",
    "deals": "3ca115f6a4821197444e588d9d2cfc9509913060d7d8fcb25c651342a66100f8",
}

x86 = pytest.mark.skipif(platform.machine() != "x86_64", reason="bytes are promised per architecture; pinned on x86-64")


def _with_features_off(features: list[str]) -> tuple[dict[str, str], list[str]]:
    root = Path(chain.__file__).resolve().parents[2]
    environment = {
        **os.environ,
        "NPY_DISABLE_CPU_FEATURES": " ".join(features),
        "PYTHONPATH": os.pathsep.join([str(root / "layers" / "domain"), str(root / "tests")]),
    }
    done = subprocess.run(
        [sys.executable, chain.__file__], env=environment, capture_output=True, text=True, check=True, timeout=120
    )
    found = json.loads(done.stdout)
    return found["digests"], found["features"]


@x86
def test_the_chain_of_all_models_gives_the_pinned_bytes() -> None:
    assert chain.digests() == DIGESTS


@x86
@pytest.mark.parametrize("kept", [0, 1], ids=["all dispatch off", "only the lowest level of dispatch"])
def test_the_bytes_do_not_depend_on_the_hosts_vector_instructions(kept: int) -> None:
    switchable = [name for name in __cpu_dispatch__ if __cpu_features__.get(name)]
    off = switchable[kept:]
    if not off:
        pytest.skip("this host has no vector instructions that numpy could do without")
    digests, features = _with_features_off(off)
    assert not set(off) & set(features)
    assert digests == DIGESTS


def test_the_chain_reaches_every_term() -> None:
    """Otherwise its digests would pin nothing."""
    made = chain.outputs()
    for deal in range(chain.DEALS):
        for block in range(chain.BLOCKS):
            assert made[f"deal {deal} {block}"]["row"].size
    stats = made["leaf 0 0"]["layer_stats"]
    assert (stats[:, 3] > stats[:, 4]).any()
    assert (stats[:, 4] > 0).any()
    assert (stats[:, 5] > 0).any()
    for contract in ("cover 0", "stop 0"):
        assert (made[contract]["ceded"] > 0).any()
    assert made["measure gross"]["tail_trial"].size >= chain.BLOCK * chain.BLOCKS // 100
