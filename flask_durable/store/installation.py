"""The id of one installation: the processes that share a state server and a namespace.

Two deployments may share queues without knowing it: in one account of Amazon's, with
the default names. Each message carries the id of the installation that sent it, so that
none takes and deletes what is another's. The id is made at the first start and kept on
the state server, which is what makes processes one installation.

::

    no id on the server ──► one is made, by whoever asks first; all get that one
    a message with an id that is not known here ──► the server is asked again
        ├─ it was adopted there ──────────────────► it is ours
        └─ it is another one's ───────────────────► it goes back to its queue

A state server that was emptied has a new id. A process that lived on still has the old
one: it adopts it for all. Where none did, an operator does.
"""

from __future__ import annotations

import re
import threading
import time
import uuid

import redis

from ..errors import UnavailableError
from ..safe_logging import get_logger
from .keys import Keys
from .server import StateServer

#: Seconds before the server is asked again: for what is not known, and after silence.
ASKED_AGAIN = 1.0
SILENCE_BELIEVED = 5.0

logger = get_logger(__name__)


class Installation:
    """The installation of one process.

    :param server: The state server, over a connection that does not wait for long.
    """

    def __init__(self, server: StateServer, keys: Keys) -> None:
        self._server = server
        self._tag = keys.root
        self._adopted = f"{keys.root}:installations"
        self._lock = threading.Lock()
        self._id = ""
        self._known: frozenset[str] = frozenset()
        #: When the server may be asked again, and whether it answered last.
        self._ask_at = float("-inf")
        self._answered = False

    @property
    def id(self) -> str:
        """The id, or ``""`` while the state server has not told it yet.

        What is sent without one is anybody's: a queue elsewhere takes events also while
        the state server is away.
        """
        if not self._id:
            self._look()
        return self._id

    def owns(self, home: str) -> bool:
        """Return whether what the installation *home* has sent is of this one.

        :raises UnavailableError: It is not known here, and the state server is away.
        """
        if home not in self._known and not self._look():
            raise UnavailableError(
                f"the state server does not say whose the installation {home} is"
            )
        return home in self._known

    def adopt(self, home: str) -> None:
        """Have every process take what *home* has sent for its own.

        :raises ValueError: It is no id of an installation.
        :raises redis.RedisError: The state server cannot be reached.
        """
        if re.fullmatch("[0-9a-f]{32}", home) is None:
            raise ValueError("An installation is 32 digits from 0 to f.")
        self._server.client.sadd(self._adopted, home)
        self._known |= {home}

    def _look(self) -> bool:
        """Ask the server, unless that was done a moment ago; return whether it said."""
        with self._lock:
            if time.monotonic() < self._ask_at:
                return self._answered
            try:
                self._ask()
            except redis.RedisError as error:
                self._ask_at = time.monotonic() + SILENCE_BELIEVED
                self._answered = False
                logger.warning(
                    "The state server does not say which installation this is: %s",
                    error,
                    extra={"action": "installation_unknown"},
                )
                return False
            self._ask_at = time.monotonic() + ASKED_AGAIN
            self._answered = True
            return True

    def _ask(self) -> None:
        arguments = ("installation", uuid.uuid4().hex)
        replies = self._server.call_many(
            [("meta_note", self._tag, arguments)], ("SMEMBERS", self._adopted)
        )
        for reply in replies:
            if isinstance(reply, Exception):
                raise reply
        id, adopted = str(replies[0]), set(replies[1])
        if self._id not in ("", id, *adopted):
            # The server was emptied, or lost its newest state, under this process. It
            # gives its own id up only when that is written.
            self._server.client.sadd(self._adopted, self._id)
        self._id, self._known = id, self._known | adopted | {id}
