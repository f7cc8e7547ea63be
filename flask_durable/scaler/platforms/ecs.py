"""The tasks of a service of Amazon ECS, on Fargate or on instances."""

from __future__ import annotations

import typing as t

from ...clients.aws import AWSClient
from ...errors import PlatformError
from ..decision.observation import Size
from .base import Applied
from .base import Traits


class ECSPlatform:
    """The tasks of one service.

    Amazon chooses the tasks that go when the count shrinks. So none goes while one is
    busy, unless *drains* is set.

    :param service: The service's name or ARN.
    :param cluster: The cluster's name or ARN.
    :param region: The region; ``None``: as boto3 finds it.
    :param drains: True if a task's ``stopTimeout`` is enough for a worker to end its
        steps.
    :param endpoint: The URL of another server than Amazon's.
    """

    def __init__(
        self,
        *,
        service: str,
        cluster: str = "default",
        region: str | None = None,
        drains: bool = False,
        endpoint: str | None = None,
    ) -> None:
        self._service = service
        self._cluster = cluster
        # An ARN ends with the name.
        self._id = f"{cluster.rpartition('/')[2]}/{service.rpartition('/')[2]}"
        self._ecs = AWSClient("The platform ecs", "ecs", region, endpoint)
        self._scaling = AWSClient(
            "The platform ecs", "application-autoscaling", region, endpoint
        )
        self.traits = Traits(picks_victims=drains)

    def describe(self) -> str:
        """Return the platform in one line."""
        return f"ecs:{self._id}"

    def read(self) -> Size:
        """Return the desired count, and how many tasks run.

        :raises PlatformError: There is no such service, it runs on every instance, or
            ECS refuses.
        """
        service = self._described()
        return Size.of(service["desiredCount"], service["runningCount"])

    def resize(self, workers: int, victims: t.Sequence[str] = ()) -> Applied:
        """Set the desired count. No deployment is started.

        :raises PlatformError: As for :meth:`read`. Also if Application Auto Scaling
            sets the count too.
        """
        before = int(self._described()["desiredCount"])
        if workers != before:
            self._refuse_rival()
            self._ecs.call(
                "update_service",
                cluster=self._cluster,
                service=self._service,
                desiredCount=workers,
            )
        return Applied(before, workers)

    def _described(self) -> dict[str, t.Any]:
        reply = self._ecs.call(
            "describe_services", cluster=self._cluster, services=[self._service]
        )
        # For a service that does not exist, the call succeeds with an empty list.
        services = [s for s in reply["services"] if s["status"] == "ACTIVE"]
        if not services:
            raise PlatformError(
                f"There is no active service {self._id}.",
                code="platform.not_found",
                hint="Check the service, the cluster and the region.",
            )
        if services[0].get("schedulingStrategy") == "DAEMON":
            raise PlatformError(
                f"The service {self._id} runs one task on every instance.",
                code="platform.unsupported",
                hint="Its scheduling strategy must be REPLICA.",
            )
        return t.cast("dict[str, t.Any]", services[0])

    def _refuse_rival(self) -> None:
        reply = self._scaling.call_if_allowed(
            "describe_scalable_targets",
            ServiceNamespace="ecs",
            ResourceIds=[f"service/{self._id}"],
            ScalableDimension="ecs:service:DesiredCount",
        )
        if any(_is_at_work(target) for target in reply.get("ScalableTargets", ())):
            raise PlatformError(
                f"Application Auto Scaling also sets the size of {self._id}.",
                code="platform.conflict",
                hint="Deregister the scalable target, or suspend its dynamic scaling.",
            )


def _is_at_work(target: t.Mapping[str, t.Any]) -> bool:
    suspended = target.get("SuspendedState", {})
    directions = ("DynamicScalingInSuspended", "DynamicScalingOutSuspended")
    return not all(suspended.get(direction) for direction in directions)
