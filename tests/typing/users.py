"""Code as users write it, with the types that their checker sees.

It is checked by ``mypy --strict`` and by pyright, never run. A line with an ignore has
to be an error: both checkers refuse an ignore that is not needed.
"""

# pyright: reportUnnecessaryTypeIgnoreComment=true

from __future__ import annotations

import typing as t
from dataclasses import dataclass
from datetime import datetime
from datetime import timedelta
from datetime import timezone

from flask import Flask

from flask_durable import Address
from flask_durable import Backoff
from flask_durable import BranchError
from flask_durable import Cron
from flask_durable import CronTick
from flask_durable import current_run
from flask_durable import Durable
from flask_durable import DurableGroup
from flask_durable import Event
from flask_durable import EventData
from flask_durable import Failure
from flask_durable import Function
from flask_durable import InvokeError
from flask_durable import NonRetriable
from flask_durable import RetryAfter
from flask_durable import Run
from flask_durable import Step
from flask_durable import StepError
from flask_durable import StepFunction

durable = Durable()


class Requested(EventData, name="transcription/requested"):
    audio_url: str
    tenant: str = "none"


class Finished(EventData, name="transcription/finished"):
    words: int


@durable.event
class Archived(EventData, name="transcription/archived"):
    key: str


@dataclass
class Meta:
    path: str
    owner: int


def fetch_metadata(url: str, *, timeout: float = 10) -> Meta:
    return Meta(url, 1)


def find_result() -> Meta | None:
    return None


class Recogniser:
    def transcribe(self, path: str) -> str:
        return path


# -- functions -------------------------------------------------------------------------


@durable.function(
    on=Requested,
    queue="media",
    retries=5,
    backoff=Backoff("5s", factor=2, maximum=timedelta(minutes=10), jitter=False),
    non_retriable=(KeyError,),
    timeout="1h",
    start_timeout=60,
    where=lambda event: event.data.tenant != "none",
)
def transcribe(event: Event[Requested], step: Step) -> dict[str, int]:
    t.assert_type(event.data, Requested)
    t.assert_type(event.id, str)
    t.assert_type(event.at, datetime)
    meta = step.run("fetch", fetch_metadata, event.data.audio_url, timeout=3)
    t.assert_type(meta, Meta)
    text = step.run("transcribe", Recogniser().transcribe, meta.path)
    t.assert_type(text, str)
    t.assert_type(step.run("length", lambda: len(text)), int)
    t.assert_type(step.options(retries=1, lease="1m").run("l", len, text), int)
    t.assert_type(step.transaction("save", fetch_metadata, "x"), Meta)
    url = step.create_url("ask", expires="7d", title="Ready?", button="Yes")
    t.assert_type(url, Address)
    t.assert_type(url.href, str)
    t.assert_type(url.expires, datetime)
    t.assert_type(step.wait_for_url("answer", url), dict[str, t.Any] | None)
    step.wait_for_url("again", url, timeout="1h")
    step.wait_for_url("text", url.href)  # type: ignore[arg-type]
    ready = step.poll("ready", find_result, every="30s", timeout="1h")
    t.assert_type(ready, Meta | None)
    t.assert_type(step.poll("n", lambda: 7, every=2, timeout=9), int | None)
    step.poll("n", find_result, every="30s")  # type: ignore[call-arg]
    step.poll("n", fetch_metadata, every=2, timeout=9)  # type: ignore[arg-type]
    step.sleep("cool-off", "10m")
    step.sleep("more", timedelta(minutes=1))
    step.sleep_until("later", datetime.now(timezone.utc))
    t.assert_type(step.invoke("anything", anything, {"path": meta.path}), str)
    cut = step.invoke("either", index, Finished(words=1), timeout="1h")
    t.assert_type(cut, int)
    t.assert_type(step.invoke("by-id", "index", Finished(words=1)), t.Any)
    step.invoke("index", index, Requested(audio_url="a"))  # type: ignore[misc]
    step.invoke("index", len, {})  # type: ignore[call-overload]
    t.assert_type(step.send_event("done", Finished(words=1), Event("a/b")), list[str])
    return {"words": len(text)}


t.assert_type(transcribe, Function[Requested, dict[str, int]])


