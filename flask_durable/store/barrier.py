"""The barrier: no message is deleted from a queue before its effect is on disk.

One small write, then ``WAITAOF`` or ``WAIT``. When that is answered, everything this
server acknowledged before the write is as durable as the server was asked to make it.
In a cluster, each server that holds some of the state is asked, all at the same time.
One barrier runs at a time, and all callers that asked before it began share it.

State that was acknowledged by a server that has stopped since may be gone, and no wait
brings it back. So each barrier also asks the server who it is: a server that was
started again, or took over from another, has another ``run_id``.
"""

from __future__ import annotations

import functools
import threading
import typing as t
from concurrent.futures import Future
from concurrent.futures import ThreadPoolExecutor

import redis

from ..errors import UnavailableError
from ..redis.client import holders
from ..redis.exchange import execute
from ..redis.scripts import load
from .promise import ask_server
from .promise import Promise
from .promise import run_id_of
from .server import StateServer

#: Seconds for the disk or the replicas; ``everysec`` takes up to about two.
TIMEOUT = 10.0


class StateMayBeLost(UnavailableError):
    """Raised if the server was replaced or started again since the state was written.

    The server has what it kept. A caller that has a message, or can send it again,
    repeats its effect: everything that a message leads to can be repeated.
    """

    def __init__(self) -> None:
        super().__init__("The state server was started again: state may be lost.")


