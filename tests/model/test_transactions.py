"""Sentence 3.5: database steps take effect exactly once, on SQLite and PostgreSQL."""

from __future__ import annotations

import contextlib
import pathlib
import subprocess
import sys
import threading
import time
import typing as t

import pytest
from sqlalchemy import create_engine
from sqlalchemy import Engine
from sqlalchemy import event as events
from sqlalchemy import MetaData
from sqlalchemy import select
from sqlalchemy import text
from sqlalchemy import update
from sqlalchemy.orm import Session

from flask_durable import ConfigurationError
from flask_durable import current_run
from flask_durable import Event
from flask_durable import RunStatus
from flask_durable import Step
from flask_durable import StepError
from flask_durable.common.loops import ailing
from flask_durable.messages import EventMessage
from flask_durable.sql import relay
from flask_durable.sql import tables
from flask_durable.sql import use_engine
from flask_durable.sql.relay import Relay
from flask_durable.sql.stored_events import store
from flask_durable.sql.tables import missing_tables
from flask_durable.sql.tables import OWN
from flask_durable.worker.process import WorkerProcess
from flask_durable.worker.push.worker import PushWorker

from ..support.harness import Harness
from ..support.postgres import postgres_server
from ..support.postgres import url_of
from ..support.proxy import Moment
from ..support.proxy import Proxy
from ..support.servers import SQSServer
from ..support.servers import ValkeyServer
from ..support.servers import wait_until
from .books import Books

ROOT = pathlib.Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def postgres() -> t.Iterator[int]:
    with postgres_server() as port:
        yield port


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/books.db"
    return url_of(request.getfixturevalue("postgres"))


@pytest.fixture
def books(harness: Harness, url: str) -> t.Iterator[Books]:
    with contextlib.closing(Books(harness, url)) as books:
        books.create()
        yield books


@pytest.fixture
def pg_books(harness: Harness, postgres: int) -> t.Iterator[Books]:
    with contextlib.closing(Books(harness, url_of(postgres))) as books:
        books.create()
        yield books


@pytest.fixture
def proxy(postgres: int) -> t.Iterator[Proxy]:
    with contextlib.closing(Proxy(postgres, b"COMMIT")) as proxy:
        yield proxy


@pytest.fixture
def far_books(harness: Harness, postgres: int, proxy: Proxy) -> t.Iterator[Books]:
    """A PostgreSQL behind a proxy, which can cut off its commits."""
    books = Books(harness, url_of(proxy.port), url_of(postgres))
    with contextlib.closing(books):
        books.create()
        yield books


def test_3_5_a_result_is_committed_with_what_the_step_did(
    harness: Harness, books: Books
) -> None:
    books.declare()

    run = harness.send_and_settle("note/asked")

    assert run.status == RunStatus.COMPLETED
    assert [(step.name, step.kind) for step in run.steps] == [("save", "transaction")]
    assert books.notes == ["note"]
    assert [(row.run, row.step) for row in books.rows] == [(run.id, "save")]


@pytest.mark.parametrize("moment", ["before_commit", "after_commit"])
def test_3_5_a_death_around_the_databases_commit_changes_nothing(
    harness: Harness, books: Books, url: str, valkey: ValkeyServer, moment: str
) -> None:
    books.declare()
    harness.publish()
    event_id = harness.send("note/asked")
    worker = [sys.executable, "-m", "tests.model.books", valkey.url]
    ended = subprocess.run(
        [*worker, harness.state.settings.namespace, url, moment], cwd=ROOT, check=False
    )
    assert ended.returncode == 9
    done = moment == "after_commit"
    assert len(books.notes) == len(books.rows) == done

    harness.expire_leases()
    run = harness.run_of_settled(event_id)

    assert run.status == RunStatus.COMPLETED
    assert books.calls == (0 if done else 1)
    assert books.notes == ["note"]
    assert f'"{run.result}"' == books.rows[0].result


