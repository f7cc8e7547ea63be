"""Metrics for statsd: names, tags, packets."""

from __future__ import annotations

import socket
import threading
import time
import types
import typing as t

import pytest

from flask_durable import Event
from flask_durable import EventData
from flask_durable import Step
from flask_durable.errors import UnavailableError
from flask_durable.middleware import EventInfo
from flask_durable.middleware import RoutedInfo
from flask_durable.middleware import RouteInfo
from flask_durable.middleware import SendInfo
from flask_durable.observe.metrics import statsd as statsd_module
from flask_durable.observe.metrics.middleware import Metrics
from flask_durable.observe.metrics.middleware import MOST_NAMES
from flask_durable.observe.metrics.statsd import LATE
from flask_durable.observe.metrics.statsd import LOOK_UP
from flask_durable.observe.metrics.statsd import Statsd

from ...process.packets import Packets
from ...process.packets import receiving
from ...support.forks import in_child
from ...support.harness import Harness
from ...support.servers import ValkeyServer
from ...support.servers import wait_until


@pytest.fixture
def packets() -> t.Iterator[Packets]:
    with receiving() as found:
        yield found


@pytest.fixture
def make(packets: Packets) -> t.Iterator[t.Callable[..., Statsd]]:
    made = []

    def make(prefix: str = "", tags: t.Any = "dogstatsd") -> Statsd:
        made.append(Statsd(packets.url, prefix, tags))
        return made[-1]

    yield make
    for statsd in made:
        statsd.close()


@pytest.mark.parametrize(
    ("style", "line"),
    [
        (None, "app.queue.wait.media_a.t_x:12.000|ms"),
        ("dogstatsd", "app.queue.wait:12.000|ms|#queue:media_a,function:t_x"),
        ("influx", "app.queue.wait,queue=media_a,function=t_x:12.000|ms"),
    ],
)
def test_tags_are_written_as_the_receiver_reads_them(
    packets: Packets,
    make: t.Callable[..., Statsd],
    style: t.Any,
    line: str,
) -> None:
    statsd = make("app", style)
    statsd.timing("queue.wait", 12, queue="media/a", function="t|x")
    statsd.flush()
    wait_until(lambda: packets.packets == [line])


@pytest.mark.parametrize("text", ["a:b", "a|c", "a#b", "a,b", "a=b", "ä", "a.b\n", ""])
def test_no_tag_breaks_out_of_its_place(
    packets: Packets, make: t.Callable[..., Statsd], text: str
) -> None:
    statsd = make()
    statsd.count("step.completed", function=text)
    statsd.flush()
    wait_until(lambda: len(packets.lines) == 1)
    [line] = packets.lines
    assert set(line.tags) == {"function"}


def test_lines_go_in_packets_that_a_network_takes_whole(
    packets: Packets, make: t.Callable[..., Statsd]
) -> None:
    statsd = make("", None)
    for _ in range(60):
        statsd.timing("step.duration", 1, function="f" * 60)
    statsd.flush()
    wait_until(lambda: packets.total("step.duration." + "f" * 60) == 60)
    assert 3 <= len(packets.packets) <= 6
    assert all(len(packet) <= 1432 for packet in packets.packets)


def test_a_counter_is_one_line_however_often_it_was_counted(
    packets: Packets, make: t.Callable[..., Statsd]
) -> None:
    statsd = make("", None)

    def count() -> None:
        for _ in range(1000):
            statsd.count("step.completed", function="f")

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    statsd.flush()
    for thread in threads:
        thread.join()
    statsd.flush()
    wait_until(lambda: packets.total("step.completed.f") == 4000)
    assert len(packets.lines) <= 2


def test_what_nobody_sends_is_sent_by_a_thread_that_comes_late(
    packets: Packets, make: t.Callable[..., Statsd], monkeypatch: pytest.MonkeyPatch
) -> None:
    statsd = make("", None)
    statsd.count("step.completed", function="f")
    later = time.monotonic() + LATE + 1
    monkeypatch.setattr(time, "monotonic", lambda: later)
    statsd.count("step.completed", function="f")
    monkeypatch.undo()
    wait_until(lambda: packets.total("step.completed.f") == 2)


def test_a_child_does_not_send_what_its_parent_gathered(
    packets: Packets, make: t.Callable[..., Statsd]
) -> None:
    statsd = make("", None)
    statsd.count("parents")
    count = statsd.series("childs", "c").append

    def flush_twice() -> None:
        statsd.flush()
        count(1)
        statsd.flush()

    assert in_child(flush_twice) == 0
    statsd.flush()
    wait_until(lambda: packets.total("childs") == packets.total("parents") == 1)


