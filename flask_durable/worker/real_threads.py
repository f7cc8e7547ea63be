"""A worker needs threads of the operating system.

gevent and eventlet replace Python's threads by greenlets, which take turns in one. A
step's body that computes would then keep the lease of no run alive, and its timeout,
which another thread has to raise, would not come.
"""

from __future__ import annotations

import sys

from ..errors import ConfigurationError


def check_threads() -> None:
    """Make sure that threads are what Python's own library makes.

    :raises ConfigurationError: gevent or eventlet has replaced them.
    """
    library = _replaced_by()
    if library is None:
        return
    raise ConfigurationError(
        f"{library} has replaced Python's threads in this process, and a worker needs "
        "real ones.",
        hint=f"Let {library} patch the web processes alone: not in the module that the "
        "worker imports, but by the web server's own option or configuration.",
    )


def _replaced_by() -> str | None:
    # Not imported here: what replaced the threads has been.
    gevent = sys.modules.get("gevent.monkey")
    if gevent is not None and gevent.is_module_patched("threading"):
        return "gevent"
    eventlet = sys.modules.get("eventlet.patcher")
    if eventlet is not None and eventlet.is_monkey_patched("thread"):
        return "eventlet"
    return None
