"""What is done with an answer that is not what the source's documentation says."""

from __future__ import annotations

import contextlib
import typing as t

from ...errors import PlatformError


@contextlib.contextmanager
def understanding(name: str) -> t.Iterator[None]:
    """Tell an answer whose form is not the documented one from a fault of ours.

    :param name: Whose answer is read in the block.
    :raises PlatformError: It has another form.
    """
    try:
        yield
    except (AttributeError, IndexError, KeyError, TypeError, ValueError):
        raise PlatformError(
            f"{name} answered in a form that is not understood.",
            hint="Look at the source's url and its version.",
        ) from None
