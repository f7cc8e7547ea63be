"""Marks of installations on messages, where deployments may share queues."""

from __future__ import annotations

import typing as t

from ..safe_logging import get_logger
from .envelope import ForeignMessage
from .envelope import Message
from .envelope import stamped

logger = get_logger(__name__)


class Home(t.Protocol):
    """The installation that a process is of."""

    @property
    def id(self) -> str:
        """Its id; ``""`` while it is not known."""

    def owns(self, home: str) -> bool:
        """Return whether the installation with the id *home* is this one."""


class Marks:
    """Marks what is sent, and checks what is received.

    :param home: The installation; ``None`` where queues are on its own state server,
        and nobody else's messages can be there.
    """

    def __init__(self, home: Home | None) -> None:
        self._home = home

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
        """
        home = message.home
        if self._home is None or not home or self._home.owns(home):
            return
        logger.error(
            "A message of %s goes back: the installation %s sent it, and this one is "
            "%s. Two deployments share the queue: give each its own DURABLE_NAMESPACE, "
            "or a prefix in DURABLE_QUEUE_URL.",
            queue,
            home,
            self._home.id,
            extra={"action": "message_foreign"},
        )
        raise ForeignMessage(home)
