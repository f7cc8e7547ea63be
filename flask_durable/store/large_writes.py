"""Writes that the server may refuse for their size alone.

``proto-max-bulk-len`` and the limits of hosted servers cannot be known in advance. A
server answers with an error and closes the connection. If a text is much too large, the
client only sees the connection end, each time, as if the server were away.
"""

from __future__ import annotations

import typing as t

import redis

#: Characters from which on a text may be too large. No server can be configured to take
#: less than 1 MiB.
LARGE = 500_000

#: Failures of a large write, with small ones answered, after which it is refused.
MAX_FAILURES = 3

T = t.TypeVar("T")


class TooLarge(Exception):
    """Raised when the server answers, but does not take a large text."""


def guarded(
    call: t.Callable[[], T], answers: t.Callable[[], object]
) -> t.Callable[[], T]:
    """Return *call* for a caller that repeats it until the server is back.

    :param answers: A small write; it raises if the server is away.
    :raises TooLarge: The call failed and the small write succeeded, several times.
    """
    failures = 0

    def repeated() -> T:
        nonlocal failures
        try:
            return call()
        except redis.ConnectionError as error:
            answers()
            failures += 1
            if failures < MAX_FAILURES:
                raise
            raise TooLarge("the connection ends whenever it is sent") from error

    return repeated


def is_refusal(error: BaseException, size: int) -> bool:
    """Return whether *error* is the server's answer to the size of a text.

    :param size: Characters of the text.
    """
    return size >= LARGE and isinstance(error, (TooLarge, redis.ResponseError))