def test_what_nobody_took_and_what_cannot_be_routed_is_counted(
    packets: Packets, make: t.Callable[..., Statsd]
) -> None:
    statsd = make()
    metrics = Metrics(statsd, lambda name: False)
    events = [EventInfo("a/b", str(number), 0, {}) for number in range(3)]
    send = SendInfo(events)
    with metrics.around_send(send):
        send.outcomes = ["accepted", "spooled", UnavailableError("down")]
    route = RouteInfo([RoutedInfo(events[0], 1, 0, error=UnavailableError("down"))])
    with metrics.around_route(route):
        pass
    statsd.flush()
    wait_until(lambda: len(packets.lines) == 4)
    assert [line.name for line in packets.lines] == [
        *("event.accepted", "event.spooled", "event.refused", "event.failed"),
    ]


def test_what_a_child_counts_is_flushed_by_the_child(
    packets: Packets, valkey: ValkeyServer, namespace: str
) -> None:
    harness = Harness(valkey.url, namespace, DURABLE_STATSD_URL=packets.url)

    def route() -> None:
        event = EventInfo("a/b", "id", 0, {})
        routing = RouteInfo([RoutedInfo(event, 1, 0)])
        with harness.state.middleware.around_route(routing):
            pass
        for metrics in harness.state.metrics:
            metrics.flush()

    assert in_child(route) == 0
    wait_until(lambda: packets.total("event.routed.a_b") == 1)
    assert harness.state.statsd is not None
    harness.state.statsd.close()
    harness.close()


def test_names_from_outside_make_so_many_series_and_those_of_the_app_each_one(
    packets: Packets, valkey: ValkeyServer, namespace: str
) -> None:
    harness = Harness(valkey.url, namespace, DURABLE_STATSD_URL=packets.url)

    @harness.durable.function(on=["order/*", "order/placed"])
    def placed(event: Event[t.Any], step: Step) -> None: ...

    @harness.durable.event
    class Shipped(EventData, name="order/shipped"): ...

    names = [f"order/{number}" for number in range(MOST_NAMES + 20)]
    with harness.app.app_context():
        harness.durable.send_many([Event(name, {}) for name in names])
        harness.durable.send_many([Event("order/placed", {}), Shipped()])
        harness.durable.send(names[0])
    wait_until(lambda: packets.total("event.accepted.other") == 20)
    for name in ("placed", "shipped"):
        prefix = "event.accepted.order_"
        wait_until(lambda n=prefix + name: packets.total(n) == 1)
    wait_until(lambda: packets.total("event.accepted.order_0") == 2)
    assert harness.state.statsd is not None
    assert len(harness.state.statsd._series) == MOST_NAMES + 3
    harness.state.statsd.close()
    harness.close()


def test_a_collector_that_moves_is_found_again(
    packets: Packets, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = ["127.0.0.9"]  # where nobody listens
    ahead = [0.0]
    real, clock = socket.getaddrinfo, time.monotonic

    def getaddrinfo(host: t.Any, *args: t.Any, **options: t.Any) -> t.Any:
        if host == "collector":
            if not here:
                raise OSError("the name server is away")
            host = here[0]
        return real(host, *args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    moved = types.SimpleNamespace(monotonic=lambda: clock() + ahead[0])
    monkeypatch.setattr(statsd_module, "time", moved)
    statsd = Statsd(packets.url.replace("127.0.0.1", "collector"), "", None)
    statsd.count("before")
    statsd.flush()

    def send(name: str) -> bool:
        ahead[0] += LOOK_UP + 1
        statsd.count(name)
        statsd.flush()
        return packets.total(name) > 0

    here[0] = "127.0.0.1"
    wait_until(lambda: send("after"))
    here.clear()
    wait_until(lambda: send("still"))
    statsd.close()
    assert packets.total("before") == 0


def test_nothing_waits_for_a_name_server_that_hangs(
    packets: Packets, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = threading.Event()
    asked: list[str] = []
    real = socket.getaddrinfo

    def getaddrinfo(host: t.Any, *args: t.Any, **options: t.Any) -> t.Any:
        asked.append(host)
        if len(asked) == 1:
            raise OSError("the name server is away")
        assert go_on.wait(30)
        return real("127.0.0.1", *args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    monkeypatch.setattr(statsd_module, "LOOK_UP", 0)
    statsd = Statsd(packets.url.replace("127.0.0.1", "collector"), "", None)

    def send() -> bool:
        statsd.count("sent")
        statsd.flush()
        return packets.total("sent") > 0

    send()
    began = time.monotonic()
    send()
    assert time.monotonic() - began < 10
    go_on.set()
    wait_until(send)
    statsd.close()


def test_a_collector_is_reached_over_ipv6_where_that_is_all_there_is() -> None:
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as receiver:
        receiver.bind(("::1", 0))
        receiver.settimeout(10)
        port = receiver.getsockname()[1]
        real = socket.getaddrinfo
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(
                socket,
                "getaddrinfo",
                lambda host, *args, **options: real("::1", *args, **options),
            )
            statsd = Statsd(f"statsd://collector:{port}", "", None)
            statsd.count("sent")
            statsd.flush()
        assert receiver.recv(100) == b"sent:1|c"
        statsd.close()
