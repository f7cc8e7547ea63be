"""Commands over a thread's own connection."""

from __future__ import annotations

import signal
import threading
import types
import typing as t

import pytest

from flask_durable.redis.exchange import RoundTrip
from flask_durable.store.server import StateServer

from ..support.servers import valkey_server
from ..support.servers import ValkeyServer


def test_a_signal_s_handler_gets_the_replies_to_its_own_commands() -> None:
    exchange = RoundTrip()
    inner: list[t.Any] = []
    with valkey_server() as server:
        state = StateServer(server.url)
        exchange(state.client, [("SET", "a", "outer"), ("SET", "b", "inner")])

        def handle(signum: int, frame: types.FrameType | None) -> None:
            server.resume()
            inner.extend(exchange(state.client, [("GET", "b")]))

        before = signal.signal(signal.SIGALRM, handle)
        try:
            server.pause()
            signal.setitimer(signal.ITIMER_REAL, 0.2)
            assert exchange(state.client, [("GET", "a")]) == ["outer"]
        finally:
            signal.signal(signal.SIGALRM, before)
    assert inner == ["inner"]


@pytest.mark.parametrize(("query", "threads"), [("?max_connections=3", 6), ("", 120)])
def test_threads_that_rest_keep_no_connection_that_others_need(
    valkey: ValkeyServer, query: str, threads: int
) -> None:
    exchange = RoundTrip()
    client = StateServer(f"{valkey.url}{query}").client
    go_on = threading.Event()
    answers: list[t.Any] = []

    def ask(number: int, done: threading.Event) -> None:
        try:
            answers.extend(exchange(client, [("ECHO", str(number))]))
        finally:
            done.set()
            go_on.wait(30)

    started = []
    for number in range(threads):
        done = threading.Event()
        started.append(threading.Thread(target=ask, args=(number, done)))
        started[-1].start()
        assert done.wait(30)
    go_on.set()
    for thread in started:
        thread.join(30)
    assert answers == [str(number) for number in range(threads)]
