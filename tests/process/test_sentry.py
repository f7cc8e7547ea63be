"""Reports that real processes send to Sentry are those of the page."""

from __future__ import annotations

import json
import os
import pathlib
import re
import signal
import typing as t
import urllib.request

import pytest

from ..forwarding.receiver import Receiver
from ..support.servers import wait_until
from ..test_docs import page
from ..test_docs import rows
from . import app as work
from .envelopes import Envelopes
from .envelopes import spans_of
from .envelopes import trace_of
from .sites import Site
from .sites import TIMEOUT

APP = str(pathlib.Path(__file__).with_name("traced.py"))

#: The event of each row of the page's table.
SCENARIOS = {
    "It completes.": "complete",
    "It sleeps, or waits for a run that it invoked, and completes.": "sleep",
    "It has branches, of which one fails and is tolerated.": "spread",
    "A step fails, and completes in its second attempt.": "retry",
    "A step fails for good in its second attempt, and with it the run.": "fail",
    "A step fails for good, and the function goes on without it.": "caught",
    "The body fails for good in its second attempt.": "body",
    "Its worker is killed within a step, and another one completes it.": "killed",
    "Its event is delivered twice.": "twice",
    "It is cancelled within a step.": "cancelled",
}


@pytest.fixture
def envelopes(receiver: Receiver) -> Envelopes:
    return Envelopes(receiver)


def start(site: Site, envelopes: Envelopes, **given: str) -> str:
    """Start a web and a worker process; return the address of the first."""
    _, address = site.web(app=APP, TEST_DSN=envelopes.dsn, **given)
    site.ready(app=APP, TEST_DSN=envelopes.dsn, **given)
    return address


def post(address: str, name: str, id: str) -> None:
    request = urllib.request.Request(f"{address}/send/{name}/{id}", b"", method="POST")
    with urllib.request.urlopen(request, timeout=30) as answer:
        assert answer.status == 200


def begun(site: Site, id: str) -> int:
    """Wait until a body of ``hang`` has begun; return the id of its process."""
    path = site.folder / f"trace.{id}.begun"
    wait_until(path.exists, "a body that hangs", TIMEOUT)
    wait_until(path.read_text, "its process", TIMEOUT)
    return int(path.read_text().split()[0])


def documented_data() -> list[set[str]]:
    """Return the names of the data of each row of the first table."""
    found = [row for row in rows(page("sentry")) if row[0] in TOLD]
    return [set(re.findall(r"``([\w.]+)``", row[2])) for row in found]


TOLD = (
    *("events are sent", "an event is routed"),
    *("an attempt of a run", "an attempt of a step"),
)


def data_of(data: dict[str, t.Any]) -> set[str]:
    return {name for name in data if not name.startswith("thread.")}


def test_the_page_tells_what_sentry_is_told_of_each_kind_of_run(
    any_site: Site, envelopes: Envelopes
) -> None:
    site = any_site
    address = start(site, envelopes)
    once = ("complete", "sleep", "retry", "fail", "caught", "body", "twice", "spread")
    for name in once:
        post(address, f"test/{name}", name)
    post(address, "test/twice", "twice")
    post(address, "test/hang", "cancelled")
    begun(site, "cancelled")
    with site.app.app_context():
        work.durable.runs.cancel(site.run_of("cancelled").id)
    (site.folder / "trace.cancelled.go").touch()
    site.are("completed", "complete", "caught", "twice", "spread")
    site.are("suspended", "sleep", "retry", "fail", "body")
    site.skip(40 * 86400)
    site.are("completed", "sleep", "retry")
    site.are("failed", "fail", "body")
    # What a process that is killed has not sent yet is lost.
    envelopes.have_issues(2)
    envelopes.have("route test/twice", 2)
    table = [(SCENARIOS[what], *rest) for what, *rest in _table()]
    for name, expected, _ in table:
        if name != "killed":
            _have_attempts(envelopes, name, len(expected))
    post(address, "test/hang", "killed")
    os.kill(begun(site, "killed"), signal.SIGKILL)
    (site.folder / "trace.killed.go").touch()
    site.ready(app=APP, TEST_DSN=envelopes.dsn)
    site.are("completed", "killed")
    envelopes.have("hang", 2)

    for name, expected, issues in table:
        found = _attempts(envelopes, name)
        assert [x["contexts"]["trace"]["status"] for x in found] == expected, name
        traces = {trace_of(item) for item in found}
        assert len(traces) == 1, name
        told = [x for x in envelopes.issues if trace_of(x) in traces]
        assert len(told) == issues, name
    assert len(envelopes.issues) == 2


