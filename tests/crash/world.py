"""A workload that uses every kind of step, the processes that run it, and its checker.

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

from flask_durable import current_run
from flask_durable import Durable
from flask_durable import Event
from flask_durable import Failure
from flask_durable import FunctionFailed
from flask_durable import NonRetriable
from flask_durable import RunStatus
from flask_durable import Step
from flask_durable import StepInterrupted
from flask_durable import UnavailableError
from flask_durable.messages import EVENT_QUEUE
from flask_durable.queue.transport import QueueAway
from flask_durable.redis.errors import TRANSIENT
from flask_durable.worker.router_thread import RouterThread

from ..support.harness import Harness
from .clock import Clock
from .faults import Fault
from .faults import Operations
from .faults import SimulatedDeath

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

QUEUES = ("default", "parcels", EVENT_QUEUE)
OUTBOXES = tuple(f"outbox:{queue}" for queue in QUEUES)


class World:
    """One life of the workload.

    :param operations: The record of operations; one of them may have a fault.
    :param in_place: The number of runs the router claims at once; 0 sends run messages.
    :param prompt: True if a message is deleted as early as can be, before the process's
        next operation; False if as late as can be.
    :param blobs: A directory for large values; then the event and every result is one.
    """

    def __init__(
        self,
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
            durable=workload(self),
            in_place=in_place,
            DURABLE_QUEUE_URL=queue_url,
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
            memo = self._redis.hget(f"{self._tag}:steps:{current_run.id}", step.name)
        if memo is not None and str(memo).startswith(("done", "failed")):
            self.violations.append(f"{step.name} ran after it was committed")
        self.effects[current_run.function, step.name] += 1
        return f"{step.name} of {current_run.function}{self.padding}"

    def look(self) -> str | None:
        """Find something in the second look."""
        trace = self.effect()
        looks = self.effects[current_run.function, "ready"]
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
        process = self._process
        self._attempt(self._send)
        try:
            process.start()
        except TRANSIENT:
            raise SimulatedDeath from None  # a worker that cannot start ends
        self._drain(process)
        self._attempt(process.sweep)
        self._drain(process)

    def _send(self) -> None:
        assert self._process is not None
        if not self._accepted:
            data = {"number": 7, "note": self.padding}
            self._process.send("order/placed", data, id="order-7")
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
        except (*TRANSIENT, QueueAway, UnavailableError):
            return None

    def _bury(self) -> None:
        """Remove the state of a dead process from the memory of this one."""
        process, self._process = self._process, None
        assert process is not None
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
        for name in ("timers", "parents", "leases", "queued", "outboxes", *OUTBOXES):
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
        # Times that are due stay as they are: an expired lease is known by its end.
        edge = f"({time.time() * 1000}"
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
            if count := self._redis.zcard(f"{self._tag}:status:{status}"):
                left.append(f"{count} run(s) {status}")
        for name in ("leases", "timers", "parents", "queued", *OUTBOXES):
            if self._redis.exists(f"{self._tag}:{name}"):
                left.append(f"{name} are left")
        for name in ("looks", "events"):
            if self._redis.exists(f"{self._tag}:{name}"):
                left.append(f"{name} are left")
        return left or self._messages()

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
        if not self._killed and self._redis.zcard(f"{self._tag}:status:running"):
            self.violations.append("a run has lost its owner")
        ours = any(name in kind for name in ("run_", "step_", "child_"))
        asked_again = fault is Fault.LOST_REPLY and ours
        queued = self._redis.zcard(f"{self._tag}:status:queued")
        if asked_again and self._accepted and queued:
            self.violations.append("a run's message was not sent")

    def _look_at_outcomes(self) -> None:
        """Compare the committed outcomes with earlier ones."""
        for run in t.cast("list[str]", self._redis.zrange(f"{self._tag}:runs", 0, -1)):
            found = t.cast(
                "dict[str, str]", self._redis.hgetall(f"{self._tag}:steps:{run}")
            )
            ends = {k: v for k, v in found.items() if v.startswith(("done", "failed"))}
            record = t.cast(
                "dict[str, str]", self._redis.hgetall(f"{self._tag}:run:{run}")
            )
            if "finished" in record:
                ends["the run itself"] = str(
                    [record.get("result"), record.get("failure")]
                )
            for step, outcome in ends.items():
                if self._outcomes.setdefault((run, step), outcome) != outcome:
                    self.violations.append(f"the outcome of {step} changed")

    def _check(self) -> None:
        problems = [*self.violations, *self._unfinished()]
        assert not problems, "; ".join(problems)
        assert self._process is not None
        with self.operations.driving(False):
            runs = [self._process.runs.get(run.id) for run in self._process.runs.list()]
            counted = self._process.state.run_counts.totals()
        ended = sorted((run.function, run.status.value) for run in runs)
        assert ended == ENDS, ended
        assert counted == {name: {"started": 1, status: 1} for name, status in ENDS}
        by_function = {run.function: run for run in runs}
        self._check_order(by_function["order"])
        assert by_function["parcel"].result.strip() == "pack of parcel"
        assert by_function["parcel"].progress.message == "packed"
        assert by_function["doomed"].failure.message == "no such number"
        assert by_function["doomed/on_failure"].result == ["apologise", "refund"]
        assert by_function["watch"].result.strip() == "note of watch"
        self._check_effects()

    def _check_order(self, run: t.Any) -> None:
        assert run.status == RunStatus.COMPLETED
        charge, flaky, sent, label, cover, ready = run.result
        assert ready.strip() == "ready of order"
        assert cover.strip() == "cover of insurance"
        assert (charge.strip(), flaky.strip()) == ("charge of order", "flaky of order")
        assert len(sent) == 1
        assert label.strip() == "label of order" or (
            self._killed and label == "interrupted"
        )

    @property
    def _killed(self) -> bool:
        fault = self.operations.fault
        return fault is not None and fault.kills

    def _check_effects(self) -> None:
        labels = self.effects.pop(("order", "label"), 0)
        assert labels <= 1, f"an at-most-once body ran {labels} times"
        missing = Counter(EFFECTS) - self.effects
        assert not missing, f"bodies did not run: {missing}"
        repeated = self.effects - Counter(EFFECTS)
        # One death may repeat the one body that it interrupted, and nothing else.
        assert repeated.total() <= self._killed, f"bodies ran again: {repeated}"


#: The end of each run of the workload.
ENDS = sorted(
    [
        ("order", "completed"),
        ("insurance", "completed"),
        ("parcel", "completed"),
        ("doomed", "failed"),
        ("doomed/on_failure", "completed"),
        ("watch", "completed"),
    ]
)

#: The calls of each body in a life without a death; an at-most-once body is separate.
EFFECTS = {
    ("order", "charge"): 1,
    ("order", "flaky"): 2,
    ("order", "ready"): 2,
    ("insurance", "cover"): 1,
    ("parcel", "pack"): 1,
    ("doomed", "look-up"): 1,
    ("doomed/on_failure", "apologise"): 1,
    ("doomed/on_failure", "refund"): 1,
    ("watch", "note"): 1,
}


def workload(world: World) -> Durable:
    """Return functions that use every feature of a run."""
    durable = Durable()

    def flaky() -> str:
        trace = world.effect()
        if current_run.step is not None and current_run.step.attempt == 1:
            raise OSError("not yet")
        return trace

    def look_up() -> None:
        world.effect()
        raise NonRetriable("no such number")

    @durable.function(on=None, queue="parcels")
    def insurance(event: Event[t.Any], step: Step) -> str:
        step.sleep("consider", "1m")
        return step.run("cover", world.effect)

    @durable.function(on="order/placed")
    def order(event: Event[t.Any], step: Step) -> list[t.Any]:
        charge = step.run("charge", world.effect)
        step.sleep("cool-off", "1h")
        first = step.run("flaky", flaky)
        sent = step.send_event("announce", Event("order/shipped", {"number": 7}))
        try:
            label = step.options(at_most_once=True).run("label", world.effect)
        except StepInterrupted:
            label = "interrupted"
        data = {"note": world.padding}
        cover = step.invoke("insure", insurance, data, timeout="30d")
        ready = step.poll("ready", world.look, every="1h", timeout="30d")
        return [charge, first, sent, label, cover, ready]

    @durable.function(on="order/placed", retries=0)
    def doomed(event: Event[t.Any], step: Step) -> None:
        step.run("look-up", look_up)

    @doomed.on_failure
    def apologise(event: Event[t.Any], step: Step, failure: Failure) -> list[str]:
        step.run("apologise", world.effect)
        step.run("refund", world.effect)
        return [name for name in ("apologise", "refund")]

    def pack() -> str:
        trace = world.effect()
        for place in range(world.resumed(), 2):
            world.checkpoint(place + 1)
        current_run.progress(1.0, "packed")
        return trace

    @durable.function(on="order/shipped", queue="parcels")
    def parcel(event: Event[t.Any], step: Step) -> str:
        return step.run("pack", pack)

    @durable.function(on=FunctionFailed)
    def watch(event: Event[FunctionFailed], step: Step) -> str:
        return step.run("note", world.effect)

    return durable
