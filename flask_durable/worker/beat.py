"""The beat of a worker: its functions and state, published every few seconds."""

from __future__ import annotations

import hashlib
import os
import socket
import time
import typing as t

from ..app.state import AppState
from ..common.ids import own_process
from ..common.loops import ailing
from ..common.loops import Loop
from ..common.safe_logging import get_logger
from ..redis.errors import is_full
from ..redis.errors import is_transient
from ..redis.errors import log_failure
from ..store.directory import names_of

if t.TYPE_CHECKING:
    from .strays import Strays
    from .task_protection import TaskProtection

#: Seconds between two beats.
BEAT_SECONDS = 3.0

#: The name that a supervisor gives all processes it keeps, set in their environment.
#: A process without a supervisor is a unit of its own.
UNIT = "DURABLE_UNIT"

logger = get_logger(__name__)


class Beat:
    """Publishes the functions and the state of one worker process.

    :param state: The services of the app.
    :param worker: The process's id.
    :param queues: The queues whose runs this process executes.
    :param threads: The number of runs that it executes at once.
    :param protection: The protection of the ECS task, if the process asks for one.
    :param strays: The look before each beat that may add to *queues*.
    """

    def __init__(
        self,
        state: AppState,
        worker: str,
        queues: t.Sequence[str],
        threads: int,
        protection: TaskProtection | None = None,
        strays: Strays | None = None,
    ) -> None:
        self._state = state
        self._worker = worker
        self._threads = threads
        self._queues = queues
        self._strays = strays
        self._unit = os.environ.get(UNIT) or worker
        self._protection = protection
        self._ready_at = time.time()
        #: The versions of functions that this process has the code of.
        self._names: list[str] = []
        self._loop = Loop("durable-beat", self._turn, self._failed)

    def publish(self) -> None:
        """Publish the functions whose code this process has.

        Called before anything is received: otherwise an event could be routed by a
        directory that lacks what this process could run.

        :raises redis.RedisError: The server did not answer.
        """
        specs = self._state.functions.specs()
        self._names = names_of(specs)
        self._state.directory.publish(specs)
        self._state.directory.current()
        self._beat()

    def start(self) -> None:
        """Beat on a thread of its own."""
        self._loop.start(BEAT_SECONDS)

    def stop(self, timeout: float | None = None) -> None:
        """End the thread, and sign the worker off.

        :param timeout: Seconds to wait for it; ``None`` waits as long as it takes.
        """
        self._loop.stop(timeout)
        try:
            self._leave()
            self._state.histograms.flush()
            self._state.efforts.flush()
        except Exception as error:  # also a full server, which refuses the call
            logger.warning(
                "Could not sign off: %s", error, extra={"action": "sign_off_failed"}
            )

    def _publish_again_if_forgotten(self) -> None:
        # The server lost the directory, or this process was not heard of for minutes.
        if not self._state.directory.remembered.names.issuperset(self._names):
            self.publish()

    def _leave(self) -> None:
        others = [
            worker
            for worker in self._state.directory.workers()
            if worker.get("id") != self._worker
        ]
        kept = any(worker.get("release") == self._release for worker in others)
        self._state.directory.leave(self._worker, () if kept else self._names)

    @property
    def _release(self) -> str:
        """A hash of the functions that this process has."""
        return hashlib.sha256("\n".join(self._names).encode()).hexdigest()[:12]

    def _beat(self) -> None:
        description = {
            "id": self._worker,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "process": own_process(),
            "queues": list(self._queues),
            "threads": self._threads,
            "busy": self._threads - self._state.window.free,
            "ails": ailing(),
            "lost": len(self._state.services.lost_threads),
            "draining": self._state.services.draining.is_set(),
            "unit": self._unit,
            "task": self._protection.task if self._protection else None,
            "ready_at": self._ready_at,
            "release": self._release,
        }
        self._state.directory.beat(self._worker, description, self._names)

    def _flush(self) -> None:
        """Write the measured times; nothing depends on them."""
        try:
            self._state.histograms.flush()
            self._state.efforts.flush()
        except Exception as error:
            log_failure(logger, "write what was measured", error)

    def _turn(self) -> float:
        self._publish_again_if_forgotten()
        if self._strays is not None:
            self._strays.look()
        self._beat()
        self._state.directory.forget_stale()
        self._state.reachable = True
        self._flush()
        return BEAT_SECONDS

    def _failed(self, error: BaseException) -> float:
        # A queue elsewhere goes on; what it delivers could not be kept now. A server
        # whose memory is full is no reason to stop: what was accepted goes on.
        self._state.reachable = not is_transient(error) or is_full(error)
        log_failure(logger, "beat", error)
        return BEAT_SECONDS
