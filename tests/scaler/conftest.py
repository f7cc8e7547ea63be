from __future__ import annotations

import typing as t

import pytest

from ..store.kit import Kit
from ..support.servers import ValkeyServer

#: A database of the shared server that is emptied before each test.
DATABASE = 10


@pytest.fixture
def kit(valkey: ValkeyServer) -> t.Iterator[Kit]:
    made = Kit(f"redis://127.0.0.1:{valkey.port}/{DATABASE}", partitions=3)
    yield made
    made.close()
