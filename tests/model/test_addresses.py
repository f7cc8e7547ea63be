"""Addresses that take an answer for a run: who may answer, once, and until when."""

from __future__ import annotations

import io
import json
import logging
import typing as t
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from datetime import timedelta
from datetime import timezone
from urllib.parse import quote
from urllib.parse import urlsplit

import hypothesis
import hypothesis.strategies as st
import pytest
import redis
from flask import Flask
from flask import request
from flask_wtf import CSRFProtect
from werkzeug.test import TestResponse

from flask_durable import Address
from flask_durable import ConfigurationError
from flask_durable import Durable
from flask_durable import Event
from flask_durable import RunStatus
from flask_durable import Step
from flask_durable import StepUsageError
from flask_durable.cli.run_json import run_as_json
from flask_durable.cli.timeline import describe
from flask_durable.payloads.cipher import new_encryption_key
from flask_durable.security.addresses import AddressSigner
from flask_durable.store.barrier import StateMayBeLost

from ..support.harness import Harness
from ..support.servers import SQSServer
from ..support.servers import ValkeyServer

SITE = "https://shop.example/base"
CONFIG: dict[str, t.Any] = {"SECRET_KEY": "k" * 20, "DURABLE_EXTERNAL_URL": f"{SITE}/"}
BROWSER_FORM = "application/x-www-form-urlencoded"
BROWSER = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}


@pytest.fixture(params=["redis", "sqs"])
def harness(
    request: pytest.FixtureRequest, valkey: ValkeyServer, namespace: str
) -> t.Iterator[Harness]:
    """An app that can make addresses, once on each kind of queue."""
    queue = None
    if request.param == "sqs":
        sqs: SQSServer = request.getfixturevalue("sqs")
        queue = sqs.url
    harness = Harness(valkey.url, namespace, DURABLE_QUEUE_URL=queue, **CONFIG)
    yield harness
    harness.close()


class Asked:
    """A function that makes an address and waits for it, and the addresses it made."""

    def __init__(self, harness: Harness, *, nap: bool = False, **page: str) -> None:
        self.harness = harness
        self.made: list[Address] = []
        #: The timeout of the wait.
        self.timeout: str | None = None

        @harness.durable.function(on="order/placed", retries=0)
        def order(event: Event[t.Any], step: Step) -> list[t.Any]:
            url = step.create_url("approve", expires="7d", **page)
            self.made.append(url)
            if nap:
                step.sleep("nap", "1h")
            first = step.wait_for_url("answer", url, timeout=self.timeout)
            return [first]

    def start(self) -> Address:
        """Start the run; return its address."""
        self.harness.send("order/placed", id="order")
        self.harness.settle()
        return self.made[-1]

    @property
    def result(self) -> t.Any:
        run = self.harness.run_of("order")
        assert run.status == RunStatus.COMPLETED, (run.status, run.reason, run.failure)
        return run.result[0]

    @property
    def path(self) -> str:
        return urlsplit(self.made[-1].href).path.removeprefix("/base")

    def get(self, **options: t.Any) -> TestResponse:
        return self.harness.app.test_client().get(self.path, **options)

    def post(self, json: t.Any = None, **options: t.Any) -> TestResponse:
        """Post an answer, and let the run go on."""
        if json is not None:
            options["json"] = json
        response = self.harness.app.test_client().post(self.path, **options)
        self.harness.settle()
        return response

    def end_address(self) -> None:
        """Let the time of the address be over, as far as its memo says."""
        run_id = self.harness.run_of("order").id
        key = f"{self.harness.state.store.keys.tag_of(run_id)}:steps:{run_id}"
        client = self.harness.state.server.client
        memo = str(client.hget(key, "approve"))
        head, _, rest = memo.partition('"ends": ')
        number, _, after = rest.partition(",")
        assert number.isdigit()
        client.hset(key, "approve", f'{head}"ends": 1,{after}')


def test_an_address_is_made_once_and_is_the_same_on_each_replay(
    harness: Harness,
) -> None:
    """1.12: an address of this app, signed with keys of the app's."""
    asked = Asked(harness, nap=True)
    before = datetime.now(timezone.utc)
    url = asked.start()
    harness.advance(3601)

    assert asked.made == [url, url]
    assert url.href.startswith(f"{SITE}/durable/answers/")
    assert timedelta(days=6.9) < url.expires - before < timedelta(days=7.1)
    run = harness.run_of("order")
    assert (run.status, run.reason) == (RunStatus.SUSPENDED, "url")
    assert [(step.name, step.kind) for step in run.steps] == [
        ("approve", "address"),
        ("nap", "sleep"),
        ("answer", "url"),
    ]


