"""Runs as the application sees them: ``durable.runs``."""

from __future__ import annotations

import builtins
import functools
import time
import typing as t
from datetime import datetime

from ..common.ids import run_id
from ..common.interruption import shielded
from ..common.times import milliseconds_of
from ..engine.admin import RunAdmin
from ..errors import RunNotFound
from ..messages import RunMessage
from ..observe.run_logs import LogLine
from ..payloads.sealing import Payloads
from ..store.directory import Directory
from ..store.message_failures import MessageFailures
from ..store.run_logs import RunLogStore
from ..store.run_store import RunStore
from ..store.status import RunStatus
from .model import Run
from .reader import Reader

#: Seconds between two looks at a run that is waited for: the first and the longest.
_FIRST_PAUSE = 0.02
_LONGEST_PAUSE = 0.5

#: Most pages that a filtered list looks through.
MAX_PAGES = 20


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
        self._reader = Reader(payloads)

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
        parent: str | None = None,
        limit: int = 50,
        before: datetime | None = None,
    ) -> list[Run]:
        """Return runs without their steps, the newest first.

        :param status: The state of the returned runs; ``None`` for any.
        :param function: The function of the returned runs; ``None`` for any.
        :param parent: The run that invoked the returned runs, or whose branches they
            are; ``None`` for any. Without it no branches are returned.
        :param limit: The most runs to return, up to 1,000.
        :param before: The moment that all returned runs were created before.
        :raises ValueError: *status* is no state of a run.
        """
        wanted = None if status is None else RunStatus(status)
        limit = max(1, min(limit, 1000))
        index = "runs"
        if parent is not None:
            index = f"children:{parent}"
        elif function is not None:
            index = f"function:{function}"
        elif wanted is not None:
            index = f"status:{wanted}"
        edge = None if before is None else milliseconds_of(before)
        found: builtins.list[Run] = []
        # Bounded: a filter that matches little stops after some thousands of runs.
        for page in range(MAX_PAGES):
            with shielded():
                ids = self._store.newest(
                    index, before=edge, skip=page * limit, limit=limit
                )
                records = self._store.read_records(ids)
            runs = [
                self._reader.run(record, {})
                for record in records
                if parent is not None or record.get("kind") != "branch"
            ]
            found += [
                run
                for run in runs
                if wanted in (None, run.status) and function in (None, run.function)
            ]
            if len(found) >= limit or len(ids) < limit:
                break
        return found[:limit]

    def children(self, id: str) -> builtins.list[Run]:
        """Return the runs that the run *id* invoked and its branches, oldest first.

        They have no steps. At most 10,000 are returned, the newest. Only short fields
        are read. Event, result and failure of a run are read when they are asked for,
        which raises :class:`~flask_durable.RunNotFound` if it was removed since.
        """
        with shielded():
            records = self._store.children(id)
        found = []
        for record in records:
            whole = functools.cache(functools.partial(self._whole, record["id"]))
            found.append(self._reader.brief(record, whole))
        return found

    def _whole(self, id: str) -> Run:
        with shielded():
            records = self._store.read_records([id])
        if not records:
            raise _not_found(id)
        return self._reader.run(records[0], {})

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


def _not_found(id: str) -> RunNotFound:
    return RunNotFound(
        f"There is no run {id!r}.",
        hint="It never existed, or was removed after its retention.",
    )