def test_3_5_of_two_workers_with_one_step_one_commits(
    harness: Harness, books: Books
) -> None:
    """The first one loses its run before it has written anything."""
    inside, go_on = threading.Event(), threading.Event()

    def add() -> str:
        if not inside.is_set():
            inside.set()
            assert go_on.wait(30)
        return books.add()

    @harness.durable.function(on="note/asked")
    def keep(event: Event[t.Any], step: Step) -> str:
        return step.transaction("save", add)

    event_id = harness.send("note/asked")
    harness.route()
    first = threading.Thread(target=harness.execute)
    first.start()
    assert inside.wait(30)
    harness.expire_leases()
    run = harness.run_of_settled(event_id)
    go_on.set()
    first.join(30)

    assert run.status == RunStatus.COMPLETED
    assert books.calls == 2
    assert books.notes == ["note"]
    assert f'"{run.result}"' == books.rows[0].result


def test_3_5_the_second_worker_waits_for_the_first_ones_commit(
    harness: Harness, pg_books: Books
) -> None:
    """The first one loses its run after it has looked for it the last time."""
    books = pg_books
    books.declare()
    inside = threading.Event()

    def wait_for_other(session: object) -> None:
        with books.engine.connect() as connection:
            inside.set()
            waiting = text("SELECT count(*) FROM pg_locks WHERE NOT granted")
            wait_until(lambda: connection.scalar(waiting))

    def first_only() -> None:
        if books.calls == 1:
            events.listen(books.session, "before_commit", wait_for_other)

    books.then = first_only
    event_id = harness.send("note/asked")
    harness.route()
    first = threading.Thread(target=harness.execute)
    first.start()
    assert inside.wait(30)
    harness.expire_leases()
    run = harness.run_of_settled(event_id)
    first.join(30)

    assert run.status == RunStatus.COMPLETED
    assert books.calls == 2
    assert books.notes == ["note"]
    assert f'"{run.result}"' == books.rows[0].result


def test_3_5_a_worker_that_lost_its_run_rolls_back(
    harness: Harness, books: Books
) -> None:
    books.declare()
    event_id = harness.send("note/asked")
    books.then = lambda: harness.state.admin.cancel(
        harness.run_of(event_id).id, "not wanted"
    )

    run = harness.run_of_settled(event_id)

    assert run.status == RunStatus.CANCELLED
    assert books.calls == 1
    assert books.notes == books.rows == []


def test_3_5_an_error_rolls_back_and_is_tried_again(
    harness: Harness, books: Books
) -> None:
    def fail_once() -> None:
        if books.calls == 1:
            raise ValueError("no")

    books.then = fail_once
    books.declare()

    run = harness.send_and_settle("note/asked")
    assert books.notes == books.rows == []
    harness.advance(60)

    assert harness.runs.get(run.id).status == RunStatus.COMPLETED
    assert books.calls == 2
    assert books.notes == ["note"]


def test_3_5_the_last_error_is_the_steps_and_nothing_is_committed(
    harness: Harness, books: Books
) -> None:
    @harness.durable.function(on="note/asked", retries=0)
    def keep(event: Event[t.Any], step: Step) -> str:
        try:
            return step.transaction("save", lambda: (books.add(), object())[0:0])
        except StepError as error:
            return error.failure.type

    books.then = lambda: 1 / 0
    run = harness.send_and_settle("note/asked")

    assert run.result == "ZeroDivisionError"
    assert books.notes == books.rows == []


def test_3_5_a_database_step_takes_no_checkpoint(
    harness: Harness, books: Books
) -> None:
    @harness.durable.function(on="book/saved")
    def save(event: Event[t.Any], step: Step) -> None:
        def add() -> None:
            books.add()
            assert current_run.step is not None
            current_run.step.checkpoint("added")

        step.transaction("save", add)

    run = harness.send_and_settle("book/saved")

    assert run.status == RunStatus.FAILED
    assert run.failure is not None
    assert "takes no checkpoint" in run.failure.message
    assert books.notes == books.rows == []


def test_3_5_a_result_that_cannot_be_stored_commits_nothing(
    harness: Harness, books: Books
) -> None:
    @harness.durable.function(on="note/asked", retries=0)
    def keep(event: Event[t.Any], step: Step) -> t.Any:
        return step.transaction("save", lambda: [books.add(), object()])

    run = harness.send_and_settle("note/asked")

    assert run.failure is not None
    assert run.failure.code == "step.unserializable"
    assert books.notes == books.rows == []