@pytest.mark.parametrize("early", [True, False])
@pytest.mark.parametrize("kind", ["json", "data"])
def test_the_wait_returns_what_was_posted(
    harness: Harness, kind: str, early: bool
) -> None:
    """1.12: JSON object or form, as a dict; it works before the wait is reached."""
    asked = Asked(harness, nap=early)
    asked.start()
    sent = {"ok": "yes", "note": "né"}

    response = asked.post(**{kind: sent})

    assert (response.status_code, response.json) == (200, {"status": "accepted"})
    if early:
        assert harness.run_of("order").reason == "sleep"
        harness.advance(3601)
    assert asked.result == sent
    assert harness.run_of("order").steps[-1].value == sent


def test_the_wait_returns_none_when_the_address_has_ended(harness: Harness) -> None:
    """1.12: or None; after its end 410."""
    asked = Asked(harness)
    asked.start()

    harness.advance(7 * 86400 - 60)
    assert harness.run_of("order").status == RunStatus.SUSPENDED
    harness.advance(61)

    assert asked.result is None
    assert asked.post({"ok": 1}).status_code == 410
    assert asked.get().status_code == 410


def test_the_wait_returns_none_when_its_own_time_is_over(harness: Harness) -> None:
    """1.12: the wait has a time of its own, and the address goes on."""
    made: list[Address] = []

    @harness.durable.function(on="order/placed")
    def order(event: Event[t.Any], step: Step) -> list[t.Any]:
        made.append(step.create_url("approve", expires="7d"))
        first = step.wait_for_url("first", made[-1], timeout="1h")
        return [first, step.wait_for_url("second", made[-1], timeout="30d")]

    harness.send("order/placed", id="order")
    harness.settle()
    harness.advance(3601)
    assert [step.name for step in harness.run_of("order").steps][1:] == [
        "first",
        "second",
    ]
    path = urlsplit(made[0].href).path.removeprefix("/base")
    assert harness.app.test_client().post(path, json={"a": 1}).status_code == 200
    harness.settle()

    assert harness.run_of("order").result == [None, {"a": 1}]


def test_getting_the_page_changes_nothing(harness: Harness) -> None:
    """1.12: GET shows a page with one button and changes nothing."""
    asked = Asked(
        harness,
        title="Order <7>",
        text="Line one\n\nLine & two",
        button='Say "yes"',
    )
    asked.start()
    client = harness.state.server.client

    def state() -> dict[str, bytes | None]:
        # In keys that no beat or clock changes by itself.
        keys = client.keys(
            f"{harness.state.store.keys.root}:*{harness.run_of('order').id}*"
        )
        return {str(key): client.dump(str(key)) for key in t.cast("list[str]", keys)}

    before = state()
    for _ in range(3):
        page = asked.get(headers=BROWSER)
        assert asked.harness.app.test_client().head(asked.path).status_code == 200
    harness.settle()

    assert before
    assert state() == before
    assert page.status_code == 200
    assert page.mimetype == "text/html"
    assert page.text.count("<button") == page.text.count("<form") == 1
    assert "Order &lt;7&gt;" in page.text
    assert "<p>Line one</p>\n<p>Line &amp; two</p>" in page.text
    assert "Say &#34;yes&#34;" in page.text

    # A press of the button.
    pressed = asked.post(data={"button": 'Say "yes"'}, headers=BROWSER)
    assert (pressed.status_code, pressed.mimetype) == (200, "text/html")
    assert "<button" not in pressed.text
    assert asked.result == {"button": 'Say "yes"'}
    assert "<button" not in asked.get().text


