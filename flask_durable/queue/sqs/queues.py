"""The queues on SQS: their names, their URLs, and their making.

::

    DURABLE_QUEUES names it ──► its URL; its dead letters are where its redrive policy
                                says. Nothing is made, and no name is looked up.
    otherwise it exists     ──► taken as it is
    otherwise               ──► made, with its dead-letter queue; or an error, if
                                nothing may be made

A queue that exists is never changed, except for a tag (``owners``). Two processes
may make one queue at the same time: the second finds it made, perhaps with other
attributes, and takes it.
"""

from __future__ import annotations

import copy
import json
import math
import re
import typing as t
import zlib

from ...common.safe_logging import get_logger
from ...errors import ConfigurationError
from .client import error_code
from .client import EXISTS
from .client import LONGEST_POLL
from .client import MISSING
from .client import SQSClient
from .options import FIFO_SUFFIX
from .options import QueueOptions
from .options import Queues
from .options import SQSAddress
from .owners import QueueOwners

#: The most characters of a queue's name, its endings included.
MAX_NAME = 80

#: The ending of a dead-letter queue's name.
DEAD = "-dlq"

#: Seconds that messages and dead letters are kept.
RETENTION_SECONDS = 7 * 86400
DEAD_LETTERS_KEPT_SECONDS = 14 * 86400

logger = get_logger(__name__)