@pytest.mark.parametrize("caught", [False, True])
def test_3_5_a_function_that_commits_by_itself_is_refused(
    harness: Harness, books: Books, caught: bool
) -> None:
    def commit() -> None:
        with contextlib.suppress(Exception if caught else KeyError):
            books.session.commit()

    books.then = commit
    books.declare()
    run = harness.send_and_settle("note/asked")

    assert run.failure is not None
    assert "commits by itself" in run.failure.message
    assert books.notes == books.rows == []


def test_3_5_a_function_that_removes_its_session_is_refused(
    harness: Harness, books: Books
) -> None:
    books.then = lambda: books.db.session.remove()
    books.declare()
    run = harness.send_and_settle("note/asked")

    assert run.failure is not None
    assert "removed its session" in run.failure.message
    assert books.notes == books.rows == []


def test_3_5_savepoints_are_the_functions_own(harness: Harness, books: Books) -> None:
    def inner() -> None:
        with books.session.begin_nested():
            books.session.add(books.note(text="kept"))
        with contextlib.suppress(ValueError), books.session.begin_nested():
            books.session.add(books.note(text="dropped"))
            books.session.flush()
            raise ValueError

    books.then = inner
    books.declare()
    run = harness.send_and_settle("note/asked")

    assert run.status == RunStatus.COMPLETED, run.failure
    assert books.notes == ["note", "kept"]


def test_3_5_a_function_whose_time_is_over_commits_nothing(
    harness: Harness, books: Books
) -> None:
    def swallow() -> None:
        deadline = time.monotonic() + 30
        with contextlib.suppress(BaseException):
            while time.monotonic() < deadline:
                pass

    books.then = swallow

    @harness.durable.function(on="note/asked", retries=0)
    def keep(event: Event[t.Any], step: Step) -> str:
        return step.options(timeout=0.05).transaction("save", books.add)

    run = harness.send_and_settle("note/asked")

    assert run.failure is not None
    assert run.failure.code == "step.timeout"
    assert books.notes == books.rows == []


def test_3_5_at_most_once_is_refused(harness: Harness, books: Books) -> None:
    @harness.durable.function(on="note/asked", retries=0)
    def keep(event: Event[t.Any], step: Step) -> str:
        return step.options(at_most_once=True).transaction("save", books.add)

    run = harness.send_and_settle("note/asked")

    assert run.failure is not None
    assert run.failure.code == "step.usage"


def test_3_5_a_serialization_failure_is_an_attempt_of_the_step(
    harness: Harness, pg_books: Books
) -> None:
    books = pg_books
    with books.engine.begin() as connection:
        connection.execute(books.note.__table__.insert().values(id=1, text="old"))

    def change() -> str:
        books.calls += 1
        session = books.session
        session.connection(execution_options={"isolation_level": "SERIALIZABLE"})
        note = session.get(books.note, 1)
        if books.calls == 1:
            with books.engine.begin() as other:
                other.execute(update(books.note).values(text="other"))
        note.text += "+"
        return str(note.text)

    @harness.durable.function(on="note/asked")
    def keep(event: Event[t.Any], step: Step) -> str:
        return step.transaction("save", change)

    run = harness.send_and_settle("note/asked")
    assert run.steps[0].attempts[-1] is not None
    harness.advance(60)

    run = harness.runs.get(run.id)
    assert run.result == "other+", run.failure
    assert books.notes == ["other+"]


@pytest.mark.parametrize("moment", [Moment.BEFORE_REQUEST, Moment.BEFORE_REPLY])
def test_3_5_a_commit_without_an_answer_is_looked_up(
    harness: Harness, far_books: Books, proxy: Proxy, moment: Moment
) -> None:
    far_books.declare(retries=0)
    proxy.cut_next(moment)
    run = harness.send_and_settle("note/asked")

    assert proxy.cut == 1
    done = moment is Moment.BEFORE_REPLY
    assert run.status == (RunStatus.COMPLETED if done else RunStatus.FAILED)
    assert far_books.calls == 1
    assert len(far_books.notes) == len(far_books.rows) == done