def _table() -> t.Iterator[tuple[str, list[str], int]]:
    found = {row[0]: row for row in rows(page("sentry"))}
    for what in SCENARIOS:
        row = found[what]
        yield what, re.findall(r"``(\w+)``", row[1]), int(row[2])


def _have_attempts(envelopes: Envelopes, event: str, count: int) -> None:
    what = f"{count} attempts of {event}"
    wait_until(lambda: len(_attempts(envelopes, event)) >= count, what, TIMEOUT)


def _attempts(envelopes: Envelopes, event: str) -> list[dict[str, t.Any]]:
    """Return the attempts of the run of *event*, without those of its handler."""
    return [
        item
        for item in envelopes.transactions
        if item["contexts"].get("durable", {}).get("event_id") == event
        and "/" not in item["transaction"]
    ]


def test_the_trace_of_a_request_goes_on_through_all_that_it_leads_to(
    site: Site, envelopes: Envelopes
) -> None:
    address = start(site, envelopes)
    post(address, "test/complete", "complete")
    post(address, "test/fail", "fail")
    site.are("suspended", "fail")
    site.skip(3700)
    for name in ("complete", "listen", "fail/on_failure", "route test/complete"):
        envelopes.have(name, 1)
    for name in (
        "route test/child",
        "route test/fail",
        "route durable/function.failed",
    ):
        envelopes.have(name, 1)
    envelopes.have("fail", 2)
    (child,) = envelopes.have("child", 1)

    first, second = envelopes.have("send", 2)
    assert trace_of(first) != trace_of(second)
    told = _names(envelopes, trace_of(first))
    assert told == ["child", "complete", "route test/child", "route test/complete"]
    assert _names(envelopes, trace_of(second)) == [
        *("fail", "fail", "fail/on_failure", "listen"),
        *("route durable/function.failed", "route test/fail"),
    ]
    (published,) = spans_of(first, "queue.publish")
    (routed,) = envelopes.named("route test/complete")
    (attempt,) = envelopes.named("complete")
    one, tell = spans_of(attempt, "function")
    for item in (routed, attempt):
        assert item["contexts"]["trace"]["parent_span_id"] == published["span_id"]
    assert [one["description"], tell["description"]] == ["one", "tell"]
    (told_child,) = spans_of(attempt, "queue.publish")
    assert told_child["parent_span_id"] == tell["span_id"]
    assert child["contexts"]["trace"]["parent_span_id"] == told_child["span_id"]
    found = (published, routed["contexts"]["trace"], attempt["contexts"]["trace"], one)
    assert [data_of(each["data"]) for each in found] == documented_data()


def _names(envelopes: Envelopes, trace: str) -> list[str]:
    """Return the transactions of a trace, without the request's."""
    found = [x["transaction"] for x in envelopes.transactions if trace_of(x) == trace]
    return sorted(name for name in found if name != "send")


