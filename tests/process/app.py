"""An app whose steps leave a trace in a file, for tests with real processes."""

from __future__ import annotations

import functools
import json
import os
import pathlib
import signal
import threading
import time
import typing as t

import redis
from flask import Flask
from pydantic import field_validator

import flask_durable
from flask_durable import current_run
from flask_durable import Durable
from flask_durable import Event
from flask_durable import EventData
from flask_durable import NonRetriable
from flask_durable import Step
from flask_durable.engine import asking

if t.TYPE_CHECKING:  # an older release has it elsewhere
    from flask_durable.app.state import AppState

durable = Durable()

#: The parts that this version of the code does not have.
_WITHOUT = os.environ.get("TEST_WITHOUT", "").split(",")


def create_app(**config: t.Any) -> Flask:
    """Make the app; settings that are not given come from the environment."""
    app = Flask("work")
    app.config.update(config)
    durable.init_app(app)
    return app


def mark(moment: str, pace: float = 0.0) -> str:
    """Write a line for one side effect, then take *pace* seconds."""
    step = current_run.step
    assert step is not None
    line = {
        "run": current_run.id,
        "step": step.name,
        "moment": moment,
        "pid": os.getpid(),
        "package": flask_durable.__file__,
        "committed": _is_committed(current_run.id, step.name),
    }
    # One write to a file opened for appending: lines of several processes do not mix,
    # and the line survives the process.
    path = os.environ["TEST_TRACE"]
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(descriptor, f"{json.dumps(line)}\n".encode())
    os.close(descriptor)
    time.sleep(pace)
    return step.name


def _is_committed(run: str, step: str) -> bool:
    """Return whether the step that is being run has an outcome already."""
    from flask import current_app

    state = durable.state_of(t.cast(t.Any, current_app)._get_current_object())
    while True:
        # An older release calls this too: it knows what has its name here and there.
        try:
            runs = [run, *(_branches(state, run) if "[" in step else ())]
            found = [state.store.read(id)[1].get(step) for id in runs]
        except redis.RedisError:
            time.sleep(0.05)
        else:
            return any(memo is not None and memo.final for memo in found)


def _branches(state: AppState, run: str) -> list[str]:
    """Return the ids of a run's branches."""
    key = f"{state.store.keys.tag_of(run)}:children:{run}"
    children = t.cast("list[str]", state.server.client.zrange(key, 0, -1))
    return [child for child in children if ancestors_of(child)]


def work(pace: float) -> str:
    name = mark("begin", pace)
    mark("end")
    return name


@durable.function(on="work/five")
def five(event: Event[t.Any], step: Step) -> list[str]:
    pace = event.data["pace"]
    return [
        step.run(name, work, pace) for name in ("one", "two", "three", "four", "five")
    ]


@durable.function(on="work/long")
def long(event: Event[t.Any], step: Step) -> str:
    return step.run("long", work, event.data["pace"])


@durable.function(on="work/chunks")
def chunks(event: Event[t.Any], step: Step) -> int:
    return step.run("chunks", in_chunks, event.data["count"], event.data["hurry"])


def in_chunks(count: int, hurry: str) -> int:
    """Do *count* chunks, slowly until the file *hurry* exists.

    :returns: The chunk that the last call went on from.
    """
    step = current_run.step
    assert step is not None
    start: int = step.resumed_from or 0
    for number in range(start, count):
        mark(f"chunk {number}", 0.0 if pathlib.Path(hurry).exists() else 0.2)
        step.checkpoint(number + 1, force=True)
        current_run.progress((number + 1) / count)
    return start


@durable.function(on="work/snooze")
def snooze(event: Event[t.Any], step: Step) -> str:
    step.run("before", work, 0)
    step.sleep("snooze", "500ms")
    return step.run("after", work, 0)


@durable.function(on="nap/asked")
def nap(event: Event[t.Any], step: Step) -> str:
    step.run("before", mark, "nap")
    step.sleep("nap", "1h")
    return step.run("after", mark, "nap")


@durable.function(on="work/stuck")
def stuck(event: Event[t.Any], step: Step) -> str:
    step.run("first", mark, "stuck")
    step.run("stuck", hang, event.data["way-out"])
    return step.run("last", mark, "stuck")


def hang(way_out: str) -> None:
    mark("begin")
    if not pathlib.Path(way_out).exists():
        time.sleep(600)  # in C: no interrupt reaches it


