"""Runs as the application sees them: ``durable.runs``."""

from __future__ import annotations

import builtins
import json
import time
import typing as t
from dataclasses import dataclass
from datetime import datetime
from datetime import timezone

from .claim import Claim
from .common.ids import run_id
from .common.interruption import shielded
from .engine.admin import RunAdmin
from .errors import Failure
from .errors import RunNotFound
from .events.model import Event
from .messages import RunMessage
from .observe.run_logs import LogLine
from .payloads.deferred import Deferred
from .payloads.deferred import Stored
from .payloads.sealing import Payloads
from .store.directory import Directory
from .store.memo import Memo
from .store.message_failures import MessageFailures
from .store.run_logs import RunLogStore
from .store.run_reader import Record
from .store.run_store import RunStore
from .store.status import RunStatus

#: Seconds between two looks at a run that is waited for: the first and the longest.
_FIRST_PAUSE = 0.02
_LONGEST_PAUSE = 0.5

#: Most pages that a filtered list looks through.
MAX_PAGES = 20

_STEP_STATUS = {"tried": "retrying"}


@dataclass(frozen=True)
class StepAttempt:
    """One attempt of a step.

    :param number: The number of the attempt, counted from 1.
    :param started: The moment it began, by the state server's clock.
    :param duration: Seconds that it took.
    """

    number: int
    started: datetime
    duration: float


@dataclass(frozen=True, repr=False)
class StepRecord:
    """One step of a run, as it is stored.

    ``value`` and ``failure`` are opened when they are read, which raises
    :class:`~flask_durable.PayloadError` if this process cannot open them.

    :param name: The step's name in the run, such as ``"transcode#2"``.
    :param kind: The kind of step: ``run``, ``sleep`` or ``send_event``.
    :param status: ``done``, ``failed``, ``retrying``, ``waiting`` or ``intent``.
    :param attempt: The number of the last attempt that left a trace; 0 for a sleep.
    :param started: The moment that attempt began, by the state server's clock.
    :param duration: Seconds that it took; ``None`` while a sleep goes on.
    :param due: The end of a sleep.
    :param value: The result, as JSON gives it back.
    :param failure: The failure of the last attempt.
    :param attempts: The attempts that left a trace, the newest 20, the oldest of these
        first; empty for a sleep.
    """

    name: str
    kind: str
    status: str
    attempt: int
    started: datetime | None
    duration: float | None
    due: datetime | None
    value: Stored[t.Any] = Stored()
    failure: Stored[Failure | None] = Stored()
    attempts: tuple[StepAttempt, ...] = ()

    def __repr__(self) -> str:
        return f"<StepRecord {self.name!r}, {self.status}>"


@dataclass(frozen=True, repr=False)
class Run:
    """One run of a function, as it was when it was read.

    ``event``, ``result`` and ``failure`` are opened when they are read, which raises
    :class:`~flask_durable.PayloadError` if this process cannot open them, or if they
    were in a blob store and are gone.

    :param id: The id, derived from function and event, so that it is always found.
    :param function: The function's id.
    :param status: The state of the run.
    :param reason: The reason why it is suspended, paused or cancelled, or did nothing.
    :param due: The moment a suspended run goes on.
    :param event: The event that it was created for; its data is a plain object.
    :param event_id: The event's id, which is always readable, as is its name.
    :param event_name: The event's name.
    :param queue: The queue that it waits in.
    :param created: The moment of its creation.
    :param started: The moment it was first claimed.
    :param finished: The moment it ended.
    :param result: The function's result, as JSON gives it back.
    :param failure: The failure that ended or paused it, or the last one of its body.
    :param dispatches: The number of claims since the last progress.
    :param attempt: The number of the body's attempt, counted from 1.
    :param version: The version of the code that ran it last.
    :param steps: The steps in the order they began; empty in a list of runs.
    :param claims: Workers' claims of it, the newest 20, the oldest of these first.
    :param message_error: The error of a message that was sent since the run was queued
        and could not be processed; only of a single queued run. Even if that message is
        dead, the sweeper sends another in time.
    :param changed_step: The first step that was given its stored result although a
        later execution of the body called it with other arguments.
    """

    id: str
    function: str
    status: RunStatus
    reason: str | None
    due: datetime | None
    event_id: str
    event_name: str
    queue: str
    created: datetime
    started: datetime | None
    finished: datetime | None
    dispatches: int
    attempt: int
    version: str
    event: Stored[Event[dict[str, t.Any]]] = Stored()
    result: Stored[t.Any] = Stored()
    failure: Stored[Failure | None] = Stored()
    steps: tuple[StepRecord, ...] = ()
    claims: tuple[Claim, ...] = ()
    message_error: str | None = None
    changed_step: str | None = None

    def __repr__(self) -> str:
        return f"<Run {self.id} of {self.function!r}, {self.status}>"