def test_an_answer_is_accepted_once(harness: Harness) -> None:
    """1.12: a second POST with the same content as the first, another one 409."""
    asked = Asked(harness, nap=True)
    asked.start()

    first = asked.post({"a": 1, "b": [None, 2.5]})
    for again in (
        asked.post(data='{"b":[null,2.5], "a":1}', content_type="application/json"),
        asked.post({"a": 1, "b": [None, 2.5]}),
    ):
        assert (again.status_code, again.json) == (first.status_code, first.json)
    page = asked.get(headers=BROWSER)
    assert (page.status_code, page.text.count("<button")) == (200, 0)
    other = asked.post({"a": 2})
    assert (other.status_code, other.json and other.json["code"]) == (409, "conflict")
    harness.advance(3601)

    assert asked.result == {"a": 1, "b": [None, 2.5]}
    assert asked.post({"a": 1, "b": [None, 2.5]}).status_code == 200
    assert asked.post({"a": 2}).status_code == 409


def test_of_two_answers_at_once_one_is_accepted(harness: Harness) -> None:
    """1.12: single use."""
    asked = Asked(harness)
    asked.start()

    def post(number: int) -> int:
        client = harness.app.test_client()
        return client.post(asked.path, json={"number": number}).status_code

    with ThreadPoolExecutor(4) as threads:
        statuses = list(threads.map(post, range(4)))
    harness.settle()

    assert sorted(statuses) == [200, 409, 409, 409]
    assert asked.result == {"number": statuses.index(200)}


def test_after_its_end_an_address_takes_no_answer(harness: Harness) -> None:
    """1.12: after its end 410, by the state server's clock."""
    asked = Asked(harness, nap=True)
    asked.start()
    asked.end_address()

    response = asked.post({"a": 1})
    assert (response.status_code, response.json and response.json["code"]) == (
        410,
        "gone",
    )
    page = asked.get(headers=BROWSER)
    assert page.status_code == 410
    assert "<button" not in page.text


def test_an_answer_in_time_is_taken_by_a_wait_that_is_reached_late(
    harness: Harness,
) -> None:
    """1.12: it works before the wait is reached, whenever that is."""
    asked = Asked(harness, nap=True)
    asked.start()
    assert asked.post({"a": 1}).status_code == 200
    asked.end_address()

    harness.advance(3601)

    assert asked.result == {"a": 1}


@pytest.mark.parametrize("end", ["cancelled", "removed"])
def test_the_address_of_a_run_that_has_ended_takes_no_answer(
    harness: Harness, end: str
) -> None:
    """1.12: after its end 410."""
    asked = Asked(harness)
    asked.start()
    harness.runs.cancel(harness.run_of("order").id)
    assert asked.post({"a": 1}).status_code == 410
    if end == "removed":
        harness.advance(31 * 86400)
        assert harness.runs.list() == []

    assert asked.post({"a": 1}).status_code == 410
    assert asked.get().status_code == 410


def test_the_address_of_an_earlier_run_of_the_same_event_takes_no_answer(
    harness: Harness,
) -> None:
    """1.12: an address is that of one run."""
    asked = Asked(harness)
    old = asked.start()
    harness.runs.cancel(harness.run_of("order").id)
    harness.advance(31 * 86400)
    new = asked.start()
    assert old.href != new.href

    path = urlsplit(old.href).path.removeprefix("/base")
    client = harness.app.test_client()
    assert client.post(path, json={"a": 1}).status_code == 410
    assert client.get(path).status_code == 410
    assert harness.run_of("order").status == RunStatus.SUSPENDED
    assert asked.post({"a": 2}).status_code == 200
    assert asked.result == {"a": 2}


def test_a_wrong_address_is_answered_with_404_that_tells_nothing(
    harness: Harness,
) -> None:
    """1.12: signed with keys of the app's."""
    asked = Asked(harness)
    asked.start()
    start, _, token = asked.path.rpartition("/")
    content, _, signature = token.rpartition(".")
    forged = AddressSigner(["another key"]).sign(harness.run_of("order").id, "approve")
    wrong = [
        "x",
        content,
        f"{content}.",
        f"{content}.{'A' * len(signature)}",
        f"x{token}",
        f"{token}x",
        # Not its last character: of that one base64 reads four bits alone.
        f"{content}.{'A' if signature[0] != 'A' else 'B'}{signature[1:]}",
        forged,
        "x" * 9000,
        "%00",
        "é",
    ]
    client = harness.app.test_client()
    answers = set()
    for other in wrong:
        got = client.get(f"{start}/{other}")
        posted = client.post(f"{start}/{other}", json={"a": 1})
        answers.add((got.status_code, got.text, posted.status_code, posted.text))

    assert len(answers) == 1
    [(shown, page, status, told)] = answers
    assert (shown, status) == (404, 404)
    assert "There is nothing here." in page
    assert json.loads(told)["code"] == "not_found"
    assert harness.run_of("order").status == RunStatus.SUSPENDED


