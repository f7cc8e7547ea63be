"""Keeps the runs of a worker that is alive but cannot renew its leases.

A step that holds the interpreter's lock, such as a regular expression that backtracks,
stops all threads of its process, the one that renews the leases included. Other workers
see the leases end, as those of a dead process do, and would begin again what the other
threads of this one execute. Nothing inside the process can prevent that. So each worker
has a small child process, which has an interpreter of its own:

::

    the worker beats, four times a lease ───────────► the child is silent
    no beat for half a lease, and the worker runs ──► the child writes "alive", valid
                                                      for a lease, until the next beat
    the worker is gone, stopped, or silent for ─────► the child is silent: the worker's
    20 leases                                         runs are taken over as ever

While a process is "alive" the sweepers take none of its runs, though their leases are
over. G3 holds as before: the worker that takes a run voids its token, and a late
attempt renews its lease before it begins another body. A dead worker takes its child
with it, at the child's next look. A worker that is stopped (``SIGSTOP``), or whose host
is gone, gives no sign.

The child uses connections that the worker has made, and needs no client of its own. A
connection with TLS cannot be shared. With TLS, and where the child cannot be started, a
worker that cannot renew its leases loses its runs.

The child is started again when a connection of it fails. That needs no file of the
release, nor of its virtual environment, since they may be removed by then.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import socket
import subprocess
import sys
from importlib import resources

from ..common.ids import own_process
from ..common.loops import Loop
from ..common.safe_logging import get_logger
from ..store.liveness import SignConnections
from ..store.run_store import RunStore

#: Leases of silence after which the child stops writing "alive": a process that stands
#: still for good must not keep its runs.
LIFELINE_LEASES = 20

#: Beats in the time of a lease.
LIFELINE_BEATS = 4

#: Seconds until a child that could not be started, or has ended, is started again.
LIFELINE_RESTART_SECONDS = 5.0

#: Seconds that the child has to end by itself.
_END_PATIENCE = 0.5

#: The child's program, read before it is needed.
_PROGRAM = (resources.files(__package__) / "lifeline_child.py").read_text("utf-8")

#: The interpreter outside the virtual environment: the child needs no packages.
_PYTHON: str = getattr(sys, "_base_executable", None) or sys.executable

logger = get_logger(__name__)


class Lifeline:
    """The child process of one worker, and the thread that beats.

    :param store: The store whose runs are kept.
    """

    def __init__(self, store: RunStore) -> None:
        self._store = store
        self._child: subprocess.Popen[bytes] | None = None
        self._connections: SignConnections | None = None
        # A pipe without a reader stops a beat, and harms nothing.
        self._loop = Loop(
            "durable-lifeline", self._turn, self._failed, patience=math.inf
        )

    def start(self) -> None:
        """Start the child, and beat on a thread of its own."""
        self._loop.start()

    def stop(self, timeout: float | None = None) -> None:
        """End the thread and the child.

        :param timeout: Seconds to wait for the thread; ``None`` for as long as it
            takes.
        """
        if self._loop.stop(timeout):
            self._end()

    @property
    def pid(self) -> int | None:
        """The process id of the child, or ``None`` without one."""
        return None if self._child is None else self._child.pid

    def _turn(self) -> float:
        if self._child is None or self._child.poll() is not None:
            self._end()
            if not self._begin():
                return LIFELINE_RESTART_SECONDS
        assert self._child is not None
        assert self._child.stdin is not None
        self._child.stdin.write(b".")
        return self._store.lease / LIFELINE_BEATS

    def _failed(self, error: BaseException) -> float:
        logger.debug(
            "There is no lifeline: %s", error, extra={"action": "lifeline_failed"}
        )
        self._end()
        return LIFELINE_RESTART_SECONDS

    def _begin(self) -> bool:
        signs = []
        self._connections = SignConnections(self._store, own_process())
        for connection, command in self._connections.signs:
            link = connection._sock
            if type(link) is not socket.socket:
                return False  # the state of its encryption is in this process
            signs.append((link.fileno(), command.decode("latin-1")))
        self._child = subprocess.Popen(
            [_PYTHON, "-I", "-S", "-c", _PROGRAM],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=[number for number, _ in signs],
            bufsize=0,
            start_new_session=True,
        )
        lease = self._store.lease
        told = {
            "after": lease / 2,
            "every": lease / LIFELINE_BEATS,
            "limit": lease * LIFELINE_LEASES,
            "parent": os.getpid(),
            "signs": signs,
        }
        assert self._child.stdin is not None
        self._child.stdin.write(json.dumps(told).encode() + b"\n")
        return True

    def _end(self) -> None:
        child, self._child = self._child, None
        if child is not None:
            assert child.stdin is not None
            with contextlib.suppress(OSError):
                child.stdin.close()
            try:
                child.wait(_END_PATIENCE)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
        connections, self._connections = self._connections, None
        if connections is not None:
            connections.close()
