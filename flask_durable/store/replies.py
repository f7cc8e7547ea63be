"""The replies of the scripts as small values, told apart by their class.

A script replies with a word and what belongs to it, see the header of each. The words
are read here and nowhere else::

    step_commit   Committed | Exists | Interrupted | Full
    step_checkpoint: Committed | StepEnded | Full
    run_suspend   Suspension: Queued | Delayed | Paused | Resolved | Full
    run_create    Creation: Started | Queued | Scheduled | Known
    run_claim     Claimed | Paused | NotQueued | Orphan
    run_park      Deferred | Paused | NotQueued
    child_start   ChildStarted | Resolved | Full
    branches_start  BranchesMade | Resolved | Full
    run_finish    Finished
    run_admin     Changed | WrongState | Missing | OutcomeUnknown | NotFailed
    lease_renew   Renewed | Lost, one a run

A word that this release does not know is an error, never a success. All times are
milliseconds since 1970, by the state server's clock.
"""

from __future__ import annotations

import typing as t
from dataclasses import dataclass
from dataclasses import field


class NotOwner(Exception):
    """An owner's write was refused. Internal: the attempt stops on it.

    :param cancelled: True if the run was cancelled, False if another worker owns it.
    """

    def __init__(self, *, cancelled: bool) -> None:
        super().__init__("cancelled" if cancelled else "lost")
        self.cancelled = cancelled


class UnknownReply(Exception):
    """A script gave a reply that this release does not know. Internal.

    :param script: The name of the script.
    :param reply: The reply. Only its word is quoted, as the rest may be a user's data.
    """

    def __init__(self, script: str, reply: t.Any) -> None:
        word = reply[0] if isinstance(reply, list) and reply else reply
        super().__init__(f"{script} gave a reply unknown here: {word!r:.100}")


@dataclass(frozen=True, slots=True)
class Committed:
    """The memo is written, by this call or before."""


@dataclass(frozen=True, slots=True)
class Exists:
    """The step has an outcome of another attempt already; that one stands."""

    memo: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Interrupted:
    """An intent of another attempt is there without an outcome."""


@dataclass(frozen=True, slots=True)
class StepEnded:
    """The step has an outcome already, so it keeps no checkpoint."""


@dataclass(frozen=True, slots=True)
class Full:
    """The run has reached its limit of ``steps`` or ``bytes``; its owner keeps it."""

    limit: str


@dataclass(frozen=True, slots=True)
class Resolved:
    """The awaited memo is there; the owner keeps the run."""

    memo: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Queued:
    """The run is QUEUED since *time*, and its message is owed."""

    time: int


@dataclass(frozen=True, slots=True)
class Delayed:
    """The run is SUSPENDED until *due*."""

    due: int


@dataclass(frozen=True, slots=True)
class Paused:
    """The run is PAUSED."""


@dataclass(frozen=True, slots=True)
class Started:
    """The new run is RUNNING since *time*, and the caller's."""

    time: int


@dataclass(frozen=True, slots=True)
class Scheduled:
    """The new run is SUSPENDED until its first start at *due*."""

    due: int


@dataclass(frozen=True, slots=True)
class Known:
    """The run existed already, with *status*; nothing was changed."""

    status: str


@dataclass(frozen=True, slots=True)
class ChildStarted:
    """The run is SUSPENDED, and its child is QUEUED since *queued*."""

    queued: int


@dataclass(frozen=True, slots=True)
class BranchesMade:
    """A page of branches is made; the run is SUSPENDED unless another is awaited.

    :param queued: Id and time of those that are QUEUED.
    :param more: True if the next page is awaited.
    """

    queued: list[tuple[str, int]]
    more: bool


@dataclass(frozen=True, slots=True)
class Finished:
    """The run has ended.

    :param handler: The time when its failure handler's run was queued, or 0.
    :param parent: The time when its parent was queued, or 0.
    :param branch: The branch that was queued at that time in the parent's place.
    """

    handler: int
    parent: int
    branch: str = ""


@dataclass(frozen=True, slots=True)
class Claimed:
    """The run is the caller's: its record and its memos."""

    record: dict[str, str] = field(repr=False)
    memos: dict[str, str] = field(repr=False)
    #: Of a branch: record and memos of each run that it belongs to, the nearest first.
    above: tuple[tuple[dict[str, str], dict[str, str]], ...] = field(
        default=(), repr=False
    )


