"""The barrier: shared by all who came before it began, and true in its promise."""

from __future__ import annotations

import threading
import typing as t
from concurrent.futures import ThreadPoolExecutor

import pytest
import redis

from flask_durable.errors import ConfigurationError
from flask_durable.errors import UnavailableError
from flask_durable.store.barrier import Barrier
from flask_durable.store.barrier import StateMayBeLost
from flask_durable.store.barrier import TIMEOUT
from flask_durable.store.promise import Promise
from flask_durable.store.server import StateServer

from ..support.servers import valkey_server
from ..support.servers import ValkeyServer
from ..support.servers import wait_until

TAG = "{barrier:0}"


class Gate:
    """Stands where the barrier talks to its server, and holds it until it is let go."""

    def __init__(self, barrier: Barrier, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begun = 0
        self.running = 0
        self.most = 0
        self.outcomes: list[BaseException | None] = []
        self._lock = threading.Lock()
        self._open = threading.Semaphore(0)
        monkeypatch.setattr(barrier, "_pass", self._pass)

    def _pass(self) -> None:
        with self._lock:
            self.begun += 1
            self.running += 1
            self.most = max(self.most, self.running)
        self._open.acquire()
        with self._lock:
            self.running -= 1
            outcome = self.outcomes.pop(0) if self.outcomes else None
        if outcome is not None:
            raise outcome

    def let_go(self) -> None:
        self._open.release()

    def open(self) -> None:
        """Hold nobody any more, so that a test that failed ends."""
        self._open.release(1000)

    def has_begun(self, number: int) -> None:
        wait_until(lambda: self.begun == number, f"barrier {number}")


@pytest.fixture
def barrier(valkey: ValkeyServer) -> t.Iterator[Barrier]:
    server = StateServer(valkey.url)
    yield Barrier(server, [TAG], 0)
    server.close()


@pytest.fixture
def gate(barrier: Barrier, monkeypatch: pytest.MonkeyPatch) -> Gate:
    return Gate(barrier, monkeypatch)


@pytest.fixture
def threads(gate: Gate) -> t.Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(32) as pool:
        yield pool
        gate.open()


def _wait(barrier: Barrier, threads: ThreadPoolExecutor, count: int) -> list[t.Any]:
    """Have *count* threads wait, and return their outcomes once all have come."""
    entered = threading.Barrier(count + 1)

    def wait() -> None:
        entered.wait(30)
        barrier.wait()

    found = [threads.submit(wait) for _ in range(count)]
    entered.wait(30)
    return found


def _all_waiting(barrier: Barrier, outcomes: list[t.Any]) -> None:
    """Return when every thread has joined a barrier."""

    def joined() -> bool:
        shared = barrier._next
        return shared is not None and _waiters(shared) == len(outcomes) - 1

    wait_until(joined, "the waiters")


def _waiters(future: t.Any) -> int:
    """Return how many threads wait for *future* itself (its leader does not yet)."""
    return len(future._condition._waiters)


def test_those_who_come_while_one_runs_share_the_next(
    barrier: Barrier, gate: Gate, threads: ThreadPoolExecutor
) -> None:
    first = threads.submit(barrier.wait)
    gate.has_begun(1)
    crowd = _wait(barrier, threads, 20)
    _all_waiting(barrier, crowd)

    gate.let_go()
    first.result(10)
    gate.has_begun(2)
    assert not any(waiter.done() for waiter in crowd)
    gate.let_go()
    for waiter in crowd:
        waiter.result(10)

    assert gate.begun == 2
    assert gate.most == 1


def test_who_comes_after_a_barrier_began_is_not_covered_by_it(
    barrier: Barrier, gate: Gate, threads: ThreadPoolExecutor
) -> None:
    first = threads.submit(barrier.wait)
    gate.has_begun(1)
    late = threads.submit(barrier.wait)
    gate.let_go()
    first.result(10)
    gate.has_begun(2)
    later = threads.submit(barrier.wait)
    wait_until(lambda: barrier._next is not None, "the third barrier")

    assert not late.done()
    gate.let_go()
    late.result(10)
    assert not later.done()
    gate.let_go()
    later.result(10)
    assert gate.begun == 3


@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (redis.ConnectionError("gone"), UnavailableError),
        (redis.ResponseError("ERR no"), UnavailableError),
        (UnavailableError("not in time"), UnavailableError),
        (ConfigurationError("it evicts"), ConfigurationError),
        (RuntimeError("a bug"), RuntimeError),
    ],
)
def test_a_failure_is_that_of_all_who_shared_it(
    barrier: Barrier,
    gate: Gate,
    threads: ThreadPoolExecutor,
    error: Exception,
    raised: type[Exception],
) -> None:
    first = threads.submit(barrier.wait)
    gate.has_begun(1)
    crowd = _wait(barrier, threads, 5)
    _all_waiting(barrier, crowd)
    gate.outcomes = [None, error]
    gate.let_go()
    gate.let_go()

    first.result(10)
    for waiter in crowd:
        with pytest.raises(raised):
            waiter.result(10)
    assert gate.begun == 2
    gate.let_go()
    barrier.wait()


