"""Stand-ins for an app, for tests of the routes that accept events."""

from __future__ import annotations

import dataclasses
import typing as t

from flask import abort
from flask import Flask
from flask import request

from flask_durable.config.settings import Settings
from flask_durable.events.schemas import Schemas
from flask_durable.messages import EventMessage
from flask_durable.messages import Outcome


@dataclasses.dataclass
class Recorder:
    """Takes the extension's place: keeps accepted events, fails where it is told."""

    settings: Settings
    schemas: Schemas
    sent: list[EventMessage] = dataclasses.field(default_factory=list)
    calls: int = 0
    failing: t.Callable[[EventMessage], Exception | None] = lambda message: None
    problems: t.Callable[[], list[str]] = list

    def send_messages(self, messages: list[EventMessage]) -> list[Outcome]:
        self.calls += 1
        errors = [self.failing(message) for message in messages]
        self.sent += [m for m, error in zip(messages, errors, strict=True) if not error]
        return [error or "accepted" for error in errors]

    def ready(self) -> list[str]:
        return self.problems()


class Csrf:
    """Does as Flask-WTF: refuses every POST whose blueprint is not exempt."""

    def __init__(self) -> None:
        self.exempted: set[object] = set()

    def init_app(self, app: Flask) -> None:
        app.extensions["csrf"] = self

        @app.before_request
        def protect() -> None:
            if app.blueprints.get(request.blueprint or "") not in self.exempted:
                abort(400)

    def exempt(self, blueprint: object) -> None:
        self.exempted.add(blueprint)
