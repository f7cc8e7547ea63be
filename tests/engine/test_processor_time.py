"""The processor time of a delivery."""

from __future__ import annotations

import subprocess
import sys
import time

from flask_durable.engine.processor_time import ProcessorTime

#: A process that computes for a second at least.
BUSY = "import time\nwhile time.process_time() < 1: pass"


def test_computing_counts_and_waiting_does_not() -> None:
    processor = ProcessorTime()
    with processor.measured() as waited:
        time.sleep(0.5)
    with processor.measured() as computed:
        until = time.thread_time() + 0.5
        while time.thread_time() < until:
            pass
    assert (waited() or 0.0) < 0.4
    assert (computed() or 0.0) > 0.4


def test_a_process_that_was_started_counts() -> None:
    with ProcessorTime().measured() as computed:
        subprocess.run([sys.executable, "-c", BUSY], check=True)
    assert (computed() or 0.0) > 0.9


def test_of_deliveries_at_the_same_time_nothing_is_known() -> None:
    processor = ProcessorTime()
    with processor.measured() as first, processor.measured() as second:
        pass
    with processor.measured() as third:
        pass
    assert (first(), second()) == (None, None)
    assert third() is not None
