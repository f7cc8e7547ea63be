"""``step_commit``: a step's memo is written once, by the run's owner."""

from __future__ import annotations

import typing as t

import pytest

from flask_durable.store.replies import Commit
from flask_durable.store.replies import commit_of
from flask_durable.store.replies import Committed
from flask_durable.store.replies import Exists
from flask_durable.store.replies import Full
from flask_durable.store.replies import Interrupted
from flask_durable.store.replies import Suspension
from flask_durable.store.replies import suspension_of
from flask_durable.store.run_store import after
from flask_durable.store.run_store import MAX_MEMO_BYTES
from flask_durable.store.run_store import MAX_STEPS

from .kit import Kit


@pytest.mark.parametrize("status", ["done", "failed", "intent"])
def test_a_step_is_written_with_its_token_and_attempt(kit: Kit, status: str) -> None:
    run_id = kit.running()

    reply = kit.commit(run_id, "a", status=status, number=3, payload="run x")
    assert reply == Committed()

    assert kit.memo(run_id, "a") == f"{status} t1 3 0\nrun x"


def test_a_commit_renews_the_lease(kit: Kit) -> None:
    run_id = kit.running()
    kit.advance(kit.settings.lease - 1)

    kit.commit(run_id, "a")

    assert kit.score("leases", run_id) - kit.now() > (kit.settings.lease - 5) * 1000


def test_a_commit_may_ask_for_a_longer_lease(kit: Kit) -> None:
    run_id = kit.running()

    kit.store.commit(run_id, "t1", "a", "done", 1, "x", lease=900)

    assert kit.score("leases", run_id) - kit.now() > 890_000


def test_an_expired_lease_does_not_keep_the_owner_from_committing(kit: Kit) -> None:
    run_id = kit.running()
    kit.advance(3600)
    kit.sweep()

    assert kit.commit(run_id, "a") == Committed()
    kit.advance(kit.settings.lease / 3 + 1)
    assert kit.swept_runs() == []
    assert kit.status(run_id) == "running"


@pytest.mark.parametrize("first", ["done", "failed"])
@pytest.mark.parametrize("second", ["done", "failed", "intent"])
def test_an_outcome_is_never_written_over(kit: Kit, first: str, second: str) -> None:
    run_id = kit.running()
    kit.commit(run_id, "a", status=first, payload="run first")
    memo = kit.memo(run_id, "a")

    assert kit.commit(run_id, "a", status=second, payload="run second") == Committed()
    assert kit.memo(run_id, "a") == memo

    kit.lose(run_id)
    kit.claim(run_id, "t2")
    with kit.unchanged():
        reply = kit.commit(run_id, "a", "t2", status=second, payload="run third")
    assert reply == Exists(memo)


def test_an_intent_without_an_outcome_is_an_interruption_for_the_next(
    kit: Kit,
) -> None:
    run_id = kit.running()
    kit.commit(run_id, "once", status="intent")
    kit.lose(run_id)
    kit.claim(run_id, "t2")

    with kit.unchanged():
        assert kit.commit(run_id, "once", "t2", status="intent") == Interrupted()
    reply = kit.commit(run_id, "once", "t2", status="failed", payload="run i")
    assert reply == Committed()
    assert kit.memo(run_id, "once") == "failed t2 1 0\nrun i"


@pytest.mark.parametrize("outcome", ["done", "failed"])
def test_an_intent_leads_to_an_outcome(kit: Kit, outcome: str) -> None:
    run_id = kit.running()
    kit.commit(run_id, "once", status="intent")

    assert kit.commit(run_id, "once", status=outcome, payload="run o") == Committed()
    assert kit.memo(run_id, "once") == f"{outcome} t1 1 0\nrun o"


def test_an_intent_follows_a_failed_attempt(kit: Kit) -> None:
    run_id = kit.running()
    kit.commit(run_id, "once", status="intent")
    kit.suspend(run_id, "retry", after(1), step="once", number=1, payload="run f")
    kit.advance(2)
    kit.sweep()
    kit.claim(run_id, "t2")

    assert kit.commit(run_id, "once", "t2", status="intent", number=2) == Committed()
    assert kit.memo_head(run_id, "once") == ["intent", "t2", "2"]


