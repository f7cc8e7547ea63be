"""What a worker says of itself, and whether it hears the state server."""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
import typing as t

from ..app_state import AppState
from ..ids import own_process
from ..store.run_store import is_transient
from ..store.run_store import log_failure
from ..store.run_store import TRANSIENT

#: Seconds between two beats.
INTERVAL = 3.0

#: Set by a supervisor that runs several workers on one host: what it calls this one.
#: What a platform adds and removes is else the host.
UNIT = "DURABLE_UNIT"

logger = logging.getLogger(__name__)


class Beat:
    """Publishes the functions and the state of one worker process."""

    def __init__(
        self, state: AppState, worker: str, queues: t.Sequence[str], threads: int
    ) -> None:
        self._state = state
        self._worker = worker
        self._threads = threads
        self._queues = list(queues)
        self.unit = os.environ.get(UNIT) or socket.gethostname()
        self._ready_at = time.time()
        self._stopping = threading.Event()
        self._thread = threading.Thread(
            target=self._run, name="durable-beat", daemon=True
        )

    def publish(self) -> None:
        """Say which functions this process has the code of.

        Done before anything is received: an event must not be routed by a directory
        that lacks what this process could run.

        :raises redis.RedisError: The server did not answer.
        """
        specs = {function.id: function.spec() for function in self._state.functions}
        self._state.directory.publish(specs)
        self._state.directory.current()
        self._beat()

    def start(self) -> None:
        """Beat on a thread of its own."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread, and say that the worker is gone."""
        self._stopping.set()
        self._thread.join()
        try:
            self._state.directory.leave(self._worker)
            self._state.histograms.flush()
            self._state.efforts.flush()
        except TRANSIENT as error:
            logger.warning(
                "Could not sign off: %s", error, extra={"action": "sign_off_failed"}
            )

    def _publish_again_if_forgotten(self) -> None:
        # The server lost the directory, or nobody was alive for an hour.
        known = self._state.directory.remembered.functions
        if any(function.id not in known for function in self._state.functions):
            self.publish()

    def _beat(self) -> None:
        description = {
            "id": self._worker,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "process": own_process(),
            "queues": self._queues,
            "threads": self._threads,
            "busy": self._threads - self._state.window.free,
            "draining": self._state.host.draining.is_set(),
            "unit": self.unit,
            "ready_at": self._ready_at,
        }
        self._state.directory.beat(
            self._worker,
            description,
            [function.id for function in self._state.functions],
        )
        self._state.histograms.flush()
        self._state.efforts.flush()

    def _run(self) -> None:
        while not self._stopping.wait(INTERVAL):
            try:
                self._publish_again_if_forgotten()
                self._beat()
                self._state.directory.forget_stale()
                self._state.reachable = True
            except Exception as error:
                # A queue elsewhere goes on; what it gave us could not be kept now.
                self._state.reachable = not is_transient(error)
                log_failure(logger, "beat", error)
