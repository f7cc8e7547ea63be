"""Identifiers: time-ordered for events, derived for runs, random for tokens."""

from __future__ import annotations

import base64
import hashlib
import os
import socket
import time
import uuid

_SEPARATOR = "\x1f"

#: The beginning of a branch's own part of its id: no other id has a hyphen there.
_BRANCH = "b-"

#: The end of the id of a branch's function, see branches_start.lua. No function has it.
_MARK = "[branch]"

#: Random for each process.
_process = uuid.uuid4().hex


def _after_fork() -> None:
    global _process
    _process = uuid.uuid4().hex


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def new_event_id() -> str:
    """Return a new id of 26 characters that sorts by the time it was made."""
    return _encode(int(time.time() * 1000).to_bytes(6, "big") + os.urandom(10))


def derived_event_id(seed: str, index: int = 0) -> str:
    """Return the id that the event at *index* of a request with *seed* always gets.

    It makes a client's retry of the same request repeat the same ids.
    """
    return derived_id("event", seed, str(index))


def run_id(function_id: str, event_id: str) -> str:
    """Return the id of the one run that *function_id* gets for *event_id*."""
    return derived_id("run", function_id, event_id)


def failure_run_id(failed_run: str, generation: int) -> str:
    """Return the id of the failure handler's run, in the failed run's partition."""
    return f"{failed_run}.failure" + (f"-{generation}" if generation else "")


def child_run_id(parent: str, created: str, generation: str, step: str) -> str:
    """Return the id of the run that a step of *parent* starts.

    It lies in the parent's partition, at any depth.

    :param created: The time when the parent was created: its id may come again.
    :param generation: The number of retries of the parent: each has its own children.
    """
    root = parent.partition(".")[0]
    return f"{root}.{derived_id('child', parent, created, generation, step)}"


def branch_run_id(parent: str, created: str, step: str, place: str) -> str:
    """Return the id of the branch of a step of *parent*: the parent's with a suffix.

    It lies in the parent's partition, and is the same after a retry of the parent.

    :param created: The time when the parent was created: its id may come again.
    """
    # Short, as a run may have 1,000 of them; they need to differ within it alone.
    suffix = derived_id("branch", created, step, place)[:16]
    return f"{parent}.{_BRANCH}{suffix}"


def mapped_run_id(parent: str, created: str, step: str, place: str) -> str:
    """Return the id of the run that a step of *parent* starts for an item.

    It lies in the parent's partition, and is the same after a retry of the parent.

    :param created: The time when the parent was created: its id may come again.
    """
    root = parent.partition(".")[0]
    return f"{root}.{derived_id('mapped', parent, created, step, place)}"


def marked_function(function: str, run_id: str) -> str:
    """Return the id of a run's function as messages and the state server have it.

    That of a branch has a mark. A release from before branches has no function of that
    id, so it sets the run aside for others; else it would take the branch for a whole
    run.
    """
    plain = plain_function(function)
    return plain + _MARK if ancestors_of(run_id) else plain


def plain_function(function: str) -> str:
    """Return the id of a function without that mark."""
    return function.removesuffix(_MARK)


def ancestors_of(run_id: str) -> list[str]:
    """Return the runs that the run is a branch of, the nearest first.

    :returns: None of a run that is no branch.
    """
    found = []
    parent, _, suffix = run_id.rpartition(".")
    while suffix.startswith(_BRANCH):
        found.append(parent)
        parent, _, suffix = parent.rpartition(".")
    return found


def new_token() -> str:
    """Return a fencing token: unique by its claimant alone, compared for equality.

    The system is asked for each one. Two processes that were restored from one image
    share all state of this process, such as a counter or a generator. With it they
    would make the same token, and both would own the run.
    """
    return f"{_process}.{os.urandom(8).hex()}"


def new_process_name() -> str:
    """Return a name for a worker or consumer: its host, its process id, and chance."""
    return f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"


def pid_in(name: str) -> int | None:
    """Return the process id in a name that :func:`new_process_name` made."""
    pid = name.rpartition("-")[0].rpartition("-")[2]
    return int(pid) if pid.isdecimal() else None


def own_process() -> str:
    """Return the part of this process's tokens that :func:`process_of` returns."""
    return _process


def process_of(token: str) -> str:
    """Return the process that made *token*, as a text that only its copies share."""
    return token.partition(".")[0]


def derived_id(*parts: str) -> str:
    """Return 26 characters that depend on all *parts* and nothing else."""
    return _encode(hashlib.sha256(_SEPARATOR.join(parts).encode()).digest()[:16])


def _encode(raw: bytes) -> str:
    return base64.b32hexencode(raw).decode().rstrip("=").lower()
