"""Sites: a namespace on real servers, in which a test starts processes."""

from __future__ import annotations

import pathlib
import random
import typing as t

import pytest

from ..forwarding.receiver import receiver as receiver
from ..servers import valkey_server
from ..servers import ValkeyServer
from .chaos import LONG
from .chaos import SHORT
from .sites import Site

#: Seconds that a chaos test may take beyond its time of chaos.
PATIENCE = 300


def pytest_collection_modifyitems(
    config: pytest.Config, items: list[pytest.Item]
) -> None:
    timeout = pytest.mark.timeout(_reign(config) + PATIENCE)
    for item in items:
        if "reign" in getattr(item, "fixturenames", ()):
            item.add_marker(timeout, append=False)


@pytest.fixture
def reign(pytestconfig: pytest.Config) -> float:
    """The seconds of chaos."""
    return _reign(pytestconfig)


def _reign(config: pytest.Config) -> float:
    given: float | None = config.getoption("--chaos")
    if given is not None:
        return given
    return LONG if config.getoption("--long") else SHORT


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
