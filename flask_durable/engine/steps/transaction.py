"""``step.transaction``: a step whose result a database commits with what it did there.

Like ``step.run``, with three differences:

- The function's timeout covers the function alone. From its end to the end of the
  database's commit the step is not interrupted: what is committed is the step's result.
- What fails once the database has committed, or may have, is no failure of the step:
  it breaks the attempt off. The next attempt finds the row, and does not call the
  function.
- Before the database's commit the run's lease is renewed, and a worker that has lost
  the run rolls back. It may lose it just after that: then its commit stands, and the
  next owner finds the row. See ``sql/database_steps.py`` for the races.
"""

from __future__ import annotations

import typing as t

from ...common.interruption import Body
from ...common.interruption import TimeoutInterrupt
from ...common.safe_points import call
from ...errors import CommitUnknown
from ...errors import StepUsageError
from ...functions.options import StepOptions
from ...functions.step_function import StepFunction
from ...middleware import StepInfo
from ...redis.errors import is_transient
from ...serialization import codec_for
from ...store.memo import Memo
from ..attempt import Attempt
from ..control import BrokenOff
from ..replaying import check_function
from ..sketch import sketch_of
from .outcome import check_size
from .run import Execution

KIND = "transaction"


def transaction(
    attempt: Attempt,
    options: StepOptions,
    name: str,
    fn: t.Callable[..., t.Any],
    args: tuple[t.Any, ...],
    kwargs: dict[str, t.Any],
) -> t.Any:
    """Carry out :meth:`flask_durable.Step.transaction`."""
    if isinstance(fn, StepFunction):
        options = fn.options.merged(options)
    key = attempt.enter(name)
    if options.at_most_once:
        raise StepUsageError(
            "at_most_once is no option of step.transaction.",
            hint="Leave it out: the step takes effect exactly once.",
        )
    check_function(name, fn)
    sketch = sketch_of(fn, args, kwargs)
    execution = TransactionExecution(attempt, options, key, KIND, codec_for(fn), sketch)
    return execution.resolve(attempt.recall(key, KIND, sketch), fn, args, kwargs)


class TransactionExecution(Execution):
    """One use of a database step in one attempt of a run."""

    #: True once the database has committed, or may have.
    _committed = False

    def checkpoint(self, value: t.Any, *, force: bool) -> None:
        """Refuse the checkpoint: it would be ahead of what the database keeps."""
        raise StepUsageError(
            f"The database step {self._key!r} takes no checkpoint: what its function "
            "did is rolled back if it ends early.",
            hint="Save the work in parts, each in a database step of its own.",
        )

    def _inside(
        self,
        body: Body,
        fn: t.Callable[..., t.Any],
        args: tuple[t.Any, ...],
        kwargs: dict[str, t.Any],
    ) -> tuple[str, t.Any]:
        attempt = self._attempt
        payloads = attempt.services.payloads
        result: tuple[str, t.Any] = ("null", None)

        def save() -> str:
            nonlocal result
            with body:
                result = call(fn, args, kwargs, self._codec.round_trip)
            if body.interrupted is TimeoutInterrupt:
                raise body.interrupted  # the function swallowed it
            check_size(result[0], attempt.services.max_value)
            return payloads.seal_text(result[0])

        with attempt.services.scope():
            try:
                text, new = attempt.services.database_steps().once(
                    attempt.run_id,
                    str(attempt.info.created),
                    self._key,
                    attempt.server_time,
                    save,
                    self._confirm,
                )
            except Exception as error:
                # Any other error says that nothing was committed.
                self._committed = isinstance(error, CommitUnknown)
                raise
            self._committed = True
        if new:
            return result
        text = attempt.payloads.open(text, self._key)
        return text, self._load(text)

    def _confirm(self) -> None:
        """Make sure of the lease once more.

        :raises Signal: The run is not ours any more.
        """
        self._attempt.check()
        try:
            self._attempt.renew()
        except Exception as error:
            # While the state server is away, no other worker can take the run.
            if not is_transient(error):
                raise
        self._attempt.check()
        self._committed = True  # from here on it may be

    def _failed(self, error: BaseException, started: int, info: StepInfo) -> Memo:
        if self._committed:
            raise self._attempt.stop(BrokenOff(error))
        return super()._failed(error, started, info)
