"""The tag of a queue on SQS that says whose it is."""

from __future__ import annotations

import logging
import time
import typing as t

import pytest

from flask_durable.app.health import HealthChecks
from flask_durable.errors import UnavailableError
from flask_durable.queue.sqs.options import SQSAddress
from flask_durable.queue.sqs.owners import TAG
from flask_durable.queue.sqs.transport import SQSTransport
from flask_durable.worker.push.worker import PushWorker

from ...support.harness import Harness
from ...support.servers import valkey_server
from ...support.servers import ValkeyServer
from ..kit import QUEUE
from ..kit import SQSKit
from ..sqs_proxy import Answer
from ..sqs_proxy import Proxy

OURS, THEIRS = "a" * 32, "b" * 32


class Home:
    """An installation."""

    def __init__(self, id: str = OURS, *owned: str) -> None:
        self.id = id
        self._owned = {id, *owned}
        self.is_away = False

    def owns(self, home: str) -> bool:
        if self.is_away:
            raise UnavailableError("away")
        return home in self._owned


def transport(kit: SQSKit, home: Home | None, url: str = "") -> SQSTransport:
    made = SQSTransport(
        SQSAddress.parse((url or kit.url) + "&tags=team:media"),
        namespace=kit.namespace,
        visibility=30,
        home=home,
    )
    kit._closers.append(made.close)
    return made


def tags(kit: SQSKit) -> dict[str, str]:
    found = kit.client.list_queue_tags(QueueUrl=kit.queue_url())
    return t.cast("dict[str, str]", found.get("Tags", {}))


def test_a_queue_is_tagged_by_whom_it_is_made(sqs_kit: SQSKit) -> None:
    assert transport(sqs_kit, Home()).send(QUEUE, ["x"]) == [None]
    assert tags(sqs_kit) == {"team": "media", TAG: OURS}


def test_a_queue_that_exists_is_tagged_by_who_declares_it_first(
    sqs_kit: SQSKit,
) -> None:
    transport(sqs_kit, None).declare(QUEUE)
    assert tags(sqs_kit) == {"team": "media"}
    for home in (Home(), Home(THEIRS)):
        transport(sqs_kit, home).declare(QUEUE)
    assert tags(sqs_kit)[TAG] == OURS


def test_one_that_does_not_know_its_installation_tags_nothing(sqs_kit: SQSKit) -> None:
    transport(sqs_kit, Home("")).declare(QUEUE)
    assert TAG not in tags(sqs_kit)


def test_the_queue_of_another_deployment_is_told_of(sqs_kit: SQSKit) -> None:
    transport(sqs_kit, Home()).declare(QUEUE)
    assert transport(sqs_kit, Home()).owner_problem(QUEUE) is None
    assert transport(sqs_kit, Home()).owner_problem("missing") is None
    assert transport(sqs_kit, None).owner_problem(QUEUE) is None
    # The state server was emptied since, and an operator said so.
    assert transport(sqs_kit, Home(THEIRS, OURS)).owner_problem(QUEUE) is None
    problem = transport(sqs_kit, Home(THEIRS)).owner_problem(QUEUE) or ""
    assert f"{sqs_kit.namespace}-{QUEUE} is that of another deployment" in problem
    assert "DURABLE_NAMESPACE" in problem
    assert f"flask durable dlq adopt {OURS}" in problem
    home = Home(THEIRS)
    home.is_away = True
    with pytest.raises(UnavailableError):
        transport(sqs_kit, home).owner_problem(QUEUE)


@pytest.mark.parametrize("operation", ["ListQueueTags", "TagQueue"])
def test_without_the_permission_the_queue_is_used(
    sqs_kit: SQSKit, proxy: Proxy, operation: str, caplog: pytest.LogCaptureFixture
) -> None:
    proxy.meets(operation, *[Answer("AccessDenied", 403)] * 2)
    made = transport(sqs_kit, Home(), proxy.url)
    with caplog.at_level(logging.WARNING):
        for queue in (QUEUE, "other"):
            made.declare(queue)
    assert made.send(QUEUE, ["x"]) == [None]
    lines = [line for line in caplog.messages if "not tagged" in line]
    assert len(lines) == 1
    assert f"denies sqs:{operation}" in lines[0]


@pytest.fixture
def stranger(sqs_kit: SQSKit) -> t.Iterator[Harness]:
    """A deployment whose settings name the queues of another one."""
    with valkey_server() as one, valkey_server() as other:
        namespace = sqs_kit.namespace
        shop = Harness(one.url, namespace, DURABLE_QUEUE_URL=sqs_kit.url)
        shop.send("a/b")
        shop.route()
        shop.close()
        made = Harness(other.url, namespace, DURABLE_QUEUE_URL=sqs_kit.url)
        yield made
        made.close()


def test_a_worker_says_so_when_it_starts(
    stranger: Harness, caplog: pytest.LogCaptureFixture
) -> None:
    stranger.route()
    [line] = [r for r in caplog.records if vars(r).get("action") == "queue_foreign"]
    assert line.levelno == logging.ERROR
    assert "is that of another deployment" in line.getMessage()


def test_a_push_worker_says_so_when_it_starts(
    stranger: Harness, caplog: pytest.LogCaptureFixture
) -> None:
    worker = PushWorker(stranger.state, lives_on=False)
    for _ in range(2):
        worker.tick(time.monotonic() + 5)
    worker.stop()
    actions = [vars(record).get("action") for record in caplog.records]
    assert actions.count("queue_foreign") == 1


def test_health_says_so(stranger: Harness) -> None:
    stranger.state.directory.claim_namespace(stranger.app.name)
    [check] = [
        c for c in HealthChecks(stranger.state).everything() if c.name == "queue owners"
    ]
    assert not check.ok
    assert "is that of another deployment" in check.detail
    owner = check.detail.partition("the installation ")[2][:32]
    stranger.state.installation.adopt(owner)
    [check] = [
        c for c in HealthChecks(stranger.state).everything() if c.name == "queue owners"
    ]
    assert check.ok
    assert check.detail == f"the installation {stranger.state.installation.id}"


def test_health_passes_where_it_may_not_look(
    sqs_kit: SQSKit, proxy: Proxy, valkey: ValkeyServer
) -> None:
    harness = Harness(valkey.url, sqs_kit.namespace, DURABLE_QUEUE_URL=proxy.url)
    harness.state.transport.declare("events")
    proxy.meets("ListQueueTags", Answer("AccessDenied", 403))
    [check] = [
        c for c in HealthChecks(harness.state).everything() if c.name == "queue owners"
    ]
    assert check.ok
    assert check.detail.startswith("not known: SQS denies sqs:ListQueueTags")
    harness.close()
