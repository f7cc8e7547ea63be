"""The connection: forgotten scripts, servers that die, processes that fork."""

from __future__ import annotations

import functools
import os
import threading
import time
import typing as t
from concurrent.futures import ThreadPoolExecutor

import pytest
import redis

from flask_durable.errors import ConfigurationError
from flask_durable.redis.errors import is_full
from flask_durable.redis.errors import is_transient
from flask_durable.redis.errors import TRANSIENT
from flask_durable.redis.exchange import Argument
from flask_durable.store.replies import Commit
from flask_durable.store.replies import Committed
from flask_durable.store.replies import Deferred
from flask_durable.store.run_store import RunStore
from flask_durable.store.server import StateServer

from ..support.forks import exit_code
from ..support.forks import in_child
from ..support.forks import start_child
from ..support.servers import valkey_server
from ..support.servers import ValkeyServer
from .kit import Kit


@pytest.fixture(scope="module")
def mortal() -> t.Iterator[ValkeyServer]:
    """A server of this module's own, that may be killed."""
    with valkey_server(appendfsync="always") as server:
        yield server


@pytest.fixture
def mortal_kit(mortal: ValkeyServer) -> t.Iterator[Kit]:
    kit = Kit(mortal.url)
    kit.server.repeats = False
    yield kit
    kit.close()


def insist(call: t.Callable[[], t.Any]) -> t.Any:
    """Repeat *call* until it is answered, as the engine does."""
    deadline = time.monotonic() + 30
    while True:
        try:
            return call()
        except TRANSIENT:
            assert time.monotonic() < deadline


# -- Scripts --------------------------------------------------------------------------


def test_a_script_that_the_server_forgot_is_given_to_it_again(kit: Kit) -> None:
    run_id = kit.running()
    for _ in range(2):
        kit.client.script_flush()
        assert kit.commit(run_id, "a") == Committed()
    assert kit.memo_head(run_id, "a")[0] == "done"


def test_scripts_of_a_pipeline_are_given_again_and_none_counts_twice(kit: Kit) -> None:
    runs = [kit.new_run() for _ in range(3)]
    calls = [kit.store.creation(run) for run in runs]
    kit.client.script_flush()

    *replies, echo = kit.server.call_many(calls, ("ECHO", "plain"))

    assert [reply[0] for reply in replies] == ["queued"] * 3
    assert echo == "plain"
    assert len(kit.members("runs")) == 3


def test_a_pipeline_where_one_script_is_forgotten_gives_all_replies(kit: Kit) -> None:
    kit.server.repeats = False
    run_id = kit.queued()
    kit.client.script_flush()
    kit.create(kit.new_run())  # known again; run_claim is not
    args: list[Argument] = [run_id, "t1", 30_000, 5, "v1", 0]
    claim = ("run_claim", kit.keys.root, args)

    replies = kit.server.call_many([kit.store.creation(kit.new_run()), claim])

    assert [reply[0] for reply in replies] == ["queued", "claimed"]
    assert kit.record(run_id)["dispatches"] == "1"


def test_an_error_of_one_script_stands_in_its_place(kit: Kit) -> None:
    kit.server.repeats = False
    broken = ("run_create", kit.keys.root, ["id"])
    fine = kit.store.creation(kit.new_run())

    first, second = kit.server.call_many([broken, fine])

    assert isinstance(first, redis.ResponseError)
    assert second[0] == "queued"


def test_an_error_of_a_call_is_raised_and_leaves_the_connection_usable(
    kit: Kit,
) -> None:
    for _ in range(3):
        with pytest.raises(redis.ResponseError):
            StateServer.call(kit.server, "run_create", kit.keys.root, "id")
        assert kit.status(kit.queued()) == "queued"


def test_threads_do_not_get_each_others_replies(kit: Kit) -> None:
    kit.server.repeats = False
    runs = {kit.running(token=f"t{number}"): f"t{number}" for number in range(8)}

    def work(pair: tuple[str, str]) -> list[Commit]:
        run_id, token = pair
        return [
            kit.commit(run_id, f"step{number}", token, payload=f"{run_id} {number}")
            for number in range(50)
        ]

    with ThreadPoolExecutor(8) as pool:
        replies = list(pool.map(work, runs.items()))

    assert replies == [[Committed()] * 50] * 8
    for run_id in runs:
        memos = kit.store.read(run_id)[1]
        assert {memo.payload for memo in memos.values()} == {
            f"{run_id} {number}" for number in range(50)
        }


# -- Outages --------------------------------------------------------------------------


def test_calls_go_on_after_the_server_was_killed_and_started(
    mortal: ValkeyServer, mortal_kit: Kit
) -> None:
    run_id = mortal_kit.running()
    mortal_kit.commit(run_id, "before")
    mortal.kill()
    with pytest.raises(TRANSIENT):
        mortal_kit.commit(run_id, "during")
    with pytest.raises(TRANSIENT):
        mortal_kit.claim(run_id)
    mortal.start()

    # It knows no script any more, and its connections are closed.
    assert insist(lambda: mortal_kit.commit(run_id, "after")) == Committed()
    mortal_kit.suspend(run_id, "handback", "0")
    claim = insist(lambda: mortal_kit.claim(run_id, "t2"))
    assert set(claim.memos) == {"before", "after"}


@pytest.mark.parametrize("name", ["call", "call_many"])
def test_the_first_call_after_a_restart_is_answered(
    mortal: ValkeyServer, mortal_kit: Kit, name: str
) -> None:
    run_id = mortal_kit.running()
    mortal_kit.commit(run_id, "before")
    mortal_kit.suspend(run_id, "handback", "0")
    mortal.kill()
    mortal.start()

    if name == "call":
        assert isinstance(mortal_kit.store.park(run_id), Deferred)
    else:
        mortal_kit.claim(run_id, "t2")


