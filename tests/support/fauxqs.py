"""Runs tests on fauxqs, an SQS server that shares nothing with moto.

::

    npm install --prefix FOLDER fauxqs
    python -m tests.support.fauxqs FOLDER tests/queue -k sqs

It ends with pytest's exit code. It uses the Node on the ``PATH``.
"""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import typing as t

from .servers import end
from .servers import free_port
from .servers import spawn
from .servers import wait_until

#: Its own command would listen on every interface of the host.
SCRIPT = """
import { buildApp } from "fauxqs";
const [port, host] = [Number(process.argv[1]), "127.0.0.1"];
await buildApp({ logger: false, host }).listen({ port, host });
"""


@contextlib.contextmanager
def fauxqs(folder: str) -> t.Iterator[str]:
    """Run fauxqs from the ``node_modules`` of *folder*; return its address."""
    port = free_port()
    command = ["node", "--input-type=module", "--eval", SCRIPT, str(port)]
    process = spawn(command, folder)

    def answers() -> bool:
        if process.poll() is not None:
            raise RuntimeError(f"fauxqs ended with {process.returncode}")
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return True
        return False

    try:
        wait_until(answers, f"fauxqs on port {port}")
        yield f"http://127.0.0.1:{port}"
    finally:
        end(process)


def main(folder: str, *arguments: str) -> int:
    with fauxqs(folder) as endpoint:
        command = [sys.executable, "-m", "pytest", f"--sqs-endpoint={endpoint}"]
        return subprocess.call([*command, *arguments])


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