def test_an_interrupt_of_the_leader_does_not_strand_the_others(
    barrier: Barrier, gate: Gate, threads: ThreadPoolExecutor
) -> None:
    first = threads.submit(barrier.wait)
    gate.has_begun(1)
    crowd = _wait(barrier, threads, 3)
    _all_waiting(barrier, crowd)
    gate.outcomes = [None, KeyboardInterrupt()]
    gate.let_go()
    gate.let_go()

    first.result(10)
    kinds = sorted(type(waiter.exception(10)).__name__ for waiter in crowd)
    assert kinds == ["KeyboardInterrupt", "UnavailableError", "UnavailableError"]
    gate.let_go()
    barrier.wait()


# -- On real servers ------------------------------------------------------------------


@pytest.fixture(scope="module")
def always() -> t.Iterator[ValkeyServer]:
    with valkey_server(appendfsync="always") as server:
        yield server


@pytest.fixture(scope="module")
def memory_only() -> t.Iterator[ValkeyServer]:
    with valkey_server(appendonly="no") as server:
        yield server


@pytest.fixture(scope="module")
def never() -> t.Iterator[ValkeyServer]:
    with valkey_server(appendfsync="no") as server:
        yield server


def _of(server: ValkeyServer, replicas: int = 0, timeout: float = TIMEOUT) -> Barrier:
    return Barrier(StateServer(server.url), [TAG], replicas, timeout)


def test_the_promise_says_what_an_append_only_file_keeps(valkey: ValkeyServer) -> None:
    promise = _of(valkey).promise()

    knows = valkey.knows("WAITAOF")
    assert promise == Promise(aof=True, fsync="everysec", waitaof=knows, replicas=0)
    if knows:
        kept = "on disk before a message is deleted (appendfsync everysec)"
    else:
        kept = "on disk within about a second (appendfsync everysec, and no WAITAOF"
    assert str(promise).startswith(kept)


def test_the_promise_says_that_every_write_is_on_disk(always: ValkeyServer) -> None:
    assert str(_of(always).promise()) == "on disk at each write"


def test_the_promise_says_that_memory_is_all_there_is(
    memory_only: ValkeyServer,
) -> None:
    promise = _of(memory_only).promise()

    assert str(promise) == "memory only: a restart of the server loses all state"


@pytest.mark.parametrize(
    ("promise", "text"),
    [
        (Promise(True, "no", True, 1), "(appendfsync no), on 1 replica(s)"),
        (Promise(True, "no", True, 0), "synced when the operating system likes"),
        (Promise(True, "no", False, 0), "synced when the operating system likes"),
        (Promise(True, "everysec", False, 0), "on disk within about a second"),
        (Promise(False, "everysec", True, 2), "all state, on 2 replica(s)"),
    ],
)
def test_the_promise_names_replicas_and_old_servers(
    promise: Promise, text: str
) -> None:
    assert text in str(promise)


def test_what_was_written_before_a_barrier_outlives_the_server() -> None:
    with valkey_server() as server:
        barrier = _of(server)
        with redis.Redis.from_url(server.url, decode_responses=True) as client:
            for number in range(200):
                client.set(f"key{number}", "written")
        barrier.wait()
        server.kill()
        server.start()
        with redis.Redis.from_url(server.url, decode_responses=True) as client:
            # What a barrier writes itself is there too, where it waits for something.
            assert client.dbsize() == 200 + server.knows("WAITAOF")
            assert client.get("key199") == "written"


@pytest.mark.parametrize("name", ["always", "memory_only", "never"])
def test_there_is_nothing_to_wait_for_where_the_file_cannot_lag_or_never_confirms(
    request: pytest.FixtureRequest, name: str
) -> None:
    server: ValkeyServer = request.getfixturevalue(name)
    _of(server, timeout=0.2).wait()

    with redis.Redis.from_url(server.url) as client:
        assert not client.exists(f"{TAG}:barrier")


def test_a_server_that_may_evict_is_refused() -> None:
    with valkey_server(**{"maxmemory-policy": "allkeys-lru"}) as server:
        barrier = _of(server)
        with pytest.raises(ConfigurationError, match="allkeys-lru") as raised:
            barrier.promise()
        assert "noeviction" in str(raised.value)
        for _ in range(2):
            with pytest.raises(ConfigurationError):
                barrier.wait()


def test_replicas_that_do_not_answer_make_it_unavailable(
    always: ValkeyServer, valkey: ValkeyServer
) -> None:
    for server in (always, valkey):
        with pytest.raises(UnavailableError, match="not durable yet"):
            _of(server, replicas=1, timeout=0.2).wait()


