"""Jobs and their keys.

A job is `(model, model version, parameters, input keys)`; it is deterministic, so its key, a 128-bit content hash over
exactly those four things and the engine's ABI, names its output. Inputs' keys are part of a key (a Merkle graph): a
changed deal changes its own job and the path above it, nothing else.

Every hashed field is tagged with its type and carries its length, so no two different jobs spell the same bytes.
Literal digests are pinned in tests/unit/test_jobs.py: a release that changes keys must do so on purpose.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

from riskmill.errors import ModelError

#: Part of every job's key. It changes when the engine's numerics change (kernel, random numbers, storage format).
ENGINE_ABI = "riskmill-engine-2"

#: Bytes of a key. 128 bits: at 10^12 keys the chance of any collision is below 10^-14.
KEY_BYTES = 16

#: Objects that came with a portfolio ("inputs") and outputs of jobs ("parts"), by the first letter of a reference.
REF_PREFIXES = {"i": "inputs", "p": "parts"}

#: Name of such an object; anything else in those folders is not ours.
_NAME = re.compile(rf"(inputs|parts)/([0-9a-f]{{2}})/(\2[0-9a-f]{{{2 * KEY_BYTES - 2}}})")


def content_key(data: bytes) -> str:
    """Return the key (32 hex digits) of an input object: a hash of its bytes."""
    return blake2b(b"input\0" + data, digest_size=KEY_BYTES).hexdigest()


def canonical(params: Any) -> bytes:
    """Return parameters as canonical JSON bytes (sorted names, no spaces). Raises ModelError for NaN or infinity."""
    try:
        return json.dumps(params, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()
    except (TypeError, ValueError) as error:
        raise ModelError(f"parameters cannot be part of a key: {error}") from error


def _field(tag: bytes, value: bytes) -> bytes:
    return tag + len(value).to_bytes(8, "big") + value


class KeyMaker:
    """Makes the keys of many jobs of one model and one set of parameters: the common part is hashed once."""

    def __init__(self, model: str, version: int, params: bytes, *, abi: str = ENGINE_ABI) -> None:
        self._common = blake2b(digest_size=KEY_BYTES)
        self._common.update(
            _field(b"abi:str", abi.encode())
            + _field(b"model:str", model.encode())
            + _field(b"version:int", str(version).encode())
            + _field(b"params:json", params)
        )

    def key(self, inputs: bytes) -> bytes:
        """Return the 16-byte key of the job whose inputs' tagged references, 17 bytes each, are concatenated here."""
        digest = self._common.copy()
        digest.update(_field(b"inputs:refs", inputs))
        return digest.digest()


def job_key(model: str, version: int, params: Any, inputs: Sequence[str], *, abi: str = ENGINE_ABI) -> str:
    """Return the key (32 hex digits) of one job; `inputs` are references such as `i:<key>` or `p:<key>`, in order."""
    refs = b"".join(ref[0].encode() + bytes.fromhex(ref[2:]) for ref in inputs)
    return KeyMaker(model, version, canonical(params), abi=abi).key(refs).hex()


def object_name(ref: str) -> str:
    """Return the S3 object name of a reference: `parts/ab/ab12...`.

    The first two hex digits give 256 prefixes that are the same in every run and evenly loaded, so S3 keeps its
    partitions split.
    """
    kind, key = ref[0], ref[2:]
    return f"{REF_PREFIXES[kind]}/{key[:2]}/{key}"


def ref_of(name: str) -> str | None:
    """Return the reference of an S3 object name, or None for an object that is neither an input nor an output."""
    match = _NAME.fullmatch(name)
    return f"{match[1][0]}:{match[3]}" if match else None


@dataclass(frozen=True, slots=True)
class Job:
    """One job as a batch carries it."""

    key: str
    model: str
    version: int
    params: dict[str, Any]
    inputs: tuple[str, ...]
    #: size of the work, in the unit of the model's rate (see planner.estimate)
    work: float

    @property
    def ref(self) -> str:
        """The reference of this job's output."""
        return f"p:{self.key}"

    def to_dict(self) -> dict[str, Any]:
        """Return the job as JSON carries it."""
        return {
            "key": self.key,
            "model": self.model,
            "version": self.version,
            "params": self.params,
            "inputs": list(self.inputs),
            "work": self.work,
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "Job":
        """Read a job from a batch file."""
        return cls(
            data["key"], data["model"], data["version"], data["params"], tuple(data["inputs"]), float(data["work"])
        )
