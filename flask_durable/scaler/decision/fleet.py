"""The workers of a pool that are up, the runs each takes, and their boot times.

A platform knows of containers. A worker in a container takes jobs only some time after
the container runs, so the workers' own reports count. A *unit* is the thing that a
platform adds and removes. Where that is a host, all processes on it are one unit.
Elsewhere a unit is what a single command started: one process, or the processes that a
supervisor keeps.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
import typing as t
from dataclasses import dataclass

from .observation import Fleet
from .observation import Pool
from .observation import Size

#: The assumed state of a worker that its platform runs and that reports nothing:
#: on its way up, without a job, or too occupied to answer.
Silence = t.Literal["booting", "idle", "busy"]

#: The part of a worker's beat that names its unit.
UnitKey = t.Literal["unit", "host"]

#: Boot times that are remembered, and the percentile of them that is assumed for the
#: next boot.
_BOOTS = 20
_PERCENTILE = 0.9
#: A worker that was asked for is expected for this many boot times, or this many
#: seconds, whichever is longer.
_BOOT_TIMES = 10
_LONGEST_BOOT = 900.0


@dataclass(frozen=True)
class Unit:
    """A unit that a platform adds and removes.

    :param id: The host's name, the process's id, or the supervisor's own id.
    :param slots: Runs that the unit takes at a time.
    :param busy: Runs that it has.
    :param ready_at: The time since which it takes runs, seconds since 1970.
    :param draining: True once the unit takes no more runs and is about to stop.
    """

    id: str
    slots: int
    busy: int
    ready_at: float
    draining: bool = False


def units_of(
    workers: t.Iterable[t.Mapping[str, t.Any]],
    queues: t.Collection[str],
    by: UnitKey = "unit",
) -> list[Unit]:
    """Return the units of those *workers* that serve one of *queues*.

    :param by: The part of a beat that workers of one unit have in common.
    """
    return merged(
        Unit(
            worker[by],
            worker["threads"],
            worker["busy"],
            worker["ready_at"],
            worker.get("draining", False),
        )
        for worker in workers
        if set(worker["queues"]) & set(queues)
    )


def merged(units: t.Iterable[Unit]) -> list[Unit]:
    """Merge the *units* with the same id; a merged unit is ready when all parts are."""
    found: dict[str, Unit] = {}
    for unit in units:
        other = found.get(unit.id)
        found[unit.id] = unit if other is None else _together(other, unit)
    return list(found.values())


def _together(one: Unit, other: Unit) -> Unit:
    """Merge two units. It drains if both do, otherwise only the other's slots count."""
    draining = one.draining and other.draining
    slots = sum(u.slots for u in (one, other) if draining or not u.draining)
    ready_at = max(one.ready_at, other.ready_at)
    return Unit(one.id, slots, one.busy + other.busy, ready_at, draining)


def slots_of(units: t.Sequence[Unit], default: int) -> int:
    """Return how many runs a unit takes at a time; *default* if none is up."""
    if not units:
        return default
    return max(int(statistics.median(unit.slots for unit in units)), 1)


def fleet_of(
    units: t.Sequence[Unit],
    size: Size,
    asked: t.Sequence[float],
    pool: Pool,
    now: float,
    silence: Silence = "booting",
) -> Fleet:
    """Return the workers as the policy sees them.

    :param units: The units that are up.
    :param size: The number of workers that the platform reports.
    :param asked: The times at which workers that are not up were asked for, as far as
        they are known.
    :param pool: The boot time and the slots of one worker.
    :param now: Seconds since 1970.
    :param silence: The assumed state of workers that the platform has and that report
        nothing.
    """
    silent = silent_of(units, size, pool, silence)
    young = [time for time in asked if now - time < pool.boot]
    if silence == "idle":
        asked = young
    booting = silent
    if silence != "booting":
        booting = min(max(size.booting, len(asked)), silent)
    ready = size.asked - booting
    ages = (max(now - time, 0.0) for time in asked[-booting:])
    known = [max(pool.boot - age, 1.0) for age in ages]
    unknown = [pool.boot] * (booting - len(known))
    busy = min(sum(unit.busy > 0 for unit in units), ready)
    if silence == "busy":
        # A worker that boots for longer than usual may be at work. It is not replaced,
        # and it is not given back.
        busy += silent - min(max(size.booting, len(young)), silent)
    return Fleet(ready, tuple(known + unknown if booting else ()), busy)


