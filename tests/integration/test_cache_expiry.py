"""The whole expiry flow on an embedded cloud whose days are a minute long.

Outputs appear, are used, expire, are evicted, and the next run computes exactly those again.
"""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cloud_fixtures import ROOT
from riskmill.jobs import object_name
from riskmill.rollup_graph import rollup_graph
from riskmill_local import cloud as embedded
from riskmill_local.cloud import Cloud
from riskmill_local.launcher_env import TTL_SECONDS
from rollup_cloud import Rollups, connected, fresh_seed, keys_of, tiny_portfolio, wait_until

pytestmark = [pytest.mark.cloud, pytest.mark.xdist_group("cloud")]

DAY_SECONDS = 60


@pytest.fixture(scope="module")
def short_lived(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rollups]:
    """The application with a retention of one day, and a day of one minute."""
    state_dir: Path = tmp_path_factory.mktemp("short") / "cloud"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(TTL_SECONDS, "1")
        cloud: Cloud = embedded.up(
            root=ROOT, state_dir=state_dir, parameters={"RetentionDays": "1", "DaySeconds": str(DAY_SECONDS)}
        )
    try:
        with connected(cloud) as rollups:
            yield rollups
    finally:
        embedded.down(state_dir)


def test_outputs_appear_are_used_expire_and_exactly_those_are_computed_again(short_lived: Rollups) -> None:
    rollups = short_lived
    old, young = tiny_portfolio(seed=fresh_seed()), tiny_portfolio(seed=fresh_seed())
    old_keys, young_keys = (keys_of(rollup_graph(prepared.portfolio)) for prepared in (old, young))
    bucket, table = rollups.bucket, rollups.cloud.outputs["ExpiryTableName"]
    dynamodb = rollups.cloud.client("dynamodb")

    def expiries() -> dict[str, int]:
        pages = dynamodb.get_paginator("scan").paginate(TableName=table)
        return {item["key"]["B"].hex(): int(item["expires_at"]["N"]) for page in pages for item in page["Items"]}

    # they appear, each with the time at which it goes
    assert rollups.roll_up(old).run["computed"] == len(old_keys)
    wait_until(lambda: old_keys <= expiries().keys(), "every output has an expiry", seconds=DAY_SECONDS / 2)
    written = {key: bucket.written(object_name(f"p:{key}")) for key in old_keys}
    recorded = expiries()
    assert all(abs(recorded[key] - (written[key] or 0) - DAY_SECONDS) <= 2 for key in old_keys)

    # they are used
    again = rollups.roll_up(old).run
    assert (again["cached"], again.get("computed", 0)) == (len(old_keys), 0)

    # they expire, and are evicted; younger ones are not
    wait_until(lambda: max(recorded.values()) - time.time() < 15, "most of a day passes", seconds=DAY_SECONDS)
    assert rollups.roll_up(young).run["computed"] == len(young_keys)
    wait_until(lambda: not rollups.cached(old_keys), "the old ones are evicted", seconds=2 * DAY_SECONDS)
    assert rollups.cached(young_keys) == young_keys
    assert rollups.output_keys() == old_keys | young_keys  # S3 keeps them for a week longer
    assert not old_keys & expiries().keys()

    # the next run computes exactly those again, and writes them anew
    third = rollups.roll_up(old).run
    assert (third["cached"], third["computed"]) == (0, len(old_keys))
    assert all((bucket.written(object_name(f"p:{key}")) or 0) > (written[key] or 0) for key in old_keys)
    assert rollups.cached(old_keys) == old_keys
