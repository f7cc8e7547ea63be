"""``GET metrics``: who may read it, and what one process adds to what others did."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys
import threading
import typing as t
from collections import Counter

import pytest
from flask import Flask
from prometheus_client.parser import text_string_to_metric_families

from flask_durable import ConfigurationError
from flask_durable import Durable
from flask_durable import Event
from flask_durable import Step
from flask_durable.observe.metrics.catalogue import METRICS
from flask_durable.observe.metrics.totals import BOUNDS
from flask_durable.observe.metrics.totals import Totals
from flask_durable.security.keys import new_event_key
from flask_durable.security.keys import new_metrics_secret
from flask_durable.store.measurements import metric_totals
from flask_durable.store.measurements.metric_totals import MetricTotals
from flask_durable.store.measurements.metric_totals import Total

from ..support.forks import in_child
from ..support.harness import Harness
from ..support.servers import free_port
from ..support.servers import ValkeyServer
from ..support.servers import wait_until
from ..test_docs import page
from ..test_docs import rows

SECRETS = [new_metrics_secret(), new_metrics_secret()]

#: A metric, and its labels as text.
Sample = tuple[str, str]


@pytest.fixture
def harness(valkey: ValkeyServer, namespace: str) -> t.Iterator[Harness]:
    harness = Harness(valkey.url, namespace, DURABLE_METRICS_SECRETS=SECRETS)

    @harness.durable.function(on="media/uploaded", queue="media")
    def transcribe(event: Event[t.Any], step: Step) -> None:
        step.run("text", int)

    yield harness
    harness.close()


def scrape(app: Flask, secret: str = SECRETS[0], **headers: str) -> t.Any:
    shown = {"Authorization": f"Bearer {secret}", **headers}
    return app.test_client().get("/durable/metrics", headers=shown)


def samples(app: Flask) -> dict[Sample, float]:
    answer = scrape(app)
    assert answer.status_code == 200, answer.text
    return {
        (sample.name, _text(sample.labels)): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def _text(labels: t.Mapping[str, str]) -> str:
    """Return the values of *labels* in the order of their names, the range last."""
    names = sorted(labels, key=lambda name: (name == "le", name))
    return ",".join(labels[name] for name in names)


def flush(harness: Harness) -> None:
    for metrics in harness.state.metrics:
        metrics.flush()


def test_what_the_endpoint_tells_is_what_the_page_says() -> None:
    table = rows(page("metrics").replace("``", ""))
    assert table[1:] == [
        [
            metric.name,
            metric.kind,
            metric.unit,
            ", ".join(metric.tags),
            metric.text,
        ]
        for metric in METRICS
    ]


def test_without_a_secret_in_the_settings_there_is_no_route(
    valkey: ValkeyServer, namespace: str
) -> None:
    harness = Harness(valkey.url, namespace)
    assert scrape(harness.app).status_code == 404
    assert harness.state.metrics == ()
    harness.close()


@pytest.mark.parametrize(
    "shown", ["", "{}", "Bearer", "Basic {}", "Bearer {}x", "Bearer {} {}"]
)
def test_who_shows_no_secret_is_told_nothing(harness: Harness, shown: str) -> None:
    client, shown = harness.app.test_client(), shown.format(*SECRETS)
    answer = client.get("/durable/metrics", headers={"Authorization": shown})
    assert answer.status_code == 401
    assert answer.is_json
    assert "durable_" not in answer.text


def test_each_of_several_secrets_opens_and_no_other_kind_does(harness: Harness) -> None:
    assert [scrape(harness.app, secret).status_code for secret in SECRETS] == [200, 200]
    assert scrape(harness.app, new_event_key()).status_code == 401
    with pytest.raises(ConfigurationError, match="DURABLE_METRICS_SECRETS"):
        Durable(
            _app(DURABLE_METRICS_SECRETS=[new_event_key()]),
        )


def _app(**config: t.Any) -> Flask:
    app = Flask("shop")
    app.config.update(config)
    return app


def test_events_steps_and_runs_are_counted_and_timed(harness: Harness) -> None:
    for number in range(3):
        harness.send("media/uploaded", {}, id=f"event-{number}")
    harness.settle()
    flush(harness)

    found = samples(harness.app)
    assert found["durable_event_accepted_total", "media/uploaded"] == 3
    assert found["durable_step_completed_total", "transcribe,run"] == 3
    assert found["durable_run_started_total", "transcribe"] == 3
    assert found["durable_run_completed_total", "transcribe"] == 3
    for name, labels in (
        ("run_duration", "transcribe"),
        ("step_duration", "transcribe,run"),
        ("queue_wait", "transcribe,media"),
        ("event_latency", "transcribe"),
    ):
        assert found[f"durable_{name}_seconds_count", labels] == 3
        assert found[f"durable_{name}_seconds_bucket", f"{labels},+Inf"] == 3
        assert 0 <= found[f"durable_{name}_seconds_sum", labels] < 60
    assert found["durable_queue_oldest_seconds", "media"] == 0
    assert found["durable_queue_depth", "media"] == 0
    assert found["durable_runs", "queued"] == 0


def test_waits_polls_and_branches_are_counted_and_timed_and_are_no_runs(
    harness: Harness,
) -> None:
    looks = [None, "there"]

    def chunk(item: int, step: Step) -> float:
        if item == 1:
            step.wait_for_signal("answer", "approve", timeout=60)
        return step.run(f"divide-{item}", lambda: 1 / item)

    @harness.durable.function(on=None)
    def callee(event: Event[t.Any], step: Step) -> None: ...

    @harness.durable.function(on="a/b", retries=0)
    def work(event: Event[t.Any], step: Step) -> None:
        step.map("chunks", chunk, [0, 1, 2], tolerate=1)
        step.poll("ready", lambda: looks.pop(0), every=30, timeout=90)
        step.wait_for_event("paid", "a/paid", timeout=60)
        step.invoke("call", callee)

    run = harness.send_and_settle("a/b")
    for _ in range(4):
        harness.advance(61)
    assert harness.runs.get(run.id).status == "completed"
    flush(harness)

    found = {
        f"{name.removeprefix('durable_').removesuffix('_total')} {labels}": value
        for (name, labels), value in samples(harness.app).items()
    }
    waits = ("event", "signal", "poll", "group", "invoke")
    begun = [found[f"wait_begun work,{kind}"] for kind in waits]
    assert begun == [1] * 5
    ended = {
        labels
        for name, _, labels in (key.partition(" ") for key in found)
        if name == "wait_duration_seconds_count"
    }
    assert ended == {
        "work,event,timeout",
        "work,signal,timeout",
        "work,poll,completed",
        "work,group,completed",
        "work,invoke,completed",
    }
    assert found["branch_duration_seconds_count work,completed"] == 2
    assert found["branch_duration_seconds_count work,failed"] == 1
    assert found["run_duration_seconds_count work"] == 1
    assert found["event_latency_seconds_count work"] == 1
    # No name of a step, and no place of a branch.
    assert not any("chunks" in key or "divide" in key for key in found)


def test_the_format_is_the_one_that_the_client_asks_for(harness: Harness) -> None:
    plain = scrape(harness.app)
    assert plain.content_type.startswith("text/plain; version=0.0.4")
    assert plain.headers["Cache-Control"] == "no-store"
    asked = "application/openmetrics-text; version=1.0.0"
    opened = scrape(harness.app, Accept=asked)
    assert opened.content_type.startswith("application/openmetrics-text")
    assert opened.text.endswith("# EOF\n")


def test_a_server_that_does_not_answer_is_503_without_a_reason(namespace: str) -> None:
    url = f"redis://:hunter2@127.0.0.1:{free_port()}"
    harness = Harness(url, namespace, DURABLE_METRICS_SECRETS=SECRETS)
    answer = scrape(harness.app)
    assert (answer.status_code, answer.json["code"]) == (503, "unavailable")
    assert "127.0.0.1" not in answer.text


def test_a_duration_counts_in_each_range_that_it_is_not_longer_than(
    harness: Harness,
) -> None:
    totals = Totals(harness.state.metric_totals.add)
    for seconds in (*BOUNDS, 90_000.0):
        totals.timing("run.duration", seconds * 1000, function="f")
    totals.flush()

    found = samples(harness.app)
    below = [found["durable_run_duration_seconds_bucket", f"f,{b}"] for b in BOUNDS]
    assert below == list(range(1, len(BOUNDS) + 1))
    count = found["durable_run_duration_seconds_bucket", "f,+Inf"]
    assert count == found["durable_run_duration_seconds_count", "f"] == len(BOUNDS) + 1
    expected = pytest.approx(sum(BOUNDS) + 90_000.0)
    assert found["durable_run_duration_seconds_sum", "f"] == expected


def test_names_with_signs_arrive_as_they_are(harness: Harness) -> None:
    name = 'a/"b"\\c\nd, é 😀'
    totals = Totals(harness.state.metric_totals.add)
    totals.count("event.accepted", event=name)
    totals.flush()
    assert samples(harness.app)["durable_event_accepted_total", name] == 1


# -- What a process adds up -----------------------------------------------------------


class Sums:
    """The sums that were written, and the error of the next write."""

    def __init__(self) -> None:
        self.sums: Counter[Total] = Counter()
        self.writes = 0
        self.error: Exception | None = None

    def write(self, sums: t.Mapping[Total, float]) -> None:
        self.writes += 1
        if self.error is not None:
            raise self.error
        self.sums.update(t.cast("t.Mapping[Total, int]", sums))

    def of(self, name: str) -> int:
        return self.sums[Total(name, (("function", "f"),))]


def test_many_threads_lose_no_count_and_write_it_by_themselves() -> None:
    sums = Sums()
    totals = Totals(sums.write)

    def count() -> None:
        append = totals.series("step.completed", "c", function="f").append
        for _ in range(5000):
            append(1)
            totals.tick()

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wait_until(lambda: sums.of("step.completed") == 20_000)
    assert sums.writes < 10


def test_what_cannot_be_written_is_written_the_next_time_and_once() -> None:
    sums = Sums()
    totals = Totals(sums.write)
    totals.count("step.failed", function="f")
    sums.error = ConnectionError("away")
    totals.flush()
    totals.count("step.failed", function="f")
    sums.error = None
    totals.flush()
    totals.flush()
    assert sums.of("step.failed") == 2


def test_a_child_writes_what_it_counts_and_not_what_its_parent_did(
    harness: Harness,
) -> None:
    totals = Totals(harness.state.metric_totals.add)
    totals.count("step.resumed", function="parent")

    def count() -> None:
        totals.count("step.resumed", function="child")
        totals.flush()

    assert in_child(count) == 0
    totals.flush()
    found = samples(harness.app)
    for function in ("child", "parent"):
        assert found["durable_step_resumed_total", function] == 1


def test_a_process_that_ends_writes_what_it_counted(
    harness: Harness, valkey: ValkeyServer, tmp_path: pathlib.Path
) -> None:
    program = tmp_path / "ends.py"
    program.write_text(
        "import sys\n"
        "from flask import Flask\n"
        "from flask_durable import Durable\n"
        "app = Flask(sys.argv[1])\n"
        "app.config.from_prefixed_env()\n"
        "durable = Durable(app)\n"
        "with app.app_context():\n"
        "    durable.send('a/b')\n",
        "utf-8",
    )
    environment = {
        **os.environ,
        "FLASK_DURABLE_REDIS_URL": valkey.url,
        "FLASK_DURABLE_NAMESPACE": harness.state.settings.namespace,
        "FLASK_DURABLE_METRICS_SECRETS": SECRETS[0],
    }
    command = [sys.executable, str(program), harness.app.name]
    subprocess.run(command, env=environment, check=True, timeout=60)
    assert samples(harness.app)["durable_event_accepted_total", "a/b"] == 1


def test_series_beyond_the_limit_are_added_up_as_one(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metric_totals, "MOST_FROM_OUTSIDE", 5)
    store: MetricTotals = harness.state.metric_totals
    names = [f"event/{number}" for number in range(9)]
    for _ in range(2):
        store.add({Total("event.accepted", (("event", name),)): 2 for name in names})

    found = samples(harness.app)
    mine = {n: v for n, v in found.items() if n[0] == "durable_event_accepted_total"}
    assert mine["durable_event_accepted_total", "event/0"] == 4
    assert mine["durable_event_accepted_total", "other"] == 4 * 4
    assert len(mine) == 6
    assert sum(mine.values()) == 9 * 4


def test_what_strangers_send_takes_no_room_from_what_the_app_names(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metric_totals, "MOST_FROM_OUTSIDE", 2)
    store: MetricTotals = harness.state.metric_totals

    def add(*names: str) -> None:
        store.add({Total("event.accepted", (("event", name),)): 1 for name in names})

    add("early", *(f"junk/{number}" for number in range(9)))

    @harness.durable.function(on=["early", "fresh"])
    def fresh(event: Event[t.Any], step: Step) -> None:
        step.run("text", int)

    add("early", "fresh", "junk/9")
    harness.send("fresh")
    harness.send("media/uploaded", {})
    harness.settle()
    flush(harness)
    found = samples(harness.app)
    # "early" was counted before the app named it, and once more afterwards.
    assert found["durable_event_accepted_total", "early"] == 2
    assert found["durable_event_accepted_total", "fresh"] == 2
    assert found["durable_step_completed_total", "fresh,run"] == 1
    assert found["durable_step_completed_total", "transcribe,run"] == 1
    assert found["durable_event_accepted_total", "other"] == 9
