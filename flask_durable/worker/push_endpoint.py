"""The HTTP routes of a push worker, as Elastic Beanstalk's ``aws-sqsd`` calls them.

``POST <prefix>/worker``
    One message of a queue. 200, and the daemon deletes it; anything else, and it
    delivers it again. So what can never succeed is answered 200, once it is in the
    dead-letter queue, and what may succeed later 503.
``POST <prefix>/worker/tick``
    Do what is due: a task of ``cron.yaml``. Of one whose name is that of a function
    with a schedule, this function is started as well.

Both are closed until it is said who may call them.
"""

from __future__ import annotations

import logging
import time
import typing as t
from datetime import datetime
from datetime import UTC

from flask import Blueprint
from flask import request
from flask import Response

from ..app_state import AppState
from ..events.acceptance import read_time
from ..events.access import is_local
from ..events.batch import Refused
from ..events.http import json_response
from ..events.http import read_body
from ..events.http import RETRY_AFTER
from ..events.keys import hash_event_key
from ..events.keys import matches_event_key

if t.TYPE_CHECKING:
    from .push import PushWorker

#: Bytes of a body: as many as a message of SQS may have.
MAX_BODY = 2**20

logger = logging.getLogger(__name__)


def add_push_routes(blueprint: Blueprint, state: AppState) -> None:
    """Add the routes to *blueprint*, for the app of *state*."""
    routes = _Routes(state)
    blueprint.add_url_rule("/worker", "worker", routes.work, methods=["POST"])
    blueprint.add_url_rule("/worker/tick", "tick", routes.tick, methods=["POST"])


class _Routes:
    def __init__(self, state: AppState) -> None:
        self.state = state
        settings = state.settings
        self.hashes = [hash_event_key(secret) for secret in settings.push_secrets]
        self.loopback = settings.push_loopback

    def work(self) -> Response:
        from .push import PushedMessage

        until = self._authorized_until()
        message = PushedMessage(
            request.headers.get("X-Aws-Sqsd-Msgid", ""),
            read_body(MAX_BODY),
            _receive_count(request.headers.get("X-Aws-Sqsd-Receive-Count", "")),
        )
        failed = self._worker().handle([message], until)
        return _unavailable() if failed else json_response({"status": "done"}, 200)

    def tick(self) -> Response:
        until = self._authorized_until()
        name = request.headers.get("X-Aws-Sqsd-Taskname", "")
        scheduled = request.headers.get("X-Aws-Sqsd-Scheduled-At", "")
        try:
            self._worker().tick(until, name, _instant(scheduled))
        except Exception as error:
            logger.warning("The tick was not carried out: %s", error, exc_info=True)
            return _unavailable()
        return json_response({"status": "done"}, 200)

    def _worker(self) -> PushWorker:
        from .push import push_worker

        return push_worker(self.state, lives_on=True)

    def _authorized_until(self) -> float:
        """Return when the time of the request is over, if it may be made at all."""
        request.max_content_length = MAX_BODY
        self._authorize()
        return time.monotonic() + self.state.settings.push_budget

    def _authorize(self) -> None:
        scheme, _, secret = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() == "bearer" and matches_event_key(
            secret.strip(), self.hashes
        ):
            return
        if self.loopback and _comes_from_here():
            if not request.is_json:
                # A page of another origin cannot send this type without being asked.
                raise Refused(415, "Send it with Content-Type: application/json.")
            return
        if self.hashes:
            raise Refused(401, "A valid push secret is required.")
        raise Refused(
            403,
            "This worker takes nothing from you. Configure DURABLE_PUSH_LOOPBACK for "
            "requests of the same machine, or DURABLE_PUSH_SECRETS; `flask durable "
            "secret --kind push` makes one.",
        )


def _comes_from_here() -> bool:
    # What the connection says, not what a header says of it, also where ProxyFix has
    # replaced the one by the other.
    original = request.environ.get("werkzeug.proxy_fix.orig", request.environ)
    return is_local(original.get("REMOTE_ADDR"), original.get("HTTP_HOST") or "")


def _receive_count(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 1


def _instant(text: str) -> datetime | None:
    """Return the time of a task, without a zone in UTC; ``None`` if it is none."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    milliseconds, problem = read_time(moment.isoformat())
    return None if problem else datetime.fromtimestamp(milliseconds / 1000, UTC)


def _unavailable() -> Response:
    body = {"code": "unavailable", "message": "Deliver it again."}
    response = json_response(body, 503)
    response.headers["Retry-After"] = str(RETRY_AFTER)
    return response
