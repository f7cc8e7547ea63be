"""Queues of real Celery, with a real worker of it."""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time
import typing as t

import celery
import pytest
import redis

from flask_durable.errors import ConfigurationError
from flask_durable.errors import PlatformError
from flask_durable.scaler.introspectors import make_introspector

from ...support.servers import ValkeyServer
from ...support.servers import wait_until
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


def keys(server: ValkeyServer) -> set[bytes]:
    """Return all keys, but for a table that Kombu keeps of its mailboxes."""
    with redis.Redis.from_url(server.url) as client:
        return set(client.keys()) - {b"_kombu.binding_deadlines"}


@contextlib.contextmanager
def a_worker(
    server: ValkeyServer, *options: str, **variables: str
) -> t.Iterator[t.Callable[[str], bool]]:
    """Run a worker with two processes; yield what tells whether it said something."""
    command = [
        *(sys.executable, "-m", "celery", "-A", f"{__package__}.celery_app"),
        *("worker", "-c", "2", "-l", "info", "--without-mingle"),
        *(options or ("-Q", "legacy")),
    ]
    with tempfile.NamedTemporaryFile() as log:
        process = subprocess.Popen(
            command,
            env=dict(os.environ, CELERY_URL=server.url, C_FORCE_ROOT="1", **variables),
            stdout=subprocess.DEVNULL,
            stderr=log,
            start_new_session=True,
        )

        def said(text: str) -> bool:
            return text in pathlib.Path(log.name).read_text()

        try:
            wait_until(lambda: said(" ready."), "the worker", 60)
            yield said
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(30)


@pytest.fixture
def worker(server: ValkeyServer) -> t.Iterator[None]:
    with a_worker(server):
        wait_until(lambda: bool(look(server).units), "the worker", 60)
        yield


def test_messages_are_counted_by_task_in_all_priorities(
    server: ValkeyServer, app: t.Any
) -> None:
    app.conf.broker_transport_options = {"priority_steps": [0, 3, 5, 9]}
    for priority in (0, 3, 5, 9):
        app.send_task("media.transcode", queue="legacy", priority=priority)
    app.send_task("media.embed", queue="other")
    before = keys(server)
    seen = look(server, "legacy", "other")
    assert keys(server) == before, "nothing is left there"
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


def test_what_is_due_at_a_time_does_not_wait_before_a_worker_takes_it(
    server: ValkeyServer, app: t.Any
) -> None:
    for number in range(2_200):
        app.send_task("media.sleep", queue="legacy", countdown=(40, 5000)[number % 2])
    seen = look(server)
    assert jobs(seen) == {}
    assert {function for function, _ in seen.wakeups} == {"media.sleep"}
    assert len(seen.wakeups) == pytest.approx(1_100, abs=150)
    assert all(0 < due <= 40 for _, due in seen.wakeups)
    app.send_task("media.sleep", queue="other", countdown=-5)
    assert jobs(look(server, "other")) == {"media.sleep": 1}


@pytest.mark.parametrize("zone", ["America/New_York", "Asia/Tokyo"])
def test_a_time_without_a_zone_is_in_utc(
    server: ValkeyServer, app: t.Any, monkeypatch: pytest.MonkeyPatch, zone: str
) -> None:
    app.send_task("media.sleep", queue="legacy", eta=now_in_utc(-60))
    app.send_task("media.embed", queue="legacy", eta=now_in_utc(30))
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        seen = look(server)
    finally:
        monkeypatch.undo()
        time.tzset()
    assert jobs(seen) == {"media.sleep": 1}
    assert [function for function, _ in seen.wakeups] == ["media.embed"]


def now_in_utc(seconds: float) -> datetime.datetime:
    """Return the time in so many seconds, as code has it that is not aware of zones."""
    now = datetime.datetime.now(datetime.timezone.utc)
    return (now + datetime.timedelta(seconds=seconds)).replace(tzinfo=None)


def test_what_workers_took_long_ago_is_not_given_to_others(
    server: ValkeyServer, app: t.Any
) -> None:
    app.send_task("media.transcode", queue="legacy")
    with redis.Redis.from_url(server.url) as client:
        text = client.rpop("legacy")
        assert isinstance(text, bytes)
        entry = json.dumps([json.loads(text), "", "legacy"])
        client.hset("unacked", "tag", entry)
        client.zadd("unacked_index", {"tag": time.time() - 7200})
        assert jobs(look(server)) == {"media.transcode": 1}
        assert client.hkeys("unacked") == [b"tag"]
        assert not client.exists("legacy")