def test_a_failed_run_is_one_issue_without_payloads_and_with_its_retry(
    site: Site, envelopes: Envelopes
) -> None:
    address = start(site, envelopes, TEST_DRAMATIQ="1")
    post(address, "test/fail", "fail")
    post(address, "test/body", "body")
    site.are("suspended", "fail", "body")
    site.skip(3700)
    site.are("failed", "fail", "body")
    envelopes.have("listen", 2)

    issues = envelopes.have_issues(2)
    fail, body = sorted(issues, key=lambda x: x["transaction"], reverse=True)
    (error,) = fail["exception"]["values"]
    assert (error["type"], error["value"]) == ("PermissionError", "the card is refused")
    assert error["stacktrace"]["frames"][-1]["function"] == "charge"
    assert error["stacktrace"]["frames"][-1]["vars"] == {
        "card": {"api_key": "[redacted]", "name": "'visible'"},
        "event": "<Event 'test/fail' 'fail'>",
    }
    assert fail["tags"] == {
        "durable.function": "fail",
        "durable.queue": "default",
        "durable.step": "charge",
    }
    assert fail["fingerprint"] == ["flask-durable", "fail", "charge"]
    assert fail["contexts"]["durable"]["run_id"] == site.run_of("fail").id
    assert fail["contexts"]["durable"]["event_id"] == "fail"
    assert _retries(fail) == [
        "Attempt 1 of step 'charge' failed: PermissionError: the card is refused"
    ]
    assert body["fingerprint"] == ["flask-durable", "body", ""]
    assert _retries(body) == ["Attempt 1 of the body failed: LookupError: its own"]
    assert "hunter2" not in json.dumps(envelopes.issues)
    assert "dramatiq" not in json.dumps([x["contexts"] for x in envelopes.issues])


def _retries(issue: dict[str, t.Any]) -> list[str]:
    crumbs = issue["breadcrumbs"]["values"]
    return [x["message"] for x in crumbs if x["category"] == "durable.retry"]


def test_with_sentrys_own_integration_of_dramatiq_nothing_is_told_twice(
    site: Site, envelopes: Envelopes
) -> None:
    address = start(site, envelopes, TEST_DRAMATIQ="1")
    post(address, "test/complete", "complete")
    post(address, "test/retry", "retry")
    site.are("suspended", "retry")
    site.skip(3700)
    site.are("completed", "complete", "retry")
    for name, count in (("child", 1), ("complete", 1), ("retry", 2), ("send", 2)):
        envelopes.have(name, count)

    names = [item["transaction"] for item in envelopes.transactions]
    assert sorted(name for name in names if not name.startswith("route")) == [
        *("child", "complete", "retry", "retry", "send", "send"),
    ]
    assert not envelopes.issues


def test_a_failure_of_another_attempt_is_told_by_what_is_stored_of_it(
    site: Site, envelopes: Envelopes
) -> None:
    address = start(site, envelopes)
    post(address, "test/late", "late")
    site.are("suspended", "late")
    site.skip(3700)
    site.are("failed", "late")
    envelopes.have_issues(1)

    (issue,) = envelopes.issues
    (error,) = issue["exception"]["values"]
    assert (error["type"], error["value"]) == ("PermissionError", "the card is refused")
    assert issue["tags"]["durable.step"] == "charge"


def test_what_a_worker_has_to_tell_is_sent_before_it_exits(
    site: Site, envelopes: Envelopes
) -> None:
    _, address = site.web(app=APP, TEST_DSN=envelopes.dsn)
    worker = site.ready(app=APP, TEST_DSN=envelopes.dsn)
    post(address, "test/hang", "hang")
    begun(site, "hang")
    worker.signal(signal.SIGTERM)
    worker.says("Draining")
    (site.folder / "trace.hang.go").touch()
    assert worker.wait() == 0

    (attempt,) = envelopes.named("hang")
    assert attempt["contexts"]["trace"]["data"]["durable.outcome"] == "completed"


@pytest.mark.parametrize(
    "options", [{"trace_lifecycle": "stream"}, {"traces_sample_rate": None}]
)
def test_failed_runs_are_issues_where_there_are_no_transactions(
    site: Site, envelopes: Envelopes, options: dict[str, t.Any]
) -> None:
    address = start(site, envelopes, TEST_OPTIONS=json.dumps(options))
    post(address, "test/fail", "fail")
    post(address, "test/body", "body")
    site.are("suspended", "fail", "body")
    site.skip(3700)
    site.are("failed", "fail", "body")
    envelopes.have_issues(2)

    assert sorted(tuple(x["fingerprint"]) for x in envelopes.issues) == [
        ("flask-durable", "body", ""),
        ("flask-durable", "fail", "charge"),
    ]
    assert all(len(_retries(x)) == 1 for x in envelopes.issues)
    assert not envelopes.transactions
    workers = [p.output for p in site.processes]
    assert not any("Middleware failed" in output for output in workers)


