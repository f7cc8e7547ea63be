"""The id of one installation: the processes that share a state server and a namespace.

Two deployments may share queues without knowing it: in one account of Amazon's, with
the default names. Each message carries the id of the installation that sent it, so that
no other one takes and deletes it. The id is made at the first start and kept on the
state server, which is what makes processes one installation.

::

    no id on the server ──► the first process to ask makes one; all get that one
    a message with an id that is not known here ──► the server is asked again
        ├─ it was adopted there ──────────────────► it is ours
        └─ it is another installation's ──────────► it goes back to its queue

A state server that was emptied has a new id. A process that lived on still has the old
one and adopts it for all. If no such process lives, an operator adopts it.
"""

from __future__ import annotations

import re
import threading
import time
import uuid

import redis

from ..common.safe_logging import get_logger
from ..errors import UnavailableError
from .keys import Keys
from .server import StateServer

#: Seconds until the server is asked again: for an unknown id, and after no answer.
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
        #: The time when the server may be asked again, and True if it answered last.
        self._ask_at = float("-inf")
        self._answered = False

    @property
    def id(self) -> str:
        """The id, or ``""`` while the state server has not told it yet.

        A message sent without an id is taken by any installation: a queue elsewhere
        takes events also while the state server is away.
        """
        if not self._id:
            self._look()
        return self._id

    def owns(self, home: str) -> bool:
        """Return whether messages of the installation *home* are of this one.

        :raises UnavailableError: *home* is not known here, and the state server is
            away.
        """
        if home not in self._known and not self._look():
            raise UnavailableError(
                f"the state server does not say whose the installation {home} is"
            )
        return home in self._known

    def adopt(self, home: str) -> None:
        """Have every process take the messages of *home* for its own.

        :raises ValueError: *home* is not an id of an installation.
        :raises redis.RedisError: The state server cannot be reached.
        """
        if re.fullmatch("[0-9a-f]{32}", home) is None:
            raise ValueError("An installation is 32 digits from 0 to f.")
        self._server.client.sadd(self._adopted, home)
        self._known |= {home}

    def _look(self) -> bool:
        """Ask the server, unless it was just asked; return whether it answered."""
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
            # The server was emptied, or lost its newest state, under this process. The
            # process gives its own id up only when that is written.
            self._server.client.sadd(self._adopted, self._id)
        self._id, self._known = id, self._known | adopted | {id}