class Runs:
    """Finds runs and changes them, for one app."""

    def __init__(
        self,
        store: RunStore,
        admin: RunAdmin,
        directory: Directory,
        payloads: Payloads,
        failures: MessageFailures,
        logs: RunLogStore,
    ) -> None:
        self._store = store
        self._failures = failures
        self._logs = logs
        self._payloads = payloads
        self._admin = admin
        self._directory = directory
        self._reader = _Reader(payloads)

    def get(self, id: str) -> Run:
        """Return the run *id* with its steps.

        :raises RunNotFound: There is no such run.
        """
        with shielded():
            record, memos = self._store.read(id)
            message_error = self._message_error(id, record)
        if not record:
            raise _not_found(id)
        return self._reader.run({"id": id, **record}, memos, message_error)

    def logs(self, id: str, *, after: int = 0) -> builtins.list[LogLine]:
        """Return the newest lines that were logged in the run *id*, oldest first.

        They appear a moment after they were logged. ``DURABLE_RUN_LOG_LINES`` sets how
        many are kept.

        :param after: The number that all returned lines exceed.
        :raises RunNotFound: There is no such run.
        :raises PayloadError: The lines cannot be opened by this process.
        """
        with shielded():
            entries = self._logs.read(id)
        if entries is None:
            raise _not_found(id)
        return [
            LogLine.load(number, self._payloads.open(sealed))
            for number, sealed in entries
            if number > after
        ]

    def list(
        self,
        *,
        status: RunStatus | str | None = None,
        function: str | None = None,
        limit: int = 50,
        before: datetime | None = None,
    ) -> list[Run]:
        """Return runs without their steps, the newest first.

        :param status: The state of the returned runs; ``None`` for any.
        :param function: The function of the returned runs; ``None`` for any.
        :param limit: The most runs to return, up to 1,000.
        :param before: The moment that all returned runs were created before.
        :raises ValueError: *status* is no state of a run.
        """
        wanted = None if status is None else RunStatus(status)
        limit = max(1, min(limit, 1000))
        index = "runs"
        if function is not None:
            index = f"function:{function}"
        elif wanted is not None:
            index = f"status:{wanted}"
        edge = None if before is None else int(before.timestamp() * 1000)
        found: builtins.list[Run] = []
        # Bounded: a filter that matches little stops after some thousands of runs.
        for page in range(MAX_PAGES):
            with shielded():
                ids = self._store.newest(
                    index, before=edge, skip=page * limit, limit=limit
                )
                records = self._store.read_records(ids)
            runs = [self._reader.run(record, {}) for record in records]
            found += [run for run in runs if wanted in (None, run.status)]
            if len(found) >= limit or len(ids) < limit:
                break
        return found[:limit]

    def of_event(self, event_id: str) -> builtins.list[Run]:
        """Return the runs that the event *event_id* has, of all published functions."""
        with shielded():
            functions = self._directory.current().functions
            ids = [run_id(function, event_id) for function in functions]
            records = self._store.read_records(ids)
        return [self._reader.run(record, {}) for record in records]

    def _message_error(self, id: str, record: t.Mapping[str, str]) -> str | None:
        if record.get("status") != RunStatus.QUEUED:
            return None
        about = RunMessage.key_of(id)
        failure = self._failures.of([about]).get(about)
        if failure is None or failure.at < int(record["queued_at"]):
            return None  # that of a message which led to an earlier claim
        return failure.error

    def count(self, status: RunStatus | str) -> int:
        """Return how many runs are in a state."""
        with shielded():
            return self._store.count(RunStatus(status).value)

    def cancel(self, id: str, reason: str = "cancelled by the application") -> Run:
        """End an unfinished run as CANCELLED, at once; a finished one is left alone.

        Later writes of its worker are refused. A step's body that is running is not
        interrupted; it can look at ``current_run.cancel_requested``.

        :raises RunNotFound: There is no such run.
        """
        with shielded():
            self._admin.cancel(id, reason)
        return self.get(id)

    def retry(self, id: str, *, steps: t.Sequence[str] = ()) -> Run:
        """Queue a FAILED or CANCELLED run again, from the step that failed.

        :param steps: The names of further failed steps to run again. A step that runs
            at most once, and failed the run because its outcome is unknown, runs again
            only if it is named here.
        :raises RunNotFound: There is no such run.
        :raises RunStateError: The run is neither failed nor cancelled, a named step has
            not failed, or a step with an unknown outcome is not named.
        """
        with shielded():
            self._admin.retry(id, steps)
        return self.get(id)

    def resume(self, id: str) -> Run:
        """Queue a PAUSED run again.

        :raises RunNotFound: There is no such run.
        :raises RunStateError: The run is not paused.
        """
        with shielded():
            self._admin.resume(id)
        return self.get(id)

    def wait(self, id: str, timeout: float | None = None) -> Run:
        """Return the run once it is finished.

        :param timeout: Seconds to wait; ``None`` waits without a limit.
        :raises RunNotFound: There is no such run.
        :raises TimeoutError: The run is not finished in time.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        pause = _FIRST_PAUSE
        while True:
            # The status alone: the steps may be megabytes.
            with shielded():
                status = self._store.status_of(id)
            if status is None:
                raise _not_found(id)
            if RunStatus(status).finished:
                return self.get(id)
            left = pause if deadline is None else deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError(f"Run {id} is still {status} after {timeout} s.")
            time.sleep(min(pause, left))
            pause = min(pause * 1.5, _LONGEST_PAUSE)


@dataclass(frozen=True)
class _Reader:
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
            function=record["function"],
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
            message_error=message_error,
            changed_step=record.get("changed_step"),
            event=Deferred(lambda: self._event(record)),
            result=self._value(record.get("result")),
            failure=self._failure(record.get("failure")),
            steps=self._steps(memos),
            claims=Claim.load_all(record.get("claims", "")),
        )

    def _steps(self, memos: dict[str, Memo]) -> tuple[StepRecord, ...]:
        in_order = sorted(memos.items(), key=lambda pair: pair[1].order)
        return tuple([self._step(name, memo) for name, memo in in_order])

    def _step(self, name: str, memo: Memo) -> StepRecord:
        sleeps = memo.kind == "sleep"
        failed = memo.status in ("failed", "tried")
        return StepRecord(
            name=name,
            kind=memo.kind,
            status=_STEP_STATUS.get(memo.status, memo.status),
            attempt=0 if sleeps else memo.number,
            started=_moment(memo.tries[-1].started) if memo.tries else None,
            duration=_duration(memo),
            due=_moment(memo.number) if sleeps else None,
            value=self._value(memo.body if memo.status == "done" else None),
            failure=self._failure(memo.body if failed else None),
            attempts=() if sleeps else _attempts(memo),
        )

    def _event(self, record: Record) -> Event[dict[str, t.Any]]:
        message = self.payloads.open_event_of_run(record["id"], record)
        at = datetime.fromtimestamp(message.at / 1000, timezone.utc)
        return Event(message.name, message.opened, id=message.id, at=at)

    def _value(self, sealed: str | None) -> t.Any:
        if sealed is None:
            return None
        return Deferred(lambda: json.loads(self.payloads.open(sealed)))

    def _failure(self, sealed: str | None) -> Failure | Deferred[Failure | None] | None:
        if not sealed:
            return None
        return Deferred(lambda: self.payloads.open_failure(sealed))


def _not_found(id: str) -> RunNotFound:
    return RunNotFound(
        f"There is no run {id!r}.",
        hint="It never existed, or was removed after its retention.",
    )


def _attempts(memo: Memo) -> tuple[StepAttempt, ...]:
    # An intent has no time of its own: it was written before the body was called.
    last = memo.number - (memo.status == "intent")
    return tuple(
        [
            StepAttempt(number, t.cast(datetime, _moment(began)), took / 1000)
            for number, (began, took) in enumerate(
                memo.tries, last - len(memo.tries) + 1
            )
        ]
    )


def _duration(memo: Memo) -> float | None:
    if not memo.tries:
        return None
    began, took = memo.tries[-1]
    if memo.kind != "sleep":
        return took / 1000
    return max(memo.number - began, 0) / 1000 if memo.status == "done" else None


def _moment(milliseconds: str | int | None) -> datetime | None:
    if milliseconds is None:
        return None
    return datetime.fromtimestamp(int(milliseconds) / 1000, timezone.utc)
