"""How long a delivery computes."""

from __future__ import annotations

import subprocess
import sys
import threading
import time

from flask_durable.engine.processor_time import ProcessorTime

#: A process that computes for a second at least.
BUSY = "import time\nwhile time.process_time() < 1: pass"


def compute(seconds: float) -> None:
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        pass


def test_waiting_is_not_computing_and_that_of_other_threads_is_not_ours() -> None:
    gate = threading.Event()

    def work() -> None:
        compute(0.3)
        gate.set()

    other = threading.Thread(target=work)
    with ProcessorTime().measured() as computed:
        other.start()
        gate.wait()
        compute(0.05)
    other.join()
    assert 0.05 <= computed() < 0.3


def test_a_process_that_was_started_counts_for_who_is_alone() -> None:
    processor = ProcessorTime()
    with processor.measured() as computed:
        subprocess.run([sys.executable, "-c", BUSY], check=True)
    assert computed() >= 1


def test_a_process_that_was_started_counts_for_nobody_if_several_were_there() -> None:
    processor = ProcessorTime()
    with processor.measured() as first:
        subprocess.run([sys.executable, "-c", BUSY], check=True)
        with processor.measured() as second:
            pass
    with processor.measured() as third:
        pass
    assert first() < 1
    assert second() < 1
    assert third() < 1
