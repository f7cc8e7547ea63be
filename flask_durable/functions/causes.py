"""The errors that an error came from.

A step's body may raise "do not retry" inside a task group, and a driver's clean-up may
raise an error of its own over it. The outermost error alone would show neither.
"""

from __future__ import annotations

import typing as t
from collections import deque

#: Errors that are looked at. Chains are a user's: they may be long, or lead back.
MAX_ERRORS = 100


def causes_of(
    error: BaseException, *, implied: bool = True
) -> t.Iterator[BaseException]:
    """Yield *error*, then the errors that it was raised from and consists of.

    The nearest come first: the members of a group, then ``__cause__``, and
    ``__context__`` where Python would print it.

    :param implied: True to follow ``__context__`` as well: the error that was being
        handled when the next one was raised without ``from``.
    """
    seen: set[int] = set()
    found = deque([error])
    while found and len(seen) < MAX_ERRORS:
        error = found.popleft()
        if id(error) in seen:
            continue
        seen.add(id(error))
        yield error
        if isinstance(error, BaseExceptionGroup):
            found.extend(error.exceptions)
        if error.__cause__ is not None:
            found.append(error.__cause__)
        if implied and error.__context__ is not None and not error.__suppress_context__:
            found.append(error.__context__)
