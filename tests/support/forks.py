"""Forked children of a test, and none goes on as a second test session.

A child that raised would run the rest of the tests, and one that hangs would outlive
the session and keep its pipes open.
"""

from __future__ import annotations

import os
import signal
import traceback
import typing as t

#: Seconds that a child may live.
LIFETIME = 30


def in_child(work: t.Callable[[], object]) -> int:
    """Run *work* in a forked process; return its exit code, 0 if nothing was raised."""
    return exit_code(start_child(work))


def start_child(work: t.Callable[[], object]) -> int:
    """Begin *work* in a forked process; return its process id."""
    child = os.fork()
    if child:
        return child
    code = 1  # pragma: no cover
    try:  # pragma: no cover
        limit_child()
        work()
        code = 0
    except BaseException:  # pragma: no cover
        traceback.print_exc()
    finally:
        os._exit(code)


def limit_child(seconds: int = LIFETIME) -> None:
    """End this process after *seconds*, whatever it does then.

    The handler that pytest-timeout has set would raise an error instead.
    """
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(seconds)


def exit_code(child: int) -> int:
    """Wait until a child has ended; return its exit code, negative for a signal."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
