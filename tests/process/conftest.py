"""Sites: a namespace on real servers, in which a test starts processes."""

from __future__ import annotations

import pathlib
import typing as t

import pytest

from ..forwarding.receiver import receiver as receiver
from ..servers import valkey_server
from ..servers import ValkeyServer
from .sites import Site


@pytest.fixture
def site(
    tmp_path: pathlib.Path, valkey: ValkeyServer, namespace: str
) -> t.Iterator[Site]:
    """A site on servers that nobody kills."""
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
