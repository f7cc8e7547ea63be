"""With keys, nothing that an app stores can be read by those who have the servers."""

from __future__ import annotations

import json
import logging
import sys
import typing as t

import pytest

from flask_durable import ConfigurationError
from flask_durable import Durable
from flask_durable import Event
from flask_durable import EventData
from flask_durable import Failure
from flask_durable import FunctionFailed
from flask_durable import FunctionFinished
from flask_durable import PayloadLocked
from flask_durable import RunStatus
from flask_durable import Step
from flask_durable import StepError
from flask_durable import UnserializableResult
from flask_durable.app.health import HealthChecks
from flask_durable.config.settings import MAX_INLINE_ENCRYPTED
from flask_durable.config.settings import Settings
from flask_durable.messages import EVENT_QUEUE
from flask_durable.payloads.cipher import Cipher
from flask_durable.payloads.cipher import new_encryption_key
from flask_durable.payloads.sealing import Payloads
from flask_durable.queue.sqs.batch import MAX_BYTES
from flask_durable.queue.sqs.client import make_client
from flask_durable.queue.sqs.client import SQSAddress

from ..support.harness import Harness
from ..support.proxy import MARKS
from ..support.proxy import proxy
from ..support.proxy import queue_url
from ..support.servers import SQSServer
from ..support.servers import ValkeyServer
from .conftest import Files
from .conftest import INLINE
from .conftest import Make

OLD, NEW, OTHER = new_encryption_key(), new_encryption_key(), new_encryption_key()

#: In everything that the workload stores.
SECRET = "4929-SECRET-8810"


class Paid(EventData, name="shop/paid"):
    card: str


def found(harness: Harness, *, marker: str = SECRET) -> list[str]:
    """Return the keys of the namespace with *marker* in their name or value."""
    client: t.Any = harness.state.server.client
    read = {
        "string": client.get,
        "hash": client.hgetall,
        "zset": lambda key: client.zrange(key, 0, -1, withscores=True),
        "set": client.smembers,
        "list": lambda key: client.lrange(key, 0, -1),
        "stream": lambda key: client.xrange(key),
    }
    keys = list(client.scan_iter(f"*{harness.state.settings.namespace}*", count=1000))
    assert keys
    dumped = {key: f"{key} {read[client.type(key)](key)}" for key in keys}
    return [key for key, text in dumped.items() if marker in text]


def store_everything(harness: Harness) -> t.Iterator[str]:
    """Drive a workload through all that is stored; yield at each place."""
    durable = harness.durable
    failing = [True]

    def flaky() -> str:
        if failing[0]:
            raise ValueError(f"{SECRET} is refused")
        return SECRET

    def typed() -> dict[str, t.Any]:
        return {SECRET: {1, 2}}

    @durable.function(on=Paid, retries=1, where=lambda event: SECRET in event.data.card)
    def charge(event: Event[Paid], step: Step) -> str:
        card = step.run("card", lambda: event.data.card)
        step.send_event("tell", Event("shop/told", {"card": card}))
        with pytest.raises(UnserializableResult) as refusal:
            step.options(retries=0).run("typed", typed)
        assert SECRET in refusal.value.path
        with pytest.raises(StepError, match=SECRET):
            step.options(retries=0).run("refused", flaky)
        step.sleep("rest", "1h")
        again = step.run("again", flaky)
        return card + again

    @durable.function(on="shop/told", retries=1)
    def doomed(event: Event[t.Any], step: Step) -> None:
        raise ValueError(event.data["card"])

    @doomed.on_failure
    def told(event: Event[t.Any], step: Step, failure: Failure) -> str:
        assert SECRET in failure.message
        return failure.message

    @durable.function(on=[FunctionFinished, FunctionFailed])
    def watch(event: Event[FunctionFinished], step: Step) -> list[t.Any]:
        return step.run("look", lambda: [event.data.event, event.data.result])

    @durable.function(on="shop/opened")
    def nap(event: Event[t.Any], step: Step) -> None:
        step.sleep("nap", "1d")

    harness.start()
    id = harness.send(Paid(card=SECRET))
    yield "an event waits in the queue"
    harness.route()
    yield "a run waits"
    harness.settle()
    yield "a run sleeps, another one waits for its next attempt"
    harness.advance(3601)
    yield "a step waits for its next attempt"
    failing[0] = False
    harness.advance(3601)
    yield "everything has ended"
    assert harness.run_of(id, charge.id).result == 2 * SECRET
    ends = {run.function: run.status for run in harness.runs.list()}
    assert ends == {
        charge.id: RunStatus.COMPLETED,
        doomed.id: RunStatus.FAILED,
        f"{doomed.id}/on_failure": RunStatus.COMPLETED,
        watch.id: RunStatus.COMPLETED,
    }
    sleeping = harness.send_and_settle("shop/opened", {"card": SECRET})
    harness.runs.cancel(sleeping.id)
    yield "others are told of a run that was cancelled"
    harness.settle()
    dying = harness.send("shop/told", {"card": SECRET})
    (delivery,) = harness.state.broker.deliveries(EVENT_QUEUE, 10, 0)
    delivery.dead(f"a test does not want {dying}")
    harness.state.broker.flush_settled(5)
    yield "an event is dead-lettered"