def test_a_task_of_another_queue_holds_a_slot_of_its_worker(
    server: ValkeyServer, app: t.Any
) -> None:
    with a_worker(server, "-Q", "legacy,other"):
        app.send_task("media.sleep", (600,), queue="other")
        wait_until(lambda: bool(look(server).running), "it runs", 60)
        seen = look(server)
    assert [(unit.slots, unit.busy) for unit in seen.units] == [(2, 1)]
    assert [run.function for run in seen.running] == ["media.sleep"]


def test_workers_of_one_host_are_one_unit(server: ValkeyServer, app: t.Any) -> None:
    one = a_worker(server, "-Q", "legacy", "-n", "one@here")
    two = a_worker(server, "-Q", "legacy", "-n", "two@here")
    with one, two:
        app.send_task("media.sleep", (600,), queue="legacy")
        wait_until(lambda: bool(look(server).running), "it runs", 60)
        [unit] = look(server).units
    assert (unit.id, unit.slots, unit.busy) == ("here", 4, 1)


def test_a_worker_with_no_thread_for_answers_is_silent(
    server: ValkeyServer, app: t.Any
) -> None:
    with a_worker(server, "-Q", "legacy", "-P", "solo"):
        assert [unit.slots for unit in look(server).units] == [1]
        app.send_task("media.sleep", (600,), queue="legacy")
        wait_until(lambda: not look(server).units, "it is at work", 60)
        seen = look(server)
    assert (seen.running, jobs(seen)) == ((), {"media.sleep": 1}), "what it has waits"


@pytest.mark.parametrize("question", ["stats", "active", "active_queues"])
def test_a_worker_that_answers_with_an_error_is_silent(
    server: ValkeyServer, app: t.Any, question: str
) -> None:
    with a_worker(server, CELERY_BREAKS=question) as said:
        seen = look(server)
        assert said("it does not know")
    assert (seen.units, seen.running) == ((), ())


def test_answers_that_are_not_json_are_an_error(
    server: ValkeyServer, app: t.Any
) -> None:
    refused = pytest.raises(PlatformError, match="do not answer in JSON")
    with a_worker(server, CELERY_PICKLES="1"), refused:
        look(server)


def test_options_of_the_url_that_kombu_does_not_know_do_no_harm(
    server: ValkeyServer, app: t.Any
) -> None:
    app.send_task("media.sleep", queue="legacy")
    url = f"{server.url}?socket_timeout=3&protocol=3&db=0"
    given = {"introspector": "celery", "url": url}
    assert jobs(make_introspector(given, ["legacy"]).look(60.0)) == {"media.sleep": 1}


def test_the_broker_is_the_one_of_the_url(
    server: ValkeyServer, worker: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CELERY_BROKER_URL", "redis://127.0.0.1:1/0")
    assert look(server).units


def test_keys_may_begin_with_a_prefix(server: ValkeyServer, app: t.Any) -> None:
    app.conf.broker_transport_options = {"global_keyprefix": "app:"}
    with a_worker(server, CELERY_PREFIX="app:"):
        for _ in range(20):
            app.send_task("media.late", (600,), queue="legacy")

        def is_busy() -> bool:
            seen = look(server, prefix="app:")
            return len(seen.running) == 2 and jobs(seen) == {"media.late": 18}

        wait_until(is_busy, "two run and eighteen wait", 60)
        seen = look(server)
    assert (seen.units, seen.running, seen.waiting) == ((), (), ())


@pytest.mark.parametrize("scheme", ["unix", "redis+cluster", "sentinel", "amqp"])
def test_brokers_that_are_not_one_redis_server_are_refused(scheme: str) -> None:
    given = {"introspector": "celery", "url": f"{scheme}://:hidden@127.0.0.1:1/0"}
    with pytest.raises(ConfigurationError) as raised:
        make_introspector(given, ["legacy"])
    assert "hidden" not in str(raised.value)


def test_many_messages_that_workers_took_are_sampled(
    server: ValkeyServer, app: t.Any
) -> None:
    message = {"headers": {"id": "1", "task": "media.sleep"}}
    entry = json.dumps([message, "", "legacy"])
    with redis.Redis.from_url(server.url) as client:
        client.hset("unacked", mapping=dict.fromkeys(map(str, range(12_500)), entry))
        client.hset("unacked", "another", "not JSON")
    seen = look(server)
    assert jobs(seen)["media.sleep"] == pytest.approx(12_500, abs=10)
    [sample] = seen.samples
    assert sample.jobs == pytest.approx(12_500, abs=10)
    assert sample.size in (9_999, 10_000)


def test_a_broker_that_does_not_answer_is_an_error_without_its_url() -> None:
    given = {"introspector": "celery", "url": "redis://:hidden@127.0.0.1:1/0"}
    with pytest.raises(PlatformError) as raised:
        make_introspector(given, ["legacy"]).look(60.0)
    assert raised.value.code == "platform.unavailable"
    assert "hidden" not in str(raised.value)
