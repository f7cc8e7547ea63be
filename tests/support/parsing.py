"""Syntax trees, in a process whose other threads may be making some too."""

from __future__ import annotations

import ast
import gc


def parsed(text: str) -> ast.Module:
    """Return the syntax tree of a module's text.

    CPython 3.11 counts the depth of a tree in one place for all threads. A thread that
    formats a traceback makes trees, and runs in between if the garbage collector calls
    a finaliser here: then a count that is another thread's is taken for a fault.
    """
    collecting = gc.isenabled()
    gc.disable()
    try:
        return ast.parse(text)
    finally:
        if collecting:
            gc.enable()