def test_a_secret_is_nowhere_on_the_state_server(make: Make) -> None:
    harness = make(DURABLE_ENCRYPTION_KEYS=[NEW])

    for place in store_everything(harness):
        assert found(harness) == [], place


def test_without_keys_the_same_search_finds_it_at_each_place(make: Make) -> None:
    harness = make()

    for place in store_everything(harness):
        assert found(harness), place


def messages(harness: Harness, url: str) -> list[str]:
    """Return what waits in the queues of SQS, and leave it there."""
    client = make_client(SQSAddress.parse(url))
    prefix = f"{harness.state.settings.namespace}-"
    found: list[str] = []
    for queue in client.list_queues(QueueNamePrefix=prefix)["QueueUrls"]:
        received = client.receive_message(
            QueueUrl=queue,
            MaxNumberOfMessages=10,
            VisibilityTimeout=0,
            WaitTimeSeconds=0,
            MessageAttributeNames=["All"],
        )
        found += map(json.dumps, received.get("Messages", ()))
    client.close()
    return found


def test_a_secret_is_in_no_message_of_sqs(make: Make, sqs: SQSServer) -> None:
    harness = make(DURABLE_ENCRYPTION_KEYS=[NEW], DURABLE_QUEUE_URL=sqs.url)
    seen: list[str] = []

    for place in store_everything(harness):
        seen += messages(harness, sqs.url)
        assert found(harness) == [], place
    assert [body for body in seen if "encrypted:" in body and "shop/paid" in body]
    assert [body for body in seen if "encrypted:" in body and "a test does" in body]
    assert [body for body in seen if SECRET in body] == []


@pytest.mark.parametrize("kind", ["redis", "sqs"])
def test_a_spooled_event_is_encrypted(
    make: Make, valkey: ValkeyServer, sqs: SQSServer, kind: str
) -> None:
    with proxy(valkey.port if kind == "redis" else sqs.port, MARKS[kind]) as made:
        made.down = True
        harness = make(
            DURABLE_QUEUE_URL=queue_url(kind, made.port),
            DURABLE_ACCEPT_TIMEOUT=1,
            DURABLE_SPOOL=True,
            DURABLE_ENCRYPTION_KEYS=[NEW],
        )
        harness.send(Paid(card=SECRET))

        assert harness.state.store.count_owed_events() == 1
        assert found(harness, marker="encrypted:")
        assert found(harness) == []


def test_an_object_of_the_blob_store_is_encrypted(make: Make, files: Files) -> None:
    harness = make(DURABLE_ENCRYPTION_KEYS=[NEW], DURABLE_BLOB_URL=files.url)

    @harness.durable.function(on=Paid)
    def charge(event: Event[Paid], step: Step) -> str:
        return step.run("card", lambda: event.data.card) + "!"

    run = harness.send_and_settle(Paid(card=SECRET * INLINE))

    assert run.result == SECRET * INLINE + "!"
    assert run.event.data == {"card": SECRET * INLINE}
    keys = files.keys()
    assert len(keys) == 4
    assert all(files.read(key).startswith(b"encrypted:") for key in keys)


# -- Rotation ---------------------------------------------------------------------


def workload() -> Durable:
    durable = Durable()

    @durable.function(on=Paid, retries=0)
    def charge(event: Event[Paid], step: Step) -> str:
        card = step.run("card", lambda: event.data.card)
        step.sleep("rest", "1h")
        return card

    return durable


def process(make: Make, *keys: str) -> Harness:
    """Return a process of the app that has *keys*."""
    return make(durable=workload(), DURABLE_ENCRYPTION_KEYS=list(keys) or None)


