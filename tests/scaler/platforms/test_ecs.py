"""The tasks of a service, by moto's ECS."""

from __future__ import annotations

import pytest
from botocore.stub import Stubber

from flask_durable.errors import PlatformError
from flask_durable.scaler.decision.observation import Size
from flask_durable.scaler.platforms import make_platform
from flask_durable.scaler.platforms.base import Applied
from flask_durable.scaler.platforms.ecs import ECSPlatform

from .conftest import Amazon


def pool(amazon: Amazon, name: str, **options: object) -> ECSPlatform:
    made = {"platform": "ecs", "cluster": name, "service": "media"}
    platform = make_platform({**made, "endpoint": amazon.endpoint, **options})
    assert isinstance(platform, ECSPlatform)
    return platform


def create(amazon: Amazon, name: str, strategy: str = "REPLICA") -> None:
    ecs = amazon.client("ecs")
    ecs.create_cluster(clusterName=name)
    container = {"name": "worker", "image": "app", "memory": 64}
    ecs.register_task_definition(family=name, containerDefinitions=[container])
    more = {"desiredCount": 2} if strategy == "REPLICA" else {}
    ecs.create_service(
        cluster=name,
        serviceName="media",
        taskDefinition=name,
        schedulingStrategy=strategy,
        **more,
    )


def target(amazon: Amazon, name: str, **more: object) -> None:
    amazon.client("application-autoscaling").register_scalable_target(
        ServiceNamespace="ecs",
        ResourceId=f"service/{name}/media",
        ScalableDimension="ecs:service:DesiredCount",
        MinCapacity=1,
        MaxCapacity=9,
        **more,
    )


def test_a_pool_boots_grows_and_shrinks(amazon: Amazon, name: str) -> None:
    create(amazon, name)
    platform = pool(amazon, name)
    assert platform.describe() == f"ecs:{name}/media"
    assert platform.read() == Size(asked=2, running=0, booting=2)
    assert platform.resize(5) == Applied(before=2, after=5)
    assert platform.read() == Size(asked=5, running=5, booting=0)
    assert platform.resize(0) == Applied(before=5, after=0)
    assert platform.read() == Size(asked=0, running=0, booting=0)


@pytest.mark.parametrize("service", ["other", "media"])
def test_a_service_that_does_not_exist_is_told(
    service: str, amazon: Amazon, name: str
) -> None:
    if service == "other":
        create(amazon, name)
    with pytest.raises(PlatformError) as caught:
        pool(amazon, name, service=service).read()
    assert caught.value.code == "platform.not_found"


def test_a_service_that_runs_on_every_instance_is_refused(
    amazon: Amazon, name: str
) -> None:
    create(amazon, name, "DAEMON")
    with pytest.raises(PlatformError, match="every instance") as caught:
        pool(amazon, name).read()
    assert caught.value.code == "platform.unsupported"


def test_a_service_that_is_scaled_by_another_one_is_left_alone(
    amazon: Amazon, name: str
) -> None:
    create(amazon, name)
    target(amazon, name)
    platform = pool(amazon, name)
    with pytest.raises(PlatformError, match="Application Auto Scaling") as caught:
        platform.resize(5)
    assert caught.value.code == "platform.conflict"
    assert platform.read().asked == 2
    assert platform.resize(2) == Applied(before=2, after=2)


def test_one_that_is_suspended_is_no_rival(amazon: Amazon, name: str) -> None:
    create(amazon, name)
    suspended = {
        "DynamicScalingInSuspended": True,
        "DynamicScalingOutSuspended": True,
        "ScheduledScalingSuspended": False,
    }
    target(amazon, name, SuspendedState=suspended)
    assert pool(amazon, name).resize(5).after == 5


def test_who_may_not_look_for_rivals_is_not_kept_from_scaling(
    amazon: Amazon, name: str
) -> None:
    create(amazon, name)
    platform = pool(amazon, name)
    with Stubber(platform._scaling.client) as scaling:
        scaling.add_client_error("describe_scalable_targets", "AccessDeniedException")
        assert platform.resize(5) == Applied(before=2, after=5)
        scaling.add_client_error("describe_scalable_targets", "ValidationException")
        with pytest.raises(PlatformError, match="ValidationException"):
            platform.resize(6)


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        ("AccessDeniedException", 400, "platform.auth"),
        ("ExpiredTokenException", 400, "platform.auth"),
        ("ClusterNotFoundException", 400, "platform.not_found"),
        ("ThrottlingException", 400, "platform.rate_limited"),
        ("ServerException", 500, "platform.unavailable"),
        ("InvalidParameterException", 400, "platform"),
    ],
)
def test_what_amazon_refuses_has_a_code(
    error: str, status: int, code: str, amazon: Amazon, name: str
) -> None:
    platform = pool(amazon, name)
    with Stubber(platform._ecs.client) as ecs:
        ecs.add_client_error("describe_services", error, "why", status)
        with pytest.raises(PlatformError, match=f"{error}: why") as caught:
            platform.read()
    assert caught.value.code == code


def test_a_wish_is_what_the_service_model_allows(amazon: Amazon, name: str) -> None:
    """Checked by the stub against Amazon's own description of the calls."""
    arn = f"arn:aws:ecs:us-east-1:1:cluster/{name}"
    platform = pool(amazon, name, cluster=arn)
    service = {"desiredCount": 2, "runningCount": 3, "status": "ACTIVE"}
    asked = {"cluster": arn, "services": ["media"]}
    with Stubber(platform._ecs.client) as ecs, Stubber(platform._scaling.client) as s:
        ecs.add_response("describe_services", {"services": [service]}, asked)
        assert platform.read() == Size(asked=2, running=2, booting=0)
        ecs.add_response("describe_services", {"services": [service]}, asked)
        looked = {
            "ServiceNamespace": "ecs",
            "ResourceIds": [f"service/{name}/media"],
            "ScalableDimension": "ecs:service:DesiredCount",
        }
        s.add_response("describe_scalable_targets", {"ScalableTargets": []}, looked)
        wish = {"cluster": arn, "service": "media", "desiredCount": 4}
        ecs.add_response("update_service", {}, wish)
        assert platform.resize(4) == Applied(before=2, after=4)
        ecs.assert_no_pending_responses()


def test_a_server_that_does_not_answer_is_told(amazon: Amazon, name: str) -> None:
    platform = pool(amazon, name, endpoint="http://127.0.0.1:9")
    with pytest.raises(PlatformError, match="cannot be asked") as caught:
        platform.read()
    assert caught.value.code == "platform.unavailable"


def test_credentials_that_are_missing_are_told(
    amazon: Amazon, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(variable)
    for variable in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(variable, "/nowhere")
    with pytest.raises(PlatformError, match="credentials") as caught:
        pool(amazon, name).read()
    assert caught.value.code == "platform.auth"


def test_busy_tasks_are_safe_only_if_they_drain(amazon: Amazon, name: str) -> None:
    assert not pool(amazon, name).traits.picks_victims
    assert pool(amazon, name, drains=True).traits.picks_victims
