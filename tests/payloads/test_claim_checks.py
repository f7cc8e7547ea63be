"""Events and results beyond the inline limit go to the blob store and come back."""

from __future__ import annotations

import json
import typing as t

import pytest

from flask_durable import Event
from flask_durable import EventData
from flask_durable import EventError
from flask_durable import Failure
from flask_durable import FunctionFinished
from flask_durable import PayloadMissing
from flask_durable import Run
from flask_durable import RunNotFound
from flask_durable import RunStatus
from flask_durable import Step
from flask_durable import StepError
from flask_durable import UnavailableError
from flask_durable.app.health import HealthChecks
from flask_durable.engine import run_payloads
from flask_durable.payloads.files import FileStore
from flask_durable.payloads.sealing import make_blob_store
from flask_durable.payloads.sealing import Payloads
from flask_durable.queue.sqs.batch import MAX_BYTES

from ..support.harness import Harness
from ..support.servers import SQSServer
from ..support.servers import wait_until
from .conftest import Bucket
from .conftest import Files
from .conftest import INLINE
from .conftest import LARGE
from .conftest import Make
from .conftest import Objects

TEXT = "x" * LARGE


class Uploaded(EventData, name="media/uploaded"):
    text: str


def measure(harness: Harness, calls: list[str] | None = None) -> None:
    """Declare a function with a large event, step result and result."""
    calls = [] if calls is None else calls

    @harness.durable.function(on=Uploaded, retries=0)
    def upper(event: Event[Uploaded], step: Step) -> str:
        def shout() -> str:
            calls.append("shout")
            return event.data.text.upper()

        text = step.run("shout", shout)
        step.sleep("rest", "1h")
        return text + step.run("tail", lambda: "!")

    @upper.on_failure
    def failed(event: Event[Uploaded], step: Step, failure: Failure) -> str:
        return f"{failure.code} of {type(event.data).__name__}"


def stored(harness: Harness) -> str:
    """Return everything that the state server has of the namespace."""
    client = harness.state.server.client
    found = []
    for key in t.cast("list[str]", client.keys(f"*{harness.state.store.keys.root}*")):
        dumped = client.hgetall(key) if client.type(key) == "hash" else ""
        found.append(f"{key}{dumped}")
    return "".join(found)


@pytest.mark.parametrize("queue", ["redis", "sqs"])
def test_a_large_event_and_large_results_pass_through(
    make: Make, objects: Objects, sqs: SQSServer, queue: str
) -> None:
    url = sqs.url if queue == "sqs" else None
    harness = make(DURABLE_BLOB_URL=objects.url, DURABLE_QUEUE_URL=url)
    calls: list[str] = []
    measure(harness, calls)

    run = harness.send_and_settle(Uploaded(text=TEXT))
    harness.advance(3601)

    run = harness.runs.get(run.id)
    assert (run.status, run.result) == (RunStatus.COMPLETED, TEXT.upper() + "!")
    assert run.event.data == {"text": TEXT}
    assert [step.value for step in run.steps] == [TEXT.upper(), None, "!"]
    assert calls == ["shout"]
    assert len(objects.of_events()) == 1
    assert len(objects.of_runs()) == 3  # its event, the step's result, its own
    assert "x" * INLINE not in stored(harness)


def test_what_is_small_stays_where_it_is(make: Make, files: Files) -> None:
    harness = make(DURABLE_BLOB_URL=files.url)
    measure(harness)

    run = harness.send_and_settle(Uploaded(text="x" * 100))
    harness.advance(3601)

    assert harness.runs.get(run.id).result == "X" * 100 + "!"
    assert files.keys() == []


def test_an_event_over_the_limit_is_accepted_over_http(
    make: Make, bucket: Bucket
) -> None:
    key = "evk_" + "k" * 43
    harness = make(DURABLE_BLOB_URL=bucket.url, DURABLE_EVENT_KEYS=key)
    measure(harness)

    answer = harness.app.test_client().post(
        "/durable/events",
        json={"name": "media/uploaded", "data": {"text": TEXT}},
        headers={"Authorization": f"Bearer {key}"},
    )

    assert answer.status_code == 202, answer.get_data(as_text=True)
    assert len(bucket.of_events()) == 1
    harness.settle()
    assert harness.runs.list()[0].event.data == {"text": TEXT}


def test_without_a_blob_store_an_event_over_the_limit_is_refused(make: Make) -> None:
    harness = make()

    with pytest.raises(EventError, match=f"{INLINE} are allowed"):
        harness.send(Uploaded(text=TEXT))


