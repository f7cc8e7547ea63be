"""Which workers of a pool are up, how many runs each takes, and how long they boot.

A platform knows of containers, and a worker in one takes jobs some time after that
runs: what counts is what the workers say of themselves. A *unit* is what a platform
adds and removes. Where that is a host, all processes on it are one unit. Elsewhere one
is what a single command started: a process, or those that a supervisor keeps.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
import typing as t
from dataclasses import dataclass

from .observation import Fleet
from .observation import Pool
from .platform import Size

#: What a worker is that its platform runs and that is not heard of: on its way up,
#: without a job, or so occupied that it does not answer.
Silence = t.Literal["booting", "idle", "busy"]

#: The part of a worker's beat that names its unit.
UnitKey = t.Literal["unit", "host"]

#: Boot times that are remembered, and the share of them that is not longer than what is
#: reckoned with.
_BOOTS = 20
_PERCENTILE = 0.9
#: Whoever was asked for is expected for so many boot times, or so many seconds.
_BOOT_TIMES = 10
_LONGEST_BOOT = 900.0


@dataclass(frozen=True)
class Unit:
    """What a platform adds and removes.

    :param id: The host's name, the process's id, or what a supervisor calls it.
    :param slots: Runs that it takes at a time.
    :param busy: Runs that it has.
    :param ready_at: Since when it takes some, seconds since 1970.
    :param draining: Whether it takes no more, and goes.
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
    """Return *units* with those of one id as one, which is ready when all are."""
    found: dict[str, Unit] = {}
    for unit in units:
        other = found.get(unit.id)
        found[unit.id] = unit if other is None else _together(other, unit)
    return list(found.values())


def _together(one: Unit, other: Unit) -> Unit:
    """Return two as one: it drains if both do; the slots are of those that do not."""
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
    """Return what the policy is told of the workers.

    :param units: Those that are up.
    :param size: What the platform says.
    :param asked: When the ones were asked for that are not up, as far as is known.
    :param pool: How long one boots, and how many runs it takes.
    :param now: Seconds since 1970.
    :param silence: What the others are that the platform has.
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
        # Whoever boots for longer than usual may be at work: no other one is asked for
        # in its place, and it does not go.
        busy += silent - min(max(size.booting, len(young)), silent)
    return Fleet(ready, tuple(known + unknown if booting else ()), busy)


def with_unsaid(crew: Fleet, unsaid: int) -> Fleet:
    """Return *crew* with all workers busy if there are runs of nobody knows whom.

    What a worker says of itself is some seconds old. One that took a job since then
    seems idle, and one that cannot say anything seems to boot. Nobody knows which ones
    these are: none goes before they have said so.
    """
    return crew if unsaid <= 0 else dataclasses.replace(crew, busy=crew.size)


def with_missing(
    crew: Fleet,
    units: t.Sequence[Unit],
    size: Size,
    pool: Pool,
    silence: Silence,
    since: float,
    now: float,
) -> Fleet:
    """Return *crew* with those that were asked for and do not come.

    A worker that nobody expects to be heard of is missing as long as the platform says
    itself that it does not run.

    :param units: Those that are up.
    :param since: Since when some are missing and none came; 0 if that begins now.
    :param now: Seconds since 1970.
    """
    missing = silent_of(units, size, pool, silence)
    if silence != "booting":
        missing = min(missing, size.booting)
    passed = max(now - since, 0.0) if missing and since else 0.0
    return dataclasses.replace(crew, missing=missing, missing_for=passed)


def silent_of(units: t.Sequence[Unit], size: Size, pool: Pool, silence: Silence) -> int:
    """Return how many workers the platform has that are not heard of."""
    heard = len(units)
    if silence == "idle":
        # These units are processes, of which one worker may have several.
        heard = min(math.ceil(sum(unit.slots for unit in units) / pool.slots), heard)
    return max(size.asked - heard, 0)


def expected(
    asked: t.Sequence[float], silent: int, boot: float, now: float
) -> tuple[float, ...]:
    """Return when those were asked for that may still come.

    Not more than are *silent*, and none for ever: one that was given back while it
    booted, or crashed, would be taken for the next one that comes, as if that had been
    booting all the time.
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
    """Return who of those that were asked for is still to come, and new boot times.

    :param asked: When each one was asked for.
    :param units: Those that are up.
    :param since: When it was looked last, seconds since 1970.
    :param known: Ids of the units that were up then. Another one may be ready for
        longer, and not have been heard of.
    """
    waiting = sorted(asked)
    boots = []
    new = [unit for unit in units if unit.ready_at > since or unit.id not in known]
    for ready_at in sorted(unit.ready_at for unit in new):
        if waiting and waiting[0] <= ready_at:
            boots.append(ready_at - waiting.pop(0))
    return tuple(waiting), boots


def boot_time(boots: t.Sequence[float], default: float) -> float:
    """Return the 90th percentile of what was measured, in seconds."""
    if not boots:
        return default
    ordered = sorted(boots)
    return ordered[min(int(_PERCENTILE * len(ordered)), len(ordered) - 1)]


def remember(boots: t.Sequence[float], new: t.Sequence[float]) -> tuple[float, ...]:
    """Return the last boot times."""
    return (*boots, *new)[-_BOOTS:]
