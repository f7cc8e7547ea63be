"""The instances of an EC2 Auto Scaling group."""

from __future__ import annotations

import typing as t

from ...clients.aws import AWSClient
from ...errors import PlatformError
from ..decision.observation import Size
from .base import Applied
from .base import idle_ones
from .base import Traits


class AutoScalingPlatform:
    """The instances of one group. Each is a worker.

    Idle instances are terminated by their ids, so the host name of an instance has to
    be its id, or begin with it.

    :param group: The group's name.
    :param region: The region; ``None``: as boto3 finds it.
    :param drains: True if an instance that is terminated ends its work. The group then
        chooses the instances that go.
    :param endpoint: The URL of another server than Amazon's.
    """

    def __init__(
        self,
        *,
        group: str,
        region: str | None = None,
        drains: bool = False,
        endpoint: str | None = None,
    ) -> None:
        self._name = group
        self._drains = drains
        self._aws = AWSClient("The platform asg", "autoscaling", region, endpoint)
        # Without repetition: a repeat of a call whose reply was lost might terminate
        # another instance.
        self._once = AWSClient(
            "The platform asg", "autoscaling", region, endpoint, tries=1
        )
        self.traits = Traits(picks_victims=True, by_host=True)

    def describe(self) -> str:
        """Return the platform in one line."""
        return f"asg:{self._name}"

    def read(self) -> Size:
        """Return the desired capacity, and how many instances are in service.

        Afterwards the traits know the group's minimum and maximum.

        :raises PlatformError: There is no such group, or the API refuses.
        """
        group = self._described()
        return Size.of(group["DesiredCapacity"], len(_in_service(group)))

    def resize(self, workers: int, victims: t.Sequence[str] = ()) -> Applied:
        """Set the desired capacity, or terminate idle instances.

        Without *drains* the group shrinks by the *victims* that are its instances.

        :raises PlatformError: As for :meth:`read`. Also if a scaling policy sets the
            size too, or if no victim is an instance of the group.
        """
        group = self._described()
        before, most = int(group["DesiredCapacity"]), int(group["MaxSize"])
        limit = most if workers > most else None
        workers = min(max(workers, int(group["MinSize"])), most)
        if workers == before:
            return Applied(before, before, limit)
        self._refuse_rival(group)
        if workers < before and not self._drains:
            return Applied(before, before - self._terminate(group, workers, victims))
        self._aws.call(
            "set_desired_capacity",
            AutoScalingGroupName=self._name,
            DesiredCapacity=workers,
            HonorCooldown=False,
        )
        return Applied(before, workers, limit)

    def _terminate(
        self, group: dict[str, t.Any], workers: int, victims: t.Sequence[str]
    ) -> int:
        """Terminate idle instances, and return how many."""
        idle = idle_ones(
            victims,
            _in_service(group),
            pool=f"the group {self._name}",
            hint="Name hosts by instance ids (HostnameType=resource-name), "
            "or set drains.",
        )
        chosen = idle[: group["DesiredCapacity"] - workers]
        for id in chosen:
            self._once.call(
                "terminate_instance_in_auto_scaling_group",
                InstanceId=id,
                ShouldDecrementDesiredCapacity=True,
            )
        return len(chosen)

    def _described(self) -> dict[str, t.Any]:
        reply = self._aws.call(
            "describe_auto_scaling_groups", AutoScalingGroupNames=[self._name]
        )
        # For a group that does not exist, the call succeeds with an empty list.
        if not reply["AutoScalingGroups"]:
            raise PlatformError(
                f"There is no Auto Scaling group {self._name}.",
                code="platform.not_found",
                hint="Check the name and the region.",
            )
        group: dict[str, t.Any] = reply["AutoScalingGroups"][0]
        self.traits = Traits(
            reaches_zero=not group["MinSize"],
            picks_victims=True,
            maximum=group["MaxSize"],
            by_host=True,
        )
        return group

    def _refuse_rival(self, group: dict[str, t.Any]) -> None:
        suspended = [p["ProcessName"] for p in group.get("SuspendedProcesses", ())]
        if "AlarmNotification" in suspended:
            return
        reply = self._aws.call_if_allowed(
            "describe_policies", AutoScalingGroupName=self._name
        )
        if any(
            policy.get("Enabled", True) for policy in reply.get("ScalingPolicies", ())
        ):
            raise PlatformError(
                f"A scaling policy also sets the size of the group {self._name}.",
                code="platform.conflict",
                hint="Delete its policies, or suspend its process AlarmNotification.",
            )


def _in_service(group: dict[str, t.Any]) -> set[str]:
    return {
        instance["InstanceId"]
        for instance in group["Instances"]
        if instance["LifecycleState"] == "InService"
    }
