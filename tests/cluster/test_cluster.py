"""State and queues on a cluster: partitions on all servers, any may fail."""

from __future__ import annotations

import os
import pathlib
import signal
import subprocess
import sys
import threading
import typing as t

import pytest
import redis
from flask import Flask

from flask_durable import ConfigurationError
from flask_durable import Durable
from flask_durable import Event
from flask_durable import Failure
from flask_durable import Run
from flask_durable import RunStatus
from flask_durable import Step
from flask_durable import UnavailableError
from flask_durable.messages import EVENT_QUEUE
from flask_durable.queue.redis_streams.keys import queue_tag
from flask_durable.redis.client import ask_holder
from flask_durable.redis.client import client_factory
from flask_durable.redis.scripts import load
from flask_durable.store.barrier import Barrier
from flask_durable.store.barrier import StateMayBeLost
from flask_durable.store.server import StateServer

from ..support.harness import Harness
from ..support.servers import valkey_server
from ..support.servers import ValkeyServer
from ..support.servers import wait_until
from .servers import ask
from .servers import ValkeyCluster

Given = Event[dict[str, t.Any]]

#: Runs that are surely spread over all partitions.
MANY = 40


def servers_of(cluster: ValkeyCluster, harness: Harness, runs: list[t.Any]) -> set[int]:
    keys = harness.state.store.keys
    return {cluster.node_of(keys.tag_of(run.id)).port for run in runs}


def test_runs_live_on_all_servers_and_are_found_again(
    cluster: ValkeyCluster, harness: Harness
) -> None:
    told: list[int] = []

    @harness.durable.function(on="order/placed")
    def ship(event: Given, step: Step) -> int:
        weight = step.run("weigh", lambda: int(event.data["number"]) * 2)
        step.sleep("dry", "1h")
        step.send_event("tell", Event("order/shipped", {"weight": weight}))
        return weight

    @harness.durable.function(on="order/shipped")
    def note(event: Given, step: Step) -> None:
        step.run("note", told.append, event.data["weight"])

    for number in range(MANY):
        harness.send("order/placed", {"number": number})
    harness.settle()
    asleep = harness.runs.list(status="suspended", limit=100)
    assert len(asleep) == MANY
    assert len(servers_of(cluster, harness, asleep)) == len(cluster.nodes)
    assert harness.runs.count("suspended") == MANY

    harness.advance(3601)
    done = harness.runs.list(function="ship", status="completed", limit=100)
    assert sorted(run.result for run in done) == [2 * n for n in range(MANY)]
    assert sorted(told) == [2 * n for n in range(MANY)]
    created = [run.created for run in harness.runs.list(limit=100)]
    assert created == sorted(created, reverse=True)


def test_steps_are_retried_failures_handled_and_runs_cancelled(
    harness: Harness,
) -> None:
    calls: list[str] = []
    handled: list[str] = []

    def unsteady() -> str:
        calls.append("call")
        if len(calls) == 1:
            raise OSError("not yet")
        return "steady"

    @harness.durable.function(on="try/again", retries=1)
    def again(event: Given, step: Step) -> str:
        return step.run("unsteady", unsteady)

    @harness.durable.function(on="try/broken", retries=0)
    def broken(event: Given, step: Step) -> None:
        step.run("broken", lambda: 1 / 0)

    @broken.on_failure
    def report(event: Given, step: Step, failure: Failure) -> None:
        step.run("report", handled.append, failure.type)

    @harness.durable.function(on="try/later")
    def later(event: Given, step: Step) -> None:
        step.sleep("long", "7d")

    retried = harness.send_and_settle("try/again")
    assert retried.status is RunStatus.SUSPENDED
    harness.advance(60)
    assert harness.runs.get(retried.id).result == "steady"

    event_id = harness.send("try/broken")
    harness.settle()
    failed = harness.run_of(event_id, "broken")
    assert failed.status is RunStatus.FAILED
    assert handled == ["ZeroDivisionError"]

    waiting = harness.send_and_settle("try/later")
    assert harness.runs.cancel(waiting.id).status is RunStatus.CANCELLED
    harness.advance(8 * 86400)
    assert harness.runs.get(waiting.id).status is RunStatus.CANCELLED


