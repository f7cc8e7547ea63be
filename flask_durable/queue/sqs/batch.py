"""Batches of SQS: the division of entries, and the outcome of each of them."""

from __future__ import annotations

import re
import typing as t

from ...messages import MessageRefused
from ..transport import Outcome
from ..transport import ReceiptLost
from ..transport import SendLimits
from .client import error_code
from .client import THROTTLED

#: The most entries of one batch call, and the most bytes.
SQS_BATCH = 10
MAX_BYTES = 2**20

#: The text of a dead letter whose message had none.
EMPTY = "(an empty message)"

LIMITS = SendLimits(SQS_BATCH, MAX_BYTES, coalesced=True)

_ILLEGAL = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_LOST = {"ReceiptHandleIsInvalid", "MessageNotInflight", "InvalidParameterValue"}

_ABOUT_MESSAGE = {
    "BatchRequestTooLong",
    "InvalidMessageContents",
    "InvalidParameterValue",
}

Entry = dict[str, t.Any]


class QueueRefused(Exception):
    """SQS refused one entry of a batch.

    :param code: The error code of SQS.
    :param final: True if SQS would refuse the entry again.
    """

    def __init__(self, code: str, message: str, final: bool = False) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.final = final


def refusals(entries: t.Sequence[Entry], reply: Entry) -> dict[str, Exception]:
    """Return the errors of entries that were not carried out, by their ids.

    The call answers 200 with a list of entries done and one of entries refused. An
    entry in neither list is not confirmed: another server on the way answered.
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
        # SQS calls throttling the sender's fault as well.
        final=bool(failed.get("SenderFault")) and failed.get("Code") not in THROTTLED,
    )


def outcome_of_receipt(error: Exception | None) -> Outcome:
    """Return *error*, as :class:`ReceiptLost` if the receipt is invalid."""
    if isinstance(error, QueueRefused) and error.code in _LOST:
        return ReceiptLost(str(error))
    return error


def is_repeatable(error: Exception | None) -> bool:
    """Return whether the same entry may be taken when it is sent again."""
    return isinstance(error, QueueRefused) and not error.final


def problem(body: str) -> MessageRefused | None:
    """Return the error if SQS would refuse *body*, and a whole batch with it."""
    if not body or _ILLEGAL.search(body):
        return MessageRefused(
            "the message is empty, or has characters that SQS refuses"
        )
    size = len(body.encode())
    if size > MAX_BYTES:
        return MessageRefused(f"it has {size} bytes, and SQS takes {MAX_BYTES}")
    return None


def is_about_message(error: Exception) -> bool:
    """Return whether SQS refused a call or an entry for the contents of a message.

    A queue may have a lower limit than SQS (``MaximumMessageSize``).
    """
    code = error.code if isinstance(error, QueueRefused) else error_code(error)
    return code.rpartition(".")[2] in _ABOUT_MESSAGE


def attributes_size(attributes: t.Mapping[str, str]) -> int:
    """Return the bytes that attributes of the type String add to a message."""
    return sum(
        len(f"{name}String{value}".encode()) for name, value in attributes.items()
    )


def storable(body: str | bytes, room: int) -> str:
    """Return *body* as SQS can store it; one that is too large is cut to *room* bytes.

    That changes only a body that could not be decoded, or is too large to be sent:
    otherwise it could be neither served nor put aside.
    """
    text = body if isinstance(body, str) else body.decode("utf-8", "replace")
    whole = legal(text).encode()
    cut = whole if len(whole) <= MAX_BYTES else whole[:room]
    return cut.decode("utf-8", "ignore") or EMPTY


def legal(text: str) -> str:
    """Return *text* with the characters replaced that SQS refuses."""
    return _ILLEGAL.sub("?", text)
