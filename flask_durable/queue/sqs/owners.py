"""The tag of a queue on SQS that names the installation using it.

::

    queue without the tag ──► tagged by the first installation that declares it
    queue with it         ──► left as it is, also by another installation

Each message carries the installation too (``marks``), so nothing is lost where two
installations share a queue. The tag shows that before the first message does.
"""

from __future__ import annotations

from ...common.safe_logging import get_logger
from ..marks import Home
from .client import SQSClient

#: The key of the tag.
TAG = "durable:installation"

logger = get_logger(__name__)


class QueueOwners:
    """Reads and writes the tags of queues.

    :param home: The installation that this process is of; ``None`` writes no tag.
    """

    def __init__(self, home: Home | None) -> None:
        self._home = home
        self._refused = False

    def claim(self, client: SQSClient, url: str) -> None:
        """Tag the queue at *url* unless it has the tag.

        A call that is not allowed, or fails, is ignored: nothing depends on the tag.
        """
        if self._home is None or self._refused:
            return
        try:
            if not self._read(client, url) and (id := self._home.id):
                client.call("tag_queue", QueueUrl=url, Tags={TAG: id})
        except Exception as error:
            self._refused = True
            logger.warning(
                "Queues are not tagged with this installation: %s",
                error,
                extra={"action": "queue_not_tagged"},
            )

    def problem(self, client: SQSClient, url: str) -> str | None:
        """Return the problem if the queue at *url* is another installation's.

        :raises Exception: SQS, or the state server, does not answer.
        """
        if self._home is None:
            return None
        owner = self._read(client, url)
        if not owner or self._home.owns(owner):
            return None
        return (
            f"The queue {url.rpartition('/')[2]} is that of another deployment, the "
            f"installation {owner}, and this one is {self._home.id}. Give each its own "
            "DURABLE_NAMESPACE, or a prefix in DURABLE_QUEUE_URL. If it was this "
            "deployment with a state server that was emptied since, run "
            f'"flask durable dlq adopt {owner}".'
        )

    def _read(self, client: SQSClient, url: str) -> str:
        reply = client.call("list_queue_tags", QueueUrl=url)
        return str(reply.get("Tags", {}).get(TAG, ""))