def test_the_app_can_change_its_keys(harness: Harness) -> None:
    """1.12: keys of the app's; earlier ones verify, and a removed one does not."""
    asked = Asked(harness)
    url = asked.start()
    config = harness.app.config
    config.update(SECRET_KEY="new" * 9, SECRET_KEY_FALLBACKS=[CONFIG["SECRET_KEY"]])
    assert asked.get().status_code == 200
    config["SECRET_KEY_FALLBACKS"] = None
    assert asked.get().status_code == 404
    config["SECRET_KEY_FALLBACKS"] = ["unknown", CONFIG["SECRET_KEY"]]

    assert asked.post({"a": 1}).status_code == 200
    assert asked.result == {"a": 1}
    assert asked.made == [url, url]


JSON = {"content_type": "application/json"}
NESTED = b'{"a":' + b"[" * 9000 + b"]" * 9000 + b"}"


def test_what_is_no_answer_is_refused(harness: Harness) -> None:
    """1.12: a JSON object or a form, of at most 64 KiB."""
    asked = Asked(harness)
    asked.start()
    refused: list[tuple[dict[str, t.Any], int]] = [
        ({"json": [1]}, 400),
        ({"json": "text"}, 400),
        ({"data": b"{", **JSON}, 400),
        ({"data": b'{"a":"\xff"}', **JSON}, 400),
        ({"data": b'{"a":NaN}', **JSON}, 400),
        ({"data": b'{"a":1e999}', **JSON}, 400),
        ({"data": b'{"a":"\\ud800"}', **JSON}, 400),
        ({"data": NESTED, **JSON}, 400),
        ({"json": {"a": "x" * 2**16}}, 413),
        ({"data": {"a": "x" * 2**16}}, 413),
        ({"data": {"a": (io.BytesIO(b"x"), "a.txt")}}, 415),
        ({"data": b"x", "content_type": "multipart/form-data"}, 400),
        ({"data": b"x", "content_type": "multipart/form-data; boundary=b"}, 400),
        ({"data": b"text", "content_type": "text/plain"}, 415),
        ({"data": b"text"}, 415),
    ]

    for sent, status in refused:
        response = asked.post(**sent)
        assert response.status_code == status, (sent, response.text)
        assert response.json is not None
        assert set(response.json) == {"code", "message"}

    assert harness.run_of("order").status == RunStatus.SUSPENDED
    assert asked.post({"a": "x" * (2**16 - 20)}).status_code == 200


def test_a_check_for_csrf_does_not_stand_in_the_way(harness: Harness) -> None:
    """1.12: the address itself is the secret."""
    asked = Asked(harness)
    asked.start()
    CSRFProtect(harness.app)

    assert asked.post(data={"button": "approve"}, headers=BROWSER).status_code == 200
    assert asked.result == {"button": "approve"}


def test_a_form_that_a_hook_has_read_before_is_an_answer(harness: Harness) -> None:
    """1.12: what was posted."""
    asked = Asked(harness)
    asked.start()
    harness.app.before_request(lambda: request.form and None)

    assert asked.post(data={"a": "x" * 2**16}).status_code == 413
    assert asked.post(data={"a": "1"}).status_code == 200
    assert asked.result == {"a": "1"}


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_no_request_to_an_address_is_a_crash(harness: Harness, method: str) -> None:
    """1.12: what is wrong is refused."""
    asked = Asked(harness)
    asked.start()
    kinds = ["application/json", BROWSER_FORM, "multipart/form-data; boundary=b", ""]

    @hypothesis.settings(max_examples=60, database=None)
    @hypothesis.given(
        token=st.none() | st.text(max_size=30),
        body=st.binary(max_size=60) | st.from_regex(rb'\{"a":[^}]*\}'),
        kind=st.sampled_from(kinds),
        accept=st.sampled_from(["", "text/html", "a;q=x", "*/*"]),
    )
    def send(token: str | None, body: bytes, kind: str, accept: str) -> None:
        path = asked.path if token is None else f"/durable/answers/{quote(token, '')}"
        response = harness.app.test_client().open(
            path,
            method=method,
            data=body,
            content_type=kind or None,
            headers={"Accept": accept},
        )
        known = (200, 400, 409, 415) if token is None else (404, 308)
        assert response.status_code in known, response.text

    send()


