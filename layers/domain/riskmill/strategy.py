"""The compute strategy: where a batch runs, and why. Pure.

Lambda when a batch fits its time and its memory with margin: it starts in no time and costs nothing at rest. Fargate
for the rest: no limit of time, more memory, a third of the price a second. An estimate is a model's measured rate (the
control table keeps one per model and version, from finished batches) times the job's work.

A batch is cut to a minute (planner.py), so it is a job that cannot be cut, a fit or a measure of very many trials, that
is too long for Lambda.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from riskmill.errors import RiskmillError
from riskmill.graph import JobGraph
from riskmill.planner import Batch
from riskmill.quotas import LAMBDA_SECONDS

type Compute = Literal["auto", "lambda", "fargate"]

#: What a run's or a model's `compute` may say.
COMPUTE: tuple[Compute, ...] = ("auto", "lambda", "fargate")

#: A batch is for Lambda when this many times its estimate fits. Iterative fits vary with their data, hosts differ, and
#: a job that Lambda's clock cuts off is lost whole.
TIME_MARGIN = 5.0
MEMORY_MARGIN = 1.5

#: MB that any worker holds besides the job at work: 129 are interpreter, numpy, scipy and the layer's imports, 512 the
#: inputs and outputs that it keeps (Settings.memory_cache_bytes), the rest what it fetches ahead.
BASE_MB = 700.0

#: MB per unit of work of models whose memory grows with it: what benchmarks/memory.py measured (peak of the resident
#: size, over inputs, model and encoded output), and a quarter more. Inputs are counted here though the cache may hold
#: them as well. Memory of the other models does not follow their work: the benchmark shows how much it is.
MB_PER_WORK: dict[str, float] = {
    "measure": 1.3e-3,
    "allocate": 1.8e-3,
    "simulate_years": 1.5e-3,
    "price_deal": 2.8e-4,
    "apply_retro": 5e-4,
    "retained": 1.2e-3,
    "fit_models": 6e-5,
}


@dataclass(frozen=True, slots=True)
class Sizes:
    """What a place offers one batch, in MB: Lambda, one process of a standard task, one of a large task."""

    lambda_mb: float = 3_538
    standard_mb: float = 16_384 / 4
    large_mb: float = 30_720


@dataclass(frozen=True, slots=True)
class Wish:
    """What the caller wants: a place for the whole run, and places for single models, which go first."""

    run: Compute = "auto"
    models: Mapping[str, Compute] = field(default_factory=dict)

    @classmethod
    def of(cls, options: Mapping[str, object]) -> "Wish":
        """Read a run's options `compute` and `compute_models`. Raises RiskmillError for a word that is no place."""
        models = options.get("compute_models") or {}
        if not isinstance(models, Mapping):
            raise RiskmillError(f"option compute_models is not an object: {models!r}")
        wish = cls(options.get("compute") or "auto", dict(models))  # type: ignore[arg-type]
        for word in (wish.run, *wish.models.values()):
            if word not in COMPUTE:
                raise RiskmillError(f"compute {word!r}: one of {', '.join(COMPUTE)}")
        return wish


def estimate_mb(graph: JobGraph) -> NDArray[np.float64]:
    """Return the memory that each job is thought to need, in MB (float64 [n])."""
    per_spec = np.array([MB_PER_WORK.get(spec.model, 0.0) for spec in graph.specs], dtype=np.float64)
    return BASE_MB + per_spec[graph.spec] * graph.work


def place(
    waves: Sequence[Sequence[Batch]], graph: JobGraph, megabytes: NDArray[np.float64], wish: Wish, sizes: Sizes
) -> None:
    """Set where each batch of these waves runs, in which size, and why."""
    models = [spec.model for spec in graph.specs]
    spec = graph.spec.tolist()
    memory = megabytes.tolist()
    for wave in waves:
        for batch in wave:
            wishes = {w for job in batch.jobs if (w := wish.models.get(models[spec[job]]))} if wish.models else set()
            needed = max(memory[job] for job in batch.jobs)
            batch.target, batch.why = _target(batch.seconds, needed, wishes, wish.run, sizes)
            if batch.target == "fargate":
                batch.size = "standard" if needed * MEMORY_MARGIN <= sizes.standard_mb else "large"


def _target(seconds: float, megabytes: float, wishes: set[Compute], run: Compute, sizes: Sizes) -> tuple[str, str]:
    for place in ("fargate", "lambda"):
        if place in wishes:
            return place, "as wished for its model"
    if run != "auto" and "auto" not in wishes:
        return run, "as wished for the run"
    if seconds * TIME_MARGIN > LAMBDA_SECONDS:
        return "fargate", f"longer than Lambda's {LAMBDA_SECONDS:.0f} s with a margin of {TIME_MARGIN:g}"
    if megabytes * MEMORY_MARGIN > sizes.lambda_mb:
        return "fargate", f"more memory than Lambda's {sizes.lambda_mb:,.0f} MB with a margin of {MEMORY_MARGIN:g}"
    return "lambda", "fits with margin"


def demand_of(waves: Sequence[Sequence[Batch]]) -> list[dict[str, int]]:
    """Return how many batches of each size each wave sends to Fargate."""
    demand: list[dict[str, int]] = []
    for wave in waves:
        sizes = [batch.size for batch in wave if batch.target == "fargate"]
        demand.append({size: sizes.count(size) for size in dict.fromkeys(sizes)})
    return demand