@pytest.mark.parametrize(
    "how", ["it is not imported", "it has no DSN", "DURABLE_SENTRY is False"]
)
def test_where_sentry_is_off_nothing_is_imported_told_or_added(
    site: Site, envelopes: Envelopes, how: str
) -> None:
    given: dict[str, str] = {
        "it is not imported": {},
        "it has no DSN": {"TEST_DSN": ""},
        "DURABLE_SENTRY is False": {
            "TEST_DSN": envelopes.dsn,
            "FLASK_DURABLE_SENTRY": "False",
        },
    }[how]
    _, address = site.web(app=APP, **given)
    site.ready(app=APP, **given)
    post(address, "test/complete", "complete")
    site.are("completed", "complete")

    run = site.run_of("complete")
    imported = run.result
    assert imported is (how != "it is not imported")
    assert {item["transaction"] for item in envelopes.transactions} <= {"send"}
    record, _ = site.state.store.read(run.id)
    assert json.loads(record["event"])["headers"] == {}


def test_a_run_of_a_schedule_is_one_check_in_at_its_monitor(
    any_site: Site, envelopes: Envelopes
) -> None:
    site = any_site
    address = start(site, envelopes, FLASK_DURABLE_PUSH_LOOPBACK="1")
    tick(address, "yearly_report", "2026-01-01T03:30:00Z")
    tick(address, "yearly_report", "2026-01-01T06:00:00Z")
    tick(address, "broken_report", "2026-01-01T05:15:00Z")
    tick(address, "broken_report", "2026-02-02T05:15:00Z")  # of no schedule
    _runs_of(site, "broken_report", "failed", 2)
    _runs_of(site, "yearly_report", "suspended", 2)
    site.skip(31 * 86400)
    # One attempt ends with the sleep, the next with the step that fails.
    wait_until(lambda: len(envelopes.named("yearly_report")) == 4, timeout=TIMEOUT)
    site.skip(86400)
    _runs_of(site, "yearly_report", "completed", 2)
    wait_until(lambda: len(envelopes.check_ins) >= 6, "check-ins", TIMEOUT)

    told: dict[tuple[str, str], list[str]] = {}
    for item in envelopes.check_ins:
        about = item["monitor_slug"], item["check_in_id"]
        told.setdefault(about, []).append(item["status"])
    assert sorted((slug, *statuses) for (slug, _), statuses in told.items()) == [
        ("broken_report", "in_progress", "error"),
        ("yearly_report", "in_progress", "ok"),
        ("yearly_report-2", "in_progress", "ok"),
    ]
    configs = {x["monitor_slug"]: x["monitor_config"] for x in envelopes.check_ins}
    longest = {"max_runtime": 28 * 24 * 60}
    assert configs == {
        "broken_report": config("15 5 1 1 *", "UTC"),
        "yearly_report": config("30 4 1 1 *", "Europe/Berlin", **longest),
        "yearly_report-2": config("0 6 1 1 *", "UTC", checkin_margin=11, **longest),
    }


def config(expression: str, zone: str, **more: int) -> dict[str, t.Any]:
    schedule = {"type": "crontab", "value": expression}
    return {"schedule": schedule, "timezone": zone, **more}


def tick(address: str, function: str, at: str) -> None:
    """Call as Elastic Beanstalk's daemon does for a task of its schedule."""
    headers = {
        "Content-Type": "application/json",
        "User-Agent": "aws-sqsd/3.0",
        "X-Aws-Sqsd-Msgid": "task-1",
        "X-Aws-Sqsd-Taskname": function,
        "X-Aws-Sqsd-Scheduled-At": at,
    }
    url = f"{address}/durable/worker"
    request = urllib.request.Request(url, b"{}", headers, method="POST")
    with urllib.request.urlopen(request, timeout=60) as answer:
        assert answer.status == 200


def _runs_of(site: Site, function: str, status: str, count: int) -> None:
    def there() -> bool:
        with site.app.app_context():
            found = work.durable.runs.list(function=function, status=status)
        return len(found) == count

    wait_until(there, f"{count} runs of {function} that are {status}", TIMEOUT)
