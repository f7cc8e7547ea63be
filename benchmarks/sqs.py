"""API calls of SQS for each message of a busy queue: send, receive, delete, others.

The server is moto's, whose calls cost the more the longer a queue is: so there are
fewer than 500 messages. Every call that botocore makes counts, from the first send
until the last message is deleted, and each event or run message that was sent is one
message.
"""

from __future__ import annotations

import contextlib
import typing as t
from collections import Counter

from flask_durable import Event
from flask_durable.app.state import AppState
from flask_durable.queue.sqs.transport import SQSTransport
from tests.support.servers import sqs_server
from tests.support.servers import valkey_server

from .app import durable
from .model import Figure
from .model import Options
from .workers import application
from .workers import finished
from .workers import wait_finished
from .workers import worker_here

#: Events that are sent.
EVENTS = 400


def measure(options: Options) -> t.Iterator[Figure]:
    """Count the calls of sender and worker in this process."""
    with (
        valkey_server() as server,
        sqs_server() as sqs,
        application(server.url, "sqs", DURABLE_QUEUE_URL=sqs.url) as state,
        worker_here(state),
    ):
        _run(state, 1)  # the queues are made
        with counted_calls(state) as calls:
            _run(state, EVENTS)
    messages = calls.pop("messages")
    detail = ", ".join(f"{count} {name}" for name, count in calls.most_common())
    yield Figure(
        f"SQS calls per message, {EVENTS} events",
        0.35,
        sum(calls.values()) / messages,
        "calls",
        detail=f"{messages} messages: {detail}",
    )


@contextlib.contextmanager
def counted_calls(state: AppState) -> t.Iterator[Counter[str]]:
    """Count the calls to SQS by name, and under ``messages`` what was sent."""
    calls: Counter[str] = Counter()

    def count(model: t.Any, params: dict[str, t.Any], **others: t.Any) -> None:
        calls[model.name] += 1

    def count_entries(params: dict[str, t.Any], **others: t.Any) -> None:
        calls["messages"] += len(params["Entries"])

    transport = t.cast(SQSTransport, state.transport)
    clients = [holder.get() for holder in (transport._client, transport._sender)]
    handlers = (
        ("before-call.sqs", count),
        ("provide-client-params.sqs.SendMessageBatch", count_entries),
    )
    for client in clients:
        for name, handler in handlers:
            client.meta.events.register(name, handler)
    try:
        yield calls
    finally:
        for client in clients:
            for name, handler in handlers:
                client.meta.events.unregister(name, handler)


def _run(state: AppState, events: int) -> None:
    before = finished(state)
    durable.send_many(Event("bench/noop") for _ in range(events))
    wait_finished(state, before + events, 120)
    state.broker.flush_settled(30)
