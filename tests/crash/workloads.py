"""Workloads: functions that together use every kind of step, and their checks."""

from __future__ import annotations

import pathlib
import typing as t
from datetime import datetime
from datetime import timedelta
from datetime import UTC
from urllib.parse import urlsplit

from flask import current_app

from flask_durable import current_run
from flask_durable import Durable
from flask_durable import Event
from flask_durable import Failure
from flask_durable import FunctionFailed
from flask_durable import NonRetriable
from flask_durable import Step
from flask_durable import StepInterrupted

from ..model.books import Books
from ..support.harness import Harness

if t.TYPE_CHECKING:
    from .world import World

Body = tuple[str, str]


class Workload:
    """Functions that one event sets in motion.

    :param folder: A directory of its own, which outlives its processes.
    """

    #: The name of the event.
    EVENT: t.ClassVar[str]
    #: The end of the one run of each function.
    ENDS: t.ClassVar[dict[str, str]]
    #: The calls of each body in a life without a death, by function and step.
    EFFECTS: t.ClassVar[dict[Body, int]]
    #: Bodies that may have been called once or not at all.
    AT_MOST_ONCE: t.ClassVar[tuple[Body, ...]] = ()
    #: The operations that this workload is there for; each stands in the kind of some.
    OPERATIONS: t.ClassVar[tuple[str, ...]]

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder

    def declare(self, world: World) -> Durable:
        """Return the functions, as each process declares them."""
        raise NotImplementedError

    def prepare(self, process: Harness) -> None:
        """Make what else a new process has."""

    def bury(self) -> None:
        """Remove that of a dead process."""

    def tick(self, process: Harness) -> None:
        """Do the work of further threads of a worker, once."""

    def left(self) -> list[str]:
        """Return what is still to be done, apart from runs and messages."""
        return []

    def check(self, runs: dict[str, t.Any], killed: bool) -> None:
        """Check the results.

        :param runs: The runs, by function.
        :param killed: True if a process died on the way.
        """
        raise NotImplementedError


class Orders(Workload):
    """Steps that are executed, a sleep, a child, a failure, and what comes of these."""

    EVENT = "order/placed"
    ENDS: t.ClassVar = {
        "order": "completed",
        "insurance": "completed",
        "parcel": "completed",
        "doomed": "failed",
        "doomed/on_failure": "completed",
        "watch": "completed",
    }
    EFFECTS: t.ClassVar = {
        ("order", "charge"): 1,
        ("order", "flaky"): 2,
        ("insurance", "cover"): 1,
        ("parcel", "pack"): 1,
        ("doomed", "look-up"): 1,
        ("doomed/on_failure", "apologise"): 1,
        ("doomed/on_failure", "refund"): 1,
        ("watch", "note"): 1,
    }
    AT_MOST_ONCE = (("order", "label"),)
    OPERATIONS = (
        "functions_publish",
        "run_create",
        "run_claim",
        "step_commit",
        "step_checkpoint",
        "run_progress",
        "run_suspend",
        "child_start",
        "run_finish",
        "sweep",
    )

    def declare(self, world: World) -> Durable:
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
            return [charge, first, sent, label, cover]

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

    def check(self, runs: dict[str, t.Any], killed: bool) -> None:
        charge, flaky, sent, label, cover = runs["order"].result
        assert cover.strip() == "cover of insurance"
        assert (charge.strip(), flaky.strip()) == ("charge of order", "flaky of order")
        assert len(sent) == 1
        assert label.strip() == "label of order" or (killed and label == "interrupted")
        assert runs["parcel"].result.strip() == "pack of parcel"
        assert runs["parcel"].progress.message == "packed"
        assert runs["doomed"].failure.message == "no such number"
        assert runs["doomed/on_failure"].result == ["apologise", "refund"]
        assert runs["watch"].result.strip() == "note of watch"


