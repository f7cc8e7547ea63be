"""Batches of SQS: how entries are divided, and what is said about each of them."""

from __future__ import annotations

import re
import typing as t

from .sqs_client import THROTTLED
from .transport import Outcome
from .transport import ReceiptLost
from .transport import SendLimits

#: Entries and bytes of one batch call.
BATCH = 10
MAX_BYTES = 2**20
LIMITS = SendLimits(BATCH, MAX_BYTES, coalesced=True)

_ILLEGAL = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_LOST = {"ReceiptHandleIsInvalid", "MessageNotInflight", "InvalidParameterValue"}

Entry = dict[str, t.Any]


class QueueRefused(Exception):
    """SQS refused one entry of a batch.

    :param code: Its error code.
    :param final: Whether it would refuse the entry again.
    """

    def __init__(self, code: str, message: str, final: bool = False) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.final = final


def refusals(entries: t.Sequence[Entry], reply: Entry) -> dict[str, Exception]:
    """Return why entries of a batch call were not carried out, by their ids.

    The call answers 200 with what was done and what was not. An entry that is in
    neither list is not confirmed: something between here and SQS answered.
    """
    failed = {entry["Id"]: _refusal(entry) for entry in reply.get("Failed") or ()}
    done = {entry["Id"] for entry in reply.get("Successful") or ()}
    unconfirmed = {entry["Id"] for entry in entries} - done - failed.keys()
    return {**{id: _unconfirmed() for id in unconfirmed}, **failed}


def _unconfirmed() -> QueueRefused:
    return QueueRefused("NotConfirmed", "the answer does not say that it was done")


def _refusal(failed: Entry) -> QueueRefused:
    return QueueRefused(
        code=failed.get("Code", "unknown"),
        message=failed.get("Message", ""),
        # Throttling is called the sender's fault as well.
        final=bool(failed.get("SenderFault")) and failed.get("Code") not in THROTTLED,
    )


def outcome_of_receipt(error: Exception | None) -> Outcome:
    """Return *error* as :class:`ReceiptLost` if the receipt is what is wrong."""
    if isinstance(error, QueueRefused) and error.code in _LOST:
        return ReceiptLost(str(error))
    return error


def is_repeatable(error: Exception | None) -> bool:
    """Return whether the same entry may be taken when it is sent again."""
    return isinstance(error, QueueRefused) and not error.final


def problem(body: str) -> Exception | None:
    """Return why SQS would refuse *body*; one such refuses a whole batch."""
    if not body or _ILLEGAL.search(body):
        return ValueError("the message is empty, or has characters that SQS refuses")
    if len(body.encode()) > MAX_BYTES:
        return ValueError(f"the message has more than {MAX_BYTES} bytes")
    return None


def legal(text: str) -> str:
    """Return *text* with what SQS refuses replaced."""
    return _ILLEGAL.sub("?", text)
