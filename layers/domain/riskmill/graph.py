"""The graph of a run's jobs, as arrays: a million jobs fit in memory and in one S3 object.

Jobs stand in topological order: a job's inputs have lower numbers. Builders add jobs that belong together (a bucket's
deals, then their sum) one after the other, so that number order is also locality order.
"""

import json
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from riskmill.errors import GraphCycle, ModelError
from riskmill.jobs import KEY_BYTES, Job, KeyMaker, canonical
from riskmill.outputs import decode, encode


def topological_order(edges: Mapping[str, Iterable[str]]) -> list[str]:
    """Return the names so that what each one contains comes before it. Raises GraphCycle with the cycle's members."""
    try:
        return list(TopologicalSorter(edges).static_order())
    except CycleError as error:
        raise GraphCycle([str(name) for name in error.args[1]]) from error


@dataclass(frozen=True, slots=True)
class Spec:
    """What several jobs share: the model, its version and the parameters (canonical JSON)."""

    model: str
    version: int
    params: bytes


@dataclass(frozen=True, slots=True)
class JobGraph:
    """The jobs of one run. `n` jobs, `m` edges, all arrays aligned with the job number unless said."""

    #: uint8 [n, 16]
    keys: NDArray[np.uint8]
    #: int32 [n], index into `specs`
    spec: NDArray[np.int32]
    #: int64 [n + 1] and int32 [m]: inputs of job j are inputs[offsets[j]:offsets[j + 1]]; >= 0 a job, < 0 `~external`
    offsets: NDArray[np.int64]
    inputs: NDArray[np.int32]
    #: float64 [n], size of the work in the unit of the model's rate
    work: NDArray[np.float64]
    #: int32 [n], jobs with the same affinity share inputs and are best run together
    affinity: NDArray[np.int32]
    #: int32 [n], index into `subjects`, and the block of trials, for names that a person understands
    subject: NDArray[np.int32]
    block: NDArray[np.int32]
    #: int32, the jobs whose outputs the run is for, and the name under which each is wanted
    targets: NDArray[np.int32]
    target_names: list[str]
    specs: list[Spec]
    subjects: list[str]
    #: references of inputs that came with the portfolio
    externals: list[str]

    def __len__(self) -> int:
        return len(self.spec)

    def key(self, job: int) -> str:
        """Return the key of a job as 32 hex digits."""
        data: bytes = self.keys[job].tobytes()
        return data.hex()

    def label(self, job: int) -> str:
        """Return a name of a job that a person understands: model, subject, block."""
        spec = self.specs[self.spec[job]]
        return f"{spec.model} {self.subjects[self.subject[job]]} block {self.block[job]}"

    def inputs_of(self, job: int) -> NDArray[np.int32]:
        """Return the inputs of a job (>= 0 jobs, < 0 externals)."""
        return self.inputs[self.offsets[job] : self.offsets[job + 1]]

    def refs_of(self, job: int) -> tuple[str, ...]:
        """Return the references of a job's inputs, in order."""
        return tuple(next(self.refs_of_each([job])))

    def refs_of_each(self, jobs: Sequence[int]) -> Iterator[list[str]]:
        """Yield the references of each of these jobs' inputs. Their keys are fetched at once, not one by one."""
        numbers = np.array(jobs, dtype=np.int64)
        first, counts = self.offsets[numbers], self.offsets[numbers + 1] - self.offsets[numbers]
        ends = np.cumsum(counts)
        inputs = self.inputs[np.arange(counts.sum()) + np.repeat(first - (ends - counts), counts)]
        keys = self.keys[np.maximum(inputs, 0)].tobytes().hex()  # an external's place holds any key, which is not read
        width = 2 * KEY_BYTES
        refs = [
            f"p:{keys[at * width : at * width + width]}" if number >= 0 else self.externals[~number]
            for at, number in enumerate(inputs.tolist())
        ]
        start = 0
        for end in ends.tolist():
            yield refs[start:end]
            start = end

    def job(self, number: int) -> Job:
        """Return a job as a batch carries it."""
        spec = self.specs[self.spec[number]]
        return Job(
            key=self.key(number),
            model=spec.model,
            version=spec.version,
            params=json.loads(spec.params),
            inputs=self.refs_of(number),
            work=float(self.work[number]),
        )

    def to_bytes(self) -> bytes:
        """Return the graph as one object."""
        text = {
            "specs": [[s.model, s.version, s.params.decode()] for s in self.specs],
            "subjects": self.subjects,
            "externals": self.externals,
            "target_names": self.target_names,
        }
        names = ("keys", "spec", "offsets", "inputs", "work", "affinity", "subject", "block", "targets")
        arrays: dict[str, Any] = {name: getattr(self, name) for name in names}
        arrays["text"] = np.frombuffer(json.dumps(text, ensure_ascii=False).encode(), dtype=np.uint8)
        return encode(arrays)

    @classmethod
    def from_bytes(cls, data: bytes) -> "JobGraph":
        """Read a graph that `to_bytes` wrote."""
        arrays = decode(data)
        text = json.loads(arrays.pop("text").tobytes())
        specs = [Spec(model, version, params.encode()) for model, version, params in text["specs"]]
        names = {name: text[name] for name in ("subjects", "externals", "target_names")}
        fields: dict[str, Any] = {**arrays, **names, "specs": specs}
        return cls(**fields)


