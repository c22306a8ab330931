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
from riskmill.models import kernel

#: A change here is a change of every result: it needs a new model version, or a new ENGINE_ABI in jobs.py.
DIGESTS = {
    "years": "4d520b8d2fc62fec09ecd8b6cbb158360a10b01b2ee63b0ad8d199e3378f8a88",
    "deal": "41dc771f0cc3bbde4dc9cd5495f3c6dbc820d024a8f5a5c62bc2a4d1756eca12",
    "leaf": "ac077c977c5c14df4bf764da523b00cd106966d5a43fd2b1237530b2ed0a2284",
    "gross": "02bf87622f533de5ebb6fcb30328b50b45aebbca23f90feff058231d26c7d5b1",
    "cover": "4b81fc3045f0c242208d113e50bb3c5896f072d16232be741c85590ef264caec",
    "stop": "5167a29a347b744b1cc70a5294f239cb4f54c582ac12ae97b57ecd30ec519325",
    "terms": "299b7991931415d129111bf4ba66964b7bc5badff00c2ada7c8f6a85a7319062",
    "sampled": "0714f113a2e6acbf1eda2f8ca967d1db6a02ba805c3429b6a1a3e8718083c530",
    "measure": "77ffbb1df8ce85d5b5fc3519919ec5cd5820a0339b661d36b8d66046e50107be",
    "perils": "a3b6bb619364a43cead35314713403e60e32b99cf3c18121daf4df641c4c2d1f",
    "retained": "8c2307a011dd2ef0d240743764f39457a0600bd596b70ff69a13c6289125ca68",
    "allocate": "621b817bf672da851338389797e3c565a806cf296ada52a530ccb92c56a7f2ac",
    "loaded": "22d009e8be103e9ea7d830c2efeac54d1e596212651c4f7fa13d2a6c580176e2",
    "deals": "98fe448eff1bb3fc6c320268713ba22c44c023b6de5dc86bccee49273a3ff1fe",
    "compared": "25d82cd1080238afd9fa7f77b1656799b3a4a91a7120de0f59ed3dd1a2ac0290",
}

x86 = pytest.mark.skipif(platform.machine() != "x86_64", reason="bytes are promised per architecture; pinned on x86-64")


#: The compiled kernel, where there is one, and numpy alone.
KERNELS = ["compiled", "numpy"] if kernel.compiled() else ["numpy"]


def _in_a_process(choice: str, features_off: list[str]) -> tuple[dict[str, str], list[str]]:
    root = Path(chain.__file__).resolve().parents[2]
    environment = {
        **os.environ,
        "NPY_DISABLE_CPU_FEATURES": " ".join(features_off),
        "RISKMILL_KERNEL": choice,
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
def test_the_chain_gives_the_pinned_bytes_without_the_compiled_kernel() -> None:
    digests, _ = _in_a_process("numpy", [])
    assert digests == DIGESTS


@x86
@pytest.mark.parametrize("choice", KERNELS)
@pytest.mark.parametrize("kept", [0, 1], ids=["all dispatch off", "only the lowest level of dispatch"])
def test_the_bytes_do_not_depend_on_the_hosts_vector_instructions(kept: int, choice: str) -> None:
    switchable = [name for name in __cpu_dispatch__ if __cpu_features__.get(name)]
    off = switchable[kept:]
    if not off:
        pytest.skip("this host has no vector instructions that numpy could do without")
    digests, features = _in_a_process(choice, off)
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
