"""Secrets are taken out of what Sentry's SDK gathers by itself, in any thread."""

from __future__ import annotations

import functools
import http.client
import json
import logging
import sys
import typing as t
from importlib.util import find_spec

import pytest
import redis
import sentry_sdk
from pydantic import BaseModel
from redis.connection import Connection
from sentry_sdk.integrations.argv import ArgvIntegration
from sentry_sdk.integrations.logging import EventHandler
from sentry_sdk.integrations.logging import SentryLogsHandler

from flask_durable import Backoff
from flask_durable import Event
from flask_durable import Step
from flask_durable.errors import UnavailableError
from flask_durable.messages import EventMessage
from flask_durable.observe.sentry import scrubbing
from flask_durable.observe.sentry.scrubbing import Confidential
from flask_durable.observe.sentry.scrubbing import protect
from flask_durable.queue.delivery import Delivery
from flask_durable.security.keys import new_event_key
from flask_durable.security.redaction import Redaction

from ...support.harness import Harness
from ...support.servers import free_port
from .conftest import Kept

KEY = new_event_key()
PRIVATE = "PRIVATE-TEXT"


# The SDK says of each option that there is a newer one.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture
def site(valkey: t.Any, namespace: str) -> t.Iterator[Harness]:
    harness = Harness(
        valkey.url,
        namespace,
        DURABLE_EVENT_KEYS=KEY,
        DURABLE_INNGEST_EVENT_API=True,
    )
    yield harness
    harness.close()


def capture(**event: t.Any) -> None:
    sentry_sdk.capture_event(t.cast(t.Any, event))


@pytest.mark.parametrize("sentry", [True, False])
@pytest.mark.parametrize("pii", [True, False])
def test_an_error_of_a_queue_that_is_away_shows_nothing_of_the_event(
    namespace: str, make_client: t.Callable[..., Kept], sentry: bool, pii: bool
) -> None:
    url = f"redis://127.0.0.1:{free_port()}/0"
    away = Harness(url, namespace, DURABLE_ACCEPT_TIMEOUT="1s", DURABLE_SENTRY=sentry)
    kept = make_client(send_default_pii=pii)

    with away.app.app_context(), pytest.raises(UnavailableError) as caught:
        away.durable.send("patient/seen", {"diagnosis": PRIVATE})
    sentry_sdk.capture_exception(caught.value)

    frames = [
        frame
        for value in kept.items[0]["exception"]["values"]
        for frame in value["stacktrace"]["frames"]
    ]
    modules = {frame["module"].partition(".")[0] for frame in frames}
    assert {"flask_durable", "redis"} <= modules
    assert len(kept.items[0]["exception"]["values"]) > 1
    assert PRIVATE not in kept.text
    away.close()


def test_the_client_that_is_made_after_the_app_is_scrubbed_at_its_first_event(
    site: Harness, make_client: t.Callable[..., Kept]
) -> None:
    kept = make_client()
    capture(message=f"POST /shop/e/{KEY} HTTP/1.1")
    assert KEY not in kept.text
    assert "/e/[redacted] HTTP" in kept.text


def test_the_scrubber_of_the_application_goes_first_and_its_before_send_last(
    site: Harness, make_client: t.Callable[..., Kept]
) -> None:
    told = []

    class Mine(sentry_sdk.scrubber.EventScrubber):
        def scrub_event(self, event: t.Any) -> None:
            told.append(event["message"])

    def before_send(event: t.Any, hint: t.Any) -> t.Any:
        told.append(event["message"])
        return event

    make_client(event_scrubber=Mine(), before_send=before_send)
    capture(message=KEY)
    assert told == [KEY, "[redacted]"]


@pytest.mark.parametrize("kind", ["event", "transaction"])
def test_a_request_to_a_route_of_ours_is_told_without_body_and_key(
    site: Harness, make_client: t.Callable[..., Kept], kind: str
) -> None:
    kept = make_client(send_default_pii=True)
    paths = ("events", "worker", "worker/not-known", "answers/not-known")
    for path in (*(f"/durable/{x}" for x in paths), "/e/of-another-app", "/x/e/k"):
        capture(
            type=kind,
            transaction=path,
            request={
                "url": f"http://shop.example{path}?x=1",
                "data": {"name": "a/b", "data": PRIVATE},
                "headers": {"Authorization": "Bearer other", "Accept": "*/*"},
            },
        )
    for item in kept.items:
        assert item["request"].keys() == {"url", "headers"}
        assert item["request"]["headers"]["Accept"] == "*/*"
    hidden = (PRIVATE, "of-another-app", "e/k", "other", "not-known")
    assert not any(text in kept.text for text in hidden)


