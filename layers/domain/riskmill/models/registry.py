"""The models that a job can name: a function, a name, a version, the type of its parameters.

A model is a pure function `(params, inputs) -> arrays`. A new version is a new number: outputs of the old one keep
their keys, so nothing is ever overwritten by a change of code.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ValidationError

from riskmill.errors import ModelError
from riskmill.outputs import Array, Arrays

type Run = Callable[[Any, Sequence[Arrays]], dict[str, Array]]


@dataclass(frozen=True, slots=True)
class Model:
    """One registered model."""

    name: str
    version: int
    params: type[BaseModel]
    run: Run


MODELS: dict[tuple[str, int], Model] = {}


def model(name: str, *, version: int, params: type[BaseModel]) -> Callable[[Run], Run]:
    """Register the decorated function as model `name` at `version`; a name and version are taken once."""

    def register(run: Run) -> Run:
        if (name, version) in MODELS:
            raise ValueError(f"model {name} version {version} is registered twice")
        MODELS[name, version] = Model(name, version, params, run)
        return run

    return register


def run_model(name: str, version: int, params: dict[str, Any], inputs: Sequence[Arrays]) -> dict[str, Array]:
    """Run a model on parameters as they stand in a job. Raises ModelError for an unknown model or bad parameters."""
    registered = MODELS.get((name, version))
    if registered is None:
        raise ModelError(f"no model {name} version {version}; known: {sorted(MODELS)}")
    try:
        typed = registered.params.model_validate(params)
    except ValidationError as error:
        raise ModelError(f"{name} version {version}: {error}") from error
    return registered.run(typed, inputs)