@dataclass(frozen=True, slots=True)
class Orphan:
    """The run is a branch that nobody waits for any more; nothing was changed."""


@dataclass(frozen=True, slots=True)
class NotQueued:
    """The run has another *status*, or ``""`` if there is none; nothing was changed."""

    status: str


@dataclass(frozen=True, slots=True)
class Deferred:
    """The run is SUSPENDED until *due*, when a worker may have its code."""

    due: int


@dataclass(frozen=True, slots=True)
class Changed:
    """The run is QUEUED since *queued*, or cancelled.

    Of a cancelled run *queued* is the time when its parent was queued, or 0. If that
    queued another branch in the parent's place, *branch* is its id.
    """

    queued: int
    branch: str = ""


@dataclass(frozen=True, slots=True)
class WrongState:
    """The run has a *status* that does not allow the change; nothing was changed."""

    status: str


@dataclass(frozen=True, slots=True)
class Missing:
    """There is no such run."""


@dataclass(frozen=True, slots=True)
class OutcomeUnknown:
    """The *step* that failed the run runs at most once, and may have had its effect."""

    step: str


@dataclass(frozen=True, slots=True)
class NotFailed:
    """The *step* that is to run again has not failed."""

    step: str


@dataclass(frozen=True, slots=True)
class Renewed:
    """The lease is renewed."""


@dataclass(frozen=True, slots=True)
class Lost:
    """The run is not the caller's: it was cancelled, or another worker owns it."""

    cancelled: bool


@dataclass(frozen=True, slots=True)
class Woken:
    """A run, *run* if it is named, was queued; its message is owed to *queue*."""

    time: int
    function: str
    queue: str
    run: str = ""


@dataclass(frozen=True, slots=True)
class Taken:
    """The step has the event; the run goes on by itself, or when it is next claimed."""


Commit = Committed | Exists | Interrupted | Full
Checkpointed = Committed | StepEnded | Full
Suspension = Queued | Delayed | Paused | Resolved | Full
Creation = Started | Queued | Scheduled | Known
Parking = Deferred | Paused | NotQueued
Change = Changed | WrongState | Missing | OutcomeUnknown | NotFailed
Renewal = Renewed | Lost

#: One for all commits: a step allocates nothing for its reply.
COMMITTED = Committed()

_RENEWALS: dict[str, Renewal] = {
    "ok": Renewed(),
    "lost": Lost(cancelled=False),
    "cancelled": Lost(cancelled=True),
}


def refusal(script: str, reply: t.Any) -> NotOwner | UnknownReply:
    """Return the error for a reply to an owner's write that is none of the others."""
    match reply:
        case ["lost" | "cancelled" as word]:
            return NotOwner(cancelled=word == "cancelled")
    return UnknownReply(script, reply)


def commit_of(reply: t.Any) -> Commit:
    """Return the reply of ``step_commit``.

    :raises NotOwner: The run is no longer the caller's.
    """
    match reply:
        case ["ok"]:
            return COMMITTED
        case ["exists", memo]:
            return Exists(memo)
        case ["interrupted"]:
            return Interrupted()
        case ["full", limit]:
            return Full(limit)
    raise refusal("step_commit", reply)


def checkpoint_of(reply: t.Any) -> Checkpointed:
    """Return the reply of ``step_checkpoint``.

    :raises NotOwner: The run is no longer the caller's.
    """
    match reply:
        case ["ok"]:
            return COMMITTED
        case ["ended"]:
            return StepEnded()
        case ["full", limit]:
            return Full(limit)
    raise refusal("step_checkpoint", reply)


def suspension_of(reply: t.Any) -> Suspension:
    """Return the reply of ``run_suspend``.

    :raises NotOwner: The run is no longer the caller's.
    """
    match reply:
        case ["suspended", due]:
            return Delayed(int(due))
        case ["queued", time]:
            return Queued(int(time))
        case ["paused", _]:
            return Paused()
        case ["resolved", memo]:
            return Resolved(memo)
        case ["full", limit]:
            return Full(limit)
    raise refusal("run_suspend", reply)


def child_of(reply: t.Any) -> ChildStarted | Resolved | Full:
    """Return the reply of ``child_start``.

    :raises NotOwner: The run is no longer the caller's.
    """
    match reply:
        case ["suspended", _, queued]:
            return ChildStarted(int(queued))
        case ["resolved", memo]:
            return Resolved(memo)
        case ["full", limit]:
            return Full(limit)
    raise refusal("child_start", reply)


