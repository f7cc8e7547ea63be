"""The processes that run a workload, and the checker of their work.

The world outlives the simulated processes: the side effects of step bodies, the
committed outcomes, and the servers.
"""

from __future__ import annotations

import functools
import pathlib
import time
import typing as t
from collections import Counter

import redis
from sqlalchemy.exc import SQLAlchemyError

from flask_durable import current_run
from flask_durable import UnavailableError
from flask_durable.common.ids import ancestors_of
from flask_durable.messages import EVENT_QUEUE
from flask_durable.queue.transport import QueueAway
from flask_durable.redis.errors import TRANSIENT
from flask_durable.worker.router_thread import RouterThread

from ..support.harness import Harness
from .clock import Clock
from .faults import Fault
from .faults import Operations
from .faults import SimulatedDeath

if t.TYPE_CHECKING:
    from .workloads import Workload

#: Seconds that a run and a message are in hand. A lease lasts longer than a whole life;
#: a server gives no message to another consumer before it is up for a visibility.
LEASE = 600
VISIBILITY = 1

#: Bytes beyond which events and results are large.
INLINE = 2048

#: Seconds of a leap of the clock when nothing is left to do: past the sleep of an hour.
LEAP = 4000

#: Leaps after which a life that has not settled never will.
MAX_LEAPS = 15

#: The beginnings of the names of scripts that leave nothing to be mended when they are
#: called again because their reply was lost.
REPEATABLE = ("run_", "step_", "child_", "branches_", "waiter", "signal_", "event_")

QUEUES = ("default", "parcels", EVENT_QUEUE)
OUTBOXES = tuple(f"outbox:{queue}" for queue in QUEUES)

#: Sets of what is still to be done, each by its time.
TIMES = ("timers", "parents", "leases", "queued", "outboxes", "waits")


