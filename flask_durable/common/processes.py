"""Values that belong to one process: made on first use, and again after a fork.

A forked child resets its buffers, locks and threads.
"""

from __future__ import annotations

import os
import threading
import typing as t
import weakref

T = t.TypeVar("T")


class PerProcess(t.Generic[T]):
    """Holds the result of *make*, made once in each process that asks for it.

    Connections do not survive a fork, and making a boto3 client is not thread-safe.

    :param make: Makes the value; called under a lock.
    """

    def __init__(self, make: t.Callable[[], T]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._value: T | None = None
        _holders.add(self)

    def get(self) -> T:
        """Return this process's value."""
        value = self._value
        if value is None:
            with self._lock:
                value = self._value
                if value is None:
                    value = self._value = self._make()
        return value

    def pop(self) -> T | None:
        """Return the value if one was made, and hold it no longer."""
        with self._lock:
            value, self._value = self._value, None
            return value

    def drop(self, value: T) -> bool:
        """Hold *value* no longer; return whether it was held."""
        with self._lock:
            held = self._value is value
            if held:
                self._value = None
            return held

    def _forget(self) -> None:
        # The lock is new as well: another thread may have held it at the fork.
        self._lock = threading.Lock()
        self._value = None


_holders: weakref.WeakSet[PerProcess[t.Any]] = weakref.WeakSet()


def _after_fork() -> None:
    for holder in list(_holders):
        holder._forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


class Forgetful(t.Protocol):
    """An object that has to be reset in a forked child."""

    def forget(self) -> None:
        """Start afresh. No other thread runs."""


_alive: weakref.WeakSet[Forgetful] = weakref.WeakSet()


def forget_after_fork(forgetful: Forgetful) -> None:
    """Have *forgetful* reset in each forked child, for as long as it exists."""
    _alive.add(forgetful)


def _forget_all() -> None:
    for forgetful in _alive:
        forgetful.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_all)
