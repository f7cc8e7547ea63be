"""``flask durable health``: its checks and its exit code."""

from __future__ import annotations

import contextlib
import json
import pathlib

from flask import Flask

from flask_durable.extension import Durable as DurableClass

from ..model.books import Books
from ..support.harness import Harness
from ..support.servers import free_port
from .commands import rows
from .commands import Run
from .commands import runner_of


def test_health_is_exit_code_3_until_a_worker_serves_every_queue(
    run: Run, driven: Harness
) -> None:
    result = run("health")
    assert result.exit_code == 3
    checks = {row[0]: row[1] for row in rows(result)}
    assert checks["state server"] == "ok"
    assert checks["workers"] == "FAILED"
    queues = driven.durable.functions.queues()
    driven.state.directory.beat("w1", {"queues": queues, "threads": 1}, [])
    result = run("health", "--json")
    assert result.exit_code == 0
    assert all(check["ok"] for check in json.loads(result.stdout))


def test_health_without_a_state_server_is_exit_code_3() -> None:
    app = Flask(__name__)
    app.config.update(DURABLE_REDIS_URL=f"redis://127.0.0.1:{free_port()}/0")
    DurableClass(app)
    result = runner_of(app)("health")
    assert result.exit_code == 3
    assert rows(result)[0][:2] == ["state server", "FAILED"]


def test_a_push_worker_serves_no_queue_that_nobody_pushes_from(
    run: Run, driven: Harness
) -> None:
    queues = driven.durable.functions.queues()
    driven.state.directory.beat("w1", {"queues": queues, "threads": 0}, [])
    result = run("health", "--json")
    assert result.exit_code == 3
    checks = {check["name"]: check for check in json.loads(result.stdout)}
    assert checks["workers"]["detail"].startswith("no worker serves")


def test_health_names_the_tables_that_the_database_of_the_app_lacks(
    harness: Harness, tmp_path: pathlib.Path
) -> None:
    url = f"sqlite:///{tmp_path}/books.db"
    with contextlib.closing(Books(harness, url)) as books:
        books.declare()
        harness.publish()
        run = runner_of(harness.app)
        harness.state.directory.beat("w1", {"queues": ["default"], "threads": 1}, [])

        result = run("health")
        assert result.exit_code == 3
        told = [row[1:] for row in rows(result) if row[0] == "database"]
        assert told == [
            [
                "FAILED",
                "there is no table durable_steps and no table durable_events: "
                'make a migration and run "flask db upgrade"',
            ]
        ]

        books.create()
        result = run("health")
        assert result.exit_code == 0
        told = [row[1:] for row in rows(result) if row[0] == "database"]
        assert told == [["ok", "the tables of steps and events are there"]]


def test_health_says_that_the_database_does_not_answer(
    harness: Harness, tmp_path: pathlib.Path
) -> None:
    url = f"sqlite:///{tmp_path}/missing/books.db"
    with contextlib.closing(Books(harness, url)):
        checks = {row[0]: row[1:] for row in rows(runner_of(harness.app)("health"))}
    assert checks["database"][0] == "FAILED"
    assert "unable to open database file" in checks["database"][1]


def test_health_of_an_app_without_a_database_says_nothing_of_one(run: Run) -> None:
    assert "database" not in [row[0] for row in rows(run("health"))]
