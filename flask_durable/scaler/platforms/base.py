"""The protocol of a platform that runs workers.

Victims are the workers to stop, on a platform that stops the ones it is told.
"""

from __future__ import annotations

import typing as t
from dataclasses import dataclass

from ...errors import PlatformError
from ..decision.observation import Size


@dataclass(frozen=True)
class Traits:
    """The abilities of a platform.

    :param reaches_zero: True if the pool may have no worker at all.
    :param picks_victims: True if it stops the named workers, or lets each of them end
        its work. Otherwise any worker may go, busy or not.
    :param period: The fewest seconds between two changes.
    :param maximum: The most workers that it gives, where that is known. Some platforms
        tell it only when they are read.
    :param by_host: True if a worker is a whole host, such as a pod or an instance. It
        is known by its host name, and all processes on it count as one. Otherwise a
        worker is what one command started, and a host may have several.
    """

    reaches_zero: bool = True
    picks_victims: bool = False
    period: float = 0.0
    maximum: int | None = None
    by_host: bool = False


@dataclass(frozen=True)
class Applied:
    """The reaction of a platform to a request for workers.

    :param before: Workers that were asked for until then.
    :param after: Workers that are asked for now.
    :param limit: The most workers that the platform gives, if it refused more.
    """

    before: int
    after: int
    limit: int | None = None


class Platform(t.Protocol):
    """Runs the workers of one pool.

    Created from the keyword options of the pool's configuration. Connects on first use.
    Every method raises :class:`~flask_durable.errors.PlatformError` if the platform
    refuses or does not answer. A change may then be done in part, which the next read
    shows; asking for the same size again is harmless.
    """

    @property
    def traits(self) -> Traits:
        """The abilities of the platform."""

    def describe(self) -> str:
        """Return the platform in one line, for people, without any secret."""

    def read(self) -> Size:
        """Return the size of the pool, asked for at each call."""

    def resize(self, workers: int, victims: t.Sequence[str] = ()) -> Applied:
        """Ask for this many *workers*.

        :param workers: The number of workers from now on.
        :param victims: Idle workers that are to go first: host names if the traits say
            ``by_host``, otherwise the ids that the workers report.
        """


def idle_ones(
    victims: t.Sequence[str], running: t.Container[str], *, pool: str, hint: str
) -> list[str]:
    """Return the ids of the *victims* that the platform runs.

    :param victims: Host names. Each is an id or begins with one.
    :param running: Ids of the workers that run.
    :param pool: The pool's name in the error.
    :param hint: The way to give its workers such names.
    :raises PlatformError: No victim is a worker of the platform. Without this error the
        pool would never shrink, for no visible reason.
    """
    ids = dict.fromkeys(victim.partition(".")[0] for victim in victims)
    idle = [id for id in ids if id in running]
    if not idle:
        raise PlatformError(
            f"None of the idle workers is one of {pool}.",
            code="platform.unsupported",
            hint=hint,
        )
    return idle
