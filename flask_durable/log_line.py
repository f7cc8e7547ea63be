"""One line of a run's log, as it is kept."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from datetime import timezone


@dataclass(frozen=True)
class LogLine:
    """A line that was logged while a run was executed.

    :param number: Counts the lines of the run from 1; where some are missing, they were
        too many to be kept.
    :param at: When it was logged, by its worker's clock.
    :param level: ``"info"``, ``"warning"``, …
    :param logger: The logger's name.
    :param step: The step whose body logged it, ``None`` between steps.
    :param attempt: The number of the attempt, of the step or else of the body.
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
        """Return the line as it is kept, without its number."""
        milliseconds = round(self.at.timestamp() * 1000)
        fields = [milliseconds, self.level, self.logger, self.step, self.attempt]
        return json.dumps(
            [*fields, self.message], ensure_ascii=False, separators=(",", ":")
        )

    @classmethod
    def load(cls, number: int, text: str) -> LogLine:
        """Return the line that was kept as *text*."""
        milliseconds, *fields = json.loads(text)
        at = datetime.fromtimestamp(milliseconds / 1000, timezone.utc)
        return cls(number, at, *fields)