@durable.function(on="work/signal")
def signal_own_thread(event: Event[t.Any], step: Step) -> None:
    step.run("signal", signal.pthread_kill, threading.get_ident(), signal.SIGTERM)


@durable.function(on="work/poison")
def poison(event: Event[t.Any], step: Step) -> str:
    return step.run("drink", drink, event.data["antidote"])


def drink(antidote: str) -> str:
    if not pathlib.Path(antidote).exists():
        os._exit(1)
    return "alive"


if "TEST_FORWARD" in os.environ:
    durable.forward(on="work/forwarded", to=os.environ["TEST_FORWARD"])


class OddError(BaseException):
    """Raised past ``except Exception``, like the panic of compiled code."""


class Served(EventData, name="meal/served"):
    dish: str

    @field_validator("dish")
    @classmethod
    def taste(cls, dish: str) -> str:
        # No ValueError: not the event is wrong, but this code.
        if dish == "hot" and not antidote().exists():
            raise RuntimeError("the taster burnt their tongue")
        if dish == "odd" and not antidote().exists():
            raise OddError("the taster panicked")
        return dish


def antidote() -> pathlib.Path:
    return pathlib.Path(f"{os.environ['TEST_TRACE']}.antidote")


@durable.function(on=Served)
def eat(event: Event[Served], step: Step) -> str:
    return step.run("eat", mark, event.data.dish)


def filtered_by(way: str, act: t.Callable[[], object]) -> None:
    """Declare a function whose filter does *act*, as long as there is no antidote."""

    @durable.function(
        on=f"work/{way}", id=way, where=lambda event: antidote().exists() or act()
    )
    def filtered(event: Event[t.Any], step: Step) -> str:
        return step.run(way, work, 0)


def panic() -> None:
    raise OddError("a filter panicked")


filtered_by("dies", lambda: os._exit(1))
# In C: no interrupt reaches it. What hung is soon asked about other events again.
filtered_by("hangs", lambda: time.sleep(15))
asking.QUESTION_REST_SECONDS = 1.0
filtered_by("panics", panic)


#: The additions of a release: an event of an existing function, and a field's value.
_GROWN = "growth" not in _WITHOUT


@durable.function(on=["work/grown", "work/added"] if _GROWN else "work/grown")
def grow(event: Event[t.Any], step: Step) -> str:
    return step.run("grow", work, 0)


class Sized(EventData, name="work/sized"):
    size: t.Literal["small", "large"] if _GROWN else t.Literal["small"]  # type: ignore


@durable.function(on=Sized)
def fit(event: Event[Sized], step: Step) -> str:
    return step.run("fit", work, 0)


if "fresh" not in _WITHOUT:

    @durable.function(on="work/fresh")
    def fresh(event: Event[t.Any], step: Step) -> str:
        return step.run("fresh", work, 0)


if "tangle" not in _WITHOUT:
    from flask_durable.common.ids import ancestors_of

    @durable.function(on="work/tangled", awaits=["work/answered"])
    def tangled(event: Event[t.Any], step: Step) -> str:
        run, pace = current_run.id, event.data["pace"] / 2
        step.map("parts", functools.partial(part, pace), [1, 2, 3], limit=2)
        step.parallel(
            "both",
            nap=nap_between,
            errand=lambda step: step.invoke("errand", errand, {"pace": pace}),
        )
        step.send_event("ask", Event("work/asked-of", {"run": run}))
        answer = step.wait_for_event(
            "answer", "work/answered", match={"data.run": run}, timeout="1d"
        )
        told = step.wait_for_signal("told", "told", timeout="1d")
        if answer is None or told is None:
            raise NonRetriable(f"answer: {answer}, told: {told}")
        return step.run("last", work, 0)

    def part(pace: float, item: int) -> str:
        return work(pace)

    def nap_between(step: Step) -> str:
        step.run("before", work, 0)
        step.sleep("nap", "300ms")
        return step.run("after", work, 0)

    @durable.function(on=None)
    def errand(event: Event[t.Any], step: Step) -> str:
        return step.run("errand", work, event.data["pace"])

    @durable.function(on="work/asked-of")
    def teller(event: Event[t.Any], step: Step) -> None:
        run = event.data["run"]
        step.send_event("answer", Event("work/answered", {"run": run}))
        step.run("tell", tell, run)

    def tell(run: str) -> None:
        mark("begin")
        durable.signal(run, "told", "something", id="told")
        mark("end")