@pytest.mark.parametrize("kind", ["application/json", BROWSER_FORM])
@pytest.mark.parametrize(("size", "status"), [(2**16 - 100, 200), (2**16, 413)])
def test_a_body_in_chunks_is_not_cut_at_the_limit(
    harness: Harness, kind: str, size: int, status: int
) -> None:
    """1.12: at most 64 KiB."""
    asked = Asked(harness)
    asked.start()
    text = (
        f'{{"a": "{"x" * size}"}}' if kind == "application/json" else f"a={'x' * size}"
    )
    environ = {
        "wsgi.input": io.BytesIO(text.encode()),
        "wsgi.input_terminated": True,
        "HTTP_TRANSFER_ENCODING": "chunked",
        "CONTENT_TYPE": kind,
        "CONTENT_LENGTH": "",
    }

    assert asked.post(environ_overrides=environ).status_code == status
    if status == 200:
        assert asked.result == {"a": "x" * size}


def test_an_answer_that_may_be_lost_is_not_said_to_be_stored(
    valkey: ValkeyServer, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """1.12: with DURABLE_FSYNC="step" it is told when it is durable."""
    harness = Harness(valkey.url, namespace, **{**CONFIG, "DURABLE_FSYNC": "step"})
    asked = Asked(harness)
    asked.start()
    waited: list[int | None] = []

    def wait(mark: int | None) -> None:
        waited.append(mark)
        raise StateMayBeLost

    with monkeypatch.context() as patch:
        patch.setattr(harness.state.answers._barrier, "wait", wait)
        assert asked.post({"a": 1}).status_code == 503
    assert waited
    assert asked.post({"a": 1}).status_code == 200
    assert asked.result == {"a": 1}
    harness.close()


def test_a_form_may_have_fields_twice_and_an_empty_body_is_an_answer(
    harness: Harness,
) -> None:
    """1.12: as a dict."""
    asked = Asked(harness, nap=True)
    asked.start()
    assert asked.post(data={"a": ["1", "2"], "b": "3"}).status_code == 200
    harness.advance(3601)
    assert asked.result == {"a": ["1", "2"], "b": "3"}

    harness.send("order/placed", id="other")
    harness.settle()
    assert asked.post().status_code == 200
    harness.advance(3601)
    assert harness.run_of("other").result == [{}]


def test_the_address_is_kept_out_of_caches_referers_and_frames(
    harness: Harness,
) -> None:
    """1.12: the address is a secret."""
    asked = Asked(harness)
    asked.start()

    for response in (
        asked.get(),
        asked.post([], headers=BROWSER),
        asked.post({}),
        asked.get(),
        harness.app.test_client().get("/durable/answers/x"),
    ):
        headers = response.headers
        assert headers["Cache-Control"] == "no-store"
        assert headers["Referrer-Policy"] == "no-referrer"
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
    style = harness.app.test_client().get("/durable/answers.css")
    assert (style.status_code, style.mimetype) == (200, "text/css")
    assert "http" not in style.text


def test_the_address_is_shown_nowhere(
    harness: Harness, caplog: pytest.LogCaptureFixture
) -> None:
    """1.12: the address is a secret."""
    caplog.set_level(logging.DEBUG)
    asked = Asked(harness, title="Approve it")
    url = asked.start()
    paths = []

    @harness.app.before_request
    def look() -> None:
        paths.append(request.path)

    asked.get()
    asked.post([])
    asked.post({"a": 1})

    token = url.href.rpartition("/")[2]
    run = harness.run_of("order")
    shown = [repr(url), str(url), json.dumps(run_as_json(run)), *describe(run), *paths]
    assert not [line for line in shown if token in line]
    assert any("Approve it" in line for line in describe(run))
    ours = [r for r in caplog.records if r.name.startswith("flask_durable")]
    assert ours
    assert not [r for r in ours if token in r.getMessage() or token in str(r.__dict__)]


def test_addresses_and_answers_are_encrypted(
    valkey: ValkeyServer, namespace: str
) -> None:
    """1.12: with keys for stored data neither is stored in plain text."""
    keys = new_encryption_key()
    harness = Harness(valkey.url, namespace, DURABLE_ENCRYPTION_KEYS=keys, **CONFIG)
    asked = Asked(harness, nap=True, title="Top secret")
    url = asked.start()
    assert asked.post({"a": "plain words"}).status_code == 200
    assert asked.post({"a": "plain words"}).status_code == 200
    assert asked.post({"a": "other words"}).status_code == 409
    client = harness.state.server.client
    run_id = harness.run_of("order").id
    tag = harness.state.store.keys.tag_of(run_id)
    stored = str(client.hgetall(f"{tag}:steps:{run_id}"))
    stored += str(client.hgetall(f"{tag}:signals:{run_id}"))

    assert url.href.rpartition("/")[2] not in stored
    assert "Top secret" not in stored
    assert "plain words" not in stored
    harness.advance(3601)
    assert asked.result == {"a": "plain words"}
    harness.close()


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"DURABLE_EXTERNAL_URL": None}, "DURABLE_EXTERNAL_URL"),
        ({"SECRET_KEY": None}, "SECRET_KEY"),
        ({"DURABLE_URL_PREFIX": ""}, ""),
    ],
)
def test_an_address_needs_a_site_and_a_key(
    valkey: ValkeyServer, namespace: str, config: dict[str, t.Any], told: str
) -> None:
    """1.12: it needs DURABLE_EXTERNAL_URL or a request context; the error says so."""
    harness = Harness(valkey.url, namespace, **(CONFIG | config))
    asked = Asked(harness)
    if not told:
        asked.start()
        assert "/durable/answers/" in asked.path
        harness.close()
        return
    harness.send("order/placed", id="order")
    harness.settle()

    run = harness.run_of("order")
    assert run.status == RunStatus.FAILED
    assert run.failure
    assert run.failure.type.endswith("ConfigurationError")
    assert told in run.failure.message + str(run.failure.traceback)
    assert not run.steps
    harness.close()