def test_3_5_a_commit_that_cannot_be_looked_up_is_no_failure_of_the_step(
    harness: Harness, far_books: Books, proxy: Proxy
) -> None:
    """The retry of the run is another generation of it, and finds the row as well."""
    far_books.declare(retries=0)

    def no_way_back(session: object) -> None:
        proxy.down = True

    far_books.then = lambda: events.listen(
        far_books.session, "before_commit", no_way_back
    )
    proxy.cut_next(Moment.BEFORE_REPLY)
    run = harness.send_and_settle("note/asked")

    assert run.status == RunStatus.FAILED
    assert run.failure is not None
    assert run.failure.code == "transaction.unknown"
    assert run.steps == ()
    assert far_books.notes == ["note"]
    proxy.bring_up()
    harness.runs.retry(run.id)
    harness.settle()

    again = harness.runs.get(run.id)
    assert again.status == RunStatus.COMPLETED
    assert far_books.calls == 1
    assert far_books.notes == ["note"]
    assert f'"{again.result}"' == far_books.rows[0].result


def test_3_5_an_event_id_that_comes_again_after_its_run_was_removed_is_another_run(
    harness: Harness, books: Books
) -> None:
    books.declare()
    for _ in range(2):
        run = harness.send_and_settle("note/asked", id="one")
        assert run.status == RunStatus.COMPLETED
        harness.move_clock(harness.state.settings.retention + 60)
        harness.sweep()
        assert harness.runs.of_event("one") == []

    assert books.calls == 2
    assert books.notes == ["note", "note"]


def test_3_5_a_missing_table_is_named_with_the_way_to_make_it(
    harness: Harness, books: Books
) -> None:
    OWN.steps.drop(books.engine)
    books.declare(retries=0)

    run = harness.send_and_settle("note/asked")

    assert run.failure is not None
    assert "no table durable_steps" in run.failure.message
    assert "flask db migrate" in run.failure.message
    assert books.calls == 0


def test_3_5_an_app_without_a_database_is_told_what_it_needs(harness: Harness) -> None:
    @harness.durable.function(on="note/asked", retries=0)
    def keep(event: Event[t.Any], step: Step) -> str:
        return step.transaction("save", str)

    run = harness.send_and_settle("note/asked")

    assert run.failure is not None
    assert "needs Flask-SQLAlchemy" in run.failure.message


def test_3_5_the_result_in_the_database_is_encrypted_like_others(
    valkey: ValkeyServer, namespace: str, tmp_path: pathlib.Path
) -> None:
    key = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="
    harness = Harness(valkey.url, namespace, DURABLE_ENCRYPTION_KEYS=key)
    books = Books(harness, f"sqlite:///{tmp_path}/books.db")
    books.create()
    books.declare()
    run = harness.send_and_settle("note/asked")
    stored = books.rows[0].result
    books.close()
    harness.close()

    assert run.status == RunStatus.COMPLETED, run.failure
    assert run.result not in stored


# -- Events that are stored with a transaction -------------------------------------


@pytest.fixture
def heard(harness: Harness) -> list[t.Any]:
    """The data of the events ``note/told`` that runs were created for."""
    found: list[t.Any] = []

    @harness.durable.function(on="note/told", id="hear")
    def hear(event: Event[t.Any], step: Step) -> None:
        found.append(event.data)

    harness.publish()
    return found


def tell(books: Books, n: int = 1) -> str:
    """Store an event with the transaction of the current session."""
    return books.harness.durable.send("note/told", {"n": n}, session=books.db.session)


def leave(harness: Harness, engine: Engine, n: int = 1) -> None:
    """Store an event, and commit it past the session, which so does not send it."""
    context = harness.app.app_context()
    with context, engine.begin() as connection, Session(connection) as session:
        harness.durable.send("note/told", {"n": n}, session=session)
        session.commit()


def relay_of(harness: Harness) -> Relay:
    relay = harness.state.database.relay
    assert relay is not None
    return relay


def test_3_5_an_event_is_sent_after_the_commit_and_its_row_removed(
    harness: Harness, books: Books, heard: list[t.Any]
) -> None:
    with harness.app.app_context():
        books.session.add(books.note(text="note"))
        event_id = tell(books)
        assert harness.route() == 0
        assert books.left == []
        books.session.commit()

    assert harness.run_of_settled(event_id).status == RunStatus.COMPLETED
    assert heard == [{"n": 1}]
    assert books.notes == ["note"]
    assert books.left == []


