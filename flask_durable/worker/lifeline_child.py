"""Tells the state server that a worker lives, while the worker itself cannot.

This text is run in an interpreter without site packages, so it imports the standard
library only. ``lifeline`` says what it is for.

Standard input begins with a line of JSON; then each byte is a beat of the worker::

    {"after": seconds of silence before the first sign, "every": seconds between two,
     "limit": seconds of silence after the last one, "parent": process id,
     "signs": [[file descriptor, command as it is sent], ...]}

It ends when the worker ends, or a connection fails.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import sys
import time
import typing as t

#: Seconds between two looks at the parent, at most.
LOOK_INTERVAL = 1.0

#: States of a process that is stopped, traced, dead, or not there.
_NOT_RUNNING = "TtXZ"


def runs(process: int) -> bool:
    """Return whether *process* runs, as far as the system shows it."""
    try:
        with open(f"/proc/{process}/stat", encoding="ascii", errors="replace") as file:
            state = file.read().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return not os.path.exists("/proc/self")  # a system that shows no states
    except OSError:
        return False
    return state not in _NOT_RUNNING


def watch(beats: int, told: dict[str, t.Any]) -> None:
    """Give signs while the worker is silent and runs; return when it is gone.

    :param beats: The file descriptor that the beats come from.
    """
    links = [
        (socket.socket(fileno=number), command.encode("latin-1"))
        for number, command in told["signs"]
    ]
    sockets = {link.fileno(): link for link, _ in links}
    heard = time.monotonic()
    signed = 0.0
    while os.getppid() == told["parent"]:
        wait = min(told["every"], LOOK_INTERVAL)
        readable, _, _ = select.select([beats, *sockets], [], [], wait)
        if beats in readable:
            if not os.read(beats, 65536):
                return
            heard = time.monotonic()
        for number in sockets.keys() & set(readable):
            if not sockets[number].recv(65536):
                return
        now = time.monotonic()
        silent = told["after"] <= now - heard <= told["limit"]
        if silent and now - signed >= told["every"] and runs(told["parent"]):
            signed = now
            for link, command in links:
                link.send(command)


def main() -> None:
    """Watch the process that started this one."""
    # A signal to the whole group is meant for the worker, which may take its time.
    for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(signum, signal.SIG_IGN)
    beats = sys.stdin.fileno()
    line = b""
    while not line.endswith(b"\n"):
        byte = os.read(beats, 1)
        if not byte:
            return
        line += byte
    with contextlib.suppress(OSError):  # a connection has ended
        watch(beats, json.loads(line))


if __name__ == "__main__":
    main()
