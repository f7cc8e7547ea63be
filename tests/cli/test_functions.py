"""``flask durable functions``: where the code of each is."""

from __future__ import annotations

import json
import pathlib

from flask import Flask

from flask_durable import Cron
from flask_durable.extension import Durable as DurableClass
from flask_durable.store.directory import names_of

from ..support.harness import Harness
from ..support.servers import free_port
from .commands import declare
from .commands import rows
from .commands import Run
from .commands import runner_of


def test_functions_are_listed_with_where_their_code_is(
    run: Run, driven: Harness
) -> None:
    spec = {**next(iter(driven.durable.functions)).spec(), "id": "newer"}
    driven.state.directory.publish({"newer": spec})
    listed = {row[0]: row[1:] for row in rows(run("functions"))}
    expected = ["greeting/asked", "default", "0", "here, published", "-"]
    assert listed["greet"] == expected
    assert listed["repair"][1] == "garage"
    assert listed["newer"][3] == "published"
    shown = json.loads(run("functions", "--json").stdout)
    assert {item["id"]: item["here"] for item in shown}["newer"] is False


def test_a_function_that_no_worker_has_is_shown_and_can_be_forgotten(
    run: Run, driven: Harness
) -> None:
    driven.start()
    spec = {**next(iter(driven.durable.functions)).spec(), "id": "old_name"}
    driven.state.directory.publish({"old_name": spec})
    refused = run("functions", "forget", "old_name")
    assert (refused.exit_code, "not forgotten" in refused.stderr) == (1, True)

    driven.state.directory.leave("w1", names_of({"old_name": spec}))
    listed = {row[0]: row[1:] for row in rows(run("functions"))}
    assert listed["old_name"][3] == "nobody"
    assert run("functions", "forget", "old_name").exit_code == 0

    assert "old_name" not in {row[0] for row in rows(run("functions"))}
    driven.sweep()
    event_id = driven.send("greeting/asked", {"name": "ada"})
    driven.settle()
    assert [r.function for r in driven.runs.of_event(event_id)] == ["greet"]
    assert run("functions", "forget", "unknown").exit_code == 1


def test_functions_with_schedules_are_listed_with_the_next_instant(
    run: Run, driven: Harness
) -> None:
    spec = next(iter(driven.durable.functions)).spec()
    cron = Cron("0 0 1 1 *", timezone="Europe/Berlin").spec()
    driven.state.directory.publish({"newer": {**spec, "id": "newer", "crons": [cron]}})
    shown = json.loads(run("functions", "--json").stdout)
    (following,) = [item["next"] for item in shown if item["id"] == "newer"]
    assert following.endswith("-12-31T23:00+00:00")


def test_functions_are_listed_without_the_state_server_too() -> None:
    app = Flask(__name__)
    app.config.update(DURABLE_REDIS_URL=f"redis://127.0.0.1:{free_port()}/0")
    durable = DurableClass(app)
    declare(durable)
    result = runner_of(app)("functions")
    assert result.exit_code == 0
    assert [row[0] for row in rows(result)] == ["greet", "repair", "nap", "pick"]
    assert "The functions of the workers are unknown" in result.stderr


def test_functions_are_listed_where_no_server_is_configured(
    tmp_path: pathlib.Path,
) -> None:
    app = Flask(__name__, instance_path=str(tmp_path))
    durable = DurableClass(app)
    declare(durable)
    result = runner_of(app)("functions")
    assert result.exit_code == 0
    assert [row[0] for row in rows(result)] == ["greet", "repair", "nap", "pick"]
    assert "There is no DURABLE_REDIS_URL" in result.stderr
