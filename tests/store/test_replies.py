"""Replies of the scripts as values: an unknown one never passes for another."""

from __future__ import annotations

import hashlib
import typing as t

import pytest

from flask_durable.redis.scripts import Script
from flask_durable.store.directory import Directory
from flask_durable.store.hand_backs import hand_back
from flask_durable.store.replies import Committed
from flask_durable.store.replies import creation_of
from flask_durable.store.replies import Known
from flask_durable.store.replies import Lost
from flask_durable.store.replies import Queued
from flask_durable.store.replies import UnknownReply
from flask_durable.store.run_store import after
from flask_durable.store.server import StateServer

from ..support.harness import Harness
from ..support.servers import wait_until
from .kit import Kit

#: A reply of a later release, with a user's data in it.
NEWS = "return {'news', 'secret'}"

CALLS: dict[str, t.Callable[[Kit], object]] = {
    "step_commit": lambda kit: kit.commit("r", "a"),
    "run_suspend": lambda kit: kit.suspend("r", "sleep", after(1), step="a"),
    "run_finish": lambda kit: kit.finish("r"),
    "run_claim": lambda kit: kit.claim("r"),
    "run_park": lambda kit: kit.store.park("r"),
    "run_admin": lambda kit: kit.store.admin("r", "cancel"),
    "run_hold": lambda kit: kit.store.hold("r", "t1"),
    "run_note": lambda kit: kit.store.note_change("r", "t1", "a"),
    "lease_renew": lambda kit: kit.store.renew(kit.keys.root, [("r", "t1", 1.0)]),
    "functions_forget": lambda kit: Directory(kit.server, kit.keys).forget("f"),
}


def replace(
    monkeypatch: pytest.MonkeyPatch, server: StateServer, name: str, source: str
) -> None:
    """Give *server* another release's script of this name."""
    digest = hashlib.sha1(source.encode()).hexdigest()
    scripts = {**server._scripts, name: Script(name, source, digest)}
    monkeypatch.setattr(server, "_scripts", scripts)


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("source", [NEWS, "return {}", "return 'news'", "return 7"])
def test_a_reply_that_is_unknown_here_is_an_error_that_names_the_script(
    kit: Kit, monkeypatch: pytest.MonkeyPatch, name: str, source: str
) -> None:
    replace(monkeypatch, kit.server, name, source)

    with pytest.raises(UnknownReply) as raised:
        CALLS[name](kit)

    assert f"{name} gave a reply unknown here: " in str(raised.value)
    assert "secret" not in str(raised.value)


def test_an_unknown_reply_of_a_pipeline_stands_in_its_place(
    kit: Kit, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = kit.store.creation(kit.new_run())
    replace(monkeypatch, kit.server, "run_create", NEWS)
    [reply] = kit.server.call_many([old])
    assert isinstance(creation_of(reply), UnknownReply)

    replace(monkeypatch, kit.server, "run_suspend", NEWS)
    [error] = hand_back(kit.store, [("r", "t1")], after(0), "shutdown")
    assert isinstance(error, UnknownReply)


def test_runs_that_are_handed_back_together_each_have_their_reply(kit: Kit) -> None:
    kit.server.repeats = False
    lost, cancelled = kit.running(), kit.running()
    kit.lose(lost)
    mine = kit.running()
    kit.store.admin(cancelled, "cancel")

    owned = [(run_id, "t1") for run_id in (mine, lost, cancelled)]
    first, second, third = hand_back(kit.store, owned, after(0), "shutdown")

    assert first == Queued(int(kit.record(mine)["queued_at"]))
    assert (second, third) == (Lost(cancelled=False), Lost(cancelled=True))


def test_replies_of_two_kinds_are_never_equal() -> None:
    assert Queued(1) != Lost(cancelled=True)
    assert Known("steps") != Committed()


def test_a_step_whose_commit_has_an_unknown_reply_is_not_taken_as_done(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []

    @harness.durable.function(on="a/b", retries=0)
    def work(event: t.Any, step: t.Any) -> None:
        step.run("leaf", lambda: calls.append("leaf"))
        calls.append("after")

    event_id = harness.send("a/b")
    with monkeypatch.context() as patch:
        replace(patch, harness.state.server, "step_commit", NEWS)
        run = harness.run_of_settled(event_id)

    assert calls == ["leaf"]
    assert run.status == "failed"
    assert run.failure.type.endswith(".UnknownReply")


def test_an_event_whose_run_has_an_unknown_reply_comes_again(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    @harness.durable.function(on="a/b")
    def work(event: t.Any, step: t.Any) -> str:
        return "done"

    monkeypatch.setattr("flask_durable.common.redelivery.FIRST_PAUSE", 0.0)
    event_id = harness.send("a/b")
    with monkeypatch.context() as patch:
        replace(patch, harness.state.server, "run_create", NEWS)
        harness.route()
    assert harness.runs.of_event(event_id) == []

    wait_until(lambda: harness.route() == 1, "the event again")
    assert harness.run_of_settled(event_id).result == "done"
