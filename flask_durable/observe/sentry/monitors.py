"""The Sentry monitors of scheduled runs, and their check-ins.

A monitor has one schedule. So a function's first schedule is watched by the monitor
that has the function's name, its second by one with the suffix ``-2``, and so on. A
name that Sentry does not take as it is is cut and gets a digest as its suffix, since
two names may be cut to the same; so does a name that could be that of a second
schedule. A run that a schedule's instant started is one check-in, however many attempts
and processes it takes: the check-in's id follows from the run's.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import typing as t
import uuid
from dataclasses import dataclass

from ...events.builtin import CronTick
from ...events.builtin import SCHEDULE_HEADER
from ...middleware import AttemptInfo

#: Most characters of a monitor's name, and most minutes of a run, that Sentry takes.
LONGEST_SLUG = 50
LONGEST_RUN = 28 * 24 * 60

_NUMBERED = re.compile(r"-[0-9]+$")
_UNSAFE = re.compile(r"[^a-z0-9_-]+")


@dataclass(frozen=True)
class CheckIn:
    """A run's check-in at its monitor.

    :param id: The check-in's id, the same in each attempt of the run.
    :param slug: The monitor's name.
    :param config: The settings that create or change the monitor.
    """

    id: str
    slug: str
    config: dict[str, t.Any]

    @classmethod
    def of(cls, attempt: AttemptInfo) -> CheckIn | None:
        """Return the check-in of a run that a schedule started, otherwise ``None``."""
        header = attempt.event.headers.get(SCHEDULE_HEADER)
        # Events that such a run sends have the header, too, and its branches its event.
        other = attempt.event.name != CronTick.__event_name__ or attempt.branch
        if header is None or other:
            return None
        schedule = json.loads(header)
        return cls(
            uuid.uuid5(uuid.NAMESPACE_OID, attempt.run_id).hex,
            _slug(attempt.function, schedule["number"]),
            _config(schedule),
        )


def _slug(function: str, number: int) -> str:
    name = _UNSAFE.sub("-", function.lower()).strip("-") or "function"
    end = f"-{number}" if number > 1 else ""
    own = name == function and not _NUMBERED.search(name)
    if not own or len(name + end) > LONGEST_SLUG:
        end += "-" + hashlib.sha256(f"{function} {number}".encode()).hexdigest()[:8]
    return name[: LONGEST_SLUG - len(end)] + end


def _config(schedule: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
    config = {
        "schedule": {"type": "crontab", "value": schedule["expression"]},
        "timezone": schedule["timezone"],
    }
    if schedule["jitter"]:
        # By itself Sentry waits a minute.
        config["checkin_margin"] = 1 + math.ceil(schedule["jitter"] / 60)
    if schedule["timeout"]:
        config["max_runtime"] = min(math.ceil(schedule["timeout"] / 60), LONGEST_RUN)
    return config
