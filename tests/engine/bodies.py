"""Bodies of functions, and runs of them."""

from __future__ import annotations

import typing as t

from flask_durable import Event
from flask_durable import Run
from flask_durable import Step

from ..support.harness import Harness

AnyEvent = Event[t.Any]


def run_body(harness: Harness, body: t.Callable[..., t.Any], **options: t.Any) -> Run:
    """Declare *body*, send it an event, settle, and return the run."""
    harness.durable.function(on="test/run", id="work", **options)(body)
    return harness.send_and_settle("test/run", {"n": 1})


def body_runs(
    harness: Harness,
    body: t.Callable[[AnyEvent, Step], t.Any],
    retries: int = 0,
    **options: t.Any,
) -> Run:
    """Have *body* executed as often as it is to be; return its run."""
    harness.durable.function(on="a/b", id="work", retries=retries, **options)(body)
    run = harness.send_and_settle("a/b")
    for _ in range(retries * 2 + 2):
        harness.advance(3600)
    return t.cast(Run, harness.runs.get(run.id))


def raising(error: BaseException) -> t.Callable[[], None]:
    def body() -> None:
        raise error

    return body
