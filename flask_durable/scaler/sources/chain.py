"""Several sources asked at once: the first one of the list that knows a function wins.

A run of the scaler waits for them no longer than a budget. What comes later is kept for
the next run, and a source that is still being asked is not asked once more, so a hung
one costs one thread. Threads are daemons: no source keeps a process from its end.
"""

from __future__ import annotations

import logging
import threading
import time
import typing as t
from concurrent.futures import Future
from concurrent.futures import wait

from ...errors import DurableError
from ..observation import ServiceTime
from ..source import DurationSource

#: Seconds that a run of the scaler waits for its sources, all together.
BUDGET = 3.0

#: Seconds for which an answer is remembered, also that a function is not known.
REMEMBERED = 300.0

_log = logging.getLogger(__name__)


class SourceChain:
    """Several sources as one. It does not fail: who cannot be asked is passed over.

    Belongs to one thread.

    :param sources: The most trusted one first.
    :param budget: Seconds to wait for all of them together.
    :param remembered: Seconds for which an answer is remembered.
    :param clock: Returns seconds that never go backwards.
    """

    def __init__(
        self,
        sources: t.Iterable[DurationSource],
        *,
        budget: float = BUDGET,
        remembered: float = REMEMBERED,
        clock: t.Callable[[], float] = time.monotonic,
    ) -> None:
        self._askers = [_Asker(source, remembered, clock) for source in sources]
        self._budget = budget

    def describe(self) -> str:
        """Return what it is in one line."""
        return ", ".join(asker.source.describe() for asker in self._askers)

    def read(self, functions: t.Collection[str]) -> dict[str, ServiceTime]:
        """Return what the sources know of *functions*, within the budget."""
        pending = [future for a in self._askers if (future := a.ask(functions))]
        wait(pending, self._budget)
        found: dict[str, ServiceTime] = {}
        for asker in reversed(self._askers):
            found.update(asker.collect(functions))
        return found


class _Asker:
    """One source, what it said, and whether it is out of order.

    States: *idle* and *asking*, by whether there is a future. The future is read by the
    chain's thread alone, so a late answer is taken up by the next :meth:`ask` or
    :meth:`collect` and races with nothing.
    """

    def __init__(
        self, source: DurationSource, remembered: float, clock: t.Callable[[], float]
    ) -> None:
        self.source = source
        self._remembered = remembered
        self._clock = clock
        self._answers: dict[str, tuple[float, ServiceTime | None]] = {}
        self._future: Future[t.Mapping[str, ServiceTime]] | None = None
        self._asked: frozenset[str] = frozenset()
        self._failing = False

    def ask(
        self, functions: t.Collection[str]
    ) -> Future[t.Mapping[str, ServiceTime]] | None:
        """Ask for those that are not remembered; return what is being waited for."""
        self._take_up()
        unknown = frozenset(functions) - self._fresh().keys()
        if self._future is None and unknown:
            self._asked = unknown
            self._future = Future()
            arguments = (self._future, self.source, unknown)
            threading.Thread(target=_answer, args=arguments, daemon=True).start()
        return self._future

    def collect(self, functions: t.Collection[str]) -> dict[str, ServiceTime]:
        """Return what is known of *functions* now."""
        self._take_up()
        if self._future is not None:
            self._fails("it takes longer than the scaler waits")
        fresh = self._fresh()
        return {key: time for key in functions if (time := fresh.get(key))}

    def _fresh(self) -> dict[str, ServiceTime | None]:
        oldest = self._clock() - self._remembered
        return {key: time for key, (at, time) in self._answers.items() if at > oldest}

    def _take_up(self) -> None:
        """Remember the answer, if there is one by now."""
        future = self._future
        if future is None or not future.done():
            return
        self._future = None
        error = future.exception()
        if error is not None:
            ours = isinstance(error, DurableError)  # others may show a token
            self._fails(str(error) if ours else type(error).__name__)
            return
        known, now = future.result(), self._clock()
        self._answers.update({key: (now, known.get(key)) for key in self._asked})
        if self._failing:
            _log.info("%s answers again.", self.source.describe())
        self._failing = False

    def _fails(self, reason: str) -> None:
        """Say so, once an outage."""
        if not self._failing:
            name = self.source.describe()
            _log.warning("%s tells no durations: %s", name, reason)
        self._failing = True


def _answer(
    future: Future[t.Mapping[str, ServiceTime]],
    source: DurationSource,
    functions: frozenset[str],
) -> None:
    try:
        future.set_result(source.read(functions))
    except BaseException as error:
        future.set_exception(error)
