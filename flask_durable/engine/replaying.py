"""The replay of a body: its steps, in order, get what is stored of them.

A step is refused where it could not be durable, and its memo where it was made by
another step or call. Each error explains the misuse.
"""

from __future__ import annotations

import abc
import re
import threading
import typing as t

from ..common.safe_logging import get_logger
from ..current import RunContext
from ..current import step_context
from ..errors import DurableError
from ..errors import ReplayMismatch
from ..errors import StepUsageError
from ..functions.checks import MAX_STEP_NAME
from ..store.memo import Memo
from .control import Copied
from .waits import tell_end
from .waits import TOLD

if t.TYPE_CHECKING:
    from .attempt import Attempt
    from .branches import Level

_COUNTED = re.compile(r"#\d+$")

logger = get_logger(__name__)


class Replay(abc.ABC):
    """The steps that a body has used so far.

    The attempt of a branch replays the bodies of the runs above it first, each down to
    the step that has the next branch. There it only reads: a step without an outcome
    means that the code has changed.

    :param run_id: The id of the attempt's run.
    :param memos: Step key to the stored text of its memo.
    :param levels: The branches that the attempt comes through, the outermost first; the
        last one is its own.
    """

    #: Set by the executor before the body is called.
    context: RunContext | None = None

    def __init__(self, run_id: str, memos: dict[str, str], levels: list[Level]) -> None:
        self.run_id = run_id
        #: The memos of the run whose steps are replayed now.
        self.book = memos
        #: The branches that are not reached yet.
        self.levels = levels
        #: The id of that run.
        self.book_id = run_id
        if levels:
            self.book, self.book_id = levels[0].memos_above, levels[0].above
        self._unseen = set(self.book)
        self._uses = Uses()

    def enter(self, name: str) -> str:
        """Begin the step *name* and return its key: the n-th use is ``name#n``.

        In a branch the names of its steps begin with the branch's.

        :raises StepUsageError: The step is used where it cannot be durable.
        """
        attempt = t.cast("Attempt", self)
        if not attempt.ended:
            attempt.check()
        check_use(attempt, name)
        return self._uses.enter(name)

    def recall(self, key: str, kind: str, sketch: bytes = b"") -> Memo | None:
        """Return the memo of a step, or ``None`` if it has none yet.

        :param key: The key that :meth:`enter` returned, a moment ago.
        :param sketch: The sketch of the call, see :func:`~.sketch.sketch_of`. It is
            compared with that of the first use of the name, and with that of the call
            that made the memo.
        :raises Signal: The memo is of another kind of step, or of another call: the run
            is paused.
        """
        if sketch:
            self._uses.compare(key, sketch)
        text = self.book.get(key)
        if text is None:
            self._unseen.clear()
        self._unseen.discard(key)
        self._context.replaying = bool(self._unseen)
        if text is None:
            if self.levels:
                self.miss(f"step {key!r}, which has no outcome,")
            return None
        memo = Memo.parse(text)
        if memo.kind != kind:
            self.pause(
                ReplayMismatch(
                    f"Step {key!r} is a {kind!r} step now, but {memo.kind!r} is stored "
                    "of it.",
                    hint="Give the new step another name, or deploy the old code; "
                    "then resume.",
                ),
                key,
            )
        if self.levels and not memo.final:
            self.miss(f"step {key!r}, which has no outcome,")
        # A memo without an outcome has no result that could be given to a wrong call.
        compared = sketch and memo.final and memo.digest
        attempt = t.cast("Attempt", self)
        if kind in TOLD and memo.final and not self.levels:
            tell_end(attempt, key, memo)
        if compared and attempt.services.payloads.differs(memo.digest, sketch):
            replay_differs(attempt, key, repeats=self._uses.repeats(key))
        return memo

    def descend(self) -> Level:
        """Go on with the steps of the next branch, whose step is reached."""
        level = self.levels.pop(0)
        self.book = level.memos
        self.book_id = self.levels[0].above if self.levels else self.run_id
        self._unseen = set(level.memos)
        self._uses = Uses(level.scope)
        self._context.replaying = bool(self._unseen)
        return level

    def miss(self, reached: str) -> t.NoReturn:
        """Pause a branch whose step is not where it was.

        :param reached: The place that the body has reached instead.
        :raises Signal: The end of this attempt, always.
        """
        level = self.levels[0]
        self.pause(
            ReplayMismatch(
                f"The code reaches {reached} before step {level.step!r}, whose branch "
                f"{level.place!r} this is.",
                hint="Deploy code that comes to the step as before; then resume.",
            ),
            level.step,
        )

    @abc.abstractmethod
    def pause(
        self,
        reason: DurableError,
        step: str | None = None,
        *,
        error: BaseException | None = None,
    ) -> t.NoReturn:
        """Set the run aside for a person, with its state kept.

        :param reason: The reason, which everyone who lists runs can read.
        :param error: The error behind the reason. It may quote the user's data, so only
            the failure stores it.
        :raises Signal: The end of this attempt, always.
        """

    @property
    def _context(self) -> RunContext:
        assert self.context is not None, "steps are used inside the body only"
        return self.context


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
    attempt.as_owner(lambda: store.note_change(attempt.run_id, attempt.token, key))
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
