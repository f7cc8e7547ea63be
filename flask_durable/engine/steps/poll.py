"""``step.poll``: look again and again until something is there, or a time is over.

==========  ======================================================================
memo found  effect
==========  ======================================================================
none        the time begins: a memo that is begun keeps its end; then the first look
begun       the next look, also if a worker died in one
tried       the look that raised is repeated
waiting     the run was retried between two looks: it is suspended again
done        the result is returned; ``None`` if the time was over
failed      the failure of a look is raised
==========  ======================================================================

A look is a call of a step's body, with its retries. One that finds nothing writes the
memo over: it waits, and is begun once its timer is due. So a run has one memo of all
looks, and a look that was lost with its worker is made again.

No look is later than the end, except the retries of one: the last one is made when the
time is over, or was under way by then.
"""

from __future__ import annotations

import typing as t
from dataclasses import replace

from ...common.durations import Duration
from ...common.durations import to_seconds
from ...common.safe_logging import get_logger
from ...errors import StepUsageError
from ...functions.options import StepOptions
from ...functions.step_function import StepFunction
from ...middleware import StepInfo
from ...middleware import WaitOutcome
from ...serialization import codec_for
from ...store.memo import Looks
from ...store.memo import Memo
from ...store.memo import payload
from ...store.memo import POLL
from ...store.run_store import after
from ..attempt import Attempt
from ..replaying import check_function
from ..sketch import sketch_of
from ..waits import tell_end_of_poll
from .run import Execution
from .wait_for_event import seconds_of

KIND = POLL

#: Seconds between two looks, at least: due timers are found once a second.
SHORTEST = 1.0

logger = get_logger(__name__)


def poll(
    attempt: Attempt,
    options: StepOptions,
    name: str,
    check: t.Callable[[], t.Any],
    every: Duration | None,
    timeout: Duration | None,
) -> t.Any:
    """Carry out :meth:`flask_durable.Step.poll`."""
    if isinstance(check, StepFunction):
        options = check.options.merged(options)
    key = attempt.enter(name)
    if options.at_most_once:
        raise StepUsageError(
            "at_most_once is no option of step.poll, which looks more than once.",
            hint="Leave it out, and let the check only look.",
        )
    check_function(name, check)
    pause, seconds = _pause_of(name, every), seconds_of(name, timeout)
    codec, sketch = codec_for(check), sketch_of(check)
    memo = attempt.recall(key, KIND, sketch)
    poll = Poll(attempt, options, key, KIND, codec, sketch)
    poll.pause = pause
    return poll.resolve(poll.reach(memo, seconds), check, (), {})


def _pause_of(name: str, every: Duration | None) -> float:
    try:
        seconds = to_seconds("" if every is None else every)
    except ValueError as error:
        raise StepUsageError(
            f"Step {name!r} cannot poll with every={every!r}: {error}."
        ) from None
    if seconds < SHORTEST:
        raise StepUsageError(
            f"Step {name!r} cannot look every {every!r}: 1 second is the shortest.",
            hint='Say more, such as every="30s".',
        )
    return seconds


class Poll(Execution):
    """One look in one attempt of a run."""

    #: Seconds from the end of a look to the next one.
    pause = SHORTEST
    #: The looks before this one.
    _looks = Looks(0, 0, 0)
    #: True if the look found something.
    _found = False

    def reach(self, memo: Memo | None, seconds: float) -> Memo:
        """Return the memo to go on from; begin the time if there is none.

        :param seconds: The time within which to look.
        :raises Signal: It is not time for the next look.
        """
        attempt = self._attempt
        if memo is None:
            now = attempt.server_time
            self._looks = Looks(0, now, now + int(seconds * 1000))
            # The end is fixed before the first look, which may take its worker along.
            text = payload(self._kind, "null", path=str(self._looks))
            begun = attempt.commit(self._key, "begun", 1, text)
            assert isinstance(begun, Memo), "only an intent is interrupted"
            memo = begun
        elif memo.status == "waiting":
            memo = attempt.suspend(
                KIND,
                f"@{memo.number}",
                reason=KIND,
                step=self._key,
                payload=memo.payload,
            )
        self._looks = memo.looks
        return replace(memo, number=memo.attempt)

    def _call(
        self,
        fn: t.Callable[..., t.Any],
        args: tuple[t.Any, ...],
        kwargs: dict[str, t.Any],
    ) -> tuple[str, t.Any]:
        result = super()._call(fn, args, kwargs)
        self._found = result[1] is not None
        return result

    def _commit_result(self, text: str, started: int, info: StepInfo) -> Memo:
        left = (self._looks.ends - self._attempt.server_time) / 1000
        if self._found or left <= 0:
            return super()._commit_result(text, started, info)
        looks = self._looks.with_another
        info.outcome = "waiting"
        logger.debug(
            "Step %r of run %s found nothing in look %d.",
            self._key,
            self._attempt.run_id,
            looks.number,
            extra={"action": "poll_waits"},
        )
        return self._attempt.suspend(
            KIND,
            after(min(self.pause, left)),
            reason=KIND,
            step=self._key,
            payload=payload(KIND, "null", path=str(looks)),
        )

    def _commit(self, status: str, body: str, started: int, path: str = "") -> Memo:
        path = f"{self._looks.with_another}{path}"
        memo = super()._commit(status, body, started, path)
        found: WaitOutcome = "completed" if self._found else "timeout"
        seconds = (self._attempt.server_time - self._looks.began) / 1000
        tell_end_of_poll(
            self._attempt,
            self._key,
            max(seconds, 0.0),
            "failed" if memo.status == "failed" else found,
        )
        return memo

    def _payload(
        self, body: str, started: int, path: str = "", checkpoint: str = ""
    ) -> str:
        return super()._payload(body, started, path or str(self._looks), checkpoint)
