"""The thread that keeps the processes of ``flask durable dev`` running."""

from __future__ import annotations

import os
import threading
import time
import typing as t

from ...errors import UnavailableError
from ...redis.embedded import EmbeddedServer
from ..output import note
from .children import Child
from .watch import SourceWatcher

#: Seconds between two looks at the processes, and at the server and the source.
_POLL_INTERVAL = 0.1
_LOOK_INTERVAL = 1.0

#: Seconds that a process may take until the next one is started.
_START_TIMEOUT = 60.0


class Keeper:
    """Starts the server and the processes, restarts those that die, stops all of them.

    One thread does so from beginning to end: on Linux each process is told to end when
    the thread that started it does.

    :param server: The embedded server, if there is one: started first, stopped last.
    :param make_children: A function that creates the processes, called once the server
        runs. They are started in this order.
    :param restart_on_change: Names of the processes that start again when the source
        changes.
    """

    def __init__(
        self,
        server: EmbeddedServer | None,
        make_children: t.Callable[[], list[Child]],
        *,
        restart_on_change: t.Collection[str] = (),
    ) -> None:
        self.server = server
        #: The error that ended the thread, ``None`` if it was asked to end.
        self.error: BaseException | None = None
        #: Set when the processes are being stopped.
        self.stopping = threading.Event()
        self._make_children = make_children
        self._restart_on_change = restart_on_change
        self._children: list[Child] = []
        self._started = threading.Event()
        self._finished = threading.Event()
        self._killing = False
        self._thread = threading.Thread(
            target=self._run, name="durable-dev", daemon=True
        )

    @property
    def pids(self) -> dict[str, int]:
        """The process ids of the running processes, by name."""
        pids = {child.name: child.pid for child in self._children if child.pid}
        if self.server is not None and self.server.owned and self.server.pid:
            pids["server"] = self.server.pid
        return pids

    def start(self) -> None:
        """Start everything.

        :raises DurableError: A process could not be started; nothing is left behind.
        """
        self._thread.start()
        try:
            self._started.wait()
        except BaseException:
            self.stop()
            raise
        if self.error is not None:
            self._thread.join()
            raise self.error

    def stop(self) -> None:
        """Stop everything and wait for the end of it; a second Ctrl-C kills."""
        self.stopping.set()
        while self._thread.is_alive():
            try:
                self._finished.wait()
                self._thread.join()
            except KeyboardInterrupt:
                self.kill()

    def kill(self) -> None:
        """Stop everything without waiting for work to end."""
        self._killing = True
        self.stopping.set()

    def _run(self) -> None:
        try:
            self._start_all()
            self._started.set()
            self._watch_all()
        except BaseException as error:
            self.error = error
        finally:
            self.stopping.set()
            self._stop_all()
            self._finished.set()
            self._started.set()

    def _start_all(self) -> None:
        if self.server is not None:
            self.server.start()
        for child in self._make_children():
            self._children.append(child)
            child.start()
            deadline = time.monotonic() + _START_TIMEOUT
            while not child.ready():
                if self.stopping.wait(_POLL_INTERVAL) or time.monotonic() > deadline:
                    raise UnavailableError(f"{child.name} did not start.")

    def _watch_all(self) -> None:
        watcher = SourceWatcher() if self._restart_on_change else None
        next_look = 0.0
        while not self.stopping.wait(_POLL_INTERVAL):
            for child in self._children:
                if message := child.poll():
                    note(message)
                self._give_up_on(child)
            if time.monotonic() < next_look:
                continue
            next_look = time.monotonic() + _LOOK_INTERVAL
            self._mend_server()
            if watcher is not None and (files := watcher.changed()):
                self._restart(files)

    def _give_up_on(self, child: Child) -> None:
        # The source of an app that is being edited may be broken for a while.
        if child.keeps_dying and child.name not in self._restart_on_change:
            hint = f"Its output is in {child.log}." if child.log else None
            raise UnavailableError(f"{child.name} keeps dying.", hint=hint)

    def _mend_server(self) -> None:
        if self.server is not None and not self.server.alive():
            note("The embedded server has died. It is restarted.")
            self.server.start()

    def _restart(self, files: list[str]) -> None:
        for child in self._children:
            if child.name in self._restart_on_change:
                note(
                    f"{os.path.relpath(files[0])} changed: restarting the {child.name}."
                )
                child.restart()

    def _stop_all(self) -> None:
        # A worker hands its runs back through the queue, so the queue stops after it.
        clients = [child for child in self._children if not child.is_server]
        for children in (clients, self._children):
            for child in children:
                child.terminate()
            while not all([child.stopped() for child in children]):
                if self._killing:
                    for child in children:
                        child.kill()
                time.sleep(_POLL_INTERVAL / 2)
        if self.server is not None:
            self.server.stop(timeout=0 if self._killing else 10)
