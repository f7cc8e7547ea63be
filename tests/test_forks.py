"""A child that a test forks ends, whatever becomes of it."""

from __future__ import annotations

import os
import signal

import pytest

from .support.forks import in_child
from .support.forks import limit_child

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here"),
    pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning"),
]


def test_a_child_that_raises_does_not_go_on_as_a_test_session() -> None:
    assert in_child(lambda: 1 / 0) == 1
    assert in_child(lambda: pytest.fail("in the child")) == 1
    assert in_child(lambda: None) == 0


def test_a_child_that_hangs_is_ended() -> None:
    def hang() -> None:
        limit_child(1)
        while True:
            signal.pause()

    assert in_child(hang) == -signal.SIGALRM
