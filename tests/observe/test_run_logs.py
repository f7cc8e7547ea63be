"""The newest lines of a run are kept with it."""

from __future__ import annotations

import contextlib
import json
import logging
import threading
import typing as t

import pytest

from flask_durable import current_run
from flask_durable import Event
from flask_durable import LogLine
from flask_durable import PayloadLocked
from flask_durable import RunNotFound
from flask_durable import Step
from flask_durable.observe.run_logs import _Tail
from flask_durable.observe.run_logs import install_tail
from flask_durable.observe.run_logs import TailHandler
from flask_durable.payloads.cipher import new_encryption_key

from ..support.harness import Harness
from ..support.servers import ValkeyServer
from ..support.servers import wait_until

user_logger = logging.getLogger("users.module")


@contextlib.contextmanager
def tailing() -> t.Iterator[None]:
    root = logging.getLogger()
    before, root.level = root.level, logging.INFO
    install_tail(root)
    try:
        yield
    finally:
        root.setLevel(before)
        for handler in root.handlers[:]:
            if isinstance(handler, TailHandler):
                root.removeHandler(handler)


@contextlib.contextmanager
def uncaptured() -> t.Iterator[None]:
    """Keep from pytest's handlers, and its reports, what they cannot take."""
    root = logging.getLogger()
    handlers, root.handlers[:] = root.handlers[:], []
    try:
        yield
    finally:
        root.handlers[:] = handlers


def kept(harness: Harness, id: str) -> list[LogLine]:
    harness.state.services.run_logs.flush()
    return t.cast("list[LogLine]", harness.runs.logs(id))


def messages(harness: Harness, id: str) -> list[str]:
    return [line.message for line in kept(harness, id)]


def test_lines_of_a_run_are_kept_once_over_suspensions(harness: Harness) -> None:
    @harness.durable.function(on="a/b")
    def work(event: Event[t.Any], step: Step) -> None:
        user_logger.info("before %s", "it")
        step.run("one", lambda: user_logger.warning("inside"))
        step.sleep("rest", 60)
        current_run.log.info("after")

    with tailing():
        run = harness.send_and_settle("a/b")
        harness.advance(61)

    lines = kept(harness, run.id)
    assert [line.message for line in lines] == ["before it", "inside", "after"]
    assert [line.number for line in lines] == [1, 2, 3]
    assert [line.step for line in lines] == [None, "one", None]
    assert [line.level for line in lines] == ["info", "warning", "info"]
    assert harness.runs.logs(run.id, after=2) == lines[2:]


def test_a_run_that_completes_has_a_line_that_is_not_kept_with_it(
    harness: Harness, caplog: pytest.LogCaptureFixture
) -> None:
    @harness.durable.function(on="a/b", retries=0)
    def work(event: Event[t.Any], step: Step) -> None:
        step.sleep("rest", 60)
        if event.data["fails"]:
            raise ValueError

    with tailing(), caplog.at_level(logging.INFO, "flask_durable"):
        run = harness.send_and_settle("a/b", {"fails": False})
        other = harness.send_and_settle("a/b", {"fails": True})
        harness.advance(61)

    told = [
        (record.levelname, record.getMessage())
        for record in caplog.records
        if getattr(record, "action", "") == "run_completed"
    ]
    assert told == [("INFO", f"Run {run.id} of work completed.")]
    assert messages(harness, run.id) == []
    assert len(messages(harness, other.id)) == 1


def test_other_threads_and_what_is_outside_a_run_are_not_kept(
    harness: Harness,
) -> None:
    @harness.durable.function(on="a/b")
    def work(event: Event[t.Any], step: Step) -> None:
        other = threading.Thread(target=lambda: user_logger.info("not mine"))
        other.start()
        other.join()
        user_logger.info("mine")

    with tailing():
        run = harness.send_and_settle("a/b")
        user_logger.info("nobody's")

    assert messages(harness, run.id) == ["mine"]


def test_an_exception_is_kept_as_one_line_and_long_lines_are_cut(
    harness: Harness,
) -> None:
    @harness.durable.function(on="a/b", retries=0)
    def work(event: Event[t.Any], step: Step) -> None:
        user_logger.info("x" * 5000 + "\ud800")
        raise ValueError("no")

    with uncaptured(), tailing():
        run = harness.send_and_settle("a/b")

    long, failed = messages(harness, run.id)
    assert len(long) == 1000
    assert failed.endswith("\nValueError: no")