def test_3_5_several_events_are_sent_in_their_order(
    harness: Harness, books: Books, heard: list[t.Any]
) -> None:
    more = [Event("note/told", {"n": n}) for n in range(1, 4)]
    with harness.app.app_context():
        tell(books, 0)
        ids = harness.durable.send_many(more, session=books.db.session)
        assert harness.durable.send_many([], session=books.db.session) == []
        tell(books, 4)
        books.session.commit()
        tell(books, 5)
        books.session.commit()
    harness.settle()

    assert [data["n"] for data in heard] == list(range(6))
    assert len(ids) == 3


def test_3_5_an_event_is_not_sent_after_a_rollback(
    harness: Harness, books: Books, heard: list[t.Any]
) -> None:
    with harness.app.app_context():
        tell(books)
        books.session.rollback()
        with contextlib.suppress(ValueError), books.session.begin_nested():
            tell(books)
            raise ValueError
        with books.session.begin_nested():
            tell(books, 2)
        assert harness.route() == 0
        books.session.commit()
        tell(books, 3)
    harness.settle()
    relay_of(harness).sweep(patient=False)
    harness.settle()

    assert heard == [{"n": 2}]
    assert books.left == []


@pytest.mark.parametrize("moment", ["after_commit", "removal"])
def test_3_5_what_a_dead_process_left_is_sent_by_a_worker(
    harness: Harness,
    books: Books,
    heard: list[t.Any],
    url: str,
    valkey: ValkeyServer,
    moment: str,
) -> None:
    """It dies before it has sent the event, or before it has removed the row."""
    worker = [sys.executable, "-m", "tests.model.books", valkey.url]
    ended = subprocess.run(
        [*worker, harness.state.settings.namespace, url, moment, "tell"],
        cwd=ROOT,
        check=False,
    )
    assert ended.returncode == 9
    assert len(books.left) == 1
    harness.settle()
    assert len(heard) == (moment == "removal")

    relay = relay_of(harness)
    relay.sweep()
    assert len(books.left) == 1  # it may be on its way
    relay.sweep()
    harness.settle()

    assert heard == [{"n": 1}]
    assert books.left == []


def test_3_5_an_event_that_the_queue_does_not_take_waits_for_a_worker(
    valkey: ValkeyServer, namespace: str, tmp_path: pathlib.Path
) -> None:
    port = int(valkey.url.rpartition(":")[2].partition("/")[0])
    with contextlib.closing(Proxy(port, b"nothing")) as proxy:
        there = valkey.url.replace(str(port), str(proxy.port))
        harness = Harness(there, namespace, DURABLE_ACCEPT_TIMEOUT=1)
        books = Books(harness, f"sqlite:///{tmp_path}/books.db")
        books.create()
        harness.publish()
        with harness.app.app_context():
            event_id = tell(books)
            proxy.take_down()
            books.session.commit()
        assert len(books.left) == 1
        relay = relay_of(harness)
        relay.sweep(patient=False)
        assert len(books.left) == 1

        proxy.bring_up()
        relay.sweep(patient=False)
        assert books.left == []
        assert harness.route() == 1
        assert harness.runs.of_event(event_id) == []
        books.close()
        harness.close()


def test_3_5_a_commit_succeeds_although_its_events_cannot_be_sent(
    harness: Harness, far_books: Books, heard: list[t.Any], proxy: Proxy
) -> None:
    def away(session: object) -> None:
        proxy.take_down()

    with harness.app.app_context():
        tell(far_books)
        events.listen(far_books.session, "after_commit", away)
        far_books.session.commit()
    assert len(far_books.left) == 1

    proxy.bring_up()
    relay_of(harness).sweep(patient=False)
    harness.settle()
    assert heard == [{"n": 1}]


def test_3_5_a_row_that_another_process_sends_is_passed_over(
    harness: Harness, pg_books: Books, heard: list[t.Any]
) -> None:
    leave(harness, pg_books.engine)
    with pg_books.engine.begin() as other:
        other.execute(select(OWN.events).with_for_update())
        relay_of(harness).sweep(patient=False)
        harness.settle()
        assert heard == []
    relay_of(harness).sweep(patient=False)
    harness.settle()

    assert heard == [{"n": 1}]