class Waits(Workload):
    """A run that waits for events and signals; another one gives them, and starts one.

    Of the events two come before their waits, one while it is waited for, and one has a
    time that is still to come. One signal comes before its wait, one after. For one
    event and one signal the run waits as long as it can. An address is answered.
    The second look of a poll finds something.
    """

    EVENT = "trip/planned"
    ENDS: t.ClassVar = {"trip": "completed", "clerk": "completed", "taxi": "completed"}
    EFFECTS: t.ClassVar = {
        ("trip", "leave"): 1,
        ("trip", "arrived"): 2,
        ("taxi", "drive"): 1,
    }
    OPERATIONS = (
        "awaited_learn",
        "waiter_add",
        "waiters_remove",
        "event_deliver",
        "run_wake",
        "signal_put",
        "run_create",
        "run_suspend",
    )

    def declare(self, world: World) -> Durable:
        durable = Durable()

        @durable.function(on=None, queue="parcels")
        def taxi(event: Event[t.Any], step: Step) -> str:
            return step.run("drive", world.effect)

        # An event of a name that is only learned would have to come after its wait.
        awaited = ["trip/seen", "trip/packed", "trip/granted", "trip/stamped"]

        @durable.function(on="trip/planned", awaits=awaited)
        def trip(event: Event[t.Any], step: Step) -> list[t.Any]:
            early = Event("trip/seen", {"number": 7}), Event("trip/packed", {})
            step.send_event("early", *early)
            step.sleep("pack", "1m")
            seen = step.wait_for_event(
                "seen", "trip/seen", timeout="30d", match="data.number"
            )
            packed = step.wait_for_event("packed", "trip/packed", timeout="30d")
            url = step.create_url("visa", expires="90d")
            asked = {"run": current_run.id, "href": url.href}
            step.send_event("ask", Event("trip/asked", asked))
            granted = step.wait_for_event("granted", "trip/granted", timeout="30d")
            stamped = step.wait_for_event("stamped", "trip/stamped", timeout="30d")
            gate = step.wait_for_signal("gate", "call", timeout="30d")
            seat = step.wait_for_signal("seat", "call", timeout="30d")
            visa = step.wait_for_url("stamp-of-visa", url)
            # Each event and signal was used, and came once.
            again = step.wait_for_event("again", "trip/granted", timeout="1h")
            nobody = step.wait_for_event("nobody", "trip/cancelled", timeout="1h")
            step.run("leave", world.effect)
            arrived = step.poll("arrived", world.look, every="1h", timeout="30d")
            nothing = step.wait_for_signal("nothing", "call", timeout="1h")
            events = (seen, packed, granted, stamped, again, nobody)
            return [
                *[event and event.data for event in events],
                gate,
                seat,
                visa,
                arrived,
                nothing,
            ]

        def tell(run: str, what: str) -> None:
            durable.signal(run, "call", f"the {what}", id=f"{what}-7")

        def answer(href: str) -> None:
            client = current_app.test_client()
            response = client.post(urlsplit(href).path, json={"by": "clerk"})
            if response.status_code != 200:
                raise OSError(response.status)

        @durable.function(on="trip/asked")
        def clerk(event: Event[t.Any], step: Step) -> None:
            run = event.data["run"]
            step.run("tell-gate", tell, run, "gate")
            step.send_event("grant", Event("trip/granted", {"number": 8}))
            later = datetime.now(UTC) + timedelta(minutes=30)
            step.send_event("stamp", Event("trip/stamped", {"number": 9}, at=later))
            step.run("order-a-taxi", taxi.start, {}, id="taxi-7")
            step.sleep("look-up", "2h")
            step.run("tell-seat", tell, run, "seat")
            step.sleep("walk", "1h")
            step.run("answer", answer, event.data["href"])

        return durable

    def check(self, runs: dict[str, t.Any], killed: bool) -> None:
        assert runs["trip"].result == [
            *({"number": 7}, {}, {"number": 8}, {"number": 9}, None, None),
            *("the gate", "the seat", {"by": "clerk"}, "arrived of trip", None),
        ]


