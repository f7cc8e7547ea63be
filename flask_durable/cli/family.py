"""The children and branches of a run, by step, and those of many that are shown."""

from __future__ import annotations

import dataclasses
import typing as t
from collections import Counter
from datetime import datetime
from datetime import timezone

from ..errors import RunNotFound
from ..store.status import RunStatus

if t.TYPE_CHECKING:
    from ..errors import Failure
    from ..runs import Runs
    from ..runs.model import Run
    from ..runs.model import StepRecord

#: Branches of a step that are all shown.
FEW = 10

#: Of more than that, the failed and the slowest ones that are shown.
_SHOWN = 5

#: Branches whose own steps are read at most, over all steps of a run.
_MOST_UNFOLDED = 1000

#: States that a person has to look at.
_TROUBLED = (RunStatus.FAILED, RunStatus.PAUSED)


@dataclasses.dataclass(frozen=True)
class Family:
    """A run's children and branches.

    :param by_step: Those of each step, in the order of their places.
    :param inner: Those whose own steps are shown, by id: each with its own family.
    """

    by_step: t.Mapping[str, t.Sequence[Run]] = dataclasses.field(default_factory=dict)
    inner: t.Mapping[str, tuple[Run, Family]] = dataclasses.field(default_factory=dict)

    def of(self, step: StepRecord) -> t.Sequence[Run]:
        """Return the children of *step*: its branches, or the run that it invoked."""
        found = self.by_step.get(step.name, ())
        if step.child is None:
            return found
        # Before a retry of the run the step invoked another one.
        return [child for child in found if child.id == step.child]

    def shown(self, step: StepRecord) -> list[Run]:
        """Return those that are shown: of many the failed and the slowest ones."""
        children = self.of(step)
        unfolded = [child for child in children if child.id in self.inner]
        if len(children) <= FEW or unfolded:
            return list(children)
        now = datetime.now(timezone.utc)
        troubled = [child for child in children if child.status in _TROUBLED]
        chosen = {child.id for child in troubled[:_SHOWN]}
        begun = [child for child in children if _is_timed(child)]
        begun.sort(key=lambda child: elapsed(child, now), reverse=True)
        chosen.update(child.id for child in begun[:_SHOWN])
        return [child for child in children if child.id in chosen]


#: The family of a run whose children are not asked for.
ALONE = Family()


def family_of(runs: Runs, run: Run, *, unfold: bool = False) -> Family:
    """Read the children and branches of *run*.

    :param unfold: True to read the steps of its branches too, and of theirs.
    """
    return _family_of(runs, run, _MOST_UNFOLDED if unfold else 0)[0]


def _family_of(runs: Runs, run: Run, most: int) -> tuple[Family, int]:
    by_step: dict[str, list[Run]] = {}
    if any(step.child or step.kind == "group" for step in run.steps):
        for child in runs.children(run.id):
            by_step.setdefault(child.parent_step or "", []).append(child)
    inner = {}
    for children in by_step.values():
        children.sort(key=_place_of)
        for child in children:
            if most <= 0 or child.branch is None:
                continue
            try:
                whole = runs.get(child.id)
            except RunNotFound:  # removed a moment ago
                continue
            family, most = _family_of(runs, whole, most - 1)
            inner[child.id] = (whole, family)
    return Family(by_step, inner), most


def counts_of(children: t.Iterable[Run]) -> dict[str, int]:
    """Return the numbers of runs by status, those that have ended first."""
    counts = Counter(str(child.status) for child in children)
    ended = ("completed", "failed", "cancelled", "paused", "running", "queued")
    order = [*ended, "suspended"]
    return {status: counts[status] for status in order if counts[status]}


def elapsed(run: Run, now: datetime) -> float:
    """Return the seconds since *run* began, up to its end; 0 before its beginning."""
    if run.started is None:
        return 0.0
    return max(0.0, ((run.finished or now) - run.started).total_seconds())


def _is_timed(child: Run) -> bool:
    # The time of one that was cancelled is not its own.
    return child.started is not None and child.status != RunStatus.CANCELLED


def failure_of(child: Run) -> Failure | None:
    """Return the failure of a child that a person has to know of, if it has one.

    It is read from the server, which is not asked about all of many children.

    :raises PayloadError: It cannot be opened.
    """
    if child.status not in _TROUBLED:
        return None
    try:
        return child.failure
    except RunNotFound:  # removed a moment ago
        return None


def _place_of(child: Run) -> tuple[datetime, int, str]:
    """Return the key that brings the branches of a step into their order."""
    place = (child.branch or "").removeprefix(f"{child.parent_step}[").removesuffix("]")
    return child.created, int(place) if place.isdecimal() else 0, place