def listing_of(reply: t.Any) -> Committed | Full:
    """Return the reply of ``branches_list``.

    :raises NotOwner: The run is no longer the caller's.
    """
    match reply:
        case ["ok"]:
            return COMMITTED
        case ["full", limit]:
            return Full(limit)
    raise refusal("branches_list", reply)


def branches_of(reply: t.Any) -> BranchesMade | Resolved | Full:
    """Return the reply of ``branches_start``.

    :raises NotOwner: The run is no longer the caller's.
    """
    match reply:
        case ["more" | "suspended" as word, queued]:
            return BranchesMade([(id, int(at)) for id, at in queued], word == "more")
        case ["resolved", memo]:
            return Resolved(memo)
        case ["full", limit]:
            return Full(limit)
    raise refusal("branches_start", reply)


def finish_of(reply: t.Any) -> Finished:
    """Return the reply of ``run_finish``.

    :raises NotOwner: The run is no longer the caller's.
    """
    match reply:
        case ["finished", handler, other]:
            return Finished(int(handler), *_queued(other))
    raise refusal("run_finish", reply)


def creation_of(reply: t.Any) -> Creation | Exception:
    """Return a pipeline's reply of ``run_create``; an error stands in its place.

    A reply that is unknown here is such an error: the others of its pipeline count.
    """
    match reply:
        case ["claimed", time]:
            return Started(int(time))
        case ["queued", time]:
            return Queued(int(time))
        case ["scheduled", due]:
            return Scheduled(int(due))
        case ["old", status]:
            return Known(status)
        case Exception():
            return reply
    return UnknownReply("run_create", reply)


def hand_back_of(reply: t.Any) -> Suspension | Lost | Exception:
    """Return a pipeline's reply of ``run_suspend``; an error stands in its place."""
    if isinstance(reply, Exception):
        return reply
    try:
        return suspension_of(reply)
    except NotOwner as refused:
        return Lost(refused.cancelled)
    except UnknownReply as error:
        return error


def claim_of(
    reply: t.Any, memos: t.Any, *above: t.Any
) -> Claimed | Paused | NotQueued | Orphan:
    """Return the reply of ``run_claim``.

    :param memos: The reply of the ``HGETALL`` that follows it.
    :param above: Of a branch: the record and the memos of each run above it.
    """
    match reply:
        case ["claimed", *fields] if above:
            hashes = [_pairs(each) for each in above]
            levels = tuple(zip(hashes[::2], hashes[1::2], strict=True))
            return Claimed(_pairs(fields), _pairs(memos), levels)
        case ["claimed", *fields]:
            return Claimed(_pairs(fields), _pairs(memos))
        case ["orphan"]:
            return Orphan()
        case ["paused"]:
            return Paused()
        case ["no", status]:
            return NotQueued(status)
    raise UnknownReply("run_claim", reply)


def parking_of(reply: t.Any) -> Parking:
    """Return the reply of ``run_park``."""
    match reply:
        case ["deferred", due]:
            return Deferred(int(due))
        case ["paused"]:
            return Paused()
        case ["no", status]:
            return NotQueued(status)
    raise UnknownReply("run_park", reply)


def change_of(reply: t.Any) -> Change:
    """Return the reply of ``run_admin``."""
    match reply:
        case ["ok", time]:
            return Changed(*_queued(time))
        case ["state", status]:
            return WrongState(status)
        case ["missing"]:
            return Missing()
        case ["unknown", step]:
            return OutcomeUnknown(step)
        case ["step", step]:
            return NotFailed(step)
    raise UnknownReply("run_admin", reply)


def renewals_of(reply: t.Any, count: int) -> list[Renewal]:
    """Return the reply of ``lease_renew`` for each of *count* runs."""
    if not isinstance(reply, list) or len(reply) != count:
        raise UnknownReply("lease_renew", reply)
    try:
        return [_RENEWALS[word] for word in reply]
    except KeyError:
        raise UnknownReply("lease_renew", reply) from None


def _queued(other: str) -> tuple[int, str]:
    """Return the time when another run was queued, and its id if it is a branch."""
    time, _, branch = other.partition(":")
    return int(time), branch


def _pairs(flat: t.Any) -> dict[str, str]:
    if isinstance(flat, dict):
        return flat
    return dict(zip(flat[::2], flat[1::2], strict=True))
