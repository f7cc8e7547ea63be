"""Messages fetched beyond free threads, and what becomes of them behind a long job."""

from __future__ import annotations

import threading
import typing as t

from flask_durable.queue.window import PREFETCH_LIMIT
from flask_durable.queue.window import ServiceTimes

from ..support.servers import wait_until
from .kit import bodies
from .kit import body
from .kit import Log
from .kit import send
from .kit import SQSKit
from .kit import working


def test_nothing_is_fetched_ahead_before_service_times_are_known() -> None:
    times = ServiceTimes()
    assert times.ahead("media", 8, 1.0) == 0
    times.took("media", 0.1)
    assert times.ahead("media", 8, 1.0) == PREFETCH_LIMIT
    assert times.ahead("other", 8, 1.0) == 0
    times.forget()
    assert times.ahead("media", 8, 1.0) == 0


def test_a_second_of_work_is_fetched_ahead_and_no_more() -> None:
    times = ServiceTimes()
    for _ in range(50):
        times.took("media", 0.5)
    assert times.ahead("media", 4, 1.0) == 8
    for _ in range(50):
        times.took("media", 10.0)
    assert times.ahead("media", 4, 1.0) == 0
    # Where a message is fetched in no time none is fetched ahead.
    times.took("fast", 0.001)
    assert times.ahead("fast", 4, 0.0) == 0


def test_one_long_job_does_not_sit_on_others(sqs_kit: SQSKit) -> None:
    started, way_out = threading.Event(), threading.Event()
    log, elsewhere = Log(), Log()

    def run(delivery: t.Any) -> None:
        if delivery.message.run == "run-99":
            started.set()
            way_out.wait(60)
        log(delivery)

    busy = sqs_kit.broker(size=1, visibility=30)
    send(busy.transport, bodies(20))
    with working(busy, run, threads=1):
        wait_until(lambda: len(log) == 20, "20 runs")
        assert busy.ahead("media") > 0
        send(busy.transport, [body(99)])
        assert started.wait(10)
        send(busy.transport, bodies(10))
        wait_until(lambda: busy.window.free < 0, "messages fetched ahead")
        # They are given back, so that another worker has them while it runs.
        other = sqs_kit.broker(size=1, visibility=30)
        with working(other, elsewhere, threads=1):
            wait_until(lambda: len(set(elsewhere.runs)) == 10, "10 runs elsewhere")
        way_out.set()
        wait_until(lambda: len(log) == 21, "the long job")
    assert "run-99" not in elsewhere.runs
    assert busy.window.free == busy.window.size
