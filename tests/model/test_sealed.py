"""Encrypted and large data of branches, children, waits and signals."""

from __future__ import annotations

import contextlib
import json
import pathlib
import typing as t

import pytest

from flask_durable import BranchError
from flask_durable import Event
from flask_durable import NonRetriable
from flask_durable import RunStatus
from flask_durable import Step
from flask_durable.payloads.cipher import new_encryption_key

from ..support.harness import Harness
from ..support.servers import ValkeyServer

AnyEvent = Event[t.Any]

#: A word that nobody else may read, and a text beyond what the state server keeps.
SECRET = "tell-nobody"
LARGE = 5000


@pytest.fixture
def sealed(
    valkey: ValkeyServer, namespace: str, tmp_path: pathlib.Path
) -> t.Iterator[Harness]:
    """An app with encryption keys and a blob store."""
    harness = Harness(
        valkey.url,
        namespace,
        DURABLE_ENCRYPTION_KEYS=[new_encryption_key()],
        DURABLE_BLOB_URL=f"file://{tmp_path}",
        DURABLE_INLINE_LIMIT=1024,
    )
    with contextlib.closing(harness):
        yield harness


def stored(harness: Harness) -> str:
    """Return everything that is on the state server for an app, as one text."""
    client, found = harness.state.server.client, []
    for key in client.scan_iter(f"*{harness.state.settings.namespace}*", count=1000):
        match client.type(key):
            case "hash":
                found.append(str(client.hgetall(key)))
            case "zset":
                found.append(str(client.zrange(key, 0, -1)))
            case "set":
                found.append(str(client.smembers(key)))
            case "stream":
                found.append(str(client.xrange(key)))
            case "string":
                found.append(str(client.get(key)))
    return "\n".join(found)


def objects(folder: pathlib.Path) -> list[pathlib.Path]:
    return [path for path in (folder / "runs").rglob("*") if path.is_file()]


def test_what_branches_get_and_return_is_sealed(
    sealed: Harness, tmp_path: pathlib.Path
) -> None:
    """2.7, 2.8: items, memos, results and failures of branches are sealed."""

    def double(item: str, step: Step) -> str:
        half = step.run("half", lambda: item)
        step.sleep("rest", "1m")
        return half + step.run("other-half", lambda: item)

    def fail(item: str) -> None:
        raise NonRetriable(item)

    @sealed.durable.function(on="a/b", retries=0)
    def parent(event: AnyEvent, step: Step) -> list[t.Any]:
        items = [SECRET, SECRET * LARGE]
        doubled = step.map("doubled", double, items)
        with pytest.raises(BranchError, match=SECRET):
            step.map("failed", fail, [SECRET])
        _, won = step.first("won", one=lambda step: step.run("x", lambda: SECRET))
        return [[len(each) for each in doubled], won]

    id = sealed.send("a/b")
    sealed.settle()
    assert SECRET not in stored(sealed)
    sealed.advance(61)

    run = sealed.run_of(id)
    assert run.status == RunStatus.COMPLETED, run.failure
    assert run.result == [[2 * len(SECRET), 2 * len(SECRET) * LARGE], SECRET]
    assert SECRET not in stored(sealed)
    assert objects(tmp_path)
    assert all(SECRET.encode() not in path.read_bytes() for path in objects(tmp_path))


def test_objects_of_branches_and_children_go_with_their_runs(
    sealed: Harness, tmp_path: pathlib.Path
) -> None:
    """2.9: claim checks of a fan-out leave the blob store with the run."""

    def enlarge(item: int) -> str:
        return str(item) * LARGE

    @sealed.durable.function(on=None)
    def child(event: AnyEvent, step: Step) -> str:
        return step.run("make", lambda: "c" * LARGE)

    @sealed.durable.function(on="a/b")
    def parent(event: AnyEvent, step: Step) -> list[int]:
        parts = step.map("parts", enlarge, [1, 2, 3])
        named = step.parallel(
            "named",
            child=lambda step: step.invoke("child", child, {"x": "d" * LARGE}),
            own=lambda step: step.run("make", lambda: "o" * LARGE),
        )
        return [len(part) for part in (*parts, *named.values())]

    run = sealed.send_and_settle("a/b")
    assert run.result == [LARGE] * 5
    assert len(objects(tmp_path)) > 5

    for _ in range(3):  # a run stays as long as its children
        sealed.advance(8 * 86400)

    assert sealed.runs.list() == []
    assert objects(tmp_path) == []
    assert run.id not in stored(sealed)


def test_signals_and_awaited_events_are_sealed(sealed: Harness) -> None:
    """1.11: a signal's data is sealed while it waits and when it was taken."""

    @sealed.durable.function(on="a/b", awaits=["a/c"])
    def parent(event: AnyEvent, step: Step) -> list[t.Any]:
        step.sleep("nap", "1m")
        heard = step.wait_for_event("heard", "a/c", timeout="1h", match="data.x")
        told = step.wait_for_signal("told", "call", timeout="1h")
        return [heard and heard.data["word"], told]

    id = sealed.send("a/b", {"x": 1})
    sealed.settle()
    sealed.send("a/c", {"x": 1, "word": SECRET})
    sealed.settle()
    with sealed.app.app_context():
        sealed.durable.signal(sealed.run_of(id).id, "call", {"word": SECRET})
    assert SECRET not in stored(sealed)
    sealed.advance(61)

    run = sealed.run_of(id)
    assert run.result == [SECRET, {"word": SECRET}]
    assert SECRET not in stored(sealed)
    assert SECRET not in json.dumps([step.about for step in run.steps])
