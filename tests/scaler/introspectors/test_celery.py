"""Queues of real Celery, with a real worker of it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import typing as t

import celery
import pytest
import redis

from flask_durable.errors import PlatformError
from flask_durable.scaler.introspectors import make_introspector

from ...servers import ValkeyServer
from ...servers import wait_until
from .looks import jobs
from .looks import Look

look = Look("celery")


@pytest.fixture
def app(server: ValkeyServer) -> t.Iterator[t.Any]:
    app: t.Any = celery.Celery(broker=server.url, set_as_current=False)
    yield app
    app.close()
    with redis.Redis.from_url(server.url) as client:
        client.flushall()


@pytest.fixture
def worker(server: ValkeyServer) -> t.Iterator[None]:
    command = [
        *(sys.executable, "-m", "celery", "-A", f"{__package__}.celery_app"),
        *("worker", "-Q", "legacy", "-c", "2", "--without-mingle"),
    ]
    process = subprocess.Popen(
        command,
        env=dict(os.environ, CELERY_URL=server.url),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        wait_until(lambda: bool(look(server).units), "the worker", 60)
        yield
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_messages_are_counted_by_task_in_all_priorities(
    server: ValkeyServer, app: t.Any
) -> None:
    for priority in (0, 3, 6, 9):
        app.send_task("media.transcode", queue="legacy", priority=priority)
    app.send_task("media.embed", queue="other")
    seen = look(server, "legacy", "other")
    assert jobs(seen) == {"media.transcode": 4, "media.embed": 1}
    assert seen.queues == {"media.transcode": "legacy", "media.embed": "other"}
    assert (seen.samples, seen.running, seen.units, seen.wakeups) == ((), (), (), ())


@pytest.mark.parametrize("task", ["media.sleep", "media.late"])
def test_a_worker_is_seen_with_what_it_runs_keeps_and_lets_wait(
    server: ValkeyServer, app: t.Any, worker: None, task: str
) -> None:
    [unit] = look(server).units
    assert (unit.slots, unit.busy) == (2, 0)
    assert time.time() - unit.ready_at < 120
    for _ in range(20):
        app.send_task(task, (600,), queue="legacy")
    app.send_task("media.later", queue="legacy", countdown=40, priority=0)

    def is_busy() -> bool:
        seen = look(server)
        return len(seen.running) == 2 and jobs(seen).get(task) == 18

    wait_until(is_busy, "two run and eighteen wait", 60)
    [unit] = look(server).units
    assert (unit.slots, unit.busy) == (2, 2)
    other = look(server, "other")
    assert (other.waiting, other.running, other.units) == ((), (), ())


def test_what_a_worker_keeps_until_a_time_wakes_up(
    server: ValkeyServer, app: t.Any, worker: None
) -> None:
    app.send_task("media.sleep", (1,), queue="legacy", countdown=50)
    app.send_task("media.sleep", (1,), queue="legacy", countdown=5000)
    wait_until(lambda: bool(look(server).wakeups), "the worker has them", 60)
    seen = look(server)
    [(function, due)] = seen.wakeups
    assert function == "media.sleep"
    assert 0 < due <= 50
    assert not seen.running


def test_many_messages_that_workers_took_are_sampled(
    server: ValkeyServer, app: t.Any
) -> None:
    message = {"headers": {"id": "1", "task": "media.sleep"}}
    entry = json.dumps([message, "", "legacy"])
    with redis.Redis.from_url(server.url) as client:
        client.hset("unacked", mapping=dict.fromkeys(map(str, range(12_500)), entry))
        client.hset("unacked", "another", "not JSON")
    assert jobs(look(server))["media.sleep"] == pytest.approx(12_500, abs=10)


def test_a_broker_that_does_not_answer_is_an_error_without_its_url() -> None:
    given = {"introspector": "celery", "url": "redis://:hidden@127.0.0.1:1/0"}
    with pytest.raises(PlatformError) as raised:
        make_introspector(given, ["legacy"]).look(60.0)
    assert raised.value.code == "platform.unavailable"
    assert "hidden" not in str(raised.value)