class GraphBuilder:
    """Builds a JobGraph. Jobs with the same key are one job, however often they are added."""

    def __init__(self) -> None:
        self._keys: dict[bytes, int] = {}
        self._spec = array("i")
        self._offsets = array("q", [0])
        self._inputs = array("i")
        self._work = array("d")
        self._affinity = array("i")
        self._subject = array("i")
        self._block = array("i")
        self._targets: dict[str, int] = {}
        self._specs: list[Spec] = []
        self._makers: list[KeyMaker] = []
        self._subjects: dict[str, int] = {}
        self._externals: dict[str, int] = {}
        self._external_refs: list[bytes] = []
        self._job_refs: list[bytes] = []

    def spec(self, model: str, version: int, params: Any) -> int:
        """Register a model, version and parameters (a JSON value, or canonical bytes); return their number."""
        encoded = params if isinstance(params, bytes) else canonical(params)
        self._specs.append(Spec(model, version, encoded))
        self._makers.append(KeyMaker(model, version, encoded))
        return len(self._specs) - 1

    def external(self, ref: str) -> int:
        """Register an input that came with the portfolio; return its number (negative)."""
        known = self._externals.setdefault(ref, len(self._externals))
        if known == len(self._external_refs):
            self._external_refs.append(ref[0].encode() + bytes.fromhex(ref[2:]))
        return ~known

    def subject(self, name: str) -> int:
        """Register what a job is about (a deal, a group) by name; return its number."""
        return self._subjects.setdefault(name, len(self._subjects))

    def job(
        self, spec: int, inputs: Sequence[int], *, subject: int, block: int = 0, work: float = 1.0, affinity: int = -1
    ) -> int:
        """Add a job (or find the same one) and return its number. Inputs must have been added before."""
        job_refs, externals = self._job_refs, self._external_refs
        refs = b"".join([job_refs[i] if i >= 0 else externals[~i] for i in inputs])
        key = self._makers[spec].key(refs)
        number = len(self._spec)
        known = self._keys.setdefault(key, number)
        if known != number:
            return known
        job_refs.append(b"p" + key)
        self._spec.append(spec)
        self._inputs.extend(inputs)
        self._offsets.append(len(self._inputs))
        self._work.append(work)
        self._affinity.append(affinity)
        self._subject.append(subject)
        self._block.append(block)
        return number

    def target(self, name: str, job: int) -> None:
        """Say that the run is for this job's output, wanted under this name. One job may serve several names."""
        self._targets[name] = job

    def build(self) -> JobGraph:
        """Return the graph. Raises ModelError for a graph without a target, which would do nothing."""
        if not self._targets:
            raise ModelError("a graph without a target does nothing")
        return JobGraph(
            keys=np.frombuffer(b"".join(self._keys), dtype=np.uint8).reshape(-1, KEY_BYTES),
            spec=np.frombuffer(self._spec, dtype=np.int32),
            offsets=np.frombuffer(self._offsets, dtype=np.int64),
            inputs=np.frombuffer(self._inputs, dtype=np.int32) if self._inputs else np.zeros(0, np.int32),
            work=np.frombuffer(self._work, dtype=np.float64),
            affinity=np.frombuffer(self._affinity, dtype=np.int32),
            subject=np.frombuffer(self._subject, dtype=np.int32),
            block=np.frombuffer(self._block, dtype=np.int32),
            targets=np.array(list(self._targets.values()), dtype=np.int32),
            target_names=list(self._targets),
            specs=self._specs,
            subjects=list(self._subjects),
            externals=list(self._externals),
        )
