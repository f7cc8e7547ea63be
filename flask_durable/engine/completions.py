"""Logs a line for each run that completed, those of a moment in one go.

::

    run threads ──► names ──► (a twentieth of a second) ──► one thread logs
                                                            a line for each

A line costs the thread of a run that does nothing a fifth of its time; one thread that
logs many of them spends next to nothing. A process that is killed loses the lines of
the last moment. The state server still has that the runs completed.
"""

from __future__ import annotations

import queue

from ..common.loops import Loop
from ..common.safe_logging import get_logger

#: Seconds from the first run until its line is logged, with all that came since.
PAUSE = 0.05

#: Seconds that the thread waits for a run before it shows that it is alive.
IDLE = 5.0

#: Seconds that a process that ends waits for the last lines.
PATIENCE = 2.0

logger = get_logger(__name__)


class Completions:
    """The runs of this process that completed and have no line yet."""

    def __init__(self) -> None:
        self._unlogged: queue.SimpleQueue[tuple[str, str]] = queue.SimpleQueue()
        self._loop = Loop("durable-completions", self._turn, self._failed)

    def add(self, run_id: str, function: str) -> None:
        """Log that a run of *function* completed; in a moment, if started."""
        if self._loop.started and not self._loop.stopping.is_set():
            self._unlogged.put((run_id, function))
        else:
            _log(run_id, function)

    def start(self) -> None:
        """Log on a thread of its own from now on."""
        if not self._loop.started:
            self._loop.start()

    def close(self) -> None:
        """Log the runs that are left, and end the thread."""
        self._loop.stop(PATIENCE)
        self._log_all()

    def _turn(self) -> float:
        try:
            first = self._unlogged.get(timeout=IDLE)
        except queue.Empty:
            return 0
        self._loop.stopping.wait(PAUSE)
        _log(*first)
        self._log_all()
        return 0

    def _log_all(self) -> None:
        while not self._unlogged.empty():
            _log(*self._unlogged.get())

    def _failed(self, error: BaseException) -> float:
        return PAUSE  # nothing depends on it, and logging is what failed


def _log(run_id: str, function: str) -> None:
    logger.info(
        "Run %s of %s completed.", run_id, function, extra={"action": "run_completed"}
    )
