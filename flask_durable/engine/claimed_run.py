"""A run that this process owns, as its claim answered."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from dataclasses import field

from ..common.ids import ancestors_of
from ..messages import decode
from ..messages import EventMessage
from ..messages import UndecodableMessage
from ..middleware import AttemptInfo
from ..middleware import EventInfo
from ..store.run_reader import Record
from .branches import own_name
from .branches import pattern_of
from .event_sender import event_info


@dataclass(frozen=True)
class ClaimedRun:
    """A run that this process owns.

    :param record: The fields of the run.
    :param memos: Step key to the stored text of its memo.
    :param claimed: ``time.monotonic()`` of the moment the claim was sent.
    """

    run_id: str
    token: str
    # Left out of the text that Dramatiq logs: they are the user's data.
    record: Record = field(repr=False)
    memos: dict[str, str] = field(repr=False)
    claimed: float
    #: Of a branch: record and memos of each run that it belongs to, the nearest first.
    above: tuple[tuple[Record, dict[str, str]], ...] = field(default=(), repr=False)

    @functools.cached_property
    def ancestors(self) -> list[str]:
        """The ids of those runs."""
        return ancestors_of(self.run_id)

    @functools.cached_property
    def message(self) -> EventMessage:
        """The event that the run was created for, as it is stored.

        :raises UndecodableMessage: Another version stored the event.
        """
        message = decode(self.record["event"])
        assert isinstance(message, EventMessage)
        return message

    @functools.cached_property
    def info(self) -> AttemptInfo:
        """The description of this attempt for middleware."""
        record = self.record
        claimed = int(record.get("claimed_at", record["started"]))
        return AttemptInfo(
            run_id=self.run_id,
            function=record["function"],
            queue=record["queue"],
            event=self._event_info,
            number=int(record["attempt"]) + 1,
            created=int(record.get("created", record["started"])),
            queued=int(record.get("queued_at", claimed)),
            claimed=claimed,
            memoized=len(self.memos),
            size=len(record["event"]),
            branch=own_name(self) if self.above else None,
            branch_pattern=pattern_of(self) if self.above else "",
        )

    @functools.cached_property
    def newest_order(self) -> int:
        """The order of the newest memo, see :class:`~flask_durable.store.memo.Memo`."""
        return len(self.memos) + int(self.record.get("removed", "0")) - 1

    @functools.cached_property
    def resumed_since(self) -> int:
        """The time since when something may have changed for the run.

        The end of the claim before this one; of the first claim its beginning. It is
        milliseconds since 1970, by the state server's clock.
        """
        claims = self.record.get("claims", "").split()
        if len(claims) > 1:
            _, begun, _, lasted, _ = claims[-2].split(":", 4)
            return int(begun) + int(lasted)
        return self.info.claimed

    @property
    def _event_info(self) -> EventInfo:
        try:
            return event_info(self.message)
        except UndecodableMessage:  # which fails the run, where its event is needed
            return EventInfo(self.record["event_name"], self.record["event_id"], 0, {})
