"""The beginning of a step that has branches: makes them, and suspends the run."""

from __future__ import annotations

import functools
import json
import typing as t
from dataclasses import dataclass

from ...common.ids import branch_run_id
from ...common.safe_logging import get_logger
from ...middleware import StepInfo
from ...store.branches import BRANCHES_PAGE
from ...store.branches import NewBranch
from ...store.branches import NewGroup
from ...store.branches import start_branches
from ...store.memo import Memo
from ...store.memo import payload
from ...store.memo import Try
from ...store.replies import BranchesMade
from ...store.replies import Full
from ...store.replies import Resolved
from ..attempt import Attempt
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


def begin(
    attempt: Attempt,
    key: str,
    sketch: bytes,
    places: t.Sequence[tuple[str, str]],
    stored: t.Any,
    terms: Terms,
) -> Memo:
    """Make the branches of a step, and suspend the run until they have ended.

    :param places: The place and the item, as stored, of each branch.
    :param stored: The places as the memo keeps them.
    :returns: The memo, if the step has its outcome already.
    :raises Signal: The run is suspended, or is not ours any more.
    """
    services, record = attempt.services, attempt.record
    head = payload(
        KIND,
        "",
        tries=[Try(attempt.server_time, 0)],
        digest=services.payloads.digest(sketch),
    )
    body = json.dumps(stored, separators=(",", ":"))
    if not places:
        memo = attempt.commit(key, "done", attempt.server_time, head + body)
        assert isinstance(memo, Memo), "only an intent is interrupted"
        return memo
    # A run that was claimed as it was created has one time for both.
    created = record.get("created", record["started"])
    branches = [
        NewBranch(place, branch_run_id(attempt.run_id, created, key, place), item)
        for place, item in places
    ]
    group = NewGroup(
        head, body, len(branches), terms.until, terms.limit, terms.tolerate
    )
    attempt.progress.flush()
    info = StepInfo(attempt.info, key, KIND, 1, branches=len(branches))
    with services.middleware.around_step(info):
        reply = _make(attempt, key, group, branches)
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
    raise attempt.seal(Suspended("branches"))


def _make(
    attempt: Attempt, key: str, group: NewGroup, branches: t.Sequence[NewBranch]
) -> BranchesMade | Resolved | Full:
    """Make all branches, a page at a time, and send the messages that are owed."""
    offset = 0
    while True:
        page = _page(branches, offset)
        reply = attempt.own(
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
        job = (attempt.record["function"], attempt.record["queue"])
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
