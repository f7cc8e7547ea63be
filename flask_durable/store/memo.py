"""A step's memo: a short head that scripts read, and a payload that they do not."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote
from urllib.parse import unquote


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
    def started(self) -> int:
        """When the attempt began: milliseconds since 1970, by its worker's clock."""
        return int(self._parts[1])

    @property
    def milliseconds(self) -> int:
        """How long the attempt took."""
        return int(self._parts[2])

    @property
    def path(self) -> str:
        """Where in a result the value is that could not be kept."""
        return unquote(self._parts[3])

    @property
    def body(self) -> str:
        """The result or the failure, as JSON text."""
        return self._parts[4]

    @property
    def _parts(self) -> list[str]:
        return self.payload.split(" ", 4)


def payload(
    kind: str, body: str, *, started: int = 0, milliseconds: int = 0, path: str = ""
) -> str:
    """Return a memo's payload: the operation, its times, and its JSON text.

    :param started: When the attempt began: milliseconds since 1970, worker's clock
        (for people only).
    :param milliseconds: How long the attempt took.
    :param path: Where in a result the value is that could not be kept.
    """
    return f"{kind} {started} {milliseconds} {quote(path)} {body}"