def test_an_app_without_routes_has_no_addresses(valkey: ValkeyServer) -> None:
    """1.12: an address of this app."""
    durable = Durable()
    app = Flask("bare")
    app.config.update(CONFIG, DURABLE_REDIS_URL=valkey.url, DURABLE_URL_PREFIX=None)
    durable.init_app(app)
    with pytest.raises(ConfigurationError, match="DURABLE_URL_PREFIX is None"):
        durable.state_of(app).addresses.make("run", "step")


def test_a_request_says_where_the_app_is_found(
    valkey: ValkeyServer, namespace: str
) -> None:
    """1.12: or a request context."""
    harness = Harness(
        valkey.url, namespace, **(CONFIG | {"DURABLE_EXTERNAL_URL": None})
    )
    asked = Asked(harness)
    with harness.app.test_request_context("/", base_url="https://by.request/sub"):
        url = asked.start()
    assert url.href.startswith("https://by.request/sub/durable/answers/")
    addresses = harness.state.addresses
    # A daemon's request to our own route says where the daemon finds the app.
    with (
        harness.app.test_request_context("/durable/worker", method="POST"),
        pytest.raises(ConfigurationError, match="from outside"),
    ):
        addresses.make("run", "step")
    harness.app.config["SERVER_NAME"] = "by.name"
    assert addresses.make("run", "step").startswith("http://by.name/durable/answers/")
    harness.close()


def test_an_address_that_cannot_be_is_a_usage_error(harness: Harness) -> None:
    wrong: list[dict[str, t.Any]] = [
        {"expires": "soon"},
        {"expires": 0},
        {"expires": "11y"},
        {"expires": "1d", "title": 7},
        {"expires": "1d", "text": "x" * 5001},
        {"expires": "1d", "button": "\ud800"},
    ]

    @harness.durable.function(on="order/placed", retries=0)
    def order(event: Event[t.Any], step: Step) -> int:
        for number, options in enumerate(wrong):
            with pytest.raises(StepUsageError):
                step.create_url(f"a{number}", **options)
        return len(wrong)

    assert harness.send_and_settle("order/placed").result == len(wrong)