def test_a_request_to_a_route_of_the_application_is_told_as_it_is(
    site: Harness, make_client: t.Callable[..., Kept]
) -> None:
    kept = make_client(send_default_pii=True)
    request = {
        "url": "http://shop.example/events",
        "data": {"name": "theirs"},
        "headers": {"X-Session": "theirs"},
    }
    capture(message="of theirs", request=request, extra={"session_id": 1})
    assert kept.items[0]["request"] == request
    assert kept.items[0]["extra"] == {"session_id": 1}


def test_keys_are_replaced_wherever_they_are_gathered(
    site: Harness, make_client: t.Callable[..., Kept]
) -> None:
    kept = make_client()
    crumb = {"category": "gunicorn.access", "message": f"POST /e/{KEY}"}
    span = {"op": "http.client", "description": f"POST /e/{KEY}", "data": {"u": KEY}}
    frame = {"module": "shop", "vars": {"environ": {"PATH_INFO": f"/e/{KEY}"}}}
    values = [{"type": "E", "value": KEY, "stacktrace": {"frames": [frame]}}]
    capture(
        message="m",
        breadcrumbs={"values": [crumb]},
        exception={"values": values},
        extra={"url": [f"https://shop.example/e/{KEY}"]},
        tags={"path": KEY},
        logentry={"message": "%s", "params": [KEY], "formatted": KEY},
    )
    capture(type="transaction", spans=[span], contexts={"trace": {"data": {"u": KEY}}})
    assert len(kept.items) == 2
    assert KEY not in kept.text


def test_the_address_of_a_forward_is_replaced(
    site: Harness, make_client: t.Callable[..., Kept]
) -> None:
    address = "https://hooks.example/services/T024/very-secret?token=also-secret"
    site.durable.forward(on="order/placed", to=address)
    kept = make_client()
    data = {"url": "https://hooks.example/services/T024/very-secret"}
    crumb = {"category": "httplib", "data": data | {"http.query": "token=also-secret"}}
    capture(message="m", breadcrumbs={"values": [crumb]})
    assert "hooks.example[redacted]" in kept.text
    assert "very-secret" not in kept.text
    assert "also-secret" not in kept.text


def test_commands_on_our_keys_are_told_without_their_arguments(
    site: Harness, make_client: t.Callable[..., Kept]
) -> None:
    kept = make_client(send_default_pii=True)
    mine = f"EVALSHA 'sha' 1 '{site.state.store.keys.root}:run:x' '{PRIVATE}'"
    theirs = "SET 'cache' 'page'"
    spans = [
        {"op": "db.redis", "description": text, "data": {"redis.commands": [text]}}
        for text in (mine, theirs)
    ]
    crumbs = [{"type": "redis", "message": text} for text in (mine, theirs)]
    capture(type="transaction", spans=spans)
    capture(message="m", breadcrumbs={"values": crumbs})
    assert [span["description"] for span in kept.items[0]["spans"]] == [
        *("EVALSHA", theirs)
    ]
    assert PRIVATE not in kept.text
    assert kept.text.count(theirs) == 3


def test_a_step_keeps_its_variables_and_not_those_of_what_called_it(
    site: Harness, make_client: t.Callable[..., Kept]
) -> None:
    kept = make_client()

    def charge(event: Event[t.Any]) -> None:
        shown, api_token = "a local variable", PRIVATE  # noqa: F841
        http.client.HTTPConnection("127.0.0.1", free_port(), timeout=1).request(
            "POST", "/", json.dumps(event.data)
        )

    @site.durable.function(on="order/placed", retries=0)
    def placed(event: Event[t.Any], step: Step) -> None:
        step.run("charge", functools.partial(charge, event))

    site.send("order/placed", {"card": PRIVATE})
    site.settle()
    (issue,) = (item for item in kept.items if "exception" in item)
    frames = issue["exception"]["values"][-1]["stacktrace"]["frames"]
    shown = {frame["function"]: frame.get("vars") for frame in frames}
    assert shown["charge"]["shown"] == "'a local variable'"
    assert shown["charge"]["api_token"] == "[redacted]"
    assert PRIVATE not in kept.text


