"""Notices changes of the app's source, by modification times."""

from __future__ import annotations

import os
import sys
import sysconfig
from pathlib import Path

#: Folders of installed packages, which are not watched.
_INSTALLED = ("site-packages", "dist-packages")


class SourceWatcher:
    """Watches the project's modules that are imported, and the files beside them.

    Installed packages and the standard library are left out. A folder inside is
    followed when it is a package, so that modules which are imported later are seen.
    """

    def __init__(self) -> None:
        self._folders = _project_folders()
        self._seen = self._times()

    def changed(self) -> list[str]:
        """Return the files that changed, came or went since the last call."""
        before, self._seen = self._seen, self._times()
        paths = before.keys() | self._seen.keys()
        return sorted(p for p in paths if before.get(p) != self._seen.get(p))

    def _times(self) -> dict[str, int]:
        times: dict[str, int] = {}
        for folder in self._folders:
            _collect(folder, times)
        return times


def _project_folders() -> set[str]:
    standard = [sysconfig.get_path(name) for name in ("stdlib", "platstdlib")]
    folders = set()
    for module in list(sys.modules.values()):
        file = getattr(module, "__file__", None)
        if not isinstance(file, str) or not file.endswith(".py"):
            continue
        path = Path(file).resolve()
        if any(name in path.parts for name in _INSTALLED):
            continue
        if not any(path.is_relative_to(place) for place in standard):
            folders.add(str(path.parent))
    return folders


def _collect(folder: str, times: dict[str, int]) -> None:
    try:
        entries = list(os.scandir(folder))
    except OSError:
        return
    for entry in entries:
        try:
            if entry.name.endswith(".py"):
                times[entry.path] = entry.stat().st_mtime_ns
            elif entry.is_dir() and os.path.exists(f"{entry.path}/__init__.py"):
                _collect(entry.path, times)
        except OSError:  # it went away while we looked
            continue
