"""The lack of a resource of the system: of file descriptors, or of memory.

A step that leaks them leaves its process alive and of no use. They come back when the
process ends, so the loops and the run threads tell if they are missing for long.
"""

from __future__ import annotations

import errno
import os
import threading
import time

#: Seconds for which every try must have failed for want of a resource.
LACKING = 10.0

#: The names of exhausted resources by the number of the error.
_RESOURCES = {
    errno.EMFILE: "file descriptors",
    errno.ENFILE: "file descriptors",
    errno.ENOMEM: "memory",
}


class Lack:
    """The resource for want of which something fails, one time after the other."""

    def __init__(self) -> None:
        self._what = ""
        self._first = 0.0
        self._last = 0.0

    def clear(self) -> None:
        """Note a success."""
        self._what = ""

    def note(self, error: BaseException) -> None:
        """Note a failure."""
        what = _missing(error)
        self._last = time.monotonic()
        if what != self._what:
            self._first = self._last
        self._what = what

    def lasting(self) -> str:
        """Return the ailment if it has lasted for long, or an empty text."""
        lasts = self._last - self._first >= LACKING
        return f"has no {self._what} left" if self._what and lasts else ""


class Lacks:
    """The lacks of threads that repeat something until it succeeds."""

    def __init__(self) -> None:
        self._by_thread: dict[int, Lack] = {}

    def note(self, error: BaseException) -> None:
        """Note a failure of the calling thread."""
        self._by_thread.setdefault(threading.get_ident(), Lack()).note(error)

    def clear(self) -> None:
        """Note that the calling thread repeats nothing any more."""
        if self._by_thread:
            self._by_thread.pop(threading.get_ident(), None)

    def ailing(self) -> dict[str, str]:
        """Return the threads that lack a resource for long, each with its ailment."""
        found = list(self._by_thread.items())
        return {
            f"run thread {thread}": ailment
            for thread, lack in found
            if (ailment := lack.lasting())
        }


def _missing(error: BaseException) -> str:
    """Return the resource whose lack led to *error*, or an empty text."""
    waiting: list[BaseException | None] = [error]
    seen: list[BaseException | None] = []
    while waiting:
        cause = waiting.pop()
        if cause is None or cause in seen:
            continue
        if isinstance(cause, OSError) and cause.errno in _RESOURCES:
            return _RESOURCES[cause.errno]
        if isinstance(cause, MemoryError):
            return "memory"
        seen.append(cause)
        waiting += [cause.__cause__, cause.__context__]
    return _missing_descriptors()


def _missing_descriptors() -> str:
    """Try to open a file: the resolution of names, and others, hide why they fail."""
    try:
        os.close(os.open(os.devnull, os.O_RDONLY))
    except OSError as error:
        return _RESOURCES.get(error.errno or 0, "")
    return ""
