"""The delay until a failed step or body is tried again, or none.

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
import typing as t

from ..common.safe_logging import get_logger
from ..errors import DefinitionError
from ..errors import NonRetriable
from ..errors import RetryAfter
from ..errors import StepUsageError
from ..functions.backoff import Backoff
from .causes import causes_of

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
