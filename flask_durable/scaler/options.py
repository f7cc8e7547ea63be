"""The options of each pool of workers, parsed from ``DURABLE_SCALE``."""

from __future__ import annotations

import difflib
import typing as t
from dataclasses import dataclass
from dataclasses import field

from ..common.durations import to_seconds
from .decision.floors import Floor
from .decision.observation import Goal

#: Seconds for a pool without these options.
DEFAULT_PERIOD = 60.0
DEFAULT_BOOT = 30.0

_DURATIONS = ("desired_wait", "completion", "window", "guess", "boot", "period")
_COUNTS = ("minimum", "maximum", "fallback", "slots")
_NUMBERS = ("margin", "headroom")
_GOAL = (
    *("desired_wait", "completion", "window", "guess"),
    *("minimum", "maximum", "fallback"),
    *_NUMBERS,
)
_PLUGINS = ("platform", "sources", "introspector")
_KNOWN = (
    *_DURATIONS,
    *_COUNTS,
    *_NUMBERS,
    *_PLUGINS,
    *("queues", "floors", "drains"),
)


@dataclass(frozen=True)
class PoolOptions:
    """The options of one pool.

    :param name: The pool's name on the command line.
    :param queues: The queues whose runs its workers execute. The value is the seconds
        within which a ready run of that queue is to begin; the shortest come first.
    :param goal: The goal of these queues.
    :param platform: Name and options of the platform.
    :param sources: Names and options of further sources of service times.
    :param introspector: Name and options of the introspector, for queues of another
        library.
    :param drains: True if a worker that is told to stop ends its jobs first, however
        long they take; ``None`` leaves it to the platform.
    :param slots: Runs that a worker executes at a time; ``None``: they are measured.
    :param boot: Seconds that a worker boots, until that has been measured.
    :param period: Seconds between two runs of the scaler.
    :param floors: The fewest workers by the time of the week.
    """

    name: str
    queues: t.Mapping[str, float]
    goal: Goal
    platform: t.Mapping[str, t.Any] = field(repr=False)  # there may be tokens in here
    sources: tuple[t.Mapping[str, t.Any], ...] = field(default=(), repr=False)
    introspector: t.Mapping[str, t.Any] | None = field(default=None, repr=False)
    drains: bool | None = None
    slots: int | None = None
    boot: float = DEFAULT_BOOT
    period: float = DEFAULT_PERIOD
    floors: tuple[Floor, ...] = ()

    def __post_init__(self) -> None:
        if not self.period > 0:
            raise ValueError("period is not a positive number of seconds")
        if self.slots == 0:
            raise ValueError("slots is 0")
        if any(floor.workers > self.goal.maximum for floor in self.floors):
            raise ValueError("a floor is above the maximum")


def parse_pools(value: t.Any) -> tuple[PoolOptions, ...]:
    """Return the pools that *value* describes, a dictionary of dictionaries by name.

    :raises ValueError: The value is malformed. The text is the end of a sentence.
    """
    if value is None:
        return ()
    if not isinstance(value, t.Mapping):
        raise ValueError("must be a dictionary of pools by name")
    return tuple(_pool(str(name), given) for name, given in value.items())


def _pool(name: str, given: t.Any) -> PoolOptions:
    if not isinstance(given, t.Mapping):
        raise ValueError(f"must have a dictionary for the pool {name!r}")
    unknown = [key for key in given if key not in _KNOWN]
    if unknown:
        near = difflib.get_close_matches(str(unknown[0]), _KNOWN, 1)
        hint = f", did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"has an unknown option {unknown[0]!r} for {name!r}{hint}")
    if "desired_wait" not in given and not isinstance(given.get("queues"), t.Mapping):
        raise ValueError(f"must have a desired_wait for {name!r}")
    try:
        return _checked(name, given)
    except (ValueError, TypeError) as error:
        raise ValueError(f"has a wrong value for {name!r}: {error}") from None


def _checked(name: str, given: t.Mapping[str, t.Any]) -> PoolOptions:
    values: dict[str, t.Any] = {}
    for key in given:
        if key in _DURATIONS:
            values[key] = to_seconds(given[key])
        elif key in _COUNTS:
            values[key] = _count(key, given[key])
        elif key in _NUMBERS:
            values[key] = float(given[key])
    queues = _queues(given.get("queues", name), values.get("desired_wait"))
    values["desired_wait"] = min(queues.values())
    goal = Goal(**{key: values.pop(key) for key in _GOAL if key in values})
    floors = given.get("floors", {})
    if not isinstance(floors, t.Mapping):
        raise ValueError("floors is not a dictionary of numbers by time")
    return PoolOptions(
        name,
        queues,
        goal,
        _platform(given),
        _sources(given.get("sources", ())),
        _introspector(given),
        _drains(given),
        floors=tuple(Floor.parse(when, _count(when, n)) for when, n in floors.items()),
        **values,
    )


def _queues(given: t.Any, wait: float | None) -> dict[str, float]:
    """Return queues with their waits, from a name, names or a dictionary."""
    if isinstance(given, t.Mapping):
        queues = {str(queue): to_seconds(own) for queue, own in given.items()}
        if wait is not None:
            raise ValueError("each of its queues has a wait: leave out desired_wait")
    else:
        names = (given,) if isinstance(given, str) else tuple(given)
        queues = dict.fromkeys(names, wait or 0.0)
    if not queues:
        raise ValueError("queues is empty")
    # A function in several queues gets the wait of the first, the shortest.
    return dict(sorted(queues.items(), key=lambda item: item[1]))


def _count(key: str, value: t.Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f"{key} is not a whole number")
    return value


def _platform(given: t.Mapping[str, t.Any]) -> t.Mapping[str, t.Any]:
    platform = _plugin("platform", given.get("platform", "local"))
    if "introspector" in given and platform["platform"] == "local":
        # Its supervisor starts our workers, which do not know those queues.
        raise ValueError("a pool with an introspector has a platform that is not local")
    return platform


def _introspector(given: t.Mapping[str, t.Any]) -> t.Mapping[str, t.Any] | None:
    if "introspector" not in given:
        return None
    return _plugin("introspector", given["introspector"])


def _drains(given: t.Mapping[str, t.Any]) -> bool | None:
    """Return the option; workers of another library are not trusted to drain."""
    drains = given.get("drains", False if "introspector" in given else None)
    if drains is not None and not isinstance(drains, bool):
        raise ValueError("drains is not True or False")
    return drains


def _sources(given: t.Any) -> tuple[t.Mapping[str, t.Any], ...]:
    if not isinstance(given, (list, tuple)):
        raise ValueError("sources is not a list")
    return tuple(_plugin("source", source) for source in given)


def _plugin(kind: str, given: t.Any) -> t.Mapping[str, t.Any]:
    """Return name and options: ``"local"`` is short for ``{"platform": "local"}``."""
    if isinstance(given, str):
        return {kind: given}
    if not isinstance(given, t.Mapping) or not isinstance(given.get(kind), str):
        raise ValueError(f"a {kind} is a name, or a dictionary with {kind!r}")
    return dict(given)
