"""``flask durable worker --log-format json``."""

from __future__ import annotations

import json
import signal

from .sites import Site


def test_a_worker_says_everything_in_lines_of_json(site: Site) -> None:
    worker = site.worker("--log-format=json")
    worker.says("worker_ready")
    worker.signal(signal.SIGTERM)
    assert worker.wait() == 0

    lines = [json.loads(line) for line in worker.output.splitlines()]
    actions = [
        line.get("action") for line in lines if "flask_durable" in line["logger"]
    ]
    assert actions == ["worker_ready", "worker_drain", "worker_end"]


def test_processes_of_a_supervisor_have_its_format(site: Site) -> None:
    worker = site.worker("--processes=2", "--log-format=json")
    worker.says('"action": "worker_ready"', 2)
    worker.kill()
