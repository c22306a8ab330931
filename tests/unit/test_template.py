"""What no emulator enforces of the template and the state machines, checked by reading them and by arithmetic."""

import json
import re
from collections.abc import Iterator
from datetime import date
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cfnlint.decode import decode_str
from statelint.linter import Linter

from riskmill import errors
from riskmill.errors import PortfolioInvalid
from riskmill.planner import MAX_WAVES, PlanSettings, estimate_seconds, plan_waves, wave_files
from riskmill.portfolio import Deal, Group, Layer, Outwards, Portfolio
from riskmill.rollup_graph import rollup_graph
from riskmill.run_files import wave_file
from riskmill.settings import Settings
from riskmill.terms import Terms

ROOT = Path(__file__).resolve().parents[2]
MACHINES = {path.name.removesuffix(".asl.json"): path for path in sorted((ROOT / "statemachines").glob("*.asl.json"))}

# https://docs.aws.amazon.com/step-functions/latest/dg/service-quotas.html
MAX_HISTORY_EVENTS = 25_000
MAX_PAYLOAD = 256 * 1024
#: https://docs.aws.amazon.com/step-functions/latest/apireference/API_HistoryEvent.html: an error's name and its cause
MAX_ERROR, MAX_CAUSE = 256, 32_768
#: https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-configure.html
VISIBILITY_TIMES_TIMEOUT = 6
#: Fargate tasks that the subnets must have addresses for; each takes one, and AWS keeps five of every subnet
MAX_TASKS, KEPT_BY_AWS = 3_000, 5
#: https://docs.aws.amazon.com/service-authorization/latest/reference/list_awsx-ray.html: no resource level
NO_RESOURCE_LEVEL = {
    "xray:PutTraceSegments",
    "xray:PutTelemetryRecords",
    "xray:GetSamplingRules",
    "xray:GetSamplingTargets",
}

#: What statelint finds wrong and AWS takes: it wants 2.0 for 2, and knows Distributed Maps from an older specification.
STATELINT_IS_WRONG = (
    re.compile(r"BackoffRate is \d+ but should be a Float"),
    re.compile(r"ToleratedFailurePercentage is 100\.0 but should be an Integer"),
    re.compile(r'Field "InputType" not allowed in .*\.ItemReader\.ReaderConfig'),
)


def template(path: str) -> dict[str, Any]:
    decoded, faults = decode_str((ROOT / path).read_text())
    assert not faults
    assert decoded is not None
    return json.loads(json.dumps(decoded))  # type: ignore[no-any-return]


TEMPLATE = template("template.yaml")
RESOURCES: dict[str, dict[str, Any]] = TEMPLATE["Resources"]
GLOBALS: dict[str, Any] = TEMPLATE["Globals"]["Function"]


def of_type(kind: str) -> dict[str, dict[str, Any]]:
    return {name: r["Properties"] for name, r in RESOURCES.items() if r["Type"] == kind}


FUNCTIONS = of_type("AWS::Serverless::Function")


def definition(machine: str) -> dict[str, Any]:
    return json.loads(MACHINES[machine].read_text())  # type: ignore[no-any-return]


