"""The queue fails at any moment of a request that sends events, and the web app too."""

from __future__ import annotations

import json
import pathlib
import threading
import typing as t
import urllib.error
import urllib.request

import pytest

from ..support.proxy import MARKS
from ..support.proxy import Moment
from ..support.proxy import Proxy
from ..support.proxy import proxy
from ..support.proxy import queue_url
from ..support.servers import SQSServer
from ..support.servers import valkey_server
from ..support.servers import ValkeyServer
from ..support.servers import wait_until
from .sites import Process
from .sites import Site
from .sites import TIMEOUT

EVENT_KEY = "evk_" + 43 * "a"

Statuses = dict[str, str]


class Gate:
    """A site whose queue is on a server of its own, behind a proxy.

    :param site: Its state server belongs to the test; its own processes, and the test
        itself, reach the queue directly.
    """

    def __init__(self, site: Site, kind: str, proxy: Proxy) -> None:
        self.site = site
        self.proxy = proxy
        self.behind = {"FLASK_DURABLE_QUEUE_URL": queue_url(kind, proxy.port)}

    def web(self, **environment: str) -> tuple[Process, str]:
        given = {
            "FLASK_DURABLE_EVENT_KEYS": EVENT_KEY,
            "FLASK_DURABLE_ACCEPT_TIMEOUT": "1s",
        }
        return self.site.web(**{**given, **self.behind, **environment})


@pytest.fixture(params=["redis", "sqs"])
def gate(
    request: pytest.FixtureRequest,
    tmp_path: pathlib.Path,
    valkey: ValkeyServer,
    sqs: SQSServer,
    namespace: str,
) -> t.Iterator[Gate]:
    kind = request.param
    port = valkey.port if kind == "redis" else sqs.port
    folder = tmp_path / "files"
    folder.mkdir()
    with valkey_server() as state, proxy(port, MARKS[kind]) as made:
        site = Site(folder, state, queue_url(kind, port), namespace)
        try:
            yield Gate(site, kind, made)
        finally:
            site.close()


