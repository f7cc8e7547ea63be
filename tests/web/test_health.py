"""The routes ``healthz`` and ``readyz``."""

from __future__ import annotations

import pytest

from .site import body_of
from .site import Site


def test_healthz_answers_while_nothing_else_works(site: Site) -> None:
    site.recorder.told.look = lambda: ["the queue is gone"]
    assert body_of(site.client.get("/durable/healthz"), 200) == {"status": "ok"}


def test_readyz_tells_no_more_than_the_status(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    assert body_of(site.client.get("/durable/readyz"), 200) == {"status": "ok"}
    site.recorder.told.look = lambda: ["redis://internal is gone"]
    response = site.client.get("/durable/readyz")
    assert response.status_code == 503
    assert response.json == {"status": "unavailable"}
    assert "redis://internal is gone" in caplog.text


def test_a_look_at_the_readiness_is_told_of_once_however_often_it_is_asked_for(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    seen = ["it is away"]
    site.recorder.told.look = lambda: seen
    for _ in range(5):
        site.client.get("/durable/readyz")
    assert caplog.text.count("it is away") == 1
    seen = ["it is away"]  # another look
    site.client.get("/durable/readyz")
    assert caplog.text.count("it is away") == 2


def test_readyz_is_unavailable_when_the_check_raises(site: Site) -> None:
    def broken() -> list[str]:
        raise ConnectionError

    site.recorder.told.look = broken
    assert site.client.get("/durable/readyz").status_code == 503
