"""Retries: the delay until a failed step or body is tried again, or none.

======================  =========================================================
the error has in it     the next attempt
======================  =========================================================
``NonRetriable``        none; the same for errors that say that the code is wrong
a ``non_retriable``     none, if it is the error itself, a cause that ``from`` names,
                        or a member of a group
``RetryAfter``          after its delay; after the longest of several
none of these           after the backoff's delay
======================  =========================================================

An error that was only being handled (``__context__``) counts if the user raises it on
purpose, as the two named here. For a class in ``non_retriable`` it does not count:
``except KeyError: fetch()`` says nothing about the errors of ``fetch``.
"""

from __future__ import annotations

import math
import random as random_module
import typing as t
from dataclasses import dataclass

from ..common.durations import Duration
from ..common.durations import to_seconds
from ..common.safe_logging import get_logger
from ..errors import DefinitionError
from ..errors import NonRetriable
from ..errors import RetryAfter
from ..errors import StepUsageError
from .causes import causes_of


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


#: Errors after which the next attempt would fail as well: the same code would run.
_FINAL = (NonRetriable, StepUsageError, DefinitionError)

logger = get_logger(__name__)


def delay_after(
    attempt: int,
    error: BaseException,
    *,
    retries: int,
    backoff: Backoff,
    non_retriable: tuple[type[BaseException], ...],
) -> float | None:
    """Return the seconds until the next attempt, or ``None`` if there is none.

    :param attempt: The number of the attempt that failed, counted from 1.
    :param retries: The number of attempts that may follow the first.
    """
    if attempt > retries:
        return None
    found = list(causes_of(error))
    if any(isinstance(one, _FINAL) for one in found):
        return None
    if non_retriable and _is_any_of(error, non_retriable):
        return None
    delays = [delay for one in found if (delay := _delay_of(one)) is not None]
    return max(delays) if delays else backoff.delay(attempt)


def _is_any_of(error: BaseException, classes: tuple[type[BaseException], ...]) -> bool:
    try:
        return any(isinstance(one, classes) for one in causes_of(error, implied=False))
    except BaseException as broken:  # the class decides by code of its own
        logger.warning(
            "A class in non_retriable cannot say what is one of it: %s",
            type(broken).__name__,
            extra={"action": "non_retriable_broken"},
        )
        return False


def _delay_of(error: BaseException) -> float | None:
    if not isinstance(error, RetryAfter):
        return None
    # A subclass may have forgotten to call ours, or set it to anything.
    delay: t.Any = getattr(error, "delay", None)
    if not isinstance(delay, (int, float)) or not math.isfinite(delay):
        return None
    return max(float(delay), 0.0)
