"""Sends of many threads share calls; each has its own outcome, whatever happens."""

from __future__ import annotations

import threading
import typing as t

import pytest

from flask_durable.queue.sending import Coalescer
from flask_durable.queue.sending import Sender
from flask_durable.queue.sending import Unanswered
from flask_durable.queue.sqs.transport import SQSTransport
from flask_durable.queue.transport import Outcome
from flask_durable.queue.transport import SendLimits

from ..support.forks import exit_code
from ..support.forks import start_child
from ..support.servers import wait_until
from .kit import body
from .kit import collect
from .kit import QUEUE
from .kit import SQSKit
from .kit import text

LIMITS = SendLimits(entries=10, size=1000, coalesced=True)


@pytest.fixture(autouse=True)
def held_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a slow machine it could run out before a test looks."""
    monkeypatch.setattr("flask_durable.queue.sending.LONGEST_HOLD_SECONDS", 60.0)


class Calls:
    """The calls that were made. Those in *held* wait until they are let go."""

    def __init__(self, held: t.Container[int] = ()) -> None:
        self.made: list[list[str]] = []
        self.let_go = threading.Event()
        self._held = held

    def __call__(self, bodies: list[str]) -> list[Outcome]:
        number = len(self.made)
        self.made.append(list(bodies))
        if number in self._held:
            assert self.let_go.wait(30)
        return [ValueError(each) if "bad" in each else None for each in bodies]


class Senders:
    """Threads that send, and what became of it."""

    def __init__(self, coalescer: Coalescer) -> None:
        self._coalescer = coalescer
        self.outcomes: dict[str, t.Any] = {}
        self._threads: list[threading.Thread] = []

    def send(self, *bodies: str) -> None:
        def run() -> None:
            try:
                found: t.Any = self._coalescer.send(bodies)
            except BaseException as error:
                found = error
            self.outcomes[bodies[0]] = found

        thread = threading.Thread(target=run)
        self._threads.append(thread)
        thread.start()

    def join(self) -> None:
        for thread in self._threads:
            thread.join(30)
            assert not thread.is_alive()


@pytest.fixture(autouse=True)
def long_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no batch go because of the time, unless a test says so."""
    monkeypatch.setattr("flask_durable.queue.sending.LONGEST_HOLD_SECONDS", 60)


def under_way(calls: Calls, senders: Senders) -> None:
    """Have a first call that does not end."""
    senders.send("first")
    wait_until(lambda: calls.made)


def open_entries(coalescer: Coalescer, count: int) -> None:
    wait_until(lambda: coalescer._open and len(coalescer._open.bodies) == count)


def test_a_send_alone_goes_at_once() -> None:
    calls = Calls()
    coalescer = Coalescer(calls, LIMITS)

    assert coalescer.send(["one", "bad"])[0] is None
    assert coalescer.send(["two"]) == [None]

    assert calls.made == [["one", "bad"], ["two"]]


def test_those_who_come_during_a_call_share_the_next_one() -> None:
    calls = Calls(held=[0])
    coalescer = Coalescer(calls, LIMITS)
    senders = Senders(coalescer)
    under_way(calls, senders)

    for number, name in enumerate(("a", "bad b", "c"), 1):
        senders.send(name)
        open_entries(coalescer, number)
    assert len(calls.made) == 1
    calls.let_go.set()
    senders.join()

    assert calls.made[1] == ["a", "bad b", "c"]
    assert senders.outcomes["a"] == senders.outcomes["c"] == [None]
    assert isinstance(senders.outcomes["bad b"][0], ValueError)
    assert coalescer._under_way == 0


def test_a_full_batch_does_not_wait() -> None:
    calls = Calls(held=[0])
    coalescer = Coalescer(calls, LIMITS)
    senders = Senders(coalescer)
    under_way(calls, senders)

    for number in range(10):
        senders.send(str(number))
    wait_until(lambda: len(calls.made) == 2)
    assert sorted(calls.made[1]) == [str(number) for number in range(10)]

    calls.let_go.set()
    senders.join()


def test_what_does_not_fit_goes_with_the_next_batch() -> None:
    calls = Calls(held=[0])
    coalescer = Coalescer(calls, LIMITS)
    senders = Senders(coalescer)
    under_way(calls, senders)

    senders.send("x" * 600)
    open_entries(coalescer, 1)
    senders.send("y" * 600)
    wait_until(lambda: len(calls.made) >= 2)
    senders.send(*[str(number) for number in range(10)])
    wait_until(lambda: len(calls.made) == 4)
    calls.let_go.set()
    senders.join()

    assert sorted(len(call) for call in calls.made[1:]) == [1, 1, 10]
    assert all(set(outcome) == {None} for outcome in senders.outcomes.values())


def test_a_call_that_hangs_holds_nobody_else_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("flask_durable.queue.sending.LONGEST_HOLD_SECONDS", 0.01)
    calls = Calls(held=[0])
    coalescer = Coalescer(calls, LIMITS)
    senders = Senders(coalescer)
    under_way(calls, senders)

    assert coalescer.send(["second"]) == [None]

    assert "first" not in senders.outcomes
    calls.let_go.set()
    senders.join()


