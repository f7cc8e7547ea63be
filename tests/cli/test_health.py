"""``flask durable health``: its checks and its exit code."""

from __future__ import annotations

import json

from flask import Flask

from flask_durable.extension import Durable as DurableClass

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
