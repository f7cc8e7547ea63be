"""A client of Sentry's SDK that keeps what it would send."""

from __future__ import annotations

import json
import typing as t

import pytest
import sentry_sdk
from sentry_sdk.transport import Transport


class Kept(Transport):
    """Keeps what would be sent."""

    def __init__(self) -> None:
        super().__init__()
        self.items: list[dict[str, t.Any]] = []

    def capture_envelope(self, envelope: t.Any) -> None:
        self.items += [json.loads(item.get_bytes()) for item in envelope.items]

    @property
    def text(self) -> str:
        return json.dumps(self.items)


@pytest.fixture
def make_client() -> t.Iterator[t.Callable[..., Kept]]:
    """Make a client of this test's alone, without integrations, which patch."""
    with sentry_sdk.isolation_scope() as scope:

        def make(**options: t.Any) -> Kept:
            kept = Kept()
            client = sentry_sdk.Client(
                "http://key@127.0.0.1:9/1",
                transport=kept,
                default_integrations=False,
                **options,
            )
            scope.set_client(client)
            return kept

        yield make
