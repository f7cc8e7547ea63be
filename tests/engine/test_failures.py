"""Errors of user code: what is a step's failure, and what is not."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import logging
import signal
import subprocess
import sys
import threading
import typing as t
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest
import redis
from flask import g

from flask_durable import Backoff
from flask_durable import current_run
from flask_durable import Event
from flask_durable import EventData
from flask_durable import Failure
from flask_durable import NonRetriable
from flask_durable import RetryAfter
from flask_durable import Run
from flask_durable import RunStateError
from flask_durable import RunStatus
from flask_durable import Step
from flask_durable import StepError
from flask_durable import StepTimeout
from flask_durable import StepUsageError
from flask_durable.common.interruption import ShutdownInterrupt
from flask_durable.engine.control import Signal
from flask_durable.engine.executor import OTHERS_TURN
from flask_durable.functions.causes import causes_of
from flask_durable.messages import RunMessage

from ..support.harness import Harness
from ..support.servers import valkey_server

AnyEvent = Event[t.Any]


class Panic(BaseException):
    """As libraries have them, for timeouts and crashes."""


def body_runs(
    harness: Harness,
    body: t.Callable[[AnyEvent, Step], t.Any],
    retries: int = 0,
    **options: t.Any,
) -> Run:
    """Have *body* executed as often as it is to be; return its run."""
    harness.durable.function(on="a/b", id="work", retries=retries, **options)(body)
    run = harness.send_and_settle("a/b")
    for _ in range(retries * 2 + 2):
        harness.advance(3600)
    return t.cast(Run, harness.runs.get(run.id))


def raising(error: BaseException) -> t.Callable[[], None]:
    def body() -> None:
        raise error

    return body


# What counts as a failure


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


# What an error came from


def test_do_not_retry_is_seen_in_a_task_group(harness: Harness) -> None:
    calls: list[int] = []

    async def check() -> None:
        calls.append(1)
        raise NonRetriable("no such account")

    async def main() -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(check())

    def body(event: AnyEvent, step: Step) -> None:
        step.run("check", lambda: asyncio.run(main()))

    assert body_runs(harness, body, retries=2).status == RunStatus.FAILED
    assert len(calls) == 1


def test_do_not_retry_is_seen_under_the_error_of_a_clean_up(harness: Harness) -> None:
    calls: list[int] = []

    def charge() -> None:
        calls.append(1)
        try:
            raise NonRetriable("no such account")
        finally:
            raise RuntimeError("the transaction is aborted")

    def body(event: AnyEvent, step: Step) -> None:
        step.run("charge", charge)

    assert body_runs(harness, body, retries=2).status == RunStatus.FAILED
    assert len(calls) == 1


def test_a_class_in_non_retriable_counts_as_a_cause_but_not_as_what_was_handled(
    harness: Harness,
) -> None:
    calls: list[str] = []

    def fallback() -> None:
        calls.append("fallback")
        try:
            raise KeyError("cache")
        except KeyError:
            raise ConnectionError("the store is away")  # noqa: B904

    def wrapped() -> None:
        calls.append("wrapped")
        raise ConnectionError("refused") from KeyError("account")

    def body(event: AnyEvent, step: Step) -> None:
        for name, fn in (("fallback", fallback), ("wrapped", wrapped)):
            with pytest.raises(StepError):
                step.run(name, fn)

    body_runs(harness, body, retries=2, non_retriable=[KeyError])
    assert calls == ["fallback"] * 3 + ["wrapped"]


def test_the_longest_delay_in_a_group_is_waited_for(harness: Harness) -> None:
    def body(event: AnyEvent, step: Step) -> None:
        step.run(
            "limited",
            raising(ExceptionGroup("both", [RetryAfter(5), RetryAfter("2h")])),
        )

    harness.durable.function(on="a/b", retries=1)(body)
    run = harness.send_and_settle("a/b")
    harness.advance(3600)
    assert harness.runs.get(run.id).status == RunStatus.SUSPENDED
    harness.advance(3700)
    assert harness.runs.get(run.id).status == RunStatus.FAILED


def test_a_step_that_failed_is_seen_under_an_error_without_from(
    harness: Harness,
) -> None:
    bodies: list[int] = []
    broken = [True]

    def charge() -> str:
        if broken:
            raise ValueError("the card service is down")
        return "paid"

    def body(event: AnyEvent, step: Step) -> str:
        bodies.append(1)
        try:
            return step.options(retries=0).run("charge", charge)
        except StepError:
            raise LookupError("4711")  # noqa: B904

    run = body_runs(harness, body, retries=1)
    assert (run.status, len(bodies)) == (RunStatus.FAILED, 1)
    broken.clear()
    harness.runs.retry(run.id)
    harness.settle()
    assert harness.runs.get(run.id).result == "paid"


def test_a_chain_of_causes_that_leads_back_is_followed_once() -> None:
    first, second = ValueError("1"), ValueError("2")
    first.__cause__, second.__context__ = second, first
    assert list(causes_of(first)) == [first, second]
    first.__cause__ = None
    first.__context__, first.__suppress_context__ = second, True
    assert list(causes_of(first)) == [first]


# How an error is described


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


# What is past the body


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


# Contexts


def test_an_error_at_the_end_of_the_bodys_context_is_the_attempts(
    harness: Harness,
) -> None:
    ends: list[BaseException | None] = []

    @harness.app.teardown_appcontext
    def commit(error: BaseException | None) -> None:
        if "dirty" in g:
            ends.append(error)
            if len(ends) == 1:
                raise RuntimeError("the commit failed")

    def body(event: AnyEvent, step: Step) -> str:
        g.dirty = True
        return "written"

    run = body_runs(harness, body, retries=1)
    assert (run.status, run.result) == (RunStatus.COMPLETED, "written")
    assert ends == [None, None]


def test_the_end_of_a_context_is_told_that_its_body_failed(harness: Harness) -> None:
    told: list[type[t.Any]] = []

    @harness.app.teardown_appcontext
    def commit(error: BaseException | None) -> None:
        if "dirty" in g:
            told.append(type(error))

    def body(event: AnyEvent, step: Step) -> None:
        g.dirty = 1 / 1
        g.dirty /= 0

    body_runs(harness, body)
    assert told == [ZeroDivisionError]


def test_a_context_variable_of_one_run_is_not_set_in_the_next(harness: Harness) -> None:
    tenant: contextvars.ContextVar[str] = contextvars.ContextVar("t", default="none")
    found: list[str] = []

    def body(event: AnyEvent, step: Step) -> None:
        found.append(tenant.get())
        tenant.set(event.data["tenant"])

    harness.durable.function(on="a/b")(body)
    harness.send("a/b", {"tenant": "alpha"})
    harness.send("a/b", {"tenant": "beta"})
    harness.settle()
    assert found == ["none", "none"]


def test_a_context_that_is_copied_in_a_step_stays_in_that_step(
    harness: Harness,
) -> None:
    copied: list[contextvars.Context] = []

    def name() -> str | None:
        return current_run.step and current_run.step.name

    def body(event: AnyEvent, step: Step) -> list[str | None]:
        step.run("first", lambda: copied.append(contextvars.copy_context()))
        step.run("second", lambda: None)
        inside = step.run("third", lambda: copied[0].run(name))
        return [inside, copied[0].run(name), name()]

    assert body_runs(harness, body).result == ["first", "first", None]


def test_what_a_step_sets_of_context_variables_ends_with_it_as_at_a_replay(
    harness: Harness,
) -> None:
    tenant: contextvars.ContextVar[str] = contextvars.ContextVar("t", default="none")
    found: list[str] = []

    def body(event: AnyEvent, step: Step) -> None:
        step.run("load", lambda: tenant.set("alpha") and None)
        found.append(tenant.get())
        step.sleep("nap", "1h")
        found.append(tenant.get())

    body_runs(harness, body)
    assert found == ["none", "none", "none"]


def test_a_step_function_in_a_thread_of_the_body_is_told_of(
    harness: Harness, caplog: pytest.LogCaptureFixture
) -> None:
    charged: list[int] = []

    @harness.durable.step
    def charge(number: int) -> None:
        charged.append(number)

    def in_pool() -> None:
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(charge, [1, 2]))

    def of_step(event: AnyEvent, step: Step) -> None:
        step.run("all", in_pool)

    def of_body(event: AnyEvent, step: Step) -> None:
        in_pool()

    charge(0)
    harness.durable.function(on="a/step")(of_step)
    harness.durable.function(on="a/body")(of_body)
    harness.send_and_settle("a/step")
    assert "plainly" not in caplog.text
    harness.send_and_settle("a/body")
    assert caplog.text.count("'charge' was called plainly") == 1
    assert charged.count(1) == 2


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


# Trying again


class PowerCut(Signal):
    """As if the process had died: nothing more is written."""


def interrupted_run(harness: Harness, calls: list[int]) -> Run:
    """Return a run that failed since its step was begun and left no outcome."""

    def launch() -> str:
        calls.append(1)
        if len(calls) == 1:
            raise ValueError("not ready")
        if len(calls) == 2:
            raise PowerCut
        return "launched"

    def body(event: AnyEvent, step: Step) -> str:
        return step.options(at_most_once=True, retries=1).run("launch", launch)

    harness.durable.function(on="a/b", id="work")(body)
    run = harness.send_and_settle("a/b")
    harness.advance(3600)
    harness.expire_leases()
    harness.settle()
    return t.cast(Run, harness.runs.get(run.id))


def test_a_step_that_may_have_had_its_effect_is_retried_only_by_name(
    harness: Harness,
) -> None:
    calls: list[int] = []
    run = interrupted_run(harness, calls)
    assert (run.status, run.reason) == (RunStatus.FAILED, "outcome unknown")
    assert run.failure is not None
    assert (run.failure.type, run.failure.attempt) == ("StepInterrupted", 2)

    with pytest.raises(RunStateError, match=r"may have had its effect.*--step launch"):
        harness.runs.retry(run.id)
    with pytest.raises(RunStateError, match="no failed step 'lunch'"):
        harness.runs.retry(run.id, steps=["launch", "lunch"])
    harness.settle()
    assert len(calls) == 2

    harness.runs.retry(run.id, steps=["launch"])
    harness.settle()
    assert harness.runs.get(run.id).result == "launched"


def test_a_dead_letter_does_not_retry_what_may_have_had_its_effect(
    harness: Harness,
) -> None:
    calls: list[int] = []
    run = interrupted_run(harness, calls)
    harness.executor.claim(RunMessage(run=run.id, function="work", queued=0, failed=0))
    assert harness.runs.get(run.id).status == RunStatus.FAILED


def test_a_failed_step_that_was_caught_is_retried_by_name_alone(
    harness: Harness,
) -> None:
    calls: list[str] = []

    def failing(name: str) -> str:
        calls.append(name)
        if calls.count(name) == 1:
            raise ValueError(name)
        return name

    def body(event: AnyEvent, step: Step) -> list[str]:
        found = []
        for name in ("first", "second"):
            try:
                found.append(step.run(name, failing, name))
            except StepError:
                found.append("none")
        if len(calls) == 2:
            raise LookupError
        return found

    run = body_runs(harness, body)
    harness.runs.retry(run.id, steps=["first"])
    harness.settle()
    assert harness.runs.get(run.id).result == ["first", "none"]
    with pytest.raises(RunStateError, match="is completed"):
        harness.runs.retry(run.id, steps=["second"])


# Another release


def test_a_run_whose_event_fits_a_release_that_is_there_too_is_left_to_that(
    valkey: t.Any, namespace: str
) -> None:
    class Small(EventData, name="meal/sized"):
        size: t.Literal["small"]

    class Sized(EventData, name="meal/sized"):
        size: t.Literal["small", "large"]

    def deploy(schema: type[EventData]) -> Harness:
        harness = Harness(valkey.url, namespace, in_place=0)

        @harness.durable.function(on=schema, id="fit", retries=0)
        def fit(event: AnyEvent, step: Step) -> str:
            return str(event.data.size)

        harness.start()
        return harness

    old, new = deploy(Small), deploy(Sized)
    event_id = new.send("meal/sized", {"size": "large"})
    new.route()
    assert old.execute() == 1
    run = new.run_of(event_id)
    assert (run.status, run.reason) == (RunStatus.SUSPENDED, "another release's event")
    new.advance(OTHERS_TURN)
    assert new.run_of(event_id).result == "large"
    for each in (old, new):
        each.close()


def is_gone(old: Harness) -> None:
    """Have all versions of functions that there are so far forgotten."""
    client = old.state.server.client
    seen = f"{old.state.store.keys.tags[0]}:functions:seen"
    client.zadd(seen, dict.fromkeys(client.zrange(seen, 0, -1), 0))
    assert old.state.directory.forget("bill")


@pytest.mark.parametrize("begun", [True, False])
def test_an_event_that_does_not_fit_pauses_a_run_that_has_steps(
    valkey: t.Any, namespace: str, begun: bool
) -> None:
    class Order(EventData, name="order/placed"):
        cents: int

    class StricterOrder(EventData, name="order/placed"):
        cents: int
        currency: str

    told: list[t.Any] = []

    def deploy(schema: type[EventData]) -> Harness:
        harness = Harness(valkey.url, namespace)

        @harness.durable.function(on=schema, id="bill", retries=0)
        def bill(event: AnyEvent, step: Step) -> None:
            if begun:
                step.run("charge", lambda: None)
                step.sleep("wait", "1h")

        @bill.on_failure
        def tell(event: AnyEvent, step: Step, failure: Failure) -> None:
            told.append(event.data)

        return harness

    old = deploy(Order)
    event_id = old.send("order/placed", {"cents": 5})
    old.route()
    if begun:
        old.settle()
    new = deploy(StricterOrder)
    if begun:
        new.advance(4000)
    else:
        is_gone(old)
        new.start()
        new.threads.runs = old.threads.runs
        new.settle()
    run = new.run_of(event_id, "bill")
    if begun:
        assert run.status == RunStatus.PAUSED
        assert "does not fit its model" in run.reason
        assert told == []
    else:
        assert run.status == RunStatus.FAILED
        assert told == [{"cents": 5}]
    old.close()
    new.close()


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