def test_a_server_that_dies_among_calls_loses_and_doubles_nothing(
    mortal: ValkeyServer, mortal_kit: Kit
) -> None:
    runs = {mortal_kit.running(token=f"t{n}"): f"t{n}" for n in range(4)}
    stopping = threading.Event()
    counts = dict.fromkeys(runs, 0)

    def work(run_id: str) -> None:
        token = runs[run_id]
        while not stopping.is_set():
            step = f"step{counts[run_id]}"
            reply = insist(lambda: mortal_kit.commit(run_id, step, token))  # noqa: B023
            assert reply == Committed()
            counts[run_id] += 1

    with ThreadPoolExecutor(4) as pool:
        workers = [pool.submit(work, run_id) for run_id in runs]
        for _ in range(2):
            goal = sum(counts.values()) + 100
            wait = threading.Event()
            while sum(counts.values()) < goal and not any(w.done() for w in workers):
                wait.wait(0.01)
            mortal.kill()
            mortal.start()
        stopping.set()
        for worker in workers:
            worker.result(60)

    for run_id, count in counts.items():
        memos = mortal_kit.store.read(run_id)[1]
        assert set(memos) == {f"step{number}" for number in range(count)}
        assert mortal_kit.record(run_id)["token"] == runs[run_id]


def test_a_server_that_does_not_answer_is_given_up(
    mortal: ValkeyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flask_durable.store.server.SOCKET_TIMEOUT", 0.2)
    monkeypatch.setattr("flask_durable.store.server.CLIENT_RETRIES", 0)
    server = StateServer(mortal.url)
    server.call("barrier", "{n:0}")
    client = server.new_client(retries=0, timeout=0.2)
    mortal.pause()
    try:
        with pytest.raises(redis.TimeoutError):
            client.ping()
    finally:
        mortal.resume()
    server.close()
    client.close()


def test_an_address_that_cannot_be_used_is_named_without_its_password() -> None:
    with pytest.raises(ConfigurationError) as raised:
        _ = StateServer("redis://user:secret@localhost:port/0").client
    assert "secret" not in str(raised.value)
    assert "secret" not in repr(StateServer("redis://user:secret@localhost:1/0"))


def test_a_closed_connection_is_opened_again(kit: Kit) -> None:
    run_id = kit.running()
    kit.server.close()
    assert kit.commit(run_id, "a") == Committed()


# -- Forks ----------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_forked_process_has_connections_of_its_own(kit: Kit) -> None:
    run_id = kit.running()
    kit.server.repeats = False
    kit.commit(run_id, "parent")
    mine = _ids(kit)
    read, write = os.pipe()

    def child() -> None:
        for number in range(20):
            assert kit.commit(run_id, f"child{number}") == Committed()
        os.write(write, ",".join(_ids(kit)).encode())

    assert in_child(child) == 0
    theirs = set(os.read(read, 1000).decode().split(","))
    os.close(read)
    os.close(write)

    assert not mine & theirs
    assert _ids(kit) == mine
    assert kit.commit(run_id, "parent again") == Committed()
    assert len(kit.store.read(run_id)[1]) == 22


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_processes_that_were_forked_work_side_by_side(kit: Kit) -> None:
    kit.server.repeats = False
    runs = [kit.running(token="t1") for _ in range(4)]
    store: RunStore = kit.store
    children = []

    def commit_steps(run_id: str) -> None:
        for number in range(100):
            reply = store.commit(run_id, "t1", f"s{number}", "done", 1, run_id)
            assert reply == Committed()

    for run_id in runs:
        children.append(start_child(functools.partial(commit_steps, run_id)))
        assert kit.commit(run_id, "parent", payload=run_id) == Committed()

    assert [exit_code(child) for child in children] == [0, 0, 0, 0]
    for run_id in runs:
        memos = kit.store.read(run_id)[1]
        assert len(memos) == 101
        assert {memo.payload for memo in memos.values()} == {run_id}


def _ids(kit: Kit) -> set[str]:
    """Return the server's ids of the connections that calls and commands use."""
    made = kit.server._made
    here = made is not None and made[1] == os.getpid()
    plain = kit.client if here else kit.server.client
    return {str(plain.client_id())}


def test_there_is_a_client_while_another_thread_lets_go_of_the_connections(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server = StateServer("redis://127.0.0.1:1/0")
    first = server.client
    real = os.getpid

    def between() -> int:
        monkeypatch.setattr(os, "getpid", real)
        server.reconnect()
        return real()

    monkeypatch.setattr(os, "getpid", between)
    assert server.client is first
    assert server.client not in (first, None)


@pytest.mark.parametrize("piped", [False, True])
@pytest.mark.parametrize(
    ("word", "passes"),
    [
        *[(word, True) for word in ("OOM", "BUSY", "CLUSTERDOWN", "MASTERDOWN")],
        *[(word, True) for word in ("MISCONF", "NOREPLICAS", "READONLY")],
        *[(word, False) for word in ("ERR", "WRONGTYPE", "NOPERM")],
    ],
)
def test_the_word_of_an_answer_says_whether_it_passes_by_itself(
    valkey: ValkeyServer, word: str, passes: bool, piped: bool
) -> None:
    answer = f"return redis.error_reply('{word} not now')"
    with redis.Redis.from_url(valkey.url) as client:
        pipeline = client.pipeline(transaction=False)
        pipeline.eval(answer, 0)
        ask = pipeline.execute if piped else lambda: client.eval(answer, 0)
        with pytest.raises(redis.ResponseError) as refusal:
            ask()
    assert is_transient(refusal.value) == passes
    assert is_full(refusal.value) == (word == "OOM")
