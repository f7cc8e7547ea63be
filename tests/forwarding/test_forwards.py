"""Forwards as functions: how they are declared, die, and come back."""

from __future__ import annotations

import contextlib
import json
import threading
import typing as t

import pytest
from flask import Flask
from werkzeug.serving import make_server

from flask_durable import Cron
from flask_durable import DefinitionError
from flask_durable import Durable
from flask_durable import Event
from flask_durable import EventData
from flask_durable import RunStatus
from flask_durable import Step
from flask_durable.cli import durable_cli
from flask_durable.queue.transport import DeadLetterCursor
from flask_durable.queue.transport import StoredLetter

from ..support.harness import Harness
from ..support.proxy import Moment
from ..support.proxy import proxy
from ..support.servers import ValkeyServer
from ..support.servers import wait_until
from .receiver import Answer
from .receiver import Handler
from .receiver import KEY
from .receiver import nothing
from .receiver import Receiver
from .receiver import status
from .test_deliveries import forward
from .test_deliveries import send

EVENT_KEY = "evk_" + 43 * "a"


@contextlib.contextmanager
def looking(harness: Harness) -> t.Iterator[DeadLetterCursor]:
    cursor = harness.state.transport.dead_letters.open_cursor("default", 30)
    with contextlib.closing(cursor):
        yield cursor


def letters_in(cursor: DeadLetterCursor) -> list[StoredLetter]:
    """Return the letters, once there are some."""
    found: list[StoredLetter] = []

    def any_letter() -> bool:
        found.extend(cursor.next(10))
        return bool(found)

    wait_until(any_letter, "a dead letter")
    return found


def fail_for_good(harness: Harness, receiver: Receiver, *answers: Answer) -> str:
    receiver.answers = list(answers)
    event_id = send(harness)
    harness.settle()
    for _ in answers[1:]:
        harness.advance(2)
    return event_id


def the_run(harness: Harness, event_id: str) -> t.Any:
    return harness.run_of(event_id, "forward-127.0.0.1")


def test_what_cannot_be_delivered_is_a_dead_letter_with_its_reason(
    any_harness: Harness, receiver: Receiver
) -> None:
    forward(any_harness, receiver.url, retries=2)
    event_id = fail_for_good(any_harness, receiver, *[status(503)] * 3)
    assert len(receiver.deliveries) == 3

    with looking(any_harness) as cursor:
        [letter] = letters_in(cursor)
    assert letter.reason.startswith(f"http://127.0.0.1:{receiver.port}/… answered 503")
    assert letter.receives == 3
    run = the_run(any_harness, event_id)
    assert json.loads(letter.body)["run"] == run.id
    assert KEY not in f"{letter}"


def test_a_dead_letter_that_is_moved_back_is_delivered(
    any_harness: Harness, receiver: Receiver
) -> None:
    forward(any_harness, receiver.url)
    event_id = fail_for_good(any_harness, receiver, status(404))
    with looking(any_harness) as cursor:
        assert cursor.move_back(letters_in(cursor)) == [None]

    def delivered() -> bool:
        any_harness.settle()
        return the_run(any_harness, event_id).status is RunStatus.COMPLETED

    wait_until(delivered, "the delivery")
    assert [d.json["id"] for d in receiver.deliveries] == [event_id, event_id]


def test_a_dead_letter_that_is_received_twice_is_delivered_once(
    harness: Harness, receiver: Receiver
) -> None:
    forward(harness, receiver.url)
    event_id = fail_for_good(harness, receiver, status(404))
    with looking(harness) as cursor:
        [letter] = letters_in(cursor)
    for _ in range(2):
        body = t.cast(bytes, letter.body).decode()
        assert harness.state.message_sender.send("default", [body]) == [None]
        harness.settle()
    assert the_run(harness, event_id).status is RunStatus.COMPLETED
    assert len(receiver.deliveries) == 2


def test_a_letter_of_an_earlier_failure_leaves_a_later_one_alone(
    harness: Harness, receiver: Receiver
) -> None:
    forward(harness, receiver.url)
    event_id = fail_for_good(harness, receiver, status(404))
    with looking(harness) as cursor:
        [first] = letters_in(cursor)
        receiver.answers = [status(410)]
        cursor.move_back([first])
    harness.settle()
    with looking(harness) as cursor:
        [second] = letters_in(cursor)
    assert "410" in second.reason

    harness.state.message_sender.send("default", [t.cast(bytes, first.body).decode()])
    harness.settle()
    assert the_run(harness, event_id).status is RunStatus.FAILED
    assert len(receiver.deliveries) == 2


def test_a_worker_that_is_lost_before_its_commit_delivers_again_with_the_same_id(
    any_harness: Harness, receiver: Receiver
) -> None:
    def taken_over(handler: Handler) -> None:
        any_harness.expire_leases()
        status(200)(handler)

    forward(any_harness, receiver.url, timeout=60)
    receiver.answers = [taken_over]
    run = any_harness.run_of_settled(send(any_harness))
    assert run.status is RunStatus.COMPLETED
    assert [d.json["id"] for d in receiver.deliveries] == ["e1", "e1"]


@contextlib.contextmanager
def serving(app: Flask) -> t.Iterator[int]:
    """Serve *app*; yield its port."""
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.port
    finally:
        server.shutdown()
        thread.join(30)
        server.server_close()


