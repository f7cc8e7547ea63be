"""A step's memo: a short head that scripts read, and a payload that they do not."""

from __future__ import annotations

import json
import typing as t
from dataclasses import dataclass


@dataclass(frozen=True)
class Memo:
    """What is stored of one step.

    :param status: ``done``, ``failed``, ``tried`` (it will be retried), ``intent`` or
        ``waiting``.
    :param token: The fencing token of the attempt that wrote it.
    :param number: The number of the step's attempt; of a sleep, when it ends
        (milliseconds since 1970).
    :param payload: JSON text, see :func:`payload`.
    """

    status: str
    token: str
    number: int
    payload: str

    @classmethod
    def parse(cls, text: str) -> Memo:
        """Return the memo that a script stored as *text*."""
        head, _, body = text.partition("\n")
        status, token, number = head.split(" ")
        return cls(status, token, int(number), body)

    def __str__(self) -> str:
        return f"{self.status} {self.token} {self.number}\n{self.payload}"

    @property
    def final(self) -> bool:
        """Whether the step has an outcome, which then never changes."""
        return self.status in ("done", "failed")

    @property
    def kind(self) -> str:
        """Which operation wrote it, such as ``"run"`` or ``"sleep"``."""
        return self.payload.partition(" ")[0]

    @property
    def fields(self) -> dict[str, t.Any]:
        """When it started and how long it took."""
        return t.cast("dict[str, t.Any]", json.loads(self._parts()[1]))

    @property
    def body(self) -> str:
        """The result or the failure, as JSON text."""
        return self._parts()[2]

    def _parts(self) -> list[str]:
        return self.payload.split(" ", 2)


def payload(kind: str, body: str, *, started: int = 0, milliseconds: int = 0) -> str:
    """Return a memo's payload: the operation, its times, and its JSON text.

    :param started: When the attempt began: milliseconds since 1970, worker's clock
        (for people only).
    :param milliseconds: How long the attempt took.
    """
    return f'{kind} {{"at":{started},"ms":{milliseconds}}} {body}'
