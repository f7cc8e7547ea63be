"""One stored line of a run's log."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from datetime import timezone


@dataclass(frozen=True)
class LogLine:
    """A line that was logged while a run was executed.

    :param number: The number of the line in the run, from 1; numbers are missing if
        there were too many lines to keep.
    :param at: The moment it was logged, by its worker's clock.
    :param level: The level of the record: ``"info"``, ``"warning"``, …
    :param logger: The logger's name.
    :param step: The step whose body logged it, ``None`` between steps.
    :param attempt: The number of the attempt, of the step or otherwise of the body.
    :param message: The message and, if there was an exception, its type and text.
    """

    number: int
    at: datetime
    level: str
    logger: str
    step: str | None
    attempt: int | None
    message: str

    def dump(self) -> str:
        """Return the line as it is stored, without its number."""
        milliseconds = round(self.at.timestamp() * 1000)
        fields = [milliseconds, self.level, self.logger, self.step, self.attempt]
        return json.dumps(
            [*fields, self.message], ensure_ascii=False, separators=(",", ":")
        )

    @classmethod
    def load(cls, number: int, text: str) -> LogLine:
        """Return the line that was stored as *text*."""
        milliseconds, *fields = json.loads(text)
        at = datetime.fromtimestamp(milliseconds / 1000, timezone.utc)
        return cls(number, at, *fields)
