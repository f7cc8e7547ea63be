"""One delivery of an event: a POST, and the meaning of its answer.

===============================  ================================================
answer                           meaning
===============================  ================================================
2xx                              delivered
408, 425, 429, 5xx               tried again, not before its ``Retry-After``
any other, a redirect included   the receiver never takes this event
none, or one that breaks off     tried again
===============================  ================================================

The client is the standard library's, and each delivery has its own connection. Other
clients would keep connections, but write the whole address into the log, and a key in
it does not belong there. Only the status and ``Retry-After`` of the answer are passed
on: the rest could repeat the key. So could the text of an error of the client.
"""

from __future__ import annotations

import contextlib
import http
import http.client
import math
import time
import typing as t
from email.utils import parsedate_to_datetime

from ..current import current_run
from ..errors import NonRetriable
from ..errors import RetryAfter
from ..events.model import Event
from ..functions.retries import Backoff
from .destination import EventReceiver

#: Most bytes of an answer that are read, so that the receiver can write it to its end.
MAX_ANSWER = 65_536

#: Most seconds that a receiver may ask for.
MAX_RETRY_AFTER = 3600.0

_LATER = {408, 425, 429}


def deliver(
    receiver: EventReceiver, event: Event[t.Any], *, timeout: float, backoff: Backoff
) -> int:
    """Send *event* to *receiver*, in a step.

    :param timeout: Seconds for connecting, sending and the answer together. Only an
        answer in many small parts can take longer: the step's own timeout ends it.
    :param backoff: The shortest delays before the next attempt.
    :returns: The status of the answer.
    :raises RetryAfter: The receiver did not take it, but may later.
    :raises NonRetriable: The receiver never takes it.
    """
    status, wait, problem = 0, "", ""
    try:
        status, wait = _post(receiver, event, timeout)
    except (OSError, http.client.HTTPException) as error:
        # No error is raised in here: it would carry this one with it.
        problem = f"did not answer: {type(error).__name__}"
    if 200 <= status < 300:
        return status
    problem = f"{receiver} {problem or f'answered {status} {_phrase(status)}'}."
    if status and status not in _LATER and not 500 <= status < 600:
        raise NonRetriable(problem)
    step = current_run.step
    assert step is not None, "a delivery is a step"
    raise RetryAfter(max(backoff.delay(step.attempt), _seconds_of(wait)), problem)


def _post(
    receiver: EventReceiver, event: Event[t.Any], timeout: float
) -> tuple[int, str]:
    body, headers = receiver.request_of(event, time.time())
    deadline = time.monotonic() + timeout
    connection = receiver.connection(timeout)
    try:
        connection.connect()
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        connection.sock.settimeout(left)
        connection.request("POST", receiver.path, body, headers)
        # The connection may belong to the answer by now, and end with it.
        with connection.getresponse() as response:
            answer = response.read(MAX_ANSWER)
            if response.length and len(answer) < MAX_ANSWER:
                raise http.client.IncompleteRead(answer, response.length)
            return response.status, response.headers.get("Retry-After", "")
    finally:
        connection.close()


def _phrase(status: int) -> str:
    try:
        return http.HTTPStatus(status).phrase
    except ValueError:
        return "with an unknown status"


def _seconds_of(retry_after: str) -> float:
    """Return the seconds that a ``Retry-After`` asks for, from now."""
    seconds = 0.0
    with contextlib.suppress(ValueError, OverflowError):
        seconds = float(retry_after)
    if not seconds:
        with contextlib.suppress(ValueError, TypeError, OverflowError):
            seconds = parsedate_to_datetime(retry_after).timestamp() - time.time()
    return min(max(seconds, 0.0), MAX_RETRY_AFTER) if math.isfinite(seconds) else 0.0
