"""The checks of a signal before it is given to a run."""

from __future__ import annotations

import json
import typing as t

from ..common.ids import new_event_id
from ..errors import EventError
from .model import check_event_id
from .model import check_event_name

#: Bytes of JSON that a signal's data may have.
MAX_SIGNAL = 64 * 1024


def checked_signal(name: t.Any, data: t.Any, id: t.Any) -> tuple[str, str]:
    """Return the id and the data, as JSON text, of a signal that may be given to a run.

    :param id: The signal's id; ``None`` for a new one.
    :raises EventError: The name, the id or the data is not valid.
    """
    signal_id = new_event_id() if id is None else id
    problem = check_event_name(name) and f"its name {check_event_name(name)}"
    problem = problem or (check_event_id(signal_id) and "its id is malformed")
    text = ""
    try:
        text = json.dumps(data, allow_nan=False, separators=(",", ":"))
    except (TypeError, ValueError, RecursionError) as error:
        problem = problem or f"its data is not of JSON ({error})"
    if len(text) > MAX_SIGNAL:
        problem = problem or f"its data has {len(text)} bytes, not {MAX_SIGNAL} at most"
    if problem:
        raise EventError(f"The signal {name!r} is not valid: {problem}.")
    return signal_id, text
