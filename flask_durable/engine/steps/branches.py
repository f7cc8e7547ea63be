"""The beginning of a step that has branches: makes them, and suspends the run."""

from __future__ import annotations

import functools
import json
import typing as t
from dataclasses import dataclass
from dataclasses import replace

from ...common.ids import branch_run_id
from ...common.ids import derived_id
from ...common.ids import mapped_run_id
from ...common.safe_logging import get_logger
from ...errors import EventError
from ...messages import EventMessage
from ...middleware import StepInfo
from ...store.branches import BRANCHES_PAGE
from ...store.branches import Children
from ...store.branches import NewBranch
from ...store.branches import NewGroup
from ...store.branches import read_branches
from ...store.branches import start_branches
from ...store.branches import store_branches
from ...store.branches import StoredBranches
from ...store.memo import Memo
from ...store.memo import payload
from ...store.memo import Try
from ...store.replies import BranchesMade
from ...store.replies import Full
from ...store.replies import Resolved
from ..attempt import Attempt
from ..branches import created_of
from ..children import Callee
from ..children import is_quiet
from ..children import message_for
from ..control import Suspended

KIND = "group"

#: Characters of items in one page, unless one item has more.
PAGE_SIZE = 1024 * 1024

logger = get_logger(__name__)


@dataclass(frozen=True)
class Terms:
    """The end of a step that has branches.

    :param until: The number of ended branches that ends it.
    :param limit: The number of branches that may be under way.
    :param tolerate: The number of branches that may fail.
    """

    until: int
    limit: int
    tolerate: int


def branch_id(attempt: Attempt, key: str, place: str) -> str:
    """Return the id of a branch of a step."""
    owner = attempt.book_id
    return branch_run_id(owner, created_of(attempt.run, owner), key, place)


def child_id(attempt: Attempt, key: str, place: str) -> str:
    """Return the id of the run of a function that a step has for an item."""
    owner = attempt.book_id
    return mapped_run_id(owner, created_of(attempt.run, owner), key, place)


def branches_of(
    attempt: Attempt, key: str, places: t.Sequence[tuple[str, str]]
) -> list[NewBranch]:
    """Return the branches of a step.

    :param places: The place and the item, as stored, of each.
    """
    return [
        NewBranch(place, branch_id(attempt, key, place), item) for place, item in places
    ]


def children_of(
    attempt: Attempt,
    key: str,
    callee: Callee,
    places: t.Sequence[str],
    items: t.Sequence[t.Any],
) -> tuple[list[NewBranch], Children]:
    """Return the children of a step, one for each item, and their function.

    :raises EventError: An item does not fit the function's model.
    """
    messages: dict[str, EventMessage] = {}
    for place, item in zip(places, items, strict=True):
        run_id = child_id(attempt, key, place)
        event_id = derived_id("invoked", run_id)
        try:
            message = message_for(attempt.services, callee, item, event_id)
        except EventError as error:
            raise EventError(
                f"Item {place!r} of step {key!r} is not valid: {error.message}",
                errors=error.errors,
                hint=error.hint,
            ) from None
        messages[run_id] = replace(message, headers=attempt.run.message.headers)
    # Only now: one that is not valid leaves no object of the others.
    branches = [
        NewBranch(place, id, attempt.payloads.seal_event(m), (m.id, m.name))
        for place, (id, m) in zip(places, messages.items(), strict=True)
    ]
    children = Children(
        callee.id,
        callee.queue,
        callee.timeout,
        callee.start_timeout,
        callee.version,
        is_quiet(attempt.record),
    )
    return branches, children


def stored_branches(
    attempt: Attempt, key: str, memo: Memo | None
) -> StoredBranches | None:
    """Return the branches that an owner before this one stored, and began to make.

    :param memo: The memo of the step. Without one, no branch exists.
    """
    if memo is None:
        return None
    services = attempt.services
    generation = attempt.record["generation"]
    return services.retry_until_answered(
        lambda: read_branches(services.store, attempt.run_id, key, generation)
    )


