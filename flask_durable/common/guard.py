"""Run a command that ends when its parent does, even when the parent is killed.

This file is run by its path, in an interpreter without site packages; it imports the
standard library only.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import types
import typing as t

#: Seconds between two looks at the parent, where the kernel does not report its death.
POLL_INTERVAL = 0.5

#: Seconds that the command has to end by itself after its parent's death there.
GRACE = 10.0

_PR_SET_PDEATHSIG = 1


def guarded(command: t.Sequence[str]) -> list[str]:
    """Return the arguments that run *command* for as long as this process lives.

    On Linux the command gets ``SIGTERM`` when the **thread** that started it ends, so
    start it from a thread that outlives it, such as the main thread. Elsewhere a
    small process stays between the two and checks the parent twice a second.
    """
    # Not preexec_fn, which may deadlock in a parent that has threads.
    return [sys.executable, "-I", "-S", __file__, str(os.getpid()), *command]


def become(parent: int, command: list[str]) -> t.NoReturn:
    """Ask the kernel for ``SIGTERM`` at the parent's death, and become *command*."""
    import ctypes

    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    # A parent that died before the call above is no longer reported.
    if os.getppid() != parent:
        sys.exit(1)
    os.execvp(command[0], command)


def stay(parent: int, command: list[str]) -> int:
    """Run *command* as a child, end it at the parent's death, return its exit code."""
    child = subprocess.Popen(command, close_fds=False)

    def forward(signum: int, frame: types.FrameType | None) -> None:
        child.send_signal(signum)

    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, forward)
    while True:
        try:
            code = child.wait(POLL_INTERVAL)
        except subprocess.TimeoutExpired:
            if os.getppid() != parent:
                return _end(child)
        else:
            return code if code >= 0 else 128 - code


def _end(child: subprocess.Popen[bytes]) -> int:
    child.terminate()
    try:
        child.wait(GRACE)
    except subprocess.TimeoutExpired:
        child.kill()
    return 1


def main() -> t.NoReturn:
    """Run the command line that :func:`guarded` made."""
    parent, command = int(sys.argv[1]), sys.argv[2:]
    if sys.platform == "linux":
        become(parent, command)
    sys.exit(stay(parent, command))


if __name__ == "__main__":
    main()
