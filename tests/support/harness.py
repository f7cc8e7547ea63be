"""Drives an app's events and runs one thing at a time, on real servers.

It is a worker without threads: the test calls the same router, executor and sweeper.
The state server's clock is moved by moving the times on it.
"""

from __future__ import annotations

import typing as t

from flask import Flask

from flask_durable import Durable
from flask_durable import Run
from flask_durable.app.state import AppState
from flask_durable.engine.claimed_run import ClaimedRun
from flask_durable.engine.executor import Executor
from flask_durable.engine.leases import Leases
from flask_durable.engine.router import Router
from flask_durable.engine.sweeper import Sweeper
from flask_durable.messages import EVENT_QUEUE

#: The sorted sets by time, below each partition's tag.
_TIMES = (
    "timers",
    "parents",
    "leases",
    "queued",
    "outboxes",
    "expire",
    "schedules",
)


class LocalThreads:
    """Takes the place of a worker's run threads: runs wait here until they are driven.

    :param free: The number of runs that the router may claim.
    """

    def __init__(self, queues: t.Container[str], free: int) -> None:
        self.runs: list[ClaimedRun] = []
        self.free = free
        self._queues = queues

    def serves(self, queue: str) -> bool:
        return queue in self._queues

    def reserve(self) -> bool:
        return len(self.runs) < self.free

    def release(self) -> None:
        pass

    def hand_over(self, queue: str, run: ClaimedRun) -> None:
        self.runs.append(run)


class Harness:
    """An app with a :class:`Durable`, and a worker that the test drives.

    :param url: The URL of the state server.
    :param in_place: The number of runs the router may claim at once; 0 sends each run
        through a run message.
    :param config: Further ``DURABLE_*`` keys; ``None`` leaves one out.
    """

    def __init__(
        self,
        url: str,
        namespace: str,
        *,
        durable: Durable | None = None,
        in_place: int = 8,
        **config: t.Any,
    ) -> None:
        self.durable = durable or Durable()
        self.app = Flask(f"app_{namespace}")
        self.app.config.update(
            DURABLE_REDIS_URL=url, DURABLE_NAMESPACE=namespace, DURABLE_FSYNC="off"
        )
        self.app.config.update({k: v for k, v in config.items() if v is not None})
        self.durable.init_app(self.app)
        self.in_place = in_place
        self._started = False

    @property
    def state(self) -> AppState:
        return self.durable.state_of(self.app)

    def start(self) -> None:
        """Publish the functions and make the parts of a worker; once is enough."""
        if self._started:
            return
        self._started = True
        state = self.state
        state.window.add(1)
        self.publish()
        self.leases = Leases(state.store)
        self.executor = Executor(state.services, state.outbox, self.leases)
        self.threads = LocalThreads(self.durable.functions.queues(), self.in_place)
        self.router = Router(state.services, state.outbox, self.threads)
        self.sweeper = Sweeper(state.services, state.outbox, state.admin)

    def publish(self) -> None:
        """Publish the functions as a worker does when it starts."""
        self.state.directory.publish(self.durable.functions.specs())
        self.state.directory.current()

    def send(self, *args: t.Any, **kwargs: t.Any) -> str:
        """Send an event from inside the app."""
        with self.app.app_context():
            return self.durable.send(*args, **kwargs)

    def route(self, limit: int = 10) -> int:
        """Route the events that wait; return their number."""
        self.start()
        deliveries = self.state.broker.deliveries(EVENT_QUEUE, limit, 0)
        if deliveries:
            self.router.route(deliveries)
        return len(deliveries)

    def execute(self) -> int:
        """Execute one attempt of each run that is ready; return their number."""
        self.start()
        ready, self.threads.runs = self.threads.runs, []
        for run in ready:
            self.executor.execute(run)
        count = len(ready)
        for queue in self.durable.functions.queues():
            for delivery in self.state.broker.deliveries(queue, 10, 0):
                run = self.executor.claim(t.cast(t.Any, delivery.message))
                delivery.done()
                count += 1
                if run is not None:
                    self.executor.execute(run)
        return count

    def settle(self) -> None:
        """Route and execute until nothing is ready any more."""
        for _ in range(1000):
            if not self.route() + self.execute():
                self.state.broker.flush_settled(5)
                return
        raise AssertionError("it never settles")

    def sweep(self) -> None:
        """Sweep once, as every worker does each second."""
        self.start()
        self.sweeper.sweep()
        while self.sweeper.objects.work():
            pass

    def advance(self, seconds: float) -> None:
        """Move the server's clock on, as far as runs can tell, and settle."""
        self.move_clock(seconds)
        self.sweep()
        self.settle()

    def move_clock(self, seconds: float) -> None:
        """Bring every time on the server nearer by *seconds*."""
        client = self.state.server.client
        for tag in self.state.store.keys.tags:
            keys = [f"{tag}:{name}" for name in _TIMES]
            for key in [*keys, *client.scan_iter(f"{tag}:outbox:*")]:
                members = t.cast("list[str]", client.zrange(key, 0, -1))
                for member in members:
                    client.zincrby(key, -seconds * 1000, member)
            looks = t.cast("dict[str, str]", client.hgetall(f"{tag}:looks"))
            for run_id, look in looks.items():
                token, *times = look.split(" ")
                moved = " ".join(str(int(time) - int(seconds * 1000)) for time in times)
                client.hset(f"{tag}:looks", run_id, f"{token} {moved}")

    def expire_leases(self) -> None:
        """Let every lease run out, look at it twice, and take over the runs."""
        lease = self.state.settings.lease
        self.move_clock(lease + 1)
        self.sweep()
        self.move_clock(lease / 2)
        self.sweep()

    def run_of(self, event_id: str, function: str | None = None) -> Run:
        """Return the one run of an event, or that of a function, with its steps."""
        runs = self.runs.of_event(event_id)
        if function is not None:
            runs = [run for run in runs if run.function == function]
        assert len(runs) == 1, f"{len(runs)} runs of {event_id}"
        return self.runs.get(runs[0].id)

    def send_and_settle(self, *args: t.Any, **kwargs: t.Any) -> Run:
        """Send an event and settle; return its run."""
        return self.run_of_settled(self.send(*args, **kwargs))

    def run_of_settled(self, event_id: str) -> Run:
        """Settle, and return the one run of an event."""
        self.settle()
        return self.run_of(event_id)

    @property
    def runs(self) -> t.Any:
        return self.state.runs

    def close(self) -> None:
        """Close the connections."""
        self.state.broker.close()
        self.state.server.close()
        if "impatient_server" in vars(self.state):
            self.state.impatient_server.close()
        if "store" in vars(self.state):
            self.state.store.upkeep.close()