def call_the_body(event: Event[Requested], step: Step) -> None:
    t.assert_type(transcribe(event, step), dict[str, int])
    t.assert_type(transcribe.id, str)


@transcribe.on_failure
def report(event: Event[Requested], step: Step, failure: Failure) -> None:
    t.assert_type(event.data.audio_url, str)
    t.assert_type(failure.message, str)


@durable.function(on=Cron("30 4 * * *", timezone="Europe/Berlin", jitter="5m"))
def nightly(event: Event[CronTick], step: Step) -> None:
    t.assert_type(event.data.scheduled_at, datetime)


@durable.function(on=[Requested, Finished, "media/*"], id="either")
def either(event: Event[Requested | Finished], step: Step) -> None:
    t.assert_type(event.data, Requested | Finished)


@durable.function(on="media/*", queue="media")
def anything(event: Event, step: Step) -> str:
    return str(event.data["path"])


@durable.function(on=None)
def invoked(event: Event[dict[str, t.Any]], step: Step) -> str:
    return str(event.data["path"])


@durable.function(on=None)
def cut(event: Event[Requested], step: Step) -> Meta:
    return Meta(event.data.audio_url, 1)


t.assert_type(anything, Function[t.Any, str])
t.assert_type(invoked, Function[dict[str, t.Any], str])
t.assert_type(cut, Function[Requested, Meta])


@durable.function(on=None)
def untyped(event: Event, step: Step) -> int:
    return len(event.data)


t.assert_type(untyped, Function[t.Any, int])


@durable.function(on=None)  # type: ignore[arg-type]
def invoked_without_step(event: Event[Requested]) -> None: ...


@durable.function(on=Requested)  # type: ignore[arg-type]
def wrong_event(event: Event[Finished], step: Step) -> None: ...


@durable.function(on=Requested)  # type: ignore[arg-type]
def wrong_arity(event: Event[Requested]) -> None: ...


@durable.function(on=Requested, retries="3")  # type: ignore[call-overload, untyped-decorator]
def wrong_option(event: Event[Requested], step: Step) -> None: ...


# -- steps -----------------------------------------------------------------------------


@durable.step
def notify(user: int, text: str, *, urgent: bool = False) -> bool:
    return urgent


@durable.step("charge-card", retries=0, at_most_once=True, timeout="30s", lease=60)
def charge(user: int) -> Meta:
    return Meta("", user)


charge_is_typed: StepFunction[[int], Meta] = charge


@durable.function(on="order/placed")
def order(event: Event, step: Step) -> None:
    t.assert_type(notify(1, "text", urgent=True), bool)
    t.assert_type(charge(1), Meta)
    t.assert_type(step.run("notify", notify, 1, text="text"), bool)
    t.assert_type(charge.name, str)
    try:
        notify(1, "text")
    except InvokeError as error:
        t.assert_type(error.run_id, str)
    except StepError as error:
        t.assert_type(error.step, str)
        t.assert_type(error.failure, Failure)
    notify("1", "text")  # type: ignore[arg-type]
    step.run("fetch", fetch_metadata)  # type: ignore[call-arg]
    step.run("fetch", fetch_metadata, 1)  # type: ignore[arg-type]
    step.run("fetch", fetch_metadata, "a", retries=1)  # type: ignore[call-arg]
    step.options(retry=1)  # type: ignore[call-arg]


def raise_on_purpose() -> t.NoReturn:
    if current_run:
        current_run.log.info("attempt %d of %s", current_run.attempt, current_run.id)
        if current_run.step is not None:
            t.assert_type(current_run.step.idempotency_key, str)
            done: int = current_run.step.resumed_from or 0
            current_run.step.checkpoint(done + 1, force=True)
            current_run.progress(done / 10, "a few words")
            raise NonRetriable("no such file")
    raise RetryAfter("90s", "busy")


# -- groups ----------------------------------------------------------------------------

media = DurableGroup("media", queue="media", retries=5, timeout="1h")


@media.function(on=Finished)
def index(event: Event[Finished], step: Step) -> int:
    return event.data.words


@media.step
def store(words: int) -> None: ...


