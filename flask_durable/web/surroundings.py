"""The app around our routes: its rules for hosts, its hooks, its errors.

A request to one of our routes passes through the app like any other:

1. Flask looks for the route. If the app has rules for hosts (``TRUSTED_HOSTS``,
   ``host_matching``, ``subdomain_matching``), it finds none for a health check by
   address, or for a daemon that says ``localhost``. Our routes check credentials and
   not the host, so they are found all the same.
2. Hooks of the app run, and may answer: a redirect to a login page, a limit. That is
   the app's right, and seldom its wish. So it is logged once for each route and status.
3. The route answers, or :class:`Surroundings` answers an error as JSON, also if the app
   has a handler for it that makes HTML.
4. Hooks of the app run again, and may change the answer. That is logged as well.
"""

from __future__ import annotations

import typing as t

from flask import Blueprint
from flask import current_app
from flask import Flask
from flask import request
from flask import request_finished
from flask import request_started
from flask import Response
from werkzeug.exceptions import default_exceptions
from werkzeug.exceptions import HTTPException
from werkzeug.exceptions import InternalServerError
from werkzeug.exceptions import NotFound
from werkzeug.exceptions import SecurityError
from werkzeug.exceptions import ServiceUnavailable
from werkzeug.routing import Map
from werkzeug.routing import Rule

from ..common.safe_logging import get_logger
from ..errors import ConfigurationError
from .http import RETRY_AFTER_SECONDS

#: The key of a request's WSGI environment with the status of the route, 0 at first.
_STATUS = "flask_durable.status"

_PACKAGE = __package__.partition(".")[0]

logger = get_logger(__name__)


class Surroundings:
    """Keeps the app's rules for its own pages from a blueprint's routes, or logs them.

    :param is_ours: A callable that tells if a route of the blueprint could have a path.
    :param answer: A callable that makes an answer of an error.
    """

    def __init__(
        self,
        blueprint: Blueprint,
        is_ours: t.Callable[[str], bool],
        answer: t.Callable[[HTTPException], Response],
    ) -> None:
        self._blueprint = blueprint
        self._is_ours = is_ours
        self._answer = answer
        self._told: set[tuple[str | None, int]] = set()
        self._routes: tuple[Map, dict[str, Rule]] | None = None

    @classmethod
    def install(
        cls,
        blueprint: Blueprint,
        is_ours: t.Callable[[str], bool],
        answer: t.Callable[[HTTPException], Response],
    ) -> None:
        """Answer for *blueprint*, and exempt it from checks for cookies."""
        self = cls(blueprint, is_ours, answer)
        blueprint.record_once(lambda state: self._begin(t.cast(Flask, state.app)))
        blueprint.before_app_request(self.answer_routing_error)
        # A blueprint's hooks run next to the route: after the app's before it, and
        # before the app's after it.
        blueprint.before_request(_note_begin)
        blueprint.after_request(_note_answer)
        blueprint.register_error_handler(HTTPException, answer)
        for status in default_exceptions:
            # Otherwise a handler of the app for one status would come first.
            blueprint.register_error_handler(status, answer)
        blueprint.register_error_handler(ConfigurationError, self._answer_unconfigured)
        blueprint.register_error_handler(Exception, self._answer_crash)

    def answer_routing_error(self) -> Response | None:
        """Answer an error from before a route of ours is found, such as a wrong method.

        Flask gives such errors to the app's handlers only, which may make HTML of them.
        """
        # Flask-WTF may have been set up after this blueprint was registered.
        exempt_from_csrf(current_app, self._blueprint)
        error = request.routing_exception
        if (
            error is None
            or (error.code or 500) < 400
            or not self._is_ours(request.path)
        ):
            return None
        return self._answer(error)

    def _answer_crash(self, error: Exception) -> Response:
        # Flask would log the path, and with it the key that may be there.
        logger.error(
            "A request to %s failed.",
            request.endpoint,
            exc_info=error,
            extra={"action": "request_failed"},
        )
        return self._answer(InternalServerError("Something went wrong here."))

    def _answer_unconfigured(self, error: ConfigurationError) -> Response:
        # Nothing was begun, and the fix may be on its way: a server that is to start.
        # Without the traceback: the variables of its frames are the request.
        logger.error(
            "A request to %s was not served: %s",
            request.endpoint,
            error,
            extra={"action": "not_configured"},
        )
        away = ServiceUnavailable(
            "Send it again later.", retry_after=RETRY_AFTER_SECONDS
        )
        return self._answer(away)

    def _begin(self, app: Flask) -> None:
        exempt_from_csrf(app, self._blueprint)
        # Bound methods are held weakly; the app's hooks hold this object.
        request_started.connect(self._find_route, app)
        request_finished.connect(self._look_at_answer, app)

    def _find_route(self, app: Flask, **_: object) -> None:
        """Let a request reach its route if only the app's rules for hosts prevent it.

        Before any hook runs: they see the blueprint's name as ever.
        """
        error = request.routing_exception
        by_host = isinstance(error, (NotFound, SecurityError))
        if by_host and request.method != "OPTIONS" and (found := self._match(app)):
            request.routing_exception = None
            request.url_rule, request.view_args = found
        rule = request.url_rule
        if rule and rule.arguments and request.blueprint == self._blueprint.name:
            # A key or a secret may be in the path. Flask logs the path if a hook of the
            # app raises, and hooks log it themselves.
            request.path = rule.rule

    def _match(self, app: Flask) -> tuple[Rule, dict[str, t.Any]] | None:
        if self._routes is None:
            self._routes = _without_hosts(app, self._blueprint.name)
        routes, rules = self._routes
        try:
            number, arguments = routes.bind("").match(request.path, request.method)
        except HTTPException:
            return None
        return rules[number], dict(arguments)

    def _look_at_answer(self, app: Flask, response: Response, **_: object) -> None:
        if request.blueprint != self._blueprint.name or request.method == "OPTIONS":
            return
        noted = request.environ.get(_STATUS)
        if noted == response.status_code:
            return
        about = request.endpoint, response.status_code
        if about in self._told:
            return
        self._told.add(about)
        if noted is None:
            _warn_of_hooks(app, self._blueprint.name, response)
        else:
            logger.warning(
                "The answer of %s was changed by the app from %s to %s: by an "
                "after_request hook. Have it leave requests alone whose "
                "request.blueprint is %r.",
                request.endpoint,
                noted,
                response.status,
                self._blueprint.name,
                extra={"action": "answer_changed"},
            )


