"""Errors of user code: what is a step's failure, and what is not."""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import subprocess
import sys
import threading
import typing as t
import weakref

import pytest
import redis

from flask_durable import Backoff
from flask_durable import Event
from flask_durable import Failure
from flask_durable import Run
from flask_durable import RunStatus
from flask_durable import Step
from flask_durable import StepError
from flask_durable import StepTimeout
from flask_durable import StepUsageError
from flask_durable.common.interruption import ShutdownInterrupt

from ..support.harness import Harness
from ..support.servers import valkey_server
from .bodies import AnyEvent
from .bodies import body_runs


class Panic(BaseException):
    """As libraries have them, for timeouts and crashes."""


# Failures, and what is none


@pytest.mark.parametrize(
    "error", [Panic("x"), KeyboardInterrupt(), GeneratorExit(), SystemExit(3)]
)
def test_whatever_a_steps_body_raises_is_the_steps_failure(
    harness: Harness, error: BaseException
) -> None:
    calls: list[int] = []

    def charge() -> None:
        calls.append(1)
        raise error

    def body(event: AnyEvent, step: Step) -> str:
        try:
            step.options(retries=1).run("charge", charge)
        except StepError as failed:
            return failed.failure.type.rpartition(".")[2]
        return "charged"

    # Not in the main thread, where these are the end of the process.
    runs: list[Run] = []
    thread = threading.Thread(target=lambda: runs.append(body_runs(harness, body)))
    thread.start()
    thread.join()

    assert runs[0].result == type(error).__name__
    assert len(calls) == 2


def test_an_error_that_a_timeout_was_turned_into_is_a_timeout(harness: Harness) -> None:
    def body(event: AnyEvent, step: Step) -> str:
        def query() -> None:
            try:
                while True:
                    threading.Event().wait(0.001)
            finally:
                raise RuntimeError("the connection is in an unknown state")

        with pytest.raises(StepTimeout):
            step.options(timeout="50ms").run("query", query)
        return "told"

    assert body_runs(harness, body).result == "told"


def test_an_error_that_a_shutdown_was_turned_into_is_no_failure(
    harness: Harness,
) -> None:
    interrupted: list[int] = []

    def body(event: AnyEvent, step: Step) -> str:
        def query() -> str:
            if interrupted:
                return "rows"
            interrupted.append(1)
            (attempt,) = harness.leases.held
            assert attempt.body is not None
            try:
                attempt.body.interrupt(ShutdownInterrupt)
                threading.Event().wait(5)
            finally:
                raise RuntimeError("the connection is in an unknown state")

        return step.run("query", query)

    run = body_runs(harness, body)
    assert (run.result, interrupted) == ("rows", [1])


def test_a_program_that_the_drains_signal_ended_is_no_failure(harness: Harness) -> None:
    begun: list[int] = []

    def transcode() -> str:
        if begun:
            return "done"
        begun.append(1)
        program = [sys.executable, "-c", "import time; time.sleep(60)"]
        with subprocess.Popen(program) as running:
            harness.state.services.draining.set()
            running.send_signal(signal.SIGTERM)
            status = running.wait()
        raise RuntimeError(f"ffmpeg failed: {status}")

    def body(event: AnyEvent, step: Step) -> str:
        return step.run("transcode", transcode)

    harness.durable.function(on="a/b", retries=0)(body)
    run = harness.send_and_settle("a/b")
    assert (run.status, run.reason) == (RunStatus.SUSPENDED, "worker shutdown")
    harness.state.services.draining.clear()
    harness.advance(60)
    assert harness.runs.get(run.id).result == "done"


def test_a_program_of_a_body_outside_any_step_may_be_ended_by_the_drain_too(
    harness: Harness,
) -> None:
    def body(event: AnyEvent, step: Step) -> str:
        if not harness.state.services.draining.is_set():
            return "done"
        raise RuntimeError("ffmpeg") from subprocess.CalledProcessError(143, "sh")

    harness.durable.function(on="a/b", retries=0)(body)
    harness.state.services.draining.set()
    run = harness.send_and_settle("a/b")
    assert (run.status, run.reason) == (RunStatus.SUSPENDED, "worker shutdown")
    harness.state.services.draining.clear()
    harness.advance(60)
    assert harness.runs.get(run.id).result == "done"


@pytest.mark.parametrize("status", [1, -signal.SIGSEGV, -signal.SIGKILL])
def test_what_fails_by_itself_in_a_drain_is_a_failure(
    harness: Harness, status: int
) -> None:
    def body(event: AnyEvent, step: Step) -> None:
        def transcode() -> None:
            harness.state.services.draining.set()
            raise subprocess.CalledProcessError(status, "ffmpeg")

        step.run("transcode", transcode)

    assert body_runs(harness, body).status == RunStatus.FAILED


