"""The processes of ``flask durable dev``: started, watched, restarted and stopped."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
import typing as t
from pathlib import Path

from ...common.guard import guarded

#: Seconds before the first restart of a process that died, doubled up to the longest.
FIRST_DELAY = 0.5
LONGEST_DELAY = 5.0

#: Seconds after which a process counts as healthy: its earlier deaths are forgotten.
HEALTHY_AFTER = 10.0

#: Deaths in a row after which a process counts as one that keeps dying.
MAX_DEATHS = 5


class Child:
    """One process of the stack, in a process group of its own.

    One thread calls all methods, and it outlives the process (see
    :func:`~flask_durable.common.guard.guarded`).

    :param name: The name of the process in messages.
    :param command: The program and its arguments.
    :param environment: The whole environment of the process.
    :param grace: Seconds from ``SIGTERM`` until it is killed.
    :param log: A file for its output; ``None``: the output of this process.
    :param is_server: True if the other processes need it until they have ended.
    :param ready: A function that returns whether the next process may be started.
    """

    def __init__(
        self,
        name: str,
        command: t.Sequence[str],
        environment: t.Mapping[str, str],
        *,
        grace: float = 5.0,
        log: Path | None = None,
        is_server: bool = False,
        ready: t.Callable[[], bool] = lambda: True,
    ) -> None:
        self.name = name
        self.command = list(command)
        self.environment = dict(environment)
        self.grace = grace
        self.log = log
        self.is_server = is_server
        self.ready = ready
        #: Deaths in a row, each before :data:`HEALTHY_AFTER`.
        self.deaths = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._started = 0.0
        self._next_start = 0.0
        self._kill_at: float | None = None

    @property
    def pid(self) -> int | None:
        """The process id, ``None`` while the process does not run."""
        return self._process.pid if self._process else None

    @property
    def keeps_dying(self) -> bool:
        """True if it died too often in a row, and has not been healthy since."""
        lives = self._process is not None
        healthy = lives and time.monotonic() - self._started >= HEALTHY_AFTER
        return self.deaths >= MAX_DEATHS and not healthy

    def start(self) -> None:
        """Start the process."""
        with contextlib.ExitStack() as stack:
            output = stack.enter_context(self.log.open("ab")) if self.log else None
            self._process = subprocess.Popen(
                guarded(self.command),
                env=self.environment,
                # The terminal's Ctrl-C is for this process alone, which stops the
                # others in order. A background process must not read the terminal.
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                process_group=0,
            )
        self._started = time.monotonic()
        self._kill_at = None

    def poll(self) -> str | None:
        """Restart the process when it died, once its delay is over; never blocks.

        :returns: A sentence about the event, if there was one.
        """
        now = time.monotonic()
        if self._process is None:
            if now >= self._next_start:
                self.start()
            return None
        code = self._reap()
        if code is None:
            return None
        if self._kill_at is not None:  # it was asked to end
            self._next_start = now
            return None
        return self._died(code, now)

    def terminate(self) -> None:
        """Ask the process to end; :meth:`poll` kills it once its grace is over."""
        if self._process is not None and self._kill_at is None:
            self._kill_at = time.monotonic() + self.grace
            self._process.terminate()

    def restart(self) -> None:
        """Let the next :meth:`poll` that finds the process gone start it at once."""
        self.deaths = 0
        self._next_start = 0.0
        self.terminate()

    def stopped(self) -> bool:
        """Return whether the process is gone; kills it once its grace is over."""
        return self._process is None or self._reap() is not None

    def kill(self) -> None:
        """Kill the process and all processes of its group."""
        if self._process is not None:
            self._kill_at = 0.0
            self._signal_group(signal.SIGKILL)

    def _reap(self) -> int | None:
        """Return the exit code once the process is gone, and forget it."""
        assert self._process is not None
        code = self._process.poll()
        if code is None:
            if self._kill_at is not None and time.monotonic() >= self._kill_at:
                self._signal_group(signal.SIGKILL)
            return None
        self._signal_group(signal.SIGKILL)  # processes that it left behind
        self._process = None
        return code

    def _died(self, code: int, now: float) -> str:
        lived = now - self._started
        self.deaths = 1 if lived >= HEALTHY_AFTER else self.deaths + 1
        delay = min(FIRST_DELAY * 2 ** (self.deaths - 1), LONGEST_DELAY)
        self._next_start = now + delay
        how = f"exit code {code}" if code >= 0 else f"signal {-code}"
        return f"{self.name} died ({how}). It starts again in {delay:g} s."

    def _signal_group(self, signum: int) -> None:
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signum)


def all_keep_dying(children: t.Collection[Child]) -> bool:
    """Return whether there are *children*, and none of them can do any work."""
    return bool(children) and all(child.keeps_dying for child in children)
