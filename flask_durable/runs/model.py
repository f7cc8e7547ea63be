"""A run and its steps, as the application sees them.

A :class:`Claim` is one worker's time with a run, from taking it to giving it up.
"""

from __future__ import annotations

import typing as t
from dataclasses import dataclass
from datetime import datetime

from ..common.times import datetime_of
from ..errors import Failure
from ..events.model import Event
from ..payloads.deferred import Stored
from ..store.status import RunStatus


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

    ``value``, ``failure`` and ``checkpoint`` are opened when they are read, which
    raises :class:`~flask_durable.PayloadError` if this process cannot open them.

    :param name: The step's name in the run, such as ``"transcode#2"``.
    :param kind: The kind of step: ``run``, ``transaction``, ``sleep``, ``invoke``,
        ``send_event``, ``poll``, ``address``, which makes one, ``event``, ``signal`` or
        ``url``, a wait for one, or ``group``, a step with branches.
    :param status: ``done``, ``failed``, ``retrying``, ``waiting``, ``intent``, or
        ``begun`` if it has a checkpoint and no attempt of it has ended.
    :param attempt: The number of the last attempt that left a trace; 0 for a wait.
    :param started: The moment that attempt began, by the state server's clock; of a
        poll the moment it was first reached.
    :param duration: Seconds that it took; ``None`` while a wait or a poll goes on.
    :param due: The end of a sleep or of another wait; the next look of a poll.
    :param child: The id of the run that it invoked.
    :param value: The result, as JSON gives it back; of an event its name, id and data.
        ``None`` for a step with branches, and for an address, which is a secret.
    :param failure: The failure of the last attempt.
    :param attempts: The attempts that left a trace, the newest 20, the oldest of these
        first; empty for a wait.
    :param checkpoint: The place that its body had come to, as JSON gives it back;
        ``None`` if there is none, and once the step has ended.
    :param about: A dict that says what the step waits for, or what the page of an
        address says; ``None`` for other steps.
    :param looks: The number of looks of a poll that have ended; ``None`` for others.
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
    checkpoint: Stored[t.Any] = Stored()
    about: Stored[t.Any] = Stored()
    attempts: tuple[StepAttempt, ...] = ()
    child: str | None = None
    looks: int | None = None

    def __repr__(self) -> str:
        return f"<StepRecord {self.name!r}, {self.status}>"


@dataclass(frozen=True, repr=False)
class RunProgress:
    """The newest progress that a run has shown, see ``current_run.progress``.

    ``message`` is opened when it is read, which raises
    :class:`~flask_durable.PayloadError` if this process cannot open it.

    :param fraction: The part that is done, from 0 to 1.
    :param at: The moment it was shown, by the state server's clock.
    :param message: The words that were given with it; may be empty.
    """

    fraction: float
    at: datetime
    message: Stored[str] = Stored()

    def __repr__(self) -> str:
        return f"<RunProgress {self.fraction:.0%}>"


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
    :param progress: The newest progress that it has shown; it stays when the run ends.
    :param parent: The id of the run that invoked it, or whose branch it is.
    :param parent_step: The name of the parent's step that did; ``None`` without one.
    :param branch: The name of the branch, such as ``chunks[3]``, or of the item that a
        ``map`` has the run for; ``None`` for other runs.
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
    progress: RunProgress | None = None
    parent: str | None = None
    parent_step: str | None = None
    branch: str | None = None

    def __repr__(self) -> str:
        return f"<Run {self.id} of {self.function!r}, {self.status}>"


@dataclass(frozen=True)
class Claim:
    """A worker's claim of a run.

    Between two claims a run is suspended, paused, or waits in its queue.

    :param number: The number of this claim among the run's claims, counted from 1.
    :param at: The time of the claim, by the state server's clock.
    :param queued: Seconds that the run waited in its queue before.
    :param lasted: Seconds until the worker gave up the run; ``None`` while it has it.
    :param ended: The status of the run after it, or ``"lost"`` if its worker was silent
        until its lease ended; ``None`` while the worker has the run.
    """

    number: int
    at: datetime
    queued: float
    lasted: float | None = None
    ended: str | None = None

    @classmethod
    def load_all(cls, text: str) -> tuple[Claim, ...]:
        """Return the claims in a run's record, from the text of the scripts."""
        return tuple(cls._load(*claim.split(":")) for claim in text.split())

    @classmethod
    def _load(
        cls,
        number: str,
        at: str,
        queued: str,
        lasted: str | None = None,
        ended: str | None = None,
    ) -> Claim:
        return cls(
            number=int(number),
            at=datetime_of(int(at)),
            queued=int(queued) / 1000,
            lasted=None if lasted is None else int(lasted) / 1000,
            ended=ended,
        )