def test_nobody_waits_for_another_ones_call_longer_than_a_call_may_take(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("flask_durable.queue.sending.LONGEST_HOLD_SECONDS", 0.2)
    calls = Calls(held=[0, 1])
    coalescer = Coalescer(calls, LIMITS, longest=0.01)
    senders = Senders(coalescer)
    under_way(calls, senders)
    senders.send("leads")
    open_entries(coalescer, 1)

    [error] = coalescer.send(["follows"])

    assert isinstance(error, Unanswered)
    calls.let_go.set()
    senders.join()
    assert senders.outcomes["leads"] == [None]


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, OSError])
def test_a_call_that_ends_badly_is_answered_for_all(
    interrupt: type[BaseException],
) -> None:
    calls = Calls(held=[0])

    def call(bodies: list[str]) -> list[Outcome]:
        outcomes = calls(bodies)
        if "leads" in bodies:
            raise interrupt
        return outcomes

    coalescer = Coalescer(call, LIMITS)
    senders = Senders(coalescer)
    under_way(calls, senders)
    senders.send("leads")
    open_entries(coalescer, 1)
    senders.send("follows")
    open_entries(coalescer, 2)
    calls.let_go.set()
    senders.join()

    [error] = senders.outcomes["follows"]
    if interrupt is KeyboardInterrupt:
        assert isinstance(error, Unanswered)
        assert isinstance(senders.outcomes["leads"], KeyboardInterrupt)
    else:
        assert isinstance(error, OSError)
    assert coalescer.send(["later"]) == [None]


def test_an_interrupt_before_the_call_leaves_nobody_waiting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls = Calls(held=[0])
    coalescer = Coalescer(calls, LIMITS)
    senders = Senders(coalescer)
    under_way(calls, senders)

    def interrupted(batch: t.Any) -> t.NoReturn:
        senders.send("follows")
        open_entries(coalescer, 2)
        raise KeyboardInterrupt

    monkeypatch.setattr(coalescer, "_lead", interrupted)
    with pytest.raises(KeyboardInterrupt):
        coalescer.send(["leads"])

    wait_until(lambda: "follows" in senders.outcomes)
    assert isinstance(senders.outcomes["follows"][0], Unanswered)
    assert calls.made == [["first"]]
    assert coalescer._under_way == 1
    calls.let_go.set()
    senders.join()


def test_a_slow_queue_takes_what_an_impatient_sender_sends(sqs_kit: SQSKit) -> None:
    """A sender that shares another thread's call waits for it as for its own."""
    transport = sqs_kit.transport(visibility=30)
    assert isinstance(transport, SQSTransport)
    client = transport._sender.get()

    class Slow:
        def __getattr__(self, name: str) -> t.Any:
            return getattr(client, name)

        def send_message_batch(self, **request: t.Any) -> t.Any:
            threading.Event().wait(0.15)
            return client.send_message_batch(**request)

    transport._sender._value = Slow()
    sender = Sender(transport, 30)
    outcomes: list[Outcome] = []

    def send(number: int) -> None:
        for round in range(5):
            outcomes.extend(sender.send(QUEUE, [body(number * 5 + round)], patience=0))

    threads = [threading.Thread(target=send, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert outcomes == [None] * 20


def test_threads_share_calls_of_sqs(sqs_kit: SQSKit) -> None:
    transport = sqs_kit.transport(visibility=30)
    assert isinstance(transport, SQSTransport)
    client = transport._sender.get()
    calls: list[int] = []

    class Counting:
        def __getattr__(self, name: str) -> t.Any:
            return getattr(client, name)

        def send_message_batch(self, **request: t.Any) -> t.Any:
            calls.append(len(request["Entries"]))
            return client.send_message_batch(**request)

    transport._sender._clients._value = Counting()
    sender = Sender(transport, 30)
    outcomes: list[Outcome] = []
    start = threading.Barrier(16)

    def send(number: int) -> None:
        start.wait()
        for round in range(5):
            outcomes.extend(sender.send(QUEUE, [body(number * 5 + round)]))

    threads = [threading.Thread(target=send, args=[number]) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    assert outcomes == [None] * 80
    assert sum(calls) == 80
    assert len(calls) < 60
    found = sorted(map(text, collect(transport, 80)))
    assert found == sorted(body(number) for number in range(80))


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_process_does_not_wait_for_calls_of_its_parent(
    sqs_kit: SQSKit,
) -> None:
    transport = sqs_kit.transport(visibility=30)
    sender = Sender(transport, 30)
    assert sender.send(QUEUE, [body(1)]) == [None]
    coalescer = sender._coalescer(QUEUE)

    def send_another() -> None:
        assert sender.send(QUEUE, [body(2)]) == [None]

    with coalescer._lock:  # as another thread has it at any time
        child = start_child(send_another)
    assert exit_code(child) == 0

    assert sorted(map(text, collect(transport, 2))) == [body(1), body(2)]
