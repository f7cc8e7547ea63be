"""Refusing new events before the state server runs out of memory.

At its limit the server refuses all writes that make it grow, and with them those of
runs whose events were accepted. So the endpoint and ``send()`` refuse earlier: the rest
is left to accepted events.
"""

from __future__ import annotations

import threading
import time
import typing as t

import redis

from ..common.safe_logging import get_logger
from ..errors import UnavailableError
from ..redis.client import ask_all
from .server import StateServer

logger = get_logger(__name__)

#: The share of ``maxmemory`` from which on new events are refused.
LIMIT = 0.9

#: Seconds that an answer of the server is believed, and also that none came.
BELIEVED = 1.0
SILENCE_BELIEVED = 5.0


class MemoryGuard:
    """Asks the state server about its memory, at most once a second a process.

    :param server: The state server, over a connection that does not wait for long.
    """

    def __init__(self, server: StateServer) -> None:
        self._server = server
        self._lock = threading.Lock()
        self._ask_at = float("-inf")
        self._used = 0.0

    def check(self) -> None:
        """Check that there is room for new events.

        A server that does not answer is not full: a queue elsewhere takes the event.

        :raises UnavailableError: There is no room for them.
        """
        # One thread asks; during that time the others go by the last answer.
        if time.monotonic() > self._ask_at and self._lock.acquire(blocking=False):
            try:
                self._look()
            finally:
                self._lock.release()
        used = self._used
        if used > LIMIT:
            raise UnavailableError(
                f"The state server is {used:.0%} full; new events are refused.",
                hint="Raise its maxmemory, or shorten DURABLE_RETENTION.",
            )

    def _look(self) -> None:
        believed = BELIEVED
        try:
            self._used = self._ask()
        except redis.RedisError as error:
            # It cannot be asked, or forbids the question: it may have room.
            logger.warning(
                "The state server does not say how much memory it uses: %s",
                error,
                extra={"action": "memory_unknown"},
            )
            self._used, believed = 0.0, SILENCE_BELIEVED
        self._ask_at = time.monotonic() + believed

    def _ask(self) -> float:
        # The fullest server of a cluster counts: any of them may be needed.
        answers = ask_all(self._server.client, "INFO", "memory")
        return max(_used(info) for info in answers)


def _used(info: dict[str, t.Any]) -> float:
    limit = int(info.get("maxmemory", 0))
    return int(info["used_memory"]) / limit if limit else 0.0
