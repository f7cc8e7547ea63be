"""What a platform that runs workers can be asked and told."""

from __future__ import annotations

import typing as t
from dataclasses import dataclass


@dataclass(frozen=True)
class Traits:
    """What a platform can do.

    :param reaches_zero: Whether there may be no worker at all.
    :param picks_victims: Whether it stops those workers that are named, or lets each of
        them end its work; else any of them may go, whatever it does.
    :param period: Seconds between two changes at least.
    :param maximum: The most workers that it gives, where it says so; some say it when
        they are read.
    :param by_host: Whether a worker is a whole host, as a pod or an instance is: it is
        known by its host name, and all processes on it count as one. Else a worker is
        what one command started, and there may be several on a host.
    """

    reaches_zero: bool = True
    picks_victims: bool = False
    period: float = 0.0
    maximum: int | None = None
    by_host: bool = False


@dataclass(frozen=True)
class Size:
    """The size of a pool as its platform tells it.

    :param asked: Workers that were asked for.
    :param running: Workers that run.
    :param booting: Workers that were asked for and do not run yet.
    """

    asked: int
    running: int
    booting: int

    @classmethod
    def of(cls, asked: int, running: int) -> Size:
        """Return the size of a pool of which those two numbers are known.

        Whatever does not run is on its way: it boots, or is started again after it
        crashed. What runs beyond what was asked for is on its way out.
        """
        running = min(running, asked)
        return cls(asked, running, asked - running)


@dataclass(frozen=True)
class Applied:
    """What a platform made of a wish.

    :param before: Workers that were asked for until then.
    :param after: Workers that are asked for now.
    :param limit: What the platform gives at most, if it refused more.
    """

    before: int
    after: int
    limit: int | None = None


class Platform(t.Protocol):
    """Runs the workers of one pool.

    Made of the keyword options of the pool's configuration. Connects on first use.
    Every method raises :class:`~flask_durable.errors.PlatformError` if the platform
    refuses or does not answer. What it did of a change until then shows when it is
    read anew; asking for the same size again is harmless.
    """

    @property
    def traits(self) -> Traits:
        """What it can do."""

    def describe(self) -> str:
        """Return what it is in one line, for people, without any secret."""

    def read(self) -> Size:
        """Return the size of the pool, asked for anew each time."""

    def resize(self, workers: int, victims: t.Sequence[str] = ()) -> Applied:
        """Ask for so many *workers*.

        :param workers: How many there should be.
        :param victims: Workers that are idle, and are to go first: host names if the
            traits say ``by_host``, else what the workers call themselves.
        """