@media.event
class Stored(EventData, name="media/stored"):
    key: str


t.assert_type(index, Function[Finished, int])
store_is_typed: StepFunction[[int], None] = store
t.assert_type(Stored(key="a").key, str)


# -- the app ---------------------------------------------------------------------------


def create_app() -> Flask:
    app = Flask(__name__)
    durable.register(media)
    durable.init_app(app)
    return app


def start() -> None:
    t.assert_type(transcribe.start(Requested(audio_url="a"), id="r-1"), str)
    t.assert_type(invoked.start({"path": "x"}), str)
    index.start(Requested(audio_url="a"))  # type: ignore[arg-type]


def send() -> None:
    t.assert_type(durable.send(Requested(audio_url="a")), str)
    durable.send(Event.of(Finished(words=1), id="order-1"))
    durable.send("order/placed", {"number": 1}, id="order-1")
    durable.send("order/placed", at=datetime.now(timezone.utc))
    t.assert_type(
        durable.send_many([Requested(audio_url="a"), Event("a/b", {})]), list[str]
    )
    t.assert_type(Event.of(Finished(words=1)), Event[Finished])
    run = durable.runs.get("r1")
    t.assert_type(run, Run)
    t.assert_type(durable.runs.wait(run.id, timeout=1).failure, Failure | None)
    durable.send(1)  # type: ignore[arg-type]


def one_word(text: str) -> int:
    return len(text)


def in_steps(text: str, step: Step) -> int:
    return step.run("count", one_word, text)


@durable.function(on="text/split")
def fan_out(event: Event[dict[str, t.Any]], step: Step) -> None:
    t.assert_type(step.map("words", one_word, ["a"], limit=2), list[int])
    t.assert_type(step.map("steps", in_steps, ["a"], key=str), list[int])
    t.assert_type(
        step.map("kept", one_word, ["a"], return_exceptions=True),
        list[int | BranchError],
    )
    numbers: list[int] = [1]
    step.map("wrong", one_word, numbers)  # type: ignore[arg-type]
    both = step.parallel("both", a=lambda step: 1, b=lambda step: 2)
    t.assert_type(both, dict[str, int])
    t.assert_type(step.first("first", a=lambda step: 1), tuple[str, int])
    mixed = step.parallel("mixed", a=lambda step: 1, b=fails, return_exceptions=True)
    t.assert_type(mixed, dict[str, int | BranchError])


def fails(step: Step) -> int:
    return step.run("fail", one_word, "")


@durable.function(on="text/cut")
def fan_out_over_functions(event: Event[dict[str, t.Any]], step: Step) -> None:
    requests = [Requested(audio_url="a"), Requested(audio_url="b")]
    made = step.map("cut", cut, requests, key=lambda r: r.audio_url, limit=20)
    t.assert_type(made, list[Meta])
    t.assert_type(step.map("dicts", cut, [{"audio_url": "a"}]), list[Meta])
    kept = step.map("kept", cut, requests, tolerate=1, return_exceptions=True)
    t.assert_type(kept, list[Meta | BranchError])
    t.assert_type(step.map("typed", index, [Finished(words=1)]), list[int])
    t.assert_type(step.map("untyped", untyped, [{}, {"a": 1}]), list[int])
    t.assert_type(step.map("elsewhere", "index", [{"words": 1}]), list[t.Any])
    step.map("wrong", cut, [Finished(words=1)])  # type: ignore[misc]
    t.assert_type(step.invoke("cut", cut, requests[0]), Meta)
    t.assert_type(step.invoke("dict", cut, {"audio_url": "a"}), Meta)
    answer = step.wait_for_event("done", Finished, timeout="1d", match="data.words")
    t.assert_type(answer, Event[Finished] | None)
    named = step.wait_for_event("named", "a/b", timeout="1d", match={"data.a": 1})
    t.assert_type(named, Event[dict[str, t.Any]] | None)
    step.wait_for_event("endless", Finished)  # type: ignore[call-overload]
    step.wait_for_event("wrong", int, timeout=1)  # type: ignore[type-var]
    try:
        step.map("all", cut, requests)
    except BranchError as error:
        t.assert_type(error.branch, str)
        t.assert_type(error.run_id, str)
