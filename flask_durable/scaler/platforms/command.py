"""A pool that is read and resized by two commands, for all other platforms."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import typing as t

from ...errors import ConfigurationError
from ...errors import PlatformError
from ..decision.observation import Size
from .base import Applied
from .base import Traits

#: Characters of a command's error output that get into an error.
_SHOWN = 200


class CommandPlatform:
    """A pool that is read and resized by two commands, run without a shell.

    :param read: The command that prints how many workers were asked for, and then,
        where it is known, how many run.
    :param apply: The command that asks for ``{n}`` workers. ``{victims}`` stands for
        the host names, separated by commas, of idle workers that are to go first.
    :param timeout: Seconds that a command may take.
    :param drains: True if a worker that goes ends its work.
    """

    def __init__(
        self,
        *,
        read: str | list[str],
        apply: str | list[str],
        timeout: float = 30.0,
        drains: bool = False,
    ) -> None:
        self._read = _words(read)
        self._apply = _words(apply)
        self._timeout = timeout
        if not any("{n}" in word for word in self._apply):
            raise ConfigurationError(
                "The apply command of the platform command does not have {n} in it.",
                hint='Write it as "./resize.sh {n}".',
            )
        chooses = any("{victims}" in word for word in self._apply)
        self.traits = Traits(picks_victims=drains or chooses, by_host=chooses)

    def describe(self) -> str:
        """Return the platform in one line, without arguments: they may be secret."""
        return f"command:{self._apply[0]}"

    def read(self) -> Size:
        """Return the size that the command prints.

        :raises PlatformError: The command fails, takes too long or prints other text.
        """
        printed = self._run(self._read)
        try:
            asked, running = (int(word) for word in (printed.split() * 2)[:2])
            if asked < 0 or running < 0 or len(printed.split()) > 2:
                raise ValueError
        except ValueError:
            raise PlatformError(
                f"{self._read[0]} did not print a number of workers, or two.",
                hint="Print how many were asked for, then how many run.",
            ) from None
        return Size.of(asked, running)

    def resize(self, workers: int, victims: t.Sequence[str] = ()) -> Applied:
        """Run the command.

        :raises PlatformError: A command fails or takes too long.
        """
        before = self.read().asked
        if workers != before:
            values = {"{n}": str(workers), "{victims}": ",".join(victims)}
            self._run([_filled(word, values) for word in self._apply])
        return Applied(before, workers)

    def _run(self, command: list[str]) -> str:
        try:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
                start_new_session=True,
            )
        except OSError as error:
            raise PlatformError(
                f"{command[0]} cannot be run: {error.strerror}.",
                code="platform.not_found",
                hint="Give its full path, or start it with an interpreter.",
            ) from error
        with process:
            output, complaint = self._wait(process, command)
        if process.returncode:
            lines = complaint.strip().splitlines() or ["no error output"]
            raise PlatformError(
                f"{command[0]} ended with {process.returncode}: {lines[-1][:_SHOWN]}"
            )
        return output

    def _wait(
        self, process: subprocess.Popen[str], command: list[str]
    ) -> tuple[str, str]:
        try:
            return process.communicate(timeout=self._timeout)
        except subprocess.TimeoutExpired:
            # The whole process group: a child would keep the pipes open.
            os.killpg(process.pid, signal.SIGKILL)
            raise PlatformError(
                f"{command[0]} took longer than {self._timeout:g} s.",
                code="platform.unavailable",
                hint="Give the platform a longer timeout.",
            ) from None


def _words(command: str | list[str]) -> list[str]:
    try:
        words = shlex.split(command) if isinstance(command, str) else list(command)
    except ValueError as error:
        raise ConfigurationError(
            f"A command of the platform command is malformed: {error}."
        ) from None
    if not words:
        raise ConfigurationError("A command of the platform command is empty.")
    return words


def _filled(word: str, values: t.Mapping[str, str]) -> str:
    for name, value in values.items():
        word = word.replace(name, value)
    return word
