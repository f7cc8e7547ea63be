"""Changes to a run from outside: cancel, resume, retry."""

from __future__ import annotations

import contextlib
import shlex
import typing as t
from dataclasses import replace

from ..common.ids import ancestors_of
from ..common.safe_logging import get_logger
from ..errors import PayloadError
from ..errors import RunNotFound
from ..errors import RunStateError
from ..messages import decode
from ..messages import EventMessage
from ..messages import UndecodableMessage
from ..payloads.sealing import Payloads
from ..redis.errors import TRANSIENT
from ..store.barrier import Barrier
from ..store.children import ORPHANED
from ..store.children import unfinished_children
from ..store.directory import Directory
from ..store.inbox import Inbox
from ..store.inbox import inbox_of
from ..store.inbox import InboxFull
from ..store.memory_guard import MemoryGuard
from ..store.replies import Changed
from ..store.replies import Missing
from ..store.replies import NotFailed
from ..store.replies import OutcomeUnknown
from ..store.replies import Woken
from ..store.replies import WrongState
from ..store.run_reader import Record
from ..store.run_store import RunStore
from ..store.status import RunStatus
from . import run_events
from .outbox import Outbox
from .outbox import parent_of

#: The action of ``run_admin`` for each timer.
_TIMED_OUT = {"timeout": "timeout", "start": "unstarted", "orphan": "orphaned"}

#: Runs whose children one call cancels.
MAX_PARENTS = 100

logger = get_logger(__name__)


