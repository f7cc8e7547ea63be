"""Deployments that share queues: each gets what it has sent, and nobody else does."""

from __future__ import annotations

import logging
import typing as t

import pytest

from flask_durable import Event
from flask_durable import Step
from flask_durable import UnavailableError
from flask_durable.messages import decode
from flask_durable.messages import EVENT_QUEUE
from flask_durable.messages import EventMessage
from flask_durable.messages import stamped

from ..support.harness import Harness
from ..support.proxy import proxy
from ..support.servers import valkey_server
from ..support.servers import ValkeyServer

Make = t.Callable[..., Harness]


@pytest.fixture(params=["redis", "sqs"])
def queues(request: pytest.FixtureRequest) -> t.Iterator[str]:
    """The URL of queues that are not on the state server."""
    if request.param == "sqs":
        yield request.getfixturevalue("sqs").url
    else:
        with valkey_server() as server:
            yield server.url


@pytest.fixture
def make(make_harness: Make, queues: str, monkeypatch: pytest.MonkeyPatch) -> Make:
    """Makes a process of a deployment; all share namespace and queues."""
    monkeypatch.setattr("flask_durable.store.installation.ASKED_AGAIN", 0.0)
    monkeypatch.setattr("flask_durable.common.redelivery.FIRST_PAUSE", 0.0)

    def make_one(*url: str, **settings: t.Any) -> Harness:
        harness = make_harness(*url, DURABLE_QUEUE_URL=queues, **settings)

        @harness.durable.function(on="a/b")
        def work(event: Event[t.Any], step: Step) -> str:
            return "done"

        return harness

    return make_one


def route(harness: Harness) -> int:
    routed = harness.route()
    assert harness.state.broker.flush_settled(10)
    return routed


def route_all(harness: Harness) -> int:
    return sum(route(harness) for _ in range(4))


def test_an_event_of_another_deployment_goes_back_to_it(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    with valkey_server() as other:
        shop, stranger = make(), make(other.url)
        id = shop.send("a/b")
        with caplog.at_level(logging.ERROR):
            assert route(stranger) == 0
        [line] = [text for text in caplog.messages if "Two deployments share" in text]
        for _ in range(3):
            assert route(stranger) == 0
        assert caplog.messages.count(line) == 1  # told once a minute
        assert stranger.runs.of_event(id) == []
        assert route_all(shop) == 1
        # So does what says that a run is ready.
        run = shop.run_of(id)
        shop.state.outbox.send_runs([(run.id, run.function, "default", 1)])
        assert stranger.execute() == 0
        assert stranger.state.broker.flush_settled(10)
        assert sum(shop.execute() for _ in range(4)) >= 1


def test_what_nobody_takes_is_a_dead_letter_that_says_so_and_can_be_adopted(
    make: Make,
) -> None:
    with valkey_server() as other:
        shop, stranger = make(), make(other.url)
        id = shop.send("a/b")
        for _ in range(30):
            assert route(stranger) == 0
        [letter] = stranger.state.dead_letters.list()
        home = shop.state.installation.id
        assert f"the installation {home}" in letter.reason

        # As where a state server was emptied, and no process outlived that.
        stranger.state.installation.adopt(home)
        assert stranger.state.dead_letters.redrive().done == 1
        assert route_all(stranger) == 1
        assert stranger.run_of(id)


def test_processes_of_one_deployment_agree(make: Make) -> None:
    first, second = make(), make()
    assert first.state.installation.id == second.state.installation.id != ""
    id = first.send("a/b")
    assert route_all(second) == 1
    assert second.run_of(id)


def test_a_process_that_outlives_an_emptied_server_speaks_for_what_was_sent_before(
    make: Make,
) -> None:
    with valkey_server() as server:
        old = make(server.url)
        ids = [old.send("a/b")]
        server_id = old.state.installation.id
        old.state.server.client.flushall()
        new = make(server.url)
        ids.append(new.send("a/b"))
        assert new.state.installation.id != server_id
        # It meets a message of the new id, and finds its own one gone.
        assert route_all(old) == 2
        assert old.state.installation.id == new.state.installation.id
        ids.append(old.send("a/b"))
        message = EventMessage("a/b", {}, "e4", 1, home=server_id)
        new.state.message_sender.send(EVENT_QUEUE, [message.encode()])
        assert route_all(new) == 2
        assert new.run_of("e4")


def test_an_event_is_taken_while_the_state_server_is_away(
    make: Make, valkey: ValkeyServer
) -> None:
    with proxy(valkey.port, b"") as network:
        sender = make(f"redis://127.0.0.1:{network.port}")
        network.take_down()
        id = sender.send("a/b")
        worker = make()
        assert route_all(worker) == 1
        assert worker.run_of(id)


def test_what_is_not_known_while_the_state_server_is_away_comes_again(
    make: Make, valkey: ValkeyServer, caplog: pytest.LogCaptureFixture
) -> None:
    with proxy(valkey.port, b"") as network:
        sender = make()
        worker = make(f"redis://127.0.0.1:{network.port}")
        worker.start()
        ids = [sender.send("a/b")]
        network.take_down()
        for _ in range(12):  # more often than a message is received
            assert not worker.state.broker.deliveries(EVENT_QUEUE, 10, 0)
            assert worker.state.broker.flush_settled(10)
        assert "Two deployments share" not in caplog.text
        assert "message_dead" not in [vars(r).get("action") for r in caplog.records]
    letters = sender.state.dead_letters.list()
    # SQS itself counts to ten; it is no letter about another deployment.
    assert all("another deployment" not in letter.reason for letter in letters)
    assert route_all(sender) == len(ids) - len(letters)


def test_an_id_is_given_up_only_when_its_adoption_is_written(make: Make) -> None:
    with valkey_server() as server:
        old = make(server.url)
        former = old.state.installation.id
        old.state.server.client.flushall()
        new = make(server.url).state.installation
        new.id  # noqa: B018 (made by this)
        old.state.server.client.config_set("maxmemory", 1)
        with pytest.raises(UnavailableError):
            old.state.installation.owns("f" * 32)
        assert old.state.installation.id == former
        old.state.server.client.config_set("maxmemory", 0)
        old.state.installation._ask_at = 0.0
        assert old.state.installation.owns(new.id)
        assert new.owns(former)


def test_queues_on_the_state_server_need_no_mark(
    valkey: ValkeyServer, namespace: str
) -> None:
    harness = Harness(valkey.url, namespace)
    try:
        harness.send("a/b")
        [delivery] = harness.state.broker.deliveries(EVENT_QUEUE, 1, 0)
        assert delivery.message.home == ""
    finally:
        harness.close()


def test_a_message_keeps_the_mark_that_it_has() -> None:
    ours, theirs = "0" * 32, "f" * 32
    body = EventMessage("a/b", {"home": theirs}, "e1", 1, {"home": theirs}).encode()
    marked = stamped(body, ours)
    assert decode(marked).home == ours
    assert stamped(marked, theirs) == marked
    assert decode(marked).encode() == marked
    assert stamped(body, "") == body
