"""Queues of real RQ, with real workers of it."""

from __future__ import annotations

import datetime
import os
import signal
import subprocess
import sys
import time
import typing as t

import pytest
import redis
import rq

from ...support.servers import ValkeyServer
from ...support.servers import wait_until
from .looks import jobs
from .looks import Look

look = Look("rq")


@pytest.fixture
def client(server: ValkeyServer) -> t.Iterator[redis.Redis]:
    with redis.Redis.from_url(server.url) as client:
        yield client
        client.flushall()


def test_jobs_are_counted_by_function(
    server: ValkeyServer, client: redis.Redis
) -> None:
    legacy, other = (rq.Queue(name, connection=client) for name in ("legacy", "other"))
    for _ in range(5):
        legacy.enqueue("media.transcode", 1, "a(b)")
    other.enqueue("media.embed")
    seen = look(server, "legacy", "other")
    assert jobs(seen) == {"media.transcode": 5, "media.embed": 1}
    assert seen.queues == {"media.transcode": "legacy", "media.embed": "other"}
    assert all(0 <= group.oldest < 60 for group in seen.waiting)
    assert (seen.samples, seen.running, seen.units, seen.wakeups) == ((), (), (), ())


def test_ages_are_those_of_being_queued(
    server: ValkeyServer, client: redis.Redis
) -> None:
    queue = rq.Queue("legacy", connection=client)
    for age in (500, 100):
        job = queue.enqueue("media.transcode")
        when = datetime.datetime.now(datetime.timezone.utc)
        when -= datetime.timedelta(seconds=age)
        text = when.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        client.hset(f"rq:job:{job.id}", "enqueued_at", text)
    seen = look(server)
    ages = [group.oldest for group in seen.waiting]
    assert max(ages) == pytest.approx(500, abs=20)
    assert min(ages) == pytest.approx(100, abs=20)


def test_scheduled_jobs_wake_up(server: ValkeyServer, client: redis.Redis) -> None:
    queue = rq.Queue("legacy", connection=client)
    for seconds in (30, 3600):
        queue.enqueue_in(datetime.timedelta(seconds=seconds), "media.transcode")
    [(function, due)] = look(server).wakeups
    assert function == "media.transcode"
    assert 0 < due <= 30


def test_many_scheduled_jobs_are_sampled(
    server: ValkeyServer, client: redis.Redis
) -> None:
    queue, now = rq.Queue("legacy", connection=client), time.time()
    job = queue.enqueue("media.transcode").id
    client.hset("rq:job:other", mapping={"description": "media.embed(1)"})
    due = {f"other{n}": now + 5 for n in range(1_500)}
    for id in due:
        client.hset(f"rq:job:{id}", "description", "media.embed(1)")
    client.zadd("rq:scheduled:legacy", due)
    client.zadd("rq:scheduled:legacy", {f"gone{n}": now + 8 for n in range(1_500)})
    client.zadd("rq:scheduled:legacy", {job: now + 5000})
    seen = look(server)
    assert {function for function, _ in seen.wakeups} == {"media.embed"}
    assert len(seen.wakeups) == pytest.approx(1_500, abs=100)


def test_keys_may_begin_with_another_word(
    server: ValkeyServer, client: redis.Redis
) -> None:
    code = """
import redis, rq, sys, datetime
queue = rq.Queue("legacy", connection=redis.Redis.from_url(sys.argv[1]))
queue.enqueue("media.transcode")
queue.enqueue_in(datetime.timedelta(seconds=30), "media.embed")
"""
    command = [sys.executable, "-c", code, server.url]
    environment = {**os.environ, "RQ_KEY_PREFIX": "app"}
    subprocess.run(command, env=environment, check=True, timeout=60)
    seen = look(server, prefix="app")
    assert jobs(seen) == {"media.transcode": 1}
    assert [function for function, _ in seen.wakeups] == ["media.embed"]
    assert not look(server).waiting


def test_a_worker_that_died_is_not_seen_and_runs_nothing(
    server: ValkeyServer, client: redis.Redis
) -> None:
    job = rq.Queue("legacy", connection=client).enqueue("media.transcode")
    client.delete("rq:queue:legacy")
    client.sadd("rq:workers:legacy", "rq:worker:dead")
    client.zadd("rq:wip:legacy", {f"{job.id}:execution": time.time() - 1})
    seen = look(server)
    assert (seen.units, seen.running) == ((), ())
    client.zadd("rq:wip:legacy", {f"{job.id}:execution": time.time() + 60})
    [running] = look(server).running
    assert running.function == "media.transcode"


def test_a_job_that_is_gone_is_not_counted(
    server: ValkeyServer, client: redis.Redis
) -> None:
    queue = rq.Queue("legacy", connection=client)
    for _ in range(2):
        job = queue.enqueue("media.transcode")
    client.delete(f"rq:job:{job.id}")
    assert jobs(look(server)) == {"media.transcode": 1}


def test_a_worker_is_seen_idle_and_busy(
    server: ValkeyServer, client: redis.Redis
) -> None:
    command = (sys.executable, "-m", "rq.cli", "worker", "legacy", "other")
    command = (*command, "-u", server.url)
    worker = subprocess.Popen(
        command, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        wait_until(lambda: bool(look(server).units), "the worker", 30)
        [unit] = look(server).units
        assert (unit.slots, unit.busy) == (1, 0)
        assert time.time() - unit.ready_at < 60
        queue = rq.Queue("legacy", connection=client)
        for _ in range(2):
            queue.enqueue("time.sleep", 60)

        def is_busy() -> bool:
            seen = look(server)
            return len(seen.running) == 1 and jobs(seen) == {"time.sleep": 1}

        wait_until(is_busy, "one runs and one waits", 30)
        [unit] = look(server).units
        assert (unit.slots, unit.busy) == (1, 1)
        assert look(server).running[0].function == "time.sleep"
        # Of another queue that it serves, it executes something as well.
        seen = look(server, "other")
        assert [run.function for run in seen.running] == ["(unseen)"]
        assert not seen.functions
    finally:
        os.killpg(worker.pid, signal.SIGKILL)  # with the process of the job
        worker.wait(30)
