"""Marks of installations on messages, where deployments may share queues."""

from __future__ import annotations

import math
import time
import typing as t

from ..safe_logging import get_logger
from .envelope import ForeignMessage
from .envelope import Message
from .envelope import stamped
from .transport import Transport

#: Digits of an id. A message may say anything.
ID_LENGTH = 32

#: Seconds before the same is told again, and how many of these are remembered.
TOLD_AGAIN = 60.0
TOLD_AT_ONCE = 100

logger = get_logger(__name__)


class Home(t.Protocol):
    """The installation that a process is of."""

    @property
    def id(self) -> str:
        """Its id; ``""`` while it is not known."""

    def owns(self, home: str) -> bool:
        """Return whether the installation with the id *home* is this one.

        :raises UnavailableError: It is not known here, and the state server is away.
        """


class Marks:
    """Marks what is sent, and checks what is received.

    :param home: The installation; ``None`` where queues are on its own state server,
        and nobody else's messages can be there.
    """

    def __init__(self, home: Home | None) -> None:
        self._home = home
        #: When it was told that a queue has messages of an installation.
        self._told: dict[tuple[str, str], float] = {}

    def put_on(self, bodies: t.Sequence[str]) -> t.Sequence[str]:
        """Return message texts with the mark of this installation."""
        if self._home is None:
            return bodies
        id = self._home.id
        return [stamped(body, id) for body in bodies]

    def check(self, queue: str, message: Message) -> None:
        """Check that *message* is of this installation, or has no mark.

        :param queue: The queue that it was received from.
        :raises ForeignMessage: It is another one's.
        :raises UnavailableError: The state server does not say whose it is.
        """
        home = message.home
        if self._home is None or not home or self._home.owns(home):
            return
        self._tell(queue, home[:ID_LENGTH], self._home.id)
        raise ForeignMessage(home[:ID_LENGTH])

    def _tell(self, queue: str, home: str, own: str) -> None:
        """Say in the log that there are messages of *home*; once a minute."""
        now = time.monotonic()
        if now < self._told.get((queue, home), -math.inf) + TOLD_AGAIN:
            return
        if len(self._told) >= TOLD_AT_ONCE:
            self._told.clear()
        self._told[queue, home] = now
        logger.error(
            "A message of %s goes back: the installation %s sent it, and this one is "
            "%s. Two deployments share the queue: give each its own DURABLE_NAMESPACE, "
            "or a prefix in DURABLE_QUEUE_URL.",
            queue,
            home,
            own,
            extra={"action": "message_foreign"},
        )

    def check_queues(self, transport: Transport, queues: t.Iterable[str]) -> None:
        """Say in the log which of *queues* are another deployment's.

        Where that cannot be known a line says so, and nothing more is asked.
        """
        if self._home is None:
            return
        try:
            for queue in queues:
                if (problem := transport.owner_problem(queue)) is not None:
                    logger.error("%s", problem, extra={"action": "queue_foreign"})
        except Exception as error:
            logger.warning(
                "Whether queues are shared with another deployment is not known: %s",
                error,
                extra={"action": "queue_owner_unknown"},
            )
