"""Which model prices a deal, and whether it can: the model that a deal names, or price_deal."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from riskmill.errors import ModelError
from riskmill.models.pricing import PriceDealParams
from riskmill.models.registry import MODELS, find_model
from riskmill.terms import Terms

#: What prices a deal that names no model.
PRICE_DEAL = ("price_deal", 1)

#: Parameters that follow from the portfolio, so no deal states them.
_FROM_PORTFOLIO = frozenset(PriceDealParams.model_fields)


def is_price_model(name: str, version: int) -> bool:
    """Tell whether a model is one that a deal may name: its parameters are PriceDealParams with more of its own."""
    found = MODELS.get((name, version))
    return found is not None and found.params is not PriceDealParams and issubclass(found.params, PriceDealParams)


def named_model(text: str) -> tuple[str, int]:
    """Return (name, version) of `name@version`. Raises ModelError for anything that a deal cannot name."""
    name, at, _ = text.partition("@")
    if not at:
        raise ModelError(f"{text!r} has no version: results must not change when a new one is deployed")
    found = find_model(text)
    if not is_price_model(found.name, found.version):
        raise ModelError(f"{text} does not price deals: its parameters are not a PriceDealParams with more fields")
    return name, found.version


def allowed_models() -> str:
    """Return which models a deal may name, in words."""
    own = [f"{name}@{version}" for name, version in sorted(MODELS) if is_price_model(name, version)]
    return ", ".join(own) or "a model in riskmill/user_models, of which there is none"


def read_pricing_params(text: str) -> dict[str, Any]:
    """Return the parameters in a cell: a JSON object. Raises ModelError for anything else."""
    try:
        found = json.loads(text, parse_constant=_no_number)
    except ValueError as error:
        raise ModelError(f"is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise ModelError("is not a JSON object")
    return found


def _no_number(name: str) -> Any:
    raise ValueError(f"{name} is no number")


def pricing_problems(
    named: str | None, own: Mapping[str, Any], layers: Sequence[Terms] | None
) -> Iterator[tuple[str, str, str]]:
    """Yield (field, problem, what is allowed) for the model that a deal names and its own parameters.

    Without `layers` (they are not read yet) what the model says of layers is left out.
    """
    if named is None:
        if own:
            yield "pricing_params", "is given, and pricing_model is not", "nothing without a pricing_model"
        return
    try:
        key = named_model(named)
    except ModelError as error:
        yield "pricing_model", str(error), allowed_models()
        return
    params = MODELS[key].params
    fields = [name for name in params.model_fields if name not in _FROM_PORTFOLIO]
    allowed = "a JSON object with " + ", ".join(fields) if fields else "nothing: the model has no parameters"
    taken = sorted(_FROM_PORTFOLIO & own.keys())
    if taken:
        yield "pricing_params", f"states {', '.join(taken)}, which the portfolio says", allowed
        return
    stand_in = layers or (Terms(type="QS", ceded_share=1.0),)
    try:
        params.model_validate({**own, "layers": tuple(stand_in)})
    except ValidationError as error:
        for item in error.errors(include_url=False):
            loc = item["loc"]
            if layers is not None or (loc and loc[0] != "layers"):
                place = ".".join(map(str, loc))
                yield "pricing_params", f"{place}: {item['msg']}" if place else item["msg"], allowed
