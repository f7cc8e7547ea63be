"""The inbox of a run: signals, and answers to the addresses that it made."""

from __future__ import annotations

import typing as t
from dataclasses import dataclass

from ..common.ids import ancestors_of
from .keys import Keys
from .memo import Memo
from .replies import Missing
from .replies import Taken
from .replies import UnknownReply
from .replies import Woken
from .replies import WrongState
from .server import StateServer


@dataclass(frozen=True, slots=True)
class InboxFull:
    """The run has as many signals as it may have."""


@dataclass(frozen=True, slots=True)
class OtherMark:
    """The run has a signal of that id already, with another mark."""


@dataclass(frozen=True, slots=True)
class TooLate:
    """The time until which the signal was accepted is over."""


@dataclass(frozen=True, slots=True)
class AddressState:
    """The stored state of an address.

    :param status: The status of the run that answers go to; ``None`` if it is gone.
    :param memo: The memo of the step that made it; ``None`` if there is none.
    :param answered: True if the run has an answer.
    """

    status: str | None
    memo: Memo | None
    answered: bool


Signalled = Woken | Taken | WrongState | Missing | InboxFull | OtherMark | TooLate


class Inbox:
    """Gives signals to runs.

    :param server: The state server.
    :param keys: The names of its keys.
    """

    def __init__(self, server: StateServer, keys: Keys) -> None:
        self._server = server
        self._keys = keys

    def put(
        self,
        run_id: str,
        name: str,
        signal_id: str,
        data: str,
        *,
        mark: str = "",
        until: int | None = None,
    ) -> Signalled:
        """Give a signal to a run that is no branch, see ``signal_put.lua``.

        :param mark: A short text that tells its data from other data of the same id.
        :param until: The time from which on it is refused, milliseconds since 1970.
        """
        tag = self._keys.tag_of(run_id)
        args = (name, signal_id, data, mark, "" if until is None else until)
        match self._server.call("signal_put", tag, run_id, *args):
            case ["queued", time, function, queue, run]:
                return Woken(int(time), function, queue, run)
            case ["taken"]:
                return Taken()
            case ["state", status]:
                return WrongState(status)
            case ["full"]:
                return InboxFull()
            case ["missing"]:
                return Missing()
            case ["other"]:
                return OtherMark()
            case ["over"]:
                return TooLate()
            case reply:
                raise UnknownReply("signal_put", reply)

    def look(self, run_id: str, step: str, signal_id: str) -> AddressState:
        """Return the state of an address, in one round trip.

        :param run_id: The run that made it.
        :param step: The key of the step that made it.
        :param signal_id: The id of the answer.
        """
        tag, owner = self._keys.tag_of(run_id), inbox_of(run_id)
        pipeline = self._server.client.pipeline(transaction=False)
        pipeline.hget(f"{tag}:run:{owner}", "status")
        pipeline.hget(f"{tag}:steps:{run_id}", step)
        pipeline.hexists(f"{tag}:signals:{owner}", f"id {signal_id}")
        status, memo, answered = pipeline.execute()
        found = None if memo is None else Memo.parse(t.cast(str, memo))
        return AddressState(status, found, bool(answered))


def inbox_of(run_id: str) -> str:
    """Return the run whose inbox *run_id* has: of a branch, that of its whole run."""
    return [run_id, *ancestors_of(run_id)][-1]
