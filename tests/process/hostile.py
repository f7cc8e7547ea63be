"""The same app in bad company: hooks that raise, redirect and read what is not theirs.

Everything here is something that apps do; this app does it far more often.
"""

from __future__ import annotations

import logging
import logging.config
import random
import typing as t

from flask import Flask
from flask import redirect
from flask import request

from flask_durable import Backoff
from flask_durable import Event
from flask_durable import Step

from . import app as work

#: The numbers of requests in a hundred that are redirected, and that have lost their
#: body; and of contexts in a hundred that end with an error.
REDIRECTED = 30
READ = 20
BROKEN = 10


@work.durable.function(on="work/broken", retries=100, backoff=Backoff("50ms"))
def broken(event: Event[t.Any], step: Step) -> list[str]:
    return [step.run(name, work.work, 0) for name in ("one", "two", "three")]


class RequestUrl(logging.Filter):
    """Raises outside a request, as its author never noticed."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.url = request.url
        return True


class Full(logging.Handler):
    """Raises whenever there is something to log, as on a full disk."""

    def emit(self, record: logging.LogRecord) -> None:
        raise OSError("no space left on device")


def create_app() -> Flask:
    app = work.create_app()
    # As in most examples; loggers that exist by then are switched off.
    logging.config.dictConfig(
        {
            "version": 1,
            "handlers": {"console": {"class": "logging.StreamHandler"}},
            "root": {"level": "INFO", "handlers": ["console"]},
            # A handler that raises while it logs a request would answer none.
            "loggers": {"werkzeug": {"propagate": False, "handlers": ["console"]}},
        }
    )
    with_url = logging.StreamHandler()
    with_url.setLevel(logging.ERROR)
    with_url.addFilter(RequestUrl())
    for handler in (with_url, Full(logging.WARNING)):
        logging.getLogger().addHandler(handler)
    app.before_request(_log_in)
    app.before_request(_read_it_all)
    app.teardown_appcontext(_fail_to_clean_up)
    app.teardown_request(_fail_to_clean_up)
    return app


def _log_in() -> t.Any:
    return redirect("/login") if _happens(REDIRECTED) else None


def _read_it_all() -> None:
    request.get_data(cache=_happens(100 - READ))  # not kept, it is gone


def _fail_to_clean_up(error: BaseException | None) -> None:
    if _happens(BROKEN):
        raise RuntimeError("the clean-up failed")


def _happens(percent: int) -> bool:
    return random.randrange(100) < percent
