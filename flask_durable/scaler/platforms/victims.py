"""The choice of workers to stop, on a platform that stops the ones it is told."""

from __future__ import annotations

import typing as t

from ...errors import PlatformError


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
