"""Fixtures that several folders of tests share."""

from cloud_fixtures import cloud, endpoint
from rollup_cloud import rollups

__all__ = ["cloud", "endpoint", "rollups"]
