"""Interrupts leave nothing held, and a body that does not end is given up."""

from __future__ import annotations

import contextlib
import logging
import queue
import subprocess
import sys
import threading
import time
import types
import typing as t
from importlib.util import find_spec

import pytest

from flask_durable import Event
from flask_durable import Step
from flask_durable import StepError
from flask_durable.common import interruption
from flask_durable.common import safe_points
from flask_durable.common.interruption import Body
from flask_durable.common.interruption import Interrupt
from flask_durable.common.interruption import shielded
from flask_durable.common.interruption import ShutdownInterrupt
from flask_durable.common.interruption import TimeoutInterrupt
from flask_durable.common.interruption import Watchdog
from flask_durable.engine.control import LossInterrupt
from flask_durable.errors import ConfigurationError
from flask_durable.store.replies import Renewal
from flask_durable.store.status import RunStatus
from flask_durable.worker.process import WorkerProcess
from flask_durable.worker.push.worker import PushWorker
from flask_durable.worker.real_threads import check_threads

from ..support.harness import Harness

PATIENCE = 20.0


def poll(look: t.Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE
    while not look():
        assert time.monotonic() < end
        time.sleep(0.002)


TRACED = """
import sys

from flask_durable.common.safe_points import take_back


def traced():
    return "on"


take_back()
sys.settrace(lambda *event: None)
print(traced())
"""


def test_an_interpreter_that_took_an_interrupt_back_may_be_traced() -> None:
    done = subprocess.run(
        [sys.executable, "-c", TRACED],
        capture_output=True,
        text=True,
        timeout=60,  # 3.11 would hang for ever
        check=True,
    )
    assert done.stdout == "on\n"


class InThread:
    """Calls a body in a thread, and tells what it ended by."""

    def __init__(
        self,
        fn: t.Callable[[], object],
        timeout: float | None = None,
        give_up: t.Callable[[type[Interrupt]], None] | None = None,
    ) -> None:
        self.ended_by: BaseException | None = None
        self.body: Body | None = None
        self._args = (fn, timeout, give_up)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    @property
    def ident(self) -> int:
        assert self._thread.ident is not None
        return self._thread.ident

    def _run(self) -> None:
        fn, timeout, give_up = self._args
        self.body = Body(timeout, give_up)
        try:
            with self.body:
                safe_points.call(fn, (), {})
        except BaseException as error:
            self.ended_by = error

    def interrupt(self, kind: type[Interrupt] = TimeoutInterrupt) -> None:
        poll(lambda: self.body is not None and self.body.active)
        assert self.body is not None
        self.body.interrupt(kind)

    def join(self) -> BaseException | None:
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()
        return self.ended_by


def stands_in(thread: InThread, name: str) -> bool:
    """Return whether the innermost frame of *thread* is of a function of that name."""
    frame = sys._current_frames().get(thread.ident)
    return frame is not None and frame.f_code.co_name == name


class Slow(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        time.sleep(0.0005)


def log_lines() -> None:
    while True:
        logging.getLogger("tests.interruption").info("a line")


LINES: list[queue.Queue[int]] = []


def pass_through_a_queue() -> None:
    # One of its own: two threads that pass a lock to each other are seen nowhere but in
    # front of it, where neither may be interrupted.
    lines: queue.Queue[int] = queue.Queue()
    LINES.append(lines)
    while True:
        lines.put(1)
        with contextlib.suppress(queue.Empty):
            lines.get_nowait()


NEVER = threading.Event()


def wait_for_an_event() -> None:
    while True:
        NEVER.wait(0.0005)


def sort_of_compute() -> None:
    numbers = list(range(100))
    while True:
        numbers = sorted(numbers, key=lambda n: -n)


def free(lock: t.Any) -> bool:
    """Return whether another thread can take *lock*."""
    taken: list[bool] = []

    def take() -> None:
        taken.append(lock.acquire(timeout=PATIENCE))
        if taken[0]:
            lock.release()

    thread = threading.Thread(target=take)
    thread.start()
    thread.join()
    return taken[0]


@pytest.mark.parametrize(
    ("body", "times"),
    [
        (log_lines, 20),
        (pass_through_a_queue, 3),
        (wait_for_an_event, 20),
        (sort_of_compute, 5),
    ],
)
def test_bodies_interrupted_in_the_middle_of_library_calls_leave_no_lock_held(
    body: t.Callable[[], None], times: int
) -> None:
    log, handler = logging.getLogger("tests.interruption"), Slow()
    log.propagate = False
    log.setLevel(logging.INFO)
    log.addHandler(handler)
    try:
        for _ in range(times):
            for thread in [InThread(body, timeout=0.002) for _ in range(2)]:
                assert isinstance(thread.join(), TimeoutInterrupt)
        assert free(handler.lock)
        assert all(free(lines.mutex) for lines in LINES)
        assert free(NEVER._cond)  # type: ignore[attr-defined]
        assert not NEVER._cond._waiters  # type: ignore[attr-defined]
    finally:
        log.removeHandler(handler)
        log.propagate = True


def test_a_lock_that_is_taken_in_the_call_of_acquire_is_not_lost() -> None:
    lock = threading.Lock()
    lock.acquire()

    def body() -> None:
        lock.acquire()
        try:
            while True:
                time.sleep(0.001)
        finally:
            lock.release()

    thread = InThread(body)
    poll(lambda: stands_in(thread, "body"))
    thread.interrupt()
    looks = thread.body
    assert looks is not None
    poll(lambda: looks._look > interruption.FIRST_LOOK)  # it was looked at, and left
    assert thread.ended_by is None
    lock.release()

    assert isinstance(thread.join(), TimeoutInterrupt)
    assert free(lock)


@pytest.mark.parametrize("end", ["__enter__", "__exit__"])
def test_what_a_body_enters_and_leaves_is_entered_and_left_whole(end: str) -> None:
    went_on = threading.Event()
    steps: list[str] = []

    class Slow:
        def __enter__(self) -> None:
            if end == "__enter__":
                stand_here()
            steps.append("entered")

        def __exit__(self, *_: object) -> None:
            if end == "__exit__":
                stand_here()
            steps.append("left")

    def stand_here() -> None:
        while not went_on.is_set():
            time.sleep(0.001)

    def body() -> None:
        with Slow():
            pass
        while True:
            time.sleep(0.001)

    thread = InThread(body)
    thread.interrupt()
    overdue = thread.body
    assert overdue is not None
    poll(lambda: overdue._look > interruption.FIRST_LOOK * 1.5)
    assert (thread.ended_by, steps) == (None, ["entered"][: end == "__exit__"])
    went_on.set()

    assert isinstance(thread.join(), TimeoutInterrupt)
    assert steps[:1] == ["entered"]
    assert steps.count("left") == 1


def test_a_body_is_not_interrupted_before_it_begins_nor_after_its_end() -> None:
    thread = threading.get_ident()
    raised: list[bool] = []

    def try_from_outside() -> None:
        other = threading.Thread(
            target=lambda: raised.append(
                safe_points.try_to_raise(thread, TimeoutInterrupt)
            )
        )
        other.start()
        other.join()

    with Body() as body:
        try_from_outside()
        assert body.active

    assert raised == [False]


def test_a_thread_that_moved_on_since_it_was_looked_at_is_not_interrupted() -> None:
    go_on = threading.Event()

    def body() -> None:
        while not go_on.is_set():
            time.sleep(0.001)

    thread = InThread(body)
    poll(lambda: stands_in(thread, "body"))
    frame = sys._current_frames()[thread.ident]
    assert not safe_points._raise_at(thread.ident, TimeoutInterrupt, frame, 0)
    go_on.set()
    assert thread.join() is None


def test_an_interrupt_that_is_swallowed_is_raised_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(interruption, "AGAIN", 0.01)
    swallowed: list[int] = []

    def body() -> None:
        while len(swallowed) < 3:
            try:
                while True:
                    time.sleep(0.001)
            except BaseException:
                swallowed.append(1)

    thread = InThread(body)
    thread.interrupt()

    thread.join()
    assert len(swallowed) == 3


def test_a_dead_body_shields_nothing() -> None:
    with Body() as body:
        body.interrupted = TimeoutInterrupt
        interruption._local.body = body
    interruption._local.body = body  # as an interrupt in its end would leave it
    try:
        with shielded():
            pass
    finally:
        del interruption._local.body


@pytest.mark.parametrize("kind", [TimeoutInterrupt, LossInterrupt, ShutdownInterrupt])
def test_a_body_that_does_not_end_is_given_up_but_not_by_a_shutdown(
    kind: type[Interrupt], monkeypatch: pytest.MonkeyPatch
) -> None:
    """3.4: A body that does not end although its time is over is given up."""
    monkeypatch.setattr(interruption, "GRACE", 0.0)
    given_up: queue.SimpleQueue[type[Interrupt]] = queue.SimpleQueue()
    go_on = threading.Lock()
    go_on.acquire()

    def body() -> None:
        with go_on:
            pass

    thread = InThread(body, give_up=given_up.put)
    thread.interrupt(kind)
    if kind is not ShutdownInterrupt:
        assert given_up.get(timeout=PATIENCE) is kind
    assert thread.body is not None
    assert thread.body.given_up == (kind is not ShutdownInterrupt)
    go_on.release()
    thread.join()
    assert given_up.empty()


def test_the_end_of_a_steps_context_is_not_interrupted(harness: Harness) -> None:
    order: list[str] = []

    @harness.app.teardown_appcontext
    def slow(error: BaseException | None) -> None:
        order.append("begins")
        for _ in range(20):
            time.sleep(0.001)
        order.append("ends")

    @harness.durable.function(on="a/b", retries=0)
    def work(event: Event[t.Any], step: Step) -> None:
        with contextlib.suppress(StepError):
            step.options(timeout="5ms", retries=0).run("quick", lambda: None)

    order.clear()
    run = harness.send_and_settle("a/b")

    assert run.status == RunStatus.COMPLETED
    assert order == ["begins", "ends"] * (len(order) // 2)


def test_a_step_that_asks_for_a_short_lease_gets_the_usual_one(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    leases: list[float] = []
    renew = harness.state.store.renew

    def noted(tag: str, held: t.Sequence[tuple[str, str, float]]) -> list[Renewal]:
        leases.extend(lease for _, _, lease in held)
        return renew(tag, held)

    monkeypatch.setattr(harness.state.store, "renew", noted)

    @harness.durable.function(on="a/b")
    def work(event: Event[t.Any], step: Step) -> None:
        step.options(lease="1s").run("short", lambda: None)
        step.options(lease="2m").run("long", lambda: None)

    assert harness.send_and_settle("a/b").status == RunStatus.COMPLETED
    assert leases == [harness.state.store.lease, 120.0]


@pytest.mark.parametrize(
    ("library", "module", "asks"),
    [
        ("gevent", "gevent.monkey", "is_module_patched"),
        ("eventlet", "eventlet.patcher", "is_monkey_patched"),
    ],
)
def test_a_worker_does_not_start_where_greenlets_have_replaced_threads(
    harness: Harness,
    monkeypatch: pytest.MonkeyPatch,
    library: str,
    module: str,
    asks: str,
) -> None:
    patched = {"threading", "thread"}
    fake = types.ModuleType(module)
    setattr(fake, asks, lambda name: name in patched)
    monkeypatch.setitem(sys.modules, module, fake)
    worker = WorkerProcess(harness.state, queues=["default"], threads=1, grace=1)

    with pytest.raises(ConfigurationError, match=library):
        worker.start()
    with pytest.raises(ConfigurationError, match=library):
        PushWorker(harness.state, lives_on=True).tick(time.monotonic() + 1)
    patched.clear()
    check_threads()


# -- The watchdog ----------------------------------------------------------------------


@pytest.mark.parametrize("error", [MemoryError, SystemExit])
def test_the_watchdog_survives_what_is_raised_in_it(error: type[BaseException]) -> None:
    def endless() -> None:
        while True:
            time.sleep(0.001)

    thread = InThread(endless, timeout=0.5)
    watchdogs = [x for x in threading.enumerate() if x.name == "durable-watchdog"]
    for watchdog in watchdogs:
        assert watchdog.ident is not None
        safe_points._raise(watchdog.ident, error)

    assert isinstance(thread.join(), TimeoutInterrupt)


def test_a_body_that_could_not_be_pressed_is_pressed_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def endless() -> None:
        while True:
            time.sleep(0.001)

    pressed: list[int] = []
    press = Body.press

    def broken(self: Body) -> float | None:
        pressed.append(1)
        if len(pressed) == 1:
            raise SystemExit
        return press(self)

    monkeypatch.setattr(Body, "press", broken)
    assert isinstance(InThread(endless, timeout=0.01).join(), TimeoutInterrupt)


def test_each_module_that_may_be_interrupted_while_it_calls_a_body_exists() -> None:
    missing = [name for name in safe_points._CALLERS if find_spec(name) is None]
    assert missing == []


def test_the_watchdog_forgets_bodies_that_ended() -> None:
    from flask_durable.common import interruption

    for _ in range(5000):
        with Body(3600):
            pass
    assert len(interruption.watchdog._deadlines) < 2500


def test_a_body_that_could_not_be_watched_is_not_interrupted_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*args: t.Any) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(Watchdog, "add", refuse)
    body = Body(1)
    with pytest.raises(RuntimeError), body:
        pass
    assert not body.active
