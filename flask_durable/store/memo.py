"""A step's memo: a short head for the scripts, and a payload that they do not read."""

from __future__ import annotations

import typing as t
from dataclasses import dataclass
from urllib.parse import quote
from urllib.parse import unquote

#: Calls of a step's body whose times are kept, the newest.
MAX_TRIES = 20


#: The kinds of steps that wait for something, without calling a body.
WAITS = frozenset({"sleep", "invoke", "event", "signal", "url", "group"})

#: The kinds that keep a description on a line before their result: those that wait for
#: an answer, and the one that makes an address.
ANSWERED = frozenset({"event", "signal", "url", "address"})

#: The step that calls a body and waits, by turns.
POLL = "poll"


class Try(t.NamedTuple):
    """One call of a step's body.

    :param started: The time when it began: milliseconds since 1970, by the state
        server's clock.
    :param milliseconds: The time that it took.
    """

    started: int
    milliseconds: int


class Looks(t.NamedTuple):
    """The looks of a step that polls.

    :param number: The number of looks that have ended.
    :param began: The time when the step was first reached: milliseconds since 1970, by
        the state server's clock.
    :param ends: The time from which it looks no more, likewise.
    """

    number: int
    began: int
    ends: int

    @property
    def with_another(self) -> Looks:
        """The same after another look."""
        return self._replace(number=self.number + 1)

    def __str__(self) -> str:
        return f"{self.number}:{self.began}:{self.ends}:"


@dataclass(frozen=True)
class Memo:
    """The stored record of one step.

    :param status: ``done``, ``failed``, ``tried`` (it will be retried), ``begun`` (it
        has a checkpoint only), ``intent`` or ``waiting``.
    :param token: The fencing token of the attempt that wrote it.
    :param number: The number of the step's attempt; of a step that waits, the time when
        the wait ends, or ended (milliseconds since 1970), or 0 if it has no end. A poll
        that is begun after a wait still has that time.
    :param payload: JSON text, see :func:`payload`. A memo that waits has the one that
        it will have when its timer is due.
    :param order: The place among the run's memos, by their first writes. It has gaps.
        The state server gives it, so a memo that was only sent there has 0.
    """

    status: str
    token: str
    number: int
    payload: str
    order: int = 0

    @classmethod
    def parse(cls, text: str) -> Memo:
        """Return the memo that a script stored as *text*."""
        head, _, body = text.partition("\n")
        status, token, number, order = head.split(" ")
        return cls(status, token, int(number), body, int(order))

    def __str__(self) -> str:
        head = f"{self.status} {self.token} {self.number} {self.order}"
        return f"{head}\n{self.payload}"

    @property
    def final(self) -> bool:
        """True if the step has an outcome, which then never changes."""
        return self.status in ("done", "failed")

    @property
    def kind(self) -> str:
        """The operation that wrote it, such as ``"run"`` or ``"sleep"``."""
        return self.payload.partition(" ")[0]

    @property
    def tries(self) -> tuple[Try, ...]:
        """The newest calls of its body, oldest first; of a sleep, its begin."""
        pairs = [part.split("+") for part in self._parts[1].split(",") if part]
        return tuple([Try(int(began), int(took)) for began, took in pairs])

    @property
    def digest(self) -> str:
        """The digest of the call that made it; empty if none is kept."""
        return self._parts[2]

    @property
    def path(self) -> str:
        """The place in the result of a value that could not be kept.

        Of a step that invoked a run, the id of that run.
        """
        text = unquote(self._parts[3])
        return text if self.kind != POLL else text.split(":", 3)[3]

    @property
    def looks(self) -> Looks:
        """The looks of a step that polls."""
        number, began, ends, _ = unquote(self._parts[3]).split(":", 3)
        return Looks(int(number), int(began), int(ends))

    @property
    def waits(self) -> bool:
        """True if its number is the time of a wait."""
        return self.kind in WAITS or (self.kind == POLL and self.status == "waiting")

    @property
    def attempt(self) -> int:
        """The number of the attempt of a body that left it; 0 for a wait."""
        if self.waits:
            return 0
        return 1 if self.kind == POLL and self.status == "begun" else self.number

    @property
    def body(self) -> str:
        """The result or the failure, as JSON text."""
        text = self._parts[4]
        if self.status in ("done", "failed"):  # a replay of many steps comes here
            return text
        return text.partition("\n")[0]

    @property
    def checkpoint(self) -> str:
        """The checkpoint as it is stored; empty if there is none."""
        return "" if self.final else self.payload.partition("\n")[2]

    @property
    def about(self) -> str:
        """The description of such a step; empty for other steps."""
        return self._parts[4].partition("\n")[0] if self.kind in ANSWERED else ""

    @property
    def answer(self) -> str:
        """The result of such a step; empty for none."""
        return self._parts[4].partition("\n")[2]

    @property
    def _parts(self) -> list[str]:
        return self.payload.split(" ", 4)


def payload(
    kind: str,
    body: str,
    *,
    tries: t.Sequence[Try] = (),
    digest: str = "",
    path: str = "",
    checkpoint: str = "",
) -> str:
    """Return a memo's payload: the operation, its times, and its JSON text.

    A checkpoint is on a line of its own behind them: JSON text has no line break. So is
    the answer to a wait, behind the description of the wait.

    :param tries: The calls of the step's body, oldest first.
    :param digest: The digest of the call that made it.
    :param path: The place in the result of a value that could not be kept.
    :param checkpoint: The checkpoint of a step without an outcome, as it is stored.
    """
    times = ",".join([f"{began}+{took}" for began, took in tries[-MAX_TRIES:]])
    text = f"{kind} {times} {digest} {quote(path) if path else ''} {body}"
    return with_checkpoint(text, checkpoint) if checkpoint else text


def with_checkpoint(payload: str, checkpoint: str) -> str:
    """Return the payload of a memo without an outcome, with another checkpoint."""
    return f"{payload.partition(chr(10))[0]}\n{checkpoint}"
