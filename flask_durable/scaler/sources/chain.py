"""Several sources asked at once: the first one of the list that knows a function wins.

A run of the scaler waits for them no longer than a budget. What comes later is kept for
the next run, and a source that is still being asked is not asked once more, so a hung
one costs one thread. Threads are daemons: no source keeps a process from its end.
"""

from __future__ import annotations

import dataclasses
import threading
import time
import typing as t
from concurrent.futures import Future
from concurrent.futures import wait

from ...errors import DurableError
from ...errors import PlatformError
from ...safe_logging import get_logger
from ..observation import ServiceTime
from ..source import DurationSource
from .memory import Answers
from .memory import LONGEST_REST
from .memory import Memory
from .memory import ProcessMemory

#: Seconds that a run of the scaler waits for its sources, all together.
BUDGET = 3.0

#: Seconds for which a source that failed is left alone, unless it says how long.
REST = 60.0

_log = get_logger(__name__)


class SourceChain:
    """Several sources as one. They do not make it fail: who cannot be asked is passed
    over, with what it said last.

    Belongs to one thread.

    :param sources: The most trusted one first.
    :param memory: Where answers are kept; in this process by default.
    :param budget: Seconds to wait for all of them together.
    :param clock: Returns seconds since 1970.
    """

    def __init__(
        self,
        sources: t.Iterable[DurationSource],
        memory: Memory | None = None,
        *,
        budget: float = BUDGET,
        clock: t.Callable[[], float] = time.time,
    ) -> None:
        memory = memory or ProcessMemory()
        self._askers = [
            _Asker(source, memory, str(place), clock)
            for place, source in enumerate(sources)
        ]
        self._budget = budget

    def describe(self) -> str:
        """Return what it is in one line."""
        return ", ".join(asker.source.describe() for asker in self._askers)

    def read(self, functions: t.Collection[str]) -> dict[str, ServiceTime]:
        """Return what the sources know of *functions*, within the budget.

        :attr:`~flask_durable.scaler.ServiceTime.source` says which one it was.
        """
        pending = [future for a in self._askers if (future := a.ask(functions))]
        wait(pending, self._budget)
        found: dict[str, ServiceTime] = {}
        for asker in reversed(self._askers):
            found.update(asker.collect(functions))
        return found


class _Asker:
    """One source and what it said.

    States: *idle* and *asking*, by whether there is a future. The future is read by the
    chain's thread alone, so a late answer is taken up by the next :meth:`ask` or
    :meth:`collect` and races with nothing. Two processes that ask at the same time
    write the same answers, and the last one of them is kept.
    """

    def __init__(
        self,
        source: DurationSource,
        memory: Memory,
        place: str,
        clock: t.Callable[[], float],
    ) -> None:
        self.source = source
        self._memory = memory
        self._place = place
        self._clock = clock
        self._answers = Answers()
        self._future: Future[t.Mapping[str, ServiceTime]] | None = None
        self._asked: frozenset[str] = frozenset()

    def ask(
        self, functions: t.Collection[str]
    ) -> Future[t.Mapping[str, ServiceTime]] | None:
        """Ask for those that are not fresh; return what is being waited for."""
        self._answers = Answers.decode(self._memory.recall(self._place))
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
        """Return what is known of *functions* now."""
        self._take_up()
        if self._future is not None:
            self._fails("it takes longer than the scaler waits")
        name, known = self.source.describe(), self._answers.usable(self._clock())
        return {
            function: dataclasses.replace(known[function], source=name)
            for function in functions
            if function in known
        }

    def _take_up(self) -> None:
        """Note the answer, if there is one by now."""
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
            self._memory.keep(self._place, self._answers.encode())
        else:
            ours = isinstance(error, DurableError)  # others may show a token
            self._fails(str(error) if ours else type(error).__name__, error)

    def _fails(self, reason: str, error: BaseException | None = None) -> None:
        """Leave it alone for a while, and say so, once an outage."""
        wanted = error.retry_after if isinstance(error, PlatformError) else None
        rest = min(max(wanted or 0.0, REST), LONGEST_REST)
        if not self._answers.failing:
            name = self.source.describe()
            _log.warning(
                "%s tells no durations: %s",
                name,
                reason,
                extra={"action": "source_away"},
            )
        self._answers.failing = True
        self._answers.rests = self._clock() + rest
        self._memory.keep(self._place, self._answers.encode())


def _answer(
    future: Future[t.Mapping[str, ServiceTime]],
    source: DurationSource,
    functions: frozenset[str],
) -> None:
    try:
        future.set_result(source.read(functions))
    except BaseException as error:
        future.set_exception(error)
