from __future__ import annotations

import subprocess
import sys
import threading
import time

from flask_durable.common.processes import PerProcess


def test_a_value_is_made_once_however_many_threads_ask() -> None:
    made: list[object] = []

    def slowly() -> object:
        time.sleep(0.02)
        made.append(object())
        return made[-1]

    holder = PerProcess(slowly)
    threads = [threading.Thread(target=holder.get) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made == [holder.get()]


def test_a_value_taken_out_is_made_again() -> None:
    holder = PerProcess(object)
    first = holder.get()
    assert holder.pop() is first
    assert holder.pop() is None
    assert holder.get() is not first


FORK = """
import os
from flask_durable.common.processes import PerProcess

holder = PerProcess(os.getpid)
assert holder.get() == os.getpid()
# As if another thread were making the value at this moment.
holder._lock.acquire()
child = os.fork()
if child == 0:
    os._exit(0 if holder.get() == os.getpid() else 1)
raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_a_forked_process_makes_its_own_value() -> None:
    subprocess.run([sys.executable, "-c", FORK], check=True, timeout=20)


def test_the_queue_room_imports_no_boto3() -> None:
    code = (
        "import sys; import flask_durable.app.queues; "
        "assert not {'boto3', 'botocore', 'dramatiq.cli'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=20)
