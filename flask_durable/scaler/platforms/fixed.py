"""A pool of fixed size: the scaler only says which size it would want."""

from __future__ import annotations

import typing as t

from ..decision.observation import Size
from .base import Applied
from .base import Traits


class FixedPlatform:
    """A fixed number of workers.

    :param workers: The number.
    """

    def __init__(self, *, workers: int) -> None:
        self._workers = workers
        self.traits = Traits(maximum=workers)

    def describe(self) -> str:
        """Return the platform in one line."""
        return f"fixed:{self._workers}"

    def read(self) -> Size:
        """Return the fixed size."""
        return Size.of(self._workers, self._workers)

    def resize(self, workers: int, victims: t.Sequence[str] = ()) -> Applied:
        """Change nothing."""
        return Applied(self._workers, self._workers, self._workers)