def test_a_server_that_forgot_the_scripts_is_told_them_again(
    cluster: ValkeyCluster, harness: Harness
) -> None:
    @harness.durable.function(on="a/b")
    def work(event: Given, step: Step) -> int:
        return step.run("one", int, 1)

    def round_of_runs() -> None:
        events = [harness.send("a/b") for _ in range(MANY)]
        harness.settle()
        results = [harness.run_of(event).result for event in events]
        assert results == [1] * MANY

    round_of_runs()
    for node in cluster.nodes:
        ask(node, "SCRIPT", "FLUSH")
        round_of_runs()


def test_one_pipeline_reaches_all_servers_in_one_exchange(
    cluster: ValkeyCluster, harness: Harness
) -> None:
    store = harness.state.store
    calls = [("sweep", tag, [10_000, 10]) for tag in store.keys.tags]
    commands = [("STRLEN", f"{tag}:none") for tag in store.keys.tags]
    store.server.call_many(calls, *commands)
    before = [_handled(node) for node in cluster.nodes]
    replies = store.server.call_many(calls, *commands)
    sent = sum(_handled(node) for node in cluster.nodes) - sum(before)

    assert replies[: len(calls)] == [[[], [], [], [], 0, []]] * len(calls)
    assert replies[len(calls) :] == [0] * len(calls)
    # Nobody was asked where the keys of a script are. Each count counts itself.
    assert sent == len(calls) + len(commands) + len(cluster.nodes)


def _handled(node: ValkeyServer) -> int:
    """Return how many commands *node* was sent by clients, this one included."""
    text = ask(node, "INFO", "commandstats")
    calls = {
        line.split(":")[0].removeprefix("cmdstat_"): int(
            line.split("calls=")[1].split(",")[0]
        )
        for line in text.splitlines()
        if line.startswith("cmdstat_")
    }
    names = ("evalsha", "eval", "strlen", "info", "command", "command|getkeys")
    return sum(calls.get(name, 0) for name in names)


def test_the_barrier_waits_on_each_server_that_holds_state(
    cluster: ValkeyCluster, harness: Harness
) -> None:
    promise = harness.state.barrier.promise()
    before = [_calls(node, "waitaof") for node in cluster.nodes]
    harness.state.barrier.wait()
    after = [_calls(node, "waitaof") for node in cluster.nodes]

    assert after == [count + 1 for count in before]
    assert (promise.aof, promise.fsync, promise.waitaof) == (True, "everysec", True)


def test_the_barrier_covers_the_server_of_the_event_queue(
    cluster: ValkeyCluster,
) -> None:
    harness = Harness(cluster.url, "alone", DURABLE_FSYNC="step")
    (tag,) = harness.state.store.keys.tags
    queue = queue_tag("alone", EVENT_QUEUE)
    holders = {cluster.node_of(tag).port, cluster.node_of(queue).port}
    harness.send("a/b")  # asks every server whether it can wait
    before = [_calls(node, "waitaof") for node in cluster.nodes]
    harness.send("a/b")
    after = [_calls(node, "waitaof") for node in cluster.nodes]
    harness.close()

    asked = {
        node.port
        for node, one, other in zip(cluster.nodes, before, after, strict=True)
        if one != other
    }
    assert len(holders) == 2
    assert asked == holders


def _calls(node: ValkeyServer, command: str) -> int:
    with redis.Redis.from_url(node.url) as client:
        stats = client.info("commandstats")
    return int(stats.get(f"cmdstat_{command}", {"calls": 0})["calls"])


@pytest.mark.parametrize(
    ("name", "value", "field"),
    [("appendfsync", "no", "fsync"), ("appendonly", "no", "aof")],
)
def test_the_promise_is_that_of_the_weakest_server(
    cluster: ValkeyCluster, harness: Harness, name: str, value: str, field: str
) -> None:
    node = cluster.nodes[1]
    usual = ask(node, "CONFIG GET", name)[name]
    ask(node, "CONFIG", "SET", name, value)
    try:
        promise = harness.state.barrier.promise()
    finally:
        ask(node, "CONFIG", "SET", name, usual)
    assert getattr(promise, field) == (value if field == "fsync" else False)


