"""What ``import flask_durable`` costs and pulls in; each import in an interpreter."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import typing as t

from .model import Figure
from .model import Options
from .model import spread

#: What only a worker, a queue on SQS or an error reporter needs.
UNWANTED = ("boto3", "botocore", "sentry_sdk", "dramatiq.cli", "dramatiq.__main__")

_CODE = """
import json, sys, time
started = time.perf_counter()
import {module}
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
    yield Figure(
        "import flask_durable",
        None,
        statistics.median(durable) / statistics.median(flask),
        "x import flask",
        detail=f"{spread(durable)} s, flask {spread(flask)} s",
    )


def imported(module: str) -> tuple[float, list[str]]:
    """Import *module*; return the seconds, and the modules that are there then."""
    code = _CODE.format(module=module)
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    seconds, modules = json.loads(done.stdout)
    return seconds, modules


def unwanted(modules: t.Iterable[str]) -> list[str]:
    """Return what of *modules* should not have been imported."""
    return [name for name in modules if name in UNWANTED]