def test_an_old_key_of_the_list_still_reads(make: Make) -> None:
    before, after = process(make, OLD), process(make, NEW, OLD)
    waiting = before.send(Paid(card="1"))
    run = before.send_and_settle(Paid(card="2"))
    last = before.send(Paid(card="3"))

    after.settle()
    after.advance(3601)

    for id, card in ((waiting, "1"), (run.event_id, "2"), (last, "3")):
        assert after.run_of(id).result == card
    assert after.run_of(last).event.data == {"card": "3"}
    # The first one encrypts.
    with pytest.raises(PayloadLocked):
        _ = before.run_of(last).result


def test_a_removed_key_pauses_the_runs_that_need_it_and_no_others(make: Make) -> None:
    before, after = process(make, OLD), process(make, NEW)
    old = before.send_and_settle(Paid(card="1"))
    new = after.send_and_settle(Paid(card="2"))
    after.advance(3601)

    run = after.runs.get(old.id)
    assert run.status == RunStatus.PAUSED
    assert run.failure is not None
    assert run.failure.code == "payload.locked"
    assert "no key of DURABLE_ENCRYPTION_KEYS fits" in str(run.reason)
    for read in (lambda: run.event, lambda: run.steps[0].value):
        with pytest.raises(PayloadLocked, match="no key of DURABLE_ENCRYPTION_KEYS"):
            read()
    assert after.runs.get(new.id).result == "2"

    mended = process(make, NEW, OLD)
    mended.runs.resume(old.id)
    mended.settle()
    assert mended.runs.get(old.id).result == "1"


@pytest.mark.parametrize("queue", ["redis", "sqs"])
def test_a_worker_with_a_wrong_key_loses_no_event(
    make: Make, sqs: SQSServer, queue: str
) -> None:
    url = sqs.url if queue == "sqs" else None

    def new(key: str) -> Harness:
        return make(
            durable=workload(), DURABLE_ENCRYPTION_KEYS=key, DURABLE_QUEUE_URL=url
        )

    right, wrong = new(NEW), new(OTHER)
    id = right.send(Paid(card="1"))
    wrong.settle()
    run = right.run_of(id)
    assert (run.status, run.failure and run.failure.code) == (
        RunStatus.PAUSED,
        "payload.locked",
    )
    assert right.state.transport.counts(EVENT_QUEUE).dead == 0

    right.runs.resume(run.id)
    right.settle()
    right.advance(3601)
    assert right.runs.get(run.id).result == "1"


def test_a_worker_without_keys_says_which_setting_is_missing(make: Make) -> None:
    sender, worker = process(make, NEW), process(make)
    id = sender.send(Paid(card="1"))
    worker.settle()

    run = worker.run_of(id)
    assert run.status == RunStatus.PAUSED
    assert "Set DURABLE_ENCRYPTION_KEYS" in str(run.reason)


def test_what_was_stored_without_keys_is_read_with_them(make: Make) -> None:
    before, after = process(make), process(make, NEW)
    run = before.send_and_settle(Paid(card="1"))
    waiting = before.send(Paid(card="2"))
    after.settle()
    after.advance(3601)

    assert after.runs.get(run.id).result == "1"
    assert after.run_of(waiting).result == "2"


def test_a_run_whose_data_is_locked_can_be_cancelled(make: Make) -> None:
    before, after = process(make, OLD), process(make, NEW)

    @after.durable.function(on=FunctionFinished)
    def watch(event: Event[FunctionFinished], step: Step) -> dict[str, t.Any]:
        return event.data.event

    run = before.send_and_settle(Paid(card="1"))
    after.start()
    after.runs.cancel(run.id)
    after.settle()

    (told,) = after.runs.list(function=watch.id)
    assert after.runs.get(run.id).status == RunStatus.CANCELLED
    assert (told.result["id"], told.result["data"]) == (run.event_id, {})


def test_a_token_that_was_changed_is_not_read() -> None:
    cipher = Cipher([NEW, OLD])
    sealed = cipher.encrypt(SECRET)
    assert cipher.decrypt(sealed) == SECRET

    other = "B" if sealed[60] == "A" else "A"
    mixed = f"{sealed[:60]}{other}{sealed[61:]}"
    for changed in (mixed, sealed[:40], "encrypted:", "encrypted:ä"):
        with pytest.raises(PayloadLocked) as caught:
            cipher.decrypt(changed)
        assert caught.value.code == "payload.locked"
        assert caught.value.__cause__ is None


# -- Keys -------------------------------------------------------------------------


