"""Starts runs of one function from outside of runs: ``function.start``.

::

    data ─► checked by the function's model ─► run_create ─► QUEUED ─► run message
                                                   │
                                                   └─ DURABLE_FSYNC="step": the barrier

No event is sent, and no router is needed: the run's own queue delivers it. Its id is
derived from the function and the id that was given, and so the second start with that
id finds the first one's run. The script owes the message, so a process that dies here
leaves a run that a sweep sends for.
"""

from __future__ import annotations

import time
import typing as t

from ..common.ids import new_event_id
from ..common.ids import run_id
from ..common.interruption import shielded
from ..errors import UnavailableError
from ..messages import EventMessage
from ..redis.errors import is_transient
from ..store.barrier import Barrier
from ..store.memory_guard import MemoryGuard
from ..store.replies import Creation
from ..store.replies import creation_of
from ..store.replies import Queued
from ..store.run_store import NewRun
from ..store.server import StateServer
from .children import Callee
from .children import callee_of
from .children import message_for
from .event_sender import announced
from .outbox import Outbox
from .services import EngineServices


class RunStarter:
    """Creates runs for code that is no run.

    :param server: The state server, over a connection that does not wait for long.
    :param within: Seconds for which a start is tried, ``DURABLE_ACCEPT_TIMEOUT``.
    """

    def __init__(
        self,
        services: EngineServices,
        outbox: Outbox,
        server: StateServer,
        barrier: Barrier,
        memory: MemoryGuard,
        within: float,
    ) -> None:
        self._services = services
        self._outbox = outbox
        self._server = server
        self._barrier = barrier
        self._memory = memory
        self._within = within

    def start(self, function: str, data: t.Any, id: str | None) -> str:
        """Start a run of a function, unless it has one of that id; return the run's id.

        :param function: The id of the function.
        :param data: A model, a mapping, or ``None`` for no data.
        :param id: The id of the run's event; ``None`` for a new one.
        :raises EventError: The data does not fit the function, or the id is malformed.
        :raises StepUsageError: No process has the function.
        :raises UnavailableError: The state server did not take it in time. It may have
            a run all the same: starting it again with the same id is harmless.
        """
        services = self._services
        callee = callee_of(services, function)
        message = message_for(services, callee, data, id or new_event_id())
        with shielded(), announced(services.middleware, [message]) as (told, messages):
            try:
                run = self._new_run(callee, messages[0])
                told.size = len(run.event)
                reply = self._create(run)
            except Exception as error:
                told.outcomes = [error]
                raise
            told.outcomes = ["accepted"]
            if isinstance(reply, Queued):
                queued = (run.id, run.function, run.queue, reply.time)
                self._outbox.send_runs([queued])
                self._outbox.confirm_at_once()
        return run.id

    def _new_run(self, callee: Callee, message: EventMessage) -> NewRun:
        return NewRun(
            id=run_id(callee.id, message.id),
            function=callee.id,
            queue=callee.queue,
            event=self._services.payloads.seal_event(message),
            event_id=message.id,
            event_name=message.name,
            timeout=callee.timeout,
            start_timeout=callee.start_timeout,
            version=callee.version,
        )

    def _create(self, run: NewRun) -> Creation:
        services = self._services
        self._memory.check()
        mark = self._barrier.mark() if services.write_through else None
        call = services.store.creation(run)
        until = time.monotonic() + self._within

        def create() -> Creation:
            reply = creation_of(self._server.call_many([call])[0])
            if isinstance(reply, Exception):
                raise reply
            return reply

        try:
            reply = services.retry_until_answered(create, until=until)
        except Exception as error:
            if not is_transient(error):
                raise
            raise UnavailableError(
                f"The state server did not start a run of {run.function!r}: {error}",
                hint=f"Start it again with id={run.event_id!r}; that is harmless.",
            ) from error
        if services.write_through:
            self._barrier.wait(mark)
        return reply
