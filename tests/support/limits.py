"""The limit after which a test that stands still ends its process.

pytest-timeout raises an error in a test that takes too long, once. A test that stands
still after that, as in a teardown, is ended by ``faulthandler_timeout``, which knows
nothing of the timeouts that some tests have of their own.
"""

from __future__ import annotations

import faulthandler
import os

import pytest

#: A copy of the standard error that no capture redirects; the stacks are for it.
STDERR = pytest.StashKey[int]()

#: Times its own timeout that a test may take with its fixtures, as all others may.
TIMES_TIMEOUT = 2


def pytest_configure(config: pytest.Config) -> None:
    config.stash[STDERR] = os.dup(2)


def pytest_unconfigure(config: pytest.Config) -> None:
    os.close(config.stash[STDERR])


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    # pytest starts its clock just before this, and stops any clock after the test.
    limit = float(item.config.getini("faulthandler_timeout"))
    mark = item.get_closest_marker("timeout")
    if mark is not None and (own := TIMES_TIMEOUT * mark.args[0]) > limit > 0:
        stderr = item.config.stash[STDERR]
        faulthandler.dump_traceback_later(own, file=stderr, exit=True)
