"""A task of Amazon ECS is protected while it has runs."""

from __future__ import annotations

import logging
import threading
import typing as t

import pytest

from flask_durable import Event
from flask_durable import Step
from flask_durable.worker import task_protection
from flask_durable.worker.process import WorkerProcess
from flask_durable.worker.task_protection import TaskProtection

from ..scaler.http_server import FakeServer
from ..scaler.http_server import Reply
from ..scaler.http_server import Request
from ..scaler.http_server import serving
from ..support.harness import Harness
from ..support.servers import ValkeyServer
from ..support.servers import wait_until

PATH = "/task-protection/v1/state"
TASK = "arn:aws:ecs:eu-west-1:1:task/shop/1"


class Agent(FakeServer):
    """Answers as ECS's developer guide says."""

    refusal: dict[str, t.Any] | None = None
    enabled = False

    def answer(self, request: Request) -> Reply:
        if request.path != PATH:
            return Reply(404)
        if self.refusal is not None:
            return Reply(400 if "error" in self.refusal else 200, self.refusal)
        if request.method == "PUT":
            self.enabled = request.body["ProtectionEnabled"]
        protection = {"ProtectionEnabled": self.enabled, "TaskArn": TASK}
        return Reply(200, {"protection": protection})

    @property
    def asked(self) -> list[t.Any]:
        return [request.body for request in self.made("PUT")]


PROTECT = {"ProtectionEnabled": True, "ExpiresInMinutes": 5}
GIVE_UP = {"ProtectionEnabled": False}


@pytest.fixture
def agent() -> t.Iterator[Agent]:
    with serving(Agent()) as server:
        yield server


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(task_protection, "_LOOK", 0.01)
    monkeypatch.setattr(task_protection, "LINGER", 0.05)


@pytest.fixture
def make(agent: Agent) -> t.Iterator[t.Callable[..., TaskProtection]]:
    made = []

    def make(busy: threading.Event, shared: bool = False) -> TaskProtection:
        made.append(TaskProtection(agent.url, busy, lambda task: shared))
        made[-1].start()
        return made[-1]

    yield make
    for protection in made:
        protection.stop()


def test_a_task_is_protected_while_there_is_a_run_and_not_longer(
    agent: Agent, make: t.Callable[..., TaskProtection]
) -> None:
    busy = threading.Event()
    make(busy)
    busy.set()
    wait_until(lambda: agent.asked == [PROTECT])
    busy.clear()
    wait_until(lambda: agent.asked == [PROTECT, GIVE_UP])
    busy.set()
    wait_until(lambda: agent.asked == [PROTECT, GIVE_UP, PROTECT])


def test_protection_is_renewed_before_it_ends(
    agent: Agent,
    make: t.Callable[..., TaskProtection],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(task_protection, "REFRESH", 0.05 / (5 * 60))
    busy = threading.Event()
    busy.set()
    make(busy)
    wait_until(lambda: agent.asked[:3] == [PROTECT] * 3)


def test_a_task_that_another_worker_shares_is_left_to_expire(
    agent: Agent, make: t.Callable[..., TaskProtection]
) -> None:
    busy = threading.Event()
    busy.set()
    protection = make(busy, shared=True)
    wait_until(lambda: agent.asked == [PROTECT])
    busy.clear()
    wait_until(lambda: not protection._protected)
    protection.stop()
    assert agent.asked == [PROTECT]


@pytest.mark.parametrize(
    ("other", "shares"),
    [
        (None, False),  # it asks for no protection
        ("arn:aws:ecs:eu-west-1:1:task/shop/2", False),
        (TASK, True),
        ("", True),  # it does not know its task yet
    ],
)
def test_workers_of_one_task_know_one_another_whatever_their_hosts_are_called(
    agent: Agent,
    valkey: ValkeyServer,
    namespace: str,
    monkeypatch: pytest.MonkeyPatch,
    other: str | None,
    shares: bool,
) -> None:
    monkeypatch.setenv("ECS_AGENT_URI", agent.url)
    harness = Harness(valkey.url, namespace, DURABLE_ECS_PROTECTION=True)
    go_on = threading.Event()

    @harness.durable.function(on="work/slow")
    def slow(event: Event[t.Any], step: Step) -> None:
        go_on.wait(20)

    process = WorkerProcess(harness.state, queues=["default"], threads=1, grace=5)
    process.start()
    protection = t.cast("TaskProtection", process._protection)
    try:
        wait_until(lambda: protection.task == TASK)
        process._beat._turn()
        [described] = harness.state.directory.workers()
        assert described["task"] == TASK
        described |= {"id": "another", "task": other}
        harness.state.directory.beat("another", described, [])
        harness.send("work/slow")
        wait_until(lambda: agent.asked == [PROTECT])
        go_on.set()
        wait_until(lambda: not protection._protected)
    finally:
        go_on.set()
        process.stop()
        harness.close()
    assert agent.asked == ([PROTECT] if shares else [PROTECT, GIVE_UP])


@pytest.mark.parametrize(
    ("refusal", "text"),
    [
        ({"failure": {"Arn": "a", "Reason": "TASK_NOT_VALID"}}, "TASK_NOT_VALID"),
        (
            {"error": {"Code": "AccessDeniedException", "Message": "not authorized"}},
            "not authorized",
        ),
    ],
)
def test_an_agent_that_refuses_is_named_once_and_asked_again(
    agent: Agent,
    make: t.Callable[..., TaskProtection],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    refusal: dict[str, t.Any],
    text: str,
) -> None:
    monkeypatch.setattr(task_protection, "AFTER_REFUSAL", 0.02)
    agent.refusal = refusal
    busy = threading.Event()
    busy.set()
    with caplog.at_level(logging.WARNING, task_protection.__name__):
        protection = make(busy)
        wait_until(lambda: len(agent.asked) >= 3)
    [record] = caplog.records
    assert text in record.getMessage()
    agent.refusal = None
    wait_until(lambda: protection._protected)
    busy.clear()
    wait_until(lambda: agent.asked[-1] == GIVE_UP)