def with_unsaid(fleet: Fleet, unsaid: int) -> Fleet:
    """Return *fleet* with all workers busy if runs exist that no worker reports.

    A worker's report is some seconds old. A worker that took a job since then seems
    idle, and one that cannot report seems to boot. The workers with these runs are not
    known, so none is given back before it has reported.
    """
    return fleet if unsaid <= 0 else dataclasses.replace(fleet, busy=fleet.size)


def with_missing(
    fleet: Fleet,
    units: t.Sequence[Unit],
    size: Size,
    pool: Pool,
    silence: Silence,
    since: float,
    now: float,
) -> Fleet:
    """Return *fleet* with the workers that were asked for and do not come.

    A worker that is not expected to report is missing while the platform itself says
    that it does not run.

    :param units: The units that are up.
    :param since: The time since which some are missing and none came; 0 if that begins
        now.
    :param now: Seconds since 1970.
    """
    missing = silent_of(units, size, pool, silence)
    if silence != "booting":
        missing = min(missing, size.booting)
    passed = max(now - since, 0.0) if missing and since else 0.0
    return dataclasses.replace(fleet, missing=missing, missing_for=passed)


def silent_of(units: t.Sequence[Unit], size: Size, pool: Pool, silence: Silence) -> int:
    """Return how many workers the platform has that report nothing."""
    heard = len(units)
    if silence == "idle":
        # These units are processes, and one worker may have several of them.
        heard = min(math.ceil(sum(unit.slots for unit in units) / pool.slots), heard)
    return max(size.asked - heard, 0)


def expected(
    asked: t.Sequence[float], silent: int, boot: float, now: float
) -> tuple[float, ...]:
    """Return the times at which the workers that may still come were asked for.

    There are at most *silent* of them, and none stays for ever. A worker that crashed
    or was given back while it booted would otherwise be taken for the next one that
    comes, with a boot time much too long.
    """
    longest = max(_BOOT_TIMES * boot, _LONGEST_BOOT)
    coming = [time for time in asked if now - time < longest]
    return tuple(coming[-silent:]) if silent else ()


def booted(
    asked: t.Sequence[float],
    units: t.Sequence[Unit],
    since: float,
    known: t.Container[str] = (),
) -> tuple[tuple[float, ...], list[float]]:
    """Return the request times of workers still to come, and the new boot times.

    :param asked: The time at which each worker was asked for.
    :param units: The units that are up.
    :param since: The time of the last look, seconds since 1970.
    :param known: Ids of the units that were up then. A unit not among them may have
        been ready for longer without being seen.
    """
    waiting = sorted(asked)
    boots = []
    new = [unit for unit in units if unit.ready_at > since or unit.id not in known]
    for ready_at in sorted(unit.ready_at for unit in new):
        if waiting and waiting[0] <= ready_at:
            boots.append(ready_at - waiting.pop(0))
    return tuple(waiting), boots


def boot_time(boots: t.Sequence[float], default: float) -> float:
    """Return the 90th percentile of the measured *boots*, in seconds."""
    if not boots:
        return default
    ordered = sorted(boots)
    return ordered[min(int(_PERCENTILE * len(ordered)), len(ordered) - 1)]


def remember(boots: t.Sequence[float], new: t.Sequence[float]) -> tuple[float, ...]:
    """Return the latest boot times, the *new* ones last."""
    return (*boots, *new)[-_BOOTS:]
