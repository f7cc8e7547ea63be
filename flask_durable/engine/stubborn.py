"""Bodies that catch every signal, in a loop.

::

    while True:
        try:
            step.sleep("wait", "1h")
            return
        except:  # also catches the signal that the run is suspended
            pass

No signal escapes a bare ``except:``. But an error that is raised *in its handler* is
outside its ``try``. So once a body has caught the signal more often than clean-up code
ever does, its frames are traced, and the signal is raised again at the next line that
any of them executes: that is in the handler. Then the thread is free. If a loop around
the loop catches even that, each turn waits.
"""

from __future__ import annotations

import sys
import time
import types
import typing as t

from ..common.safe_logging import get_logger
from .control import Signal

#: Times that a body may catch the signal. Steps in ``finally`` blocks meet it too, once
#: for each block.
MAX_CATCHES = 20

#: Seconds that each further catch takes, so that they do not keep a core busy.
PAUSE_SECONDS = 0.5

logger = get_logger(__name__)


def stop_body(signal: Signal, catches: int) -> None:
    """Have *signal* raised again wherever the calling body catches it.

    The code that raises it next calls this. A body in C code cannot be stopped so.

    :param catches: The number of times that the body has caught it.
    """
    if catches > MAX_CATCHES * 2:
        time.sleep(PAUSE_SECONDS)
    frames = _body_frames(sys._getframe(1))
    if not frames:
        return
    innermost = frames[0]
    logger.error(
        "A body goes on after its run was given up: the code around line %d of %s "
        'catches everything. Write "except Exception:".',
        innermost.f_lineno,
        innermost.f_code.co_filename,
        extra={"action": "signal_swallowed"},
    )
    before = sys.gettrace()

    def raise_again(frame: types.FrameType, event: str, arg: t.Any) -> t.Any:
        if event != "line" or frame not in frames:
            return raise_again
        for one in frames:
            one.f_trace = None
        sys.settrace(before)
        raise signal

    for frame in frames:
        frame.f_trace = raise_again
    # New calls are not traced, only the frames that exist.
    sys.settrace(lambda *_: None)


def _body_frames(frame: types.FrameType | None) -> list[types.FrameType]:
    """Return the frames of the user's code below the executor's, inmost first."""
    package = __name__.partition(".")[0] + "."
    found: list[types.FrameType] = []
    while frame is not None:
        ours = str(frame.f_globals.get("__name__", "")).startswith(package)
        if not ours:
            found.append(frame)
        elif frame.f_code.co_name == "_call_body":
            return found
        frame = frame.f_back
    return []
