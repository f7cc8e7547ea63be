"""Traces and errors in Sentry, wherever the application has initialised Sentry.

===============  ======================================  =============================
moment           in the trace of the event               as an issue
===============  ======================================  =============================
send             a span ``queue.publish``                –
event routed     a transaction ``queue.process``         –
attempt          a transaction ``queue.process``         if the run failed by it
branch's one     a transaction ``queue.process``         –; its run has one, if the
                                                         run fails by it
step's attempt   a span ``function``                     –; the next one has a
                                                         breadcrumb of its failure
step's wait      a span ``function`` of its begin        –
===============  ======================================  =============================

A run of a schedule checks in at a monitor when it begins and when it ends.

Spans and breadcrumbs of the application's code belong to the part that they are made
in. Only this module and :mod:`~flask_durable.observe.sentry.scrubbing`, which keeps
events' data back, call Sentry. This module does not import it before the application
has: it is looked up at each moment, so ``sentry_sdk.init()`` may come late, or never.
"""

from __future__ import annotations

import contextlib
import hashlib
import sys
import time
import typing as t
from contextvars import ContextVar
from datetime import datetime
from datetime import timezone

from ...errors import BranchError
from ...errors import Failure
from ...errors import StepError
from ...middleware import Around
from ...middleware import AttemptInfo
from ...middleware import EventInfo
from ...middleware import Middleware
from ...middleware import NOTHING
from ...middleware import RoutedInfo
from ...middleware import RouteInfo
from ...middleware import SendInfo
from ...middleware import StepInfo
from . import scrubbing
from .monitors import CheckIn

if t.TYPE_CHECKING:
    from sentry_sdk._types import Event
    from sentry_sdk._types import Hint
    from sentry_sdk._types import MonitorConfig
    from sentry_sdk.client import BaseClient
    from sentry_sdk.tracing import Span

#: Headers of an event. The last one is ours: the time of sending, ms since 1970.
TRACE, BAGGAGE, SENT_AT = "sentry-trace", "baggage", "sentry-sent-at"

#: The name of the queue that events wait in, for Sentry.
EVENTS = "events"

#: The origin of a span, in Sentry's terms.
ORIGIN = "auto.queue.flask_durable"

#: Actions of our records of failures that have an issue of their own, or need none.
_REPORTED = ("run_failed", "branch_failed", "step_failed")

_PACKAGE = __package__.partition(".")[0]

#: Seconds that a process which ends waits for Sentry's server.
SENTRY_FLUSH_TIMEOUT = 2.0


class _LastFailed:
    """The error and the name of the step that failed last in an attempt."""

    step: str = ""
    error: BaseException | None = None


#: The one of this thread's attempt. The body has a context of its own: variables that
#: it sets are not seen outside, but it sees the object that was set there.
_last_failed: ContextVar[_LastFailed | None] = ContextVar(
    "flask_durable.last_failed_step", default=None
)


class SentryReporting(Middleware):
    """Continues traces, and reports runs that failed."""

    def around_send(self, send: SendInfo) -> Around:
        return _sending(send) if _client() else NOTHING

    def around_route(self, route: RouteInfo) -> Around:
        client = _client()
        return _routing(route) if client and _traces(client) else NOTHING

    def around_attempt(self, attempt: AttemptInfo) -> Around:
        client = _client()
        return self._attempting(client, attempt) if client else NOTHING

    def around_step(self, step: StepInfo) -> Around:
        return _stepping(step) if _client() else NOTHING

    @contextlib.contextmanager
    def _attempting(self, client: BaseClient, attempt: AttemptInfo) -> t.Iterator[None]:
        import sentry_sdk

        _quiet_dramatiq()
        last_failed = _LastFailed()
        _last_failed.set(last_failed)
        with sentry_sdk.isolation_scope() as scope:
            scope.clear_breadcrumbs()
            scope.set_tag("durable.function", attempt.function)
            scope.set_tag("durable.queue", attempt.queue)
            scope.set_context("durable", _context_of(attempt))
            scope.add_event_processor(_drop_reported)
            if attempt.number > 1:
                _add_breadcrumb("the body", attempt.number, attempt.previous)
            check_in = CheckIn.of(attempt)
            if check_in and attempt.number == 1 and not attempt.memoized:
                _check_in(check_in, "in_progress")
            with _transaction(attempt.event, _name_of(attempt)) as span:
                _describe_attempt(span, attempt)
                yield
                span.set_data("durable.outcome", attempt.outcome)
                span.set_data("durable.reason", attempt.reason)
                span.set_status(_status_of(attempt))
                # A branch's failure may be tolerated, or caught by its run.
                failed = attempt.outcome == "failed" and attempt.branch is None
                if failed and attempt.error is not None:
                    _report(client, attempt, attempt.error)
            if check_in and (ended := _ended(attempt)):
                _check_in(check_in, ended)
        last_failed.error = None  # its frames hold the body's variables


