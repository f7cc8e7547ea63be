"""One attempt of a run: from its claim until it suspends, ends, or loses the run.

An attempt owns a fencing token. Every write carries it, and is refused once another
worker owns the run. After one refusal, or once the run is handed back or suspended, the
attempt is stopped and writes nothing more.
"""

from __future__ import annotations

import functools
import math
import threading
import time
import typing as t

from ..common.ids import failure_run_id
from ..common.interruption import Body
from ..common.interruption import WholeAttempt
from ..common.safe_logging import get_logger
from ..errors import DurableError
from ..errors import Failure
from ..errors import PayloadLocked
from ..errors import StepUsageError
from ..functions.function import Function
from ..store.barrier import StateMayBeLost
from ..store.large_writes import guarded
from ..store.large_writes import LARGE
from ..store.measurements.service_times import Ending
from ..store.memo import Memo
from ..store.replies import Committed
from ..store.replies import Exists
from ..store.replies import Full
from ..store.replies import Interrupted
from ..store.replies import Lost
from ..store.replies import NotOwner
from ..store.replies import Queued
from ..store.replies import Resolved
from ..store.run_store import after
from ..store.status import RunStatus
from . import run_events
from .attempt_end import AttemptEnd
from .branches import identity_of
from .branches import levels_of
from .claimed_run import ClaimedRun
from .control import BrokenOff
from .control import Ended
from .control import LossInterrupt
from .control import OwnershipLost
from .control import Replayed
from .control import Signal
from .control import Suspended
from .endings import ending_of
from .outbox import Outbox
from .outbox import queued_with
from .progress import Progress
from .replaying import Replay
from .run_payloads import RunPayloads
from .services import EngineServices

if t.TYPE_CHECKING:
    from .steps.checkpoint import Checkpoint

#: The part of a lease that has to be over before a commit renews it. Otherwise a run of
#: many short steps would renew it hundreds of times a second.
FRESH = 0.1

T = t.TypeVar("T")

logger = get_logger(__name__)


