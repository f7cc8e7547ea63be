"""Handing many runs back to their queues in one round trip."""

from __future__ import annotations

import typing as t

from ..redis.exchange import Argument
from .replies import hand_back_of
from .replies import Lost
from .replies import Suspension
from .run_store import MAX_MEMO_BYTES
from .run_store import MAX_STEPS
from .run_store import RunStore


def hand_back(
    store: RunStore, owned: t.Sequence[tuple[str, str]], due: str, reason: str
) -> list[Suspension | Lost | Exception]:
    """Hand runs back to their queues.

    :param owned: Run id and token of each run.
    :param due: The time when they may start, from :func:`~.run_store.after`.
    :returns: The reply for each run; an error is returned in its place.
    """
    lease = round(store.lease * 1000)
    rest: list[Argument] = ["", 0, "", MAX_STEPS, MAX_MEMO_BYTES]
    replies = store.server.call_many(
        [
            (
                "run_suspend",
                store.keys.tag_of(id),
                [id, token, lease, "handback", due, reason, *rest],
            )
            for id, token in owned
        ]
    )
    return [*map(hand_back_of, replies)]