def begin(
    attempt: Attempt,
    key: str,
    sketch: bytes,
    branches: t.Sequence[NewBranch],
    stored: t.Any,
    terms: Terms,
    children: Children | None = None,
    *,
    store_first: bool = False,
) -> Memo:
    """Make the branches of a step, and suspend the run until they have ended.

    :param stored: The places as the memo keeps them.
    :param children: The function, if the branches are children.
    :param store_first: True if another owner could not make the same branches, and none
        has stored them. Those of several pages are stored before the first is made.
    :returns: The memo, if the step has its outcome already.
    :raises Signal: The run is suspended, or is not ours any more.
    """
    services = attempt.services
    head = payload(
        KIND,
        "",
        tries=[Try(attempt.server_time, 0)],
        digest=services.payloads.digest(sketch),
    )
    body = json.dumps(stored, separators=(",", ":"))
    if not branches:
        memo = attempt.commit(key, "done", attempt.server_time, head + body)
        assert isinstance(memo, Memo), "only an intent is interrupted"
        return memo
    group = NewGroup(
        head,
        body,
        len(branches),
        terms.until,
        terms.limit,
        terms.tolerate,
        children,
    )
    attempt.progress.flush()
    info = StepInfo(attempt.info, key, KIND, 1, branches=len(branches))
    with services.middleware.around_step(info):
        full = _store(attempt, key, group, branches) if store_first else None
        reply = full or _make(attempt, key, group, branches)
        if isinstance(reply, BranchesMade):
            info.outcome = "waiting"
        elif isinstance(reply, Resolved):
            info.outcome = "completed"
    match reply:
        case Full():
            attempt.fail_over_limit(reply.limit)
        case Resolved():
            attempt.committed = True
            return Memo.parse(reply.memo)
    logger.info(
        "Step %r of run %s waits for %d branches.",
        key,
        attempt.run_id,
        len(branches),
        extra={"action": "branches_started"},
    )
    raise attempt.stop(Suspended("branches"))


def _store(
    attempt: Attempt, key: str, group: NewGroup, branches: t.Sequence[NewBranch]
) -> Full | None:
    """Store branches that take several pages. Those of one page are made at once."""
    page, offset = _page(branches, 0), 0
    if len(page) == len(branches):
        return None
    size = sum([len(branch.item.encode()) for branch in branches])
    while page:
        reply = attempt.as_owner(
            functools.partial(
                store_branches,
                attempt.services.store,
                (attempt.run_id, attempt.token),
                key,
                group,
                offset,
                page,
                size,
            ),
            size=sum([len(branch.item) for branch in page]),
        )
        if isinstance(reply, Full):
            return reply
        offset += len(page)
        page = _page(branches, offset)
    return None


def _make(
    attempt: Attempt, key: str, group: NewGroup, branches: t.Sequence[NewBranch]
) -> BranchesMade | Resolved | Full:
    """Make all branches, a page at a time, and send the messages that are owed."""
    record = attempt.record
    offset = 0
    while True:
        page = _page(branches, offset)
        reply = attempt.as_owner(
            functools.partial(
                start_branches,
                attempt.services.store,
                (attempt.run_id, attempt.token),
                key,
                group,
                offset,
                page,
            ),
            size=sum([len(branch.item) for branch in page]),
        )
        if isinstance(reply, (Resolved, Full)):
            return reply
        of = group.children
        job = (of.function, of.queue) if of else (record["function"], record["queue"])
        attempt.outbox.send_runs([(id, *job, time) for id, time in reply.queued])
        if not reply.more:
            return reply
        offset += len(page)


def _page(branches: t.Sequence[NewBranch], offset: int) -> list[NewBranch]:
    page: list[NewBranch] = []
    size = 0
    for branch in branches[offset : offset + BRANCHES_PAGE]:
        size += len(branch.item)
        if page and size > PAGE_SIZE:
            break
        page.append(branch)
    return page
