from __future__ import annotations

import typing as t

import pytest

from ..support.servers import ValkeyServer
from .kit import Kit

#: A database of the shared server that is emptied before each test.
DATABASE = 9


@pytest.fixture
def url(valkey: ValkeyServer) -> str:
    return f"redis://127.0.0.1:{valkey.port}/{DATABASE}"


@pytest.fixture
def kit(url: str) -> t.Iterator[Kit]:
    made = Kit(url)
    yield made
    made.close()
