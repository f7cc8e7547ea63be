"""The copy of a run thread that a bare ``os.fork()`` makes ends where it comes back.

What ``subprocess`` and ``multiprocessing`` start never returns to the code that forked.
The child of a bare fork may: it returns, or raises, out of the user's code. It would go
on as the run thread of its parent, commit the step and finish the run with the parent's
token, and outlive the worker::

    fork ─► in the child, before any of its code: the attempts of the parent are stopped
            (engine/leases.py), nothing can be written with their tokens ─► the child
            does its work
         ─► it comes back out of the user's code: a line in the log, and a hard end
         ─► it ends in any other way: nothing is left to do

In the parent nothing happens. What marks a copy is the name of the process, which a
fork renews (``ids.py``); so the usual path looks at no process id.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import typing as t

from .ids import own_process
from .safe_logging import get_logger

#: Seconds that the log line may take.
PATIENCE = 5

logger = get_logger(__name__)


def end_if_copied(process: str) -> None:
    """End this process if it was forked since its name was *process*.

    An exit that the child's code asked for keeps its code. Nothing is flushed or
    closed: buffers and connections are the parent's.
    """
    if process != own_process():
        _end(sys.exc_info()[1])


def _end(error: BaseException | None) -> t.NoReturn:
    if isinstance(error, SystemExit):
        code = 0 if error.code is None else error.code
        os._exit(code & 0xFF if isinstance(code, int) else 1)
    # A handler may wait for a thread that is not here; the parent may wait for us.
    signal.alarm(PATIENCE)
    with contextlib.suppress(BaseException):
        logger.error(
            "Process %d, which was forked inside a run, comes back out of the code "
            "that forked it, and ends: it must not go on with its parent's run. End "
            "the child of os.fork() with os._exit(), or use multiprocessing.",
            os.getpid(),
            exc_info=error,
            extra={"action": "copy_ended"},
        )
    os._exit(1)
