"""Keeps the newest log lines of each run, at no cost to its steps.

::

    run threads ──► lines of each attempt ──► (a quarter of a second) ──► one thread
                    in memory                                             writes all of
                                                                          them at once

No step and no run waits for a line. A process that is killed loses the lines of the
last moment, and lines that the server does not take are lost. A run that logs nothing
costs no write.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections import deque

from ..common.loops import Loop
from ..common.safe_logging import get_logger
from ..log_line import LogLine
from ..observe.tail import tailed
from ..payloads.sealing import Payloads
from ..redis.errors import log_failure
from ..store.run_logs import RunLogStore

#: Seconds from the first line until it is written, with all lines that came since.
PAUSE = 0.25

#: Seconds that the thread waits for a line before it shows that it is alive.
IDLE = 5.0

#: Most attempts whose lines wait to be written; beyond it the newest are kept.
MAX_WAITING = 10_000

#: Seconds that a process that ends waits until the last lines are written.
PATIENCE = 2.0

logger = get_logger(__name__)


class _Tail:
    """The newest lines of one attempt that are not written yet."""

    def __init__(self, run_id: str, limit: int) -> None:
        self.run_id = run_id
        self.waits = False
        self._lines: deque[LogLine] = deque(maxlen=limit)

    def add(self, line: LogLine) -> None:
        self._lines.append(line)

    def take(self) -> list[LogLine]:
        found = []
        with contextlib.suppress(IndexError):
            while True:
                found.append(self._lines.popleft())
        return found


class RunLogs:
    """Collects the lines of runs that this process executes, and writes them.

    :param payloads: The codec that seals the lines.
    """

    def __init__(self, store: RunLogStore, payloads: Payloads) -> None:
        self._store = store
        self._payloads = payloads
        self._dirty: deque[_Tail] = deque(maxlen=MAX_WAITING)
        # Not an event or a lock: an interrupt of a step's body that logs could leave it
        # locked. Both of these are atomic.
        self._wake: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._loop = Loop("durable-run-logs", self._turn, self._failed)

    def keeping(self, run_id: str) -> contextlib.AbstractContextManager[None]:
        """Return a context that keeps the lines logged inside by this thread."""
        if self._store.lines == 0:
            return contextlib.nullcontext()
        tail = _Tail(run_id, self._store.lines)

        def keep(line: LogLine) -> None:
            tail.add(line)
            if not tail.waits:
                tail.waits = True
                self._dirty.append(tail)
                if self._loop.started:
                    self._wake.put(None)

        return tailed(keep)

    def start(self) -> None:
        """Write lines on a thread of its own from now on."""
        with self._lock:
            if not self._loop.started and self._store.lines:
                self._loop.start()

    def close(self) -> None:
        """Write the lines that are left, and end the thread."""
        self._loop.stopping.set()
        self._wake.put(None)
        self._loop.join(PATIENCE)

    def flush(self) -> None:
        """Write the waiting lines now; those that the server does not take are lost."""
        batches = []
        with contextlib.suppress(IndexError):
            while True:
                tail = self._dirty.popleft()
                # First: a line that comes from now on makes it wait again.
                tail.waits = False
                if lines := tail.take():
                    seal = self._payloads.seal_text
                    batches.append((tail.run_id, [seal(x.dump()) for x in lines]))
        try:
            self._store.append(batches)
        except Exception as error:
            logger.warning(
                "Log lines of %d run(s) are lost: %s",
                len(batches),
                error,
                extra={"action": "run_log_lost"},
            )

    def _turn(self) -> float:
        with contextlib.suppress(queue.Empty):
            self._wake.get(timeout=IDLE)
        if self._dirty:
            self._loop.stopping.wait(PAUSE)
            # Before the flush, which writes the lines of all that have woken it so far:
            # one turn for each of them could never catch up with runs that log.
            with contextlib.suppress(queue.Empty):
                for _ in range(self._wake.qsize()):
                    self._wake.get_nowait()
            self.flush()
        return 0

    def _failed(self, error: BaseException) -> float:
        log_failure(logger, "write log lines of runs", error)
        return PAUSE
