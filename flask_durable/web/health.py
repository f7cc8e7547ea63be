"""The HTTP routes that tell whether the app is up.

``GET <prefix>/healthz``
    200 while this process answers.
``GET <prefix>/readyz``
    200 while it can accept events, otherwise 503.
"""

from __future__ import annotations

import typing as t

from flask import Response

from ..app.state import AppState
from ..common.safe_logging import get_logger
from .http import json_response

logger = get_logger(__name__)


class HealthRoutes:
    """The views of the routes ``healthz`` and ``readyz`` of one app."""

    def __init__(self, state: AppState) -> None:
        self.state = state
        #: The problems of the last readiness check that were logged.
        self.logged: t.Sequence[str] = ()

    def healthz(self) -> Response:
        return json_response({"status": "ok"}, 200)

    def readyz(self) -> Response:
        try:
            problems = self.state.readiness.problems()
        except Exception:
            logger.exception(
                "The check for readiness failed.",
                extra={"action": "readiness_check_failed"},
            )
            problems = ["check failed"]
        if not problems:
            return json_response({"status": "ok"}, 200)
        # A probe may ask at any rate: the result of each check is logged once.
        if problems is not self.logged:
            self.logged = problems
            logger.warning(
                "This process is not ready: %s",
                "; ".join(problems),
                extra={"action": "not_ready"},
            )
        return json_response({"status": "unavailable"}, 503)
