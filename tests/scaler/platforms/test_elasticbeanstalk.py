"""The instances of an environment: moto's group, and stubs for what moto lacks."""

from __future__ import annotations

import typing as t

import pytest
from botocore.stub import Stubber

from flask_durable.errors import PlatformError
from flask_durable.scaler.decision.observation import Size
from flask_durable.scaler.platforms import make_platform
from flask_durable.scaler.platforms.base import Applied
from flask_durable.scaler.platforms.elasticbeanstalk import ElasticBeanstalkPlatform

from .conftest import Amazon


@pytest.fixture
def platform(amazon: Amazon) -> ElasticBeanstalkPlatform:
    options = {"platform": "elasticbeanstalk", "environment": "shop-workers"}
    made = make_platform({**options, "endpoint": amazon.endpoint})
    assert isinstance(made, ElasticBeanstalkPlatform)
    return made


@pytest.fixture
def beanstalk(platform: ElasticBeanstalkPlatform) -> t.Iterator[Stubber]:
    with Stubber(platform._aws.client) as stub:
        yield stub
        stub.assert_no_pending_responses()


def say_resources(beanstalk: Stubber, *groups: str) -> None:
    beanstalk.add_response(
        "describe_environment_resources",
        {
            "EnvironmentResources": {
                "EnvironmentName": "shop-workers",
                "AutoScalingGroups": [{"Name": group} for group in groups],
            }
        },
        {"EnvironmentName": "shop-workers"},
    )


def say_status(beanstalk: Stubber, status: str) -> None:
    beanstalk.add_response(
        "describe_environments",
        {"Environments": [{"EnvironmentName": "shop-workers", "Status": status}]},
        {"EnvironmentNames": ["shop-workers"], "IncludeDeleted": False},
    )


def test_its_group_is_read_and_resized(
    platform: ElasticBeanstalkPlatform, beanstalk: Stubber, amazon: Amazon, name: str
) -> None:
    amazon.create_group(name)
    assert platform.describe() == "elasticbeanstalk:shop-workers"
    assert platform.traits.maximum is None
    say_resources(beanstalk, name)
    assert platform.read() == Size(asked=3, running=3, booting=0)
    assert platform.traits.maximum == 5

    say_status(beanstalk, "Ready")
    say_resources(beanstalk, name)
    assert platform.resize(9) == Applied(before=3, after=5, limit=5)
    idle = amazon.instances(name)[1]
    say_status(beanstalk, "Ready")
    say_resources(beanstalk, name)
    assert platform.resize(2, [idle]) == Applied(before=5, after=4)
    assert idle not in amazon.instances(name)


def test_a_group_that_was_replaced_is_found(
    platform: ElasticBeanstalkPlatform, beanstalk: Stubber, amazon: Amazon, name: str
) -> None:
    amazon.create_group(name)
    amazon.create_group(f"{name}-rebuilt", desired=2)
    say_resources(beanstalk, name)
    assert platform.read().asked == 3
    say_resources(beanstalk, f"{name}-rebuilt")
    assert platform.read().asked == 2


def test_an_environment_that_is_updated_is_read_and_not_resized(
    platform: ElasticBeanstalkPlatform, beanstalk: Stubber, amazon: Amazon, name: str
) -> None:
    amazon.create_group(name)
    say_resources(beanstalk, name)
    assert platform.read().asked == 3
    say_status(beanstalk, "Updating")
    with pytest.raises(PlatformError, match="is updating") as caught:
        platform.resize(4)
    assert caught.value.code == "platform.conflict"
    assert len(amazon.instances(name)) == 3


def test_an_environment_that_has_no_group_is_told(
    platform: ElasticBeanstalkPlatform, beanstalk: Stubber
) -> None:
    say_resources(beanstalk)
    with pytest.raises(PlatformError, match="no Auto Scaling group") as caught:
        platform.read()
    assert caught.value.code == "platform.not_found"


def test_who_may_not_ask_is_told(
    platform: ElasticBeanstalkPlatform, beanstalk: Stubber
) -> None:
    beanstalk.add_client_error(
        "describe_environment_resources", "InsufficientPrivilegesException", "no"
    )
    with pytest.raises(PlatformError) as caught:
        platform.read()
    assert caught.value.code == "platform.auth"
