"""The extension object: durable functions for a Flask app."""

from __future__ import annotations

import difflib
import sys
import typing as t
import weakref
from datetime import datetime

from flask import current_app
from flask import Flask
from flask import has_app_context

from .app.health import HealthCheck
from .app.health import HealthChecks
from .app.state import AppState
from .app.state import in_development
from .common.interruption import shielded
from .common.safe_logging import get_logger
from .config.settings import Settings
from .errors import EventError
from .errors import StepUsageError
from .errors import UnavailableError
from .events.signal import checked_signal
from .forwarding.forward import define_forward
from .forwarding.forward import FORWARD_RETRIES
from .functions.decorators import Decorators
from .functions.options import FunctionOptions
from .functions.registry import FunctionRegistry
from .functions.retries import Backoff
from .functions.step_function import active_step
from .messages import failures
from .web.blueprint import register_routes

if t.TYPE_CHECKING:
    from .app.database import SQLSession
    from .common.durations import Duration
    from .dead_letters.dead_letters import DeadLetters
    from .events.model import Event
    from .events.model import EventLike
    from .functions.groups import DurableGroup
    from .messages import EventMessage
    from .middleware import Middleware
    from .runs.runs import Runs
    from .worker.push.lambda_handler import LambdaContext

#: The key of the state of an app in ``app.extensions``.
_STATE = "durable.state"

#: Most names of events whose lack of a function is logged, in debug mode.
MOST_WARNINGS = 1000

_BACKOFF = Backoff()

logger = get_logger(__name__)


