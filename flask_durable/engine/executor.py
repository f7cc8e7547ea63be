"""Executes runs: claims them, replays their memos, goes on, and settles their end.

===================  =======================================================
the body …           the run …
===================  =======================================================
returns              is COMPLETED with the value
raises a step error  is FAILED at once: the step had its retries
raises otherwise     is tried again under the function's retries, then FAILED
is suspended         was suspended by one of its steps
lost its lease       belongs to another worker; nothing is written
===================  =======================================================

A body returns only when its app context has ended: an error from the end of the context
is an error of the body. An error that is raised after the body, where a result is
stored or a failure described, cannot be seen by the body. It counts as a failure of the
attempt. If not even that can be written, the run is PAUSED with the error.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
import math
import time
import typing as t
from dataclasses import replace
from datetime import datetime
from datetime import timezone

from ..common.copies import end_if_copied
from ..common.ids import new_token
from ..common.ids import process_of
from ..common.interruption import Interrupt
from ..common.interruption import WholeAttempt
from ..common.safe_logging import at_once
from ..common.safe_logging import get_logger
from ..common.safe_logging import hand_to_teller
from ..common.safe_points import call
from ..current import call_in_run
from ..current import RunContext
from ..errors import BranchError
from ..errors import DurableError
from ..errors import Failure
from ..errors import FilterTimeout
from ..errors import ReplayMismatch
from ..errors import StepError
from ..functions.causes import causes_of
from ..functions.function import Function
from ..functions.retries import delay_after
from ..functions.step_function import active_step
from ..functions.step_function import give_tools
from ..messages import RunMessage
from ..messages import UndecodableMessage
from ..observe.logging import run_logger
from ..serialization import codec_for
from ..serialization import UnserializableValue
from ..store.replies import Claimed
from ..store.replies import Orphan
from ..store.replies import Paused
from ..store.run_store import after
from .attempt import Attempt
from .branches import outcome_of_branch
from .branches import owner_of
from .branches import record_of
from .branches import step_of_branch
from .claimed_run import ClaimedRun
from .claiming import cancel_orphan
from .claiming import park
from .claiming import revive
from .control import BrokenOff
from .control import Replayed
from .control import Signal
from .endings import log_completed
from .endings import log_failed
from .endings import tell
from .leases import Leases
from .outbox import Outbox
from .probation import Probation
from .process_end import hand_back_if_ending
from .processor_time import ProcessorTime
from .services import EngineServices
from .steps.outcome import check_size
from .steps.outcome import refused_by_server
from .steps.tools import AttemptStep

#: Seconds for which a run is left to workers of the release that fits its event.
OTHERS_TURN = 5.0

logger = get_logger(__name__)


class Executor:
    """Executes runs in the calling thread."""

    def __init__(
        self, services: EngineServices, outbox: Outbox, leases: Leases
    ) -> None:
        self._services = services
        self._outbox = outbox
        self._leases = leases
        self._processor = ProcessorTime()
        #: The threads whose bodies were given up.
        self.lost_threads = services.lost_threads
        self.lost_threads.keepers.append(leases)
        self._probation = Probation(services, leases)

    def claim(
        self, message: RunMessage, *, until: float = math.inf
    ) -> ClaimedRun | None:
        """Claim the run that *message* hints at.

        :param until: The moment, on the monotonic clock, to give up at while the state
            server does not answer. A claim that it carried out runs out as any lease.
        :returns: ``None`` if there is nothing to execute here: another worker owns the
            run, or it is finished or paused, or its code is not here. In each case the
            message has served its purpose.
        """
        if message.failed is not None:
            revive(self._services, message.run, message.failed, until)
        function = self._services.functions.get(message.function)
        if function is None:
            park(self._services, message, until)
            return None
        token = new_token()
        sent = time.monotonic()
        claim = self._services.retry_until_answered(
            lambda: self._services.store.claim(
                message.run, token, version=function.version, queued=message.queued
            ),
            until=until,
        )
        match claim:
            case Claimed():
                record, memos = record_of(claim), claim.memos
                return ClaimedRun(message.run, token, record, memos, sent, claim.above)
            case Orphan():
                cancel_orphan(self._services, message.run, until)
            case Paused():
                logger.error(
                    "Run %s is paused: it was claimed too often without progress.",
                    message.run,
                    extra={"action": "run_paused"},
                )
        return None

    def execute(self, run: ClaimedRun, *, until: float = math.inf) -> None:
        """Execute one attempt of *run*. An error of the user's code is never raised.

        :param until: The moment, on the monotonic clock, from which the run is handed
            back at the next step boundary, but not before one step was done.
        """
        services = self._services
        function = services.functions.get(run.record["function"])
        if function is None:
            raise LookupError(f"the code of {run.record['function']!r} is not here")
        memos = dict(run.memos)
        if run.info.number > 1 and (failure := run.record.get("failure")):
            run.info.previous = services.payloads.readable_failure(failure)
        began = time.monotonic()
        kept = services.run_logs.keeping(run.run_id)
        measured = self._processor.measured()
        around = services.middleware.around_attempt(run.info)
        with at_once(), measured as computed, kept, around:
            attempt = self._attempt(function, run, memos, until)
            while isinstance(attempt.end.signal, Replayed):
                attempt = self._attempt(function, run, memos, until)
            tell(run.info, attempt.end.signal, attempt.ending)
        # Break the cycle: error → traceback → this frame.
        run.info.error = None
        # Not among the lines that are kept with the run. A run that failed has a line,
        # and the branches of a step have one together.
        if run.info.outcome == "completed" and not run.above:
            hand_to_teller(functools.partial(log_completed, run.run_id, function.id))
        if attempt.ending is not None:
            took = time.monotonic() - began
            services.service_times.took(function.id, attempt.ending, took, computed())

    def _attempt(
        self,
        function: Function[t.Any, t.Any],
        run: ClaimedRun,
        memos: dict[str, str],
        until: float,
    ) -> Attempt:
        process = process_of(run.token)
        end_if_copied(process)  # a hook may have forked, too
        attempt = Attempt(self._services, self._outbox, function, run, memos, until)
        self._leases.add(attempt)
        try:
            self._probation.begin(attempt)
            attempt.whole = WholeAttempt(
                give_up=functools.partial(self._give_up, attempt)
            )
            with attempt.whole:
                # In a context of its own: a context variable that a body sets, such as
                # a tenant for log lines, is not there in the next run.
                contextvars.copy_context().run(self._execute, attempt)
        except Signal as signal:
            logger.debug(
                "Run %s: %s", run.run_id, signal, extra={"action": "attempt_end"}
            )
        except BaseException as error:
            self._set_aside(attempt, error)
        finally:
            end_if_copied(process)
            attempt.whole = None  # it leads here: a cycle
            attempt.close()
            self._leases.remove(attempt)
            self.lost_threads.came_back(attempt)
        if attempt.process_end is not None:
            raise attempt.process_end
        return attempt

    def _give_up(self, attempt: Attempt, kind: type[Interrupt]) -> None:
        """Go on without the thread of a lost run whose body does not end.

        A body that hangs outside of steps would otherwise keep a run thread for as long
        as the process lives, after the run itself was cancelled.
        """
        self.lost_threads.add(attempt)
        logger.error(
            "The body of run %s goes on although the run was cancelled, or another "
            "worker owns it: its thread is lost.",
            attempt.run_id,
            extra={"action": "thread_lost"},
        )

    def _set_aside(self, attempt: Attempt, error: BaseException) -> None:
        """Pause the run: storing its end failed, and would fail again.

        Otherwise its lease would run out, claim by claim, and its state would not say
        why.
        """
        name = type(error).__name__
        # Errors only: an exception that ends the process here as well goes to the
        # caller.
        with contextlib.suppress(Signal, Exception):
            attempt.end.reopen()
            attempt.pause(
                DurableError(
                    f"The attempt could not be settled: {name}.",
                    hint="The failure has the traceback; mend it, then resume.",
                ),
                error=error,
            )
        logger.error(
            "Run %s of %s could not be settled.",
            attempt.run_id,
            attempt.function.id,
            exc_info=error,
            extra={"action": "run_set_aside"},
        )

    def _execute(self, attempt: Attempt) -> None:
        event = self._event_of(attempt)
        attempt.context = _new_context(attempt, event)
        give_tools(AttemptStep(attempt))
        call_in_run(attempt.context, self._settle, attempt, event)

    def _settle(self, attempt: Attempt, event: t.Any) -> None:
        try:
            if self._is_filtered_out(attempt, event):
                result, reason = "null", "filtered"
            else:
                result, reason = self._call(attempt, event), ""
            # Only now: the end of the body's context, where an app may commit the work
            # of the body, is a part of the attempt.
            self._complete(attempt, result, reason)
        except BrokenOff as broken:
            attempt.end.reopen()
            attempt.check()
            self._raised(attempt, broken.error)

    def _event_of(self, attempt: Attempt) -> t.Any:
        """Return the run's event.

        :raises Signal: The event does not fit the code. A run that did nothing yet is
            FAILED: another try cannot help, unless some release still fits the event
            and takes the run. A run that has steps is PAUSED, as it is where a stored
            result does not fit, since code that fits it was here.
        """
        try:
            return attempt.payloads.event()
        except UndecodableMessage as error:
            attempt.pause(
                ReplayMismatch(
                    "The run's event cannot be decoded by this version of the package.",
                    hint="Deploy the version that stored it, or a later one; then "
                    "resume.",
                ),
                error=error,
            )
        except Exception as error:
            if attempt.book:
                attempt.pause(
                    ReplayMismatch(
                        "The run's event does not fit its model any more.",
                        hint="Deploy code that takes it, such as a default for a new "
                        "field; then resume.",
                    ),
                    error=error,
                )
            if self._fits_elsewhere(attempt):
                attempt.hand_back(OTHERS_TURN, reason="another release's event")
            self._fail(attempt, error)
            attempt.check()
            raise AssertionError("a run that ended stops its attempt") from error

    def _fits_elsewhere(self, attempt: Attempt) -> bool:
        """Return whether some release has the schema that the event was sent under."""
        message, services = attempt.run.message, self._services
        if message.schema in ("", services.functions.schemas.version(message.name)):
            return False
        published = services.retry_until_answered(services.directory.current)
        return any(
            version.get("schemas", {}).get(message.name) == message.schema
            for version in published.versions.get(attempt.function.id, ())
        )

    def _is_filtered_out(self, attempt: Attempt, event: t.Any) -> bool:
        """Ask the function's ``where``, if the router could not ask it.

        A run that made progress was let in before, and its steps may have changed the
        answer.

        :raises Signal: The filter raised; the run is FAILED at once.
        """
        where = attempt.function.where
        unfiltered = attempt.record.get("unfiltered")
        if where is None or attempt.memos or unfiltered is None:
            return False
        try:
            if unfiltered == "late" and attempt.record["generation"] == "0":
                # Asked here it would hang again and keep a run thread for each event.
                raise FilterTimeout(
                    f"where= of {attempt.function.id!r} did not answer in time.",
                    hint="Give what it waits for a timeout, or look it up in a step.",
                )
            with self._services.scope():
                return not call(where, (event,), {})
        except BaseException as error:
            attempt.check()  # it may have been interrupted because the run is lost
            self._fail(attempt, error)
            attempt.check()
            raise AssertionError("a run that ended stops its attempt") from error

    def _call(self, attempt: Attempt, event: t.Any) -> str:
        """Call the body in a context; return its result as JSON text.

        :raises Signal: The end of the attempt.
        """
        try:
            with self._services.scope():
                # Before the body: a useless annotation must not cost an effect.
                codec = codec_for(attempt.function.body)
                if attempt.run.above:
                    return outcome_of_branch(
                        attempt, lambda: _call_body(attempt, event)
                    )
                result = _call_body(attempt, event)
                attempt.check()
                outcome = codec.dump(result)
                check_size(outcome, self._services.max_value)
            return outcome
        except Signal:
            raise
        except Interrupt:
            attempt.hand_back(delay=1.0)
        except BaseException as error:
            if attempt.stopped:
                # The body swallowed a signal. Its errors change nothing from then on,
                # and neither do those from the end of its context.
                logger.warning(
                    "An error of %s changes nothing: its attempt had ended.",
                    attempt.function.id,
                    exc_info=error,
                    extra={"action": "error_after_end"},
                )
                attempt.check()
            hand_back_if_ending(attempt, error)
            self._raised(attempt, error)
            attempt.check()
            raise AssertionError("a body that raised stops its attempt") from error

    def _complete(self, attempt: Attempt, outcome: str, reason: str) -> None:
        try:
            attempt.finish(failed=False, outcome=outcome, reason=reason)
        except BrokenOff as broken:
            attempt.end.reopen_if_refused(broken, len(outcome))
            self._fail(attempt, refused_by_server(outcome, broken.error))

    def _raised(self, attempt: Attempt, error: BaseException) -> None:
        number = int(attempt.record["attempt"]) + 1
        if attempt.committed:
            number = 1  # progress was made since: it is a new first attempt
        delay = None
        if not _is_final(error):
            delay = delay_after(
                number,
                error,
                retries=attempt.function.retries,
                backoff=attempt.function.backoff,
                non_retriable=attempt.function.non_retriable,
            )
        if delay is None:
            return self._fail(attempt, error, number=number)
        attempt.info.error = error
        failure = Failure.of(error, attempt=number)
        logger.warning(
            "Attempt %d of the body of %s failed, next in %.1f s.",
            number,
            attempt.function.id,
            delay,
            exc_info=error,
            extra={"action": "body_retry"},
        )
        attempt.suspend(
            "body",
            after(delay),
            reason="retry",
            number=number,
            payload=self._services.payloads.seal_failure(failure),
        )

    def _fail(self, attempt: Attempt, error: BaseException, number: int = 1) -> None:
        attempt.info.error = error
        cause = _step_error_of(error)
        failed_step = attempt.info.failed_step = cause.step if cause else ""
        failure = Failure.of(error, attempt=number)
        if cause is error:
            failure = replace(cause.failure, step=cause.step)
        if isinstance(cause, BranchError):
            failure = replace(failure, step=step_of_branch(cause))
        elif failure.step is None:
            failure = replace(failure, step=attempt.info.branch)
        log_failed(attempt, error, failure)
        attempt.finish(
            failed=True,
            outcome=failure.to_json(),
            failed_step=failed_step,
            # See run_admin.lua: it is not begun a second time unless it is named.
            reason="outcome unknown" if cause and cause.outcome_unknown else "",
        )


def _new_context(attempt: Attempt, event: t.Any) -> RunContext:
    owner, record = owner_of(attempt.run)
    started = int(record.get("started", 0)) / 1000
    return RunContext(
        id=owner,
        function=attempt.function.id,
        event=event,
        attempt=int(attempt.record["attempt"]) + 1,
        version=attempt.function.version,
        started_at=datetime.fromtimestamp(started, timezone.utc),
        log=run_logger(attempt.function.id),
        progress=attempt.progress,
        branch=attempt.info.branch,
        replaying=bool(attempt.book),
    )


def _call_body(attempt: Attempt, event: t.Any) -> t.Any:
    arguments = [event, active_step()]
    if "cause" in attempt.record:
        arguments.append(attempt.payloads.cause())
    return call(attempt.function.body, arguments, {})


def _is_final(error: BaseException) -> bool:
    return isinstance(error, UnserializableValue) or _step_error_of(error) is not None


def _step_error_of(error: BaseException) -> StepError | None:
    """Return the failure of a step that *error* is, or comes from.

    The step had its retries; a second call of the body would meet the same memo.
    """
    return next((e for e in causes_of(error) if isinstance(e, StepError)), None)
