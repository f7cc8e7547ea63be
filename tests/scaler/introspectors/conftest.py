from __future__ import annotations

import typing as t

import pytest

from ...support.servers import valkey_server
from ...support.servers import ValkeyServer


@pytest.fixture(scope="module")
def server() -> t.Iterator[ValkeyServer]:
    """A server with nothing on it but the queues of another library."""
    with valkey_server() as server:
        yield server