class Attempt(Replay):
    """The owner of a run in this process.

    :param memos: Step key to the stored text of its memo. New ones are added where the
        body is replayed by this process.
    :param until: The moment, on the monotonic clock, from which the attempt ends at the
        next step boundary.
    """

    def __init__(
        self,
        services: EngineServices,
        outbox: Outbox,
        function: Function[t.Any, t.Any],
        run: ClaimedRun,
        memos: dict[str, str],
        until: float = math.inf,
    ) -> None:
        super().__init__(run.run_id, memos, levels_of(run, memos))
        self.services = services
        self.outbox = outbox
        self.function = function
        self.token = run.token
        self.record = run.record
        self.run = run
        self.memos = memos
        #: The description of this attempt for middleware.
        self.info = run.info
        self.until = until
        #: Seconds; longer than usual while a step asks for it.
        self.lease = services.store.lease
        #: The step body that is running, so that another thread can interrupt it.
        self.body: Body | None = None
        #: Its checkpoint, once it has one.
        self.checkpoint: Checkpoint | None = None
        #: Shows how far the run has come.
        self.progress = Progress(self)
        #: The whole attempt as a body, which is interrupted between steps.
        self.whole: WholeAttempt | None = None
        #: True once this attempt committed a step: then a failure of the body is the
        #: first one since.
        self.committed = False
        #: True once the attempt is over.
        self.ended = False
        #: The exception of a signal's handler that ends this process, raised in the
        #: body.
        self.process_end: BaseException | None = None
        #: Stores and reads the run's share of the user's data.
        self.payloads = RunPayloads(self)
        self._memoized = bool(run.memos)
        self._renewed = run.claimed
        #: The signal that ended the attempt, if it has ended.
        self.end = AttemptEnd()
        #: The thread that the run's body is called in.
        self.thread = threading.get_ident()

    # -- Steps ask ----------------------------------------------------------------

    @property
    def server_time(self) -> int:
        """The state server's time, milliseconds since 1970.

        The time of the claim plus the monotonic time since: this host's time of day may
        be wrong, and may be set while the run goes on.
        """
        since = time.monotonic() - self.run.claimed
        return self.info.claimed + int(since * 1000)

    @functools.cached_property
    def identity(self) -> str:
        """The name of the run in keys for other services."""
        return identity_of(self.run) if self.run.above else self.run_id

    def check(self) -> None:
        """Raise again the signal that ended this attempt, if one did."""
        if self.end.signal is not None:
            self.end.check()

    @property
    def stopped(self) -> bool:
        """True once this attempt writes nothing more."""
        return self.end.signal is not None

    @property
    def ending(self) -> Ending | None:
        """The end of the delivery, see :func:`~.endings.ending_of`."""
        fresh = self.committed or not self._memoized
        return ending_of(self.end.signal, progress=fresh)

    def close(self) -> None:
        """Note that the attempt has ended: its step tools refuse any further use."""
        self.ended = True
        self.end.release()

    def before_body(self, lease: float | None) -> None:
        """Stop at a step boundary if it is time to, and make sure of the lease.

        An attempt that slept past its lease, in a stopped process, must not start
        another body: past two thirds of the lease it renews before it goes on.
        """
        self._context.replaying = False
        self.check()
        if self.services.draining.is_set():
            self.hand_back()
        # Only after progress: otherwise attempts would hand the run back for ever.
        if self.committed and time.monotonic() >= self.until:
            self.hand_back(reason="slice over")
        if lease is not None:
            self.lease = max(lease, self.services.store.lease)  # renewed no more often
        elif time.monotonic() - self._renewed <= self.lease * 2 / 3:
            return
        self.services.retry_until_answered(self.renew)
        self.check()

    def commit(
        self, key: str, status: str, number: int, payload: str
    ) -> Memo | Interrupted:
        """Write a step's memo; return the memo that stands.

        :returns: The memo; of an intent ``Interrupted``, if the body has started before
            and left no outcome.
        :raises Signal: The run is not ours any more, or has reached its limit.
        """
        sent = time.monotonic()
        lease = 0.0 if status == "intent" else self._lease_after_step(sent)
        reply = self.as_owner(
            lambda: self.services.store.commit(
                self.run_id, self.token, key, status, number, payload, lease
            ),
            size=len(payload),
        )
        match reply:
            case Committed():
                memo = Memo(status, self.token, number, payload)
                if lease:
                    self.renewed(sent)
            case Exists():
                memo = Memo.parse(reply.memo)
            case Interrupted():
                return reply
            case Full():
                self.fail_over_limit(reply.limit)
        if memo.final:
            self.committed = True
            if self.services.replay_eagerly:
                self.memos[key] = str(memo)
        return memo

    def after_step(self) -> None:
        """Replay the body from the top, where effects outside steps are to show.

        :raises Signal: The replay, in development; the executor calls the body again.
        """
        if self.services.replay_eagerly:
            raise self.stop(Replayed())

    def suspend(
        self,
        how: str,
        due: str,
        *,
        reason: str,
        step: str = "",
        number: int = 0,
        payload: str = "",
        signal: str = "",
    ) -> Memo:
        """Suspend the run, see ``run_suspend.lua``.

        :returns: The awaited memo, if it is there already and the run is still ours.
        :raises Signal: The run is suspended, or is not ours any more.
        """
        if self.progress.held_back:
            self.progress.flush()
        reply = self.as_owner(
            lambda: self.services.store.suspend(
                self.run_id,
                self.token,
                how,
                due,
                reason=reason,
                step=step,
                number=number,
                payload=payload,
                signal=signal,
            )
        )
        match reply:
            case Full():
                self.fail_over_limit(reply.limit)
            case Resolved():
                self.committed = True
                return Memo.parse(reply.memo)
            case Queued():
                function, queue = self.record["function"], self.record["queue"]
                self.outbox.send_runs([(self.run_id, function, queue, reply.time)])
        raise self.stop(Suspended(reason))

    def hand_back(
        self, delay: float = 0.0, *, reason: str = "worker shutdown"
    ) -> t.NoReturn:
        """Hand the run back to the queue: this worker does not go on with it.

        :param delay: Seconds until another worker may start it.
        """
        if self.checkpoint is not None:
            self.checkpoint.save()
        self.suspend("handback", after(delay), reason=reason)
        raise AssertionError("a run that is handed back has nothing to resolve")

    def pause(
        self,
        reason: DurableError,
        step: str | None = None,
        *,
        error: BaseException | None = None,
    ) -> t.NoReturn:
        """Set the run aside for a person, with its state kept.

        :param reason: The reason, which everyone who lists runs can read.
        :param error: The error behind the reason. It may quote the user's data, so only
            the failure stores it.
        :raises Signal: The end of this attempt, always.
        """
        reason.__cause__ = error
        failure = Failure.of(reason, step=step)
        # This process may lack the keys of the processes that are to read this.
        locked = isinstance(reason, PayloadLocked)
        seal = Failure.to_json if locked else self.services.payloads.seal_failure
        self.suspend("pause", after(0), reason=str(reason), payload=seal(failure))
        raise AssertionError("a paused run has nothing to resolve")

    def hold(self) -> None:
        """Note that the run has objects in the blob store.

        :raises Signal: The run is not ours any more.
        """
        self.as_owner(lambda: self.services.store.hold(self.run_id, self.token))
        self.record["blobs"] = "1"

    def finish(
        self, *, failed: bool, outcome: str, failed_step: str = "", reason: str = ""
    ) -> None:
        """End the run, and send the messages that its end owes.

        :param outcome: The result or the failure, as JSON text.
        :raises Signal: The run is not ours any more, or waits for the blob store.
        """
        if self.progress.held_back:
            self.progress.flush()
        # The end of a branch is not that of its run.
        ended = failed and not self.run.above
        handler = self.function.failure_handler if ended else None
        handler_run = ("", "", "")
        if handler is not None:
            generation = int(self.record["generation"])
            child = failure_run_id(self.run_id, generation)
            handler_run = (child, handler.id, handler.queue)
        status = RunStatus.FAILED if failed else RunStatus.COMPLETED
        told = run_events.events_of(
            self.run_id,
            self.record,
            status,
            outcome,
            self.services.directory.remembered,
            self.payloads.opened_event,
        )
        sealed, events = self.payloads.seal_end(outcome, failed=failed, events=told)
        finished = self.as_owner(
            lambda: self.services.store.finish(
                self.run_id,
                self.token,
                failed=failed,
                outcome=sealed,
                failed_step=failed_step,
                reason=reason,
                handler=handler_run,
                events=events,
            ),
            size=len(sealed),
        )
        self.stop(Ended(status.value))
        if finished.handler or finished.parent:
            self.outbox.send_runs(queued_with(self.record, handler_run, finished))
        self.outbox.send_events(run_events.entries(self.run_id, self.record, events))

    # -- Other threads report -----------------------------------------------------

    def renewed(self, sent: float) -> None:
        """Note a renewal that succeeded, by the moment it was sent."""
        self._renewed = max(self._renewed, sent)

    def lose(self, *, cancelled: bool) -> None:
        """Note that the run is not ours any more."""
        if self.context is not None:
            self.context.cancel_requested = cancelled
        signal = self.stop(OwnershipLost("cancelled" if cancelled else "lost"))
        if (body := self.body) is not None:
            body.interrupt(LossInterrupt)
        elif self.whole is not None and isinstance(signal, OwnershipLost):
            self.whole.interrupt_late(LossInterrupt)

    def stop(self, signal: Signal) -> Signal:
        """Make *signal* the end of this attempt; the first one stands."""
        return self.end.put(signal)

    # -- Inside -------------------------------------------------------------------

    def _lease_after_step(self, now: float) -> float:
        """Return the seconds that a commit renews the lease to; 0 leaves it."""
        usual = self.services.store.lease
        if self.lease == usual and now - self._renewed < usual * FRESH:
            return 0.0
        # The longer lease that a step asked for ends with the step.
        self.lease = usual
        return usual

    def renew(self) -> None:
        """Renew the lease now, or note that the run is not ours any more."""
        sent = time.monotonic()
        tag = self.services.store.keys.tag_of(self.run_id)
        (reply,) = self.services.store.renew(
            tag, [(self.run_id, self.token, self.lease)]
        )
        if isinstance(reply, Lost):
            self.lose(cancelled=reply.cancelled)
        else:
            self.renewed(sent)

    def as_owner(self, call: t.Callable[[], T], *, size: int = 0) -> T:
        """Write as the run's owner, and wait for the disk where that is asked for.

        :param call: The write; repeated until the state server has answered.
        :param size: Characters of the text that is written.
        :raises Signal: The run is not ours any more, the written state may be lost, or
            the write failed.
        """
        self.check()
        if size >= LARGE:
            call = guarded(call, self.renew)
        try:
            mark = self.services.barrier_mark()
            reply = self.services.retry_until_answered(call)
            self.services.wait_durable(mark)
            return reply
        except NotOwner as refused:
            self.lose(cancelled=refused.cancelled)
        except StateMayBeLost as error:
            # The body must not go on from state that may be lost. The run is taken over
            # from the state that the server still has.
            self.stop(OwnershipLost("its state may be lost"))
            logger.warning(
                "Run %s is given up: %s",
                self.run_id,
                error,
                extra={"action": "run_given_up"},
            )
        except Exception as error:
            # Before it is logged: an error that a filter of the log raises would
            # reach the body, which could catch it and go on without the memo.
            if self.end.was_broken_off:
                # Its end cannot be written either. The lease is renewed no more: the
                # run is taken over.
                self.stop(OwnershipLost(f"a write failed: {error}"))
            else:
                self.stop(BrokenOff(error))
            logger.exception(
                "A write of run %s failed.",
                self.run_id,
                extra={"action": "run_write_failed"},
            )
        self.check()
        raise AssertionError("a lost attempt is stopped")

    def fail_over_limit(self, what: str) -> t.NoReturn:
        error = _limit_reached(what)
        self.info.error = error
        self.finish(failed=True, outcome=Failure.of(error).to_json())
        raise self.stop(Ended(str(error)))


def _limit_reached(what: str) -> StepUsageError:
    """Return the error of a run that has reached a limit.

    :param what: The limit, ``"steps"`` or ``"bytes"``.
    """
    limit = "10,000 steps" if what == "steps" else "32 MiB of step results"
    return StepUsageError(
        f"The run has reached its limit of {limit}.",
        hint="Split the work over several runs, or return less from each step.",
    )
