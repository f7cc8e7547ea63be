"""The cost of ``import flask_durable``, and the modules that it and a send load.

Each is measured in an interpreter of its own.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import typing as t

from tests.support.servers import valkey_server

from .model import Figure
from .model import Options
from .model import spread

#: Modules that only a worker, a queue on SQS or an error reporter needs.
UNWANTED = ("boto3", "botocore", "sentry_sdk", "dramatiq")

_CODE = """
import json, sys, time
started = time.perf_counter()
import {module}
print(json.dumps([time.perf_counter() - started, sorted(sys.modules)]))
"""


#: A web process: it makes the app, accepts an event and is asked whether it is ready.
_WEB = """
import json, sys, time
started = time.perf_counter()
from flask import Flask
from flask_durable import Durable
app = Flask("web")
app.config["DURABLE_REDIS_URL"] = "{url}"
durable = Durable(app)
with app.app_context():
    durable.send("bench/sent", {{}})
assert app.test_client().get("/durable/readyz").status_code == 200
print(json.dumps([time.perf_counter() - started, sorted(sys.modules)]))
"""


def measure(options: Options) -> t.Iterator[Figure]:
    """Import the package and Flask alone, in turns."""
    durable, flask = [], []
    for _ in range(2 * options.rounds + 1):
        durable.append(imported("flask_durable")[0])
        flask.append(imported("flask")[0])
    found = unwanted(imported("flask_durable")[1])
    yield Figure(
        "unwanted modules imported",
        0,
        len(found),
        "modules",
        detail=", ".join(found) or f"none of {', '.join(UNWANTED)}",
    )
    with valkey_server() as server:
        found = unwanted(modules_of_a_web_process(server.url))
    yield Figure(
        "unwanted modules in a web process that sends",
        0,
        len(found),
        "modules",
        detail=", ".join(found) or f"none of {', '.join(UNWANTED)}",
    )
    yield Figure(
        "import flask_durable",
        None,
        statistics.median(durable) / statistics.median(flask),
        "x import flask",
        detail=f"{spread(durable)} s, flask {spread(flask)} s",
    )


def imported(module: str) -> tuple[float, list[str]]:
    """Import *module*; return the seconds, and the modules that are there then."""
    return _run(_CODE.format(module=module))


def modules_of_a_web_process(url: str) -> list[str]:
    """Return the modules of a web process that has sent an event.

    :param url: The state server, which has the queues too.
    """
    return _run(_WEB.format(url=url))[1]


def _run(code: str) -> tuple[float, list[str]]:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    seconds, modules = json.loads(done.stdout)
    return seconds, modules


def unwanted(modules: t.Iterable[str]) -> list[str]:
    """Return what of *modules* should not have been imported."""
    return [name for name in modules if name in UNWANTED]