def test_a_server_that_ends_its_process_in_a_step_does_not_fail_the_step(
    harness: Harness,
) -> None:
    begun: list[int] = []

    def body(event: AnyEvent, step: Step) -> str:
        def slow() -> str:
            begun.append(1)
            if len(begun) == 1:
                try:
                    signal.raise_signal(signal.SIGUSR1)
                finally:
                    raise RuntimeError("in the middle")
            return "done"

        return step.run("slow", slow)

    before = signal.signal(signal.SIGUSR1, lambda *_: sys.exit(1))
    try:
        with pytest.raises(SystemExit):
            body_runs(harness, body)
    finally:
        signal.signal(signal.SIGUSR1, before)
    harness.settle()
    (run,) = harness.runs.list()
    assert (harness.runs.get(run.id).result, len(begun)) == ("done", 2)


# The description of an error


def unprintable(name: str, error: BaseException) -> BaseException:
    def fail(self: object) -> t.NoReturn:
        raise error

    kind: type[BaseException] = type(name, (Exception,), {"__str__": fail})
    return kind()


@pytest.mark.parametrize("inside", [KeyboardInterrupt(), SystemExit(1), Panic()])
def test_an_error_that_cannot_be_printed_is_a_failure_like_others(
    harness: Harness, inside: BaseException
) -> None:
    def body(event: AnyEvent, step: Step) -> None:
        raise unprintable("Odd", inside)

    run = body_runs(harness, body, retries=1)
    assert run.status == RunStatus.FAILED
    assert run.failure is not None
    assert (run.failure.message, run.failure.attempt) == ("<unprintable Odd>", 2)


def test_a_class_without_a_module_is_described() -> None:
    class Meta(type):
        @property
        def __module__(cls) -> str:  # type: ignore[override]
            raise SystemExit

    odd = Meta("Odd", (Exception,), {})
    assert Failure.of(odd("x")).type == "Odd"
    assert Failure.of(type("Bare", (Exception,), {"__module__": None})()).type == "Bare"


def test_an_error_of_the_main_program_has_the_name_that_others_import_it_by(
    tmp_path: t.Any,
) -> None:
    package = tmp_path / "shop"
    package.mkdir()
    (package / "__init__.py").touch()
    program = package / "app.py"
    program.write_text(
        "from flask_durable import Failure\n"
        "class Declined(Exception): ...\n"
        "print(Failure.of(Declined()).type)\n"
    )
    for command in ([str(program)], ["-m", "shop.app"], ["-c", "import shop.app"]):
        said = subprocess.run(
            [sys.executable, *command], cwd=tmp_path, capture_output=True, text=True
        )
        assert said.stdout == "shop.app.Declined\n", said.stderr


def test_what_a_failed_attempt_held_is_free_without_the_collector_of_cycles(
    harness: Harness,
) -> None:
    class Large: ...

    held: list[weakref.ref[Large]] = []

    def load() -> None:
        large = Large()
        held.append(weakref.ref(large))
        raise ValueError("no")

    def body(event: AnyEvent, step: Step) -> None:
        step.options(backoff=Backoff("1s")).run("load", load)

    gc.disable()
    logging.disable()  # what collects records for a test keeps their errors
    try:
        body_runs(harness, body, retries=1)
        assert [ref() for ref in held] == [None, None]
    finally:
        logging.disable(logging.NOTSET)
        gc.enable()


# Past the body


