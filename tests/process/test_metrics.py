"""Metrics that real processes send to statsd and Prometheus are those of the page."""

from __future__ import annotations

import os
import re
import signal
import typing as t
import urllib.request
from collections import Counter

import pytest
from prometheus_client.parser import text_string_to_metric_families

from flask_durable.observe.metrics.statsd import Statsd
from flask_durable.security.keys import new_metrics_secret
from flask_durable.store.measurements.run_counts import RUN_COUNTS
from flask_durable.worker.statsd_reporter import Gauges

from ..support.servers import wait_until
from ..test_docs import page
from ..test_docs import rows
from . import app as work
from .packets import Packets
from .packets import receiving
from .sites import Site
from .sites import TIMEOUT
from .test_sentry import APP
from .test_sentry import begun
from .test_sentry import post

#: Metrics of a queue that is down, or a broken schema; see test_metrics.py above.
ELSEWHERE = {"event.spooled", "event.refused", "event.failed"}


@pytest.fixture
def packets() -> t.Iterator[Packets]:
    with receiving() as found:
        yield found


def statsd(packets: Packets) -> dict[str, str]:
    return {
        "FLASK_DURABLE_STATSD_URL": packets.url,
        "FLASK_DURABLE_STATSD_TAGS": "dogstatsd",
    }


def documented() -> dict[str, tuple[str, set[str]]]:
    """Return kind and tags of each metric, by name."""
    return {
        row[0].strip("`"): (row[1], {tag.strip() for tag in row[3].split(",") if tag})
        for row in rows(page("metrics"))
        if row[0] != "name"
    }


def test_the_page_lists_what_statsd_is_told_of_each_kind_of_run(
    any_site: Site, packets: Packets
) -> None:
    site, told = any_site, statsd(packets)
    _, address = site.web(app=APP, **told)
    worker = site.ready(app=APP, **told)
    for name in ("complete", "sleep", "retry", "fail", "twice", "spread"):
        post(address, f"test/{name}", name)
    site.are("completed", "complete", "twice", "spread")
    post(address, "test/twice", "twice")
    post(address, "test/hang", "cancelled")
    begun(site, "cancelled")
    with site.app.app_context():
        work.durable.runs.cancel(site.run_of("cancelled").id)
    (site.folder / "trace.cancelled.go").touch()
    site.are("suspended", "sleep", "retry", "fail")
    site.skip(40 * 86400)
    site.are("completed", "sleep", "retry")
    site.are("failed", "fail")
    wait_until(lambda: packets.total("event.duplicate") == 1, "a duplicate", TIMEOUT)
    # What was gathered dies with a process: let it send what is looked at below.
    ended = ("complete", "twice", "sleep", "retry", "fail", "spread")
    wait_until(lambda: all(packets.total("run.duration", function=f) for f in ended))
    post(address, "test/hang", "killed")
    os.kill(begun(site, "killed"), signal.SIGKILL)
    worker.wait()
    (site.folder / "trace.killed.go").touch()
    worker = site.ready(app=APP, **told)
    site.are("completed", "killed")
    # Once another worker leads.
    wait_until(lambda: _sent(packets, site) == _counted(site), timeout=60)
    worker.signal(signal.SIGTERM)
    assert worker.wait() == 0

    found = {line.name: (line.kind, set(line.tags)) for line in packets.lines}
    expected = documented()
    assert found == {n: e for n, e in expected.items() if n not in ELSEWHERE}
    assert packets.total("event.accepted", event="test_twice") == 2
    assert packets.total("event.routed", event="test_twice") == 1
    assert packets.total("step.retried", function="retry") == 1
    assert packets.total("step.completed", function="sleep", kind="run") == 2
    assert packets.total("step.memoized", function="sleep") >= 2
    assert packets.total("step.failed", function="fail") == 1
    counts = _counted(site)
    assert counts["started"] == sum(counts.values()) - counts["started"]
    assert packets.total("run.started", function="hang") == 2
    assert packets.total("run.cancelled", function="hang") == 1
    assert all(len(packet) <= 1432 for packet in packets.packets)


def _counted(site: Site) -> dict[str, float]:
    """Return how many runs began and ended, as the store counts them."""
    counts: Counter[str] = Counter()
    for counted in site.state.run_counts.totals().values():
        counts.update(counted)
    return dict(counts)


def _sent(packets: Packets, site: Site) -> dict[str, float]:
    return {what: packets.total(f"run.{what}") for what in _counted(site)}


def test_only_one_of_several_workers_sends_gauges_and_another_follows_it(
    site: Site, packets: Packets
) -> None:
    told = statsd(packets)
    workers = [site.ready(app=APP, **told) for _ in range(2)]
    wait_until(lambda: packets.total("worker.idle") > 0)
    leaders = sum(line.name == "worker.busy" for line in packets.lines)
    assert leaders == 1
    workers[0].kill()
    site.send("test/complete", "one")
    site.are("completed", "one")
    # Within the lease and an interval.
    wait_until(
        lambda: packets.total("run.completed", function="complete") == 1, timeout=60
    )