def test_a_line_that_cannot_be_formatted_harms_nothing(harness: Harness) -> None:
    @harness.durable.function(on="a/b")
    def work(event: Event[t.Any], step: Step) -> None:
        user_logger.info("%d", "text")

    before, logging.raiseExceptions = logging.raiseExceptions, False
    try:
        with uncaptured(), tailing():
            run = harness.send_and_settle("a/b")
    finally:
        logging.raiseExceptions = before

    assert run.status == "completed"
    assert messages(harness, run.id) == []


def test_a_run_that_logs_nothing_is_not_written_and_zero_lines_keep_none(
    valkey: ValkeyServer, namespace: str
) -> None:
    harness = Harness(valkey.url, namespace, DURABLE_RUN_LOG_LINES=0)

    @harness.durable.function(on="a/b")
    def work(event: Event[t.Any], step: Step) -> None:
        user_logger.info("mine")

    with tailing():
        run = harness.send_and_settle("a/b")

    assert messages(harness, run.id) == []
    client: t.Any = harness.state.server.client
    assert list(client.scan_iter(f"*{namespace}*:log:*")) == []
    harness.close()


def test_lines_are_encrypted_where_payloads_are(
    valkey: ValkeyServer, namespace: str
) -> None:
    harness = Harness(
        valkey.url, namespace, DURABLE_ENCRYPTION_KEYS=[new_encryption_key()]
    )

    @harness.durable.function(on="a/b")
    def work(event: Event[t.Any], step: Step) -> None:
        user_logger.info("4929-SECRET")

    with tailing():
        run = harness.send_and_settle("a/b")

    assert messages(harness, run.id) == ["4929-SECRET"]
    client: t.Any = harness.state.server.client
    tag = harness.state.store.keys.tag_of(run.id)
    assert "SECRET" not in json.dumps(client.lrange(f"{tag}:log:{run.id}", 0, -1))
    blind = Harness(valkey.url, namespace)
    with pytest.raises(PayloadLocked):
        blind.runs.logs(run.id)
    blind.close()
    harness.close()


def test_a_thread_writes_them_and_the_end_writes_the_rest(harness: Harness) -> None:
    started, go_on = threading.Event(), threading.Event()

    @harness.durable.function(on="a/b")
    def work(event: Event[t.Any], step: Step) -> None:
        user_logger.info("early")
        started.set()
        assert go_on.wait(10)
        user_logger.info("late")

    logs = harness.state.services.run_logs
    logs.start()
    with tailing():
        event = harness.send("a/b")
        worker = threading.Thread(target=harness.settle)
        worker.start()
        assert started.wait(10)
        id = harness.run_of(event).id
        wait_until(lambda: len(harness.runs.logs(id)) == 1, "the first line", 10)
        go_on.set()
        worker.join()
    logs.close()

    assert [line.message for line in harness.runs.logs(id)] == ["early", "late"]


def test_a_server_that_takes_none_costs_the_lines_only(
    harness: Harness, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    @harness.durable.function(on="a/b")
    def work(event: Event[t.Any], step: Step) -> None:
        user_logger.info("mine")

    with tailing():
        run = harness.send_and_settle("a/b")
    client: t.Any = harness.state.server.client
    tag = harness.state.store.keys.tag_of(run.id)
    client.set(f"{tag}:log:{run.id}", "of another kind")
    harness.state.services.run_logs.flush()

    actions = [getattr(record, "action", None) for record in caplog.records]
    assert "run_log_lost" in actions
    assert harness.runs.get(run.id).status == "completed"


def test_the_lines_of_no_run_cannot_be_found(harness: Harness) -> None:
    with pytest.raises(RunNotFound):
        harness.runs.logs("nothing")


def test_one_turn_of_the_writer_is_for_all_runs_that_woke_it(harness: Harness) -> None:
    logs = harness.state.services.run_logs
    for number in range(50):
        logs._dirty.append(_Tail(f"run{number}", 5))
        logs._wake.put(None)
    logs._loop.stopping.set()  # it does not wait for more

    logs._turn()

    assert logs._wake.empty()
    assert not logs._dirty
