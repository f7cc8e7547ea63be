"""What a measurement depends on, to be stated with it."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import version

from tests.support.servers import valkey_binary

_PACKAGES = ("flask", "dramatiq", "redis", "hiredis", "pydantic")


def describe() -> dict[str, str]:
    """Return versions, the machine, and the durability of all figures."""
    server = subprocess.run(
        [valkey_binary(), "--version"], capture_output=True, text=True, check=True
    )
    packages = ", ".join(f"{name} {version(name)}" for name in _PACKAGES)
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    return {
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "packages": packages,
        "server": server.stdout.partition(" sha")[0].strip(),
        "machine": f"{os.cpu_count()} cores, load {load} (1, 5, 15 min) at the start",
        "durability": "DURABLE_FSYNC=ack, appendonly yes, appendfsync everysec",
        "settings": "2 processes x 8 threads unless said, loopback TCP, other defaults",
    }
