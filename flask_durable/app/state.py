"""The services of one app in one process, created on first use.

An extension object serves several apps; each app has an object of this class.
"""

from __future__ import annotations

import functools
import os
import typing as t
import weakref
from contextlib import AbstractContextManager

from ..common.safe_points import call
from ..config.settings import Settings
from ..dead_letters.dead_letters import DeadLetters
from ..engine.admin import RunAdmin
from ..engine.answers import Answers
from ..engine.event_sender import EventSender
from ..engine.outbox import Outbox
from ..engine.services import EngineServices
from ..engine.starter import RunStarter
from ..events.acceptance import to_message
from ..messages import EVENT_QUEUE
from ..messages import EventMessage
from ..middleware import AttemptInfo
from ..middleware import Middleware
from ..middleware import MiddlewareChain
from ..observe.metrics.middleware import Metrics
from ..observe.metrics.sink import Sink
from ..observe.metrics.statsd import import_statsd
from ..observe.metrics.statsd import Statsd
from ..observe.metrics.times import Listener
from ..observe.metrics.times import Measure
from ..observe.metrics.times import RunTimes
from ..observe.metrics.totals import Totals
from ..observe.run_logs import RunLogs
from ..observe.sentry.reporting import SentryReporting
from ..observe.sentry.scrubbing import Confidential
from ..observe.sentry.scrubbing import protect
from ..payloads.cipher import Cipher
from ..payloads.sealing import make_blob_store
from ..payloads.sealing import Payloads
from ..queue.sending import Sender
from ..queue.window import Window
from ..runs.runs import Runs
from ..security.redaction import Redaction
from ..signals import SignalSender
from ..store.inbox import Inbox
from ..store.spool import Spool
from .addresses import Addresses
from .body_session import releaser
from .database import Database
from .health import HealthChecks
from .health import Readiness
from .stores import Stores

if t.TYPE_CHECKING:
    from flask import Flask

    from ..events.model import EventLike
    from ..events.schemas import Schemas
    from ..functions.registry import FunctionRegistry
    from ..queue.broker import DurableBroker
    from ..queue.transport import Transport

#: Set for its children by ``flask durable dev``. It does not begin with ``FLASK_``, as
#: the environment's settings do: an app that reads those must not see it.
DEVELOPMENT_MARK = "DURABLE_DEVELOPMENT_STACK"


def in_development() -> bool:
    """Return whether this process was started by ``flask durable dev``."""
    return os.environ.get(DEVELOPMENT_MARK) == "1"


