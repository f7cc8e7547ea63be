"""The replay of a body: its steps, in order, get what is stored of them."""

from __future__ import annotations

import abc
import typing as t

from ..current import RunContext
from ..errors import DurableError
from ..errors import ReplayMismatch
from ..store.memo import Memo
from .replay import check_use
from .replay import replay_differs
from .replay import Uses

if t.TYPE_CHECKING:
    from .attempt import Attempt
    from .branches import Level


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

    @property
    def replays(self) -> bool:
        """True while the body only gets what earlier attempts have stored."""
        return self._context.replaying

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
