"""The risk models. Importing this package registers every one of them, users' models (riskmill.user_models) last."""

from riskmill import user_models
from riskmill.models import allocation, catalogue, fit_models, metrics, pricing, quotes, rollup, tail_fit
from riskmill.models.discovery import import_all
from riskmill.models.registry import MODELS, Model, find_model, model, run_model

import_all(user_models)

__all__ = [
    "MODELS",
    "Model",
    "allocation",
    "catalogue",
    "find_model",
    "fit_models",
    "metrics",
    "model",
    "pricing",
    "quotes",
    "rollup",
    "run_model",
    "tail_fit",
]
