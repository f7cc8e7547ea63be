"""Writes that the server may refuse for their size alone.

``proto-max-bulk-len`` and the limits of hosted servers are not ours to know before. A
server answers with an error and closes the connection, and of a text that is much too
large the client only sees the connection end: as if the server were away, for ever.
"""

from __future__ import annotations

import typing as t

import redis

#: Characters from which on a text may be too large. No server can be told to take less
#: than 1 MiB.
LARGE = 500_000

#: Times that a large write fails, while small ones are answered, until it is refused.
MAX_FAILURES = 3

T = t.TypeVar("T")


class TooLarge(Exception):
    """Raised when the server answers, but does not take a large text."""


def guarded(
    call: t.Callable[[], T], answers: t.Callable[[], object]
) -> t.Callable[[], T]:
    """Return *call* for somebody who repeats it until the server is back.

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
    """Return whether *error* is the server's answer to the size of what it was sent.

    :param size: Characters of the text.
    """
    return size >= LARGE and isinstance(error, (TooLarge, redis.ResponseError))
