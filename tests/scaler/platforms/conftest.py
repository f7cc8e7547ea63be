"""A server with the services of Amazon, for the tests of its platforms."""

from __future__ import annotations

import itertools
import typing as t

import boto3
import pytest

from ...support.servers import SQSServer

_numbers = itertools.count()


class Amazon:
    """moto's server, which knows many services besides SQS."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint

    def client(self, service: str) -> t.Any:
        return boto3.client(service, endpoint_url=self.endpoint)

    def create_group(self, name: str, desired: int = 3) -> None:
        """Create an Auto Scaling group of one to five instances."""
        scaling = self.client("autoscaling")
        images = self.client("ec2").describe_images()["Images"]
        scaling.create_launch_configuration(
            LaunchConfigurationName=name,
            ImageId=images[0]["ImageId"],
            InstanceType="t3.micro",
        )
        scaling.create_auto_scaling_group(
            AutoScalingGroupName=name,
            LaunchConfigurationName=name,
            MinSize=1,
            MaxSize=5,
            DesiredCapacity=desired,
            AvailabilityZones=["us-east-1a"],
        )

    def instances(self, group: str) -> list[str]:
        """Return the ids of a group's instances, in order of their start."""
        reply = self.client("autoscaling").describe_auto_scaling_groups(
            AutoScalingGroupNames=[group]
        )
        (found,) = reply["AutoScalingGroups"]
        return [instance["InstanceId"] for instance in found["Instances"]]

    def add_policy(self, group: str) -> None:
        """Add a policy that changes a group's size by one."""
        self.client("autoscaling").put_scaling_policy(
            AutoScalingGroupName=group,
            PolicyName="up",
            PolicyType="SimpleScaling",
            AdjustmentType="ChangeInCapacity",
            ScalingAdjustment=1,
        )

    def suspend_alarms(self, group: str) -> None:
        """Keep a group's policies from being executed."""
        self.client("autoscaling").suspend_processes(
            AutoScalingGroupName=group, ScalingProcesses=["AlarmNotification"]
        )


@pytest.fixture
def amazon(sqs: SQSServer) -> Amazon:
    return Amazon(sqs.endpoint)


@pytest.fixture
def name() -> str:
    """A unique name."""
    return f"pool-{next(_numbers)}"