def scopes(machine: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield a machine and every machine inside it (Map and Parallel have their own states)."""
    yield machine
    for state in machine["States"].values():
        for inner in (state.get("ItemProcessor"), *state.get("Branches", [])):
            if inner:
                yield from scopes(inner)


def states(machine: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for scope in scopes(definition(machine)):
        yield from scope["States"].items()


def targets(state: dict[str, Any]) -> list[str]:
    found = [state[name] for name in ("Next", "Default") if name in state]
    return found + [rule["Next"] for name in ("Catch", "Choices") for rule in state.get(name, [])]


def strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from strings(item)


EVERY_MACHINE = pytest.mark.parametrize("machine", MACHINES)


# ---- the state machines


@EVERY_MACHINE
def test_statelint_finds_nothing(machine: str) -> None:
    arn = "arn:aws:lambda:eu-west-1:123456789012:function:filled"
    problems = Linter.validate(json.loads(re.sub(r"\$\{\w+\}", arn, MACHINES[machine].read_text())))
    assert [p for p in problems if not any(wrong.search(p) for wrong in STATELINT_IS_WRONG)] == []


@EVERY_MACHINE
def test_every_transition_leads_to_a_state_and_every_state_is_reached(machine: str) -> None:
    for scope in scopes(definition(machine)):
        reached, waiting = set[str](), [scope["StartAt"]]
        while waiting:
            name = waiting.pop()
            assert name in scope["States"], f"{name} does not exist"
            if name not in reached:
                reached.add(name)
                waiting.extend(targets(scope["States"][name]))
        assert reached == set(scope["States"])


@EVERY_MACHINE
def test_every_task_and_map_retries_with_backoff_and_full_jitter_and_catches_everything(machine: str) -> None:
    for name, state in states(machine):
        if state["Type"] not in ("Task", "Map"):
            continue
        assert state["Retry"], name
        for retry in state["Retry"]:
            assert retry["BackoffRate"] > 1, name
            assert retry["JitterStrategy"] == "FULL", name
            assert retry["MaxDelaySeconds"] <= 60, name
            assert retry["MaxAttempts"] >= 4, name
            assert "States.ALL" not in retry["ErrorEquals"], f"{name}: a job's own failure is not retried"
        assert state["Catch"][-1]["ErrorEquals"] == ["States.ALL"], name


@EVERY_MACHINE
def test_errors_that_are_not_awss_are_classes_of_riskmill(machine: str) -> None:
    named = {
        error
        for _, state in states(machine)
        for rule in (*state.get("Retry", []), *state.get("Catch", []))
        for error in rule["ErrorEquals"]
    }
    ours = {error for error in named if "." not in error}
    assert "TransientError" in ours or machine not in ("risk_rollup", "execution_planner")
    assert all(issubclass(getattr(errors, error), errors.RiskmillError) for error in ours)


@EVERY_MACHINE
def test_every_placeholder_is_filled_by_the_template_and_none_is_left_over(machine: str) -> None:
    (properties,) = [
        p
        for p in of_type("AWS::Serverless::StateMachine").values()
        if p["DefinitionUri"].endswith(MACHINES[machine].name)
    ]
    placeholders = set(re.findall(r"\$\{(\w+)\}", MACHINES[machine].read_text()))
    assert placeholders == set(properties["DefinitionSubstitutions"])


@EVERY_MACHINE
def test_a_task_waits_longer_than_its_function_may_take(machine: str) -> None:
    for name, state in states(machine):
        if state.get("Resource") == "arn:aws:states:::lambda:invoke":
            function = FUNCTIONS[state["Parameters"]["FunctionName"][2:-1]]
            assert state["TimeoutSeconds"] > function.get("Timeout", GLOBALS["Timeout"]), name


def test_distributed_maps_lose_nothing_to_awss_limits() -> None:
    maps = [(name, state) for machine in MACHINES for name, state in states(machine) if state["Type"] == "Map"]
    assert maps
    for name, state in maps:
        processor = state["ItemProcessor"]
        assert processor["ProcessorConfig"] == {"Mode": "DISTRIBUTED", "ExecutionType": "STANDARD"}, name
        # a float: LocalStack refuses the integer
        assert state["ToleratedFailurePercentage"] == 100.0, name
        assert isinstance(state["ToleratedFailurePercentage"], float), name
        assert state["ItemReader"]["ReaderConfig"] == {"InputType": "JSON"}, name
        assert "ItemBatcher" not in state, name
        assert "ResultWriter" in state, name
        assert state["ResultPath"] is None, name
        assert "MaxConcurrencyPath" in state or "MaxConcurrency" in state, name
        # States.ALL does not catch this one: https://docs.aws.amazon.com/step-functions/latest/dg/concepts-error-handling.html
        assert ["States.DataLimitExceeded"] in [rule["ErrorEquals"] for rule in state["Catch"]], name
        for inner, child in processor["States"].items():
            assert child["Type"] != "Fail", inner
            if child.get("End"):
                assert child["Type"] == "Pass", inner
                assert child["Result"] == {}, f"{inner}: what a child returns adds to 256 KiB"


def test_the_map_reads_the_file_that_the_planner_writes() -> None:
    key = definition("risk_rollup")["States"]["RunWave"]["ItemReader"]["Parameters"]["Key.$"]
    pattern = re.fullmatch(r"States\.Format\('(.*)', \$\.run_id, \$\.plan\.round, \$\.plan\.wave\)", key)
    assert pattern
    assert pattern[1].format("run-1", 2, 3) == wave_file("run-1", 2, 3)


# ---- limits, by arithmetic


def most_events(state: dict[str, Any]) -> int:
    """Return the most history events that one visit of a state writes in the parent, all its retries included."""
    if state["Type"] in ("Pass", "Choice"):
        return 2  # entered, exited
    if state["Type"] in ("Succeed", "Fail"):
        return 2
    retries = sum(retry["MaxAttempts"] for retry in state.get("Retry", []))
    # a Task: scheduled, started, submitted, ended for each attempt; a Map: started, run started, ended
    return 2 + 4 * (1 + retries)


def deep_portfolio(*, deals: int, levels: int, trials: int) -> Portfolio:
    """Return a portfolio whose groups are nested, each with its own deals and its own outwards contract."""

    def deal(number: int) -> Deal:
        return Deal(
            deal_id=f"d{number}", cedant="c", business_unit="b", inception=date(2026, 1, 1), expiry=date(2026, 12, 31),
            currency="USD", brokerage=0.0, elt=f"{number:032x}",
            layers=(Layer(layer_id=f"d{number}-l", terms=Terms(type="QS")),),
        )  # fmt: skip

    ids = [f"d{number}" for number in range(deals)]
    return Portfolio(
        format=1, name="deep", description="", currency="USD", as_at=date(2026, 1, 1), trials=trials, seed=1,
        group="g0", catalogue="0" * 32,
        deals=tuple(deal(number) for number in range(deals)),
        groups=tuple(
            Group(
                group_id=f"g{level}", name=f"g{level}", deals=tuple(ids[level::levels]),
                groups=(f"g{level + 1}",) if level + 1 < levels else (),
            )
            for level in range(levels)
        ),
        outwards=tuple(
            Outwards(contract_id=f"o{level}", name="o", group_id=f"g{level}", priority=1, terms=Terms(type="QS"))
            for level in range(levels)
        ),
    )  # fmt: skip


def test_the_longest_rollup_stays_below_25_000_history_events() -> None:
    machine = definition("risk_rollup")["States"]
    loop = sum(most_events(machine[name]) for name in ("NextWave", "RunWave", "WaveDone"))
    around = sum(most_events(machine[name]) for name in ("NextWave", "Settle", "Settled", "PlanAgain"))
    once = sum(most_events(state) for state in machine.values()) + 2
    assert once + Settings().max_rounds * (around + MAX_WAVES * loop) < MAX_HISTORY_EVENTS


@pytest.mark.parametrize(("deals", "levels", "trials"), [(7_000, 5, 300_000), (2_000, 200, 100_000)])
def test_real_portfolios_stay_far_below_the_greatest_number_of_waves(deals: int, levels: int, trials: int) -> None:
    graph = rollup_graph(deep_portfolio(deals=deals, levels=levels, trials=trials))
    run = np.ones(len(graph), dtype=np.bool_)
    assert len(plan_waves(graph, run, estimate_seconds(graph, {}), PlanSettings(parallelism=3_000))) < MAX_WAVES / 3


def test_groups_nested_too_deep_for_the_history_are_refused_before_anything_runs() -> None:
    graph = rollup_graph(deep_portfolio(deals=2_000, levels=600, trials=1_000))
    run = np.ones(len(graph), dtype=np.bool_)
    one_each = PlanSettings(parallelism=3_000, min_batch_seconds=1e-9)
    with pytest.raises(PortfolioInvalid, match="nested too deep: more than 150 waves"):
        plan_waves(graph, run, estimate_seconds(graph, {}), one_each)


def test_an_item_of_a_wave_is_far_below_the_payload_limit() -> None:
    graph = rollup_graph(deep_portfolio(deals=500, levels=2, trials=100_000))
    run = np.ones(len(graph), dtype=np.bool_)
    waves = plan_waves(graph, run, estimate_seconds(graph, {}), PlanSettings(parallelism=3_000))
    for wave in waves:
        for _, jobs, items in wave_files(graph, wave, run_id="r" * 80, round_number=4):
            assert max(len(json.dumps(item)) for item in items) < MAX_PAYLOAD / 256
            assert items[-1]["end"] == len(jobs)


@EVERY_MACHINE
def test_a_state_carries_counts_only_so_its_payload_is_bounded(machine: str) -> None:
    held: dict[str, int] = {"$.given": 64 * 1024}  # the caller's input: a portfolio's key and options
    top = definition(machine)["States"]
    for name, state in top.items():
        for rule in state.get("Catch", []):
            held[rule["ResultPath"]] = MAX_ERROR + MAX_CAUSE
        if state["Type"] == "Task":
            selected = state["ResultSelector"]
            assert all(
                re.fullmatch(r"\$\.(Payload|Output)\.\w+", v) for v in selected.values() if isinstance(v, str)
            ), name
            # a number or a name each; only the recorded failure is a text, cut by finish_failed
            held[state.get("ResultPath", "$")] = (MAX_ERROR + MAX_CAUSE) if "cause.$" in selected else 1024
    assert sum(held.values()) < MAX_PAYLOAD


# ---- least privilege


def policies(properties: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for policy in properties.get("Policies", []):
        yield from policy.get("PolicyDocument", policy)["Statement"]


def as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


WITH_POLICIES = FUNCTIONS | of_type("AWS::Serverless::StateMachine") | of_type("AWS::IAM::Role")


@pytest.mark.parametrize("name", WITH_POLICIES)
def test_a_role_names_its_actions_and_its_resources(name: str) -> None:
    for statement in policies(WITH_POLICIES[name]):
        actions = as_list(statement["Action"])
        assert not [action for action in actions if "*" in action]
        for resource in as_list(statement["Resource"]):
            if resource == "*":
                assert set(actions) <= NO_RESOURCE_LEVEL
            elif isinstance(resource, dict) and ":s3:::" in str(resource.get("Fn::Sub")):
                path = resource["Fn::Sub"].partition("${DataBucket}")[2]
                assert path == "" if actions == ["s3:ListBucket"] else re.match(r"/[a-z]+/", path), resource


def test_every_function_has_a_role_of_its_own() -> None:
    assert not [name for name, properties in FUNCTIONS.items() if "Role" in properties]  # SAM makes one each
    assert "Role" not in GLOBALS
    assert "Policies" not in GLOBALS


def test_who_reads_outputs_may_list_the_bucket_so_that_a_missing_one_is_404_and_not_403() -> None:
    for name, properties in FUNCTIONS.items():
        statements = list(policies(properties))
        reads = [s for s in statements if "s3:GetObject" in as_list(s["Action"]) and "/parts/" in json.dumps(s)]
        if reads:
            assert [s for s in statements if "s3:ListBucket" in as_list(s["Action"])], name


def test_only_what_talks_to_the_cache_sits_in_the_network() -> None:
    for name, properties in FUNCTIONS.items():
        variables = properties.get("Environment", {}).get("Variables", {})
        assert ("REDIS_HOST" in variables) == ("VpcConfig" in properties), name
        if "VpcConfig" in properties:
            condition, inside, outside = properties["VpcConfig"]["Fn::If"]
            assert condition == "IsAws", name
            assert outside == {"Ref": "AWS::NoValue"}, name
            assert {"SubnetIds", "SecurityGroupIds"} == set(inside), name


# ---- queues and concurrency


def test_a_queues_visibility_is_six_times_its_functions_timeout() -> None:
    mapped = [
        (name, event["Properties"], properties)
        for name, properties in FUNCTIONS.items()
        for event in properties.get("Events", {}).values()
        if event["Type"] == "SQS"
    ]
    assert mapped
    for name, event, properties in mapped:
        queue = RESOURCES[event["Queue"]["Fn::GetAtt"][0]]["Properties"]
        timeout = properties.get("Timeout", GLOBALS["Timeout"])
        assert queue["VisibilityTimeout"] >= VISIBILITY_TIMES_TIMEOUT * timeout, name
        assert event["FunctionResponseTypes"] == ["ReportBatchItemFailures"], name
        assert event["ScalingConfig"]["MaximumConcurrency"] >= 2, name
        assert queue["RedrivePolicy"]["maxReceiveCount"] >= 5, name


def test_the_batches_cannot_take_the_whole_accounts_concurrency() -> None:
    assert FUNCTIONS["RunBatchFunction"]["ReservedConcurrentExecutions"] == {"Ref": "BatchConcurrency"}
    assert TEMPLATE["Parameters"]["BatchConcurrency"]["Default"] < 1_000  # an account's default


def test_a_machines_timeout_covers_what_it_waits_for() -> None:
    planner = definition("execution_planner")
    assert definition("risk_rollup")["States"]["Plan"]["TimeoutSeconds"] > planner["TimeoutSeconds"]


# ---- the guide to AWS


def test_the_guide_to_aws_names_every_parameter_with_its_default() -> None:
    guide = (ROOT / "docs" / "aws.md").read_text()
    described = re.findall(r"^\| `([A-Z]\w+)` \| `?([^|`]+?)`? \|", guide, flags=re.MULTILINE)
    assert dict(described) == {name: str(given["Default"]) for name, given in TEMPLATE["Parameters"].items()}


# ---- the network


def test_the_network_takes_its_addresses_and_zones_from_parameters_of_the_same_form() -> None:
    own, nested = TEMPLATE["Parameters"], template("templates/network.yaml")["Parameters"]
    given = RESOURCES["Network"]["Properties"]["Parameters"]
    assert {name: value["Ref"] for name, value in given.items() if isinstance(value, dict)} == {
        "Cidr": "NetworkCidr",
        "Zones": "NetworkZones",
    }
    for inner, outer in (("Cidr", "NetworkCidr"), ("Zones", "NetworkZones")):
        for rule in ("Type", "Default", "AllowedPattern", "AllowedValues"):
            assert own[outer].get(rule) == nested[inner].get(rule)


def test_the_network_has_addresses_for_3_000_tasks_and_lets_only_functions_reach_the_cache() -> None:
    network = template("templates/network.yaml")
    resources = network["Resources"]
    assert set(network["Outputs"]) == {"VpcId", "SubnetIds", "FunctionSecurityGroupId", "CacheSecurityGroupId"}
    _, (_, count, bits) = (
        resources["SubnetA"]["Properties"]["CidrBlock"]["Fn::Select"][1],
        resources["SubnetA"]["Properties"]["CidrBlock"]["Fn::Select"][1]["Fn::Cidr"],
    )
    vpc = ip_network(network["Parameters"]["Cidr"]["Default"])
    subnets = list(vpc.subnets(new_prefix=32 - bits))[:count]
    assert len(subnets) >= network["Parameters"]["Zones"]["Default"]
    assert subnets[0].num_addresses - KEPT_BY_AWS > MAX_TASKS
    ingress = [
        r["Properties"]
        for r in resources.values()
        if r["Type"] == "AWS::EC2::SecurityGroupIngress" and r["Properties"]["GroupId"] == {"Ref": "CacheSecurityGroup"}
    ]
    assert [(rule["FromPort"], rule["ToPort"], rule["SourceSecurityGroupId"]) for rule in ingress] == [
        (6379, 6379, {"Ref": "FunctionSecurityGroup"})
    ]
    assert "SecurityGroupIngress" not in resources["CacheSecurityGroup"]["Properties"]


def test_functions_are_given_only_variables_that_something_reads() -> None:
    sources = "".join(path.read_text() for path in (ROOT / "layers" / "domain").rglob("*.py"))
    known = {name.upper() for name in Settings.__annotations__} | set(re.findall(r'"([A-Z][A-Z_]+)"', sources))
    given = {
        name
        for properties in (GLOBALS, *FUNCTIONS.values())
        for name in properties.get("Environment", {}).get("Variables", {})
        if not name.startswith("POWERTOOLS_")
    }
    assert given <= known