class Durable(Decorators):
    """Durable background functions for Flask apps.

    ::

        durable = Durable()

        @durable.function(on="user/signed-up")
        def welcome(event: Event[Any], step: Step) -> None:
            step.run("send-mail", send_mail, event.data["address"])

        def create_app() -> Flask:
            app = Flask(__name__)
            durable.init_app(app)
            return app

    :param app: An app to initialise at once, see :meth:`init_app`.
    :param middleware: The hooks around sends, routings, attempts and steps, outermost
        first.
    """

    def __init__(
        self,
        app: Flask | None = None,
        *,
        middleware: t.Sequence[Middleware] = (),
    ) -> None:
        #: All declarations of the app.
        self.functions = FunctionRegistry(self)

        self._middleware = tuple(middleware)
        self._warned: set[str] = set()
        # Weakly: an extension outlives the apps of a factory.
        self._apps: weakref.WeakSet[Flask] = weakref.WeakSet()
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Prepare *app*: read its settings, and register the routes.

        Connects to nothing. The settings are the ``DURABLE_*`` keys that
        :class:`~flask_durable.config.settings.Settings` lists.

        :raises ConfigurationError: A setting is unknown or malformed.
        :raises RuntimeError: The app has a Durable already.
        """
        if "durable" in app.extensions:
            raise RuntimeError(
                "This Flask app has a Durable object already, and can have one only: "
                "use app.extensions['durable'], or call init_app once."
            )
        settings = Settings.from_app(app)
        state = AppState(app, self.functions, settings, self._middleware)
        register_routes(app, state, open_ingest=in_development())
        app.extensions["durable"] = self
        # Under a key of its own, and not in this object: an extension outlives the apps
        # of a factory, and would keep them.
        app.extensions[_STATE] = state
        self._apps.add(app)

    def register(self, group: DurableGroup) -> None:
        """Add the functions, steps and schemas of *group*.

        :raises DefinitionError: One of its names is taken, or it is registered already.
        """
        group.apply(self.functions)

    def forward(
        self,
        *,
        on: str | t.Sequence[str],
        to: str,
        signing_secrets: str | t.Sequence[str] = (),
        id: str | None = None,
        where: t.Callable[[Event[t.Any]], bool] | None = None,
        timeout: Duration = "10s",
        queue: str = "default",
        retries: int = FORWARD_RETRIES,
        backoff: Backoff = _BACKOFF,
    ) -> None:
        """Deliver events to another event API or to a webhook, at least once each.

        It declares a function whose runs have one step. An event that cannot be
        delivered becomes a dead letter of *queue*; moved back, it is delivered again.

        :param on: An event's name, a wildcard (``"media/*"``), or a sequence of these.
        :param to: The address. A key in it is shown nowhere.
        :param signing_secrets: The ``whsec_`` secrets; each of them signs every
            request, as Standard Webhooks say. Without one the receiver is Inngest's
            event API.
        :param id: An id that is unique in the app (default ``forward-`` and the
            address's host).
        :param where: A callable that tells for an event if it is delivered.
        :param timeout: The longest time of one attempt.
        :param queue: The queue that its runs wait in.
        :param retries: The number of attempts after the first one.
        :param backoff: The delays between attempts; a receiver's ``Retry-After`` makes
            them longer, up to an hour.
        :raises DefinitionError: The declaration is wrong; the message has the fix.
        """
        caller = sys._getframe(1)
        options = FunctionOptions(queue=queue, retries=retries, backoff=backoff)
        self.functions.add(
            define_forward(
                on=on,
                to=to,
                signing_secrets=signing_secrets,
                id=id,
                where=where,
                timeout=timeout,
                options=options,
                defined_at=f"{caller.f_code.co_filename}:{caller.f_lineno}",
            )
        )

    def send(
        self,
        event: EventLike | str,
        data: t.Mapping[str, t.Any] | None = None,
        *,
        id: str | None = None,
        at: datetime | None = None,
        session: SQLSession | None = None,
    ) -> str:
        """Send an event. When this returns, the queue or the state server owns it.

        With a *session* its transaction owns the event: it is sent after the commit,
        whatever dies, and not after a rollback.

        The event is offered to the queue for ``DURABLE_ACCEPT_TIMEOUT``. With
        ``DURABLE_SPOOL`` the state server keeps it after that, and it is sent when the
        queue is back.

        :param event: A model, an :class:`Event`, or an event's name.
        :param data: The event's data, with a name.
        :param id: The event's id: of several with one id a function runs once.
        :param at: The time of the event (an aware datetime). Runs do not start before.
        :param session: A session of SQLAlchemy, such as ``db.session``.
        :returns: The event's id.
        :raises EventError: The event is not valid.
        :raises UnavailableError: The event was not taken in time. Sending it again with
            the same id is harmless.
        """
        state = self._state
        _refuse_in_body()
        message = state.message(event, data, id=id, at=at)
        self._send(state, [message], session)
        return message.id

    def signal(
        self, run_id: str, name: str, data: t.Any = None, *, id: str | None = None
    ) -> str:
        """Give a signal to a run, for its ``step.wait_for_signal``.

        :param data: The signal's data: a value of JSON, 64 KiB at most.
        :param id: The signal's id: of several with one id the run gets one.
        :returns: The signal's id.
        :raises EventError: The name, the id or the data is not valid.
        :raises RunNotFound: There is no such run.
        :raises RunStateError: The run has ended, or 1,000 signals wait for it.
        :raises UnavailableError: The state server is full, or does not confirm that it
            keeps the signal. Giving it again with the same id is harmless.
        """
        state = self._state
        _refuse_in_body()
        signal_id, text = checked_signal(name, data, id)
        with shielded():
            state.admin.signal(run_id, name, signal_id, text)
        return signal_id

    def send_many(
        self, events: t.Iterable[EventLike], *, session: SQLSession | None = None
    ) -> list[str]:
        """Send events in as few calls as the queue allows.

        :param session: A session of SQLAlchemy, see :meth:`send`.
        :returns: The ids of the events, in order.
        :raises EventError: An event is not valid; none was sent.
        :raises UnavailableError: Not all events were taken in time; its ``sent`` has
            the ids of those that were.
        """
        state = self._state
        _refuse_in_body()
        messages = [state.message(event) for event in events]
        self._send(state, messages, session)
        return [message.id for message in messages]

    @property
    def is_current(self) -> bool:
        """True if the current Flask app was initialised with this object."""
        if not has_app_context():
            return False
        return current_app.extensions.get("durable") is self

    def start_run(self, function: str, data: t.Any, id: str | None) -> str:
        """Start a run of a function in the current app, see :meth:`Function.start`."""
        state = self._state
        _refuse_in_body("function.start", 'step.invoke("name", function, data)')
        return state.starter.start(function, data, id)

    @property
    def runs(self) -> Runs:
        """The runs of the current app."""
        return self._state.runs

    @property
    def dead_letters(self) -> DeadLetters:
        """The dead letters of the current app."""
        return self._state.dead_letters

    @property
    def settings(self) -> Settings:
        """The settings of the current app."""
        return self._state.settings

    def health(self) -> list[HealthCheck]:
        """Return the checks of every service that runs of the current app need."""
        return list(HealthChecks(self._state).everything())

    def lambda_handler(self, event: t.Any, context: LambdaContext) -> dict[str, t.Any]:
        """Handle an invocation by AWS Lambda.

        ::

            app = create_app()
            handler = durable.lambda_handler

        Messages of an SQS queue are processed as by a worker, within half of the
        remaining time. The answer names the messages that are to be delivered again, so
        switch on ``ReportBatchItemFailures``. A schedule of EventBridge does the work
        that is due: timers, lost runs, schedules.

        :raises EventError: The invocation is neither of these.
        :raises RuntimeError: The object has no app, or several.
        """
        from .worker.push.lambda_handler import handle_event

        apps = list(self._apps)
        if len(apps) != 1:
            raise RuntimeError(
                f"The handler of a Lambda function needs one app, and there are "
                f"{len(apps)}. Keep the one app that you call 'init_app' with."
            )
        return handle_event(self.state_of(apps[0]), event, context)

    def state_of(self, app: Flask) -> AppState:
        """Return the services of *app*. For our own processes.

        :raises RuntimeError: The app was not initialised with this object.
        """
        if app.extensions.get("durable") is not self:
            raise RuntimeError(
                "The current Flask app is not registered with this 'Durable' instance. "
                "Call 'init_app' with it first."
            )
        return t.cast(AppState, app.extensions[_STATE])

    def __repr__(self) -> str:
        if not has_app_context():
            return f"<Durable with {len(self.functions)} functions>"
        return f"<Durable of {current_app.name!r}, {len(self.functions)} functions>"

    @property
    def _state(self) -> AppState:
        if not has_app_context():
            raise RuntimeError(
                "There is no app context here. Wrap the call in "
                '"with app.app_context():".'
            )
        return self.state_of(current_app._get_current_object())  # type: ignore[attr-defined]

    def _send(
        self,
        state: AppState,
        messages: t.Sequence[EventMessage],
        session: SQLSession | None,
    ) -> None:
        if session is None:
            self._send_now(state, messages)
        else:
            state.database.store_events(session, messages)
        if state.app.debug:
            for message in messages:
                self._warn_if_unheard(message.name)

    def _send_now(self, state: AppState, messages: t.Sequence[EventMessage]) -> None:
        outcomes = state.event_sender.send(messages)
        failed = failures(outcomes)
        if failed:
            pairs = zip(messages, outcomes, strict=True)
            if isinstance(failed[0], EventError) and len(failed) == len(messages):
                raise failed[0]
            raise UnavailableError(
                f"The queue did not take {len(failed)} of {len(messages)} event(s): "
                f"{failed[0]}",
                sent=[message.id for message, o in pairs if isinstance(o, str)],
                hint="Send them again with the same ids; that is harmless.",
            ) from failed[0]

    def _warn_if_unheard(self, name: str) -> None:
        told = name in self._warned or len(self._warned) >= MOST_WARNINGS
        if told or self.functions.matching(name):
            return
        self._warned.add(name)
        known = [trigger for f in self.functions for trigger in f.triggers]
        near = difflib.get_close_matches(name, known, n=3)
        logger.warning(
            "No function here is started by %r.%s",
            name,
            f" Did you mean {' or '.join(map(repr, near))}?" if near else "",
            extra={"action": "event_unheard"},
        )


def _refuse_in_body(
    call: str = "durable.send", instead: str = 'step.send_event("name", event)'
) -> None:
    if active_step() is not None:
        raise StepUsageError(
            f"{call} in a function's body outside a step would be repeated by every "
            "replay.",
            hint=f"Use {instead}.",
        )
