"""Taking back the counted claims of runs, see ``run_excuse.lua``."""

from __future__ import annotations

import typing as t
from collections import defaultdict

from ..redis.exchange import Argument
from .run_store import RENEW_LIMIT
from .run_store import RunStore


def excuse(store: RunStore, runs: t.Sequence[tuple[str, str]]) -> None:
    """Take back the counted claims of *runs*.

    :param runs: Run id and token.
    :raises redis.RedisError: The server did not answer.
    """
    by_tag: defaultdict[str, list[Argument]] = defaultdict(list)
    for run_id, token in runs:
        by_tag[store.keys.tag_of(run_id)] += (run_id, token)
    for tag, args in by_tag.items():
        for start in range(0, len(args), 2 * RENEW_LIMIT):
            batch = args[start : start + 2 * RENEW_LIMIT]
            store.server.call("run_excuse", tag, *batch)
