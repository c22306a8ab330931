"""The risk models. Importing this package registers every one of them."""

from riskmill.models import allocation, catalogue, metrics, pricing, quotes, rollup, tail_fit
from riskmill.models.registry import MODELS, Model, model, run_model

__all__ = [
    "MODELS",
    "Model",
    "allocation",
    "catalogue",
    "metrics",
    "model",
    "pricing",
    "quotes",
    "rollup",
    "run_model",
    "tail_fit",
]
