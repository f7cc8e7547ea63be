"""Checks that a step is used where it may be, and as its memo was made.

Each error explains a misuse.
"""

from __future__ import annotations

import re
import threading
import typing as t

from ..common.safe_logging import get_logger
from ..current import step_context
from ..errors import ReplayMismatch
from ..errors import StepUsageError
from ..functions.checks import MAX_STEP_NAME
from .control import Copied

if t.TYPE_CHECKING:
    from .attempt import Attempt


_COUNTED = re.compile(r"#\d+$")

logger = get_logger(__name__)


def check_name(name: t.Any) -> None:
    """Check that a step may be called *name*.

    :raises StepUsageError: The name is empty, too long, or looks like a counted one.
    """
    if callable(name):
        raise StepUsageError(
            "A step was given a function in the place of its name.",
            hint='Give the name first, such as step.run("charge", charge, order_id).',
        )
    if not isinstance(name, str) or not name or len(name) > MAX_STEP_NAME:
        raise StepUsageError(
            f"{name!r} is not a step's name.",
            hint=f"Give text of 1 to {MAX_STEP_NAME} characters.",
        )
    try:
        _ = name.isascii() or name.encode()
    except UnicodeEncodeError:  # such as a file's name that is no UTF-8
        raise StepUsageError(
            f"The step name {name!r} has half of a surrogate pair.",
            hint="Put something else into the name, such as an id or a hash.",
        ) from None
    if "#" in name and _COUNTED.search(name):
        raise StepUsageError(
            f"The step name {name!r} ends like the n-th use of another name.",
            hint='Leave out "#" before the number.',
        )


def check_function(name: str, fn: t.Any) -> None:
    """Check that a step was given something to call.

    :raises StepUsageError: The value is no callable: most often it was called
        already.
    """
    if not callable(fn):
        raise StepUsageError(
            f"Step {name!r} was given a value of the type {type(fn).__name__} in the "
            "place of a function.",
            hint="Give the function and its arguments, and do not call it: "
            f"step.run({name!r}, fn, 1) in the place of step.run({name!r}, fn(1)).",
        )


def check_use(attempt: Attempt, name: str) -> None:
    """Check that a step may be used here and now.

    :raises StepUsageError: The step is used in another thread, after its attempt, or
        inside another step's body.
    """
    check_name(name)
    if isinstance(attempt.end.signal, Copied):
        raise StepUsageError(
            f"Step {name!r} is used in a process that was forked inside its run.",
            hint="Use steps in the run's own process, and have the child return what "
            "it made.",
        )
    if attempt.ended:
        raise StepUsageError(
            f"Step {name!r} is used after its attempt has ended.",
            hint="Do not keep the step object: each attempt brings a new one.",
        )
    if threading.get_ident() != attempt.thread:
        raise StepUsageError(
            f"Step {name!r} is used in another thread than its run.",
            hint="Call steps in the function's own thread.",
        )
    inside = step_context()
    if inside is not None:
        raise StepUsageError(
            f"Step {name!r} is used inside step {inside.name!r}.",
            hint="A step cannot contain steps: call the function plainly, or move the "
            "inner step into the function's body.",
        )


class Uses:
    """The uses of step names in one attempt.

    :param scope: The beginning of the keys.
    """

    def __init__(self, scope: str = "") -> None:
        self._scope = scope
        self._counts: dict[str, int] = {}
        self._sketches: dict[str, bytes] = {}

    def enter(self, name: str) -> str:
        """Count a use of *name* and return its key: the n-th use is ``name#n``."""
        name = self._scope + name
        used = self._counts[name] = self._counts.get(name, 0) + 1
        return name if used == 1 else f"{name}#{used}"

    def repeats(self, key: str) -> bool:
        """Return whether *key* is that of a second or later use of its name."""
        return key not in self._counts

    def compare(self, key: str, sketch: bytes) -> None:
        """Warn if the second use of a name is another call than the first."""
        if not self.repeats(key):
            self._sketches[key] = sketch
            return
        name, _, used = key.rpartition("#")
        if used == "2" and self._sketches.get(name, sketch) != sketch:
            logger.warning(
                "The step name %r is used again with other arguments. Results are "
                "found by name and count: put what differs into the name, such as "
                'f"%s-{row.id}".',
                name,
                name,
                extra={"action": "step_name_reused"},
            )


def replay_differs(attempt: Attempt, key: str, *, repeats: bool) -> None:
    """Pause the run, or warn once that a memo was made by another call.

    Several uses of one name are told apart by their count alone: where one use is left
    out, all that follow get the results of others.

    :param repeats: True if *key* is that of a second or later use of its name.
    """
    if repeats or f"{key}#2" in attempt.book:
        attempt.pause(_changed_call(key), key)
    if "changed_step" in attempt.record:
        return
    store = attempt.services.store
    attempt.own(lambda: store.note_change(attempt.run_id, attempt.token, key))
    attempt.record["changed_step"] = key
    logger.warning(
        "Step %r gets its stored result, but was called with other arguments when that "
        "was stored.",
        key,
        extra={"action": "step_call_changed"},
    )


def _changed_call(key: str) -> ReplayMismatch:
    """Return the error of a replay that asks for another call's result."""
    return ReplayMismatch(
        f"Step {key!r} is called with other arguments than when its result was stored, "
        "and its name is used several times: the result may be another call's.",
        hint="Put what differs into the step's name; make what changes from replay to "
        "replay, such as the time, in a step of its own. Deploy code that asks for "
        "what is stored; then resume.",
    )


def limit_reached(what: str) -> StepUsageError:
    """Return the error of a run that has reached a limit.

    :param what: The limit, ``"steps"`` or ``"bytes"``.
    """
    limit = "10,000 steps" if what == "steps" else "32 MiB of step results"
    return StepUsageError(
        f"The run has reached its limit of {limit}.",
        hint="Split the work over several runs, or return less from each step.",
    )
