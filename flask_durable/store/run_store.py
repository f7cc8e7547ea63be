"""Runs in the state server: one method a script, see ``docs/architecture.rst``.

Every method may be repeated with the same arguments and gives its first answer again.
"""

from __future__ import annotations

import time
import typing as t
from dataclasses import dataclass
from dataclasses import field
from dataclasses import replace

from ..common.ids import ancestors_of
from ..common.ids import new_token
from ..messages import EVENT_QUEUE
from ..redis.exchange import Argument
from .above import Levels
from .above import RunsAbove
from .keys import Keys
from .replies import Change
from .replies import change_of
from .replies import checkpoint_of
from .replies import Checkpointed
from .replies import claim_of
from .replies import Claimed
from .replies import Commit
from .replies import commit_of
from .replies import COMMITTED
from .replies import finish_of
from .replies import Finished
from .replies import NotQueued
from .replies import Orphan
from .replies import Parking
from .replies import parking_of
from .replies import Paused
from .replies import refusal
from .replies import Renewal
from .replies import renewals_of
from .replies import Suspension
from .replies import suspension_of
from .run_reader import RunReader
from .server import Call
from .server import StateServer

#: Steps and bytes of memos that a run may have.
MAX_STEPS = 10_000
MAX_MEMO_BYTES = 32 * 1024 * 1024

#: Milliseconds between two tries to run a function whose code is not here, and until
#: the run is paused for an operator.
DEFER_DELAY = 30_000
DEFER_LIMIT = 24 * 3600 * 1000

#: The number of each kind that one sweep handles.
SWEEP_LIMIT = 100

#: Leases renewed by one call.
RENEW_LIMIT = 100

#: Outbox entries of runs confirmed by one call.
CONFIRM_LIMIT = 100


@dataclass(frozen=True)
class NewRun:
    """The first state of a run.

    :param event: The event message, as JSON text.
    :param token: The token that claims the run for the caller; ``""`` queues it.
    :param start_at: The time before which it may not start, milliseconds since 1970; 0
        for now.
    :param unfiltered: True if the function's ``where`` is still to be asked.
    :param late: True if it was asked, and did not answer in time: the run fails.
    """

    id: str
    function: str
    queue: str
    event: str = field(repr=False)
    event_id: str
    event_name: str
    token: str = ""
    timeout: float | None = None
    start_timeout: float | None = None
    start_at: int = 0
    unfiltered: bool = False
    late: bool = False
    version: str = ""


@dataclass(frozen=True)
class Swept:
    """The findings of one sweep that its caller has to act on.

    :param expiring: Finished runs; the caller removes their objects, then the runs.
    :param more: True if a kind besides the outbox had more than :data:`SWEEP_LIMIT`.
    :param behind: Queues that are owed more.
    """

    runs: list[list[str]]
    events: list[list[str]]
    timeouts: list[str]
    expiring: list[str]
    more: bool
    behind: list[str]


