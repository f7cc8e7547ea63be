"""Children: runs that a step of another run starts, and waits for.

::

    parent RUNNING ──child_start──► parent SUSPENDED (child), child QUEUED
                                       │                         │
                  its time is over ────┤                         ├── ends (settle)
                  (sweep)              ▼                         ▼
                               memo failed, and         memo done or failed
                               the child is an orphan            │
                                       └──► parent QUEUED ◄──────┘

A child shares its parent's partition, so each of these arrows is one script. The step's
memo takes the first answer. A child that its parent does not wait for any more is an
orphan, and is cancelled: the parent's time was over, or it has ended, or it was retried
and has a new child.

A sweep also looks now and then at a run that waits: a worker of an older release ends a
child without telling its parent.
"""

from __future__ import annotations

import typing as t
from dataclasses import dataclass
from dataclasses import field

from ..redis.exchange import Argument
from .replies import child_of
from .replies import ChildStarted
from .replies import Full
from .replies import Resolved
from .run_store import MAX_MEMO_BYTES
from .run_store import MAX_STEPS
from .run_store import milliseconds
from .run_store import RunStore

#: The reason of a child that is cancelled because of its parent.
ORPHANED = "the run that invoked it does not wait any more"

#: Unfinished children that one call returns.
CHILDREN_PAGE = 100


@dataclass(frozen=True)
class NewChild:
    """The first state of a child.

    :param event: The event message, as JSON text.
    :param quiet: True if its end sends no events, as its parent's does not.
    """

    id: str
    function: str
    queue: str
    event: str = field(repr=False)
    event_id: str
    event_name: str
    timeout: float | None = None
    start_timeout: float | None = None
    version: str = ""
    quiet: bool = False


def start_child(
    store: RunStore,
    parent: tuple[str, str],
    step: str,
    child: NewChild,
    *,
    wait: float | None,
    head: str,
    expired: str,
) -> ChildStarted | Resolved | Full:
    """Create a child of a run, and suspend the run until it has ended.

    :param parent: Id and token of the run.
    :param step: The key of the step that waits for the child.
    :param wait: Seconds that it waits; ``None`` for as long as it takes.
    :param head: The beginning of the memo's payload, before its JSON.
    :param expired: The failure that the memo gets if that time is over, as JSON text.
    :raises NotOwner: The run is no longer the caller's.
    """
    run_id, token = parent
    fields = ["function", child.function, "queue", child.queue, "event", child.event]
    fields += ["event_id", child.event_id, "event_name", child.event_name]
    if child.version:
        fields += ["version", child.version]
    if child.quiet:
        fields += ["quiet", "1"]
    args: list[Argument] = [
        run_id,
        token,
        milliseconds(store.lease),
        step,
        milliseconds(wait),
        head,
        expired,
        MAX_STEPS,
        MAX_MEMO_BYTES,
        child.id,
        milliseconds(child.timeout),
        milliseconds(child.start_timeout),
        *fields,
    ]
    tag = store.keys.tag_of(run_id)
    return child_of(store.server.call("child_start", tag, *args))


def unfinished_children(store: RunStore, run_id: str) -> list[str]:
    """Return the ids of children of a run that have not ended, the oldest first.

    :returns: At most :data:`CHILDREN_PAGE`.
    """
    key = f"{store.keys.tag_of(run_id)}:unfinished:{run_id}"
    found = store.server.client.zrange(key, 0, CHILDREN_PAGE - 1)
    return t.cast("list[str]", found)
