"""The instances of an environment of AWS Elastic Beanstalk.

The environment's own settings are not touched, because a change of one is an update of
the whole environment, which takes minutes. Its Auto Scaling group is resized instead,
between the minimum and the maximum that the environment gives it.
"""

from __future__ import annotations

import typing as t

from ...clients.aws import AWSClient
from ...errors import PlatformError
from ..decision.observation import Size
from .asg import AutoScalingPlatform
from .base import Applied
from .base import Traits


class ElasticBeanstalkPlatform:
    """The instances of one environment. Each is a worker.

    :param environment: The environment's name.
    :param region: The region; ``None``: as boto3 finds it.
    :param drains: The option of :class:`~.asg.AutoScalingPlatform`.
    :param endpoint: The URL of another server than Amazon's.
    """

    def __init__(
        self,
        *,
        environment: str,
        region: str | None = None,
        drains: bool = False,
        endpoint: str | None = None,
    ) -> None:
        self._environment = environment
        self._region = region
        self._drains = drains
        self._endpoint = endpoint
        self._aws = AWSClient(
            "The platform elasticbeanstalk", "elasticbeanstalk", region, endpoint
        )
        self._group: AutoScalingPlatform | None = None

    @property
    def traits(self) -> Traits:
        """The traits of the group; usual ones before the first :meth:`read`."""
        return (
            self._group.traits
            if self._group
            else Traits(picks_victims=True, by_host=True)
        )

    def describe(self) -> str:
        """Return the platform in one line."""
        return f"elasticbeanstalk:{self._environment}"

    def read(self) -> Size:
        """Return the size of the environment's group.

        :raises PlatformError: There is no such environment, it has no group, or the
            API refuses.
        """
        return self._found().read()

    def resize(self, workers: int, victims: t.Sequence[str] = ()) -> Applied:
        """Resize the environment's group.

        :raises PlatformError: As for :meth:`read` and
            :meth:`.asg.AutoScalingPlatform.resize`. Also if the environment is being
            updated.
        """
        reply = self._aws.call(
            "describe_environments",
            EnvironmentNames=[self._environment],
            IncludeDeleted=False,
        )
        status = [found["Status"] for found in reply["Environments"]]
        if status and status != ["Ready"]:
            raise PlatformError(
                f"The environment {self._environment} is {status[0].lower()}.",
                code="platform.conflict",
                hint="It is resized once it is ready.",
            )
        return self._found().resize(workers, victims)

    def _found(self) -> AutoScalingPlatform:
        """Return the group. It is another one after the environment was rebuilt."""
        reply = self._aws.call(
            "describe_environment_resources", EnvironmentName=self._environment
        )
        groups = reply["EnvironmentResources"].get("AutoScalingGroups", ())
        if not groups:
            raise PlatformError(
                f"The environment {self._environment} has no Auto Scaling group.",
                code="platform.not_found",
                hint="The environment is being created, or was terminated.",
            )
        name = groups[0]["Name"]
        if self._group is None or self._group.describe() != f"asg:{name}":
            self._group = AutoScalingPlatform(
                group=name,
                region=self._region,
                drains=self._drains,
                endpoint=self._endpoint,
            )
        return self._group