class World:
    """One life of a workload.

    :param operations: The record of operations; one of them may have a fault.
    :param in_place: The number of runs the router claims at once; 0 sends run messages.
    :param prompt: True if a message is deleted as early as can be, before the process's
        next operation; False if as late as can be.
    :param blobs: A directory for large values; then the event and every result is one.
    """

    def __init__(
        self,
        workload: Workload,
        url: str,
        queue_url: str | None,
        namespace: str,
        operations: Operations,
        *,
        in_place: int = 8,
        prompt: bool = True,
        fsync: str = "off",
        blobs: pathlib.Path | None = None,
    ) -> None:
        self.workload = workload
        self.operations = operations
        self.effects: Counter[tuple[str, str]] = Counter()
        self.violations: list[str] = []
        self.padding = "" if blobs is None else " " * 2 * INLINE
        self._tag = f"{{{namespace}:0}}"
        self._queue_url = queue_url
        self._clock = Clock()
        if prompt:
            operations.before_each = self._settle
        self._redis = redis.Redis.from_url(url, decode_responses=True)
        self._outcomes: dict[tuple[str, str], str] = {}
        self._accepted = False
        #: The newest checkpoint that was acknowledged, and that was asked for.
        self._kept = self._asked = 0
        self._process: Harness | None = None
        self._make: t.Callable[[], Harness] = lambda: Harness(
            url,
            namespace,
            durable=workload.declare(self),
            in_place=in_place,
            DURABLE_QUEUE_URL=queue_url,
            SECRET_KEY="of the app",
            DURABLE_EXTERNAL_URL="https://shop.example",
            DURABLE_LEASE=LEASE,
            DURABLE_VISIBILITY_TIMEOUT=VISIBILITY,
            DURABLE_FSYNC=fsync,
            DURABLE_INLINE_LIMIT=INLINE,
            DURABLE_BLOB_URL=None if blobs is None else f"file://{blobs}",
        )

    # -- Living -------------------------------------------------------------------

    def live(self) -> None:
        """Run processes, one after another's death, until everything has settled."""
        with self._clock.set_up():
            self._live()

    def _live(self) -> None:
        for _ in range(MAX_LEAPS):
            try:
                with self.operations.driving():
                    self._work()
            except SimulatedDeath:
                self._bury()
            self._look_at_outcomes()
            if self._accepted and not self._unfinished():
                break
            self._look_at_owners()
            self._leap()
        self._check()
        self.close()

    def close(self) -> None:
        """End the last process, and close our own connections."""
        if self._process is not None:
            with self.operations.others():
                self._process.close()
        self._redis.close()

    def effect(self) -> str:
        """Leave a trace that outlives this process, as the body of a step."""
        step = current_run.step
        assert step is not None
        with self.operations.driving(False):
            outcomes = self._outcomes_of(current_run.id)
        if step.name in outcomes:
            self.violations.append(f"{step.name} ran after it was committed")
        self.effects[current_run.function, step.name] += 1
        return f"{step.name} of {current_run.function}{self.padding}"

    def look(self) -> str | None:
        """Find something in the second look."""
        trace = self.effect()
        looks = self.effects[current_run.function, current_run.step.name]
        return trace if looks > 1 else None

    def resumed(self) -> int:
        """Return the place that a body goes on from, and check it."""
        step = current_run.step
        assert step is not None
        place: int = step.resumed_from or 0
        # The reply of a write may have been lost, but nothing that was acknowledged is.
        if not self._kept <= place <= self._asked:
            self.violations.append(f"{step.name} goes on from {place}")
        return place

    def checkpoint(self, place: int) -> None:
        """Store *place* as the checkpoint of a body."""
        assert current_run.step is not None
        self._asked = place
        current_run.step.checkpoint(place, force=True)
        self._kept = place

    def _work(self) -> None:
        if self._process is None:
            self._process = self._make()
            with self.operations.driving(False):
                self.workload.prepare(self._process)
        process = self._process
        self._attempt(self._send)
        try:
            process.start()
        except TRANSIENT:
            raise SimulatedDeath from None  # a worker that cannot start ends
        self._drain(process)
        self._attempt(process.sweep)
        self._attempt(lambda: self.workload.tick(process))
        self._drain(process)

    def _send(self) -> None:
        assert self._process is not None
        if not self._accepted:
            data = {"number": 7, "note": self.padding}
            self._process.send(self.workload.EVENT, data, id="event-7")
            self._accepted = True

    def _drain(self, process: Harness) -> None:
        router = RouterThread(process.state.broker, process.router)
        for _ in range(100):
            deliveries = self._attempt(lambda: router.route(0))
            if not self._execute(process) + (deliveries or 0):
                return self._settle()
        raise AssertionError("it never comes to rest")

    def _execute(self, process: Harness) -> int:
        """Do as a run thread does, for each run that is ready."""
        ready, process.threads.runs = process.threads.runs, []
        for run in ready:
            self._attempt(functools.partial(process.executor.execute, run))
        count = len(ready)
        for queue in ("default", "parcels"):
            broker = process.state.broker
            receive = functools.partial(broker.deliveries, queue, 10, 0)
            for delivery in self._attempt(receive) or ():
                count += 1
                claim = functools.partial(self._claim, process, delivery)
                if self._attempt(claim) is None:
                    delivery.release()
        return count

    def _claim(self, process: Harness, delivery: t.Any) -> bool:
        run = process.executor.claim(delivery.message)
        delivery.done()
        if run is not None:
            process.executor.execute(run)
        return True

    def _settle(self) -> None:
        """Let the acknowledger's thread carry out settlements."""
        process = self._process
        assert process is not None
        broker = process.state.broker
        with self.operations.others():
            with broker._acknowledger.takable:
                broker._acknowledger.takable.notify_all()  # it is its turn
            for _ in range(1000):
                if self.operations.dead:
                    raise SimulatedDeath
                if broker.flush_settled(0.01):
                    return
        raise AssertionError("messages are never settled")

    def _attempt(self, call: t.Callable[[], t.Any]) -> t.Any:
        """Call as a thread of the worker does, which outlives an outage."""
        try:
            return call()
        except (*TRANSIENT, QueueAway, UnavailableError, SQLAlchemyError):
            return None

    def _bury(self) -> None:
        """Remove the state of a dead process from the memory of this one."""
        process, self._process = self._process, None
        assert process is not None
        self.workload.bury()
        broker = process.state.broker
        acknowledger = broker._acknowledger
        acknowledger.stop()
        with self.operations.burial():
            for loop in acknowledger.loops:
                assert loop.join(30)
        broker._in_flight.close()
        broker.transport.close()
        process.state.server.close()

    # -- Time ---------------------------------------------------------------------

    def _leap(self) -> None:
        """Move the clocks on: of state server and queues, and the process's own."""
        self._clock.move(LEAP)
        milliseconds = LEAP * 1000
        for name in (*TIMES, *OUTBOXES):
            self._bring_nearer(f"{self._tag}:{name}", milliseconds)
        self._move_looks()
        namespace = self._tag[1:].partition(":")[0]
        for queue in QUEUES:
            tag = f"{{{namespace}:q:{queue}}}"
            self._bring_nearer(f"{tag}:delayed", milliseconds)
            self._make_visible(f"{tag}:stream")
        if self._queue_url is not None:
            self._make_visible_on_sqs()

    def _bring_nearer(self, key: str, milliseconds: int) -> None:
        # Times that are due stay as they are: an expired lease is known by its end. A
        # wait that is over stays for an hour more.
        edge = "-inf" if key.endswith(":waits") else f"({time.time() * 1000}"
        for member in t.cast(
            "list[str]", self._redis.zrange(key, edge, "+inf", byscore=True)
        ):
            self._redis.zincrby(key, -milliseconds, member)

    def _move_looks(self) -> None:
        looks = t.cast("dict[str, str]", self._redis.hgetall(f"{self._tag}:looks"))
        for run, look in looks.items():
            # A lease that was looked at ends when the second look may come; that end
            # was brought nearer with the others.
            token, end, before = look.split(" ")
            ends = self._redis.zscore(f"{self._tag}:leases", run)
            if ends is not None and int(end) - int(ends) == LEAP * 1000:
                self._redis.hset(
                    f"{self._tag}:looks", run, f"{token} {int(ends)} {before}"
                )

    def _make_visible(self, stream: str) -> None:
        if not self._redis.exists(stream) or not self._redis.xinfo_groups(stream):
            return
        pending: t.Any = self._redis.xpending_range(stream, "workers", "-", "+", 100)
        for entry in pending:
            self._redis.xclaim(
                stream,
                "workers",
                entry["consumer"],
                0,
                [entry["message_id"]],
                idle=VISIBILITY * 1000 + 1,
                justid=True,
            )

    def _make_visible_on_sqs(self) -> None:
        for client, address, receipt in self.operations.receipts:
            entry = {"Id": "0", "ReceiptHandle": receipt, "VisibilityTimeout": 0}
            client.change_message_visibility_batch(QueueUrl=address, Entries=[entry])

    # -- Checking -----------------------------------------------------------------

    def _unfinished(self) -> list[str]:
        """Return the differences from the end of a life."""
        left = []
        for status in ("queued", "running", "suspended", "paused"):
            if count := self._number_of(status):
                left.append(f"{count} run(s) {status}")
        for name in (*TIMES, *OUTBOXES, "looks", "events", "coming"):
            if self._redis.exists(f"{self._tag}:{name}"):
                left.append(f"{name} are left")
        return left or self.workload.left() or self._messages()

    def _number_of(self, status: str) -> int:
        """Return the number of runs and branches in a state."""
        keys = [f"{self._tag}:{kind}:{status}" for kind in ("status", "branches")]
        return sum([int(self._redis.zcard(key)) for key in keys])

    def _messages(self) -> list[str]:
        if self._process is None:
            return ["no process"]
        with self.operations.driving(False):
            counts = {q: self._process.state.transport.counts(q) for q in QUEUES}
        return [
            f"{queue} holds {count}"
            for queue, count in counts.items()
            if any((count.waiting, count.in_flight, count.delayed, count.dead))
        ]

    def _look_at_owners(self) -> None:
        """Check that a process which goes on does not forget what it was doing.

        A script whose reply was lost is called again and leaves nothing to be mended.
        """
        fault, (kind, _) = self.operations.fault, self.operations.at
        if not self.killed and self._number_of("running"):
            self.violations.append("a run has lost its owner")
        ours = any(name in kind for name in REPEATABLE)
        asked_again = fault is Fault.LOST_REPLY and ours
        queued = self._number_of("queued")
        if asked_again and self._accepted and queued:
            self.violations.append("a run's message was not sent")

    def _look_at_outcomes(self) -> None:
        """Compare the committed outcomes with earlier ones."""
        for run in t.cast("list[str]", self._redis.zrange(f"{self._tag}:runs", 0, -1)):
            for step, outcome in self._outcomes_of(run).items():
                if self._outcomes.setdefault((run, step), outcome) != outcome:
                    self.violations.append(f"the outcome of {step} changed")

    def _outcomes_of(self, run: str) -> dict[str, str]:
        """Return the committed outcomes of a run and of its branches, by step."""
        found = self._read(f"steps:{run}")
        ends = {k: v for k, v in found.items() if v.startswith(("done", "failed"))}
        record = self._read(f"run:{run}")
        if "finished" in record:
            ended = [record.get("result"), record.get("failure")]
            ends[f"the run {run} itself"] = str(ended)
        for step in t.cast(
            "set[str]", self._redis.smembers(f"{self._tag}:groups:{run}")
        ):
            for place, outcome in self._read(f"group:{run}:{step}").items():
                if place.startswith("="):
                    ends[f"branch {place} of {step}"] = outcome
        children = self._redis.zrange(f"{self._tag}:children:{run}", 0, -1)
        for child in t.cast("list[str]", children):
            if ancestors_of(child):
                ends |= self._outcomes_of(child)
        return ends

    def _read(self, name: str) -> dict[str, str]:
        found = self._redis.hgetall(f"{self._tag}:{name}")
        return t.cast("dict[str, str]", found)

    def _check(self) -> None:
        problems = [*self.violations, *self._unfinished()]
        assert not problems, "; ".join(problems)
        assert self._process is not None
        with self.operations.driving(False):
            runs = [self._process.runs.get(run.id) for run in self._process.runs.list()]
            counted = self._process.state.run_counts.totals()
        ended = {run.function: run.status.value for run in runs}
        assert ended == self.workload.ENDS, ended
        assert len(runs) == len(ended)
        assert counted == {
            name: {"started": 1, status: 1} for name, status in ended.items()
        }
        self.workload.check({run.function: run for run in runs}, self.killed)
        self._check_effects()

    @property
    def killed(self) -> bool:
        fault = self.operations.fault
        return fault is not None and fault.kills

    def _check_effects(self) -> None:
        for at_most_once in self.workload.AT_MOST_ONCE:
            times = self.effects.pop(at_most_once, 0)
            assert times <= 1, f"an at-most-once body ran {times} times"
        expected = Counter(self.workload.EFFECTS)
        missing = expected - self.effects
        assert not missing, f"bodies did not run: {missing}"
        repeated = self.effects - expected
        # One death may repeat the one body that it interrupted, and nothing else.
        assert repeated.total() <= self.killed, f"bodies ran again: {repeated}"