def test_a_leader_that_stood_still_sends_nothing_that_another_sent(
    site: Site, packets: Packets, monkeypatch: pytest.MonkeyPatch
) -> None:
    statsd = Statsd(packets.url, "", "dogstatsd")
    first, second = Gauges(site.state, statsd), Gauges(site.state, statsd)
    leader = first._keys[0]
    assert first.look()
    worker = site.ready(app=APP)
    for name in ("a", "b", "c"):
        site.send("test/complete", name)
    site.are("completed", "a", "b", "c")
    site.state.server.client.delete(leader)

    counted = site.state.run_counts.totals
    read = counted()

    def slow() -> t.Any:
        """The counts of before, while the other one leads, and signs off."""
        monkeypatch.undo()
        assert second.look()
        site.state.server.client.delete(leader)
        return read

    monkeypatch.setattr(site.state.run_counts, "totals", slow)
    assert not first.look()
    assert first.look()
    worker.kill()
    statsd.close()
    started = sum(counts["started"] for counts in counted().values())
    wait_until(lambda: packets.total("run.started") == started)


def test_a_host_that_does_not_resolve_is_one_warning(site: Site) -> None:
    url = "statsd://nowhere.invalid:8125"
    worker = site.ready(app=APP, FLASK_DURABLE_STATSD_URL=url)
    for number in range(3):
        site.send("test/complete", f"event-{number}")
    site.are("completed", *(f"event-{number}" for number in range(3)))
    assert worker.output.count("No metrics are sent to statsd") == 1


def test_prometheus_is_told_by_any_web_process_what_all_processes_did(
    any_site: Site,
) -> None:
    site, secret = any_site, new_metrics_secret()
    told = {"FLASK_DURABLE_METRICS_SECRETS": secret}
    addresses = [site.web(app=APP, **told)[1] for _ in range(2)]
    worker = site.ready(app=APP, **told)
    names = ("complete", "sleep", "retry", "fail", "spread")
    for number, name in enumerate(names):
        post(addresses[number % 2], f"test/{name}", name)
    site.are("completed", "complete", "spread")
    site.are("suspended", "sleep", "retry", "fail")
    site.skip(40 * 86400)
    site.are("completed", "sleep", "retry")
    site.are("failed", "fail")

    def told_by(address: str) -> dict[str, dict[tuple[str, ...], float]]:
        return scraped(address, secret)

    def is_quiet() -> bool:
        found = told_by(addresses[0])
        completed = found["durable_run_completed_total"].keys()
        followers = {("child",), ("listen",), ("fail/on_failure",)}
        return followers <= completed and not any(found["durable_runs"].values())

    wait_until(is_quiet, "what follows from the runs", TIMEOUT)
    worker.signal(signal.SIGTERM)  # it writes the rest
    assert worker.wait() == 0
    worker = site.ready(app=APP, **told)
    post(addresses[0], "test/hang", "killed")
    os.kill(begun(site, "killed"), signal.SIGKILL)
    worker.wait()

    def is_sent() -> bool:
        return ("test/hang",) in told_by(addresses[0])["durable_event_accepted_total"]

    wait_until(is_sent, "the last send", TIMEOUT)
    found, other = map(told_by, addresses)
    ages = [each.pop("durable_queue_oldest_seconds").keys() for each in (found, other)]
    assert ages[0] == ages[1]
    assert found == other
    assert found["durable_step_retried_total"]["retry", "run"] == 1
    assert found["durable_step_completed_total"]["sleep", "run"] == 2
    assert found["durable_step_failed_total"]["fail", "run"] == 1
    assert found["durable_run_duration_seconds_count"]["fail",] == 1
    assert found["durable_run_completed_total"]["complete",] == 1
    assert found["durable_run_duration_seconds_sum"]["sleep",] < 86400
    counts = {
        what: sum(found[f"durable_run_{what}_total"].values()) for what in RUN_COUNTS
    }
    unfinished = sum(found["durable_runs"].values())
    assert counts["started"] == sum(counts.values()) - counts["started"] + unfinished
    assert unfinished == 1
    told_names = {re.sub("_(total|seconds(_count|_sum)?)$", "", name) for name in found}
    expected = documented().keys() - ELSEWHERE - {"event.duplicate", "queue.oldest"}
    assert told_names == {f"durable_{name.replace('.', '_')}" for name in expected}


def scraped(address: str, secret: str) -> dict[str, dict[tuple[str, ...], float]]:
    """Return the samples by name and labels, the ranges of durations left out."""
    request = urllib.request.Request(
        f"{address}/durable/metrics", headers={"Authorization": f"Bearer {secret}"}
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        text = answer.read().decode()
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if "le" not in sample.labels:
                labels = tuple(sample.labels.values())
                found.setdefault(sample.name, {})[labels] = sample.value
    return found