class SQSQueues:
    """Finds and makes the queues of one namespace.

    :param client: The client that makes the calls.
    :param address: The prefix of the names, and the options for making queues.
    :param namespace: The prefix of their names, unless *address* has one.
    :param options: The options in ``DURABLE_QUEUES``, by logical name.
    :param visibility: Seconds that a received message is hidden, unless a queue has its
        own.
    :param max_receives: The number of receives after which SQS dead-letters a message,
        unless a queue has its own.
    :param owners: The tags that name the queues' installations.
    """

    def __init__(
        self,
        client: SQSClient,
        address: SQSAddress,
        *,
        namespace: str,
        options: Queues,
        visibility: float,
        max_receives: int,
        owners: QueueOwners,
    ) -> None:
        self.client = client
        self._owners = owners
        self._address = address
        self._prefix = address.prefix or namespace
        self._options = options
        self._visibility = visibility
        self._max_receives = max_receives
        self._urls: dict[str, str] = {}
        self._dead_urls: dict[str, str] = {}
        self._allowed_receives: dict[str, int] = {}

    def name(self, queue: str, ending: str = "") -> str:
        """Return the name in SQS of *queue*, or of its dead-letter queue.

        Characters that SQS does not take become ``_``; a short digest then keeps names
        apart that would become equal.

        :param ending: :data:`DEAD` for its dead-letter queue.
        """
        whole = f"{self._prefix}-{queue}"
        name = re.sub(r"[^A-Za-z0-9_-]", "_", whole)
        last = FIFO_SUFFIX if self.is_fifo(queue) else ""
        room = MAX_NAME - len(DEAD) - len(last)
        if name != whole or len(name) > room:
            name = f"{name[: room - 9]}-{zlib.crc32(whole.encode()):08x}"
        return name + ending + last

    def name_of(self, queue: str) -> str:
        """Return the name in SQS of *queue*, also if ``DURABLE_QUEUES`` has its URL."""
        place = self._of(queue).queue
        return re.split("[:/]", place)[-1] if place else self.name(queue)

    def is_fifo(self, queue: str) -> bool:
        """Return whether *queue* is a FIFO queue."""
        return self._of(queue).is_fifo

    def visibility(self, queue: str) -> int:
        """Return the seconds that a message received from *queue* is hidden."""
        seconds = self._of(queue).visibility or self._visibility
        return max(1, math.ceil(seconds))

    def max_receives(self, queue: str) -> int:
        """Return the number of receives of a message of *queue* before it is dead.

        Not more than SQS allows, once the queue was declared: SQS would move it without
        a reason.
        """
        wanted = self._of(queue).max_receives or self._max_receives
        return min(wanted, self._allowed_receives.get(queue, wanted))

    def asking(self, client: SQSClient) -> SQSQueues:
        """Return the same queues, found and made by calls of *client*."""
        same = copy.copy(self)  # the URLs that were found are shared
        same.client = client
        return same

    def url(self, queue: str) -> str:
        """Return the URL of *queue*, which is made if it does not exist.

        :raises ConfigurationError: The queue does not exist, and none may be made.
        """
        # Read once: another thread may forget it.
        url = self._urls.get(queue)
        if url is None:
            place = self._of(queue).queue
            url = self._at(place) if place else self._find(self.name(queue))
            url = self._urls[queue] = url or self._make_pair(queue)
        return url

    def find(self, queue: str) -> str | None:
        """Return the URL of *queue*, or ``None`` if it does not exist."""
        place = self._of(queue).queue
        known = self._urls.get(queue) or (self._at(place) if place else None)
        return known or self._find(self.name(queue))

    def dead_url(self, queue: str) -> str:
        """Return the URL of the dead-letter queue of *queue*, made if need be.

        :raises ConfigurationError: There is no such queue, and none may be made.
        """
        place = self._of(queue).queue
        url = self.find_dead(queue)
        if url is None and place is not None:
            raise ConfigurationError(
                f"The queue {place} has no dead-letter queue.",
                hint="Give it a redrive policy.",
            )
        if url is None:
            url = self._dead_urls[queue] = self._make_dead(queue)
        return url

    def find_dead(self, queue: str) -> str | None:
        """Return the URL of the dead-letter queue of *queue*, ``None`` without one."""
        url = self._dead_urls.get(queue)
        if url is None and self._of(queue).queue is None:
            url = self._find(self.name(queue, DEAD))
        elif url is None:
            arn = self._redrive_policy(self.url(queue)).get("deadLetterTargetArn")
            url = self._at(arn) if arn else None
        if url is not None:
            self._dead_urls[queue] = url
        return url

    def declare(self, queue: str) -> None:
        """Make *queue* and its dead-letter queue unless they exist.

        :raises ConfigurationError: A queue does not exist, and none may be made.
        """
        url = self.url(queue)
        policy = self._redrive_policy(url)
        if policy:
            # Depending on its maker it is a number, or a text with one.
            self._allowed_receives[queue] = int(policy["maxReceiveCount"])
        else:
            logger.warning(
                "The queue %s exists without a redrive policy: a message that cannot "
                "be processed is received again until it expires",
                url,
                extra={"action": "queue_without_redrive"},
            )
        self._owners.claim(self.client, url)

    def forget(self, queue: str) -> None:
        """Look for *queue* again: it is no longer where it was."""
        for known in (self._urls, self._dead_urls, self._allowed_receives):
            known.pop(queue, None)

    def _of(self, queue: str) -> QueueOptions:
        return self._options.get(queue) or _DEFAULT

    def _make_pair(self, queue: str) -> str:
        options, dead = self._of(queue), self.dead_url(queue)
        found = self.client.call(
            "get_queue_attributes", QueueUrl=dead, AttributeNames=["QueueArn"]
        )
        policy = {
            "deadLetterTargetArn": found["Attributes"]["QueueArn"],
            "maxReceiveCount": self.max_receives(queue),
        }
        url = self._make(
            self.name(queue),
            MessageRetentionPeriod=math.ceil(options.retention or RETENTION_SECONDS),
            ReceiveMessageWaitTimeSeconds=LONGEST_POLL,
            RedrivePolicy=json.dumps(policy),
            VisibilityTimeout=self.visibility(queue),
        )
        self._owners.claim(self.client, url)
        return url

    def _make_dead(self, queue: str) -> str:
        return self._make(
            self.name(queue, DEAD), MessageRetentionPeriod=DEAD_LETTERS_KEPT_SECONDS
        )

    def _make(self, name: str, **attributes: str | int) -> str:
        if not self._address.create:
            raise ConfigurationError(
                f"There is no queue {name} on SQS, and DURABLE_QUEUE_URL says "
                "create=never.",
                hint="Create it, or say in DURABLE_QUEUES which queue it is.",
            )
        if name.endswith(FIFO_SUFFIX):
            attributes["FifoQueue"] = "true"
        if self._address.kms_key:
            attributes["KmsMasterKeyId"] = self._address.kms_key
        else:
            attributes["SqsManagedSseEnabled"] = "true"
        more = {"tags": dict(self._address.tags)} if self._address.tags else {}
        texts = {key: str(value) for key, value in attributes.items()}
        try:
            reply = self.client.call(
                "create_queue", QueueName=name, Attributes=texts, **more
            )
        except Exception as error:
            if error_code(error) not in EXISTS:
                raise
            # Another process has just made it, with other attributes.
            reply = self.client.call("get_queue_url", QueueName=name)
        return str(reply["QueueUrl"])

    def _find(self, name: str) -> str | None:
        # Looked for first: a worker may lack the permission to make queues.
        try:
            reply = self.client.call("get_queue_url", QueueName=name)
        except Exception as error:
            if error_code(error) in MISSING:
                return None
            raise
        return str(reply["QueueUrl"])

    def _redrive_policy(self, url: str) -> dict[str, t.Any]:
        reply = self.client.call(
            "get_queue_attributes", QueueUrl=url, AttributeNames=["RedrivePolicy"]
        )
        text = reply.get("Attributes", {}).get("RedrivePolicy", "{}")
        return t.cast("dict[str, t.Any]", json.loads(text))

    def _at(self, place: str) -> str:
        """Return the URL of the queue that a URL or an ARN names."""
        if not place.startswith("arn:"):
            return place
        region, account, name = place.split(":")[3:]
        meta = self.client.get().meta
        if region != meta.region_name:
            raise ConfigurationError(
                f"The queue {place} is not in the region {meta.region_name}.",
                hint="Give the region in DURABLE_QUEUE_URL: all queues are in one.",
            )
        return f"{meta.endpoint_url.rstrip('/')}/{account}/{name}"


_DEFAULT = QueueOptions()
