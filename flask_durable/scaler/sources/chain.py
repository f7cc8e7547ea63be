"""Several sources asked at once: the first one of the list that knows a function wins.

A run of the scaler waits for them no longer than a budget. A later answer is kept for
the next run. A source that is still being asked is not asked once more, so a hung one
costs one thread. Threads are daemons: no source keeps a process from its end.
"""

from __future__ import annotations

import dataclasses
import threading
import time
import typing as t
from concurrent.futures import Future
from concurrent.futures import wait

from ...common.safe_logging import get_logger
from ...errors import DurableError
from ...errors import PlatformError
from ..decision.observation import ServiceTime
from .base import DurationSource
from .remembered import Answers
from .remembered import AnswerStore
from .remembered import LONGEST_SOURCE_REST
from .remembered import ProcessAnswerStore

#: Seconds that a run of the scaler waits for its sources, all together.
BUDGET = 3.0

#: Seconds for which a failed source is not asked, unless it says how long.
SOURCE_REST = 60.0

_log = get_logger(__name__)


class SourceChain:
    """Several sources as one, which never fails.

    A source that cannot be asked is passed over, and its last answers are used. Belongs
    to one thread.

    :param sources: The sources, the most trusted one first.
    :param store: The place where answers are kept; in this process by default.
    :param budget: Seconds to wait for all of them together.
    :param clock: A function that returns seconds since 1970.
    """

    def __init__(
        self,
        sources: t.Iterable[DurationSource],
        store: AnswerStore | None = None,
        *,
        budget: float = BUDGET,
        clock: t.Callable[[], float] = time.time,
    ) -> None:
        store = store or ProcessAnswerStore()
        self._askers = [
            _Asker(source, store, str(place), clock)
            for place, source in enumerate(sources)
        ]
        self._budget = budget

    def describe(self) -> str:
        """Return the sources in one line."""
        return ", ".join(asker.source.describe() for asker in self._askers)

    def read(self, functions: t.Collection[str]) -> dict[str, ServiceTime]:
        """Return the service times of *functions* that are known within the budget.

        :attr:`~flask_durable.scaler.ServiceTime.source` is the source's description.
        """
        pending = [future for a in self._askers if (future := a.ask(functions))]
        wait(pending, self._budget)
        found: dict[str, ServiceTime] = {}
        for asker in reversed(self._askers):
            found.update(asker.collect(functions))
        return found


class _Asker:
    """One source and its answers.

    The state is *asking* while there is a future, otherwise *idle*. Only the chain's
    thread reads the future, so a late answer is taken up by the next :meth:`ask` or
    :meth:`collect` and races with nothing. Two processes that ask at the same time
    write the same answers, and the last one of them is kept.
    """

    def __init__(
        self,
        source: DurationSource,
        store: AnswerStore,
        place: str,
        clock: t.Callable[[], float],
    ) -> None:
        self.source = source
        self._store = store
        self._place = place
        self._clock = clock
        self._answers = Answers()
        self._future: Future[t.Mapping[str, ServiceTime]] | None = None
        self._asked: frozenset[str] = frozenset()

    def ask(
        self, functions: t.Collection[str]
    ) -> Future[t.Mapping[str, ServiceTime]] | None:
        """Ask for the functions that are not fresh; return the pending future."""
        self._answers = Answers.decode(self._store.recall(self._place))
        self._take_up()
        now = self._clock()
        unknown = frozenset(functions) - self._answers.fresh(now)
        if self._future is None and unknown and not self._answers.rests_at(now):
            self._asked = unknown
            self._future = Future()
            arguments = (self._future, self.source, unknown)
            threading.Thread(target=_answer, args=arguments, daemon=True).start()
        return self._future

    def collect(self, functions: t.Collection[str]) -> dict[str, ServiceTime]:
        """Return the service times of *functions* that are known now."""
        self._take_up()
        if self._future is not None:
            self._fails("it did not answer in time")
        name, known = self.source.describe(), self._answers.usable(self._clock())
        return {
            function: dataclasses.replace(known[function], source=name)
            for function in functions
            if function in known
        }

    def _take_up(self) -> None:
        """Record the answer, if it has arrived."""
        future = self._future
        if future is None or not future.done():
            return
        self._future = None
        error = future.exception()
        if error is None:
            if self._answers.failing:
                _log.info(
                    "%s answers again.",
                    self.source.describe(),
                    extra={"action": "source_back"},
                )
            self._answers.take(self._asked, future.result(), self._clock())
            self._store.keep(self._place, self._answers.encode())
        else:
            ours = isinstance(error, DurableError)  # other errors may show a token
            self._fails(str(error) if ours else type(error).__name__, error)

    def _fails(self, reason: str, error: BaseException | None = None) -> None:
        """Stop asking the source for a while, and log that once an outage."""
        wanted = error.retry_after if isinstance(error, PlatformError) else None
        rest = min(max(wanted or 0.0, SOURCE_REST), LONGEST_SOURCE_REST)
        if not self._answers.failing:
            name = self.source.describe()
            _log.warning(
                "%s gives no durations: %s",
                name,
                reason,
                extra={"action": "source_away"},
            )
        self._answers.failing = True
        self._answers.rests = self._clock() + rest
        self._store.keep(self._place, self._answers.encode())


def _answer(
    future: Future[t.Mapping[str, ServiceTime]],
    source: DurationSource,
    functions: frozenset[str],
) -> None:
    try:
        future.set_result(source.read(functions))
    except BaseException as error:
        future.set_exception(error)
