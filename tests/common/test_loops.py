"""The loop of vital threads survives what is raised in it, and shows the rest."""

from __future__ import annotations

import ctypes
import errno
import math
import os
import threading
import time
import types
import typing as t

import pytest
import redis

from flask_durable.common.loops import ailing
from flask_durable.common.loops import Loop
from flask_durable.common.loops import moved

from ..support.servers import wait_until


@pytest.fixture
def loops() -> t.Iterator[list[Loop]]:
    """Return a list whose loops are stopped at the end."""
    made: list[Loop] = []
    yield made
    for loop in made:
        loop.stop(5)


@pytest.mark.parametrize("error", [ValueError, MemoryError, SystemExit, GeneratorExit])
def test_a_turn_that_raises_is_told_of_and_the_next_one_comes(
    loops: list[Loop], error: type[BaseException]
) -> None:
    told: list[BaseException] = []
    turns: list[int] = []

    def turn() -> float:
        turns.append(1)
        if len(turns) == 1:
            raise error("once")
        return 0.01

    def failed(raised: BaseException) -> float:
        told.append(raised)
        return 0

    loops.append(Loop("durable-test", turn, failed))
    loops[0].start()
    wait_until(lambda: len(turns) > 2)
    assert [type(each) for each in told] == [error]


def test_telling_of_an_error_may_raise_too(
    loops: list[Loop], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flask_durable.common.loops.PAUSE", 0)
    turns: list[int] = []

    def turn() -> float:
        turns.append(1)
        raise ValueError

    def failed(error: BaseException) -> float:
        raise SystemExit

    loops.append(Loop("durable-test", turn, failed))
    loops[0].start()
    wait_until(lambda: len(turns) > 2)
    assert loops[0].stop(5)


def test_an_error_in_the_pause_between_turns_does_not_end_the_thread(
    loops: list[Loop], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flask_durable.common.loops.PAUSE", 0)
    turns: list[int] = []

    class Stopping(threading.Event):
        struck = False

        def wait(self, timeout: float | None = None) -> bool:
            if turns and not self.struck:
                self.struck = True
                raise MemoryError
            return super().wait(timeout)

    def turn() -> float:
        turns.append(1)
        return 0.01

    loops.append(Loop("durable-test", turn, lambda error: 0, stopping=Stopping()))
    loops[0].start()
    wait_until(lambda: len(turns) > 2)


def test_errors_that_strike_anywhere_do_not_end_the_thread(
    loops: list[Loop], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flask_durable.common.loops.PAUSE", 0)
    turns: list[int] = []
    loops.append(Loop("durable-test", lambda: turns.append(1) or 0.0, lambda error: 0))
    loop = loops[0]
    loop.start()
    thread = next(x for x in threading.enumerate() if x.name == "durable-test")
    for _ in range(30):
        before = len(turns)
        ctypes.pythonapi.PyThreadState_SetAsyncExc(
            ctypes.c_ulong(t.cast(int, thread.ident)), ctypes.py_object(MemoryError)
        )
        wait_until(lambda before=before: len(turns) > before + 2)
    assert thread.is_alive()


def test_a_loop_ends_when_it_is_stopped_in_a_pause(loops: list[Loop]) -> None:
    turned = threading.Event()

    def turn() -> float:
        turned.set()
        return 3600.0

    loops.append(Loop("durable-test", turn, lambda error: 0))
    loops[0].start()
    assert turned.wait(5)
    assert loops[0].stop(5)
    assert loops[0].ailment() is None


def test_a_turn_that_takes_longer_than_its_patience_is_named(
    loops: list[Loop],
) -> None:
    go_on = threading.Event()
    begun = threading.Event()

    def turn() -> float:
        begun.set()
        go_on.wait(10)
        return 0.01

    loops.append(Loop("durable-slow", turn, lambda error: 0, patience=0))
    loops.append(Loop("durable-calm", turn, lambda error: 0, patience=math.inf))
    for loop in loops:
        loop.start()
    assert begun.wait(5)
    wait_until(lambda: "durable-slow" in ailing())
    assert "stands still" in ailing()["durable-slow"]
    assert "durable-calm" not in ailing()
    go_on.set()
    assert all(loop.stop(5) for loop in loops)
    assert "durable-slow" not in ailing()


def test_a_pause_is_no_standing_still(loops: list[Loop]) -> None:
    turned = threading.Event()

    def turn() -> float:
        turned.set()
        return 3600

    loops.append(Loop("durable-test", turn, lambda error: 0, patience=0.1))
    loops[0].start()
    assert turned.wait(5)
    wait_until(lambda: loops[0].ailment() is None)


def test_a_long_turn_that_gets_on_does_not_stand_still(loops: list[Loop]) -> None:
    go_on = threading.Event()

    def turn() -> float:
        while not go_on.wait(0.01):
            moved()
        return 0

    loops.append(Loop("durable-long", turn, lambda error: 0, patience=5))
    loop = loops[0]
    loop.start()
    loop._moved_at = time.monotonic() - 10
    wait_until(lambda: loop.ailment() is None)
    go_on.set()


def test_a_thread_that_ended_by_itself_is_named(loops: list[Loop]) -> None:
    loop = Loop("durable-gone", lambda: 0, lambda error: 0)
    loop.run = lambda: None  # type: ignore[method-assign]
    loops.append(loop)
    loop.start()
    wait_until(lambda: ailing().get("durable-gone") == "is gone")


class Clock:
    """The clock of the loops; the test moves it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ahead = 0.0
        moved = types.SimpleNamespace(monotonic=lambda: time.monotonic() + self.ahead)
        monkeypatch.setattr("flask_durable.common.lack.time", moved)


class Turns:
    """A loop whose turns fail with the error of the moment, if there is one."""

    def __init__(self, error: BaseException | None, patience: float = 60) -> None:
        self.error = error
        self.count = 0
        self.loop = Loop(
            "durable-test", self._turn, lambda error: 0.001, patience=patience
        )
        self.loop.start()

    def _turn(self) -> float:
        self.count += 1
        if self.error is not None:
            try:
                raise self.error
            except BaseException as error:
                raise redis.ConnectionError("The server is away.") from error
        return 0.001

    def some(self) -> None:
        """Wait for some more turns."""
        count = self.count
        wait_until(lambda: self.count > count + 2)


@pytest.mark.parametrize(
    ("error", "ailment"),
    [
        (OSError(errno.EMFILE, "too many"), "has no file descriptors left"),
        (OSError(errno.ENFILE, "too many"), "has no file descriptors left"),
        (OSError(errno.ENOMEM, "too much"), "has no memory left"),
        (MemoryError(), "has no memory left"),
    ],
)
def test_a_loop_whose_turns_all_lack_a_resource_for_some_time_is_named(
    loops: list[Loop],
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
    ailment: str,
) -> None:
    clock = Clock(monkeypatch)
    turns = Turns(error)
    loops.append(turns.loop)
    turns.some()
    assert "durable-test" not in ailing()

    clock.ahead += 11
    wait_until(lambda: ailing().get("durable-test") == ailment)

    turns.error = None
    wait_until(lambda: "durable-test" not in ailing())


def test_a_turn_that_succeeds_or_fails_otherwise_begins_the_time_again(
    loops: list[Loop], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch)
    lack = OSError(errno.EMFILE, "too many")
    turns = Turns(lack)
    loops.append(turns.loop)
    for other in (None, ConnectionRefusedError()):
        turns.some()
        turns.error = other
        turns.some()
        clock.ahead += 11
        turns.some()
        turns.error = lack
        turns.some()
        assert "durable-test" not in ailing()


def test_a_lack_of_descriptors_that_its_error_hides_is_found(
    loops: list[Loop], monkeypatch: pytest.MonkeyPatch
) -> None:
    opens = os.open

    def none_left(path: t.Any, *args: t.Any, **given: t.Any) -> int:
        if path == os.devnull:
            raise OSError(errno.EMFILE, "too many")
        return opens(path, *args, **given)

    monkeypatch.setattr(os, "open", none_left)
    clock = Clock(monkeypatch)
    turns = Turns(OSError(-3, "Temporary failure in name resolution"))
    loops.append(turns.loop)
    turns.some()
    clock.ahead += 11
    wait_until(lambda: ailing().get("durable-test") == "has no file descriptors left")


def test_a_loop_that_nothing_depends_on_may_lack_descriptors(
    loops: list[Loop], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch)
    turns = Turns(OSError(errno.EMFILE, "too many"), patience=math.inf)
    loops.append(turns.loop)
    turns.some()
    clock.ahead += 11
    turns.some()
    assert "durable-test" not in ailing()
