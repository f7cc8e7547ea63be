"""A worker from its start to its end, as ``flask durable worker`` runs it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import typing as t

import pytest

from ..support.harness import Harness


def test_a_worker_survives_a_storm_of_signals(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flask_durable.worker import service

    class Process:
        id = "here"

        def __init__(self, *args: t.Any, **kwargs: t.Any) -> None: ...

        def start(self) -> None: ...

        def stop(self, grace: float) -> None: ...

        def ailing(self) -> dict[str, str]:
            return {}

        def worn_out(self) -> str:
            return ""

    storm = (
        "import os, sys, time\n"
        "for _ in range(1500):\n"
        "    time.sleep(0.0004)\n"
        "    for _ in range(2): os.kill(int(sys.argv[1]), 15)\n"
    )
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(service, "WorkerProcess", Process)
    monkeypatch.setattr(service, "set_up", lambda *_: None)
    signal.signal(signal.SIGTERM, lambda signum, frame: None)
    sender = subprocess.Popen([sys.executable, "-c", storm, str(os.getpid())])
    try:
        while sender.poll() is None:
            # It waits for a signal of the storm; the last one may be this.
            last = threading.Timer(5, os.kill, (os.getpid(), signal.SIGTERM))
            last.start()
            try:
                service.run_worker(
                    harness.state, queues=["default"], threads=1, grace=60
                )
            finally:
                last.cancel()
    finally:
        sender.kill()
        sender.wait(10)
        signal.signal(signal.SIGTERM, before[0])
        signal.signal(signal.SIGINT, before[1])
