"""``cron_marks``: up to when schedules are carried out."""

from __future__ import annotations

from flask_durable.store.directory import Directory

from .kit import Kit

WEEK = 7 * 86400


def ask(kit: Kit, **done: int) -> tuple[int, dict[str, int]]:
    now, marks = Directory(kit.server, kit.keys).schedule_marks(done, 0)
    assert marks is not None
    return now, marks


def test_a_schedule_that_is_new_begins_now(kit: Kit) -> None:
    now, marks = ask(kit, a=0)
    assert marks == {"a": now}


def test_a_mark_goes_up_to_what_was_done_and_never_back(kit: Kit) -> None:
    first, _ = ask(kit, a=0)
    kit.advance(100)
    assert ask(kit, a=0)[1] == {"a": first - 100_000}
    assert ask(kit, a=first - 40_000)[1] == {"a": first - 40_000}
    assert ask(kit, a=first - 60_000)[1] == {"a": first - 40_000}


def test_a_mark_ahead_of_the_clock_is_brought_to_now(kit: Kit) -> None:
    ask(kit, a=0)
    kit.advance(-3600)
    now, marks = ask(kit, a=0)
    assert marks == {"a": now}
    now, marks = ask(kit, a=now + 3_600_000)
    assert marks == {"a": now}


def test_a_schedule_that_nobody_looked_at_for_a_week_begins_again(kit: Kit) -> None:
    ask(kit, old=0, kept=0)
    kit.advance(WEEK - 60)
    now, _ = ask(kit, kept=0)
    ask(kit, kept=now)
    kit.advance(61)
    now, marks = ask(kit, kept=0)
    assert kit.members("schedules") == ["kept"]
    assert now - marks["kept"] >= 61_000
    assert ask(kit, old=0)[1]["old"] >= now
