"""Clocks that a test moves: of Python processes, and of a server."""

from __future__ import annotations

import os
import pathlib
import shutil

import pytest

#: The folder whose module Python imports at its start.
_PYTHON = pathlib.Path(__file__).with_name("moved_clock")

#: The library that moves the clock of any program: Debian's package ``faketime``.
_LIBRARY = "libfaketimeMT.so.1"
_FOLDERS = ("/usr/lib", "/usr/local/lib")


class Clock:
    """The time of day of some processes.

    :param place: A file with the number of seconds that it is moved by.
    """

    def __init__(self, place: pathlib.Path) -> None:
        self._place = place
        self.shift = 0.0
        self.move(0)

    def move(self, shift: float) -> None:
        """Move it to *shift* seconds ahead of the right time."""
        self.shift = shift
        written = self._place.with_suffix(".new")
        written.write_text(f"{shift:+f}")
        written.replace(self._place)

    @property
    def of_python(self) -> dict[str, str]:
        """The environment of a Python process that has this clock."""
        return {"PYTHONPATH": str(_PYTHON), "TEST_CLOCK": str(self._place)}

    @property
    def of_program(self) -> dict[str, str]:
        """The same of any program; without ``faketime`` the test is skipped."""
        return {
            "LD_PRELOAD": str(_library()),
            "FAKETIME_TIMESTAMP_FILE": str(self._place),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }


def _library() -> pathlib.Path:
    if shutil.which("faketime"):
        for folder in map(pathlib.Path, _FOLDERS):
            for found in folder.glob(f"**/faketime/{_LIBRARY}"):
                return found
    reason = "the server's clock is moved by faketime, which is not installed"
    (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)
