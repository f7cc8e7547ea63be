"""The HTTP route of a push worker, as Elastic Beanstalk's ``aws-sqsd`` calls it.

``POST <prefix>/worker``
    One message of a queue. The daemon deletes it after an answer of 200, and delivers
    it again after any other. So a message that can never succeed is answered 200 once
    it is in the dead-letter queue, and one that may succeed later 503.

    With the header ``X-Aws-Sqsd-Taskname`` it is a task of ``cron.yaml``: all work
    that is due is done. If the task has the name of a function with a schedule, this
    function is started as well.

``POST <prefix>/worker/<secret>``
    The same, for a caller that can send no header of its own, such as the daemon.

The route is closed until a setting says who may call it. A secret protects it. Where
the same machine is trusted instead, no header proves the origin: a proxy in between may
send any. So every mark of the daemon's own requests is asked for, and the documentation
says where that is enough.
"""

from __future__ import annotations

import time
import typing as t
from datetime import datetime
from datetime import UTC

from flask import Blueprint
from flask import request
from flask import Response

from ..app.state import AppState
from ..common.safe_logging import get_logger
from ..common.times import datetime_of
from ..events.acceptance import read_time
from ..security.keys import bearer_of
from ..security.keys import hash_event_key
from ..security.keys import matches_event_key
from .access import is_local
from .http import json_response
from .http import read_body
from .http import Refused
from .http import RETRY_AFTER_SECONDS

if t.TYPE_CHECKING:
    from ..worker.push.worker import PushWorker

#: Bytes that a body may have: the limit of a message of SQS.
MAX_MESSAGE_BODY = 2**20

logger = get_logger(__name__)


def add_push_route(blueprint: Blueprint, state: AppState) -> None:
    """Add the route to *blueprint*, for the app of *state*."""
    view = _Route(state)
    for rule in ("/worker", "/worker/<secret>"):
        blueprint.add_url_rule(rule, "worker", view.serve, methods=["POST"])


class _Route:
    def __init__(self, state: AppState) -> None:
        self.state = state
        settings = state.settings
        self.hashes = [hash_event_key(secret) for secret in settings.push_secrets]
        self.loopback = settings.push_loopback

    def serve(self, secret: str = "") -> Response:
        request.max_content_length = MAX_MESSAGE_BODY
        self._authorize(secret)
        until = time.monotonic() + self.state.settings.push_budget
        task = request.headers.get("X-Aws-Sqsd-Taskname", "")
        done = self._tick(task, until) if task else self._work(until)
        return json_response({"status": "done"}, 200) if done else _unavailable()

    def _work(self, until: float) -> bool:
        from ..worker.push.messages import PushedMessage

        message = PushedMessage(
            request.headers.get("X-Aws-Sqsd-Msgid", ""),
            read_body(MAX_MESSAGE_BODY),
            _receive_count(request.headers.get("X-Aws-Sqsd-Receive-Count", "")),
            source=request.headers.get("X-Aws-Sqsd-Queue", ""),
        )
        return not self._worker().handle([message], until)

    def _tick(self, task: str, until: float) -> bool:
        scheduled = request.headers.get("X-Aws-Sqsd-Scheduled-At", "")
        try:
            self._worker().tick(until, task, _instant(scheduled))
        except Exception as error:
            logger.warning(
                "The tick was not carried out: %s",
                error,
                exc_info=True,
                extra={"action": "tick_failed"},
            )
            return False
        return True

    def _worker(self) -> PushWorker:
        from ..worker.push.worker import push_worker

        return push_worker(self.state, lives_on=True)

    def _authorize(self, secret: str) -> None:
        shown = secret or bearer_of(request.headers.get("Authorization", ""))
        if matches_event_key(shown, self.hashes):
            return
        if secret:
            raise Refused(401, "The push secret in the path is not known here.")
        if self.loopback and is_local(request.environ) and _is_of_daemon():
            if not request.is_json:
                # A page of another origin cannot send this type without a preflight.
                raise Refused(415, "Send it with Content-Type: application/json.")
            return
        if self.hashes:
            raise Refused(401, "A valid push secret is required.")
        raise Refused(
            403,
            "This worker takes nothing from you. Configure DURABLE_PUSH_SECRETS; "
            "`flask durable secret --kind push` makes one. DURABLE_PUSH_LOOPBACK is "
            "for what the daemon aws-sqsd of this machine sends itself.",
        )


def _is_of_daemon() -> bool:
    """Return whether a request looks like those of ``aws-sqsd``."""
    headers = request.headers
    agent = headers.get("User-Agent", "")
    return agent.startswith("aws-sqsd/") and "X-Aws-Sqsd-Msgid" in headers


def _receive_count(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 1


def _instant(text: str) -> datetime | None:
    """Return the time of a task, in UTC if it names no zone; ``None`` if malformed."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    milliseconds, problem = read_time(moment.isoformat())
    return None if problem else datetime_of(milliseconds)


def _unavailable() -> Response:
    body = {"code": "unavailable", "message": "Deliver it again."}
    response = json_response(body, 503)
    response.headers["Retry-After"] = str(RETRY_AFTER_SECONDS)
    return response
