"""``step.run``: call a function once, and keep its result.

==========  ======================================================================
memo found  effect
==========  ======================================================================
none        the body is called as attempt 1
tried       the body is called as the next attempt
begun       the body is called again as the same attempt, see ``checkpoint``
done        the stored result is returned
failed      the stored failure is raised
intent      an at-most-once body started and left no outcome: ``StepInterrupted``
==========  ======================================================================

Any error of a body is the failure of its step, whatever its class: libraries derive
timeouts and crashes from ``BaseException``. Two kinds are not the body's: our own
signals, and interruptions, see :meth:`Execution._interrupted`. After the body no error
is the step's any more; it breaks the attempt off.
"""

from __future__ import annotations

import copy
import threading
import typing as t

from ...common.interruption import Body
from ...common.interruption import Interrupt
from ...common.interruption import ShutdownInterrupt
from ...common.interruption import TimeoutInterrupt
from ...common.safe_logging import get_logger
from ...common.safe_points import call
from ...current import call_in_step
from ...current import StepContext
from ...errors import Failure
from ...errors import ReplayMismatch
from ...errors import StepError
from ...errors import StepTimeout
from ...functions.options import StepOptions
from ...functions.retries import delay_after
from ...functions.step_function import StepFunction
from ...middleware import StepInfo
from ...serialization import check_arguments
from ...serialization import Codec
from ...serialization import codec_for
from ...serialization import UnreadableValue
from ...serialization import UnserializableValue
from ...store.memo import Memo
from ...store.memo import payload
from ...store.memo import Try
from ...store.run_store import after
from ..attempt import Attempt
from ..control import BrokenOff
from ..control import GivenUp
from ..control import Signal
from ..process_end import hand_back_if_ending
from ..replaying import check_function
from ..sketch import sketch_of
from .checkpoint import Checkpoint
from .checkpoint import refuse_late
from .outcome import check_size
from .outcome import error_of
from .outcome import failure_of
from .outcome import refused_by_server

KIND = "run"

logger = get_logger(__name__)

#: Held while a checkpoint is made: several threads of one body may be the first.
_making = threading.Lock()


def run(
    attempt: Attempt,
    options: StepOptions,
    name: str,
    fn: t.Callable[..., t.Any],
    args: tuple[t.Any, ...],
    kwargs: dict[str, t.Any],
) -> t.Any:
    """Carry out :meth:`flask_durable.Step.run`."""
    if isinstance(fn, StepFunction):
        options = fn.options.merged(options)
    key = attempt.enter(name)
    check_function(name, fn)
    sketch = sketch_of(fn, args, kwargs)
    execution = Execution(attempt, options, key, KIND, codec_for(fn), sketch)
    return execution.resolve(attempt.recall(key, KIND, sketch), fn, args, kwargs)


