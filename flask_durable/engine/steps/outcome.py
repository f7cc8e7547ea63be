"""Failures of steps, as they are stored and as they are raised again."""

from __future__ import annotations

from dataclasses import replace

from ...common.durations import format_seconds
from ...common.interruption import TimeoutInterrupt
from ...errors import Failure
from ...errors import StepError
from ...errors import StepInterrupted
from ...errors import StepTimeout
from ...errors import UnserializableResult
from ...serialization import UnserializableValue

_RAISED_AS: dict[str, type[StepError]] = {
    error.code: error for error in (StepTimeout, StepInterrupted)
}


def check_size(text: str, limit: int) -> None:
    """Check that a result may be kept.

    :param limit: Most bytes of a result, ``DURABLE_MAX_VALUE``.
    :raises UnserializableValue: The result is larger.
    """
    # A character has at most four bytes, so a short text need not be encoded.
    if len(text) * 4 > limit and len(text.encode()) > limit:
        raise UnserializableValue(
            "",
            f"is larger than the {limit} bytes that are kept of one.",
            "Store it elsewhere and return where it is, or set DURABLE_BLOB_URL.",
        )


def refused_by_server(text: str, error: BaseException) -> UnserializableValue:
    """Return the error of a result that the server refuses for its size.

    :param error: The error of the server or the client.
    """
    return UnserializableValue(
        "",
        f"of {len(text)} characters is refused by the state server: {error}.",
        "Store it elsewhere and return where it is, set DURABLE_BLOB_URL, or let the "
        "server take more (proto-max-bulk-len).",
    )


def failure_of(
    error: BaseException, step: str, attempt: int, timeout: float | None
) -> Failure:
    """Return the stored form of *error*, which an attempt of a step raised."""
    failure = Failure.of(error, step=step, attempt=attempt)
    if isinstance(error, TimeoutInterrupt):
        took = f"took longer than {format_seconds(timeout or 0)}"
        return replace(failure, type="StepTimeout", message=took, code=StepTimeout.code)
    if isinstance(error, UnserializableValue):
        return replace(
            failure, type="UnserializableResult", code=UnserializableResult.code
        )
    return failure


def error_of(step: str, failure: Failure, path: str = "") -> StepError:
    """Return the error that a step raises in the body for a stored failure."""
    if failure.code == UnserializableResult.code:
        return UnserializableResult(step, failure, path=path)
    return _RAISED_AS.get(failure.code, StepError)(step, failure)
