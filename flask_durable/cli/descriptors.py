"""The standard descriptors 0 to 2, which a process may be started without."""

from __future__ import annotations

import contextlib
import os

#: The number of standard descriptors: input, output and errors.
STANDARD_DESCRIPTORS = 3


def fill_standard() -> None:
    """Open the null device for each standard descriptor that is closed.

    The system gives the lowest free numbers to the next files that are opened. A
    connection to a server would be number 1 or 2, and a C library's warning, or the
    output of a child process, would go into its protocol.
    """
    with contextlib.suppress(OSError):  # a system without the null device
        while (opened := os.open(os.devnull, os.O_RDWR)) < STANDARD_DESCRIPTORS:
            os.set_inheritable(opened, True)  # child processes are to find it too
        os.close(opened)
