"""Branches in a worker: a branch replays the body of its run down to its step.

::

    body of the run      step A (stored) ── step B (stored) ── step C, the branch's
                                                                  │
    the branch's own     callable of the branch ◄─────────────────┘
                            └── steps, with memos of the branch ── outcome ── Signal

The steps before it only read. The callable's outcome is the branch's; then a signal
leaves the body, so nothing behind the step is executed. A branch in a branch goes down
two such levels, and so on.
"""

from __future__ import annotations

import typing as t
from dataclasses import dataclass
from dataclasses import field

from ..common.ids import derived_id
from ..errors import BranchError
from ..store.replies import Claimed
from ..store.run_reader import Record
from .control import BranchEnded

if t.TYPE_CHECKING:
    from .attempt import Attempt
    from .claimed_run import ClaimedRun

#: Fields of a run that its branches have too.
_SHARED = (
    "function",
    "event",
    "event_id",
    "event_name",
    "cause",
    "failed_run",
    "quiet",
)


@dataclass(frozen=True)
class Level:
    """A branch that an attempt comes through, or its own.

    :param above: The id of the run that has the step.
    :param step: The key of the step whose branch it is.
    :param item: Its item, as stored.
    :param memos_above: The memos of the run that has the step.
    """

    above: str
    step: str
    place: str
    item: str = field(repr=False)
    memos_above: dict[str, str] = field(repr=False)
    memos: dict[str, str] = field(repr=False)

    @property
    def name(self) -> str:
        """The name of the branch, such as ``chunks[3]``."""
        return f"{self.step}[{self.place}]"

    @property
    def scope(self) -> str:
        """The beginning of the names of its steps."""
        return f"{self.name}/"


def record_of(claim: Claimed) -> Record:
    """Return the record of a claimed run; of a branch with its run's event."""
    record = claim.record
    if claim.above:
        root, _ = claim.above[-1]
        shared = {name: root[name] for name in _SHARED if name in root}
        record = {**record, **shared}
    return record


def levels_of(run: ClaimedRun, memos: dict[str, str]) -> list[Level]:
    """Return the branches that an attempt comes through, the outermost first.

    :param memos: The memos of the run itself.
    :returns: None for a run that is no branch.
    """
    if not run.above:
        return []
    found: list[Level] = []
    record = run.record
    for id, (above, memos_above) in zip(run.ancestors, run.above, strict=True):
        step, place = record["parent_step"], record["place"]
        found.insert(0, Level(id, step, place, record["item"], memos_above, memos))
        record, memos = above, memos_above
    return found


def outcome_of_branch(attempt: Attempt, body: t.Callable[[], t.Any]) -> str:
    """Call the body of the run; return the branch's result as JSON text.

    The error of the branch is raised here, as if it were the body's: outside of the
    body, which could catch it, and inside its context, which it may end.

    :raises Signal: The end of the attempt.
    """
    error: BaseException | None = None
    try:
        body()
    except BaseException as raised:
        error = raised
    ended = attempt.end.signal
    if isinstance(ended, BranchEnded):
        attempt.end.reopen_after(ended)
        if ended.error is not None:
            raise ended.error
        return ended.outcome
    if error is not None:
        raise error
    attempt.check()
    attempt.miss("the end of the function")


def own_name(run: ClaimedRun) -> str:
    """Return the name of a branch, such as ``chunks[3]``."""
    return f"{run.record['parent_step']}[{run.record['place']}]"


def pattern_of(run: ClaimedRun) -> str:
    """Return the name of a branch without places, such as ``chunks[]``."""
    pattern = name = ""
    for record in reversed([run.record, *[above for above, _ in run.above[:-1]]]):
        # The name of a step in a branch begins with that of the branch.
        pattern += record["parent_step"].removeprefix(name) + "[]"
        name = f"{record['parent_step']}[{record['place']}]"
    return pattern


def step_of_branch(error: BranchError) -> str:
    """Return the name of the step that failed in a branch, or that of the branch.

    A child names a step of its own: that is no name of the run's.
    """
    name, inner = f"{error.step}[{error.branch}]", error.failure.step or ""
    return inner if inner.startswith(name) else name


def created_of(run: ClaimedRun, run_id: str) -> str:
    """Return the time when a run, or one that it is a branch of, was created."""
    record = run.record
    for id, (above, _) in zip(run.ancestors, run.above, strict=True):
        if id == run_id:
            record = above
    # A run that was claimed as it was created has one time for both.
    return record.get("created", record["started"])


def owner_of(run: ClaimedRun) -> tuple[str, Record]:
    """Return id and record of the run that a branch is a part of, or of the run."""
    if not run.above:
        return run.run_id, run.record
    root, _ = run.above[-1]
    return run.ancestors[-1], root


def identity_of(run: ClaimedRun) -> str:
    """Return the name of the run in keys for other services.

    It is the same for all attempts, also after a retry of the run above a branch.
    """
    owner, _ = owner_of(run)
    records = [run.record, *[record for record, _ in run.above[:-1]]]
    for record in reversed(records if run.above else []):
        owner = derived_id("branch", owner, record["parent_step"], record["place"])
    return owner
