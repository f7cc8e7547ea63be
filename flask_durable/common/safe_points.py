"""Finds the points where another thread may be interrupted with nothing left held.

An asynchronous exception can come between taking a lock and the block that gives it
back, or in the middle of a clean-up: then the lock is held for ever. So the stack of
the thread is checked first, from the step's body inwards:

*Exactly there.* The thread stands in a call, at a function's start or at a loop's
backward jump. CPython looks for an exception there, so it is raised at the very
instruction that was checked. A thread that stands elsewhere, such as in ``with lock:``,
would go on to a place that was not checked.

*Not on a threshold.* No frame enters, leaves or finalises an object, or imports. No
frame of a library takes or gives back a resource. No frame is ours, but for those that
call the body. Resources under ``with`` or ``try … finally`` in outer frames are given
back as after any exception.

*Not where state is shared.* The innermost frame is not in a module that keeps state
which threads share. Only a wait for an event or a future is allowed: it ends for all
that wait. Other waits wake one waiter alone; to interrupt that one could lose the
message.

A thread that stands at no such point is looked at again. Two kinds of code cannot be
seen: a body's own ``finally`` blocks, and the code between ``lock.acquire()`` and
``try``, except for the call of ``acquire`` itself. ``with`` is safe.

This needs an interpreter with a global lock.
"""

from __future__ import annotations

import concurrent.futures
import ctypes
import dis
import functools
import itertools
import operator
import sys
import sysconfig
import threading
import types
import typing as t

from .copies import end_if_copied
from .ids import own_process

_raise = ctypes.pythonapi.PyThreadState_SetAsyncExc
_raise.argtypes = (ctypes.c_ulong, ctypes.py_object)
_raise.restype = ctypes.c_int
_NOTHING = ctypes.py_object()  # a NULL pointer: takes back what is pending

#: Instructions at which a thread meets an exception that was raised in it. (PRECALL is
#: the call, in 3.11, once it is specialised.)
_CHECKED = frozenset(
    dis.opmap[name]
    for name in (
        "CALL",
        "CALL_FUNCTION_EX",
        "CALL_KW",
        "JUMP_BACKWARD",
        "PRECALL",
        "RESUME",
    )
    if name in dis.opmap
)

#: The instruction at which a function begins, or a generator goes on.
_BEGINS = dis.opmap["RESUME"]

#: From 3.14 on the call after it is that of ``__enter__`` or ``__exit__``.
_SPECIAL = dis.opmap.get("LOAD_SPECIAL")
_CACHE = dis.opmap["CACHE"]
#: Instructions that enter a context.
_ENTERS = frozenset(
    dis.opmap[name]
    for name in ("BEFORE_WITH", "BEFORE_ASYNC_WITH", "LOAD_SPECIAL")
    if name in dis.opmap
)

#: Functions that enter, leave or finalise an object.
_THRESHOLDS = frozenset(("__enter__", "__exit__", "__aenter__", "__aexit__", "__del__"))

#: Functions of libraries that take a resource or give it back.
_TAKING = frozenset(
    (
        "_acquireLock",
        "_acquire_restore",
        "_checkin",
        "_checkout",
        "_get_conn",
        "_put_conn",
        "_releaseLock",
        "_release_save",
        "acquire",
        "acquire_lock",
        "close",
        "disconnect",
        "dispose",
        "get_connection",
        "getconn",
        "invalidate",
        "putconn",
        "release",
        "release_connection",
        "release_lock",
        "rollback",
    )
)

#: Modules (and those below them) that no frame may be in.
_FORBIDDEN = (
    "importlib._bootstrap",
    "importlib._bootstrap_external",
    "sqlalchemy.pool",
    "sqlalchemy.util.queue",
)

#: Modules that share state between threads: the innermost frame may not be in them.
_SHARED = (
    "_weakrefset",
    "concurrent.futures",
    "contextlib",
    "multiprocessing",
    "queue",
    "sqlalchemy.event",
    "sqlalchemy.orm",
    "sqlalchemy.util",
    "threading",
    "weakref",
)

#: Functions whose wait ends for all that wait.
_TOLD_TO_ALL = frozenset(
    (
        threading.Event.wait.__code__,
        concurrent.futures.Future.result.__code__,
        concurrent.futures.Future.exception.__code__,
    )
)

#: Our own modules, and those of them that hold no resource while they call a body.
_OWN = __name__.partition(".")[0]
_CALLERS = tuple(
    f"{_OWN}.{name}"
    for name in (
        "events.schemas",
        "forwarding",
        "functions.function",
        "functions.step_function",
        "clients.http",
        "serialization",
    )
)

