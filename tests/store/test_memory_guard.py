"""Near the server's memory limit new events are refused, and old ones go on."""

from __future__ import annotations

import typing as t

import pytest
import redis

from flask_durable import Event
from flask_durable import RunStatus
from flask_durable import Step
from flask_durable import UnavailableError
from flask_durable.store.installation import Installation
from flask_durable.store.liveness import SignConnections
from flask_durable.store.memory_guard import MemoryGuard
from flask_durable.store.server import StateServer
from flask_durable.worker.beat import Beat
from flask_durable.worker.process import WorkerProcess

from ..support.harness import Harness
from ..support.servers import valkey_server
from ..support.servers import ValkeyServer
from ..support.servers import wait_until


def test_a_full_server_refuses_new_events_and_finishes_the_accepted() -> None:
    key = "evk_" + "b" * 43
    with valkey_server(maxmemory="30mb") as server:
        harness = Harness(server.url, "full", DURABLE_EVENT_KEYS=key)

        @harness.durable.function(on="a/b")
        def work(event: Event[t.Any], step: Step) -> str:
            step.run("one", lambda: "x" * 100_000)
            step.sleep("rest", 60)
            return step.run("two", lambda: "done")

        accepted = harness.send("a/b")
        harness.settle()
        filler = 0
        while harness.state.memory._ask() < 0.95:
            harness.state.server.client.set(f"filler{filler}", "x" * 500_000)
            filler += 1
        harness.state.memory._ask_at = float("-inf")

        with pytest.raises(UnavailableError, match="full"):
            harness.send("a/b")
        answer = harness.app.test_client().post(
            "/durable/events",
            json={"name": "a/b"},
            headers={"Authorization": f"Bearer {key}"},
        )
        harness.advance(61)

        assert answer.status_code == 503
        assert int(answer.headers["Retry-After"]) > 0
        run = harness.run_of(accepted)
        assert (run.status, run.result) == (RunStatus.COMPLETED, "done")
        harness.close()


def test_what_was_accepted_is_finished_when_no_byte_is_free() -> None:
    with valkey_server() as server:
        harness = Harness(server.url, "full", in_place=0)

        @harness.durable.function(on="a/b")
        def work(event: Event[t.Any], step: Step) -> str:
            step.run("one", lambda: None)
            step.sleep("rest", 60)
            return step.run("two", lambda: "done")

        accepted = [harness.send("a/b") for _ in range(3)]
        harness.settle()
        harness.move_clock(61)
        harness.state.server.client.config_set("maxmemory", 1)

        beat = Beat(harness.state, "w1", ["default"], 8)
        assert beat._failed(redis.OutOfMemoryError("OOM")) > 0
        assert harness.state.reachable
        beat._turn()
        harness.sweep()
        harness.settle()

        assert harness.state.reachable
        runs = [harness.run_of(event) for event in accepted]
        assert [run.result for run in runs] == ["done"] * 3
        with pytest.raises(UnavailableError):
            harness.send("a/b")
        harness.state.server.client.config_set("maxmemory", 0)
        harness.close()


def test_a_server_that_was_full_and_is_gone_is_not_full() -> None:
    """A queue elsewhere still takes events."""
    with valkey_server() as server:
        state = StateServer(server.url, retries=0, timeout=1)
        guard = MemoryGuard(state)
        state.client.config_set("maxmemory", 1_000_000)
        with pytest.raises(UnavailableError, match="full"):
            guard.check()
        server.kill()
        guard._ask_at = float("-inf")
        guard.check()


def test_a_server_that_forbids_to_ask_is_not_full(valkey: ValkeyServer) -> None:
    admin = StateServer(valkey.url).client
    admin.execute_command("ACL SETUSER blind on >pw ~* +@all -info")  # type: ignore[no-untyped-call]
    guard = MemoryGuard(StateServer(valkey.url.replace("//", "//blind:pw@", 1)))
    try:
        guard.check()
        assert guard._ask_at > float("-inf")
    finally:
        admin.execute_command("ACL DELUSER blind")  # type: ignore[no-untyped-call]


def test_a_worker_that_starts_when_no_byte_is_free_goes_on_with_what_was_accepted() -> (
    None
):
    with valkey_server() as server:
        harness = Harness(server.url, "full", in_place=0)

        @harness.durable.function(on="a/b")
        def work(event: Event[t.Any], step: Step) -> str:
            step.sleep("rest", 60)
            return step.run("two", lambda: "done")

        accepted = harness.send("a/b")
        harness.settle()
        harness.move_clock(61)
        state = harness.state
        state.directory.claim_namespace(harness.app.name)
        installation = Installation(state.server, state.store.keys)
        known = installation.id
        state.server.client.config_set("maxmemory", 1)

        process = WorkerProcess(state, queues=["default"], threads=1, grace=5)
        try:
            process.start()
            wait_until(lambda: harness.run_of(accepted).status == RunStatus.COMPLETED)
            again = Installation(state.server, state.store.keys)
            assert (again.id, again.owns(known)) == (known, True)
            signs = SignConnections(state.store, "full")
            for connection, command in signs.signs:
                connection.send_packed_command([command])
                connection.read_response()
            signs.close()
            # New events are refused, and readiness says so.
            with pytest.raises(UnavailableError):
                harness.send("a/b")
            assert state.readiness.problems()
        finally:
            process.stop()
            state.server.client.config_set("maxmemory", 0)
        harness.close()