def test_a_run_waits_for_its_own_addresses_only(harness: Harness) -> None:
    caught: list[StepUsageError] = []
    made: list[Address] = []

    @harness.durable.function(on="order/placed", retries=0)
    def order(event: Event[t.Any], step: Step) -> None:
        made.append(step.create_url("approve", expires="1d"))
        for number, url in enumerate(("https://x", made[0].href, made[0])):
            try:
                step.wait_for_url(f"w{number}", t.cast(t.Any, url), timeout="1h")
            except StepUsageError as error:
                caught.append(error)

    harness.send("order/placed", id="one")
    harness.settle()
    assert (len(caught), harness.run_of("one").reason) == (2, "url")
    harness.send("order/placed", id="two")
    harness.settle()

    assert harness.run_of("two").status == RunStatus.COMPLETED
    assert len(caught) == 5


def test_an_answer_that_comes_while_the_wait_begins_is_not_lost(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """1.12: no lost wake-up, whichever comes first."""
    asked = Asked(harness)
    harness.start()
    suspend = harness.state.store.suspend

    def post_then_suspend(*args: t.Any, **kwargs: t.Any) -> t.Any:
        with ThreadPoolExecutor(1) as another:
            client = harness.app.test_client()
            posted = another.submit(client.post, asked.path, json={"a": 1}).result()
        assert posted.status_code == 200
        return suspend(*args, **kwargs)

    monkeypatch.setattr(harness.state.store, "suspend", post_then_suspend)
    asked.start()

    assert asked.result == {"a": 1}
    assert len(harness.run_of("order").claims) == 1


@pytest.mark.parametrize("early", [True, False])
def test_a_branch_waits_for_an_address_of_its_run(
    harness: Harness, early: bool
) -> None:
    """1.12: in a branch as outside of one."""
    made: list[Address] = []

    def answered(step: Step, url: Address) -> dict[str, t.Any] | None:
        if early:
            step.sleep("nap", "1h")
        return step.wait_for_url("answer", url)

    @harness.durable.function(on="order/placed")
    def order(event: Event[t.Any], step: Step) -> list[t.Any]:
        url = step.create_url("approve", expires="7d")
        made.append(url)
        return [
            *step.first(
                "answer",
                yes=lambda step: answered(step, url),
                late=lambda step: step.sleep("day", "1d"),
            )
        ]

    harness.send("order/placed", id="order")
    harness.settle()
    assert len(set(made)) == 1
    path = urlsplit(made[0].href).path.removeprefix("/base")
    client = harness.app.test_client()
    assert client.post(path, json={"a": 1}).status_code == 200
    assert client.post(path, json={"a": 1}).status_code == 200
    assert client.post(path, json={"a": 2}).status_code == 409
    harness.settle()
    if early:
        harness.advance(3601)

    assert harness.run_of("order").result == ["yes", {"a": 1}]


def test_each_branch_makes_an_address_of_its_own(harness: Harness) -> None:
    """1.12: an address that was made in a branch."""
    made: dict[str, Address] = {}

    def ask(name: str, step: Step) -> t.Any:
        made[name] = step.create_url("approve", expires="7d", title=name)
        return step.wait_for_url("answer", made[name])

    @harness.durable.function(on="order/placed")
    def order(event: Event[t.Any], step: Step) -> list[t.Any]:
        return step.map("ask", ask, ["ada", "bob"])

    harness.send("order/placed", id="order")
    harness.settle()
    client = harness.app.test_client()
    for name in ("bob", "ada"):
        path = urlsplit(made[name].href).path.removeprefix("/base")
        page = client.get(path).text
        assert f"<h1>{name}</h1>" in page
        assert "<p>" not in page, "nothing is said that the function does not say"
        assert client.post(path, json={"by": name}).status_code == 200
        harness.settle()

    assert harness.run_of("order").result == [{"by": "ada"}, {"by": "bob"}]


def test_a_server_that_does_not_answer_leaves_the_address_as_it_is(
    harness: Harness, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """1.12: an answer that was not stored is not said to be."""
    asked = Asked(harness)
    url = asked.start()
    answers = harness.state.answers
    monkeypatch.setattr(answers, "_within", 0)

    def fail(*args: object, **kwargs: object) -> t.NoReturn:
        raise redis.ConnectionError("refused")

    with monkeypatch.context() as patch:
        patch.setattr(answers._inbox, "look", fail)
        for response in (asked.post({"a": 1}), asked.get()):
            assert response.status_code == 503
            assert int(response.headers["Retry-After"]) > 0
    assert "refused" in caplog.text
    assert url.href.rpartition("/")[2] not in caplog.text
    assert asked.post({"a": 1}).status_code == 200
    assert asked.result == {"a": 1}
