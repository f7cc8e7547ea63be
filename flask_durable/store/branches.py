"""Branches: the parts of one step of a run, which any worker executes.

::

    parent RUNNING ──branches_start──► parent SUSPENDED (branches)
                          │                       ▲
                          ▼                       │ enough have ended, or too many
      none ──► branch QUEUED, or SUSPENDED        │ have failed: memo done or failed
                          │       (limit)         │
                          ▼          ▲            │
                  branch RUNNING     │ the next   │
                          │          │            │
                          └─► ends ──┴────────────┘
                           (settle, tell_group)

A branch is a run in its parent's partition, so each of these arrows is one script. It
has a lease and memos of its own, and neither an event nor a result: it reads the event
of its run, and its outcome is kept in the *group* of the parent's step, one hash. An
outcome counts once, with the write that puts it there. A branch that is not counted any
more is an orphan, and is cancelled: by a sweep, or where it is claimed.

The branches of a map over a durable function are *children*: runs of that function with
an event and a result of their own, on its queue. All else is the same, except that only
a sweep cancels them, which tells their ends. One that a person retries by itself leaves
the group, and the next beginning asks for it again.

The branches of a map that take several pages are first stored as a list::

    none ──branches_list──► incomplete ──branches_list──► complete
     ▲                       │      ▲                        │
     │                       └──────┘                        │
     │                 a new owner begins again              │
     └────── the last page of branches, or the outcome ──────┘

Branches are made of a complete list alone. So a new owner that finds the memo waiting
has a list, unless its run was retried since, and makes the other branches from that.
"""

from __future__ import annotations

import typing as t
from dataclasses import dataclass
from dataclasses import field

from ..redis.exchange import Argument
from .replies import branches_of
from .replies import BranchesMade
from .replies import Committed
from .replies import Full
from .replies import listing_of
from .replies import Resolved
from .run_store import MAX_MEMO_BYTES
from .run_store import MAX_STEPS
from .run_store import milliseconds
from .run_store import RunStore

#: Branches that one call makes, and a step has.
BRANCHES_PAGE = 250
MAX_BRANCHES = 1000

#: The prefix of the fields of a group that are outcomes.
_OUTCOME = "="


@dataclass(frozen=True)
class NewBranch:
    """A branch that a step asks for.

    :param place: Its name among the branches of the step.
    :param item: The item that it is given, as stored; may be empty. The event of a
        child.
    :param event: Id and name of that event; empty if it is no child.
    """

    place: str
    id: str
    item: str = field(default="", repr=False)
    event: tuple[str, ...] = ()


@dataclass(frozen=True)
class Children:
    """The function whose runs the branches of a step are.

    :param quiet: True if their ends send no events, as their parent's does not.
    """

    function: str
    queue: str
    timeout: float | None = None
    start_timeout: float | None = None
    version: str = ""
    quiet: bool = False

    def fields(self) -> list[Argument]:
        """Return what their records have in common: field, value, and so on."""
        times = milliseconds(self.timeout), milliseconds(self.start_timeout)
        found: list[Argument] = ["function", self.function, "queue", self.queue]
        found += ["timeout", times[0]]
        for name, time in zip(("timeout_left", "start_left"), times, strict=True):
            if time:
                found += [name, time]
        if self.version:
            found += ["version", self.version]
        if self.quiet:
            found += ["quiet", "1"]
        return found


@dataclass(frozen=True)
class NewGroup:
    """The branches of one step.

    :param head: The beginning of the memo's payload, before its JSON.
    :param body: That JSON.
    :param total: The number of branches.
    :param until: The number of ended branches that ends the step.
    :param limit: The number of branches that may be under way.
    :param tolerate: The number of branches that may fail.
    :param children: The function, if the branches are children.
    """

    head: str
    body: str
    total: int
    until: int
    limit: int
    tolerate: int
    children: Children | None = None


