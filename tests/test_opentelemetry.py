"""The recipe of the middleware page, with OpenTelemetry's own SDK."""

from __future__ import annotations

import typing as t

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from flask_durable import Backoff
from flask_durable import Durable
from flask_durable import Event
from flask_durable import Step

from .support.harness import Harness
from .support.servers import ValkeyServer
from .test_docs import code


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def traced(
    valkey: ValkeyServer, namespace: str, exporter: InMemorySpanExporter
) -> t.Iterator[Harness]:
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    recipe: dict[str, t.Any] = {}
    exec(code("middleware", "class OpenTelemetry"), recipe)
    recipe["tracer"] = provider.get_tracer("test")
    durable = Durable(middleware=[recipe["OpenTelemetry"]()])
    harness = Harness(valkey.url, namespace, durable=durable)
    harness.app.config["TRACER"] = recipe["tracer"]
    yield harness
    harness.close()


def test_a_trace_goes_on_through_queue_suspensions_and_steps(
    traced: Harness, exporter: InMemorySpanExporter
) -> None:
    fails = [True]

    def flaky() -> None:
        if fails:
            fails.pop()
            raise OSError("not now")

    @traced.durable.function(on="a/b", backoff=Backoff("2s"))
    def work(event: Event[t.Any], step: Step) -> None:
        step.sleep("nap", "1m")
        step.run("flaky", flaky)

    tracer: trace.Tracer = traced.app.config["TRACER"]
    with tracer.start_as_current_span("request"):
        traced.send("a/b")
    traced.settle()
    traced.advance(61)
    traced.advance(10)

    spans = sorted(exporter.get_finished_spans(), key=lambda span: span.start_time or 0)
    outcome = "durable.outcome"
    assert [(_name_of_parent(s, spans), s.name, _of(s, outcome)) for s in spans] == [
        (None, "request", None),
        ("request", "send events", None),
        ("send events", "process work", "suspended"),
        ("send events", "process work", "suspended"),
        ("process work", "flaky", "retried"),
        ("send events", "process work", "completed"),
        ("process work", "flaky", "completed"),
    ]
    assert len({span.context.trace_id for span in spans if span.context}) == 1
    assert [span.name for span in spans if not span.status.is_ok and span.events] == [
        "flaky"
    ]


def _of(span: ReadableSpan, name: str) -> t.Any:
    return (span.attributes or {}).get(name)


def _name_of_parent(span: ReadableSpan, spans: list[ReadableSpan]) -> str | None:
    names = {other.context.span_id: other.name for other in spans if other.context}
    return names[span.parent.span_id] if span.parent else None
