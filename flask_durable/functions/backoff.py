"""The delays between the attempts of a step."""

from __future__ import annotations

import random as random_module
import typing as t
from dataclasses import dataclass

from ..common.durations import Duration
from ..common.durations import to_seconds
from ..errors import DefinitionError


@dataclass(frozen=True, init=False)
class Backoff:
    """Growing delays between attempts.

    The delay after the failed attempt *n* is ``initial * factor ** (n - 1)``, at most
    ``maximum``. With jitter it is drawn evenly from the upper half of that, so that
    runs that failed together do not come back together.

    :param initial: The delay after the first failed attempt.
    :param factor: The ratio of each delay to the one before, at least 1.
    :param maximum: The longest delay.
    :param jitter: True to draw each delay from 0.5 to 1.0 of its computed value.
    :raises DefinitionError: A value is malformed, or ``maximum`` is less than
        ``initial``.
    """

    #: Seconds after the first failed attempt.
    initial: float
    factor: float
    #: Seconds.
    maximum: float
    jitter: bool

    def __init__(
        self,
        initial: Duration = "2s",
        *,
        factor: float = 4,
        maximum: Duration = "1h",
        jitter: bool = True,
    ) -> None:
        try:
            first, longest = to_seconds(initial), to_seconds(maximum)
        except ValueError as error:
            raise DefinitionError(f"Backoff: {error}.") from None
        if longest < first:
            raise DefinitionError(
                f"Backoff: maximum={maximum!r} is less than initial={initial!r}.",
                hint="Give a longer maximum=.",
            )
        number = isinstance(factor, (int, float)) and not isinstance(factor, bool)
        if not number or not 1 <= factor < float("inf"):
            raise DefinitionError(f"Backoff: factor={factor!r} is not a number from 1.")
        put = object.__setattr__
        put(self, "initial", first)
        put(self, "factor", factor)
        put(self, "maximum", longest)
        put(self, "jitter", bool(jitter))

    def delay(
        self, attempt: int, *, random: t.Callable[[], float] = random_module.random
    ) -> float:
        """Return the seconds to wait after the failed *attempt*, counted from 1.

        :param random: A callable that returns a number from 0 to 1, for the jitter.
        """
        try:
            seconds = min(self.initial * self.factor ** (attempt - 1), self.maximum)
        except OverflowError:
            seconds = self.maximum if self.initial else 0.0
        return seconds * (0.5 + random() / 2) if self.jitter else seconds
