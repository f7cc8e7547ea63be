"""A test that stands still ends its process, at a time that is right for the test."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent

SLOW = """
import time

import pytest


{mark}
def test_it_takes_a_while():
    time.sleep(0.5)
"""


@pytest.mark.parametrize(
    ("mark", "passes"), [("", False), ("@pytest.mark.timeout(60)", True)]
)
def test_the_limit_of_all_tests_ends_none_whose_own_timeout_is_longer(
    mark: str, passes: bool, tmp_path: pathlib.Path
) -> None:
    (tmp_path / "test_slow.py").write_text(SLOW.format(mark=mark))
    (tmp_path / "pytest.ini").write_text(
        "[pytest]\nfaulthandler_timeout = 0.2\nfaulthandler_exit_on_timeout = True\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "tests.support.limits"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert (done.returncode == 0) is passes, done.stdout
    assert ("test_it_takes_a_while" in done.stderr) is not passes
