"""Plays Elastic Beanstalk's daemon: receives from SQS, posts, and obeys the answer.

Exactly 200 deletes a message. Any other answer makes it visible again after a moment,
and no answer leaves it hidden until its visibility timeout is over.
"""

from __future__ import annotations

import typing as t
import urllib.error
import urllib.request

import boto3
from flask import Flask

from flask_durable.messages import EVENT_QUEUE

from ...support.servers import SQSServer

#: Posts to a path; returns the status, or ``None`` if there was no answer.
Post = t.Callable[[str, dict[str, str], bytes], int | None]

#: The path that the daemon posts to.
PATH = "/durable/worker"

AGENT = {"User-Agent": "aws-sqsd/3.0", "Content-Type": "application/json"}


def to_app(app: Flask) -> Post:
    """Return a function that posts to *app* in this process."""

    def post(path: str, headers: dict[str, str], body: bytes) -> int:
        client = app.test_client()
        return client.post(path, headers=headers, data=body).status_code

    return post


def to_address(base: str, inactivity: float = 60.0) -> Post:
    """Return a function that posts to the server at *base*.

    :param inactivity: Seconds to wait for an answer.
    """

    def post(path: str, headers: dict[str, str], body: bytes) -> int | None:
        request = urllib.request.Request(base + path, body, headers, method="POST")
        try:
            with urllib.request.urlopen(request, timeout=inactivity) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code
        except OSError:
            return None

    return post


class Daemon:
    """The daemons of several environments, one for each queue.

    :param post: The function that posts a message.
    :param prefix: The prefix of the queues' names.
    :param queues: The queues, as the app calls them.
    :param visibility: Seconds that a message without an answer is hidden.
    """

    def __init__(
        self,
        sqs: SQSServer,
        post: Post,
        prefix: str,
        *,
        queues: t.Sequence[str] = (EVENT_QUEUE, "default"),
        visibility: int = 30,
    ) -> None:
        self.client = boto3.client("sqs", endpoint_url=sqs.endpoint)
        self.post = post
        self.prefix = prefix
        self.queues = queues
        self.visibility = visibility
        #: The statuses of all answers so far.
        self.answers: list[int | None] = []

    def url(self, queue: str) -> str:
        """Return the address of a queue, which is made as Elastic Beanstalk would."""
        name = f"{self.prefix}-{queue}"
        return str(self.client.create_queue(QueueName=name)["QueueUrl"])

    def send(self, body: str, queue: str = EVENT_QUEUE) -> None:
        """Put any text into a queue."""
        self.client.send_message(QueueUrl=self.url(queue), MessageBody=body)

    def receive(self, queue: str) -> list[dict[str, t.Any]]:
        return t.cast(
            "list[dict[str, t.Any]]",
            self.client.receive_message(
                QueueUrl=self.url(queue),
                MaxNumberOfMessages=1,
                VisibilityTimeout=self.visibility,
                WaitTimeSeconds=0,
                MessageSystemAttributeNames=["All"],
            ).get("Messages", []),
        )

    def deliver(self, queue: str, *, times: int = 1) -> bool:
        """Deliver the next message of *queue*, if there is one.

        :param times: The number of deliveries, as if the answers were lost.
        """
        for message in self.receive(queue):
            status: int | None = None
            for _ in range(times):
                status = self.post(PATH, headers_of(message), body(message))
                self.answers.append(status)
            self.settle(queue, message, status)
            return True
        return False

    def settle(self, queue: str, message: dict[str, t.Any], status: int | None) -> None:
        handle = {
            "QueueUrl": self.url(queue),
            "ReceiptHandle": message["ReceiptHandle"],
        }
        if status == 200:
            self.client.delete_message(**handle)
        elif status is not None:
            self.client.change_message_visibility(**handle, VisibilityTimeout=0)

    def round(self, **options: t.Any) -> int:
        """Deliver one message of each queue; return how many there were."""
        return sum(self.deliver(queue, **options) for queue in self.queues)

    def drain(self, **options: t.Any) -> None:
        """Deliver until every queue is empty."""
        for _ in range(500):
            if not self.round(**options):
                return
        raise AssertionError("the queues never get empty")

    def task(self, name: str, scheduled: str) -> int | None:
        """Post a task of ``cron.yaml``."""
        headers = {
            **AGENT,
            "X-Aws-Sqsd-Msgid": "task-1",
            "X-Aws-Sqsd-Receive-Count": "1",
            "X-Aws-Sqsd-Taskname": name,
            "X-Aws-Sqsd-Scheduled-At": scheduled,
            "X-Aws-Sqsd-Sender-Id": "AIDA",
        }
        return self.post(PATH, headers, b"elasticbeanstalk scheduled job")

    def left(self) -> int:
        """Return the number of messages in the queues, hidden ones included."""
        names = [
            "ApproximateNumberOfMessages",
            "ApproximateNumberOfMessagesNotVisible",
        ]
        found = [
            self.client.get_queue_attributes(
                QueueUrl=self.url(queue), AttributeNames=names
            )["Attributes"]
            for queue in self.queues
        ]
        return sum(int(each[name]) for each in found for name in names)

    def dead(self, queue: str = EVENT_QUEUE) -> list[tuple[str, str]]:
        """Return bodies and reasons of the dead letters of a queue."""
        messages = self.client.receive_message(
            QueueUrl=self.url(f"{queue}-dlq"),
            MaxNumberOfMessages=10,
            VisibilityTimeout=0,
            MessageAttributeNames=["All"],
        ).get("Messages", [])
        return [
            (each["Body"], each["MessageAttributes"]["reason"]["StringValue"])
            for each in messages
        ]


def headers_of(message: dict[str, t.Any]) -> dict[str, str]:
    return {
        **AGENT,
        "X-Aws-Sqsd-Msgid": message["MessageId"],
        "X-Aws-Sqsd-Queue": "queue",
        "X-Aws-Sqsd-First-Received-At": "2026-01-01T00:00:00Z",
        "X-Aws-Sqsd-Receive-Count": message["Attributes"]["ApproximateReceiveCount"],
    }


def body(message: dict[str, t.Any]) -> bytes:
    return str(message["Body"]).encode()