def test_a_replica_that_has_the_write_is_enough(always: ValkeyServer) -> None:
    replica_of = f"127.0.0.1 {always.port}"
    config = {"repl-diskless-sync-delay": "0"}
    always_client = redis.Redis.from_url(always.url)
    always_client.config_set("repl-diskless-sync-delay", "0")
    with valkey_server(appendonly="no", replicaof=replica_of, **config) as replica:
        always_client.set("before", "1")
        _of(always, replicas=1).wait()
        with redis.Redis.from_url(replica.url) as copy:
            assert copy.exists("before", f"{TAG}:barrier") == 2
    always_client.close()


def _refuses(client: redis.Redis) -> bool:
    """Store some more; return whether there was no room for it."""
    try:
        client.rpush("much", "x" * 100_000)
    except redis.ResponseError:
        return True
    return False


def test_a_full_memory_does_not_keep_messages_from_being_deleted() -> None:
    with valkey_server(maxmemory="3mb") as server:
        client = redis.Redis.from_url(server.url)
        wait_until(lambda: _refuses(client), "a full memory")

        _of(server).wait()

        client.close()


def test_a_server_that_forbids_config_is_asked_otherwise(valkey: ValkeyServer) -> None:
    with redis.Redis.from_url(valkey.url) as client:
        client.acl_setuser(
            "guest",
            enabled=True,
            passwords=["+secret"],
            keys=["*"],
            channels=["*"],
            categories=["+@all"],
            commands=["-config"],
        )
    url = valkey.url.replace("redis://", "redis://guest:secret@")
    barrier = Barrier(StateServer(url), [TAG], 0)

    promise = barrier.promise()

    assert (promise.aof, promise.fsync) == (True, "unknown")
    barrier.wait()


# -- A server that was started again --------------------------------------------------


@pytest.fixture(params=["everysec", "always", "no", "memory only"])
def mortal(request: pytest.FixtureRequest) -> t.Iterator[ValkeyServer]:
    """A server that a test may kill and start again, of each kind."""
    config = {"appendfsync": request.param}
    if request.param == "memory only":
        config = {"appendonly": "no"}
    with valkey_server(**config) as server:
        yield server


def _restart(server: ValkeyServer) -> None:
    server.kill()
    server.start()


def test_a_restart_is_noticed_once_and_passes_afterwards(mortal: ValkeyServer) -> None:
    barrier = _of(mortal)
    barrier.promise()
    _restart(mortal)

    with pytest.raises(StateMayBeLost):
        barrier.wait()
    barrier.wait()
    barrier.wait()

    _restart(mortal)
    with pytest.raises(StateMayBeLost):
        barrier.wait()
    barrier.wait()


def test_a_restart_is_noticed_by_all_who_share_the_barrier() -> None:
    with valkey_server() as server, ThreadPoolExecutor(5) as threads:
        barrier = _of(server)
        barrier.wait()
        _restart(server)
        with barrier._turn:
            crowd = _wait(barrier, threads, 5)
            _all_waiting(barrier, crowd)

        errors = [waiter.exception(20) for waiter in crowd]
        assert {type(error) for error in errors} == {StateMayBeLost}
        # Each has its own, so that their tracebacks do not grow into one another.
        assert len({id(error) for error in errors}) == 5
        barrier.wait()


def test_a_restart_during_the_outage_is_noticed_when_the_server_is_back() -> None:
    with valkey_server() as server:
        barrier = _of(server)
        barrier.wait()
        server.kill()
        with pytest.raises(UnavailableError) as raised:
            barrier.wait()
        assert not isinstance(raised.value, StateMayBeLost)
        server.start()
        with pytest.raises(StateMayBeLost):
            barrier.wait()
        barrier.wait()


def test_a_writer_before_a_restart_hears_of_it_if_another_noticed() -> None:
    with valkey_server() as server:
        barrier = _of(server)
        mark, told = barrier.mark(), barrier.follower()
        assert told()
        _restart(server)
        with pytest.raises(StateMayBeLost):
            barrier.wait()

        for _ in range(2):
            with pytest.raises(StateMayBeLost):
                barrier.wait(mark)
        assert [told(), told()] == [False, True]
        barrier.wait(barrier.mark())


def test_a_mark_is_not_given_before_the_server_said_who_it_is() -> None:
    with valkey_server() as server:
        barrier = _of(server)
        server.kill()
        with pytest.raises(UnavailableError, match="not durable yet"):
            barrier.mark()
        server.start()
        assert barrier.mark() == 0
        barrier.wait(0)


def test_a_server_that_came_back_without_its_file_is_asked_again() -> None:
    with valkey_server() as server:
        barrier = _of(server)
        barrier.wait()
        assert barrier.promise().aof
        server._config["appendonly"] = "no"
        _restart(server)

        # Where WAITAOF is refused now, that is what the first answer says.
        with pytest.raises(UnavailableError):
            barrier.wait(0)
        with pytest.raises(StateMayBeLost):
            barrier.wait(0)
        barrier.wait()
        assert not barrier.promise().aof