def test_3_5_a_database_step_sends_its_event_once(
    harness: Harness, books: Books, heard: list[t.Any]
) -> None:
    def once_more() -> None:
        tell(books, books.calls)
        if books.calls == 1:
            raise ValueError("no")

    books.then = once_more
    books.declare()
    run = harness.send_and_settle("note/asked")
    harness.advance(60)

    assert harness.runs.get(run.id).status == RunStatus.COMPLETED
    assert heard == [{"n": 2}]
    assert books.left == []


def test_3_5_storing_an_event_between_steps_is_refused(
    harness: Harness, books: Books
) -> None:
    @harness.durable.function(on="note/asked", retries=0)
    def body(event: Event[t.Any], step: Step) -> None:
        tell(books)

    run = harness.send_and_settle("note/asked")

    assert run.failure is not None
    assert run.failure.code == "step.usage"


def test_3_5_a_session_of_plain_sqlalchemy_will_do(
    harness: Harness, url: str, heard: list[t.Any]
) -> None:
    engine = create_engine(url)
    metadata = MetaData()
    assert tables(metadata) == tables(metadata)
    metadata.drop_all(engine)
    metadata.create_all(engine)
    assert harness.state.database.relay is None
    del harness.state.database
    use_engine(harness.app, engine)

    with harness.app.app_context(), Session(engine) as session, session.begin():
        harness.durable.send("note/told", {"n": 1}, session=session)
    harness.settle()
    assert heard == [{"n": 1}]
    leave(harness, engine, 2)
    harness.settle()
    relay_of(harness).sweep(patient=False)
    harness.settle()
    engine.dispose()

    assert heard == [{"n": 1}, {"n": 2}]


def test_3_5_an_event_that_is_never_taken_is_set_aside_and_holds_up_no_other(
    valkey: ValkeyServer, namespace: str, sqs: SQSServer, tmp_path: pathlib.Path
) -> None:
    harness = Harness(valkey.url, namespace, DURABLE_QUEUE_URL=sqs.url)
    books = Books(harness, f"sqlite:///{tmp_path}/books.db")
    books.create()
    harness.publish()
    large = EventMessage("note/told", {"n": "x" * 2_000_000}, "large", 1).encode()
    with harness.app.app_context():
        tell(books, 1)
        store(relay_of(harness), books.session, [large, "no message"])
        tell(books, 2)
        books.session.commit()

    errors = [row.error for row in books.left]
    routed = harness.route()
    relay_of(harness).sweep(patient=False)
    again = harness.route()
    books.close()
    harness.close()
    assert len(errors) == 2
    assert "never takes" in errors[0]
    assert "not JSON" in errors[1]
    # One that was taken before the refusal is taken twice, under one id.
    assert routed >= 2
    assert again == 0


