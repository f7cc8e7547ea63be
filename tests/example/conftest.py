from __future__ import annotations

import typing as t
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient

pytest.importorskip("av", reason="the extra 'example' is not installed")
pytest.importorskip("pocketsphinx", reason="the extra 'example' is not installed")

from example_app import create_app
from example_app import functions
from example_app import models
from example_app.demo import CLIP
from flask_durable import Event

from ..support.harness import Harness
from ..support.servers import ValkeyServer


@pytest.fixture
def clip() -> Path:
    """The clip that comes with the example."""
    return CLIP


@pytest.fixture
def app(tmp_path: Path) -> t.Iterator[Flask]:
    """The example, with its files in a folder of its own and no server."""
    app = create_app({"TESTING": True}, instance_path=str(tmp_path / "instance"))
    with app.app_context():
        yield app
        models.db.session.remove()
        models.db.engine.dispose()


class ExampleHarness(Harness):
    """A worker of the example that the test drives, on a real server."""

    def __init__(self, app: Flask) -> None:
        self.app = app
        self.durable = functions.durable
        self.in_place = 8
        self._started = False


@pytest.fixture
def example(
    tmp_path: Path, valkey: ValkeyServer, namespace: str
) -> t.Iterator[ExampleHarness]:
    """The example with a server and a worker."""
    config = {
        "TESTING": True,
        "DURABLE_REDIS_URL": valkey.url,
        "DURABLE_NAMESPACE": namespace,
        "DURABLE_FSYNC": "off",
        "DURABLE_EXTERNAL_URL": "http://library.test",
    }
    app = create_app(config, instance_path=str(tmp_path / "instance"))
    harness = ExampleHarness(app)
    with app.app_context():
        yield harness
        models.db.session.remove()
        models.db.engine.dispose()
    harness.close()


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[Event[t.Any]]:
    """The events that the pages send."""
    events: list[Event[t.Any]] = []

    def send(data: t.Any, *, id: str) -> str:
        events.append(Event.of(data, id=id))
        return id

    monkeypatch.setattr(functions.durable, "send", send)
    return events
