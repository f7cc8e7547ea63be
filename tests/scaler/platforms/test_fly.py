"""The Machines of a process group, by a server that keeps the rules of Fly's API."""

from __future__ import annotations

import typing as t

import pytest

from flask_durable.errors import ConfigurationError
from flask_durable.errors import PlatformError
from flask_durable.scaler.decision.observation import Size
from flask_durable.scaler.platforms import make_platform
from flask_durable.scaler.platforms.base import Applied
from flask_durable.scaler.platforms.base import Platform

from ..http_server import FakeServer
from ..http_server import Reply
from ..http_server import Request
from ..http_server import serving

TOKEN = "FlyV1 fm2_5ecret"


class Fly(FakeServer):
    """One app. Machines that are started are starting until :meth:`boot`.

    :ivar held: Ids of Machines that another client has a lease of.
    """

    def __init__(self) -> None:
        super().__init__()
        self.groups = {"web1": "web"}
        self.states = {"web1": "started"}
        self.standbys: set[str] = set()
        self.held: set[str] = set()
        for id in ("m1", "m2"):
            self.add(id, "started")
        for id in ("m3", "m4"):
            self.add(id, "stopped")

    def add(self, id: str, state: str) -> None:
        self.groups[id] = "worker"
        self.states[id] = state

    def boot(self) -> None:
        for id, state in self.states.items():
            self.states[id] = "started" if state == "starting" else state

    def answer(self, request: Request) -> Reply:
        if request.headers.get("Authorization") != f"Bearer {TOKEN}":
            return Reply(401, {"error": "unauthorized"})
        if request.path == "/v1/apps/shop/machines":
            return Reply(200, [self._machine(id) for id in self.states])
        id, _, action = request.path.rpartition("/machines/")[2].partition("/")
        if request.method != "POST" or id not in self.states:
            return Reply(404, {"error": "machine not found"})
        if id in self.held:
            return Reply(409, {"error": f"machine {id} has an active lease"})
        before = self.states[id]
        self.states[id] = {"start": "starting", "stop": "stopping"}[action]
        return Reply(200, {"previous_state": before, "ok": True})

    def _machine(self, id: str) -> dict[str, t.Any]:
        config: dict[str, t.Any] = {"metadata": {"fly_process_group": self.groups[id]}}
        if id in self.standbys:
            config["standbys"] = ["m1"]
        return {"id": id, "state": self.states[id], "config": config}


@pytest.fixture
def fly() -> t.Iterator[Fly]:
    with serving(Fly()) as server:
        yield server


def pool(fly: Fly, **options: object) -> Platform:
    made = {"platform": "fly", "app": "shop", "token": TOKEN, "url": f"{fly.url}/v1"}
    return make_platform({**made, **options})


def test_machines_are_started_and_idle_ones_are_stopped(fly: Fly) -> None:
    platform = pool(fly)
    assert platform.describe() == "fly:shop:worker"
    assert platform.read() == Size(asked=2, running=2, booting=0)
    assert platform.resize(3) == Applied(before=2, after=3)
    assert platform.read() == Size(asked=3, running=2, booting=1)
    fly.boot()
    assert platform.read() == Size(asked=3, running=3, booting=0)
    assert platform.resize(2, ["m2"]) == Applied(before=3, after=2)
    assert fly.states["m2"] == "stopping"
    assert platform.read() == Size(asked=2, running=2, booting=0)
    assert platform.resize(0, ["m1", "m3"]) == Applied(before=2, after=0)
    assert fly.states["web1"] == "started"


def test_there_are_no_more_workers_than_machines(fly: Fly) -> None:
    fly.add("m5", "destroyed")
    fly.add("m6", "stopped")
    fly.standbys.add("m6")
    platform = pool(fly)
    assert platform.resize(9) == Applied(before=2, after=4, limit=4)
    assert platform.traits.maximum == 4
    assert (fly.states["m5"], fly.states["m6"]) == ("destroyed", "stopped")


def test_only_idle_machines_are_stopped(fly: Fly) -> None:
    platform = pool(fly)
    assert platform.resize(0, ["m2", "m3", "web1"]) == Applied(before=2, after=1)
    assert (fly.states["m1"], fly.states["web1"]) == ("started", "started")
    with pytest.raises(PlatformError, match="None of the idle workers") as caught:
        platform.resize(0, ["web1"])
    assert caught.value.code == "platform.unsupported"


def test_machines_that_drain_are_stopped_after_idle_ones(fly: Fly) -> None:
    platform = pool(fly, drains=True)
    assert platform.resize(1, ["m2"]) == Applied(before=2, after=1)
    assert (fly.states["m1"], fly.states["m2"]) == ("started", "stopping")
    assert platform.resize(0) == Applied(before=1, after=0)


def test_a_machine_that_is_being_updated_is_passed_over(fly: Fly) -> None:
    fly.held = {"m3"}
    platform = pool(fly)
    assert platform.resize(3) == Applied(before=2, after=3)
    assert (fly.states["m3"], fly.states["m4"]) == ("stopped", "starting")
    with pytest.raises(PlatformError, match="active lease") as caught:
        platform.resize(4)
    assert caught.value.code == "platform.conflict"


def test_what_is_about_every_machine_is_told_at_once(fly: Fly) -> None:
    machines = Reply(200, [fly._machine(id) for id in fly.states])
    fly.failures = [machines, Reply(429, {"error": "rate limit exceeded"})]
    with pytest.raises(PlatformError, match="rate limit") as caught:
        pool(fly).resize(4)
    assert caught.value.code == "platform.rate_limited"
    assert len(fly.made("POST")) == 1


def test_the_size_that_there_is_is_not_changed(fly: Fly) -> None:
    assert pool(fly).resize(2, ["m1"]) == Applied(before=2, after=2)
    assert not fly.made("POST")


def test_a_process_group_without_machines_is_told(fly: Fly) -> None:
    with pytest.raises(PlatformError, match="fly scale count media=5") as caught:
        pool(fly, process="media").read()
    assert caught.value.code == "platform.not_found"


def test_a_wrong_token_is_told_and_one_is_found_in_the_environment(
    fly: Fly, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(PlatformError, match="unauthorized") as caught:
        pool(fly, token="wr0ng").read()
    assert caught.value.code == "platform.auth"
    monkeypatch.setenv("FLY_API_TOKEN", TOKEN)
    assert pool(fly, token=None).read().asked == 2
    monkeypatch.delenv("FLY_API_TOKEN")
    with pytest.raises(ConfigurationError, match="Set FLY_API_TOKEN"):
        pool(fly, token=None)