class FanOut(Workload):
    """A run with branches: they are steps, sleep, invoke, fail and come too late."""

    EVENT = "album/ordered"
    ENDS: t.ClassVar = {"album": "completed", "frame": "completed"}
    EFFECTS: t.ClassVar = {
        ("album", "prints[0]"): 1,
        ("album", "prints[1]"): 1,
        ("album", "prints[2]"): 1,
        ("album", "both[sleeve]/paint"): 1,
        ("album", "both[sleeve]/fold"): 1,
        ("frame", "cut"): 1,
        ("album", "post[air]/fly"): 1,
        ("album", "risky[0]"): 1,
        ("album", "risky[1]"): 1,
    }
    OPERATIONS = (
        "branches_start",
        "child_start",
        "run_admin",
        "run_claim",
        "run_finish",
        "run_suspend",
        "step_commit",
    )

    def declare(self, world: World) -> Durable:
        durable = Durable()

        @durable.function(on=None, queue="parcels")
        def frame(event: Event[t.Any], step: Step) -> str:
            return step.run("cut", world.effect)

        def develop(negative: int) -> str:
            return f"{negative}: {world.effect()}"

        def sleeve(step: Step) -> str:
            painted = step.run("paint", world.effect)
            step.sleep("dry", "1h")
            return f"{painted}, {step.run('fold', world.effect)}"

        def risk(item: int) -> int:
            world.effect()
            if item == 0:
                raise NonRetriable("too bold")
            return item

        @durable.function(on="album/ordered")
        def album(event: Event[t.Any], step: Step) -> list[t.Any]:
            return [
                step.map("prints", develop, [1, 2, 3], limit=2),
                step.parallel(
                    "both",
                    sleeve=sleeve,
                    frame=lambda step: step.invoke("frame", frame, {}),
                ),
                step.first(
                    "post",
                    ship=lambda step: step.sleep("at-sea", "30d"),
                    air=lambda step: step.run("fly", world.effect),
                ),
                step.map("risky", risk, [0, 1], tolerate=1),
            ]

        return durable

    def check(self, runs: dict[str, t.Any], killed: bool) -> None:
        prints, both, post, risky = runs["album"].result
        assert prints == [f"{n + 1}: prints[{n}] of album" for n in range(3)]
        assert both == {
            "sleeve": "both[sleeve]/paint of album, both[sleeve]/fold of album",
            "frame": "cut of frame",
        }
        assert post == ["air", "post[air]/fly of album"]
        assert risky == [1]


class Ledger(Workload):
    """A step that commits in a database, an event that is stored with it, a poll."""

    EVENT = "note/asked"
    ENDS: t.ClassVar = {"keep": "completed", "hear": "completed"}
    EFFECTS: t.ClassVar = {("hear", "look"): 2}
    OPERATIONS = ("sql commit", "lease_renew", "step_commit", "run_suspend")

    books: Books

    def declare(self, world: World) -> Durable:
        durable = Durable()

        def save() -> str:
            key = self.books.add()
            session = self.books.session
            durable.send("note/told", {"key": key}, id="told-7", session=session)
            return key

        @durable.function(on="note/asked")
        def keep(event: Event[t.Any], step: Step) -> str:
            return step.transaction("save", save)

        def look() -> str | None:
            trace = world.effect()
            return trace if world.effects["hear", "look"] > 1 else None

        @durable.function(on="note/told")
        def hear(event: Event[t.Any], step: Step) -> str:
            step.poll("look", look, every="30m", timeout="1d")
            return str(event.data["key"])

        return durable

    def prepare(self, process: Harness) -> None:
        self.folder.mkdir(exist_ok=True)
        self.books = Books(process, f"sqlite:///{self.folder}/books.db")
        self.books.db.metadata.create_all(self.books.engine)

    def bury(self) -> None:
        self.books.close()

    def tick(self, process: Harness) -> None:
        relay = process.state.database.relay
        assert relay is not None
        relay.sweep()

    def left(self) -> list[str]:
        return ["an event is stored"] if self.books.left else []

    def check(self, runs: dict[str, t.Any], killed: bool) -> None:
        (row,) = self.books.rows
        assert row.result == f'"{runs["keep"].result}"'
        assert runs["hear"].result == runs["keep"].result
        assert self.books.notes == ["note"]
        self.books.close()
