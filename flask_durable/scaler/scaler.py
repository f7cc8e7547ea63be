"""One run of the scaler of a pool: look, decide, ask the platform, keep a record.

::

    lock ─► read notes ─► introspector ─► decide() ─► platform ─► write notes ─► unlock
                               │                         │              │
                               └ fails: hold             └ fails: say so ┴► log

The size asked of the platform is absolute. A run that dies after asking, and before it
wrote its notes, is repeated by the next one, which finds the workers.
"""

from __future__ import annotations

import dataclasses
import time
import typing as t

from ..errors import PlatformError
from ..redis.errors import TRANSIENT
from .decision import arrivals
from .decision.fleet import boot_time
from .decision.fleet import booted
from .decision.fleet import expected
from .decision.fleet import fleet_of
from .decision.fleet import remember
from .decision.fleet import silent_of
from .decision.fleet import slots_of
from .decision.fleet import Unit
from .decision.fleet import with_missing
from .decision.fleet import with_unsaid
from .decision.floors import floor_at
from .decision.observation import Fleet
from .decision.observation import Observation
from .decision.observation import Pool
from .decision.observation import Running
from .decision.observation import ServiceTime
from .decision.observation import Size
from .decision.policy import decide
from .decision.policy import Decision
from .introspectors.base import Introspector
from .introspectors.base import QueueSnapshot
from .introspectors.base import UNSEEN
from .options import PoolOptions
from .platforms.base import Applied
from .platforms.base import Platform
from .pool_state import Hold
from .pool_state import PoolNotes
from .pool_state import PoolState
from .records import record_of

#: Returns the service times of the functions that have a known one.
ServiceTimes = t.Callable[[t.Collection[str]], t.Mapping[str, ServiceTime]]


@dataclasses.dataclass(frozen=True)
class Report:
    """The report of one run of the scaler.

    :param record: The decision and all that led to it, as JSON values.
    :param decision: The decision.
    :param applied: The platform's reaction; ``None`` if it was not asked.
    :param error: The error that kept the platform from acting.
    """

    record: dict[str, t.Any]
    decision: Decision
    applied: Applied | None = None
    error: PlatformError | None = None


class Busy(Exception):
    """Another scaler is working on this pool."""