def flush() -> None:
    """Wait a moment until all is sent, before a process ends hard."""
    client = _client()
    if client is not None:
        client.flush(timeout=SENTRY_FLUSH_TIMEOUT)


def _drop_reported(event: Event, hint: Hint) -> Event | None:
    """Drop the issue that a record of ours makes of a failure in this attempt."""
    record = hint.get("log_record")
    ours = record is not None and record.name.partition(".")[0] == _PACKAGE
    if ours and getattr(record, "action", None) in _REPORTED:
        return None
    return event


def _client() -> BaseClient | None:
    """Return Sentry's client, if the application made one that sends data."""
    if "sentry_sdk" not in sys.modules:
        return None
    import sentry_sdk

    scrubbing.install()

    client = sentry_sdk.get_client()
    sends = client.is_active() and (client.transport or client.spotlight)
    return client if sends else None


def _traces(client: BaseClient) -> bool:
    from sentry_sdk.tracing_utils import has_tracing_enabled

    return has_tracing_enabled(client.options)


@contextlib.contextmanager
def _sending(send: SendInfo) -> t.Iterator[None]:
    """Have *send* continue the trace that is active here."""
    import sentry_sdk

    send.headers[SENT_AT] = str(_now())
    if sentry_sdk.get_current_span() is None:
        # The trace of a request goes on without the integration of Flask, too.
        if not any(TRACE in event.headers for event in send.events):
            _inject(send.headers)
        yield
        return
    name = send.events[0].name if len(send.events) == 1 else "events"
    with sentry_sdk.start_span(op="queue.publish", name=name, origin=ORIGIN) as span:
        _inject(send.headers)
        yield
        span.set_data("messaging.destination.name", EVENTS)
        span.set_data("messaging.batch.message_count", len(send.events))
        if len(send.events) == 1:
            span.set_data("messaging.message.id", send.events[0].id)
        span.set_data("messaging.message.body.size", send.size)
        failed = any(isinstance(outcome, Exception) for outcome in send.outcomes)
        span.set_status("internal_error" if failed else "ok")


def _inject(headers: dict[str, str]) -> None:
    import sentry_sdk

    found = {TRACE: sentry_sdk.get_traceparent(), BAGGAGE: sentry_sdk.get_baggage()}
    headers.update({name: value for name, value in found.items() if value})


@contextlib.contextmanager
def _routing(route: RouteInfo) -> t.Iterator[None]:
    """Report each event afterwards in its own trace: they were routed together."""
    import sentry_sdk

    began = datetime.now(timezone.utc)
    yield
    for routed in route.events:
        name = f"route {routed.event.name}"
        with sentry_sdk.isolation_scope(), _transaction(routed.event, name) as span:
            span.start_timestamp = began
            _describe_routing(span, routed, began)


@contextlib.contextmanager
def _stepping(step: StepInfo) -> t.Iterator[None]:
    import sentry_sdk

    with sentry_sdk.new_scope() as scope:
        scope.set_tag("durable.step", step.pattern)
        if step.number > 1:
            _add_breadcrumb(f"step {step.name!r}", step.number, step.previous)
        with sentry_sdk.start_span(
            op="function", name=step.pattern, origin=ORIGIN
        ) as span:
            span.set_data("durable.step.kind", step.kind)
            span.set_data("durable.step.attempt", step.number)
            if step.branches:
                span.set_data("durable.step.branches", step.branches)
            if step.number > 1 and span.containing_transaction is not None:
                _set_retries(span.containing_transaction, step.number)
            yield
            span.set_data("durable.outcome", step.outcome)
            span.set_status(_STATUS_OF_STEP[step.outcome])
    last_failed = _last_failed.get()
    if step.outcome == "failed" and last_failed is not None:
        last_failed.step, last_failed.error = step.name, step.error


_STATUS_OF_STEP = {
    "completed": "ok",
    "failed": "internal_error",
    "retried": "internal_error",
    "waiting": "ok",
    "interrupted": "aborted",
}


def _status_of(attempt: AttemptInfo) -> str:
    if attempt.outcome == "failed":
        return "internal_error"
    if attempt.reason == "cancelled":
        return "cancelled"
    retried = attempt.reason == "retry"
    return "aborted" if retried or attempt.outcome == "lost" else "ok"


def _check_in(check_in: CheckIn, status: str) -> None:
    import sentry_sdk.crons

    sentry_sdk.crons.capture_checkin(
        check_in.slug,
        check_in.id,
        status,
        monitor_config=t.cast("MonitorConfig", check_in.config),
    )


def _ended(attempt: AttemptInfo) -> str | None:
    """Return the check-in status of a finished run, or ``None`` while it goes on."""
    if attempt.outcome == "completed":
        return "ok"
    cancelled = attempt.outcome == "lost" and attempt.reason == "cancelled"
    return "error" if attempt.outcome == "failed" or cancelled else None