def test_keys_are_in_no_log_no_text_and_no_report(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    before, after = process(make, OLD), process(make, NEW)
    run = before.send_and_settle(Paid(card="1"))
    after.advance(3601)

    state = after.state
    seen = [
        *(record.getMessage() for record in caplog.records),
        caplog.text,
        *(repr(part) for part in (state.settings, state.payloads, state.services)),
        str(state.settings),
        *(check.detail for check in HealthChecks(state).everything()),
        repr(after.runs.get(run.id).failure),
    ]
    assert not [text for text in seen if OLD in text or NEW in text]
    (check,) = [
        check
        for check in HealthChecks(state).everything()
        if check.name == "encryption"
    ]
    assert check.detail == "the first of 1 key(s) encrypts"


@pytest.mark.parametrize(
    "key",
    ["short", NEW[:-1], f"{NEW}=", "ä" * 44],
    # The keys are random, and every process of a parallel run must call them the same.
    ids=["short", "without-padding", "too-long", "not-ascii"],
)
def test_a_malformed_key_is_refused_and_not_repeated(make: Make, key: str) -> None:
    with pytest.raises(ConfigurationError, match="--kind encryption") as caught:
        make(DURABLE_ENCRYPTION_KEYS=[NEW, key])
    assert key not in str(caught.value)
    assert NEW[:-1] not in str(caught.value)


def test_keys_without_an_order_are_refused(make: Make) -> None:
    with pytest.raises(ConfigurationError, match="the first key encrypts"):
        make(DURABLE_ENCRYPTION_KEYS={NEW, OLD})


def test_without_cryptography_the_error_names_the_extra(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "cryptography.fernet", None)
    harness = process(make, NEW)

    with pytest.raises(ConfigurationError, match="cryptography") as caught:
        harness.send(Paid(card="1"))
    assert "flask-durable[encryption]" in str(caught.value.hint)
    (check,) = [
        c for c in HealthChecks(harness.state).everything() if c.name == "encryption"
    ]
    assert not check.ok


def test_an_encrypted_event_of_the_largest_inline_limit_fits_into_sqs(
    make: Make, sqs: SQSServer
) -> None:
    harness = make(
        durable=workload(),
        DURABLE_ENCRYPTION_KEYS=NEW,
        DURABLE_QUEUE_URL=sqs.url,
        DURABLE_INLINE_LIMIT=MAX_INLINE_ENCRYPTED,
    )
    card = "x" * (MAX_INLINE_ENCRYPTED - 2000)
    event = Event("shop/paid", {"card": card}, id="e" * 128)
    message = harness.state.message(event, headers={"baggage": "b" * 1024})
    assert len(harness.state.payloads.seal_event(message).encode()) < MAX_BYTES

    id = harness.send(event)
    harness.settle()
    harness.advance(3601)
    assert harness.run_of(id).result == card


def test_an_inline_limit_that_encryption_takes_beyond_sqs_is_refused() -> None:
    values = {"encryption_keys": NEW, "inline_limit": MAX_INLINE_ENCRYPTED + 1}

    with pytest.raises(ValueError, match="encryption adds a third"):
        Settings.model_validate(values)


def payloads(*keys: str) -> Payloads:
    return Payloads(INLINE, cipher=Cipher(keys) if keys else None)


def test_a_digest_tells_calls_apart_and_nothing_without_a_key() -> None:
    digest = payloads(NEW).digest(b"pin 4711")

    assert not payloads(NEW).differs(digest, b"pin 4711")
    assert payloads(NEW).differs(digest, b"pin 4712")
    assert digest != payloads(OTHER).digest(b"pin 4711")
    assert digest != payloads().digest(b"pin 4711")


def test_a_digest_is_known_after_the_keys_were_rotated() -> None:
    digest = payloads(OLD).digest(b"pin 4711")

    assert not payloads(NEW, OLD).differs(digest, b"pin 4711")
    assert payloads(NEW, OLD).differs(digest, b"pin 4712")


@pytest.mark.parametrize("keys", [(), (OTHER,)])
def test_a_digest_of_a_key_that_is_not_here_says_nothing(keys: tuple[str, ...]) -> None:
    digest = payloads(OLD).digest(b"pin 4711")

    assert not payloads(*keys).differs(digest, b"anything")


def test_a_digest_that_was_made_without_keys_is_compared_with_keys_too() -> None:
    digest = payloads().digest(b"a call")

    assert not payloads(NEW).differs(digest, b"a call")
    assert payloads(NEW).differs(digest, b"another call")
