"""The services the engine needs: store, queue, payloads, middleware."""

from __future__ import annotations

import math
import threading
import time
import typing as t
from contextlib import AbstractContextManager
from dataclasses import dataclass
from dataclasses import field

from ..common.lack import Lacks
from ..common.loops import moved
from ..common.safe_logging import get_logger
from ..errors import UnavailableError
from ..events.model import EventLike
from ..functions.registry import FunctionRegistry
from ..messages import EventMessage
from ..middleware import MiddlewareChain
from ..observe.run_logs import RunLogs
from ..payloads.sealing import Payloads
from ..redis.errors import is_transient
from ..store.barrier import Barrier
from ..store.barrier import StateMayBeLost
from ..store.directory import Directory
from ..store.measurements.service_times import ServiceTimes
from ..store.run_store import RunStore
from ..store.waiters import Waiters
from .asking import Asker
from .lost_threads import LostThreads

T = t.TypeVar("T")

logger = get_logger(__name__)


class MessageQueue(t.Protocol):
    """The queue, as far as the engine sees it."""

    def send(
        self, queue: str, bodies: t.Sequence[str], *, patience: float | None = None
    ) -> list[Exception | None]:
        """Send message texts; return for each its error, or ``None``.

        :param patience: Seconds to keep trying while nothing is taken; ``None`` for the
            usual time.
        """

    def problem(self, body: str) -> Exception | None:
        """Return why a message text is never taken, as far as this process can tell."""

    def is_transient(self, error: Exception) -> bool:
        """Return whether a message that failed with *error* may be taken later."""

    def send_dead(
        self, queue: str, body: str, reason: str, *, receives: int = 0
    ) -> None:
        """Put a message text that was not received into the dead letters of *queue*.

        :param receives: The receive count that the letter shows.
        :raises Exception: The queue did not take it, or did not say so.
        """

    def is_ordered(self, queue: str) -> bool:
        """Return whether *queue* hands out the messages of a group in their order."""


class AddressMaker(t.Protocol):
    """The addresses of the app, as far as the engine sees them."""

    def make(self, run_id: str, step: str) -> str:
        """Return a new address for a step of a run.

        :raises ConfigurationError: This process cannot make one.
        """


class DatabaseSteps(t.Protocol):
    """The application's database, as far as the engine sees it."""

    def once(
        self,
        run: str,
        created: str,
        step: str,
        at: int,
        call: t.Callable[[], str],
        confirm: t.Callable[[], None],
    ) -> tuple[str, bool]:
        """Return the text of *call*, which is committed once, and if it is new.

        :param created: The time when the run was created, as its record has it.
        :param at: The state server's time, milliseconds since 1970.
        :param call: The function: what it does in the session is committed with its
            text.
        :param confirm: A check before the commit; it raises if the run is not ours.
        :raises CommitUnknown: The commit failed, and may have taken effect.
        """


@dataclass
class EngineServices:
    """The collaborators of router, executor and sweeper in one process.

    :param payloads: The codec that seals the user's data for the store and opens it.
    :param scope: A factory of the context that an attempt's body, and each step's body,
        runs in: for a Flask app its application context.
    :param release: A callable for the body's context, called before a step's body: it
        gives back resources that the step may need, such as a database connection.
    :param message_of: A factory of a checked message from an event; the id is for
        events that were not given one.
    :param check_event: A check that raises :class:`EventError` if a received event does
        not fit the schema of its name.
    :param service_times: The record of how long each delivery took.
    :param middleware: The hooks around routings, attempts and steps.
    :param run_logs: The store of the lines that runs log.
    :param addresses: The maker of addresses for ``step.create_url``.
    :param database_steps: A factory of what ``step.transaction`` needs; it raises
        :class:`ConfigurationError` if the app has no database.
    :param max_value: Bytes of JSON that are kept of one result.
    :param write_through: True to answer a state change only when it is durable
        (``DURABLE_FSYNC="step"``).
    :param replay_eagerly: True to replay a body after every step, so that effects
        outside steps show in development.
    """

    functions: FunctionRegistry
    store: RunStore
    waiters: Waiters
    directory: Directory
    barrier: Barrier
    queue: MessageQueue
    payloads: Payloads
    scope: t.Callable[[], AbstractContextManager[t.Any]]
    release: t.Callable[[], None]
    message_of: t.Callable[[EventLike, str], EventMessage]
    check_event: t.Callable[[EventMessage], None]
    service_times: ServiceTimes
    middleware: MiddlewareChain
    run_logs: RunLogs
    addresses: AddressMaker
    database_steps: t.Callable[[], DatabaseSteps]
    max_value: int = 4 * 1024 * 1024
    write_through: bool = False
    replay_eagerly: bool = False
    draining: threading.Event = field(default_factory=threading.Event)
    asker: Asker = field(default_factory=Asker)
    #: The threads whose bodies were given up and still run.
    lost_threads: LostThreads = field(default_factory=LostThreads)
    #: The lacks of threads that wait for the state server.
    lacks: Lacks = field(default_factory=Lacks)

    def retry_until_answered(
        self,
        call: t.Callable[[], T],
        *,
        while_draining: bool = True,
        until: float = math.inf,
    ) -> T:
        """Repeat *call* until the state server carries it out.

        A lost reply does not tell if the call was carried out. Repeating it is harmless
        and the only way to know. While the server is away, or takes no writes, no other
        worker can take the run either.

        :param while_draining: True to go on when this worker stops.
        :param until: The moment, on the monotonic clock, to give up at. Calls for a run
            that is owned never give up.
        """
        pause = 0.0
        try:
            while True:
                try:
                    return call()
                except Exception as error:
                    gives_up = self.draining.is_set() and not while_draining
                    gives_up = gives_up or time.monotonic() >= until
                    if gives_up or not is_transient(error):
                        raise
                    logger.warning(
                        "The state server does not answer: %s",
                        error,
                        extra={"action": "state_server_away"},
                    )
                    self.lacks.note(error)
                    moved()
                    pause = min(pause * 2, 1.0) or 0.05
                    time.sleep(pause)
        finally:
            if pause:
                self.lacks.clear()

    def barrier_mark(self) -> int:
        """Return the mark of all writes from now on, for :meth:`wait_durable`."""
        return self.barrier.mark() if self.write_through else 0

    def wait_durable(self, mark: int, *, until: float = math.inf) -> None:
        """Wait for the barrier if a state change may not be answered before it.

        :param until: The moment, on the monotonic clock, to give up at.
        :raises UnavailableError: The barrier was not passed until then.
        :raises StateMayBeLost: A write since *mark* may be lost. The caller does not go
            on as if it stood.
        """
        while self.write_through:
            try:
                return self.barrier.wait(mark)
            except StateMayBeLost:
                raise
            except UnavailableError as error:
                if time.monotonic() >= until:
                    raise
                logger.warning("%s", error, extra={"action": "state_not_durable"})
                moved()
                time.sleep(0.2)