def test_the_input_that_an_error_of_pydantic_quotes_is_replaced(
    site: Harness, make_client: t.Callable[..., Kept]
) -> None:
    class Order(BaseModel):
        cents: int

    @site.durable.function(on="order/placed", retries=1, backoff=Backoff("1s"))
    def placed(event: Event[t.Any], step: Step) -> None:
        Order.model_validate(event.data)

    kept = make_client()
    site.send("order/placed", {"cents": PRIVATE})
    site.settle()
    site.advance(10)
    site.settle()
    assert "input_value=[redacted], input_type=str" in kept.text
    assert "Input should be a valid integer" in kept.text
    assert PRIVATE not in kept.text


def test_a_wrapper_between_us_and_a_client_is_told_without_variables(
    site: Harness, make_client: t.Callable[..., Kept], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Connection.send_packed_command

    # As tools that trace calls of Redis do: a frame of another module.
    def traced(self: t.Any, command: t.Any, *args: t.Any, **options: t.Any) -> None:
        if PRIVATE in str(command):
            raise redis.ConnectionError
        real(self, command, *args, **options)

    kept = make_client()
    monkeypatch.setattr(Connection, "send_packed_command", traced)
    with site.app.app_context(), pytest.raises(UnavailableError) as caught:
        site.durable.send("patient/seen", {"diagnosis": PRIVATE})
    sentry_sdk.capture_exception(caught.value)
    assert "traced" in kept.text
    assert PRIVATE not in kept.text


def test_a_record_about_a_message_is_told_without_its_body(
    make_client: t.Callable[..., Kept], site: Harness
) -> None:
    kept = make_client()
    message = EventMessage("a/b", {"diagnosis": PRIVATE}, "id", 0)
    handler = EventHandler()
    args: t.Any = (message, {"payload": PRIVATE})
    record = logging.LogRecord("dramatiq.x", 40, "", 0, "Failed %s", args[:1], None)
    handler.emit(record)
    handler.emit(
        logging.LogRecord("flask_durable.x", 40, "", 0, "Failed.", args[1:], None)
    )
    assert "EventMessage(name='a/b'" in kept.items[0]["logentry"]["formatted"]
    assert PRIVATE not in kept.text


def test_logs_and_streamed_spans_have_no_keys(
    site: Harness, make_client: t.Callable[..., Kept]
) -> None:
    told = []

    def before_send_log(log: t.Any, hint: t.Any) -> t.Any:
        told.append(log["body"])
        return log

    kept = make_client(enable_logs=True, before_send_log=before_send_log)
    capture(message="the first event")
    sentry_sdk.logger.info(f"POST /e/{KEY}", path=KEY)  # type: ignore[attr-defined]
    sentry_sdk.flush()
    assert told == ["POST /e/[redacted]"]
    assert KEY not in kept.text


def test_logs_of_ours_and_of_runs_quote_no_input(
    site: Harness, make_client: t.Callable[..., Kept]
) -> None:
    class Order(BaseModel):
        cents: int

    kept = make_client(enable_logs=True)
    handler = SentryLogsHandler()

    def log(name: str) -> None:
        try:
            Order.model_validate({"cents": PRIVATE})
        except ValueError as error:
            record = logging.LogRecord(name, 30, "", 0, "Bad: %s", (error,), None)
            record.api_token = PRIVATE
            handler.emit(record)

    @site.durable.function(on="order/placed", retries=0)
    def placed(event: Event[t.Any], step: Step) -> None:
        step.run("log", log, "shop")

    capture(message="the first event")
    for name in ("flask_durable.x", "dramatiq.x"):
        log(name)
    site.send("order/placed", {})
    site.settle()
    sentry_sdk.flush()
    assert kept.text.count("Bad: 1 validation error") == 3
    assert PRIVATE not in kept.text

    log("shop")  # outside of a run a log is the application's own
    sentry_sdk.flush()
    assert PRIVATE in kept.text


def test_what_follows_the_command_that_sends_events_is_not_told(
    site: Harness, make_client: t.Callable[..., Kept], monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = make_client(integrations=[ArgvIntegration()])
    argv = ["/venv/bin/flask", "durable", "send", "--id", "1", "a/b", PRIVATE]
    monkeypatch.setattr(sys, "argv", argv)
    capture(message="m")
    monkeypatch.setattr(sys, "argv", ["flask", "durable", "worker", "--queues", "a"])
    capture(message="m")
    first, second = (item["extra"]["sys.argv"] for item in kept.items)
    assert first == ["/venv/bin/flask", "durable", "send", "[redacted]"]
    assert second[-2:] == ["--queues", "a"]
    assert argv[-1] == PRIVATE


def test_a_streamed_span_shows_no_event_and_no_credentials(site: Harness) -> None:
    told: list[t.Any] = []
    callback = scrubbing._Callback(lambda span, hint: told.append(span) or span)
    argv = ["flask", "durable", "send", "a/b", PRIVATE]
    callback(
        {
            "name": f"POST /e/{KEY}",
            "attributes": {
                "process.command_args": argv,
                "http.request.header.authorization": PRIVATE,
                "http.request.header.accept": "*/*",
            },
        },
        {},
    )
    assert PRIVATE not in json.dumps(told)
    assert KEY not in json.dumps(told)
    assert told[0]["attributes"]["http.request.header.accept"] == "*/*"


def test_frames_that_are_not_the_applications_have_no_variables(
    site: Harness, make_client: t.Callable[..., Kept]
) -> None:
    kept = make_client()
    data = {"body": PRIVATE}
    frames = [
        {"module": "awslambdaric.bootstrap", "vars": data},
        {"module": "some_library", "in_app": False, "vars": data},
        {"module": "click.core", "abs_path": "/x/site-packages/a.py", "vars": data},
        {"module": "shop", "in_app": True, "vars": {"shown": "shown"}},
        {"module": "flask_durable.cli.send", "vars": data},
    ]
    lines = {"context_line": f"KEYS = ['{KEY}']", "pre_context": [KEY]}
    frames[3] |= lines
    capture(exception={"values": [{"type": "E", "stacktrace": {"frames": frames}}]})
    assert PRIVATE not in kept.text
    assert KEY not in kept.text
    assert "KEYS = ['[redacted]']" in kept.text
    assert '"shown": "shown"' in kept.text


def test_a_push_route_of_an_app_without_a_prefix_is_told_without_body(
    namespace: str, make_client: t.Callable[..., Kept]
) -> None:
    away = Harness("redis://127.0.0.1:1/0", namespace, DURABLE_URL_PREFIX="/")
    kept = make_client(send_default_pii=True)
    known = ("/worker", "/worker/not-known", "/mounted/worker/not-known")
    for path in (*known, "/answers/not-known", "/mounted/answers/not-known"):
        url = f"http://shop.example{path}"
        capture(message="m", request={"url": url, "data": {"data": PRIVATE}})
    assert PRIVATE not in kept.text
    assert "not-known" not in kept.text
    away.close()


def test_an_event_that_cannot_be_scrubbed_is_told_without_what_was_gathered(
    make_client: t.Callable[..., Kept],
) -> None:
    def secrets() -> t.Iterable[str]:
        raise LookupError

    kept = make_client()
    mine = protect(Confidential(Redaction(()), secrets, "/durable", "durable"))
    frames = [{"module": "flask_durable.x", "vars": {"data": PRIVATE}}]
    values = [{"type": "E", "value": "text", "stacktrace": {"frames": frames}}]
    capture(
        message="still told",
        exception={"values": values},
        extra={"x": PRIVATE},
        contexts={"dramatiq": {"data": PRIVATE}, "trace": {"data": {"x": PRIVATE}}},
        logentry={"message": "%s", "params": [PRIVATE], "formatted": PRIVATE},
    )
    assert kept.items[0]["message"] == "still told"
    assert PRIVATE not in kept.text
    del mine


def test_what_holds_user_data_does_not_show_it_as_text(site: Harness) -> None:
    site.send("a/b", {"diagnosis": PRIVATE})
    (delivery,) = site.state.broker.deliveries("events", 1, 0)
    assert isinstance(delivery, Delivery)
    for shown in (delivery, delivery.message, delivery.received):
        assert PRIVATE not in repr(shown)


def test_each_module_of_ours_that_only_passes_data_on_exists() -> None:
    names = [f"flask_durable.{name}" for name in scrubbing._PASSING]
    assert [name for name in names if find_spec(name) is None] == []