def test_3_5_events_that_cannot_be_read_here_hold_up_no_other(
    harness: Harness, books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    """3.5: an event whose keys only another process has waits for that one alone."""
    harness.publish()
    monkeypatch.setattr(relay, "SEND_BATCH", 2)
    locked = [
        EventMessage("note/told", "encrypted:key:AAAA", f"locked-{n}", 1).encode()
        for n in range(2)
    ]
    with harness.app.app_context():
        store(relay_of(harness), books.session, locked)
        tell(books, 1)
        books.session.commit()
    assert harness.route() == 1
    assert [row.error for row in books.left] == [None, None]

    leave(harness, books.engine, 2)
    relay_of(harness).sweep(patient=False)
    assert harness.route() == 1
    assert len(books.left) == 2


def test_3_5_a_stored_event_is_encrypted_like_others(
    valkey: ValkeyServer, namespace: str, tmp_path: pathlib.Path
) -> None:
    key = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="
    harness = Harness(valkey.url, namespace, DURABLE_ENCRYPTION_KEYS=key)
    books = Books(harness, f"sqlite:///{tmp_path}/books.db")
    books.create()
    books.declare()
    with harness.app.app_context():
        event_id = harness.durable.send(
            "note/asked", {"n": "a secret"}, session=books.session
        )
        stored = books.session.execute(select(OWN.events.c.message)).scalar()
        books.session.commit()
    run = harness.run_of_settled(event_id)
    books.close()
    harness.close()

    assert stored is not None
    assert "a secret" not in stored
    assert run.status == RunStatus.COMPLETED


def test_3_5_an_event_without_its_table_is_refused_with_the_way_to_make_it(
    harness: Harness, books: Books
) -> None:
    OWN.events.drop(books.engine)
    with harness.app.app_context():
        with pytest.raises(ConfigurationError, match="no table durable_events"):
            tell(books)
        books.session.rollback()


# -- What workers do ----------------------------------------------------------------


def test_3_5_rows_of_steps_are_removed_when_their_run_is_gone(
    harness: Harness, books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flask_durable.sql.relay.CLEAN_BATCH", 2)
    books.declare()
    for n in range(5):
        harness.send("note/asked", id=f"old-{n}")
    harness.settle()
    relay = relay_of(harness)
    relay.clean()
    assert len(books.rows) == 5  # none is old
    age = harness.state.settings.failed_retention + 60
    harness.move_clock(age)
    with books.engine.begin() as connection:
        connection.execute(update(OWN.steps).values(at=OWN.steps.c.at - age * 1000))
    relay.clean()
    assert len(books.rows) == 5  # their runs may still be retried

    harness.sweep()
    harness.send_and_settle("note/asked", id="new")
    with books.engine.begin() as connection:
        connection.execute(update(OWN.steps).values(at=1))
    relay.clean()

    assert [row.run for row in books.rows] == [harness.run_of("new").id]


def test_3_5_a_worker_sends_what_was_left(
    harness: Harness,
    books: Books,
    heard: list[t.Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("flask_durable.sql.relay.INTERVAL", 0.05)
    leave(harness, books.engine)
    assert len(books.left) == 1
    process = WorkerProcess(harness.state, queues=["default"], threads=1, grace=20)
    process.start()
    try:
        wait_until(lambda: heard, "the event")
        wait_until(lambda: not books.left, "the removal of the row")
    finally:
        process.stop()

    assert heard == [{"n": 1}]
    assert "durable-relay" not in ailing()


def test_3_5_a_tick_of_a_push_worker_sends_what_was_left(
    harness: Harness, books: Books, heard: list[t.Any]
) -> None:
    leave(harness, books.engine)
    worker = PushWorker(harness.state, lives_on=False)
    worker.tick(until=time.monotonic() + 30)
    worker.stop()
    harness.settle()

    assert heard == [{"n": 1}]
    assert books.left == []


def test_3_5_a_database_that_is_away_does_not_fail_a_tick(
    harness: Harness, books: Books
) -> None:
    OWN.events.drop(books.engine)
    relay_of(harness).tick()


def test_3_5_a_worker_that_lacks_its_tables_says_how_to_make_them(
    harness: Harness, books: Books, caplog: pytest.LogCaptureFixture
) -> None:
    OWN.events.drop(books.engine)
    relay_of(harness).tick()

    [record] = [r for r in caplog.records if vars(r).get("action") == "relay_failed"]
    assert "no table durable_events" in record.getMessage()
    assert "flask db upgrade" in record.getMessage()


def test_3_5_the_recipe_for_flask_migrate_makes_the_tables(
    harness: Harness,
    books: Books,
    url: str,
    valkey: ValkeyServer,
    tmp_path: pathlib.Path,
) -> None:
    pytest.importorskip("flask_migrate", reason="Flask-Migrate is not installed")
    books.db.metadata.drop_all(books.engine)
    with books.engine.begin() as connection:
        connection.execute(text("DROP TABLE IF EXISTS alembic_version"))
    # Alembic sets up the logging of its process.
    command = [sys.executable, "-m", "tests.model.books", valkey.url]
    namespace = harness.state.settings.namespace
    subprocess.run(
        [*command, namespace, url, str(tmp_path / "migrations"), "migrate"],
        cwd=ROOT,
        check=True,
        stderr=subprocess.DEVNULL,
    )

    assert missing_tables(books.engine) == []
    assert len(list((tmp_path / "migrations" / "versions").glob("*.py"))) == 1
    books.declare()
    assert harness.send_and_settle("note/asked").status == RunStatus.COMPLETED
