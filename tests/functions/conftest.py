"""An object to declare functions with."""

from __future__ import annotations

import pytest

from .declared import App


@pytest.fixture
def durable() -> App:
    return App()