class RunAdmin:
    """Changes runs that this process does not own.

    :param memory: The guard that refuses signals where the server has no room for them.
    :param barrier: The barrier that a signal waits for; ``None`` if it waits for none.
    """

    def __init__(
        self,
        store: RunStore,
        outbox: Outbox,
        directory: Directory,
        payloads: Payloads,
        memory: MemoryGuard,
        barrier: Barrier | None,
    ) -> None:
        self._store = store
        self._outbox = outbox
        self._directory = directory
        self._payloads = payloads
        self._memory = memory
        self._barrier = barrier

    def cancel(self, run_id: str, reason: str, *, timer: str = "") -> bool:
        """End an unfinished run as CANCELLED, at once.

        The worker that executes it is refused from then on; a step's body that is
        running is not interrupted.

        Its unfinished children are cancelled with it, and theirs.

        :param timer: ``timeout`` or ``start``, if the run is cancelled because that
            time is over. A run that has started or was paused since is left alone.
            ``orphan``, if its parent does not wait for it any more.
        :returns: True if the run was cancelled; ``False`` if it had ended already.
        :raises RunNotFound: There is no such run.
        """
        record = self._cancel(run_id, reason, timer)
        if record is None:
            return False
        if "children" in record:
            self._cancel_children(run_id)
        return True

    def _cancel(self, run_id: str, reason: str, timer: str) -> Record | None:
        """Cancel one run; return its record, or ``None`` if it had ended already."""
        record = self._record(run_id)
        events = self._events(run_id, record)
        action = _TIMED_OUT[timer] if timer else "cancel"
        reply = self._store.admin(run_id, action, reason=reason, events=events)
        if not isinstance(reply, Changed):
            return None
        if reply.queued:
            self._outbox.send_runs([parent_of(record, reply.queued, reply.branch)])
        self._outbox.send_events(run_events.entries(run_id, record, events))
        self._outbox.confirm_at_once()
        return record

    def _cancel_children(self, run_id: str) -> None:
        """Cancel the children that a cancelled run leaves, and theirs in turn.

        A sweep would cancel them too. It does if this process dies, and where there are
        too many of them for one call.
        """
        parents = [run_id]
        try:
            for _ in range(MAX_PARENTS):
                if not parents:
                    return
                for child in unfinished_children(self._store, parents.pop()):
                    with contextlib.suppress(RunNotFound):
                        record = self._cancel(child, ORPHANED, "orphan")
                        if record is not None and "children" in record:
                            parents.append(child)
        except TRANSIENT as error:
            logger.warning(
                "The children of run %s are cancelled later: %s",
                run_id,
                error,
                extra={"action": "children_deferred"},
            )

    def resume(self, run_id: str) -> None:
        """Queue a PAUSED run again.

        :raises RunNotFound: There is no such run.
        :raises RunStateError: The run is not paused.
        """
        self._requeue(run_id, "resume", "only a paused run can be resumed")

    def retry(self, run_id: str, steps: t.Sequence[str] = ()) -> None:
        """Queue a FAILED or CANCELLED run again, from the step that failed.

        Completed steps do not run again. A failed step that the function caught keeps
        its failure, unless it is named.

        :param steps: The names of failed steps that are to run again as well.
        :raises RunNotFound: There is no such run.
        :raises RunStateError: The run is neither failed nor cancelled; or a named step
            has not failed; or the step that failed the run ran at most once, left no
            outcome, and is not named.
        """
        rule = "only a failed or cancelled run can be retried"
        if above := ancestors_of(run_id):
            rule = f"a branch goes on when its run {above[-1]} is retried"
        self._requeue(run_id, "retry", rule, steps)

    def signal(self, run_id: str, name: str, signal_id: str, data: str) -> None:
        """Give a signal to a run; once for each id.

        :param run_id: The id of the run, or of one of its branches.
        :param data: The data, as JSON text.
        :raises RunNotFound: There is no such run.
        :raises RunStateError: The run has ended, or its inbox is full.
        :raises UnavailableError: The server is full, or does not say that it is kept.
            In the second case it may be; giving it again with its id is harmless.
        """
        self._memory.check()
        sealed = self._payloads.seal_text(data)
        run_id = inbox_of(run_id)
        inbox = Inbox(self._store.server, self._store.keys)
        mark = self._barrier.mark() if self._barrier is not None else None
        reply = inbox.put(run_id, name, signal_id, sealed)
        match reply:
            case Missing():
                raise _not_found(run_id)
            case WrongState():
                raise RunStateError(
                    f"Run {run_id} is {reply.status}: a finished run takes no signal."
                )
            case InboxFull():
                raise RunStateError(
                    f"Run {run_id} has as many signals as it may have.",
                    hint="1,000 wait at most until steps ask for them, 10,000 come in "
                    "all.",
                )
        if self._barrier is not None:
            self._barrier.wait(mark)
        if isinstance(reply, Woken):
            run = (reply.run, reply.function, reply.queue, reply.time)
            self._outbox.send_runs([run])
            self._outbox.confirm_at_once()

    def _events(self, run_id: str, record: Record) -> list[str]:
        if record.get("kind") == "branch":  # whose end is not its run's
            return []
        try:
            message = decode(record["event"])
            assert isinstance(message, EventMessage)
        except UndecodableMessage:  # another version stored it
            name, id, at = record["event_name"], record["event_id"], record["created"]
            empty = EventMessage(name, {}, id, int(at))
            return self._events_with(run_id, record, lambda: empty)
        try:
            return self._events_with(
                run_id,
                record,
                lambda: self._payloads.open_event_of_run(run_id, record),
            )
        except PayloadError as error:
            # A run whose data cannot be read can be cancelled all the same.
            logger.warning(
                "The event of the end of run %s is sent without data: %s",
                run_id,
                error,
                extra={"action": "run_told_without_data"},
            )
            return self._events_with(run_id, record, lambda: replace(message, data={}))

    def _events_with(
        self, run_id: str, record: Record, opened: t.Callable[[], EventMessage]
    ) -> list[str]:
        published = self._directory.current()
        messages = run_events.events_of(
            run_id, record, RunStatus.CANCELLED, "", published, opened
        )
        return [self._payloads.seal_event(message) for message in messages]

    def _requeue(
        self, run_id: str, action: str, rule: str, steps: t.Sequence[str] = ()
    ) -> None:
        reply = self._store.admin(run_id, action, steps=steps)
        match reply:
            case Changed():
                self._send_run(run_id, reply.queued)
            case Missing():
                raise _not_found(run_id)
            case WrongState():
                raise RunStateError(f"Run {run_id} is {reply.status}: {rule}.")
            case NotFailed():
                raise RunStateError(
                    f"Run {run_id} has no failed step {reply.step!r}.",
                    hint="Only a failed step runs again; name it as the run shows it.",
                )
            case OutcomeUnknown(step):
                raise RunStateError(
                    f"Step {step!r} of run {run_id} runs at most once, and was begun: "
                    "it may have had its effect.",
                    hint="Look there first. To run it again, name it: "
                    f"steps=[{step!r}], or --step {shlex.quote(step)} on the "
                    "command line.",
                )

    def _send_run(self, run_id: str, queued: int) -> None:
        for record in self._store.read_records([run_id]):
            self._outbox.send_runs(
                [(run_id, record["function"], record["queue"], queued)]
            )
            self._outbox.confirm_at_once()

    def _record(self, run_id: str) -> Record:
        # Without the memos: they may be megabytes.
        for record in self._store.read_records([run_id]):
            return record
        raise _not_found(run_id)


def _not_found(run_id: str) -> RunNotFound:
    return RunNotFound(
        f"There is no run {run_id!r}.",
        hint="It never existed, or was removed after its retention.",
    )
