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
    "sampled": "4bc3636564d5f5624015c3adf97ec97c2653589e2ceebfa888e2fc9d7204ddfb",
    "measure": "77ffbb1df8ce85d5b5fc3519919ec5cd5820a0339b661d36b8d66046e50107be",
    "perils": "62f209543222ecd4b61408f03e49268e0189811ac8099c5b0f92e76c19a444a0",
    "retained": "8c2307a011dd2ef0d240743764f39457a0600bd596b70ff69a13c6289125ca68",
    "allocate": "17e97b831afed107130e732ef104b42085f4291625f18f2686a546294f8c5960",
    "loaded": "13941f2a7141ab8ef5a2b94213c0e3add2144ac1ae9c6d95ecdabb88f4598df0",
    "deals": "615886aebbd2423a335c137cdee794c0499621ddc2c86be913d9dd676b9f99a9",
    "tail": "032a26b5b2cac1a124e8bfc22408a14beb16704d446140c8e5ee0ec36d938460",
    "record": "b7bffa93868f64114e304fae7e7c69840b29c2a9fe57a96c973e17d9acd1145c",
    "compared": "3a439e23f8ad6aacafd0d73a4f88847b809face65b9e890b74c50ef8a1f09903",
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
