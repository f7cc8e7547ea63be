"""A run's code forks: the child goes on with nothing of its parent's."""

from __future__ import annotations

import concurrent.futures
import contextlib
import multiprocessing
import os
import sys
import typing as t

import pytest

from flask_durable import Durable
from flask_durable import Event
from flask_durable import RunStatus
from flask_durable import Step
from flask_durable import StepUsageError
from flask_durable.middleware import Middleware

from ..support.forks import exit_code
from ..support.forks import limit_child
from ..support.harness import Harness

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here"),
    pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning"),
]

#: The exit codes of a child that ended too late, or did what it must not do.
PAST_THE_ATTEMPT, NOT_REFUSED = 70, 71


@pytest.fixture(autouse=True)
def parent(harness: Harness) -> t.Iterator[None]:
    """Let no child go on as a second test session."""
    pid = os.getpid()
    yield
    if os.getpid() != pid:
        os._exit(PAST_THE_ATTEMPT)


def fork() -> int:
    """Fork; a child that does not end by itself is ended after some seconds."""
    child = os.fork()
    if not child:
        limit_child()
    return child


def settle(harness: Harness) -> None:
    pid = os.getpid()
    try:
        harness.settle()
    finally:
        if os.getpid() != pid:
            os._exit(PAST_THE_ATTEMPT)


def returns() -> str:
    return "child"


def raises() -> str:
    raise ValueError("in the child")


def leaves() -> str:
    sys.exit(3)


@pytest.mark.parametrize(
    ("child_does", "code"), [(returns, 1), (raises, 1), (leaves, 3)]
)
@pytest.mark.parametrize("place", ["step", "body", "where"])
def test_a_child_that_comes_back_out_of_the_code_that_forked_it_ends_there(
    harness: Harness, place: str, child_does: t.Callable[[], str], code: int
) -> None:
    codes: list[int] = []

    def forks(where: str) -> str:
        if where == place and not codes:
            child = fork()
            if not child:
                return child_does()
            codes.append(exit_code(child))
        return "parent"

    @harness.durable.function(on="a/b", where=lambda event: bool(forks("where")))
    def work(event: Event[t.Any], step: Step) -> list[str]:
        return [step.run("one", forks, "step"), forks("body")]

    event = harness.send("a/b")
    settle(harness)
    run = harness.run_of(event)
    assert codes == [code]
    assert (run.status, run.result) == (RunStatus.COMPLETED, ["parent", "parent"])
    assert [len(step.attempts) for step in run.steps] == [1]


def test_a_child_writes_nothing_with_its_parents_token(harness: Harness) -> None:
    refused: list[int] = []

    @harness.durable.function(on="a/b")
    def work(event: Event[t.Any], step: Step) -> str:
        (attempt,) = harness.leases.held
        child = fork()
        if not child:
            with contextlib.suppress(StepUsageError):
                step.run("more", lambda: None)
                os._exit(NOT_REFUSED)
            for write in (
                lambda: attempt.commit("more", "done", 1, "{}"),
                lambda: attempt.hand_back(),
                lambda: attempt.finish(failed=False, outcome='"child"'),
                lambda: attempt.before_body(60),
            ):
                with contextlib.suppress(BaseException):
                    write()
                    os._exit(NOT_REFUSED)
            os._exit(NOT_REFUSED if harness.leases.held else 0)
        refused.append(exit_code(child))
        return "parent"

    event = harness.send("a/b")
    settle(harness)
    assert refused == [0]
    run = harness.run_of(event)
    assert (run.status, run.result, run.steps) == (RunStatus.COMPLETED, "parent", ())


@pytest.mark.parametrize("hook", ["around_attempt", "around_step"])
def test_a_child_that_a_hook_forks_ends_before_it_has_an_effect_on_the_run(
    valkey: t.Any, namespace: str, hook: str
) -> None:
    codes: list[int] = []

    class Forks(Middleware):
        @contextlib.contextmanager
        def forking(self, info: t.Any) -> t.Iterator[None]:
            child = 0 if codes else fork()
            if not codes and child:
                codes.append(exit_code(child))
            yield

    setattr(Forks, hook, Forks.forking)
    harness = Harness(valkey.url, namespace, durable=Durable(middleware=[Forks()]))

    @harness.durable.function(on="a/b")
    def work(event: Event[t.Any], step: Step) -> int:
        return step.run("one", os.getpid)

    event = harness.send("a/b")
    settle(harness)
    assert codes == [1]
    assert harness.run_of(event).result == os.getpid()
    harness.close()


def square(number: int) -> int:
    return number * number


def test_processes_of_a_pool_work_and_a_forked_child_can_send_events(
    harness: Harness,
) -> None:
    @harness.durable.function(on="a/b")
    def work(event: Event[t.Any], step: Step) -> list[int]:
        def compute() -> list[int]:
            context = multiprocessing.get_context("fork")
            with concurrent.futures.ProcessPoolExecutor(2, context) as pool:
                return list(pool.map(square, range(4)))

        def tell() -> int:
            child = fork()
            if not child:
                harness.send("b/c", id="told")
                os._exit(0)
            return exit_code(child)

        return [*step.run("compute", compute), step.run("tell", tell)]

    @harness.durable.function(on="b/c")
    def told(event: Event[t.Any], step: Step) -> str:
        return "heard"

    event = harness.send("a/b")
    settle(harness)
    assert harness.run_of(event).result == [0, 1, 4, 9, 0]
    assert harness.run_of("told").result == "heard"