_LIBRARIES = tuple(
    {sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")}
)


def call(
    fn: t.Callable[..., t.Any],
    args: t.Sequence[t.Any],
    kwargs: dict[str, t.Any],
    then: t.Callable[[t.Any], t.Any] | None = None,
) -> t.Any:
    """Call a body. Only the code that this calls may be interrupted.

    A process that the body forks does not come back from here, see :mod:`~.copies`.

    :param then: A function of the body's result; what it returns is returned.
    """
    process = own_process()
    try:
        result = fn(*args, **kwargs)
        return result if then is None else then(result)
    finally:
        # CPython looks for a pending exception where a function begins. One that was
        # raised at the body's very end arrives here at the latest.
        end_if_copied(process)


def try_to_raise(thread: int, kind: type[BaseException]) -> bool:
    """Raise *kind* in *thread* if it stands where that is safe.

    :param thread: Identifier of a thread other than the calling one.
    :returns: True if it was raised; ``False`` also if the thread is in no body.
    """
    innermost = sys._current_frames().get(thread)
    if innermost is None:
        return False
    place = innermost.f_lasti
    if not _is_safe(innermost, place):
        return False
    return _raise_at(thread, kind, innermost, place)


class _Flushed(BaseException):
    """Raised by a thread in itself, see :func:`take_back`."""


def take_back() -> None:
    """Take back an exception that was raised in the calling thread and is pending.

    CPython 3.11 lowers its flag that an exception is pending only when it delivers one.
    A flag that stays up makes each call slower, and the interpreter would hang for ever
    at the first call that a debugger or a coverage tool traces. So one more exception
    is raised here, and caught.
    """
    thread = threading.get_ident()
    _raise(thread, _NOTHING)
    try:
        _raise(thread, _Flushed)
        _arrive()
    except _Flushed:
        pass


def _arrive() -> None:
    """Begin a function: CPython looks for a pending exception here at the latest."""


def _raise_at(
    thread: int, kind: type[BaseException], frame: types.FrameType, place: int
) -> bool:
    """Raise *kind* if the thread still stands at *place* of *frame*.

    One call, without a line of Python in it, checks and raises. Between two lines
    the calling thread could lose the interpreter, and the other one would go on.
    """
    now = map(operator.itemgetter(thread), map(operator.call, (sys._current_frames,)))
    same_frame = map(functools.partial(operator.is_, frame), now)
    same_place = map(
        functools.partial(operator.eq, place),
        map(operator.attrgetter("f_lasti"), (frame,)),
    )
    still_there = map(operator.and_, same_frame, same_place)
    raised = itertools.starmap(
        _raise, itertools.compress(((thread, kind),), still_there)
    )
    try:
        return 1 in tuple(raised)
    except KeyError:  # the thread has ended
        return False


def _is_safe(innermost: types.FrameType, place: int) -> bool:
    code = innermost.f_code.co_code
    if place < 0 or _calls_special(code, place) or _calls_acquire(innermost, place):
        return False
    exactly = code[place] in _CHECKED
    begins = code[place] == _BEGINS
    frame: types.FrameType | None = innermost
    while frame is not None:
        if frame.f_code is call.__code__:
            return exactly or frame is not innermost
        if _is_threshold(frame):
            return False
        # A function that only begins has done nothing yet.
        stands = innermost.f_back if begins else innermost
        if frame is stands and _is_shared(frame):
            return False
        # It would be raised after this instruction: harmless if nothing is entered or
        # left on the way, and no library is left half-way.
        if not exactly and (_enters(frame.f_code) or _is_library(frame.f_code)):
            return False
        frame = frame.f_back
    return False  # not in a body: it has not begun, or has ended


def _is_threshold(frame: types.FrameType) -> bool:
    """Return whether *frame* takes or gives back a resource, or is one of ours."""
    name = frame.f_code.co_name
    module = str(frame.f_globals.get("__name__", ""))
    if name in _THRESHOLDS or _within(module, _FORBIDDEN):
        return True
    if _within(module, (_OWN,)) and not _within(module, _CALLERS):
        return True
    return name in _TAKING and _is_library(frame.f_code)


def _is_shared(frame: types.FrameType) -> bool:
    """Return whether *frame* may be changing state that threads share."""
    module = str(frame.f_globals.get("__name__", ""))
    return _within(module, _SHARED) and not _is_wait(frame)


def _is_wait(frame: types.FrameType) -> bool:
    """Return whether *frame* waits for an event or a future, which tell all waiters.

    Other waits wake one waiter alone: to interrupt that one would lose the message.
    """
    caller = frame.f_back
    return (
        frame.f_code is threading.Condition.wait.__code__
        and caller is not None
        and caller.f_code in _TOLD_TO_ALL
    )


def _within(module: str, homes: t.Iterable[str]) -> bool:
    return any(module == home or module.startswith(f"{home}.") for home in homes)


def _is_library(code: types.CodeType) -> bool:
    return code.co_filename.startswith((*_LIBRARIES, "<frozen "))


def _enters(code: types.CodeType) -> bool:
    return not _ENTERS.isdisjoint(code.co_code[::2])


def _calls_acquire(frame: types.FrameType, place: int) -> bool:
    """Return whether the call at *place* is ``acquire``, or contains one.

    A wait of the standard library calls it where it is safe.
    """
    code = frame.f_code
    if "acquire" not in code.co_names or _is_wait(frame):
        return False
    here = None
    loaded = []
    for instruction in dis.get_instructions(code):
        if instruction.offset == place:
            here = _span(instruction)
        if instruction.argval == "acquire":
            loaded.append(_span(instruction))
    if here is None or None in loaded:
        return True  # the interpreter was told to keep no positions
    return any(here[0] <= at[0] <= here[1] for at in loaded if at is not None)


_Place = tuple[int, int]


def _span(instruction: dis.Instruction) -> tuple[_Place, _Place] | None:
    """Return start and end, each line and column, of the instruction's source."""
    at = instruction.positions
    if at is None or None in at:
        return None
    start, end = (at.lineno, at.col_offset), (at.end_lineno, at.end_col_offset)
    return t.cast(_Place, start), t.cast(_Place, end)


def _calls_special(code: bytes, place: int) -> bool:
    before = place - 2
    while before >= 0 and code[before] == _CACHE:
        before -= 2
    return _SPECIAL is not None and before >= 0 and code[before] == _SPECIAL
