"""Inngest's official SDKs, unmodified, send events to a web process of ours."""

from __future__ import annotations

import pathlib
import typing as t

import pytest

from flask_durable.security.keys import new_event_key

from .sdks import breaks
from .sdks import breaks_after
from .sdks import cuts
from .sdks import cuts_after
from .sdks import Fault
from .sdks import javascript_sdk
from .sdks import passes
from .sdks import Proxy
from .sdks import python_sdk
from .sdks import SDK
from .sites import Site

KEY = new_event_key()

EVENT = {"name": "work/fresh", "data": {"x": 1}}
BATCH = [EVENT, {**EVENT, "id": "mine"}, {**EVENT, "id": "user 7/first"}, EVENT]


@pytest.fixture(params=["python", "javascript"])
def sdk(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> SDK:
    return python_sdk(tmp_path) if request.param == "python" else javascript_sdk()


def web_of(site: Site, key: str | None = KEY) -> str:
    """Start the web app with the event API; return its address."""
    keys = {} if key is None else {"FLASK_DURABLE_EVENT_KEYS": key}
    return site.web(FLASK_DURABLE_INNGEST_EVENT_API="1", **keys)[1]


def each_has_one_run(site: Site, ids: list[str]) -> None:
    site.are("completed", *ids)
    assert site.count("completed") == len(ids)
    site.each_step_ran_once()
    site.are_empty()


def test_events_that_an_sdk_sends_start_runs(site: Site, sdk: SDK) -> None:
    url = web_of(site)
    site.ready()
    one = sdk.send([EVENT], url, KEY)["ids"]
    batch = sdk.send(BATCH, url, KEY)["ids"]
    assert batch[1] == "mine"
    assert len({*one, *batch}) == 5
    each_has_one_run(site, one + batch)
    assert site.run_of(one[0]).event.data == {"x": 1}


@pytest.mark.parametrize(
    "faults",
    [
        [cuts_after, passes],
        [breaks, cuts, breaks_after, cuts_after, passes],
    ],
    ids=lambda faults: "-".join(fault.__name__ for fault in faults),
)
def test_what_an_sdk_sends_again_starts_no_second_run(
    site: Site, sdk: SDK, faults: list[Fault]
) -> None:
    with Proxy(web_of(site), faults) as proxy:
        ids = sdk.send(BATCH, proxy.url, KEY)["ids"]
        assert proxy.requests == len(faults)
    site.ready()
    each_has_one_run(site, ids)


def test_events_sent_while_the_server_is_down_start_one_run_each(
    shaky_site: Site, sdk: SDK
) -> None:
    site = shaky_site

    def falls(request: t.Any) -> None:
        site.valkey.kill()
        answer = request.forward()
        site.valkey.start()
        request.answer(*answer)

    with Proxy(web_of(site), [falls]) as proxy:
        ids = sdk.send(BATCH, proxy.url, KEY)["ids"]
        # Without the state server events can be sent where the queue is elsewhere.
        assert proxy.statuses == ([503, 200] if site.kind == "redis" else [200])
    site.ready()
    each_has_one_run(site, ids)


def test_an_sdk_tells_why_its_events_were_refused(site: Site, sdk: SDK) -> None:
    url = web_of(site)
    assert "not known here" in sdk.send([EVENT], url, new_event_key())["error"]
    invalid = sdk.send([EVENT, {"name": "two words"}], url, KEY)
    assert "Nothing was accepted: event 1: name" in invalid["error"]
    closed = sdk.send([EVENT], web_of(site, None), KEY)
    assert "DURABLE_EVENT_KEYS" in closed["error"]
    assert site.queues()[0].waiting == 0


def test_an_sdk_in_development_needs_no_key(site: Site, sdk: SDK) -> None:
    _, url = site.web(
        FLASK_DURABLE_INNGEST_EVENT_API="1", DURABLE_DEVELOPMENT_STACK="1"
    )
    site.ready()
    ids = sdk.send([EVENT], url, INNGEST_DEV="1")["ids"]
    each_has_one_run(site, ids)
