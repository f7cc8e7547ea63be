"""A command that was started without standard descriptors has them."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys

import pytest

APP = """
import os, subprocess, sys

LOOK = '''
import os
for number in range(3):
    found, null = os.fstat(number), os.stat(os.devnull)
    assert (found.st_dev, found.st_ino) == (null.st_dev, null.st_ino), number
'''
exec(LOOK)
subprocess.run([sys.executable, "-c", LOOK], check=True)
open(os.environ["FOUND"], "w").close()

from flask import Flask
from flask_durable import Durable

app = Flask("bare")
Durable(app)
"""


@pytest.mark.skipif(os.name != "posix", reason="has other descriptors")
def test_closed_descriptors_are_the_null_device_when_the_app_is_loaded(
    tmp_path: pathlib.Path,
) -> None:
    (tmp_path / "bare.py").write_text(APP)
    found = tmp_path / "found"
    started = [sys.executable, "-m", "flask", "--app", "bare", "durable", "worker"]

    subprocess.run(
        ["/bin/sh", "-c", 'exec "$@" 0<&- 1>&- 2>&-', "sh", *started],
        cwd=tmp_path,
        env={**os.environ, "FOUND": str(found)},
        timeout=60,
        check=False,  # there is no server
    )

    assert found.exists()
