"""WorkerScaling=service: the template's own services, targets and policies, resolved and put to moto.

The embedded cloud has no Application Auto Scaling, so what CloudFormation would make of the template is made here:
`Resolver` evaluates its functions and conditions, boto3 checks every property against the service's model, and moto
that what is scaled is there.
"""

import json
import re
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from cfnlint.decode import decode_str
from moto import mock_aws

from mock_cloud import ROOT
from riskmill.aws.scaling import Scaling
from riskmill.aws.worker import Worker, WorkerSettings
from riskmill.settings import ScalingSettings, Settings

SIZES = ("Standard", "Large")


class Resolver:
    """The template with parameters put in, for an account and region of moto's."""

    def __init__(self, **parameters: str) -> None:
        decoded, faults = decode_str((ROOT / "template.yaml").read_text(encoding="utf-8"))
        assert not faults
        self.template: dict[str, Any] = json.loads(json.dumps(decoded))
        self.parameters = {
            name: str(value["Default"]) for name, value in self.template["Parameters"].items() if "Default" in value
        } | parameters
        self.pseudo = {
            "AWS::StackName": "riskmill",
            "AWS::Region": "eu-west-1",
            "AWS::AccountId": "123456789012",
            "AWS::Partition": "aws",
        }
        #: what resources are called, and their attributes, as they are made
        self.made: dict[str, str] = {}

    def holds(self, name: str) -> bool:
        """Whether a condition of the template holds."""
        return self._condition(self.template["Conditions"][name])

    def _condition(self, value: dict[str, Any]) -> bool:
        ((function, argument),) = value.items()
        if function == "Condition":
            return self.holds(argument)
        if function == "Fn::Equals":
            first, second = (self.value(part) for part in argument)
            return bool(first == second)
        assert function == "Fn::And", function
        return all(self._condition(part) for part in argument)

    def value(self, value: Any) -> Any:
        """What CloudFormation makes of a value."""
        if isinstance(value, list):
            return [self.value(entry) for entry in value]
        if not isinstance(value, dict):
            return value
        function = next(iter(value), "")
        if function == "Ref" or function.startswith("Fn::"):
            return self._function(function, value[function])
        return {key: self.value(entry) for key, entry in value.items()}

    def _function(self, function: str, argument: Any) -> Any:
        if function == "Fn::If":
            name, then, otherwise = argument
            return self.value(then if self.holds(name) else otherwise)
        if function == "Fn::Split":
            separator, text = argument
            return self.value(text).split(separator)
        if function == "Fn::Sub":
            return re.sub(r"\$\{([^}]+)\}", lambda found: self._named(found[1]), argument)
        if function == "Fn::FindInMap":
            name, *path = (self.value(part) for part in argument)
            return str(self.template["Mappings"][name][path[0]][path[1]])
        assert function in ("Ref", "Fn::GetAtt"), function
        return self._named(argument if isinstance(argument, str) else ".".join(argument))

    def _named(self, name: str) -> str:
        for known in (self.pseudo, self.parameters, self.made):
            if name in known:
                return known[name]
        return f"some-{name}"

    def properties(self, name: str) -> dict[str, Any]:
        """A resource's properties, if its condition holds."""
        resource = self.template["Resources"][name]
        assert "Condition" not in resource or self.holds(resource["Condition"]), f"{name} is not made"
        return dict(self.value(resource["Properties"]))

    def is_made(self, name: str) -> bool:
        condition = self.template["Resources"][name].get("Condition")
        return condition is None or self.holds(condition)


def camel(value: Any) -> Any:
    """CloudFormation's property names as ECS's API spells them; a log driver's options keep theirs."""
    if isinstance(value, list):
        return [camel(entry) for entry in value]
    if not isinstance(value, dict):
        return value
    names = {key: "settings" if key == "ClusterSettings" else key[0].lower() + key[1:] for key in value}
    return {names[key]: entry if key == "Options" else camel(entry) for key, entry in value.items()}


