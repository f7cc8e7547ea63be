"""The envelopes that a local server got from Sentry's SDK."""

from __future__ import annotations

import gzip
import json
import typing as t

from ..forwarding.receiver import Receiver
from ..support.servers import wait_until
from .sites import TIMEOUT

Item = dict[str, t.Any]


class Envelopes:
    """The envelopes that came to *receiver*; transactions by their starts."""

    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver
        self.dsn = f"http://key@127.0.0.1:{receiver.port}/1"

    @property
    def transactions(self) -> list[Item]:
        found = self._items("transaction")
        return sorted(found, key=lambda item: t.cast(str, item["start_timestamp"]))

    @property
    def issues(self) -> list[Item]:
        return self._items("event")

    @property
    def check_ins(self) -> list[Item]:
        return self._items("check_in")

    def named(self, name: str, trace: str | None = None) -> list[Item]:
        """Return the transactions with this name."""
        return [
            item
            for item in self.transactions
            if item["transaction"] == name and trace in (None, trace_of(item))
        ]

    def have(self, name: str, count: int) -> list[Item]:
        """Wait until there are *count* transactions with this name."""
        what = f"{count} transactions {name}"
        wait_until(lambda: len(self.named(name)) >= count, what, TIMEOUT)
        return self.named(name)

    def have_issues(self, count: int) -> list[Item]:
        """Wait until there are *count* issues: each is sent on its own."""
        what = f"{count} issues"
        wait_until(lambda: len(self.issues) >= count, what, TIMEOUT)
        return self.issues

    def _items(self, kind: str) -> list[Item]:
        found = []
        for delivery in list(self._receiver.deliveries):
            content = delivery.body
            if delivery.headers["Content-Encoding"] == "gzip":
                content = gzip.decompress(content)
            lines = content.split(b"\n")
            for head, body in zip(lines[1::2], lines[2::2], strict=False):
                if json.loads(head)["type"] == kind:
                    found.append(json.loads(body))
        return found


def trace_of(item: Item) -> str:
    return t.cast(str, item["contexts"]["trace"]["trace_id"])


def spans_of(item: Item, op: str) -> list[Item]:
    return [span for span in item["spans"] if span["op"] == op]
