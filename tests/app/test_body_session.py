"""The database connection of a body, while its steps run."""

from __future__ import annotations

import contextlib
import typing as t
from pathlib import Path

import pytest
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import Column
from sqlalchemy import func
from sqlalchemy import Integer
from sqlalchemy import select
from sqlalchemy import String
from sqlalchemy import text
from sqlalchemy.pool import QueuePool

from flask_durable import Event
from flask_durable import Step

from ..support.harness import Harness

AnyEvent = Event[t.Any]


class Shop:
    """A database of one connection, with one user in it."""

    def __init__(self, harness: Harness, folder: Path) -> None:
        self._app = harness.app
        self.db = db = SQLAlchemy()
        harness.app.config["SQLALCHEMY_DATABASE_URI"] = f"sqlite:///{folder}/shop.db"
        harness.app.config["SQLALCHEMY_ENGINE_OPTIONS"] = {
            "pool_size": 1,
            "max_overflow": 0,
            "pool_timeout": 0.1,
            "poolclass": QueuePool,
        }
        db.init_app(harness.app)

        class User(db.Model):  # type: ignore[name-defined,misc]
            id = Column(Integer, primary_key=True)
            name = Column(String(20))

        self.user: t.Any = User
        with harness.app.app_context():
            db.create_all()
            db.session.add(User(id=1, name="ann"))
            db.session.commit()

    def name(self) -> str:
        """Return the user's name, read over a connection of the caller's own."""
        return t.cast(str, self.db.session.get(self.user, 1).name)

    def close(self) -> None:
        with self._app.app_context():
            self.db.engine.dispose()


@pytest.fixture
def shop(harness: Harness, tmp_path: Path) -> t.Iterator[Shop]:
    with contextlib.closing(Shop(harness, tmp_path)) as shop:
        yield shop


def result_of(harness: Harness, body: t.Callable[[AnyEvent, Step], t.Any]) -> t.Any:
    harness.durable.function(on="a/b", retries=0)(body)
    run = harness.send_and_settle("a/b")
    assert run.failure is None, run.failure
    return run.result


def test_a_body_that_has_read_leaves_the_connection_to_its_steps(
    harness: Harness, shop: Shop
) -> None:
    def body(event: AnyEvent, step: Step) -> list[str]:
        user = shop.db.session.get(shop.user, 1)
        rows = shop.db.session.scalars(select(shop.user.name)).all()
        inside = step.run("read", shop.name)
        return [user.name, inside, *rows, shop.name()]

    assert result_of(harness, body) == ["ann"] * 4


@pytest.mark.parametrize("how", ["pending", "flushed", "statement", "bulk"])
def test_what_a_body_wrote_is_neither_stored_nor_lost_by_a_step(
    harness: Harness, shop: Shop, how: str
) -> None:
    def body(event: AnyEvent, step: Step) -> list[t.Any]:
        session = shop.db.session
        user = session.get(shop.user, 1)
        if how == "statement":
            session.execute(text("UPDATE user SET name = 'bob'"))
        elif how == "bulk":
            mappings = [{"id": 1, "name": "bob"}]
            session.bulk_update_mappings(shop.user, mappings)  # type: ignore[arg-type]
        else:
            user.name = "bob"
        if how == "flushed":
            session.flush()
        step.run("other", lambda: None)
        written = session.execute(text("SELECT name FROM user")).scalar_one()
        session.rollback()
        return [written, shop.name()]

    assert result_of(harness, body) == ["bob", "ann"]


def test_a_row_that_a_body_has_locked_stays_locked(
    harness: Harness, shop: Shop
) -> None:
    def body(event: AnyEvent, step: Step) -> bool:
        session = shop.db.session
        session.execute(select(shop.user).with_for_update())
        before = session().get_transaction()
        step.run("other", lambda: None)
        return session().get_transaction() is before

    assert result_of(harness, body) is True


@pytest.mark.parametrize("label", [False, True])
def test_the_transaction_of_a_function_that_may_lock_goes_on(
    harness: Harness, shop: Shop, label: bool
) -> None:
    def body(event: AnyEvent, step: Step) -> list[bool]:
        session = shop.db.session
        kept = []
        called = func.randomblob(1)
        for asked in (func.count(shop.user.id), called.label("x") if label else called):
            session.execute(select(asked))
            before = session().get_transaction()
            step.run("other", lambda: None)
            kept.append(session().get_transaction() is before)
        return kept

    assert result_of(harness, body) == [False, True]
