"""Reading a run from what is stored of it."""

from __future__ import annotations

import json
import typing as t
from dataclasses import dataclass
from dataclasses import replace
from datetime import datetime

from ..common.ids import plain_function
from ..common.times import datetime_of
from ..errors import Failure
from ..events.model import Event
from ..messages import decode
from ..messages import EventMessage
from ..payloads.deferred import Deferred
from ..payloads.sealing import Payloads
from ..store.memo import ANSWERED
from ..store.memo import Memo
from ..store.memo import POLL
from ..store.memo import WAITS
from ..store.run_reader import Record
from ..store.status import RunStatus
from .model import Claim
from .model import Run
from .model import RunProgress
from .model import StepAttempt
from .model import StepRecord

_STEP_STATUS = {"tried": "retrying"}


@dataclass(frozen=True)
class Reader:
    """Makes runs of their stored form."""

    payloads: Payloads

    def run(
        self,
        record: Record,
        memos: dict[str, Memo],
        message_error: str | None = None,
    ) -> Run:
        return Run(
            id=record["id"],
            function=plain_function(record["function"]),
            status=RunStatus(record["status"]),
            reason=record.get("reason"),
            due=_moment(record.get("due")),
            event_id=record["event_id"],
            event_name=record["event_name"],
            queue=record["queue"],
            created=t.cast(datetime, _moment(record["created"])),
            started=_moment(record.get("started")),
            finished=_moment(record.get("finished")),
            dispatches=int(record["dispatches"]),
            attempt=int(record["attempt"]) + 1,
            version=record.get("version", ""),
            parent=record.get("parent"),
            parent_step=record.get("parent_step"),
            branch=_branch(record),
            message_error=message_error,
            changed_step=record.get("changed_step"),
            progress=self._progress(record.get("progress")),
            event=Deferred(lambda: self._event(record)),
            result=self._value(record.get("result")),
            failure=self._failure(record.get("failure")),
            steps=self._steps(memos),
            claims=Claim.load_all(record.get("claims", "")),
        )

    def brief(self, record: Record, whole: t.Callable[[], Run]) -> Run:
        """Return a run whose record has no data.

        :param whole: A callable that returns it with its data. It is called when the
            first of that is asked for.
        """
        return replace(
            self.run(record, {}),
            event=Deferred(lambda: whole().event),
            result=Deferred(lambda: whole().result),
            failure=Deferred(lambda: whole().failure),
        )

    def _steps(self, memos: dict[str, Memo]) -> tuple[StepRecord, ...]:
        in_order = sorted(memos.items(), key=lambda pair: pair[1].order)
        return tuple([self._step(name, memo) for name, memo in in_order])

    def _step(self, name: str, memo: Memo) -> StepRecord:
        waits = memo.waits
        looks = memo.looks if memo.kind == POLL else None
        failed = memo.status in ("failed", "tried")
        return StepRecord(
            name=name,
            kind=memo.kind,
            status=_STEP_STATUS.get(memo.status, memo.status),
            attempt=memo.attempt,
            started=_started(memo),
            duration=_duration(memo),
            due=_moment(memo.number or None) if waits else None,
            value=self._answer(memo) if memo.status == "done" else None,
            failure=self._failure(memo.body if failed else None),
            child=memo.path if memo.kind == "invoke" else None,
            attempts=() if waits else _attempts(memo),
            checkpoint=self._value(memo.checkpoint or None),
            about=self._value(memo.about),
            looks=looks.number if looks else None,
        )

    def _answer(self, memo: Memo) -> t.Any:
        if memo.kind == "group":  # it has the names of the branches
            return None
        if memo.kind not in ANSWERED:
            return self._value(memo.body)
        if memo.kind == "address":
            return None  # everyone who knows it can answer
        if memo.kind in ("signal", "url") or not memo.answer:
            return self._value(memo.answer)
        return Deferred(lambda: self._awaited(memo.answer))

    def _awaited(self, text: str) -> dict[str, t.Any]:
        message = self.payloads.open_event(t.cast(EventMessage, decode(text)))
        return {"name": message.name, "id": message.id, "data": message.opened}

    def _event(self, record: Record) -> Event[dict[str, t.Any]]:
        message = self.payloads.open_event_of_run(record["id"], record)
        at = datetime_of(message.at)
        return Event(message.name, message.opened, id=message.id, at=at)

    def _progress(self, text: str | None) -> RunProgress | None:
        if text is None:
            return None
        at, fraction, sealed = text.split(" ", 2)
        message = Deferred(lambda: self.payloads.open(sealed))
        return RunProgress(float(fraction), t.cast(datetime, _moment(at)), message)

    def _value(self, sealed: str | None) -> t.Any:
        if not sealed:
            return None
        return Deferred(lambda: json.loads(self.payloads.open(sealed)))

    def _failure(self, sealed: str | None) -> Failure | Deferred[Failure | None] | None:
        if not sealed:
            return None
        return Deferred(lambda: self.payloads.open_failure(sealed))


def _attempts(memo: Memo) -> tuple[StepAttempt, ...]:
    # These have no time of their own: they are written before the body ends.
    last = memo.attempt - (memo.status in ("intent", "begun"))
    return tuple(
        [
            StepAttempt(number, t.cast(datetime, _moment(began)), took / 1000)
            for number, (began, took) in enumerate(
                memo.tries, last - len(memo.tries) + 1
            )
        ]
    )


def _started(memo: Memo) -> datetime | None:
    if memo.kind == POLL:
        return _moment(memo.looks.began)
    return _moment(memo.tries[-1].started) if memo.tries else None


def _duration(memo: Memo) -> float | None:
    if not memo.tries:
        return None
    began, took = memo.tries[-1]
    if memo.kind == POLL:
        ended = began + took - memo.looks.began
        return max(ended, 0) / 1000 if memo.final else None
    if memo.kind not in WAITS:
        return took / 1000
    return max(memo.number - began, 0) / 1000 if memo.final else None


def _branch(record: Record) -> str | None:
    if "place" not in record:
        return None
    return f"{record['parent_step']}[{record['place']}]"


def _moment(milliseconds: str | int | None) -> datetime | None:
    if milliseconds is None:
        return None
    return datetime_of(int(milliseconds))
