"""Running one worker in the calling process until a signal stops it."""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import signal
import sys
import threading
import types
import typing as t

from ..app_state import AppState
from ..observe import sentry
from ..observe.formats import LogFormat
from ..observe.formats import set_up
from ..safe_logging import get_logger
from .process import WorkerProcess

#: Seconds past the grace after which the process exits whatever it is doing.
LAST_RESORT = 2.0

#: Seconds between two looks for a signal that did not wake the process up.
_LOOK_INTERVAL = 1.0

logger = get_logger(__name__)


def run_worker(
    state: AppState,
    *,
    queues: t.Sequence[str],
    threads: int,
    grace: float,
    log_format: LogFormat | None = None,
) -> None:
    """Work until ``SIGTERM`` or ``SIGINT``, then drain and return, or exit hard.

    A second ``SIGTERM`` means no more than the first: whoever signals a process group
    and its leader sends two. A second Ctrl-C exits at once.

    :param queues: The queues whose runs are executed here.
    :param threads: How many runs are executed at once.
    :param grace: Seconds that the drain may take.
    :param log_format: Of what is logged, if not the application's own.
    """
    set_up(state.app.logger, log_format)
    # A second signal can come while the handler of the first one runs, or while this
    # thread wakes up: then Event.set() would wait for a lock that it holds itself.
    signals: queue.SimpleQueue[int] = queue.SimpleQueue()
    stopping = False

    def stop(signum: int, frame: types.FrameType | None) -> None:
        nonlocal stopping
        if stopping and signum == signal.SIGINT:
            os._exit(130)
        stopping = True
        signals.put(signum)

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    process = WorkerProcess(state, queues=queues, threads=threads, grace=grace)
    process.start()
    logger.info("Worker %s is ready.", process.id, extra={"action": "worker_ready"})
    _wait_for(signals)
    last_resort = threading.Timer(grace + LAST_RESORT, os._exit, (1,))
    last_resort.daemon = True
    last_resort.start()
    ended = process.stop()
    logger.info("Worker %s has ended.", process.id, extra={"action": "worker_end"})
    if not ended:
        # A body is still inside C code: the interpreter would wait for its thread.
        logging.shutdown()
        sentry.flush()
        sys.stdout.flush()
        os._exit(0)
    last_resort.cancel()


def _wait_for(signals: queue.SimpleQueue[int]) -> None:
    """Return when there is one.

    Its handler runs in this thread, between two instructions. A signal that comes after
    the last instruction before the wait, or that the system gives to another thread,
    does not end the wait: without a limit its handler would never run.
    """
    while True:
        with contextlib.suppress(queue.Empty):
            signals.get(timeout=_LOOK_INTERVAL)
            return
