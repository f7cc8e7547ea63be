"""A pool of RQ's own workers is sized by the commands, from an app that has no RQ."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
import typing as t

import pytest
import redis
import rq

from ..support.servers import valkey_server
from ..support.servers import ValkeyServer
from ..support.servers import wait_until

APP = """
import os, sys
from flask import Flask
from flask_durable import Durable

app = Flask(__name__)
app.config["DURABLE_REDIS_URL"] = os.environ["TEST_REDIS_URL"]
app.config["DURABLE_SCALE"] = {
    "legacy": {
        "desired_wait": "4s",
        "maximum": 3,
        "boot": "1s",
        "window": 0,
        "slots": 1,
        "guess": "0.5s",
        "drains": True,
        "introspector": {"introspector": "rq", "url": os.environ["TEST_RQ_URL"]},
        "platform": {
            "platform": "command",
            "read": "cat workers.txt",
            "apply": [
                sys.executable,
                "-c",
                "import sys; open('workers.txt', 'w').write(sys.argv[1])",
                "{n}",
            ],
        },
    }
}
durable = Durable(app)
"""

Scale = t.Callable[..., str]


@pytest.fixture
def queues() -> t.Iterator[ValkeyServer]:
    """The server of RQ, which is not that of the app."""
    with valkey_server() as server:
        yield server


@pytest.fixture
def scale(tmp_path: pathlib.Path, valkey: ValkeyServer, queues: ValkeyServer) -> Scale:
    (tmp_path / "app.py").write_text(APP)
    (tmp_path / "workers.txt").write_text("0")
    environment = {
        **os.environ,
        "TEST_REDIS_URL": valkey.url,
        "TEST_RQ_URL": queues.url,
        "FLASK_DURABLE_NAMESPACE": "introspected",
    }

    def scale(*options: str) -> str:
        command = [sys.executable, "-m", "flask", "--app", "app", "durable", "scale"]
        ended = subprocess.run(
            [*command, "--queue=legacy", *options],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        # 5: the maximum is too low.
        assert ended.returncode in (0, 5), ended.stderr
        return ended.stdout

    return scale


def test_workers_of_rq_are_scaled_to_their_queue_and_back(
    scale: Scale, queues: ValkeyServer, tmp_path: pathlib.Path
) -> None:
    with redis.Redis.from_url(queues.url) as client:
        queue = rq.Queue("legacy", connection=client)
        for _ in range(30):
            queue.enqueue("time.sleep", 0.1)

        seen = json.loads(scale("--dry-run", "--json"))["observation"]
        assert seen["waiting"] == {"time.sleep": 30}
        assert (tmp_path / "workers.txt").read_text() == "0", "it was a dry run"
        assert "time.sleep" in scale("--explain")
        assert (tmp_path / "workers.txt").read_text() == "3"

        command = [sys.executable, "-m", "rq.cli", "worker", "legacy", "--burst"]
        workers = [
            subprocess.Popen([*command, "-u", queues.url], stderr=subprocess.DEVNULL)
            for _ in range(3)
        ]
        assert [worker.wait(120) for worker in workers] == [0, 0, 0]
        assert queue.finished_job_registry.count == 30
        wait_until(lambda: _asked(scale, tmp_path) == "0", "no worker", 60)


def _asked(scale: Scale, folder: pathlib.Path) -> str:
    scale()
    return (folder / "workers.txt").read_text()