def start_branches(
    store: RunStore,
    parent: tuple[str, str],
    step: str,
    group: NewGroup,
    offset: int,
    branches: t.Sequence[NewBranch],
) -> BranchesMade | Resolved | Full:
    """Make a page of the branches of a step; the last page suspends the run.

    :param parent: Id and token of the run.
    :param step: The key of the step.
    :param offset: The number of branches in earlier pages.
    :param branches: At most :data:`BRANCHES_PAGE`.
    :raises NotOwner: The run is no longer the caller's.
    """
    args: list[Argument] = [
        *parent,
        milliseconds(store.lease),
        step,
        group.head,
        group.body,
        MAX_STEPS,
        MAX_MEMO_BYTES,
        offset,
        group.total,
        group.until,
        group.limit,
        group.tolerate,
    ]
    shared = group.children.fields() if group.children else []
    args += [len(shared), *shared]
    for branch in branches:
        args += [branch.place, branch.id, branch.item, *branch.event]
    tag = store.keys.tag_of(parent[0])
    return branches_of(store.server.call("branches_start", tag, *args))


def store_branches(
    store: RunStore,
    parent: tuple[str, str],
    step: str,
    group: NewGroup,
    offset: int,
    branches: t.Sequence[NewBranch],
    size: int,
) -> Committed | Full:
    """Store a page of the branches that a step is to have.

    :param parent: Id and token of the run.
    :param step: The key of the step.
    :param offset: The number of branches in earlier pages.
    :param branches: At most :data:`BRANCHES_PAGE`, and at least one.
    :param size: The bytes of the items of all pages.
    :raises NotOwner: The run is no longer the caller's.
    """
    args: list[Argument] = [
        *parent,
        milliseconds(store.lease),
        step,
        group.body,
        offset,
        group.total,
        3 + len(branches[0].event),
        size,
        MAX_STEPS,
        MAX_MEMO_BYTES,
    ]
    for branch in branches:
        args += [branch.place, branch.id, branch.item, *branch.event]
    tag = store.keys.tag_of(parent[0])
    return listing_of(store.server.call("branches_list", tag, *args))


@dataclass(frozen=True)
class StoredBranches:
    """The branches that a step is to have.

    :param body: The JSON of the memo.
    """

    body: str
    branches: list[NewBranch] = field(repr=False)


def read_branches(
    store: RunStore, run_id: str, step: str, generation: str
) -> StoredBranches | None:
    """Return the list of a step, if there is a complete one.

    :param generation: That of the run; a list of an earlier one does not count.
    :raises redis.RedisError: The server did not answer.
    """
    key = f"{store.keys.tag_of(run_id)}:list:{run_id}:{step}"
    found = t.cast("list[str]", store.server.client.lrange(key, 0, -1))
    if not found:
        return None
    stored_in, total, each, _ = found[0].split(" ")
    texts, width = found[2:], int(each)
    if stored_in != generation or len(texts) != int(total) * width:
        return None
    branches = []
    for start in range(0, len(texts), width):
        place, id, item, *event = texts[start : start + width]
        branches.append(NewBranch(place, id, item, tuple(event)))
    return StoredBranches(found[1], branches)


@dataclass(frozen=True)
class Outcomes:
    """The outcomes of the branches of one step.

    :param decided: The place of the branch that ended the step.
    :param by_place: Whether it is a result, and the text, of each branch that ended.
    """

    decided: str
    by_place: t.Mapping[str, tuple[bool, str]] = field(repr=False)


def read_outcomes(store: RunStore, run_id: str, step: str) -> Outcomes:
    """Return the outcomes of the branches of a step.

    :raises redis.RedisError: The server did not answer.
    """
    key = f"{store.keys.tag_of(run_id)}:group:{run_id}:{step}"
    found = t.cast("dict[str, str]", store.server.client.hgetall(key))
    outcomes = {}
    for name, value in found.items():
        if name.startswith(_OUTCOME):
            how, _, text = value.partition(" ")
            outcomes[name.removeprefix(_OUTCOME)] = (how == "done", text)
    return Outcomes(found.get("decided", ""), outcomes)
