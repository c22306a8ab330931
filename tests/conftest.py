"""Fixtures that several folders of tests share, and the tests that run only when asked for."""

import os

import pytest

from cloud_fixtures import cloud, endpoint
from rollup_cloud import rollups

__all__ = ["cloud", "endpoint", "rollups"]

LONG = "RISKMILL_LONG_TESTS"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip, with the reason, what would take CI past its half hour."""
    if os.environ.get(LONG):
        return
    skip = pytest.mark.skip(reason=f"minutes of waiting for workers and scalers: {LONG}=1 make test runs it")
    for item in items:
        if item.get_closest_marker("long"):
            item.add_marker(skip)