def post(address: str, *ids: str) -> tuple[int, Statuses, t.Any]:
    """Send events that start a run of one step; return what was answered."""
    events = [{"name": "work/fresh", "id": id} for id in ids]
    request = urllib.request.Request(
        f"{address}/durable/events",
        json.dumps(events).encode(),
        {"Content-Type": "application/json", "Authorization": f"Bearer {EVENT_KEY}"},
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            status, headers, body = answer.status, answer.headers, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            status, headers, body = error.code, error.headers, json.load(error)
    return status, {e["id"]: e["status"] for e in body["events"]}, headers


def each_has_one_run(site: Site, ids: t.Sequence[str]) -> None:
    site.are("completed", *ids)
    assert site.count("completed") == len(ids)
    site.each_step_ran_once()
    site.are_empty()


def names(first: str, count: int) -> list[str]:
    return [f"{first}-{number}" for number in range(count)]


@pytest.mark.parametrize("moment", [Moment.BEFORE_REQUEST, Moment.BEFORE_REPLY])
def test_a_batch_that_is_cut_in_the_middle_leads_to_one_run_an_event(
    gate: Gate, moment: Moment
) -> None:
    _, address = gate.web()
    assert post(address, "warm")[0] == 202
    # SQS takes 10 of them a call, and the second one is cut.
    ids = names("cut", 35)
    sqs = MARKS["sqs"] == gate.proxy.mark
    gate.proxy.cut_next(*[None] * sqs, moment, moment)

    status, statuses, _ = post(address, *ids)

    assert gate.proxy.cut == 2
    assert (status, set(statuses.values())) == (202, {"accepted"})
    gate.site.ready()
    each_has_one_run(gate.site, ["warm", *ids])


@pytest.mark.parametrize("moment", [Moment.BEFORE_REQUEST, Moment.BEFORE_REPLY])
def test_what_is_answered_as_failed_makes_one_run_when_it_is_sent_again(
    gate: Gate, moment: Moment
) -> None:
    _, address = gate.web()
    gate.site.ready()
    assert post(address, "warm")[0] == 202
    ids = names("fail", 25)
    gate.proxy.cut_next(*[moment] * 1000)

    status, statuses, headers = post(address, *ids)

    assert status == 503
    assert int(headers["Retry-After"]) > 0
    assert set(statuses) == set(ids)
    failed = [id for id, status in statuses.items() if status == "failed"]
    assert failed
    gate.proxy.forget_cuts()
    gate.proxy.bring_up()
    status, statuses, _ = post(address, *failed)
    assert (status, set(statuses.values())) == (202, {"accepted"})
    each_has_one_run(gate.site, ["warm", *ids])


@pytest.mark.parametrize("acted", [False, True])
def test_a_web_process_killed_within_a_request_leaves_nothing_half_done(
    gate: Gate, acted: bool
) -> None:
    web, address = gate.web(FLASK_DURABLE_ACCEPT_TIMEOUT="60s")
    assert post(address, "warm")[0] == 202
    if acted:
        gate.proxy.cut_next(Moment.HOLD_REPLY)
    else:
        gate.proxy.silent = True
    ids = names("killed", 25)
    errors: list[BaseException] = []

    def send() -> None:
        try:
            post(address, *ids)
        except OSError as error:
            errors.append(error)

    client = threading.Thread(target=send)
    client.start()
    if acted:
        assert gate.proxy.holds.wait(TIMEOUT)
    else:
        wait_until(lambda: gate.proxy.swallowed, "a request that nobody gets")
    web.kill()
    client.join(TIMEOUT)
    assert errors
    gate.proxy.bring_up()

    _, address = gate.web()
    status, statuses, _ = post(address, *ids)

    assert (status, set(statuses.values())) == (202, {"accepted"})
    gate.site.ready()
    each_has_one_run(gate.site, ["warm", *ids])


def test_spooled_events_survive_restarts_and_are_sent_when_the_queue_is_back(
    gate: Gate,
) -> None:
    web, address = gate.web(FLASK_DURABLE_SPOOL="1")
    gate.proxy.take_down()
    ids = names("spooled", 25)

    status, statuses, _ = post(address, *ids)
    assert (status, set(statuses.values())) == (202, {"spooled"})
    status, statuses, _ = post(address, *ids[:5])  # a client that got no answer
    assert (status, set(statuses.values())) == (202, {"spooled"})
    web.kill()
    worker = gate.site.worker(**gate.behind)
    worker.says("will be sent again")
    worker.kill()
    gate.site.valkey.kill()
    gate.site.valkey.start()
    gate.site.worker(**gate.behind).says("will be sent again")
    assert gate.site.count("completed") == 0
    gate.proxy.bring_up()

    each_has_one_run(gate.site, ids)
    store = gate.site.state.store
    wait_until(lambda: store.count_owed_events() == 0, "an empty outbox", TIMEOUT)


def test_events_whose_replies_are_lost_are_spooled_too_and_run_once(
    gate: Gate,
) -> None:
    _, address = gate.web(FLASK_DURABLE_SPOOL="1")
    gate.site.ready()
    assert post(address, "warm")[0] == 202
    gate.proxy.cut_next(*[Moment.BEFORE_REPLY] * 1000)
    ids = names("lost", 12)

    status, statuses, _ = post(address, *ids)

    assert status == 202
    assert set(statuses.values()) <= {"accepted", "spooled"}
    assert "spooled" in statuses.values()
    each_has_one_run(gate.site, ["warm", *ids])


def test_without_queue_and_state_server_the_answer_is_honest(gate: Gate) -> None:
    _, address = gate.web(FLASK_DURABLE_SPOOL="1")
    gate.proxy.take_down()
    gate.site.valkey.kill()

    status, statuses, headers = post(address, "one", "two")

    assert (status, statuses) == (503, {"one": "failed", "two": "failed"})
    assert int(headers["Retry-After"]) > 0
    gate.site.valkey.start()
    assert post(address, "one", "two")[:2] == (
        202,
        {"one": "spooled", "two": "spooled"},
    )
    gate.proxy.bring_up()
    gate.site.ready(**gate.behind)
    each_has_one_run(gate.site, ["one", "two"])