def test_one_server_that_may_evict_is_enough_to_refuse(
    cluster: ValkeyCluster, harness: Harness
) -> None:
    ask(cluster.nodes[2], "CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    try:
        with pytest.raises(ConfigurationError, match="allkeys-lru"):
            harness.state.barrier.promise()
    finally:
        ask(cluster.nodes[2], "CONFIG", "SET", "maxmemory-policy", "noeviction")


def test_events_are_refused_when_one_server_is_nearly_full(
    cluster: ValkeyCluster, harness: Harness
) -> None:
    ask(cluster.nodes[1], "CONFIG", "SET", "maxmemory", "100kb")
    try:
        with pytest.raises(UnavailableError, match="full"):
            harness.send("a/b")
    finally:
        ask(cluster.nodes[1], "CONFIG", "SET", "maxmemory", "0")


def test_one_server_that_is_down_makes_the_state_unavailable(
    cluster: ValkeyCluster, harness: Harness
) -> None:
    barrier: Barrier = harness.state.barrier
    barrier.wait()
    node, alive = cluster.nodes[1], cluster.nodes[2]
    tags = harness.state.store.keys.tags
    served = next(tag for tag in tags if cluster.node_of(tag) is alive)
    node.kill()
    try:
        with pytest.raises(UnavailableError):
            barrier.wait()
        with pytest.raises(redis.ConnectionError):
            harness.state.server.check(harness.state.store.keys.tags)
        assert harness.state.readiness.problems()
        # Once the others notice, they refuse what they hold themselves.
        wait_until(lambda: "state:fail" in ask(alive, "CLUSTER", "INFO"), "CLUSTERDOWN")
        with pytest.raises(redis.ConnectionError, match="cluster is down"):
            harness.state.server.call("sweep", served, 10_000, 10)
        [reply] = harness.state.server.call_many([("sweep", served, [10_000, 10])])
        assert isinstance(reply, redis.ConnectionError)
    finally:
        node.start()
        cluster.wait_ok()
    wait_until(lambda: not harness.state.readiness.problems(), "the app is ready again")
    # One of several servers was started again: it may have lost what it held.
    with pytest.raises(StateMayBeLost):
        barrier.wait()
    barrier.wait()


def test_servers_that_die_and_come_back_lose_nothing(
    cluster: ValkeyCluster, harness: Harness
) -> None:
    effects: list[int] = []

    @harness.durable.function(on="a/b")
    def work(event: Given, step: Step) -> int:
        step.run("first", effects.append, event.data["number"])
        step.sleep("rest", "1h")
        return step.run("second", lambda: int(event.data["number"]))

    events = [harness.send("a/b", {"number": number}) for number in range(MANY)]
    harness.settle()
    failures = 0
    for node in cluster.nodes:
        node.kill()
        # However many are gone, the error is the one that everybody waits out. A
        # server that was found silent rests, and is no failure until it is asked again.
        try:
            harness.sweep()
        except redis.ConnectionError:
            failures += 1
    assert failures
    for node in cluster.nodes:
        node.start()
    cluster.wait_ok()
    harness.move_clock(3601)

    def completed() -> bool:
        harness.sweep()
        harness.settle()
        return all(run.status == "completed" for run in runs())

    def runs() -> list[Run]:
        return [harness.run_of(event) for event in events]

    wait_until(completed, "all runs are completed")
    assert [run.result for run in runs()] == list(range(MANY))
    assert sorted(effects) == list(range(MANY))


def test_a_call_that_is_repeated_is_answered_once_its_server_is_back(
    cluster: ValkeyCluster, harness: Harness
) -> None:
    tag = harness.state.store.keys.tags[3]
    node = cluster.node_of(tag)
    node.kill()
    back = threading.Timer(0.2, node.start)
    back.start()
    answers: list[t.Any] = []

    def answered() -> bool:
        try:
            answers.append(harness.state.server.call("sweep", tag, 10_000, 10))
        except redis.ConnectionError:
            return False
        return True

    wait_until(answered, "the server is back")
    back.join()
    cluster.wait_ok()
    assert answers == [[[], [], [], [], 0, []]]


def test_the_clock_of_workers_is_that_of_the_root_partition(
    cluster: ValkeyCluster, harness: Harness
) -> None:
    tag = harness.state.store.keys.root
    before = [_calls(node, "time") for node in cluster.nodes]
    ask_holder(harness.state.server.client, tag, "TIME")
    after = [_calls(node, "time") for node in cluster.nodes]

    expected = [
        count + (node is cluster.node_of(tag))
        for node, count in zip(cluster.nodes, before, strict=True)
    ]
    assert after == expected


def test_any_one_of_the_named_nodes_is_enough_to_find_the_cluster(
    cluster: ValkeyCluster,
) -> None:
    with valkey_server() as gone:
        pass
    url = f"redis+cluster://127.0.0.1:{gone.port},127.0.0.1:{cluster.nodes[0].port}/0"
    server = StateServer(url)
    assert server.call("sweep", "{any:0}", 10_000, 10) == [[], [], [], [], 0, []]
    server.close()
    with pytest.raises(redis.ConnectionError):
        StateServer(f"redis+cluster://127.0.0.1:{gone.port}").check(["a"])


def test_a_single_server_is_not_taken_for_a_cluster(valkey: ValkeyServer) -> None:
    url = valkey.url.replace("redis://", "redis+cluster://")
    with pytest.raises(ConfigurationError, match="not a node of a cluster"):
        client_factory(url)()


def test_queues_may_be_on_a_cluster_while_the_state_is_not(
    cluster: ValkeyCluster, valkey: ValkeyServer
) -> None:
    harness = Harness(valkey.url, "queued", DURABLE_QUEUE_URL=cluster.url, in_place=0)

    @harness.durable.function(on="a/b", queue="media")
    def work(event: Given, step: Step) -> int:
        return step.run("one", int, 1)

    run = harness.send_and_settle("a/b")
    assert run.result == 1
    assert harness.state.transport.counts("media").waiting == 0
    harness.close()


APP = """
from flask import Flask
from flask_durable import Durable

durable = Durable()


@durable.function(on="work/asked")
def work(event, step):
    number = step.run("take", int, event.data["number"])
    step.sleep("rest", "100ms")
    return step.run("give", lambda: number + 1)


def create_app():
    app = Flask("cluster_app")
    app.config.from_prefixed_env()
    durable.init_app(app)
    return app
"""


def test_a_worker_process_works_through_the_restart_of_a_server(
    cluster: ValkeyCluster, namespace: str, tmp_path: pathlib.Path
) -> None:
    (tmp_path / "app.py").write_text(APP)
    config = {
        "DURABLE_REDIS_URL": cluster.url,
        "DURABLE_NAMESPACE": namespace,
        "DURABLE_PARTITIONS": "5",
    }
    durable, app = Durable(), Flask("cluster_app")
    app.config.update(config)
    durable.init_app(app)
    command = [sys.executable, "-m", "flask", "--app", "app", "durable", "worker"]
    process = subprocess.Popen(
        command,
        cwd=tmp_path,
        env={**os.environ, **{f"FLASK_{key}": config[key] for key in config}},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        with app.app_context():
            wait_until(durable.state_of(app).directory.workers, "the worker")
            first = [_ask_for_work(durable, number) for number in range(MANY)]
            node = cluster.node_of(f"{{{namespace}:0}}")
            node.kill()
            node.start()
            cluster.wait_ok()
            rest = [_ask_for_work(durable, MANY + number) for number in range(MANY)]
            wait_until(lambda: durable.runs.count("completed") == 2 * MANY, "the runs")
            results = [
                run.result for id in first + rest for run in durable.runs.of_event(id)
            ]
        assert results == list(range(1, 2 * MANY + 1))
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    finally:
        process.kill()
        output, _ = process.communicate(timeout=30)
        print(output)  # pytest shows it when the test failed
        durable.state_of(app).broker.close()
        durable.state_of(app).server.close()
    assert "Traceback" not in output


def _ask_for_work(durable: Durable, number: int) -> str:
    return durable.send("work/asked", {"number": number})


def test_the_scripts_are_not_known_to_a_server_that_was_restarted() -> None:
    """A digest is forgotten with the process: the tests above rest on that."""
    with valkey_server() as server:
        digest = load("flask_durable.store", "sweep").digest
        StateServer(server.url).call("sweep", "{a:0}", 10_000, 10)
        assert ask(server, "SCRIPT", "EXISTS", digest) == [1]
        server.kill()
        server.start()
        assert ask(server, "SCRIPT", "EXISTS", digest) == [0]
