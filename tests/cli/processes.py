"""Questions about processes that a test does not own."""

from __future__ import annotations

import pathlib


def gone(pid: int) -> bool:
    """Return whether the process *pid* has ended, if only as a zombie."""
    try:
        fields = (
            pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        )
    except (FileNotFoundError, ProcessLookupError):
        return True
    return fields[0] in ("Z", "X")


def descendants(pid: int) -> set[int]:
    """Return the processes that *pid* started, directly or not, and that still run."""
    by_parent = _by_parent()
    found: set[int] = set()
    waiting = [pid]
    while waiting:
        for child in by_parent.get(waiting.pop(), ()):
            found.add(child)
            waiting.append(child)
    return found


def children(pid: int) -> set[int]:
    """Return the processes that *pid* started itself, and that still run."""
    return set(_by_parent().get(pid, ()))


def _by_parent() -> dict[int, list[int]]:
    found: dict[int, list[int]] = {}
    for stat in pathlib.Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        found.setdefault(int(fields[1]), []).append(int(stat.parent.name))
    return found
