"""What the engine is given by the process that it runs in."""

from __future__ import annotations

import math
import threading
import time
import typing as t
from contextlib import AbstractContextManager
from dataclasses import dataclass
from dataclasses import field

from ..errors import UnavailableError
from ..events.model import EventLike
from ..functions.registry import FunctionRegistry
from ..loops import moved
from ..middleware import MiddlewareChain
from ..payloads.codec import Payloads
from ..queue.envelope import EventMessage
from ..safe_logging import get_logger
from ..store.barrier import Barrier
from ..store.barrier import StateMayBeLost
from ..store.directory import Directory
from ..store.run_store import is_transient
from ..store.run_store import RunStore
from ..store.service_times import ServiceTimes
from .asking import Asker
from .completions import Completions
from .lost_threads import LostThreads
from .run_logs import RunLogs

T = t.TypeVar("T")

logger = get_logger(__name__)


class MessageQueue(t.Protocol):
    """The queue, as far as the engine sees it."""

    def send(
        self, queue: str, bodies: t.Sequence[str], *, patience: float | None = None
    ) -> list[Exception | None]:
        """Send message texts; return for each what went wrong, or ``None``.

        :param patience: Seconds to go on while nothing is taken, if not the usual.
        """

    def problem(self, body: str) -> Exception | None:
        """Return why a message text is never taken, as far as is known here."""

    def is_transient(self, error: Exception) -> bool:
        """Return whether what failed to be sent with *error* may be taken later."""

    def send_dead(
        self, queue: str, body: str, reason: str, *, receives: int = 0
    ) -> None:
        """Put a message text that was not received into the dead letters of *queue*.

        :param receives: How often it was tried.
        :raises Exception: The queue did not take it, or nobody knows.
        """

    def is_ordered(self, queue: str) -> bool:
        """Return whether *queue* hands out the messages of a group in their order."""


@dataclass
class Host:
    """The collaborators of router, executor and sweeper in one process.

    :param payloads: Seals what is stored of the user's data, and opens it.
    :param scope: Makes the context that an attempt's body, and each step's body, runs
        in: for a Flask app its application context.
    :param release: Called in the body's context before a step's body is: gives back
        what the step may need, such as a database connection.
    :param message_of: Makes a checked message of an event; the id is for events that
        were not given one.
    :param check_event: Raises :class:`EventError` if an event that was received does
        not fit the schema of its name.
    :param service_times: Is told how long each delivery took.
    :param middleware: What surrounds routings, attempts and steps.
    :param run_logs: Keeps what runs log.
    :param max_value: Bytes of JSON that are kept of one result.
    :param write_through: Whether a state change is answered only when it is durable
        (``DURABLE_FSYNC="step"``).
    :param replay_eagerly: Whether a body is replayed after every step, so that effects
        outside steps show in development.
    """

    functions: FunctionRegistry
    store: RunStore
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
    max_value: int = 4 * 1024 * 1024
    write_through: bool = False
    replay_eagerly: bool = False
    draining: threading.Event = field(default_factory=threading.Event)
    asker: Asker = field(default_factory=Asker)
    #: Logs which runs completed.
    completions: Completions = field(default_factory=Completions)
    #: The threads whose steps' bodies were given up and go on.
    lost_threads: LostThreads = field(default_factory=LostThreads)

    def insist(
        self,
        call: t.Callable[[], T],
        *,
        while_draining: bool = True,
        until: float = math.inf,
    ) -> T:
        """Repeat *call* until the state server carries it out.

        A lost reply says nothing about whether the call was carried out; repeating it
        is harmless and the only way to know. While the server is away, or takes no
        writes, nobody can take the run either.

        :param while_draining: Whether to go on when this worker stops.
        :param until: When to give up, on the monotonic clock. Where a run is owned
            nobody gives up.
        """
        pause = 0.05
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
                moved()
                time.sleep(pause)
                pause = min(pause * 2, 1.0)

    def mark(self) -> int:
        """Return what to give to :meth:`settle` for what is written from now on."""
        return self.barrier.mark() if self.write_through else 0

    def settle(self, mark: int, *, until: float = math.inf) -> None:
        """Wait for the barrier if a state change may not be answered before it.

        :param until: When to give up, on the monotonic clock.
        :raises UnavailableError: It was not passed until then.
        :raises StateMayBeLost: What was written since *mark* may be gone. The caller
            does not go on as if it stood.
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
