"""Whether, and when, something that failed is tried again."""

from __future__ import annotations

from ..errors import DefinitionError
from ..errors import NonRetriable
from ..errors import RetryAfter
from ..errors import StepUsageError
from ..functions.backoff import Backoff

#: Errors that say that the code is wrong: the next attempt would run the same code.
_WRONG_CODE = (StepUsageError, DefinitionError)


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
    :param retries: How many attempts may follow the first.
    """
    if isinstance(error, (NonRetriable, *_WRONG_CODE)):
        return None
    if non_retriable and isinstance(error, non_retriable):
        return None
    if attempt > retries:
        return None
    if isinstance(error, RetryAfter):
        return error.delay
    return backoff.delay(attempt)
