from __future__ import annotations

import threading

from hypothesis import given
from hypothesis import strategies as st

from flask_durable.queue.window import Window

operations = st.lists(
    st.tuples(st.sampled_from(["reserve", "take", "release"]), st.integers(0, 12))
)


@given(size=st.integers(1, 10), done=operations)
def test_slots_are_neither_lost_nor_made(
    size: int, done: list[tuple[str, int]]
) -> None:
    window = Window(size)
    out = 0
    for name, count in done:
        if name == "reserve":
            got = window.reserve(count)
            assert got == max(0, min(count, size - out))
            out += got
        elif name == "take":
            window.take(count)
            out += count
        else:
            back = min(count, out)
            window.release(back)
            out -= back
        assert window.free == size - out
        assert window.wait_free(0) == (out < size)


def test_a_freed_slot_wakes_a_waiting_receiver() -> None:
    window = Window(1)
    window.take(2)
    woken: list[bool] = []
    thread = threading.Thread(target=lambda: woken.append(window.wait_free(20)))
    thread.start()
    window.release()
    assert not woken
    window.release()
    thread.join(10)
    assert woken == [True]


def test_waiting_for_a_slot_ends_without_one() -> None:
    window = Window(1)
    window.take(1)
    assert not window.wait_free(0.01)


def test_slots_are_counted_across_threads() -> None:
    window = Window(3)
    most = []

    def use() -> None:
        for _ in range(500):
            got = window.reserve(2)
            most.append(window.free)
            window.release(got)

    threads = [threading.Thread(target=use) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert window.free == 3
    assert min(most) >= 0


def test_work_that_may_come_early_counts_as_room() -> None:
    window = Window(1)
    window.take(2)
    assert not window.wait_free(0.01, ahead=1)
    assert window.wait_free(0.01, ahead=2)