# -- Limits ---------------------------------------------------------------------------


class Limited:
    """Commits with limits of the test's own."""

    def __init__(self, kit: Kit, steps: int, memo_bytes: int) -> None:
        self.kit = kit
        self.run_id = kit.running()
        self.limits = (steps, memo_bytes)

    def commit(
        self, step: str, payload: str = "x", status: str = "done", token: str = "t1"
    ) -> Commit:
        reply = self._call(
            "step_commit", token, 30_000, step, status, 1, payload, *self.limits
        )
        return commit_of(reply)

    def suspend(self, how: str, step: str, payload: str = "x") -> Suspension:
        reply = self._call(
            "run_suspend",
            "t1",
            30_000,
            how,
            after(60),
            how,
            step,
            1,
            payload,
            *self.limits,
        )
        return suspension_of(reply)

    def _call(self, name: str, *args: t.Any) -> t.Any:
        tag = self.kit.tag(self.run_id)
        return self.kit.server.call(name, tag, self.run_id, *args)

    @property
    def counted(self) -> int:
        return int(self.kit.record(self.run_id).get("bytes", "0"))

    @property
    def stored(self) -> int:
        memos = t.cast(
            "list[str]",
            self.kit.client.hvals(f"{self.kit.tag(self.run_id)}:steps:{self.run_id}"),
        )
        return sum(len(memo.encode()) for memo in memos)


def test_the_limits_are_those_that_are_documented() -> None:
    assert (MAX_STEPS, MAX_MEMO_BYTES) == (10_000, 32 * 1024 * 1024)


@pytest.mark.parametrize("how", ["done", "failed", "intent", "retry", "sleep"])
def test_a_run_has_a_limit_of_steps(kit: Kit, how: str) -> None:
    limited = Limited(kit, 3, 10_000)
    for step in "abc":
        assert limited.commit(step) == Committed()

    with kit.unchanged():
        if how in ("retry", "sleep"):
            assert limited.suspend(how, "d") == Full("steps")
        else:
            assert limited.commit("d", status=how) == Full("steps")
    assert limited.commit("a") == Committed()
    assert kit.finish(limited.run_id, failed=True, outcome="{}") == 0


def test_a_step_that_is_there_already_may_go_on_at_the_limit(kit: Kit) -> None:
    limited = Limited(kit, 1, 10_000)
    limited.commit("a", status="intent")

    assert limited.commit("a", status="done") == Committed()


@pytest.mark.parametrize("how", ["done", "failed", "intent", "retry", "sleep"])
def test_a_run_has_a_limit_of_bytes(kit: Kit, how: str) -> None:
    limited = Limited(kit, 100, 300)
    assert limited.commit("a", "x" * 200) == Committed()

    with kit.unchanged():
        if how in ("retry", "sleep"):
            assert limited.suspend(how, "b", "x" * 150) == Full("bytes")
        else:
            assert limited.commit("b", "x" * 150, how) == Full("bytes")
    assert limited.commit("b", "x" * 50) == Committed()


def test_the_bytes_that_are_counted_are_those_that_are_stored(kit: Kit) -> None:
    limited = Limited(kit, 100, 10_000)
    run_id = limited.run_id

    limited.commit("a", "x" * 100, "intent")
    assert limited.counted == limited.stored > 0
    limited.commit("a", "x" * 10, "done")
    limited.commit("ünï", "\u2603" * 10)
    assert limited.counted == limited.stored

    limited.suspend("retry", "r", "x" * 50)
    assert limited.counted == limited.stored
    kit.advance(61)
    kit.sweep()
    kit.claim(run_id)
    limited.commit("r", "short")
    assert limited.counted == limited.stored

    limited.suspend("sleep", "s", "y" * 30)
    assert limited.counted == limited.stored
    kit.advance(61)
    kit.sweep()
    assert kit.memo_head(run_id, "s")[0] == "done"
    assert limited.counted == limited.stored

    kit.claim(run_id)
    limited.commit("bad", "z" * 70, "failed")
    kit.finish(run_id, failed=True, outcome="{}", failed_step="bad")
    kit.store.admin(run_id, "retry")
    assert kit.memo(run_id, "bad") is None
    assert limited.counted == limited.stored
