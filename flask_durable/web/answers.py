"""The routes of the addresses that runs make with ``step.create_url``.

``GET <prefix>/answers/<token>``
    A page with one button. Nothing changes: programs that read mail follow links.
``POST <prefix>/answers/<token>``
    An answer: an object of JSON, or a form, of at most 64 KiB.
``GET <prefix>/answers.css``
    The style of the page.

======  =======================================================================
status  when
======  =======================================================================
200     the answer is the run's, now or since the same was posted before
400     the body is not an object of JSON, or a malformed form
404     the address was not signed here; the answer is the same for every such one
409     another answer was posted before
410     the address takes no answer any more: its time is over, or the run has ended
413     the body is too large
415     the body is neither JSON nor a form, or a form with files
503     the answer could not be taken; posting it again is harmless
======  =======================================================================

A browser is answered with a page, other clients with JSON. The address itself is the
credential. So it is kept out of logs, caches and the ``Referer`` of other sites, and no
cookie counts.
"""

from __future__ import annotations

import functools
import pathlib
import typing as t

from flask import Blueprint
from flask import request
from flask import Response
from jinja2 import Environment
from jinja2 import FileSystemLoader
from jinja2 import Template
from werkzeug.exceptions import HTTPException

from ..app.addresses import ANSWERS_PATH
from ..app.addresses import ENDPOINT
from ..app.state import AppState
from ..common.safe_logging import get_logger
from ..errors import PayloadError
from ..errors import UnavailableError
from ..events.acceptance import json_faults
from ..events.signal import MAX_SIGNAL
from .http import json_response
from .http import parse_body
from .http import read_body
from .http import Refused
from .http import RETRY_AFTER_SECONDS

#: The path of the page's style, below the prefix.
STYLE_PATH = "/answers.css"

_FOLDER = pathlib.Path(__file__).parent

_HEADERS = {
    # The page has no script and no frame, and nothing of another host. What the app
    # sets for its own pages is too wide here.
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "X-Robots-Tag": "noindex, nofollow",
}

_FORMS = ("application/x-www-form-urlencoded", "multipart/form-data")

#: The code, and the text for a person, of each status.
_TOLD = {
    200: ("accepted", "Thank you. Your answer has been received."),
    400: ("bad_request", "This answer is no object of JSON, or a malformed form."),
    404: ("not_found", "There is nothing here."),
    409: ("conflict", "This was answered before, in another way."),
    410: ("gone", "This link takes no answer any more."),
    413: ("too_large", f"An answer may have {MAX_SIGNAL} bytes."),
    415: ("unsupported_type", "Send an object of JSON, or a form without files."),
    503: ("unavailable", "Your answer could not be stored. Please try it again."),
}
_ANSWERED = "This has been answered."

logger = get_logger(__name__)


def add_answer_routes(blueprint: Blueprint, state: AppState) -> None:
    """Add the routes to *blueprint*, for the app of *state*."""
    routes = _Routes(state)
    rule = f"{ANSWERS_PATH}<token>"
    blueprint.add_url_rule(rule, ENDPOINT, routes.show)
    blueprint.add_url_rule(rule, "take_answer", routes.take, methods=["POST"])
    blueprint.add_url_rule(STYLE_PATH, "answer_style", _style)


class _Routes:
    def __init__(self, state: AppState) -> None:
        self.state = state

    def show(self, token: str) -> Response:
        """Show the page of an address."""
        named = self.state.addresses.read(token)
        if named is None:
            return _page(404)
        try:
            shown = self.state.answers.look(*named, token)
        except (UnavailableError, PayloadError) as error:
            _log(error)
            return _page(503)
        page = shown.page
        title = page.title if page else ""
        if shown.state == "over":
            return _page(410, title)
        if shown.state == "answered" or page is None:
            return _page(200, title, _ANSWERED)
        paragraphs = page.text.replace("\r\n", "\n").split("\n\n")
        return _page(200, title, *paragraphs, button=page.button)

    def take(self, token: str) -> Response:
        """Take an answer."""
        named = self.state.addresses.read(token)
        if named is None:
            return _told(404)
        try:
            given = self.state.answers.give(*named, token, _answer())
        except (Refused, HTTPException) as error:
            status = error.status if isinstance(error, Refused) else error.code
            if status not in _TOLD:
                raise
            return _told(status)
        except (UnavailableError, PayloadError) as error:
            _log(error)
            return _told(503)
        return _told({"accepted": 200, "other": 409, "over": 410}[given])


def _answer() -> dict[str, t.Any]:
    """Return the fields of the request's body.

    :raises Refused: The body is no object of JSON and no form, or is too large.
    """
    request.max_content_length = MAX_SIGNAL
    if (request.content_length or 0) > MAX_SIGNAL:
        raise Refused(413, "")
    if request.is_json:
        found = parse_body(read_body(MAX_SIGNAL))
    elif request.mimetype in _FORMS:
        found = _form()
    elif not request.mimetype and not read_body(MAX_SIGNAL):
        found = {}
    else:
        raise Refused(415, "")
    if not isinstance(found, dict) or json_faults(found):
        raise Refused(400, "")
    return found


def _form() -> dict[str, t.Any]:
    if request.content_length is None:
        read_body(MAX_SIGNAL)  # a body in chunks is cut at the limit without an error
    # A hook of the app may have read the form before.
    if request.files:
        raise Refused(415, "")
    fields = request.form.to_dict(flat=False)
    if not fields and request.mimetype == "multipart/form-data":
        raise Refused(400, "")  # Werkzeug makes an empty form of a malformed one
    return {name: v[0] if len(v) == 1 else v for name, v in fields.items()}


def _told(status: int) -> Response:
    """Return the answer to a ``POST``: a page to a browser, otherwise JSON."""
    types = ("application/json", "text/html")
    if request.accept_mimetypes.best_match(types) == "text/html":
        return _page(status)
    code, message = _TOLD[status]
    body = {"code": code, "message": message} if status != 200 else {"status": code}
    return _with_headers(json_response(body, status))


def _page(status: int, title: str = "", *paragraphs: str, button: str = "") -> Response:
    told = _TOLD[status][1]
    text = _template().render(
        title=title or told,
        paragraphs=[*paragraphs] or ([told] if title else []),
        button=button,
        # Relative, since a proxy may have cut off a part of the path.
        stylesheet=f"..{STYLE_PATH}",
    )
    return _with_headers(Response(text, status, mimetype="text/html"))


def _with_headers(response: Response) -> Response:
    response.headers.update(_HEADERS)
    if response.status_code == 503:
        response.headers["Retry-After"] = str(RETRY_AFTER_SECONDS)
    return response


@functools.cache
def _template() -> Template:
    # Not the app's environment: its filters, globals and templates are for its pages.
    loader = FileSystemLoader(_FOLDER / "templates")
    return Environment(loader=loader, autoescape=True).get_template("answer.html")


def _style() -> Response:
    text = (_FOLDER / "static" / "answer.css").read_text("utf-8")
    response = Response(text, mimetype="text/css")
    response.headers["Cache-Control"] = "max-age=3600"
    response.headers["X-Content-Type-Options"] = "nosniff"
    return response


def _log(error: Exception) -> None:
    # Without the traceback: the variables of its frames have the address.
    logger.error(
        "An answer to an address was not taken, or its page not shown: %s: %s",
        type(error).__name__,
        error,
        extra={"action": "answer_refused"},
    )
