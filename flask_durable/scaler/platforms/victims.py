"""Which workers go, on a platform that stops those that it is told."""

from __future__ import annotations

import typing as t

from ...errors import PlatformError


def idle_ones(
    victims: t.Sequence[str], running: t.Container[str], *, pool: str, hint: str
) -> list[str]:
    """Return those of *victims* that are the platform's, by its ids.

    :param victims: Host names, each of which is an id or begins with one.
    :param running: Ids of the workers that run.
    :param pool: What the pool is called in the error.
    :param hint: How its workers get such names.
    :raises PlatformError: None is. The pool would never shrink, and nobody would know
        why.
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