@contextlib.contextmanager
def _transaction(event: EventInfo, name: str) -> t.Iterator[Span]:
    """Start a new transaction that belongs to the trace of *event*."""
    import sentry_sdk

    transaction = sentry_sdk.continue_trace(
        _trace_of(event), op="queue.process", name=name, source="task", origin=ORIGIN
    )
    with sentry_sdk.start_transaction(transaction) as span:
        span.set_data("messaging.message.id", event.id)
        yield span


def _trace_of(event: EventInfo) -> dict[str, str]:
    """Return the headers of the trace of *event*.

    An event that came without any, such as a schedule's, has a trace by its id. So
    its runs and all their attempts are in one trace, wherever they are executed.
    """
    if TRACE in event.headers:
        return dict(event.headers)
    derived = hashlib.sha256(event.id.encode()).hexdigest()
    return {TRACE: f"{derived[:32]}-{derived[32:48]}"}


def _name_of(attempt: AttemptInfo) -> str:
    if attempt.branch is None:
        return attempt.function
    return f"{attempt.function}/{attempt.branch_pattern}"


def _describe_attempt(span: Span, attempt: AttemptInfo) -> None:
    span.set_data("messaging.destination.name", attempt.queue)
    span.set_data("messaging.message.body.size", attempt.size)
    _set_retries(span, attempt.number)
    latency = max(attempt.claimed - attempt.queued, 0)
    span.set_data("messaging.message.receive.latency", latency)
    span.set_data("durable.memoized", attempt.memoized)
    if attempt.branch is not None:
        span.set_data("durable.branch", attempt.branch)


def _set_retries(span: Span, number: int) -> None:
    span.set_data("messaging.message.retry.count", number - 1)


def _describe_routing(span: Span, routed: RoutedInfo, began: datetime) -> None:
    span.set_data("messaging.destination.name", EVENTS)
    span.set_data("messaging.message.body.size", routed.size)
    _set_retries(span, routed.receive_count)
    # An event of ours has the header of the event that led to it, and is younger.
    stated = routed.event.headers.get(SENT_AT, "")
    sent = max(int(stated) if stated.isdecimal() else 0, routed.event.at)
    latency = max(int(began.timestamp() * 1000) - sent, 0)
    span.set_data("messaging.message.receive.latency", latency)
    span.set_data("durable.runs", sorted(routed.created.values()))
    span.set_status("ok" if routed.error is None else "internal_error")


def _context_of(attempt: AttemptInfo) -> dict[str, t.Any]:
    found = {
        "run_id": attempt.run_id,
        "function": attempt.function,
        "queue": attempt.queue,
        "attempt": attempt.number,
        "event_id": attempt.event.id,
        "event_name": attempt.event.name,
        "memoized_steps": attempt.memoized,
    }
    return found if attempt.branch is None else {**found, "branch": attempt.branch}


def _add_breadcrumb(what: str, number: int, previous: Failure | None) -> None:
    """Add a breadcrumb of the attempt before, which another process may have made."""
    import sentry_sdk

    why = f": {previous.type}: {previous.message}" if previous else ""
    sentry_sdk.add_breadcrumb(
        category="durable.retry",
        level="warning",
        message=f"Attempt {number - 1} of {what} failed{why}",
    )


def _report(client: BaseClient, attempt: AttemptInfo, error: BaseException) -> None:
    """Make one issue of the error that failed the run."""
    import sentry_sdk
    from sentry_sdk.integrations.dedupe import DedupeIntegration

    event, hint = sentry_sdk.utils.event_from_exception(
        _original_of(attempt, error),
        client_options=client.options,
        mechanism={"type": "flask_durable", "handled": False},
    )
    if isinstance(error, StepError):
        # Its own name would be that of every step's failure.
        kind = error.failure.type.rpartition(".")
        shown = {"module": kind[0] or None, "type": kind[2]}
        event["exception"]["values"][-1].update(shown, value=error.failure.message)
    if isinstance(error, BranchError):
        # The branch failed in another process: its frames are known as text.
        about = {"name": error.branch, "run_id": error.run_id}
        traceback = error.failure.traceback
        event["contexts"] = {"branch": {**about, "traceback": traceback}}
    event["tags"] = {"durable.step": attempt.failed_step} if attempt.failed_step else {}
    event["fingerprint"] = ["flask-durable", attempt.function, attempt.failed_step]
    # The record in the log was the first that Sentry saw of this error.
    DedupeIntegration.reset_last_seen()
    sentry_sdk.capture_event(event, hint)


def _original_of(attempt: AttemptInfo, error: BaseException) -> BaseException:
    """Return the step's own error, if it failed in this attempt."""
    found = _last_failed.get()
    if isinstance(error, StepError) and found and found.step == attempt.failed_step:
        return found.error or error
    return error


def _quiet_dramatiq() -> None:
    """Drop the transaction that Sentry's integration of Dramatiq began around this.

    It would report every attempt once more, named after our one actor.
    """
    import sentry_sdk

    transaction = sentry_sdk.get_current_scope().transaction
    if transaction is not None and transaction.op == "queue.task.dramatiq":
        transaction.sampled = False


def _now() -> int:
    return int(time.time() * 1000)