def exempt_from_csrf(app: t.Any, blueprint: Blueprint) -> None:
    """Exempt *blueprint* from Flask-WTF's check, where the app has it."""
    # A key or signature authorizes a request here, never a cookie.
    csrf = app.extensions.get("csrf")
    if csrf is not None and hasattr(csrf, "exempt"):
        csrf.exempt(blueprint)


def _without_hosts(app: Flask, blueprint: str) -> tuple[Map, dict[str, Rule]]:
    """Return the blueprint's routes without their hosts, and the app's own."""
    rules = {
        str(number): rule
        for number, rule in enumerate(app.url_map.iter_rules())
        if rule.endpoint.rpartition(".")[0] == blueprint
    }
    copies = [
        Rule(rule.rule, endpoint=number, methods=rule.methods)
        for number, rule in rules.items()
    ]
    return Map(copies), rules


def _note_begin() -> None:
    request.environ[_STATUS] = 0


def _note_answer(response: Response) -> Response:
    if _STATUS in request.environ:
        request.environ[_STATUS] = response.status_code
    return response


def _warn_of_hooks(app: Flask, blueprint: str, response: Response) -> None:
    hooks = [
        getattr(hook, "__qualname__", type(hook).__qualname__)
        for hook in app.before_request_funcs.get(None, ())
        if not str(getattr(hook, "__module__", "")).startswith(f"{_PACKAGE}.")
    ]
    logger.warning(
        "A request to %s was answered with %s by the app before it reached the route: "
        "by a before_request hook (%s). Have it return None where request.blueprint is "
        "%r: the route has credentials of its own.",
        request.endpoint,
        response.status,
        ", ".join(hooks) or "or before it",
        blueprint,
        extra={"action": "route_not_reached"},
    )
