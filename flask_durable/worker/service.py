"""Running one worker in the calling process until a signal stops it."""

from __future__ import annotations

import atexit
import contextlib
import os
import queue
import signal
import sys
import types
import typing as t

from ..app.state import AppState
from ..common.safe_logging import finish_telling
from ..common.safe_logging import get_logger
from ..observe.formats import LogFormat
from ..observe.formats import set_up
from ..observe.sentry import reporting as sentry
from .process import call_later
from .process import EXIT_PATIENCE
from .process import INTERRUPT_BEFORE
from .process import LAST_RESORT
from .process import WorkerProcess
from .signals import take_signals
from .vitals import Vitals

#: Seconds of grace if a vital thread is gone: bodies are interrupted at once.
URGENT_GRACE = INTERRUPT_BEFORE + 1.0

#: Seconds between two looks for a signal that did not wake the process up.
_LOOK_INTERVAL = 1.0

logger = get_logger(__name__)


def run_worker(
    state: AppState,
    *,
    queues: t.Sequence[str],
    threads: int,
    grace: float,
    adopts: bool = False,
    log_format: LogFormat | None = None,
) -> int:
    """Work until ``SIGTERM`` or ``SIGINT``, then drain; the process is to end then.

    A second ``SIGTERM`` changes nothing: one signal to a process group and one to its
    leader make two. A second Ctrl-C exits at once.

    :param queues: The queues whose runs are executed here.
    :param threads: The number of runs that are executed at once.
    :param grace: Seconds that the drain may take.
    :param adopts: True to serve further queues that no worker serves.
    :param log_format: The format of log lines, if not the application's own.
    :returns: The exit code for :func:`leave`: 1 if a vital thread was gone, or if the
        drain failed.
    """
    set_up(state.app.logger, log_format)
    # A second signal can come while the handler of the first one runs, or while this
    # thread wakes up: Event.set() would then wait for a lock that it holds itself.
    signals: queue.SimpleQueue[int] = queue.SimpleQueue()
    stopping = False

    def stop(signum: int, frame: types.FrameType | None) -> None:
        nonlocal stopping
        if stopping and signum == signal.SIGINT:
            os._exit(130)
        stopping = True
        signals.put(signum)

    if not any(state.functions):
        logger.warning(
            "The app %r has no functions: is the module that declares them imported? "
            "Events of every name are accepted, and start nothing.",
            state.app.name,
            extra={"action": "no_functions"},
        )
    take_signals(stop)
    process = WorkerProcess(
        state, queues=queues, threads=threads, grace=grace, adopts=adopts
    )
    process.start()
    logger.info("Worker %s is ready.", process.id, extra={"action": "worker_ready"})
    ailment = _wait_for(signals, Vitals(process))
    if ailment and not process.worn_out():
        grace = min(grace, URGENT_GRACE)
    last_resort = call_later(grace + LAST_RESORT, os._exit, 1)
    if ailment:
        logger.critical(
            "Worker %s ends, to be started again: %s.",
            process.id,
            ailment,
            extra={"action": "worker_ails"},
        )
    try:
        process.stop(grace)
    except Exception:
        # Runs that are not handed back are taken over as from a killed process. An
        # error here would leave the end to the interpreter, see leave().
        logger.exception(
            "Worker %s could not drain.", process.id, extra={"action": "drain_failed"}
        )
        ailment = "could not drain"
    logger.info("Worker %s has ended.", process.id, extra={"action": "worker_end"})
    last_resort.cancel()
    return 1 if ailment else 0


def leave(code: int) -> t.NoReturn:
    """End the process now, whatever a step has left behind.

    The interpreter would wait for threads that are no daemons, for thread pools, and
    for child processes: for ever, perhaps.
    """
    call_later(EXIT_PATIENCE, os._exit, code)
    with contextlib.suppress(BaseException):
        finish_telling(EXIT_PATIENCE / 2)
        sentry.flush()
        # The application's exit functions, and those that flush logs.
        atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(BaseException):
            stream.flush()
    os._exit(code)


def _wait_for(signals: queue.SimpleQueue[int], vitals: Vitals) -> str:
    """Return ``""`` at a signal, or the reason to renew the process without one.

    A signal's handler runs in this thread, between two instructions. A signal that
    comes after the last instruction before the wait, or that the system gives to
    another thread, does not end the wait: without a limit its handler would never run.
    """
    while True:
        with contextlib.suppress(queue.Empty):
            signals.get(timeout=_LOOK_INTERVAL)
            return ""
        if ailment := vitals.look():
            return ailment
