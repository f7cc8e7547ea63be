"""The check that a worker has threads of the operating system.

gevent and eventlet replace Python's threads by greenlets, which take turns in one. A
step's body that computes would then stop the renewal of all leases, and its timeout,
which another thread has to raise, would not come.
"""

from __future__ import annotations

import sys

from ..errors import ConfigurationError


def check_threads() -> None:
    """Make sure that threads are those of Python's own library.

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
    # Not imported here: whatever replaced the threads is imported already.
    gevent = sys.modules.get("gevent.monkey")
    if gevent is not None and gevent.is_module_patched("threading"):
        return "gevent"
    eventlet = sys.modules.get("eventlet.patcher")
    if eventlet is not None and eventlet.is_monkey_patched("thread"):
        return "eventlet"
    return None
