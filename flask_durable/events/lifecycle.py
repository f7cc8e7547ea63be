"""The events that Flask-Durable sends itself when a run ends.

They are sent only if a function names them in its ``on=``, and not about runs that such
an event started: a function that listens to failures cannot set itself off.
"""

from __future__ import annotations

import typing as t

from .model import EventData


class FunctionFinished(EventData, name="durable/function.finished"):
    """A run ended, however it did.

    :param function_id: The function's id.
    :param run_id: The run's id.
    :param status: ``completed``, ``failed`` or ``cancelled``.
    :param event: The event that the run was created for: name, data, id, at.
    :param result: The function's result, as JSON gives it back; ``None`` if that has
        more than 64 KiB. The run has it.
    :param failure: The fields of :class:`~flask_durable.Failure`, if it failed.
    """

    function_id: str
    run_id: str
    status: str
    event: dict[str, t.Any]
    result: t.Any = None
    failure: dict[str, t.Any] | None = None


class FunctionFailed(FunctionFinished, name="durable/function.failed"):
    """A run ended as failed. The fields are those of :class:`FunctionFinished`."""


class FunctionCancelled(FunctionFinished, name="durable/function.cancelled"):
    """A run was cancelled. The fields are those of :class:`FunctionFinished`."""