def test_a_result_that_cannot_be_stored_for_want_of_stack_is_a_failed_attempt(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    caught: list[BaseException] = []

    def body(event: AnyEvent, step: Step) -> None:
        try:
            step.run("leaf", lambda: calls.append(1))
        except Exception as error:
            caught.append(error)

    def too_deep(*_: t.Any, **__: t.Any) -> t.NoReturn:
        raise RecursionError("maximum recursion depth exceeded")

    monkeypatch.setattr(harness.state.store, "commit", too_deep)
    run = body_runs(harness, body, retries=1)
    assert run.status == RunStatus.FAILED
    assert run.failure is not None
    assert (run.failure.type, run.failure.attempt) == ("RecursionError", 2)
    assert (len(calls), caught) == (2, [])


@pytest.mark.parametrize("size", [2_000_000, 3_900_000])
def test_a_result_that_the_server_refuses_fails_its_step_at_once(
    namespace: str, size: int
) -> None:

    calls: list[int] = []

    def make() -> str:
        calls.append(1)
        return "x" * size

    def body(event: AnyEvent, step: Step) -> str:
        with pytest.raises(StepError) as failed:
            step.run("make", make)
        assert "is refused by the state server" in failed.value.failure.message
        return "y" * size

    with valkey_server() as server:
        harness = Harness(server.url, namespace)
        client = redis.Redis.from_url(server.url)
        client.config_set("proto-max-bulk-len", "1mb")
        run = body_runs(harness, body, retries=3)
        harness.close()
    assert run.status == RunStatus.FAILED
    assert run.failure is not None
    assert "is refused by the state server" in run.failure.message
    assert len(calls) == 1


def test_an_error_of_our_own_pauses_the_run_and_is_kept(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: t.Any, **__: t.Any) -> t.NoReturn:
        raise AssertionError("a fault of ours")

    monkeypatch.setattr("flask_durable.engine.executor.delay_after", broken)
    run = body_runs(harness, lambda event, step: 1 / 0, retries=1)
    assert run.status == RunStatus.PAUSED
    assert run.failure is not None
    assert "a fault of ours" in run.failure.traceback


def test_a_slip_in_a_step_says_what_to_write(harness: Harness) -> None:
    def body(event: AnyEvent, step: Step) -> None:
        untyped = t.cast(t.Any, step)
        with pytest.raises(StepUsageError, match=r"step.run\('charge', fn, 1\)"):
            untyped.run("charge", len("called"))
        with pytest.raises(StepUsageError, match="Give the name first"):
            untyped.run(len, "called")

    assert body_runs(harness, body).status == RunStatus.COMPLETED


def test_a_body_that_catches_everything_in_a_loop_is_stopped(
    harness: Harness, caplog: pytest.LogCaptureFixture
) -> None:
    loops: list[int] = []

    def poll(step: Step) -> bool:
        while True:
            loops.append(1)
            try:
                step.sleep("wait", "1h")
                return True
            except:  # noqa: E722
                assert len(loops) < 1000

    def body(event: AnyEvent, step: Step) -> str:
        poll(step)
        return "done"

    harness.durable.function(on="a/b")(body)
    run = harness.send_and_settle("a/b")
    assert run.status == RunStatus.SUSPENDED
    assert len(loops) < 100
    assert sys.gettrace() is None or "coverage" in repr(sys.gettrace())
    assert "catches everything" in caplog.text
    assert __file__ in caplog.text
    harness.advance(3600)
    assert harness.runs.get(run.id).result == "done"


def test_steps_in_clean_up_code_do_not_stop_the_clean_up(harness: Harness) -> None:
    ended: list[str] = []

    def body(event: AnyEvent, step: Step) -> None:
        try:
            try:
                step.sleep("wait", "1h")
            finally:
                step.run("inner", lambda: None)
        finally:
            ended.append("outer")

    harness.durable.function(on="a/b")(body)
    harness.send_and_settle("a/b")
    assert ended == ["outer"]


def test_a_write_that_fails_cannot_be_caught_by_the_body(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []

    @harness.durable.function(on="a/b")
    def work(event: Event[t.Any], step: Step) -> str:
        try:
            step.run("first", lambda: calls.append("first"))
        except Exception:
            calls.append("caught")
        step.run("second", lambda: calls.append("second"))
        return "done"

    commit = harness.state.store.commit

    def fail(*args: t.Any, **kwargs: t.Any) -> t.Any:
        raise redis.ResponseError("ERR something is wrong with the script")

    monkeypatch.setattr(harness.state.store, "commit", fail)
    event_id = harness.send("a/b")
    harness.settle()
    assert calls == ["first"]
    run = harness.run_of(event_id)
    assert (run.status, run.reason) == (RunStatus.SUSPENDED, "retry")

    monkeypatch.setattr(harness.state.store, "commit", commit)
    harness.advance(60)
    assert harness.run_of(event_id).status == RunStatus.COMPLETED
    assert calls == ["first", "first", "second"]


def test_something_cancelled_in_a_step_is_a_failure_of_the_step(
    harness: Harness,
) -> None:
    async def cancelled() -> None:
        raise asyncio.CancelledError

    @harness.durable.function(on="a/b", retries=0)
    def work(event: Event[t.Any], step: Step) -> str:
        try:
            step.run("wait", lambda: asyncio.run(cancelled()))
        except StepError as error:
            return error.failure.type
        return "nothing"

    assert harness.send_and_settle("a/b").result == "asyncio.exceptions.CancelledError"


@pytest.mark.parametrize("broken", ["__str__", "code"])
def test_an_exception_with_broken_parts_fails_its_step(
    harness: Harness, broken: str
) -> None:
    def explode(self: t.Any) -> t.NoReturn:
        raise RuntimeError("broken")

    parts = {"__str__": explode, "code": property(explode)}
    odd = type("Odd", (Exception,), {broken: parts[broken]})

    def fail() -> None:
        raise odd("text")

    @harness.durable.function(on="a/b", retries=0)
    def work(event: Event[t.Any], step: Step) -> None:
        step.run("fail", fail)

    run = harness.send_and_settle("a/b")
    assert run.failure is not None
    assert (run.status, run.failure.step) == (RunStatus.FAILED, "fail")
    assert run.failure.type.endswith("Odd")


def test_the_code_of_a_foreign_error_is_not_taken_for_ours(harness: Harness) -> None:
    class Foreign(Exception):
        code = "step.timeout"

    def fail() -> None:
        raise Foreign

    @harness.durable.function(on="a/b", retries=0)
    def work(event: Event[t.Any], step: Step) -> str:
        try:
            step.run("fail", fail)
        except StepError as error:
            return f"{type(error).__name__} {error.failure.code}"
        return "nothing"

    assert harness.send_and_settle("a/b").result == "StepError user"
