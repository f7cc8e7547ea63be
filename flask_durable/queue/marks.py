"""Marks of installations on messages, where deployments may share queues."""

from __future__ import annotations

import math
import time
import typing as t

from ..common.safe_logging import get_logger
from ..messages import ForeignMessage
from ..messages import Message
from ..messages import stamped
from .transport import Transport

#: Digits of an id. Checked, since a message may have any text there.
ID_LENGTH = 32

#: Seconds until the same line is logged again, and the number of lines remembered.
TOLD_AGAIN = 60.0
TOLD_AT_ONCE = 100

logger = get_logger(__name__)


class Home(t.Protocol):
    """The installation that a process is of."""

    @property
    def id(self) -> str:
        """The installation's id; ``""`` while it is not known."""

    def owns(self, home: str) -> bool:
        """Return whether the installation with the id *home* is this one.

        :raises UnavailableError: This is not known here, and the state server is away.
        """


class Marks:
    """Marks messages that are sent, and checks messages that are received.

    :param home: The installation; ``None`` where queues are on its own state server,
        which has no messages of other installations.
    """

    def __init__(self, home: Home | None) -> None:
        self._home = home
        #: The time when a queue was last reported to have an installation's messages.
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
        :raises ForeignMessage: The message is another installation's.
        :raises UnavailableError: The state server does not say whose message it is.
        """
        home = message.home
        if self._home is None or not home or self._home.owns(home):
            return
        self._tell(queue, home[:ID_LENGTH], self._home.id)
        raise ForeignMessage(home[:ID_LENGTH])

    def _tell(self, queue: str, home: str, own: str) -> None:
        """Log that there are messages of *home*; once a minute."""
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
        """Log each of *queues* that belongs to another deployment.

        Where that cannot be known a line says so, and the rest is not asked for.
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
