"""A site with the routes of the extension, and a client of it."""

from __future__ import annotations

import dataclasses
import json
import time
import typing as t

from flask import Flask
from flask.testing import FlaskClient
from pydantic import field_validator
from werkzeug.test import TestResponse

from flask_durable.events.model import EventData
from flask_durable.messages import EventMessage
from flask_durable.security.keys import new_event_key
from flask_durable.security.keys import new_signing_secret
from flask_durable.security.signatures import sign
from flask_durable.web.blueprint import events_blueprint

from ..support.ingest import Recorder

KEY = new_event_key()
SECRET = new_signing_secret()
BEARER = {"Authorization": f"Bearer {KEY}"}
EVENT = {"name": "a/b", "data": {"x": 1}}


class Uploaded(EventData, name="media/uploaded"):
    audio_url: str

    @field_validator("audio_url")
    @classmethod
    def has_a_scheme(cls, value: str) -> str:
        return {True: value}["://" in value]  # KeyError: a schema with a mistake


@dataclasses.dataclass
class Site:
    app: Flask
    recorder: Recorder

    @property
    def client(self) -> FlaskClient:
        return self.app.test_client()

    @property
    def sent(self) -> list[EventMessage]:
        return self.recorder.sent

    def post(self, json: t.Any = None, **kwargs: t.Any) -> TestResponse:
        if json is not None:
            kwargs["json"] = json
        kwargs.setdefault("headers", BEARER)
        return self.client.post("/durable/events", **kwargs)


def make_site(
    open_ingest: bool = False, app: Flask | None = None, **keys: t.Any
) -> Site:
    app = app or Flask(__name__)
    app.config.update({f"DURABLE_{name}": value for name, value in keys.items()})
    recorder = Recorder(app, Uploaded)
    app.register_blueprint(events_blueprint(recorder, open_ingest=open_ingest))
    return Site(app, recorder)


def body_of(response: TestResponse, status: int) -> dict[str, t.Any]:
    assert response.status_code == status, response.text
    assert response.mimetype == "application/json"
    body = json.loads(response.text)
    assert isinstance(body, dict)
    if status >= 400:
        assert body["code"]
        assert body["message"]
    return body


def faults_of(response: TestResponse) -> list[tuple[int, str]]:
    return [(e["index"], e["field"]) for e in body_of(response, 422)["errors"]]


def signed(
    body: bytes, *, secret: str = SECRET, id: str = "msg_1", at: int | None = None
) -> dict[str, str]:
    at = int(time.time()) if at is None else at
    return {
        "webhook-id": id,
        "webhook-timestamp": str(at),
        "webhook-signature": sign(secret, id=id, timestamp=at, body=body),
        "Content-Type": "application/json",
    }