class Scaler:
    """Keeps one pool at the size that its queues need.

    :param options: The options of the pool.
    :param introspector: The introspector of the queues.
    :param platform: The platform that runs the workers.
    :param pool_state: The notes kept between two runs.
    :param service_times: A function that returns how long functions take.
    :param deserted: A function that returns whether jobs wait and no worker at all is
        up. ``None`` for queues that are not watched between two runs of the scaler.
    """

    def __init__(
        self,
        options: PoolOptions,
        *,
        introspector: Introspector,
        platform: Platform,
        pool_state: PoolState,
        service_times: ServiceTimes,
        deserted: t.Callable[[], bool] | None = None,
    ) -> None:
        self.options = options
        self.platform = platform
        self.pool_state = pool_state
        self._introspector = introspector
        self._service_times = service_times
        self._deserted = deserted

    def run(self, *, dry: bool = False) -> Report:
        """Look, decide and act once.

        :param dry: True to change nothing, and to write no notes.
        :raises Busy: Another scaler has the lock.
        :raises PlatformError: The platform does not say how many workers it has.
        :raises redis.RedisError: The state server does not answer.
        """
        if dry:
            return self._run(dry=True)
        token = self.pool_state.lock()
        if token is None:
            raise Busy(self.options.name)
        try:
            return self._run(dry=False)
        finally:
            self.pool_state.unlock(token)

    def is_needed(self) -> bool:
        """Return whether jobs wait and no worker at all is up for them.

        Cheap, to be asked every second; ``False`` if the server does not answer.
        """
        if self._deserted is None:
            return False
        try:
            return self._deserted() and not self.pool_state.read().asked
        except TRANSIENT:
            return False

    def _run(self, *, dry: bool) -> Report:
        notes = self.pool_state.read()
        boot = boot_time(notes.boots, self.options.boot)
        size = self.platform.read()
        snapshot = self._look(boot + self.options.period)
        pool = self._pool(notes, size.asked, snapshot, boot)
        notes, fleet = self._fleet(notes, size, snapshot, pool)
        observation = self._observation(notes, snapshot, fleet, pool)
        decision = self._decide(observation, pool, notes)
        report = self._act(decision, observation, pool, snapshot.serving, dry)
        if not dry:
            self._write_notes(notes, report, snapshot)
        return report

    # -- The look --------------------------------------------------------------------

    def _look(self, horizon: float) -> QueueSnapshot:
        try:
            return self._introspector.look(horizon)
        except PlatformError as error:
            return QueueSnapshot.failed(error.message, time.time())

    def _pool(
        self, notes: PoolNotes, asked: int, snapshot: QueueSnapshot, boot: float
    ) -> Pool:
        traits, drains = self.platform.traits, self.options.drains
        units = snapshot.serving or snapshot.units
        slots = slots_of(units, self._introspector.slots)
        limits = (traits.maximum, notes.limit_at(snapshot.now, asked))
        return Pool(
            self.options.slots or slots,
            boot,
            self.options.period,
            min((limit for limit in limits if limit is not None), default=None),
            traits.picks_victims if drains is None else drains,
        )

    def _fleet(
        self, notes: PoolNotes, size: Size, snapshot: QueueSnapshot, pool: Pool
    ) -> tuple[PoolNotes, Fleet]:
        """Return the workers, and the notes with the news about them."""
        silence, now = self._introspector.silence, snapshot.now
        units = snapshot.serving
        asked, boots = booted(notes.asked, units, notes.looked, notes.known)
        silent = silent_of(units, size, pool, silence)
        asked = expected(asked, silent, pool.boot, now)
        notes = dataclasses.replace(
            notes, asked=asked, boots=remember(notes.boots, boots)
        )
        fleet = fleet_of(units, size, asked, pool, now, silence)
        fleet = with_unsaid(fleet, snapshot.unsaid)
        if snapshot.failure is not None:
            return notes, fleet
        came = any(unit.id not in notes.known for unit in snapshot.units)
        since = 0.0 if came else notes.missing_since
        fleet = with_missing(fleet, units, size, pool, silence, since, now)
        since = now - fleet.missing_for if fleet.missing else 0.0
        return dataclasses.replace(notes, missing_since=since), fleet

    def _observation(
        self, notes: PoolNotes, snapshot: QueueSnapshot, fleet: Fleet, pool: Pool
    ) -> Observation:
        return Observation(
            snapshot.now,
            snapshot.waiting,
            (
                *self._running(snapshot, fleet, pool),
                *self._unseen(snapshot, fleet, pool),
            ),
            fleet,
            self._service_times(snapshot.functions),
            arrivals.rates(notes.totals, snapshot.now, snapshot.arrived),
            snapshot.wakeups,
            {
                function: self.options.queues[queue]
                for function, queue in snapshot.queues.items()
            },
            snapshot.samples,
            snapshot.failure,
        )

    def _running(
        self, snapshot: QueueSnapshot, fleet: Fleet, pool: Pool
    ) -> tuple[Running, ...]:
        """Return the jobs in slots that take another job afterwards.

        If jobs are not known by worker, some may be on workers on their way out. Those
        took no job of late, so the oldest jobs beyond the slots are left out.
        """
        if snapshot.orphans is not None:
            return snapshot.running
        slots = fleet.ready * pool.slots
        return tuple(sorted(snapshot.running, key=lambda job: job.age)[:slots])

    def _unseen(
        self, snapshot: QueueSnapshot, fleet: Fleet, pool: Pool
    ) -> t.Iterator[Running]:
        """Yield an unknown job for each slot of workers that are too busy to report."""
        if self._introspector.silence == "busy":
            silent = max(fleet.ready - len(snapshot.serving), 0)
            yield from [Running(UNSEEN, 0.0)] * (silent * pool.slots)

    # -- The decision ----------------------------------------------------------------

    def _decide(
        self, observation: Observation, pool: Pool, notes: PoolNotes
    ) -> Decision:
        traits, goal = self.platform.traits, self.options.goal
        if not traits.reaches_zero:
            goal = dataclasses.replace(
                goal, minimum=max(goal.minimum, 1), maximum=max(goal.maximum, 1)
            )
        floor = floor_at(self.options.floors, observation.now)
        decision = decide(observation, goal, pool, notes.memory, floor)
        hold = self.pool_state.hold()
        if hold is not None:
            return _ordered(decision, hold, observation.fleet.size)
        rests = 0 <= observation.now - notes.changed < traits.period
        if rests and decision.action != "hold":
            rest = Hold(None, f"the platform is changed every {traits.period:g} s")
            return _ordered(decision, rest, observation.fleet.size)
        return decision

    def _act(
        self,
        decision: Decision,
        observation: Observation,
        pool: Pool,
        units: t.Sequence[Unit],
        dry: bool,
    ) -> Report:
        applied, error = None, None
        if decision.action != "hold" and not dry:
            idle = [unit.id for unit in units if not unit.busy]
            try:
                applied = self.platform.resize(decision.workers, idle)
            except PlatformError as raised:
                error = raised
        record = record_of(
            self.options,
            self.platform,
            observation,
            pool,
            decision,
            applied,
            error,
            dry,
        )
        return Report(record, decision, applied, error)

    def _write_notes(
        self, notes: PoolNotes, report: Report, snapshot: QueueSnapshot
    ) -> None:
        applied = report.applied
        more = max(applied.after - applied.before, 0) if applied else 0
        notes = dataclasses.replace(
            notes,
            memory=report.decision.memory,
            asked=(*notes.asked, *[snapshot.now] * more),
            changed=snapshot.now if applied else notes.changed,
        )
        if applied is not None and applied.limit is not None:
            notes = dataclasses.replace(
                notes, limit=applied.limit, limited=snapshot.now
            )
        if snapshot.failure is None:
            notes = dataclasses.replace(
                notes,
                totals=arrivals.remember(notes.totals, snapshot.now, snapshot.arrived),
                looked=snapshot.now,
                known=tuple(unit.id for unit in snapshot.units),
            )
        self.pool_state.write(notes)
        self.pool_state.log(report.record)


def _ordered(decision: Decision, hold: Hold, current: int) -> Decision:
    """Return *decision* with the size that a person ordered."""
    workers = current if hold.workers is None else hold.workers
    action: t.Literal["up", "down", "hold"] = "hold"
    if workers != current:
        action = "up" if workers > current else "down"
    return dataclasses.replace(
        decision, action=action, workers=workers, reason=hold.reason
    )