class Barrier:
    """Waits until what was written so far is durable.

    :param server: The state server.
    :param tags: The tags of all keys that it is for; a small write goes under one of
        each server.
    :param replicas: The number of replicas that must have the state,
        ``DURABLE_REPLICAS``.
    :param timeout: Seconds for the disk or the replicas.
    """

    def __init__(
        self,
        server: StateServer,
        tags: t.Sequence[str],
        replicas: int,
        timeout: float = TIMEOUT,
    ) -> None:
        self._server = server
        self._tags = tags
        self._replicas = replicas
        self._timeout = timeout
        self._lock = threading.Lock()
        #: The barrier that has not begun yet, if a caller waits for one.
        self._next: Future[None] | None = None
        #: Held by the barrier that has begun.
        self._turn = threading.Lock()
        self._client: redis.Redis | None = None
        self._promise: Promise | None = None
        #: The ``run_id`` of each server that held state when it was last compared.
        self._run_ids: set[str] = set()
        self._losses = 0

    def promise(self) -> Promise:
        """Ask the server what it keeps; remembered after the first answer.

        :raises ConfigurationError: The server is too old, its ``maxmemory-policy`` may
            evict state, or the account may not do what barriers need.
        """
        promise = self._promise
        if promise is None:
            promise = self._promise = self._ask()
        return promise

    def mark(self) -> int:
        """Return a mark for :meth:`wait`, for state that is written from now on.

        :raises UnavailableError: This is the first use, and the server did not answer.
        """
        if not self._run_ids:
            try:
                self.promise()
            except redis.RedisError as error:
                raise _not_durable(error) from error
        return self._losses

    def wait(self, since: int | None = None) -> None:
        """Return once everything acknowledged before this call is durable.

        :param since: The :meth:`mark` from before the state was written. Without it, a
            restart that another barrier noticed before this call goes unheard.
        :raises StateMayBeLost: Some of the state may be lost.
        :raises UnavailableError: The server did not confirm the state in time.
        """
        if since is None:
            since = self._losses
        with self._lock:
            # A barrier that has begun may have made its write before our state was
            # written: only the next one covers it.
            shared, leads = self._next, self._next is None
            if shared is None:
                shared = self._next = Future()
        if leads:
            self._lead(shared)
        try:
            shared.result()
        except (redis.RedisError, UnavailableError) as error:
            raise _not_durable(error) from error
        if self._losses != since:
            raise StateMayBeLost

    def reconnect(self) -> None:
        """Use a new connection from now on."""
        with self._turn:
            client, self._client = self._client, None
        if client is not None:
            client.close()

    def follower(self) -> t.Callable[[], bool]:
        """Return a wait for one thread, which is told of each loss once.

        It returns whether everything written since its last call is still there,
        whichever barrier noticed, and otherwise raises as :meth:`wait` does.
        """
        since = self._losses

        def wait() -> bool:
            nonlocal since
            try:
                self.wait(since)
            except StateMayBeLost:
                since = self._losses
                return False
            return True

        return wait

    def _lead(self, shared: Future[None]) -> None:
        """Carry *shared* out for all that wait for it, however it ends."""
        try:
            with self._turn:
                self._begin(shared)
                self._pass()
        except Exception as error:
            self._begin(shared)
            shared.set_exception(error)
        except BaseException:
            # An interrupt is meant for this thread alone.
            self._begin(shared)
            shared.set_exception(UnavailableError("the wait for it was interrupted"))
            raise
        else:
            shared.set_result(None)

    def _begin(self, shared: Future[None]) -> None:
        """Close *shared* to further callers."""
        with self._lock:
            if self._next is shared:
                self._next = None

    def _pass(self) -> None:
        promise = self.promise()
        if self._client is None:
            # No client retries: a repeated WAIT would be for a later write.
            # An answer that the server gives in time has time to arrive.
            answer = self._timeout + min(self._timeout, 2.0)
            self._client = self._server.new_client(retries=0, timeout=answer)
        confirm = functools.partial(self._confirm, promise=promise)
        try:
            servers = holders(self._client, self._tags)
            if len(servers) == 1:
                run_ids = {confirm(servers[0])}
            else:
                with ThreadPoolExecutor(len(servers)) as threads:
                    run_ids = set(threads.map(confirm, servers))
        except redis.RedisError:
            # A cluster may have moved its keys: the next client asks for their place.
            # And a server that was started again may keep less than the old one.
            self._promise = None
            client, self._client = self._client, None
            client.close()
            raise
        self._compare(run_ids)

    def _compare(self, run_ids: set[str]) -> None:
        """Note the servers, and whether each was there before."""
        if run_ids <= self._run_ids:
            return
        # Another server may keep less.
        self._promise = None
        self._run_ids = run_ids
        self._losses += 1

    def _confirm(self, holder: tuple[redis.Redis, str], *, promise: Promise) -> str:
        """Wait for one server; return its ``run_id``."""
        client, tag = holder
        pipeline = client.pipeline(transaction=False)
        waits = promise.waits_for_file or self._replicas > 0
        if waits:
            # A script, because a SET is refused where the server's memory is full: then
            # no message could be deleted from a queue that lives elsewhere. Where the
            # tag has moved away it is refused, and nothing counts as confirmed.
            execute(pipeline, "EVAL", load(__package__, "barrier").source, 1, tag)
            limit = int(self._timeout * 1000)
            if promise.waits_for_file:
                execute(pipeline, "WAITAOF", 1, self._replicas, limit)
            else:
                execute(pipeline, "WAIT", self._replicas, limit)
        execute(pipeline, "INFO", "server")
        *replies, info = pipeline.execute()
        if waits:
            self._check(replies[1])
        return run_id_of(info)

    def _check(self, reply: t.Any) -> None:
        """Check the reply of ``WAITAOF`` or ``WAIT``."""
        local, replicas = reply if isinstance(reply, list) else (None, reply)
        if local == 0 or replicas < self._replicas:
            raise UnavailableError("the server did not confirm the write in time")

    def _ask(self) -> Promise:
        promise, run_ids = ask_server(self._server.client, self._tags, self._replicas)
        with self._lock:
            # The first answer stays: a later one may be that of another server.
            self._run_ids = self._run_ids or run_ids
        return promise


def _not_durable(error: Exception) -> UnavailableError:
    return UnavailableError(f"The state is not durable yet: {error}.")
