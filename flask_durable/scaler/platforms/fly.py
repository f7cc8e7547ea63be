"""The Machines of one process group of a Fly app, which are started and stopped.

No Machine is created or destroyed: the stopped ones are the pool's reserve. They cost
next to nothing, and start in seconds.
"""

from __future__ import annotations

import dataclasses
import typing as t
from urllib.parse import quote

from ...clients.http import HTTPAPI
from ...clients.http import token_of
from ...errors import PlatformError
from ..decision.observation import Size
from .base import Applied
from .base import idle_ones
from .base import Traits

_RUNNING = "started"
_BOOTING = ("starting", "restarting", "replacing")
_RESERVE = ("stopped", "suspended", "created")

#: Refusals that concern all Machines, not a single one.
_GENERAL = ("platform.auth", "platform.rate_limited", "platform.unavailable")

_Machine = dict[str, t.Any]


class FlyPlatform:
    """The Machines of one process group. Each is a worker.

    :param app: The app's name.
    :param process: The process group's name in ``fly.toml``.
    :param token: A deploy token of the app; ``FLY_API_TOKEN`` by default.
    :param drains: True if a Machine's ``kill_timeout`` is enough for a worker to end
        its steps. Busy Machines may then be stopped too.
    :param url: The URL of the API.
    """

    def __init__(
        self,
        *,
        app: str,
        process: str = "worker",
        token: str | None = None,
        drains: bool = False,
        url: str = "https://api.machines.dev/v1",
    ) -> None:
        self._name = f"fly:{app}:{process}"
        self._process = process
        self._drains = drains
        self._path = f"/apps/{quote(app, safe='')}/machines"
        secret = token_of("Fly", token, "FLY_API_TOKEN")
        headers = {"Authorization": f"Bearer {secret}"}
        self._api = HTTPAPI("Fly", url, lambda: headers)
        self.traits = Traits(picks_victims=True, by_host=True)

    def describe(self) -> str:
        """Return the platform in one line."""
        return self._name

    def read(self) -> Size:
        """Return how many Machines are started or starting, and how many have started.

        Afterwards the traits know the number of all Machines.

        :raises PlatformError: There is no Machine in the process group, or Fly refuses.
        """
        machines = self._machines()
        running = len(_in_state(machines, _RUNNING))
        return Size.of(running + len(_in_state(machines, *_BOOTING)), running)

    def resize(self, workers: int, victims: t.Sequence[str] = ()) -> Applied:
        """Start Machines that are stopped, or stop idle ones.

        :raises PlatformError: As for :meth:`read`. Also if no victim is a Machine of
            the process group.
        """
        machines = self._machines()
        running = _in_state(machines, _RUNNING)
        before = len(running) + len(_in_state(machines, *_BOOTING))
        limit = len(machines) if workers > len(machines) else None
        if workers < before:
            idle = self._stoppable(running, victims)
            return Applied(before, before - self._each("stop", idle, before - workers))
        reserve = _in_state(machines, *_RESERVE)
        more = self._each("start", reserve, workers - before)
        return Applied(before, before + more, limit)

    def _stoppable(self, running: list[str], victims: t.Sequence[str]) -> list[str]:
        if self._drains:
            idle = [victim for victim in victims if victim in running]
            return [*idle, *[id for id in running if id not in idle]]
        hint = "A worker is known by its host name, which on Fly is the Machine's id."
        return idle_ones(victims, running, pool=self._name, hint=hint)

    def _each(self, action: str, ids: list[str], count: int) -> int:
        """Start or stop *count* of the Machines. Return how many were.

        A Machine that refuses, because it is being updated or its host is full, is
        passed over.
        """
        done, refusal = 0, None
        for id in ids:
            if done == count:
                break
            try:
                self._api.call("POST", f"{self._path}/{quote(id)}/{action}")
                done += 1
            except PlatformError as error:
                if error.code in _GENERAL:
                    raise
                refusal = error
        if refusal is not None and not done:
            raise refusal
        return done

    def _machines(self) -> list[_Machine]:
        machines = [m for m in self._api.call("GET", self._path) if self._is_ours(m)]
        if not machines:
            raise PlatformError(
                f"There is no Machine in {self._name}.",
                code="platform.not_found",
                hint=f"Create some: `fly scale count {self._process}=5`.",
            )
        self.traits = dataclasses.replace(self.traits, maximum=len(machines))
        return machines

    def _is_ours(self, machine: _Machine) -> bool:
        config = machine.get("config") or {}
        group = (config.get("metadata") or {}).get("fly_process_group")
        # A standby waits until another Machine's host fails.
        alive = not machine["state"].startswith("destroy")
        return alive and group == self._process and not config.get("standbys")


def _in_state(machines: list[_Machine], *states: str) -> list[str]:
    return [machine["id"] for machine in machines if machine["state"] in states]
