"""The yardstick of steps a second: threads that only EVALSHA the commit script.

Run as a process: ``python -m benchmarks.bare_loop URL THREADS SECONDS``. It waits for a
line on its stdin, and prints how many commits it made a second.
"""

from __future__ import annotations

import sys
import threading
import time
import uuid

import redis

from flask_durable.redis.scripts import load

_TAG = "{bare:0}"


def commit_for(client: redis.Redis, deadline: float, counts: list[int]) -> None:
    """Commit steps of a run of our own until *deadline*."""
    run_id = token = uuid.uuid4().hex
    client.hset(f"{_TAG}:run:{run_id}", mapping={"status": "running", "token": token})
    digest = load("flask_durable.store", "step_commit").digest
    count = 0
    while time.monotonic() < deadline:
        client.evalsha(
            digest,
            1,
            _TAG,
            run_id,
            token,
            "10000",
            f"step-{count}",
            "done",
            "1",
            f'run {{"at":0,"ms":0}} {count}',
            "1000000000",
            "1000000000",
        )
        count += 1
    counts.append(count)


def main() -> None:
    """Run the threads, and print their commits a second."""
    url, threads, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
    client = redis.Redis.from_url(url, decode_responses=True)
    client.script_load(load("flask_durable.store", "step_commit").source)
    counts: list[int] = []
    print("ready", flush=True)
    sys.stdin.readline()
    deadline = time.monotonic() + seconds
    workers = [
        threading.Thread(target=commit_for, args=(client, deadline, counts))
        for _ in range(threads)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    print(sum(counts) / seconds, flush=True)


if __name__ == "__main__":
    main()
