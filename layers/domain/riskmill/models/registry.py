"""The models that a job can name: a function, a name, a version, the type of its parameters.

A model is a pure function `(params, inputs) -> arrays`. A new version is a new number: outputs of the old one keep
their keys, so nothing is ever overwritten by a change of code.
"""

import difflib
import inspect
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, get_type_hints

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


#: What a model may be called; `name@version` names one version of it.
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}")


def model(name: str, *, version: int = 1, params: type[BaseModel] | None = None) -> Callable[[Run], Run]:
    """Register the decorated function as model `name` at `version`; a name and version are taken once.

    Without `params` the type of the parameters is the annotation of the function's first argument.
    Raises ValueError for a name or version that cannot be or is taken, TypeError for parameters without a type.
    """
    if not _NAME.fullmatch(name):
        raise ValueError(f"model {name!r}: a name is a letter, then letters, digits and _ (64 at the most)")
    if version < 1:
        raise ValueError(f"model {name}: versions count from 1, not {version}")

    def register(run: Run) -> Run:
        if (name, version) in MODELS:
            raise ValueError(f"model {name} version {version} is registered twice")
        MODELS[name, version] = Model(name, version, params or _annotated(name, run), run)
        return run

    return register


def _annotated(name: str, run: Run) -> type[BaseModel]:
    """Return the type that a function's first argument is annotated with."""
    first = next(iter(inspect.signature(run).parameters), None)
    found = None if first is None else get_type_hints(run).get(first)
    if isinstance(found, type) and issubclass(found, BaseModel):
        return found
    raise TypeError(f"model {name}: annotate the first argument with the pydantic model of its parameters")


def find_model(text: str) -> Model:
    """Return the model `name@version`, or the latest version of `name`. Raises ModelError for one that is not known."""
    name, at, number = text.partition("@")
    versions = sorted(version for known, version in MODELS if known == name)
    if not versions:
        near = difflib.get_close_matches(name, {known for known, _ in MODELS}, n=1)
        hint = f"did you mean {near[0]}?" if near else "`riskmill models` lists them"
        raise ModelError(f"no model {name!r} ({hint})")
    if not at:
        return MODELS[name, versions[-1]]
    if not number.isascii() or not number.isdigit() or int(number) not in versions:
        raise ModelError(f"no version {number!r} of model {name}; known: {', '.join(map(str, versions))}")
    return MODELS[name, int(number)]


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