def test_an_event_larger_than_sqs_takes_arrives(
    make: Make, bucket: Bucket, sqs: SQSServer
) -> None:
    harness = make(
        DURABLE_BLOB_URL=bucket.url,
        DURABLE_QUEUE_URL=sqs.url,
        DURABLE_INLINE_LIMIT=MAX_BYTES // 4,
    )

    @harness.durable.function(on=Uploaded)
    def length(event: Event[Uploaded], step: Step) -> int:
        return len(event.data.text)

    sizes = [2 * MAX_BYTES, 3, *[MAX_BYTES // 5] * 7]
    with harness.app.app_context():
        ids = harness.durable.send_many(Uploaded(text="x" * size) for size in sizes)
    harness.settle()

    assert [harness.run_of(id).result for id in ids] == sizes
    assert len(bucket.of_events()) == 1


def test_what_the_end_of_a_run_tells_may_be_large(
    make: Make, files: Files, sqs: SQSServer
) -> None:
    harness = make(DURABLE_BLOB_URL=files.url, DURABLE_QUEUE_URL=sqs.url)

    @harness.durable.function(on=Uploaded)
    def double(event: Event[Uploaded], step: Step) -> str:
        return 2 * event.data.text

    @harness.durable.function(on=FunctionFinished)
    def told(event: Event[FunctionFinished], step: Step) -> list[t.Any]:
        return [event.data.result, len(event.data.event["data"]["text"])]

    harness.send(Uploaded(text="x" * MAX_BYTES))
    harness.settle()

    (run,) = harness.runs.list(function=told.id)
    assert run.result == [None, MAX_BYTES]


def test_a_list_of_runs_fetches_nothing(
    make: Make, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    harness = make(DURABLE_BLOB_URL=files.url)
    measure(harness)
    harness.send_and_settle(Uploaded(text=TEXT))
    fetched: list[str] = []
    get = FileStore.get
    monkeypatch.setattr(
        FileStore, "get", lambda self, key: fetched.append(key) or get(self, key)
    )

    (run,) = harness.runs.list()
    assert (run.event_name, repr(run)) == (
        "media/uploaded",
        f"<Run {run.id} of {run.function!r}, suspended>",
    )
    assert fetched == []
    assert run.event.data == run.event.data == {"text": TEXT}
    assert len(fetched) == 1


# -- An object is gone ------------------------------------------------------------


def suspended(harness: Harness) -> Run:
    measure(harness)
    run = harness.send_and_settle(Uploaded(text=TEXT))
    assert (run.status, run.reason) == (RunStatus.SUSPENDED, "sleep")
    return run


def handled(harness: Harness, run: Run) -> Run:
    (found,) = harness.runs.list(function=f"{run.function}/on_failure")
    return found


def test_a_missing_result_fails_its_run_alone(make: Make, objects: Objects) -> None:
    harness = make(DURABLE_BLOB_URL=objects.url)
    run = suspended(harness)
    other = harness.send_and_settle(Uploaded(text=TEXT[1:]))
    objects.lose(f"runs/{run.id}")

    harness.advance(3601)

    run = harness.runs.get(run.id)
    assert run.status == RunStatus.FAILED
    assert run.failure is not None
    assert (run.failure.code, run.failure.type) == (
        "payload.missing",
        "flask_durable.errors.PayloadMissing",
    )
    assert "is not in the blob store" in run.failure.message
    assert harness.runs.get(other.id).status == RunStatus.COMPLETED
    assert handled(harness, run).result == "payload.missing of Uploaded"
    with pytest.raises(PayloadMissing):
        _ = run.steps[0].value


def test_a_missing_event_fails_its_run_and_its_handler_is_told(
    make: Make, objects: Objects
) -> None:
    harness = make(DURABLE_BLOB_URL=objects.url)
    measure(harness)
    lost = harness.send(Uploaded(text=TEXT))
    objects.lose("events")
    kept = harness.send(Uploaded(text="short"))
    harness.settle()

    run = harness.run_of(lost)
    assert run.status == RunStatus.FAILED
    assert run.failure is not None
    assert run.failure.code == "payload.missing"
    assert handled(harness, run).result == "payload.missing of dict"
    assert harness.run_of(kept).status == RunStatus.SUSPENDED
    assert (run.event_id, run.event_name) == (lost, "media/uploaded")


def test_a_changed_object_is_as_good_as_missing(make: Make, objects: Objects) -> None:
    harness = make(DURABLE_BLOB_URL=objects.url)
    run = suspended(harness)
    for key in objects.of_runs():
        objects.write(key, objects.read(key).replace(b"X", b"Y"))

    harness.advance(3601)

    failure = harness.runs.get(run.id).failure
    assert failure is not None
    assert failure.code == "payload.missing"


def test_a_run_goes_on_by_a_retry_once_its_object_is_restored(
    make: Make, objects: Objects
) -> None:
    harness = make(DURABLE_BLOB_URL=objects.url)
    calls: list[str] = []
    measure(harness, calls)
    run = harness.send_and_settle(Uploaded(text=TEXT))
    kept = {key: objects.read(key) for key in objects.of_runs()}
    objects.lose("runs")
    harness.advance(3601)
    assert harness.runs.get(run.id).status == RunStatus.FAILED

    for key, content in kept.items():
        objects.write(key, content)
    harness.runs.retry(run.id)
    harness.settle()

    assert harness.runs.get(run.id).result == TEXT.upper() + "!"
    assert calls == ["shout"]


def test_the_body_cannot_catch_that_its_data_is_missing(
    make: Make, files: Files
) -> None:
    harness = make(DURABLE_BLOB_URL=files.url)
    went_on: list[str] = []

    @harness.durable.function(on="a/b")
    def stubborn(event: Event[t.Any], step: Step) -> str:
        try:
            step.run("large", lambda: TEXT)
            step.sleep("rest", "1h")
        except BaseException:
            pass
        went_on.append("on")
        return step.run("last", lambda: "done")

    run = harness.send_and_settle("a/b")
    files.lose(f"runs/{run.id}")
    harness.advance(3601)

    run = harness.runs.get(run.id)
    assert run.failure is not None
    assert (run.status, run.failure.code) == (RunStatus.FAILED, "payload.missing")
    assert "last" not in [step.name for step in run.steps]


def test_a_worker_without_the_blob_store_pauses_the_run(
    make: Make, files: Files
) -> None:
    sender, worker = make(DURABLE_BLOB_URL=files.url), make()
    measure(worker)
    id = sender.send(Uploaded(text=TEXT))
    worker.settle()

    run = worker.run_of(id)
    assert (run.status, run.failure and run.failure.code) == (
        RunStatus.PAUSED,
        "payload.locked",
    )
    assert "DURABLE_BLOB_URL" in str(run.reason)

    measure(sender)
    sender.runs.resume(run.id)
    sender.settle()
    assert sender.runs.get(run.id).status == RunStatus.SUSPENDED


# -- The blob store is down -------------------------------------------------------


@pytest.fixture
def outage(files: Files) -> t.Callable[[bool], None]:
    """Return what takes the directory away, and gives it back."""
    aside = files.root.with_name("aside")

    def switch(down: bool) -> None:
        if down:
            files.root.mkdir(exist_ok=True)
            files.root.rename(aside)
            files.root.write_text("no directory")
        else:
            files.root.unlink()
            aside.rename(files.root)

    return switch


Outage = t.Callable[[bool], None]


def test_events_are_refused_one_by_one_while_it_is_down(
    make: Make, files: Files, outage: Outage
) -> None:
    key = "evk_" + "k" * 43
    harness = make(DURABLE_BLOB_URL=files.url, DURABLE_EVENT_KEYS=key)
    measure(harness)
    outage(True)
    events = [
        {"name": "media/uploaded", "id": id, "data": {"text": text}}
        for id, text in {"e1": "short", "e2": TEXT, "e3": "short"}.items()
    ]

    answer = harness.app.test_client().post(
        "/durable/events", json=events, headers={"Authorization": f"Bearer {key}"}
    )

    assert answer.status_code == 503
    assert answer.headers["Retry-After"]
    statuses = [event["status"] for event in answer.get_json()["events"]]
    assert statuses == ["accepted", "failed", "accepted"]
    with pytest.raises(UnavailableError, match="DURABLE_BLOB_URL"):
        harness.send(Uploaded(text=TEXT))


def test_a_run_waits_while_it_is_down_and_no_attempt_counts(
    make: Make, files: Files, outage: Outage
) -> None:
    harness = make(DURABLE_BLOB_URL=files.url)
    calls: list[str] = []
    measure(harness, calls)
    run = harness.send_and_settle(Uploaded(text=TEXT))
    outage(True)
    harness.advance(3601)

    for _ in range(harness.state.settings.max_dispatches + 1):
        run = harness.runs.get(run.id)
        assert run.status == RunStatus.SUSPENDED
        assert run.reason == "the blob store does not answer"
        harness.advance(run_payloads.BLOB_RETRY + 1)

    outage(False)
    harness.advance(run_payloads.BLOB_RETRY + 1)
    assert harness.runs.get(run.id).status == RunStatus.COMPLETED
    assert calls == ["shout"]


def test_a_result_that_is_not_taken_is_a_failed_attempt_of_its_step(
    make: Make, files: Files, outage: Outage
) -> None:
    harness = make(DURABLE_BLOB_URL=files.url)

    @harness.durable.function(on="a/b", retries=1)
    def work(event: Event[t.Any], step: Step) -> str:
        try:
            return step.run("large", lambda: TEXT)
        except StepError as error:
            return error.failure.code

    outage(True)
    lost = harness.send_and_settle("a/b")
    harness.advance(60)
    assert harness.runs.get(lost.id).result == "payload.unavailable"

    run = harness.send_and_settle("a/b")
    outage(False)
    harness.advance(60)
    assert harness.runs.get(run.id).result == TEXT


def test_health_tells_that_it_is_down(make: Make, files: Files, outage: Outage) -> None:
    harness = make(DURABLE_BLOB_URL=files.url)

    def blob_store() -> tuple[bool, str]:
        (check,) = [
            c
            for c in HealthChecks(harness.state).everything()
            if c.name == "blob store"
        ]
        return check.ok, check.detail

    assert blob_store() == (True, files.url)
    outage(True)
    ok, detail = blob_store()
    assert not ok
    assert "DURABLE_BLOB_URL" in detail


# -- Removal ----------------------------------------------------------------------


def test_objects_go_with_their_run_and_not_before(make: Make, objects: Objects) -> None:
    harness = make(DURABLE_BLOB_URL=objects.url)
    measure(harness)
    run = harness.send_and_settle(Uploaded(text=TEXT))
    other = harness.send_and_settle(Uploaded(text=TEXT))
    objects.lose("events")  # as their lifecycle does, long before such a run ends
    harness.advance(3601)
    assert harness.runs.get(run.id).result == TEXT.upper() + "!"
    harness.move_clock(4 * 86400)
    keep(harness, other.id)
    harness.advance(4 * 86400)

    assert [r.id for r in harness.runs.list()] == [other.id]
    assert {key.split("/")[1] for key in objects.of_runs()} == {other.id}
    assert harness.runs.get(other.id).result == TEXT.upper() + "!"


def keep(harness: Harness, run_id: str) -> None:
    """Let a run expire much later."""
    tag = harness.state.store.keys.tag_of(run_id)
    harness.state.server.client.zincrby(f"{tag}:expire", 90 * 86400 * 1000, run_id)


def test_a_run_stays_until_its_objects_could_be_removed(
    make: Make, files: Files, outage: Outage
) -> None:
    harness = make(DURABLE_BLOB_URL=files.url)
    run = suspended(harness)
    harness.runs.cancel(run.id)
    before = files.of_runs()
    outage(True)
    harness.advance(31 * 86400)
    assert harness.runs.get(run.id).status == RunStatus.CANCELLED

    outage(False)
    assert files.of_runs() == before
    with pytest.raises(RunNotFound):
        harness.runs.retry(run.id)
    harness.advance(61)
    assert files.of_runs() == []
    assert harness.runs.list() == []


def test_a_worker_removes_objects_on_a_thread_of_its_own(
    make: Make, files: Files
) -> None:
    harness = make(DURABLE_BLOB_URL=files.url)
    run = suspended(harness)
    harness.runs.cancel(run.id)
    harness.move_clock(31 * 86400)

    harness.sweeper.start()
    try:
        wait_until(lambda: not harness.runs.list(), "an empty list of runs")
    finally:
        harness.sweeper.stop()

    assert files.of_runs() == []


def test_without_the_blob_store_a_run_is_removed_all_the_same(
    make: Make, files: Files
) -> None:
    harness, other = make(DURABLE_BLOB_URL=files.url), make()
    suspended(harness)
    harness.advance(3601)

    other.advance(8 * 86400)

    assert harness.runs.list() == []
    assert len(files.of_runs()) == 3


def test_another_result_of_a_step_is_another_object(files: Files) -> None:
    payloads = Payloads(INLINE, blobs=make_blob_store(files.url))
    held: list[str] = []
    first, second, again = (
        payloads.seal_result(json.dumps(text), "r1", hold=lambda: held.append("r1"))
        for text in (TEXT, TEXT + "!", TEXT)
    )

    assert (first, len(files.keys()), len(held)) == (again, 2, 3)
    assert json.loads(payloads.open(first)) == TEXT
    assert json.loads(payloads.open(second)) == TEXT + "!"
    payloads.remove_run("r1")
    assert files.keys() == []


def test_a_crowded_run_keeps_small_results_in_the_blob_store(
    make: Make, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_payloads, "CROWDED", 10 * INLINE)
    harness = make(DURABLE_BLOB_URL=files.url)

    @harness.durable.function(on="a/b")
    def work(event: Event[t.Any], step: Step) -> None:
        for number in range(16):
            step.run(f"page-{number}", lambda: "x" * (INLINE - 100))
        step.run("tiny", lambda: "y")

    run = harness.send_and_settle("a/b")

    sizes = [len(step.value) for step in run.steps]
    assert (run.status, sizes) == (RunStatus.COMPLETED, [*[INLINE - 100] * 16, 1])
    assert len(files.of_runs()) == 1  # one content
    assert stored(harness).count("blob:") == 5