class AppState(Stores):
    """The services of one app in this process."""

    def __init__(
        self,
        app: Flask,
        functions: FunctionRegistry,
        settings: Settings,
        middleware: t.Sequence[Middleware] = (),
    ) -> None:
        super().__init__(app, settings, functions)
        #: The sender of metrics to statsd, if one is configured.
        self.statsd = _statsd_of(settings)
        #: The configured collectors for statsd and Prometheus. As parts of the
        #: middleware they reset themselves after a fork.
        self.metrics = tuple(
            Metrics(sink, functions.declares) for sink in self._sinks()
        )
        #: The middleware around sends, routings, attempts and steps.
        self.middleware = MiddlewareChain([*self._outer(), *middleware, *self._inner()])
        #: The run threads of this process; a worker makes it larger.
        self.window = Window(0)
        #: True if the state server answered last; nothing is received otherwise.
        self.reachable = True
        #: The data hidden from Sentry, even if our own reports are off.
        self._confidential = protect(_confidential_of(settings, functions))
        _states.add(self)

    def _outer(self) -> t.Iterator[Middleware]:
        if self.settings.sentry:
            yield SentryReporting()
        yield from self.metrics

    def _inner(self) -> t.Iterator[Middleware]:
        timed: list[Listener] = [metrics.timed for metrics in self.metrics]
        yield RunTimes(self._keep_time, *timed)
        yield SignalSender(self.app)

    def _sinks(self) -> t.Iterator[Sink]:
        if self.statsd is not None:
            yield self.statsd
        if self.settings.metrics_secrets:
            # The store does not exist yet when middleware is made.
            yield Totals(lambda sums: self.metric_totals.add(sums))

    @property
    def schemas(self) -> Schemas:
        """The event schemas by name."""
        return self.functions.schemas

    def _keep_time(
        self,
        measure: Measure,
        attempt: AttemptInfo,
        seconds: float,
        outcome: str,
        kind: str,
    ) -> None:
        # The store does not exist yet when middleware is made.
        if measure in ("wait", "run", "step"):
            self.histograms.add(measure, attempt.function, seconds)

    @functools.cached_property
    def message_sender(self) -> Sender:
        """The queues, for every process: a web process sends without Dramatiq."""
        # boto3, where it is needed, is imported by the first one to send or to work.
        from .queues import make_transport

        home = None if self._queues_live_here else self.installation
        transport = make_transport(self.settings, self.server.make_client, home)
        return Sender(transport, self.settings.accept_timeout, home)

    @property
    def transport(self) -> Transport:
        """The queues themselves."""
        return self.message_sender.transport

    @functools.cached_property
    def broker(self) -> DurableBroker:
        """The queues, for a process that receives."""
        from ..queue.broker import DurableBroker
        from .queues import StateBehindQueues

        return DurableBroker(
            self.message_sender, window=self.window, state=StateBehindQueues(self)
        )

    @functools.cached_property
    def payloads(self) -> Payloads:
        """The gate that seals and opens user data.

        :raises ConfigurationError: A setting needs a library that is missing.
        """
        settings = self.settings
        keys, url = settings.encryption_keys, settings.blob_url
        return Payloads(
            settings.inline_limit,
            cipher=Cipher(keys) if keys else None,
            blobs=make_blob_store(url) if url else None,
        )

    @functools.cached_property
    def outbox(self) -> Outbox:
        """The sender of messages that state changes owe."""
        return Outbox(self.store, self.message_sender)

    @functools.cached_property
    def event_sender(self) -> EventSender:
        """The sender of events of the application and of clients.

        :raises ConfigurationError: There is nothing to send by.
        """
        spools = self.settings.spool
        return EventSender(
            self.message_sender,
            self.payloads,
            self._senders_barrier,
            self.memory,
            Spool(self.impatient_server, self.store.keys) if spools else None,
            self.middleware,
            group=self._event_group,
            write_through=self.settings.fsync == "step",
        )

    @functools.cached_property
    def starter(self) -> RunStarter:
        """The starter of runs of one function."""
        return RunStarter(
            self.services,
            self.outbox,
            self.impatient_server,
            self._senders_barrier,
            self.memory,
            self.settings.accept_timeout,
        )

    @functools.cached_property
    def addresses(self) -> Addresses:
        """The addresses that runs make."""
        return Addresses(self.app, self.settings)

    @functools.cached_property
    def answers(self) -> Answers:
        """The answers to addresses that runs made."""
        return Answers(
            self.services,
            self.outbox,
            Inbox(self.impatient_server, self.store.keys),
            self._senders_barrier,
            self.memory,
            self.settings.accept_timeout,
        )

    @functools.cached_property
    def admin(self) -> RunAdmin:
        """The changes that can be made to runs from outside."""
        return RunAdmin(
            self.store,
            self.outbox,
            self.directory,
            self.payloads,
            self.memory,
            self._senders_barrier if self.settings.fsync == "step" else None,
        )

    @functools.cached_property
    def runs(self) -> Runs:
        """The runs as the application sees them."""
        return Runs(
            self.store,
            self.admin,
            self.directory,
            self.payloads,
            self.failures,
            self.run_log_store,
        )

    @functools.cached_property
    def dead_letters(self) -> DeadLetters:
        """The dead letters as the application sees them."""
        queues = self.transport.dead_letters
        return DeadLetters(queues, self.failures, self.queues)

    @functools.cached_property
    def database(self) -> Database:
        """The app's own database."""
        return Database(self)

    @functools.cached_property
    def services(self) -> EngineServices:
        """The services that the engine needs."""
        return EngineServices(
            functions=self.functions,
            store=self.store,
            waiters=self.waiters,
            directory=self.directory,
            barrier=self.barrier,
            queue=self.message_sender,
            payloads=self.payloads,
            scope=self._scope,
            release=releaser(self.app.extensions.get("sqlalchemy")),
            message_of=self._message_of,
            check_event=self._check_event,
            service_times=self.service_times,
            middleware=self.middleware,
            run_logs=RunLogs(self.run_log_store, self.payloads),
            addresses=self.addresses,
            database_steps=lambda: self.database.steps,
            max_value=self.settings.value_limit,
            write_through=self.settings.fsync == "step",
            replay_eagerly=in_development(),
        )

    def message(
        self,
        event: EventLike | str,
        data: t.Mapping[str, t.Any] | None = None,
        **given: t.Any,
    ) -> EventMessage:
        """Return an event of the user as a checked message.

        :raises EventError: The event is not valid.
        """
        return to_message(
            event,
            data,
            schemas=self.schemas,
            limit=self.settings.event_limit,
            **given,
        )

    @functools.cached_property
    def readiness(self) -> Readiness:
        """The obstacles to accepting events in this process."""
        return Readiness(HealthChecks(self).problems)

    def queues(self) -> list[str]:
        """Return the queues of the app, also those of functions of other processes."""
        others = self.directory.current().queues
        return [EVENT_QUEUE, *sorted(others.union(self.functions.queues()))]

    def _scope(self) -> AbstractContextManager[t.Any]:
        return self.app.app_context()

    def _message_of(self, event: EventLike, derived_id: str) -> EventMessage:
        generated = getattr(event, "_generated_id", True)
        message = self.message(event, id=derived_id if generated else None)
        return message.in_group(self._event_group)

    @property
    def _event_group(self) -> str | None:
        """The path of the value that events are grouped by, on a FIFO queue."""
        options = self.settings.queues.get(EVENT_QUEUE)
        return None if options is None else options.group

    def _check_event(self, message: EventMessage) -> None:
        # Sealed data was checked when it was sent, and is again where it is opened.
        if isinstance(message.data, dict):
            call(self.schemas.validate, (message.name, message.data), {})


def _statsd_of(settings: Settings) -> Statsd | None:
    """Return the sender of metrics to statsd, if it is wanted.

    :raises ConfigurationError: statsd is not installed.
    """
    if settings.statsd_url is None:
        return None
    import_statsd()
    return Statsd(settings.statsd_url, settings.statsd_prefix, settings.statsd_tags)


def _confidential_of(settings: Settings, functions: FunctionRegistry) -> Confidential:
    given = (
        *(settings.event_keys, settings.signing_secrets, settings.push_secrets),
        *(settings.encryption_keys, settings.metrics_secrets),
    )

    def secrets() -> t.Iterator[str]:
        for texts in given:
            yield from texts
        for function in functions:
            yield from function.confidential

    prefix, namespace = settings.url_prefix or "", settings.namespace
    return Confidential(Redaction(settings.redact_keys), secrets, prefix, namespace)


_states: weakref.WeakSet[AppState] = weakref.WeakSet()


def _after_fork() -> None:
    for state in list(_states):
        state.forget_collaborators()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