class RunStore(RunReader):
    """Reads and writes runs.

    :param server: The state server.
    :param keys: The key names of the namespace.
    :param lease: The seconds that a claim is good for without being renewed.
    :param max_dispatches: The claims without progress after which a run is PAUSED.
    :param retention: The seconds that COMPLETED and CANCELLED runs are kept.
    :param failed_retention: The seconds that FAILED runs are kept.
    :param upkeep: The same server over connections with a short timeout, for calls that
        serve many runs at once. Otherwise one partition that hangs would hold up all
        others for as long as the owner of a run waits.
    """

    def __init__(
        self,
        server: StateServer,
        keys: Keys,
        *,
        lease: float,
        max_dispatches: int,
        retention: float,
        failed_retention: float,
        upkeep: StateServer | None = None,
    ) -> None:
        super().__init__(server, keys)
        self.upkeep = upkeep or server
        self.lease = lease
        self._above = RunsAbove()
        self._max_dispatches = max_dispatches
        self._retention = milliseconds(retention)
        self._failed_retention = milliseconds(failed_retention)

    def creation(self, run: NewRun) -> Call:
        """Return the call that creates *run*, to be sent with others in a pipeline.

        Its reply is read by :func:`~.replies.creation_of`.
        """
        fields = ["function", run.function, "queue", run.queue, "event", run.event]
        fields += ["event_id", run.event_id, "event_name", run.event_name]
        if run.unfiltered:
            fields += ["unfiltered", "late" if run.late else "1"]
        if run.version:
            fields += ["version", run.version]
        args: list[Argument] = [
            run.id,
            run.token,
            milliseconds(self.lease),
            milliseconds(run.timeout),
            milliseconds(run.start_timeout),
            run.start_at,
            *fields,
        ]
        return "run_create", self.keys.tag_of(run.id), args

    def claim(
        self, run_id: str, token: str, *, version: str, queued: int
    ) -> Claimed | Paused | NotQueued | Orphan:
        """Claim a QUEUED run and read its memos, in one pipeline.

        Of a branch the runs above it are read too: it replays their body. Where this
        process has read them a moment ago, they are not read again.
        """
        sent, above = time.monotonic(), ancestors_of(run_id)
        known = self._above.find(above[0]) if above else None
        tag = self.keys.tag_of(run_id)
        args: list[Argument] = [
            run_id,
            token,
            milliseconds(self.lease),
            self._max_dispatches,
            version,
            queued,
        ]
        reads = [f"{tag}:steps:{run_id}"]
        if known is None:
            reads += _keys_above(tag, above)
        replies = self.server.call_many(
            [("run_claim", tag, args)], *[("HGETALL", key) for key in reads]
        )
        for answer in replies:
            if isinstance(answer, Exception):
                raise answer
        claim = claim_of(*replies)
        if not above or not isinstance(claim, Claimed):
            return claim
        by = claim.record["by"]
        if known is not None and known.by == by:
            return replace(claim, above=known.levels)
        if known is not None:  # its step was begun again since
            claim = replace(claim, above=self._read_above(tag, above))
        self._above.keep(above[0], by, claim.above, sent)
        return claim

    def _read_above(self, tag: str, above: t.Sequence[str]) -> Levels:
        pipeline = self.server.client.pipeline(transaction=False)
        for key in _keys_above(tag, above):
            pipeline.hgetall(key)
        found = pipeline.execute()
        return tuple(zip(found[::2], found[1::2], strict=True))

    def park(self, run_id: str) -> Parking:
        """Set aside a QUEUED run whose code is not here."""
        return parking_of(self._call("run_park", run_id, DEFER_DELAY, DEFER_LIMIT))

    def commit(
        self,
        run_id: str,
        token: str,
        step: str,
        status: str,
        number: int,
        payload: str,
        lease: float | None = None,
    ) -> Commit:
        """Write a step's memo and renew the lease.

        :param lease: The lease in seconds, if not the usual; 0 leaves it as it is.
        :raises NotOwner: The run is no longer the caller's.
        """
        reply = self._call(
            "step_commit",
            run_id,
            token,
            milliseconds(self.lease if lease is None else lease),
            step,
            status,
            number,
            payload,
            MAX_STEPS,
            MAX_MEMO_BYTES,
        )
        # The usual reply, once a step: before the others are looked at.
        return COMMITTED if reply == ["ok"] else commit_of(reply)

    def checkpoint(
        self, run_id: str, token: str, step: str, number: int, payload: str
    ) -> Checkpointed:
        """Keep the place that a step's body has come to.

        :param payload: The payload of the step's memo, the checkpoint in it.
        :raises NotOwner: The run is no longer the caller's.
        """
        args = (run_id, token, step, number, payload, MAX_STEPS, MAX_MEMO_BYTES)
        return checkpoint_of(self._call("step_checkpoint", *args))

    def suspend(
        self,
        run_id: str,
        token: str,
        how: str,
        due: str,
        *,
        reason: str,
        step: str = "",
        number: int = 0,
        payload: str = "",
        signal: str = "",
    ) -> Suspension:
        """Give up the ownership of a run, see ``run_suspend.lua``.

        :param due: The time to go on, from :func:`after` or :func:`at`.
        :param signal: The name of the signal that the step waits for.
        :returns: The new state of the run; or :class:`~.replies.Resolved` or
            :class:`~.replies.Full` where the caller still owns it.
        :raises NotOwner: The run is no longer the caller's.
        """
        lease = milliseconds(self.lease)
        reply = self._call(
            "run_suspend",
            run_id,
            token,
            lease,
            how,
            due,
            reason,
            step,
            number,
            payload,
            MAX_STEPS,
            MAX_MEMO_BYTES,
            signal,
        )
        return suspension_of(reply)

    def finish(
        self,
        run_id: str,
        token: str,
        *,
        failed: bool,
        outcome: str,
        failed_step: str = "",
        reason: str = "",
        handler: tuple[str, str, str] = ("", "", ""),
        events: t.Sequence[str] = (),
    ) -> Finished:
        """End a run.

        :param outcome: The result or the failure, as JSON text.
        :param handler: Id, function and queue of the failure handler's run.
        :param events: Event messages that are owed.
        :returns: The runs that were queued with it.
        :raises NotOwner: The run is no longer the caller's.
        """
        reply = self._call(
            "run_finish",
            run_id,
            token,
            "failed" if failed else "completed",
            outcome,
            self._failed_retention if failed else self._retention,
            failed_step,
            reason,
            *handler,
            *events,
        )
        return finish_of(reply)

    def renew(
        self, tag: str, leases: t.Sequence[tuple[str, str, float]]
    ) -> list[Renewal]:
        """Renew the leases of runs in one partition.

        :param leases: Run id, token and seconds, at most :data:`RENEW_LIMIT`.
        :returns: The reply for each run.
        """
        args: list[Argument] = []
        for run_id, token, seconds in leases:
            args += [run_id, token, milliseconds(seconds)]
        reply = self.upkeep.call("lease_renew", tag, *args)
        return renewals_of(reply, len(leases))

    def admin(
        self,
        run_id: str,
        action: str,
        *,
        reason: str = "",
        events: t.Sequence[str] = (),
        generation: int | None = None,
        steps: t.Sequence[str] = (),
    ) -> Change:
        """Cancel, resume or retry a run: its arguments are in ``run_admin.lua``."""
        retried = ("" if generation is None else generation, *steps)
        reply = self._call(
            "run_admin",
            run_id,
            action,
            new_token(),
            reason,
            self._failed_retention,
            *events,
            *(retried if action == "retry" else ()),
        )
        return change_of(reply)

    def sweep(
        self,
        tag: str,
        empty_queues: t.Collection[str] = (),
        resting_queues: t.Iterable[str] = (),
    ) -> Swept:
        """Mend the runs and messages of one partition that lost their owner.

        :param empty_queues: Queues that were seen empty.
        :param resting_queues: Queues that get no messages now.
        """
        reply = self.upkeep.call(
            "sweep",
            tag,
            milliseconds(self.lease),
            SWEEP_LIMIT,
            len(empty_queues),
            *empty_queues,
            *resting_queues,
        )
        runs, events, timeouts, expiring, more, behind = reply
        return Swept(runs, events, timeouts, expiring, bool(more), behind)

    def hold(self, run_id: str, token: str) -> None:
        """Note that a run has objects in the blob store.

        :raises NotOwner: The run is no longer the caller's.
        """
        self._note("run_hold", run_id, token)

    def note_change(self, run_id: str, token: str, step: str) -> None:
        """Note the first step that a replay called differently from its memo.

        :raises NotOwner: The run is no longer the caller's.
        """
        self._note("run_note", run_id, token, step)

    def note_progress(self, run_id: str, token: str, progress: str) -> None:
        """Note how far a run has come.

        :raises NotOwner: The run is no longer the caller's.
        """
        self._note("run_progress", run_id, token, progress)

    def expire(self, run_id: str) -> bool:
        """Remove a finished run whose objects are gone from the blob store.

        :returns: True if the run is gone. It stays if no sweep named it.
        """
        tag = self.keys.tag_of(run_id)
        return bool(self.server.call("run_expire", tag, run_id))

    def forget_timer(self, run_id: str, timer: str) -> None:
        """Remove a timer whose run is gone."""
        self.server.client.zrem(f"{self.keys.tag_of(run_id)}:timers", timer)

    def confirm_runs(self, tag: str, sent: t.Sequence[tuple[str, int]]) -> None:
        """Remove the outbox entries of runs whose messages were sent.

        :param sent: The id of each run, and the time of queueing in its message.
        """
        for start in range(0, len(sent), CONFIRM_LIMIT):
            batch = sent[start : start + CONFIRM_LIMIT]
            args: list[Argument] = [part for pair in batch for part in pair]
            self.upkeep.call("outbox_confirm", tag, *args)

    def confirm_events(self, tag: str, entries: t.Sequence[str]) -> None:
        """Remove the outbox entries of events that were sent."""
        pipeline = self.upkeep.client.pipeline(transaction=False)
        pipeline.zrem(f"{tag}:outbox:{EVENT_QUEUE}", *entries)
        pipeline.hdel(f"{tag}:events", *entries)
        pipeline.execute()

    def _call(self, name: str, run_id: str, *args: Argument) -> t.Any:
        return self.server.call(name, self.keys.tag_of(run_id), run_id, *args)

    def _note(self, name: str, run_id: str, *args: Argument) -> None:
        reply = self._call(name, run_id, *args)
        if reply != ["ok"]:
            raise refusal(name, reply)


def _keys_above(tag: str, above: t.Sequence[str]) -> list[str]:
    return [f"{tag}:{kind}:{id}" for id in above for kind in ("run", "steps")]


def after(seconds: float) -> str:
    """Return a time counted from now by the server's clock, as scripts take it."""
    return str(milliseconds(seconds))


def at(timestamp: float) -> str:
    """Return a time given in seconds since 1970, as scripts take it."""
    return f"@{milliseconds(timestamp)}"


def milliseconds(seconds: float | None) -> int:
    """Return *seconds* as scripts take them; 0 for ``None``."""
    return 0 if seconds is None else round(seconds * 1000)
