"""The instances of a group, by moto's EC2 Auto Scaling."""

from __future__ import annotations

import pytest
from botocore.stub import Stubber

from flask_durable.errors import PlatformError
from flask_durable.scaler.decision.observation import Size
from flask_durable.scaler.platforms import make_platform
from flask_durable.scaler.platforms.asg import AutoScalingPlatform
from flask_durable.scaler.platforms.base import Applied

from .conftest import Amazon


def pool(amazon: Amazon, name: str, **options: object) -> AutoScalingPlatform:
    made = {"platform": "asg", "group": name, "endpoint": amazon.endpoint}
    platform = make_platform({**made, **options})
    assert isinstance(platform, AutoScalingPlatform)
    return platform


def test_a_pool_grows_to_its_maximum(amazon: Amazon, name: str) -> None:
    amazon.create_group(name)
    platform = pool(amazon, name)
    assert platform.describe() == f"asg:{name}"
    assert platform.read() == Size(asked=3, running=3, booting=0)
    assert platform.traits.maximum == 5
    assert not platform.traits.reaches_zero
    assert platform.resize(4) == Applied(before=3, after=4)
    assert platform.resize(9) == Applied(before=4, after=5, limit=5)
    assert platform.resize(9) == Applied(before=5, after=5, limit=5)
    assert len(amazon.instances(name)) == 5


def test_idle_instances_go_by_name_and_no_others(amazon: Amazon, name: str) -> None:
    amazon.create_group(name)
    first, second, third = amazon.instances(name)
    victims = [f"{second}.us-east-1.compute.internal", "i-elsewhere", second, first]
    assert pool(amazon, name).resize(2, victims) == Applied(before=3, after=2)
    assert amazon.instances(name) == [first, third]


def test_fewer_go_than_were_wished_if_fewer_are_idle(amazon: Amazon, name: str) -> None:
    amazon.create_group(name)
    first, second, third = amazon.instances(name)
    assert pool(amazon, name).resize(1, [third]) == Applied(before=3, after=2)
    assert amazon.instances(name) == [first, second]


def test_the_minimum_of_the_group_stays(amazon: Amazon, name: str) -> None:
    amazon.create_group(name)
    platform = pool(amazon, name)
    victims = amazon.instances(name)
    assert platform.resize(0, victims) == Applied(before=3, after=1)
    assert amazon.instances(name) == victims[2:]
    assert platform.resize(0, victims) == Applied(before=1, after=1)


def test_who_is_idle_must_be_known(amazon: Amazon, name: str) -> None:
    amazon.create_group(name)
    with pytest.raises(PlatformError, match="None of the idle workers") as caught:
        pool(amazon, name).resize(1, ["ip-10-0-0-1"])
    assert caught.value.code == "platform.unsupported"
    assert len(amazon.instances(name)) == 3


def test_the_group_chooses_if_instances_drain(amazon: Amazon, name: str) -> None:
    amazon.create_group(name)
    platform = pool(amazon, name, drains=True)
    assert platform.resize(2, ["ip-10-0-0-1"]) == Applied(before=3, after=2)


def test_instances_that_are_pending_are_booting(amazon: Amazon, name: str) -> None:
    platform = pool(amazon, name)
    states = ["InService", "Pending", "Pending:Wait", "Terminating"]
    instances = [
        {
            "InstanceId": f"i-{number}",
            "LifecycleState": state,
            "AvailabilityZone": "us-east-1a",
            "HealthStatus": "Healthy",
            "ProtectedFromScaleIn": False,
        }
        for number, state in enumerate(states)
    ]
    group = {
        "AutoScalingGroupName": name,
        "MinSize": 0,
        "MaxSize": 5,
        "DesiredCapacity": 3,
        "DefaultCooldown": 300,
        "AvailabilityZones": ["us-east-1a"],
        "HealthCheckType": "EC2",
        "CreatedTime": 0,
        "Instances": instances,
    }
    with Stubber(platform._aws.client) as stub:
        stub.add_response(
            "describe_auto_scaling_groups", {"AutoScalingGroups": [group]}
        )
        assert platform.read() == Size(asked=3, running=1, booting=2)
    assert platform.traits.reaches_zero


def test_a_group_with_a_policy_is_left_alone(amazon: Amazon, name: str) -> None:
    amazon.create_group(name)
    amazon.add_policy(name)
    platform = pool(amazon, name)
    with pytest.raises(PlatformError, match="scaling policy") as caught:
        platform.resize(4)
    assert caught.value.code == "platform.conflict"
    assert platform.read().asked == 3

    amazon.suspend_alarms(name)
    assert platform.resize(4).after == 4


def test_a_group_that_does_not_exist_is_told(amazon: Amazon, name: str) -> None:
    with pytest.raises(PlatformError, match="no Auto Scaling group") as caught:
        pool(amazon, name).read()
    assert caught.value.code == "platform.not_found"


def test_an_activity_that_is_under_way_is_a_conflict(amazon: Amazon, name: str) -> None:
    amazon.create_group(name)
    (first, *_) = amazon.instances(name)
    platform = pool(amazon, name)
    with Stubber(platform._once.client) as stub:
        stub.add_client_error(
            "terminate_instance_in_auto_scaling_group", "ScalingActivityInProgressFault"
        )
        with pytest.raises(PlatformError) as caught:
            platform.resize(2, [first])
    assert caught.value.code == "platform.conflict"