@pytest.fixture
def other(valkey: ValkeyServer, namespace: str) -> t.Iterator[Harness]:
    """A second app, which takes events as Inngest does."""
    other = Harness(
        valkey.url,
        f"{namespace}-other",
        DURABLE_INNGEST_EVENT_API=True,
        DURABLE_EVENT_KEYS=EVENT_KEY,
    )
    yield other
    other.close()


def test_an_event_that_another_app_gets_twice_makes_one_run_there(
    harness: Harness, other: Harness
) -> None:
    seen: list[Event[t.Any]] = []

    @other.durable.function(on="media/up")
    def look(event: Event[t.Any], step: Step) -> None:
        seen.append(event)

    with serving(other.app) as port, proxy(port, b"POST /e/") as lossy:
        lossy.cut_next(Moment.BEFORE_REPLY)
        forward(harness, f"http://127.0.0.1:{lossy.port}/e/{EVENT_KEY}", timeout=30)
        event_id = send(harness)
        harness.settle()
        harness.advance(2)
        assert lossy.requests == 2

    assert harness.run_of(event_id).status is RunStatus.COMPLETED
    assert other.run_of_settled(event_id).status is RunStatus.COMPLETED
    [event] = seen
    assert (event.name, event.data["of"]) == ("media/up", "é")


def test_what_branches_send_is_forwarded_and_answers_waits_too(
    any_harness: Harness, receiver: Receiver
) -> None:
    forward(any_harness, receiver.url)

    def tell(place: str, step: Step) -> None:
        step.send_event("tell", Event("media/up", {"place": place}))

    @any_harness.durable.function(on="work/asked", awaits=["media/up"])
    def work(event: Event[t.Any], step: Step) -> t.Any:
        step.map("told", tell, ["here", "there"])
        match = {"data.place": "there"}
        found = step.wait_for_event("found", "media/up", match=match, timeout="1h")
        return found and found.data

    run = any_harness.send_and_settle("work/asked", {})

    assert (run.status, run.result) == (RunStatus.COMPLETED, {"place": "there"})
    assert len(receiver.deliveries) == 2


def test_a_forward_to_the_app_itself_ends(other: Harness) -> None:
    with serving(other.app) as port:
        url = f"http://127.0.0.1:{port}/e/{EVENT_KEY}"
        forward(other, url, timeout=30)
        event_id = send(other)
        other.settle()
    assert other.run_of(event_id).status is RunStatus.COMPLETED


class Uploaded(EventData, name="media/uploaded"):
    size: int


@pytest.mark.parametrize(
    "given",
    [
        {"to": KEY},
        {"to": f"ftp://example.com/{KEY}"},
        {"to": f"https://user:{KEY}@example.com/"},
        {"to": f"https:///{KEY}"},
        {"to": f"https://example.com:{KEY}/"},
        {"to": f"https://example.com/ {KEY}"},
        {"to": f"https://example.com/{KEY}\r\nX: y"},
        {"to": f"https://example.com/#{KEY}"},
        {"to": f"https://[{KEY}/"},
        {"to": None},
        {"signing_secrets": KEY},
        {"signing_secrets": [f"whsec_{KEY}"]},
        {"signing_secrets": [None]},
        {"timeout": 0},
        {"timeout": "soon"},
        {"on": Uploaded},
        {"on": Cron("0 4 * * *")},
        {"on": "media*"},
        {"queue": "events"},
        {"retries": -1},
        {"id": "not an id"},
        {"where": "event.data.n > 1"},
    ],
)
def test_a_wrong_argument_is_refused_with_what_to_do(given: dict[str, t.Any]) -> None:
    durable = Durable()
    with pytest.raises(DefinitionError) as caught:
        durable.forward(**{"on": "a/b", "to": "https://example.com/e/KEY", **given})
    assert KEY not in str(caught.value)
    assert KEY not in repr(caught.value.__context__)
    assert len(durable.functions) == 0


def test_a_second_forward_to_a_host_needs_an_id() -> None:
    durable = Durable()
    durable.forward(on="a/b", to="https://example.com/e/KEY")
    with pytest.raises(DefinitionError, match=f"{__name__.rpartition('.')[2]}.py"):
        durable.forward(on="a/c", to="https://example.com/e/KEY")
    durable.forward(on="a/c", to="https://example.com/e/KEY", id="other")
    assert [function.id for function in durable.functions] == [
        "forward-example.com",
        "other",
    ]


def test_the_list_of_functions_has_forwards_without_their_keys(
    harness: Harness,
) -> None:
    harness.durable.forward(on="media/*", to=f"https://example.com/e/{KEY}")
    runner = harness.app.test_cli_runner()
    for options in ([], ["--json"]):
        result = runner.invoke(durable_cli, ["functions", *options])
        assert "forward-example.com" in result.output
        assert "media/*" in result.output
        assert KEY not in result.output


def test_a_receiver_that_never_answers_costs_the_forward_alone(
    harness: Harness, receiver: Receiver
) -> None:
    done: list[str] = []

    @harness.durable.function(on="media/up")
    def beside(event: Event[t.Any], step: Step) -> None:
        done.append(event.id)

    forward(harness, receiver.url)
    receiver.answers = [nothing]
    event_id = send(harness)
    harness.settle()
    assert done == [event_id]
