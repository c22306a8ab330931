"""One parameter drives the cache's retention, S3's lifecycle and the margin between them: they cannot disagree."""

import json
import re
from typing import Any

import pytest

from mock_cloud import ROOT, template
from riskmill.cache import KeyFacts, explain
from riskmill.expiry import MARGIN_DAYS, SECONDS_A_DAY, expires_at, expiries, is_worn, lifecycle_days
from riskmill.settings import Settings

TEMPLATE = template()
TEXT = (ROOT / "template.yaml").read_text()
PARAMETER: dict[str, Any] = TEMPLATE["Parameters"]["RetentionDays"]


def test_every_retention_that_can_be_chosen_has_the_lifecycle_that_the_domain_says() -> None:
    rows = TEMPLATE["Mappings"]["Retention"]
    assert list(rows) == PARAMETER["AllowedValues"]
    assert {int(days): row["LifecycleDays"] for days, row in rows.items()} == {
        int(days): lifecycle_days(int(days)) for days in PARAMETER["AllowedValues"]
    }


def test_nothing_else_sets_either_of_them() -> None:
    """S3's rule and LIFECYCLE_DAYS come from the mapping, RETENTION_DAYS from the parameter, and there is no third."""
    assert not [name for name in TEMPLATE["Parameters"] if "Lifecycle" in name]
    rules = TEMPLATE["Resources"]["DataBucket"]["Properties"]["LifecycleConfiguration"]["Rules"]
    (outputs,) = [rule for rule in rules if rule.get("Prefix") == "parts/"]
    from_mapping = ["Retention", "RetentionDays", "LifecycleDays"]
    assert outputs["ExpirationInDays"] == from_mapping
    variables = [TEMPLATE["Globals"]["Function"]["Environment"]["Variables"]] + [
        resource["Properties"].get("Environment", {}).get("Variables", {})
        for resource in TEMPLATE["Resources"].values()
        if resource["Type"] == "AWS::Serverless::Function"
    ]
    assert {json.dumps(v["LIFECYCLE_DAYS"]) for v in variables if "LIFECYCLE_DAYS" in v} == {json.dumps(from_mapping)}
    assert {v["RETENTION_DAYS"] for v in variables if "RETENTION_DAYS" in v} == {"RetentionDays"}
    assert TEXT.count("!Ref RetentionDays") == 1 + TEXT.count(
        "!FindInMap [Retention, !Ref RetentionDays, LifecycleDays]"
    )


def test_days_are_days_on_aws() -> None:
    """Only the embedded cloud may shorten them: S3's lifecycle would not follow."""
    (rule,) = TEMPLATE["Rules"]["RealDays"]["Assertions"]
    assert rule["Assert"] == ["DaySeconds", str(SECONDS_A_DAY)]
    assert TEMPLATE["Parameters"]["DaySeconds"]["Default"] == SECONDS_A_DAY


def test_the_defaults_of_code_and_template_are_the_same() -> None:
    settings = Settings()
    assert str(settings.retention_days) == PARAMETER["Default"]
    assert settings.lifecycle_days == lifecycle_days(settings.retention_days)
    assert settings.day_seconds == SECONDS_A_DAY
    assert settings.cache_expiry == TEMPLATE["Parameters"]["CacheExpiry"]["Default"]


def test_the_margin_covers_a_late_delete_and_the_longest_run() -> None:
    longest_run = json.loads((ROOT / "statemachines" / "risk_rollup.asl.json").read_text())["TimeoutSeconds"]
    late_delete_days = 4  # "within a few days"
    assert late_delete_days * SECONDS_A_DAY + longest_run < MARGIN_DAYS * SECONDS_A_DAY


def test_the_dead_letters_are_kept_for_longer_than_it_takes_to_see_to_them_and_cannot_index_what_is_gone() -> None:
    written = {b"k" * 16: 1000.0}
    assert expiries(written, 1000.0 + 9.9, 10.0) == {b"k" * 16: expires_at(1000.0, 10.0)}
    assert expiries(written, 1000.0 + 10.0, 10.0) == {}


@pytest.mark.parametrize(("age", "worn"), [(0, False), (89.9, False), (90.1, True), (1000, True)])
def test_an_output_is_worn_when_nine_tenths_of_its_retention_have_passed(age: float, worn: bool) -> None:
    assert is_worn(age, 100.0) is worn


@pytest.mark.parametrize(
    ("indexed", "written", "expiry", "begins"),
    [
        (False, None, None, "not there: never made, or deleted"),
        (True, None, 5, "indexed, but S3 has no such output"),
        (False, 100.0, None, "expired at 1970-01-01 00:10:00 UTC (not indexed any more)"),
        (True, 100.0, 600, "expired at 1970-01-01 00:10:00 UTC (still indexed, TTL deletes come late)"),
        (False, 900.0, 1400, "in S3, but not indexed"),
        (True, 900.0, None, "indexed without an expiry"),
        (True, 900.0, 1400, "indexed until 1970-01-01 00:23:20 UTC; S3 keeps the output until 1970-01-01 00:31:40 UTC"),
    ],
)
def test_why_a_key_is_where_it_is(indexed: bool, written: float | None, expiry: int | None, begins: str) -> None:
    facts = KeyFacts("00" * 16, indexed, written, expiry)
    said = explain(facts, now=1000.0, retention_seconds=500.0, lifecycle_seconds=1000.0)
    assert said.startswith(begins)
    assert re.fullmatch(r"[^\n]+", said)
