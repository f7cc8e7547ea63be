"""Tells failures that are the end of this process from failures of a run.

=========================================  ==========================================
the body raised                            the reason
=========================================  ==========================================
``SystemExit`` or ``KeyboardInterrupt``    a server that ends its process: as gunicorn
from a signal's handler                    does in the middle of a slow request
the end of a program that the body         a deploy that signals the whole process
started, by a signal, in a drain           group: as systemd and Heroku do
=========================================  ==========================================

Both are interruptions, which do not count: the run is handed back and the step begins
again elsewhere. Any other error of a body is its failure, in a drain too: a charge that
was declined is not repeated because of a deploy.

A program's end is known by the error (``CalledProcessError`` and its like have the exit
status), or by the program itself in a variable of the code that raised: most code looks
at ``returncode`` and raises an error of its own. The program may die before this
process has seen its own signal, so such a failure waits a moment for it.
"""

from __future__ import annotations

import inspect
import signal
import subprocess
import sys
import threading
import traceback
import types
import typing as t

from ..functions.callables import underlying
from ..functions.causes import causes_of

if t.TYPE_CHECKING:
    from .attempt import Attempt

#: Seconds within which every member of a process group has seen the same signal.
SAME_SIGNAL_SECONDS = 1.0

#: The signals that ask for an end. ``SIGKILL`` is not among them: the kernel sends it
#: too, when memory is short, and this process would be dead as well.
_ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

#: Exit statuses of a program that such a signal ended, and of a shell that reports one;
#: and 255, that of ffmpeg, which handles the signal.
_STATUSES = frozenset([-n for n in _ENDING] + [128 + n for n in _ENDING] + [255])

#: Types, other than ``Popen``, that hold an exit status: module, class, attribute.
_PROGRAMS = (
    ("subprocess", "CompletedProcess", "returncode"),
    ("asyncio.subprocess", "Process", "returncode"),
    ("multiprocessing.process", "BaseProcess", "exitcode"),
)

#: The names of a program's exit status in the errors of libraries.
_STATUS_NAMES = ("returncode", "exit_code", "exitcode", "retcode", "return_code")


def hand_back_if_ending(attempt: Attempt, error: BaseException) -> None:
    """Hand the run back if *error* is the end of this process, not of the run alone.

    :raises Signal: The run was handed back.
    """
    end = ends_process(error)
    if end is not None:
        attempt.process_end = end
        attempt.hand_back(reason="its process ends")
    if is_of_drain(error, attempt.services.draining):
        attempt.hand_back(delay=1.0)


def ends_process(error: BaseException) -> BaseException | None:
    """Return the error within *error* by which a signal's handler ends this process.

    Handlers are called in the main thread, between two instructions of the body.
    """
    if threading.current_thread() is not threading.main_thread():
        return None
    for one in causes_of(error):
        if isinstance(one, (SystemExit, KeyboardInterrupt)) and _is_of_handler(one):
            return one
    return None


def _is_of_handler(error: BaseException) -> bool:
    codes = set()
    for number in signal.valid_signals():
        handler = signal.getsignal(number)
        if handler is signal.default_int_handler and type(error) is KeyboardInterrupt:
            return True
        codes.add(_code_of(handler))
    codes.discard(None)
    return any(
        frame.f_code in codes for frame, _ in traceback.walk_tb(error.__traceback__)
    )


def _code_of(handler: t.Any) -> types.CodeType | None:
    return getattr(underlying(handler), "__code__", None)


def is_of_drain(error: BaseException, draining: threading.Event) -> bool:
    """Return whether the drain's signal ended a program that the body had started.

    :param draining: The event that is set when this process drains. A moment is
        waited for it if a program ended by a signal.
    """
    ended = any(_tells_end(one) or _holds_ended(one) for one in causes_of(error))
    return ended and draining.wait(SAME_SIGNAL_SECONDS)


def _tells_end(error: BaseException) -> bool:
    if _is_a(error, "concurrent.futures.process", "BrokenProcessPool"):
        return True
    return any(_is_status(_look(error, name)) for name in _STATUS_NAMES)


def _holds_ended(error: BaseException) -> bool:
    for frame, _ in traceback.walk_tb(error.__traceback__):
        variables = _variables_of(frame)
        own = _look(variables.get("self"), "__dict__")
        held = [*variables.values(), *(own.values() if isinstance(own, dict) else ())]
        if any(_is_ended(value) for value in held):
            return True
    return False


def _variables_of(frame: types.FrameType) -> dict[str, t.Any]:
    if not frame.f_code.co_flags & inspect.CO_OPTIMIZED:
        return {}  # a module's or class's: no code of a body
    found = frame.f_locals
    variables = dict(found)
    if isinstance(found, dict):
        # Until Python 3.13 this is a copy, which the frame keeps for as long as the
        # error's traceback keeps the frame.
        found.clear()
    return variables


def _is_ended(value: object) -> bool:
    if issubclass(type(value), subprocess.Popen):
        return _is_status(t.cast("subprocess.Popen[t.Any]", value).poll())
    for module, kind, name in _PROGRAMS:
        if _is_a(value, module, kind):
            return _is_status(_look(value, name))
    return False


def _is_a(value: object, module: str, name: str) -> bool:
    """Return whether *value* is of a class, without importing the class's module.

    It goes by the type alone: ``isinstance`` may run code of the value.
    """
    kind = getattr(sys.modules.get(module), name, None)
    return kind is not None and issubclass(type(value), kind)


def _look(value: object, name: str) -> object:
    try:
        return getattr(value, name, None)
    except BaseException:  # a user's property
        return None


def _is_status(value: object) -> bool:
    return type(value) is int and value in _STATUSES
