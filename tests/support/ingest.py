"""Stand-ins for an app, for tests of the routes that accept events."""

from __future__ import annotations

import typing as t

from flask import abort
from flask import Flask
from flask import request

from flask_durable.app.health import Readiness
from flask_durable.app.state import AppState
from flask_durable.config.settings import Settings
from flask_durable.engine.event_sender import EventSender
from flask_durable.events.model import EventData
from flask_durable.functions.registry import FunctionRegistry
from flask_durable.messages import EventMessage
from flask_durable.messages import Outcome

Failing = t.Callable[[EventMessage], Exception | None]


class Recorder(AppState):
    """An app's services that keep accepted events, and fail where they are told."""

    def __init__(self, app: Flask, *schemas: type[EventData]) -> None:
        functions = FunctionRegistry()
        for schema in schemas:
            functions.add_schema(schema)
        super().__init__(app, functions, Settings.from_app(app))
        self.sent: list[EventMessage] = []
        self.calls = 0
        self.failing: Failing = lambda message: None
        self.readiness = self.told = ToldReadiness()
        self.event_sender = t.cast(EventSender, self)

    def send(self, messages: t.Sequence[EventMessage]) -> list[Outcome]:
        self.calls += 1
        errors = [self.failing(message) for message in messages]
        self.sent += [m for m, error in zip(messages, errors, strict=True) if not error]
        return [error or "accepted" for error in errors]


class ToldReadiness(Readiness):
    """A readiness with the problems that a test tells it."""

    def __init__(self) -> None:
        self.look: t.Callable[[], list[str]] = list

    def problems(self) -> list[str]:
        return self.look()


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
