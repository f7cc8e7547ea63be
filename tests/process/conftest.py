"""Sites: a namespace on real servers, in which a test starts processes."""

from __future__ import annotations

import pathlib
import random
import typing as t

import pytest

from flask_durable.common.redelivery import MAX_DELAY

from ..forwarding.receiver import receiver as receiver
from ..support.servers import valkey_server
from ..support.servers import ValkeyServer
from .chaos import LONG
from .chaos import SHORT
from .sites import Site

#: Seconds that a chaos test may take beyond its time of chaos: by default, and if that
#: is long. Then a message may have been received so often that it waits out the longest
#: pause.
PATIENCE = 300
LONG_PATIENCE = 300 + MAX_DELAY


def pytest_collection_finish(session: pytest.Session) -> None:
    reign = _reign(session)
    patience = PATIENCE if reign <= SHORT else LONG_PATIENCE
    timeout = pytest.mark.timeout(reign + patience)
    for item in _nets(session):
        item.add_marker(timeout, append=False)


@pytest.fixture
def reign(request: pytest.FixtureRequest) -> float:
    """The seconds of chaos."""
    return _reign(request.session)


def _reign(session: pytest.Session) -> float:
    given: float | None = session.config.getoption("--chaos")
    if given is not None:
        return given / max(1, len(_nets(session)))
    return LONG if session.config.getoption("--long") else SHORT


def _nets(session: pytest.Session) -> list[pytest.Item]:
    """The chaos tests that were asked for."""
    return [x for x in session.items if "reign" in getattr(x, "fixturenames", ())]


@pytest.fixture
def chance(pytestconfig: pytest.Config) -> random.Random:
    """The source of random choices; the seed is shown when the test fails."""
    seed = pytestconfig.getoption("--chaos-seed")
    if seed is None:
        seed = random.randrange(10**6)
    print(f"to have the same again: --chaos-seed={seed}")
    return random.Random(seed)


@pytest.fixture
def site(
    tmp_path: pathlib.Path, valkey: ValkeyServer, namespace: str
) -> t.Iterator[Site]:
    """A site on servers that no test kills."""
    site = Site(tmp_path, valkey, None, namespace)
    try:
        yield site
    finally:
        site.close()


@pytest.fixture(params=["redis", "sqs"])
def any_site(
    request: pytest.FixtureRequest,
    tmp_path: pathlib.Path,
    valkey: ValkeyServer,
    namespace: str,
) -> t.Iterator[Site]:
    """The same, once on each kind of queue."""
    site = Site(tmp_path, valkey, _queue_url(request), namespace)
    try:
        yield site
    finally:
        site.close()


@pytest.fixture(params=["redis", "sqs"])
def shaky_site(
    request: pytest.FixtureRequest, tmp_path: pathlib.Path, namespace: str
) -> t.Iterator[Site]:
    """The same, on a state server of its own that the test may kill."""
    folder = tmp_path / "files"
    folder.mkdir()
    with valkey_server() as valkey:
        site = Site(folder, valkey, _queue_url(request), namespace)
        try:
            yield site
        finally:
            site.close()


def _queue_url(request: pytest.FixtureRequest) -> str | None:
    if request.param == "redis":
        return None
    return t.cast(str, request.getfixturevalue("sqs").url)