class Execution:
    """One use of a step in one attempt of a run."""

    def __init__(
        self,
        attempt: Attempt,
        options: StepOptions,
        key: str,
        kind: str,
        codec: Codec,
        sketch: bytes,
    ) -> None:
        self._attempt = attempt
        self._options = options
        self._key = key
        self._kind = kind
        self._codec = codec
        self._retries = options.effective_retries(attempt.function.retries)
        self._number = 1
        self._sketch = sketch
        #: The moment the body was called, by the state server's clock.
        self._started = 0
        #: The calls of the body before this one.
        self._tries: tuple[Try, ...] = ()
        #: The payload of the memo before this call; empty if there is no memo.
        self._before = ""
        self._checkpoint: Checkpoint | None = None
        #: True while the body is called.
        self._running = False

    def resolve(
        self,
        memo: Memo | None,
        fn: t.Callable[..., t.Any],
        args: tuple[t.Any, ...],
        kwargs: dict[str, t.Any],
    ) -> t.Any:
        if memo is not None and memo.final:
            return self._outcome(memo)
        previous = None
        if memo is not None:
            self._tries, self._before = memo.tries, memo.payload
        if memo is not None and memo.status in ("intent", "begun"):
            self._number = memo.number  # the attempt that left no outcome
        if memo is not None and memo.status == "tried":
            self._number = memo.number + 1
            previous = self._attempt.services.payloads.readable_failure(memo.body)
        if memo is not None and memo.checkpoint:
            self._go_on_from(memo.checkpoint)
        check_arguments(args, kwargs)
        self._attempt.services.release()
        self._attempt.before_body(self._options.lease)
        info = StepInfo(
            self._attempt.info,
            self._key,
            self._kind,
            self._number,
            previous,
            self._checkpoint is not None,
        )
        try:
            with self._attempt.services.middleware.around_step(info):
                memo, value = self._execute(fn, args, kwargs, info)
                info.outcome = "failed" if memo.status == "failed" else "completed"
        finally:
            # Break the cycle: error → traceback → this frame.
            info.error = None
        if memo.status == "failed" or memo.token != self._attempt.token:
            value = self._outcome(memo)  # also where another worker's outcome stands
        self._attempt.after_step()
        return value

    def _execute(
        self,
        fn: t.Callable[..., t.Any],
        args: tuple[t.Any, ...],
        kwargs: dict[str, t.Any],
        info: StepInfo,
    ) -> tuple[Memo, t.Any]:
        """Call the body once; return the memo that stands, and the body's value."""
        started = self._started = self._attempt.server_time
        if self._options.at_most_once and (memo := self._intend()) is not None:
            return memo, None
        try:
            try:
                text, value = self._call(fn, args, kwargs)
                text = self._attempt.payloads.seal(text)
            except Signal:
                raise
            except BaseException as error:
                info.error = error
                return self._failed(error, started, info), None
            return self._commit_result(text, started, info), value
        except Signal:
            raise
        except BaseException as error:
            raise self._attempt.stop(BrokenOff(error)) from None

    def _call(
        self,
        fn: t.Callable[..., t.Any],
        args: tuple[t.Any, ...],
        kwargs: dict[str, t.Any],
    ) -> tuple[str, t.Any]:
        """Return the body's result as it is stored, and as a replay will return it."""
        attempt = self._attempt
        context = attempt.context
        assert context is not None
        body = attempt.body = Body(self._options.timeout, self._give_up)
        final = self._number > self._retries
        step = StepContext(self._key, self._number, final, self)
        attempt.checkpoint, self._running = self._checkpoint, True
        try:
            result = call_in_step(context, step, self._inside, body, fn, args, kwargs)
        except BaseException as error:
            # The run may be another worker's by now, or was given up: then no result or
            # error of the body counts.
            attempt.check()
            self._interrupted(error, body)
            raise
        finally:
            self._running = False
            attempt.body = attempt.checkpoint = None
        check_size(result[0], attempt.services.max_value)
        if body.interrupted is TimeoutInterrupt:
            raise body.interrupted  # the body swallowed it
        return result

    # -- The body asks --------------------------------------------------------------

    @property
    def identity(self) -> str:
        """The name of the run in keys for other services."""
        return self._attempt.identity

    @property
    def resumed_from(self) -> t.Any:
        """See :attr:`flask_durable.current.StepContext.resumed_from`."""
        return None if self._checkpoint is None else self._checkpoint.resumed_from

    def checkpoint(self, value: t.Any, *, force: bool) -> None:
        """Carry out :meth:`flask_durable.current.StepContext.checkpoint`."""
        if not self._running:
            refuse_late(self._key)
        with _making:
            if self._checkpoint is None:
                self._checkpoint = self._checkpoint_of("")
            self._attempt.checkpoint = self._checkpoint
        self._checkpoint.take(value, force=force)

    def _go_on_from(self, sealed: str) -> None:
        """Give the body the checkpoint of an earlier call.

        :raises Signal: The checkpoint cannot be read: the run is set aside, or waits.
        """
        text = self._attempt.payloads.open(sealed, self._key)
        self._checkpoint = self._checkpoint_of(text)
        logger.info(
            "Step %r goes on from its checkpoint.",
            self._key,
            extra={"action": "step_resumed"},
        )

    def _checkpoint_of(self, stored: str) -> Checkpoint:
        digest = self._attempt.services.payloads.digest(self._sketch)
        return Checkpoint(
            self._attempt,
            self._key,
            self._number,
            self._before or payload(self._kind, "null", digest=digest),
            stored=stored,
            interruptible=not self._options.at_most_once,
        )

    @property
    def _kept(self) -> str:
        """The checkpoint for the next call, as it is stored; empty if there is none."""
        return "" if self._checkpoint is None else self._checkpoint.sealed

    # -- The body is called --------------------------------------------------------

    def _inside(
        self,
        body: Body,
        fn: t.Callable[..., t.Any],
        args: tuple[t.Any, ...],
        kwargs: dict[str, t.Any],
    ) -> tuple[str, t.Any]:
        # The end of the context, where a database session is given back, belongs to
        # the body: its failure is the step's, and comes before the commit. But it is
        # not interrupted: only the code under call() is.
        with body, self._attempt.services.scope():
            result: tuple[str, t.Any]
            result = call(fn, args, kwargs, self._codec.round_trip)
        return result

    def _interrupted(self, error: BaseException, body: Body) -> None:
        """Hand the run back if an interruption caused *error*: the step begins again.

        A body, or a driver that it was using, may turn an interrupt into an error of
        its own, which it would not have raised otherwise.

        :raises Signal: The run was handed back.
        """
        attempt = self._attempt
        if isinstance(error, Signal):
            return
        if body.interrupted is ShutdownInterrupt:
            attempt.hand_back(delay=1.0)
        if body.interrupted is TimeoutInterrupt:
            if not isinstance(error, TimeoutInterrupt):
                raise TimeoutInterrupt from error
            return
        hand_back_if_ending(attempt, error)

    def _give_up(self, kind: type[Interrupt]) -> None:
        """Settle the attempt of a body that does not end, from a thread of its own."""
        attempt = self._attempt
        successor = self._successor()
        attempt.services.lost_threads.add(attempt)
        logger.error(
            "Step %r of run %s does not end although %s: its thread is lost.",
            self._key,
            attempt.run_id,
            "its time is over" if kind is TimeoutInterrupt else "it was interrupted",
            extra={"action": "thread_lost"},
        )
        if successor is None or kind is not TimeoutInterrupt:
            return
        stand_in = copy.copy(self)
        stand_in._attempt = successor
        with attempt.services.run_logs.keeping(attempt.run_id):
            stand_in._time_out()

    def _successor(self) -> Attempt | None:
        """Stop the attempt; return one with its token that belongs to this thread.

        :returns: The new attempt; ``None`` if the run is not ours any more.
        """
        signal = GivenUp("a step's body does not end")
        old = self._attempt
        if old.stop(signal) is not signal:
            return None
        new = Attempt(old.services, old.outbox, old.function, old.run, old.memos)
        new.progress.adopt(old.progress)
        return new

    def _time_out(self) -> None:
        """Store that the time of a body was over, and let the run go on elsewhere."""
        info = StepInfo(self._attempt.info, self._key, self._kind, self._number)
        try:
            self._failed(TimeoutInterrupt(), self._started, info)
            self._attempt.hand_back(reason="a step's body does not end")
        except Signal as signal:
            logger.debug(
                "Run %s: %s",
                self._attempt.run_id,
                signal,
                extra={"action": "attempt_end"},
            )

    def _intend(self) -> Memo | None:
        """Write that the body is about to start, so that it never starts twice.

        :returns: The memo of the outcome, if the step has one or started before.
        """
        text = payload(self._kind, "null", tries=self._tries, checkpoint=self._kept)
        self._before = text
        reply = self._attempt.commit(self._key, "intent", self._number, text)
        if isinstance(reply, Memo):
            return reply if reply.final else None
        interrupted = Failure(
            type="StepInterrupted",
            message="it started once and left no outcome",
            step=self._key,
            attempt=self._number,
            code="step.interrupted",
        )
        return self._commit_failure(interrupted, self._attempt.server_time)

    def _failed(self, error: BaseException, started: int, info: StepInfo) -> Memo:
        """Suspend until the next attempt, or return the memo of the final failure."""
        payloads = self._attempt.services.payloads
        failure = failure_of(error, self._key, self._number, self._options.timeout)
        delay = None
        # An at-most-once body that timed out did not say that it failed: it was
        # stopped, or goes on in a thread that is lost.
        stopped = self._options.at_most_once and isinstance(error, TimeoutInterrupt)
        if not stopped and not isinstance(error, UnserializableValue):
            delay = delay_after(
                self._number,
                error,
                retries=self._retries,
                backoff=self._options.backoff or self._attempt.function.backoff,
                non_retriable=(
                    *self._attempt.function.non_retriable,
                    *self._options.non_retriable,
                ),
            )
        if delay is None:
            logger.error(
                "Step %r failed for good in attempt %d.",
                self._key,
                self._number,
                exc_info=error,
                extra={"action": "step_failed"},
            )
            path = error.path if isinstance(error, UnserializableValue) else ""
            return self._commit_failure(failure, started, path)
        logger.warning(
            "Attempt %d of step %r failed, next in %.1f s.",
            self._number,
            self._key,
            delay,
            exc_info=error,
            extra={"action": "step_retry"},
        )
        info.outcome = "retried"
        return self._attempt.suspend(
            "retry",
            after(delay),
            reason="retry",
            step=self._key,
            number=self._number,
            payload=self._payload(
                payloads.seal_failure(failure), started, checkpoint=self._kept
            ),
        )

    def _commit_result(self, text: str, started: int, info: StepInfo) -> Memo:
        """Commit the result; if the server refuses it, commit that as a failure."""
        try:
            return self._commit("done", text, started)
        except BrokenOff as broken:
            self._attempt.end.reopen_if_refused(broken, len(text))
            info.error = refused = refused_by_server(text, broken.error)
        return self._failed(refused, started, info)

    def _commit_failure(self, failure: Failure, started: int, path: str = "") -> Memo:
        payloads = self._attempt.services.payloads
        if path:  # it has keys of the result in it
            path = payloads.seal_text(path)
        return self._commit("failed", payloads.seal_failure(failure), started, path)

    def _commit(self, status: str, body: str, started: int, path: str = "") -> Memo:
        if self._attempt.progress.held_back:
            self._attempt.progress.flush()
        text = self._payload(body, started, path)
        memo = self._attempt.commit(self._key, status, self._number, text)
        assert isinstance(memo, Memo), "only an intent is interrupted"
        return memo

    def _payload(
        self, body: str, started: int, path: str = "", checkpoint: str = ""
    ) -> str:
        return payload(
            self._kind,
            body,
            tries=(*self._tries, Try(started, self._attempt.server_time - started)),
            digest=self._attempt.services.payloads.digest(self._sketch),
            path=path,
            checkpoint=checkpoint,
        )

    def _outcome(self, memo: Memo) -> t.Any:
        if memo.status == "failed":
            raise self._error(memo)
        # Only now: a text that is not returned to the body is not fetched.
        return self._load(self._attempt.payloads.open(memo.body, self._key))

    def _load(self, text: str) -> t.Any:
        try:
            return self._codec.load(text)
        except UnreadableValue as error:
            self._attempt.pause(
                ReplayMismatch(
                    f"What is stored of step {self._key!r} does not fit its type now.",
                    hint="Give the changed step another name, or deploy code that can "
                    "read it; then resume.",
                ),
                self._key,
                error=error,
            )

    def _error(self, memo: Memo) -> StepError:
        text = self._attempt.payloads.open(memo.body, self._key)
        path = self._attempt.payloads.open(memo.path, self._key)
        error = error_of(self._key, Failure.from_json(text), path)
        if self._options.at_most_once and isinstance(error, StepTimeout):
            error.outcome_unknown = True  # as far as its body had come
        return error
