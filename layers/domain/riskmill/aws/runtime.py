"""What a handler starts from: the steps of this deployment, made at the first call and kept."""

import os
from functools import cache

from riskmill.aws.cache_steps import CacheSteps
from riskmill.aws.scaling import Scaling
from riskmill.aws.steps import Steps
from riskmill.settings import ScalingSettings, Settings


@cache
def steps() -> Steps:
    """Return the steps with the environment's settings, read once."""
    return Steps(Settings.from_environment(os.environ))


@cache
def scaling() -> Scaling:
    """Return the scaler's steps with the environment's settings, read once."""
    return Scaling(Settings.from_environment(os.environ), ScalingSettings.from_environment(os.environ))


@cache
def cache_steps() -> CacheSteps:
    """Return the cache's steps with the environment's settings, read once."""
    return CacheSteps(Settings.from_environment(os.environ))
