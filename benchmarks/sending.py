"""What ``send()`` costs, with one thread and with many: time, and calls of the queue.

The threads of one process send events one by one, as those of a web server do. Of SQS
the calls are counted, and the yardstick is the same transport with one call a message;
the server is moto's, in one process, which takes most of the time. Of Redis the
yardstick is a bare ``XADD`` of the same message through redis-py.
"""

from __future__ import annotations

import threading
import time
import typing as t

from flask_durable.app.state import AppState
from flask_durable.messages import EVENT_QUEUE
from tests.support.servers import sqs_server
from tests.support.servers import valkey_server

from .model import Figure
from .model import Options
from .sqs import counted_calls
from .workers import application

THREADS = (1, 32)


def measure(options: Options) -> t.Iterator[Figure]:
    """Send with each number of threads to each kind of queue."""
    with valkey_server() as server:
        for threads in THREADS:
            # A server for each, since moto's calls cost the more the longer the
            # queue is.
            with (
                sqs_server() as sqs,
                application(server.url, "sending", DURABLE_QUEUE_URL=sqs.url) as state,
            ):
                _send(state, 1)  # the queue is made
                yield from _to_sqs(state, threads, 320 if options.quick else 960)
        with application(server.url, "sending") as state:
            _send(state, 1)
            for threads in THREADS:
                yield _to_redis(state, threads, 6_400 if options.quick else 32_000)


def _to_sqs(state: AppState, threads: int, count: int) -> t.Iterator[Figure]:
    text = state.message("bench/noop").encode()
    each = _rate(lambda: state.transport.send(EVENT_QUEUE, [text]), threads, count)
    with counted_calls(state) as calls:
        rate = _rate(lambda: _send(state, 1), threads, count)
    messages = calls.pop("messages")
    name = f"SQS, {threads} thread(s) that send"
    yield Figure(
        f"{name}: calls a message",
        1.0 if threads == 1 else 0.2,
        sum(calls.values()) / messages,
        "calls",
        detail=", ".join(f"{count} {call}" for call, count in calls.most_common()),
    )
    yield Figure(
        f"{name}: messages/s",
        None,
        rate / each,
        "x",
        at_least=True,
        detail=f"{rate:.0f}/s, with one call a message {each:.0f}/s",
    )


def _to_redis(state: AppState, threads: int, count: int) -> Figure:
    client = state.server.client
    text = state.message("bench/noop").encode()
    bare = _rate(lambda: client.xadd("bench:bare", {"body": text}), threads, count)
    client.delete("bench:bare")
    rate = _rate(lambda: _send(state, 1), threads, count)
    return Figure(
        f"Redis, {threads} thread(s) that send: messages/s",
        None,
        rate / bare,
        "x",
        at_least=True,
        detail=f"{rate:.0f}/s, bare XADD {bare:.0f}/s",
    )


def _send(state: AppState, count: int) -> None:
    messages = [state.message("bench/noop") for _ in range(count)]
    for outcome in state.event_sender.send(messages):
        if isinstance(outcome, Exception):
            raise outcome


def _rate(call: t.Callable[[], object], threads: int, count: int) -> float:
    """Return how many calls a second *threads* make together."""
    start = threading.Barrier(threads + 1)

    def run() -> None:
        call()  # connections are made
        start.wait()
        for _ in range(count // threads):
            call()

    workers = [threading.Thread(target=run) for _ in range(threads)]
    for worker in workers:
        worker.start()
    start.wait()
    began = time.perf_counter()
    for worker in workers:
        worker.join()
    return count / (time.perf_counter() - began)