@pytest.fixture
def account(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    with mock_aws():
        yield


@pytest.fixture
def deployed(account: None) -> Resolver:
    """Clusters, task definitions, services, targets and policies of the template, made on moto."""
    stack = Resolver(Target="aws", WorkerScaling="service")
    ecs, scaling, sqs = boto3.client("ecs"), boto3.client("application-autoscaling"), boto3.client("sqs")
    ec2 = boto3.client("ec2")
    vpc = ec2.create_vpc(CidrBlock="10.40.0.0/16")["Vpc"]["VpcId"]
    subnets = [
        ec2.create_subnet(VpcId=vpc, CidrBlock=f"10.40.{number}.0/24")["Subnet"]["SubnetId"] for number in range(2)
    ]
    stack.made["Network.Outputs.SubnetIds"] = ",".join(subnets)
    group = ec2.create_security_group(VpcId=vpc, GroupName="workers", Description="workers")["GroupId"]
    stack.made["Network.Outputs.WorkerSecurityGroupId"] = group
    for queue in ("WorkQueue", "LargeQueue"):
        stack.made[f"{queue}.QueueName"] = f"riskmill-{queue}"
        stack.made[queue] = sqs.create_queue(QueueName=f"riskmill-{queue}")["QueueUrl"]
    for size, cluster in zip(SIZES, ("WorkerCluster", "LargeCluster"), strict=True):
        made = ecs.create_cluster(**camel(stack.properties(cluster)))["cluster"]
        stack.made |= {cluster: made["clusterName"], f"{cluster}.Arn": made["clusterArn"]}
        task = camel(stack.properties(f"{size}Task"))
        family = ecs.register_task_definition(**task)["taskDefinition"]
        stack.made[f"{size}Task"] = family["taskDefinitionArn"]
        name = f"riskmill-{size}Service-AB12CD"
        service = ecs.create_service(serviceName=name, **camel(stack.properties(f"{size}Service")))["service"]
        stack.made |= {f"{size}Service": service["serviceArn"], f"{size}Service.Name": name}
        target = stack.properties(f"{size}ScalableTarget")
        target["MaxCapacity"] = int(target["MaxCapacity"])  # CloudFormation sends a parameter as its property's type
        scaling.register_scalable_target(**target)
        policy = stack.properties(f"{size}Tracking")
        assert policy.pop("ScalingTargetId") == f"some-{size}ScalableTarget"
        tracking = policy["TargetTrackingScalingPolicyConfiguration"]
        tracking["TargetValue"] = float(tracking["TargetValue"])
        scaling.put_scaling_policy(
            **{key: target[key] for key in ("ServiceNamespace", "ScalableDimension", "ResourceId")}, **policy
        )
    return stack


@pytest.mark.parametrize("size", SIZES)
def test_a_service_of_each_size_is_scaled_from_nothing_to_max_tasks(deployed: Resolver, size: str) -> None:
    cluster = deployed.made["WorkerCluster" if size == "Standard" else "LargeCluster"]
    name = deployed.made[f"{size}Service.Name"]
    (service,) = boto3.client("ecs").describe_services(cluster=cluster, services=[name])["services"]
    assert service["taskDefinition"] == deployed.made[f"{size}Task"]
    network = service["networkConfiguration"]["awsvpcConfiguration"]
    assert network["subnets"] == deployed.made["Network.Outputs.SubnetIds"].split(",")
    assert network["securityGroups"] == [deployed.made["Network.Outputs.WorkerSecurityGroupId"]]
    scaling = boto3.client("application-autoscaling")
    targets = scaling.describe_scalable_targets(ServiceNamespace="ecs")["ScalableTargets"]
    target = next(target for target in targets if target["ResourceId"] == f"service/{cluster}/{name}")
    assert (target["MinCapacity"], target["MaxCapacity"]) == (0, 3_000)
    policies = scaling.describe_scaling_policies(ServiceNamespace="ecs", ResourceId=target["ResourceId"])
    (policy,) = policies["ScalingPolicies"]
    assert policy["PolicyType"] == "TargetTrackingScaling"


@pytest.mark.parametrize(("size", "a_task"), [("Standard", 4), ("Large", 1)])
def test_the_target_is_the_messages_of_its_own_queue_for_each_task_of_its_own_service(
    deployed: Resolver, size: str, a_task: int
) -> None:
    cluster, queue = ("WorkerCluster", "WorkQueue") if size == "Standard" else ("LargeCluster", "LargeQueue")
    scaling = boto3.client("application-autoscaling")
    resource = f"service/{deployed.made[cluster]}/{deployed.made[f'{size}Service.Name']}"
    (policy,) = scaling.describe_scaling_policies(ServiceNamespace="ecs", ResourceId=resource)["ScalingPolicies"]
    tracking = policy["TargetTrackingScalingPolicyConfiguration"]
    metrics = {metric["Id"]: metric for metric in tracking["CustomizedMetricSpecification"]["Metrics"]}
    # https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-available-cloudwatch-metrics.html
    # https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/Container-Insights-metrics-ECS.html
    own_queue = [{"Name": "QueueName", "Value": f"riskmill-{queue}"}]
    own_service = [
        {"Name": "ClusterName", "Value": deployed.made[cluster]},
        {"Name": "ServiceName", "Value": deployed.made[f"{size}Service.Name"]},
    ]
    assert {
        name: (stat["Metric"]["Namespace"], stat["Metric"]["MetricName"], stat["Metric"]["Dimensions"])
        for name, metric in metrics.items()
        if (stat := metric.get("MetricStat"))
    } == {
        "waiting": ("AWS/SQS", "ApproximateNumberOfMessagesVisible", own_queue),
        "inhand": ("AWS/SQS", "ApproximateNumberOfMessagesNotVisible", own_queue),
        "tasks": ("ECS/ContainerInsights", "RunningTaskCount", own_service),
    }
    # Container Insights must be on, or there is no RunningTaskCount
    (made,) = boto3.client("ecs").describe_clusters(clusters=[deployed.made[cluster]], include=["SETTINGS"])["clusters"]
    assert made["settings"] == [{"name": "containerInsights", "value": "enabled"}]
    (returned,) = (metric for metric in metrics.values() if metric["ReturnData"])
    assert tracking["TargetValue"] == a_task
    seen = ((100, 10, 11, 10), (0, 0, 3, 0), (0, 0, None, 0), (440, 0, None, 440 + a_task), (440, 0, 0, 440 + a_task))
    # without a task even one message is above the target, so that a task starts for it
    for waiting, in_hand, tasks, backlog in (*seen, (1, 0, None, 1 + a_task), (0, 1, 0, 1 + a_task)):
        assert of_metrics(returned["Expression"], waiting=waiting, inhand=in_hand, tasks=tasks) == backlog


def of_metrics(expression: str, **metrics: float | None) -> float:
    """What CloudWatch's metric math gives; None is a metric without data."""
    functions = {
        "IF": lambda condition, then, otherwise: then if condition else otherwise,
        "FILL": lambda metric, value: value if metric is None else metric,
    }
    return float(eval(expression, {"__builtins__": {}}, functions | metrics))


@pytest.mark.parametrize("size", SIZES)
def test_a_worker_of_a_service_never_ends_by_itself_since_the_service_would_start_another(
    deployed: Resolver, size: str
) -> None:
    (container,) = deployed.properties(f"{size}Task")["ContainerDefinitions"]
    environment = {entry["Name"]: str(entry["Value"]) for entry in container["Environment"]}
    worker = Worker(WorkerSettings.from_environment(environment), run_item=lambda *_: None)  # type: ignore[arg-type]
    assert not worker._idle(1e9)


def test_with_services_no_scaler_is_started(deployed: Resolver) -> None:
    environment = deployed.properties("EnsureScalerFunction")["Environment"]["Variables"]
    scaling = Scaling(Settings(control_table="none"), ScalingSettings.from_environment(environment))
    assert scaling.ensure() == {"scaler": "none: ECS services scale themselves"}
    assert scaling.ensure(announce=False) == {"scaler": "none: ECS services scale themselves"}


@pytest.mark.parametrize(
    "parameters", [{"Target": "aws"}, {"Target": "local"}, {"Target": "local", "WorkerScaling": "service"}]
)
def test_without_services_nothing_of_them_is_made_and_workers_end_when_idle(parameters: dict[str, str]) -> None:
    stack = Resolver(**parameters)
    kinds = ("AWS::ECS::Service", "AWS::ApplicationAutoScaling::ScalableTarget",
             "AWS::ApplicationAutoScaling::ScalingPolicy")  # fmt: skip
    parts = [name for name, resource in stack.template["Resources"].items() if resource["Type"] in kinds]
    assert len(parts) == 6
    assert not any(stack.is_made(name) for name in parts)
    (container,) = stack.properties("StandardTask")["ContainerDefinitions"]
    environment = {entry["Name"]: str(entry["Value"]) for entry in container["Environment"]}
    assert WorkerSettings.from_environment(environment).idle_seconds == 900.0
