"""The run that the calling code belongs to, for logs, libraries and step functions."""

from __future__ import annotations

import contextvars
import dataclasses
import functools
import logging
import typing as t
from contextvars import ContextVar
from datetime import datetime

from .common.ids import derived_id

if t.TYPE_CHECKING:
    from .events.model import Event


T = t.TypeVar("T")


class StepBody(t.Protocol):
    """Keeps the checkpoints of the step's body that is running."""

    @property
    def identity(self) -> str:
        """The name of its run in keys for other services: the run's id.

        That of a branch is made of the run's id and the branch's name.
        """

    @property
    def resumed_from(self) -> t.Any:
        """The checkpoint that the body goes on from, ``None`` if there is none."""

    def checkpoint(self, value: t.Any, *, force: bool) -> None:
        """Keep *value* for the body's next call."""


class ProgressBoard(t.Protocol):
    """Shows how far a run has come."""

    def report(self, fraction: float, message: str) -> None:
        """Show *fraction* and *message* with the run."""


@dataclasses.dataclass(frozen=True)
class StepContext:
    """The step whose body is running.

    :param name: The step's name in this run, such as ``"transcode#2"``.
    :param attempt: The number of its attempt, counted from 1.
    :param is_final_attempt: True if a failure now is the step's last.
    """

    name: str
    attempt: int
    is_final_attempt: bool
    _body: StepBody = dataclasses.field(repr=False)

    @functools.cached_property
    def idempotency_key(self) -> str:
        """A text for services that take an ``Idempotency-Key``.

        It is the same for every attempt of this step of this run, and differs from that
        of all other steps.
        """
        return derived_id("step", self._body.identity, self.name)

    @property
    def resumed_from(self) -> t.Any:
        """The newest checkpoint of an earlier call of the body; ``None`` at first.

        It is what JSON gave back of the value. One that was stored by a worker that
        died may be a second older than the last one that it was given.
        """
        return self._body.resumed_from

    def checkpoint(self, value: t.Any, force: bool = False) -> None:
        """Store where the body is, so that its next call can go on from there.

        A call within a second of the last write writes nothing: the value is kept, and
        stored by a later call, or when the body ends by an error or an interrupt. When
        the step ends, its checkpoint is removed.

        A worker that drains interrupts the body here, after *value* is stored, and
        another one calls it again; that counts as no attempt. The body of an
        ``at_most_once`` step is not interrupted so. A body whose run was cancelled or
        lost is always ended here.

        :param value: The place, as a value that JSON gives back equal, of at most
            64 KiB.
        :param force: True to store it now in any case.
        :raises StepUsageError: The value cannot be stored, or the step has ended. A
            body that does not catch it fails for good.
        """
        self._body.checkpoint(value, force=force)


@dataclasses.dataclass
class RunContext:
    """The run behind :data:`current_run`. One exists for each attempt of a run."""

    id: str
    function: str
    event: Event[t.Any]
    attempt: int
    version: str
    started_at: datetime
    log: logging.LoggerAdapter[logging.Logger]
    progress: ProgressBoard = dataclasses.field(repr=False)
    #: The name of the branch, such as ``chunks[3]``; ``None`` outside of branches.
    branch: str | None = None
    #: True while a step's body is running, for other threads. The step itself is in a
    #: variable of its own: a copied context keeps the step that it was copied in.
    in_step: bool = False
    cancel_requested: bool = False
    replaying: bool = False

    @property
    def events(self) -> tuple[Event[t.Any], ...]:
        """The events that the run was created for."""
        return (self.event,)


_context: ContextVar[RunContext | None] = ContextVar("flask_durable.run", default=None)
_step: ContextVar[StepContext | None] = ContextVar("flask_durable.step", default=None)

#: The runs whose bodies are executed in this process, by the identity of their context.
_bodies: dict[int, RunContext] = {}


class CurrentRun:
    """Stands for the run that the calling code belongs to; false outside a run.

    Use it through :data:`flask_durable.current_run`.
    """

    def __bool__(self) -> bool:
        return _context.get() is not None

    def __repr__(self) -> str:
        context = _context.get()
        return f"<current_run {context.id}>" if context else "<current_run: none>"

    @property
    def id(self) -> str:
        """The run's id."""
        return self._get().id

    @property
    def function(self) -> str:
        """The id of its function."""
        return self._get().function

    @property
    def event(self) -> Event[t.Any]:
        """The event that it was created for."""
        return self._get().event

    @property
    def events(self) -> tuple[Event[t.Any], ...]:
        """All events that it was created for."""
        return self._get().events

    @property
    def attempt(self) -> int:
        """The number of the attempt of the function's body, counted from 1."""
        return self._get().attempt

    @property
    def version(self) -> str:
        """The version of the function's code that is running."""
        return self._get().version

    @property
    def started_at(self) -> datetime:
        """The moment the run was first claimed by a worker."""
        return self._get().started_at

    @property
    def cancel_requested(self) -> bool:
        """True if the run was cancelled since: long steps may look and stop."""
        return self._get().cancel_requested

    @property
    def log(self) -> logging.LoggerAdapter[logging.Logger]:
        """A logger whose records carry the run, and are not repeated on replay."""
        return self._get().log

    @property
    def step(self) -> StepContext | None:
        """The step whose body is running, or ``None`` between steps."""
        self._get()
        return _step.get()

    def progress(self, fraction: float, message: str = "") -> None:
        """Show with the run how far it has come.

        At most one value a second is written; the last one always is when the step
        ends. Nothing is shown while a body is replayed.

        :param fraction: The part that is done, from 0 to 1. A number outside is taken
            as the nearer of the two.
        :param message: A few words, of which the first 200 characters are shown.
        :raises StepUsageError: The fraction is no number.
        """
        self._get().progress.report(fraction, message)

    def _get(self) -> RunContext:
        context = _context.get()
        if context is None:
            raise RuntimeError(
                "There is no current run here. It exists in the body of a durable "
                'function and in its steps; test it with "if current_run:" first.'
            )
        return context


#: The run that the calling code belongs to.
current_run = CurrentRun()


def run_context() -> RunContext | None:
    """Return the context of the current run, or ``None`` outside one."""
    return _context.get()


def step_context() -> StepContext | None:
    """Return the step whose body the calling code belongs to, if any."""
    return _step.get()


def call_in_run(context: RunContext, fn: t.Callable[..., T], *args: t.Any) -> T:
    """Return the result of *fn* as the body of a run, in a context of the run's own."""
    _context.set(context)
    _step.set(None)
    _bodies[id(context)] = context
    try:
        return fn(*args)
    finally:
        del _bodies[id(context)]


def call_in_step(
    context: RunContext, step: StepContext, fn: t.Callable[..., T], *args: t.Any
) -> T:
    """Return the result of *fn* as the body of *step*.

    Its changes to context variables end with it: a replay, which does not call it
    again, would not have them either.
    """
    context.in_step = True
    try:
        return contextvars.copy_context().run(_in_step, step, fn, args)
    finally:
        context.in_step = False


def _in_step(step: StepContext, fn: t.Callable[..., T], args: tuple[t.Any, ...]) -> T:
    _step.set(step)
    return fn(*args)


def run_between_steps() -> RunContext | None:
    """Return a run of this process whose body is executed outside any step."""
    for context in list(_bodies.values()):
        if not context.in_step:
            return context
    return None
