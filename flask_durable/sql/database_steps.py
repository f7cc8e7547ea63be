"""Steps whose result is committed with what they did in the database: exactly once.

::

    look for the row ── found ──────────────────────────────────► its result
       │ none
    call the function in db.session ── it raised ──► rollback ──► the step's error
       │
    insert the row ── its key is there ──► rollback ────────────► the other's result
       │
    still the run's owner? ── no ──► rollback ──────────────────► the attempt ends
       │
    commit ── it raised ──► insert the row once more, and roll back
       │                       ├─ its key is there ─────────────► its result
       ▼                       ├─ inserted ─────────────────────► the step's error
     the result                └─ no answer ────────────────────► CommitUnknown

The row's primary key closes the races. Of two workers with one step, both of which
believe to own the run, the second one's insert waits until the first one's transaction
has ended, and then fails: it never commits. The same wait decides after a commit whose
answer was lost, as the lost transaction may still be in progress.

The key is made of namespace, run, the run's creation and step. It has no generation: a
retry of a failed run keeps the steps that are done, and so it keeps this one, also if
the worker died between the two commits. The creation is in it because a run's id can
come again, with an event's id that is used again after the run was removed.
"""

from __future__ import annotations

import contextlib
import typing as t

from sqlalchemy import event
from sqlalchemy import insert
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.exc import SQLAlchemyError

from ..common.ids import derived_id
from ..errors import CommitUnknown
from ..errors import ConfigurationError
from ..errors import StepUsageError
from .tables import explain_missing
from .tables import OWN

if t.TYPE_CHECKING:
    from sqlalchemy.orm import scoped_session
    from sqlalchemy.orm import Session

_steps = OWN.steps


class DatabaseSteps:
    """Calls functions in the session of Flask-SQLAlchemy, and keeps their results.

    :param extension: The app's Flask-SQLAlchemy, or ``None``.
    :param namespace: The app's namespace.
    :raises ConfigurationError: The app has no Flask-SQLAlchemy.
    """

    def __init__(self, extension: object, namespace: str) -> None:
        session: t.Any = getattr(extension, "session", None)
        if session is None:
            raise ConfigurationError(
                "step.transaction needs Flask-SQLAlchemy, and the app has none.",
                hint='Install "flask-durable[sql]" and call db.init_app(app).',
            )
        self._scoped: scoped_session[Session] = session
        self._namespace = namespace

    def once(
        self,
        run: str,
        created: str,
        step: str,
        at: int,
        call: t.Callable[[], str],
        confirm: t.Callable[[], None],
    ) -> tuple[str, bool]:
        """Return the text of *call*, which is committed once, and if it is new.

        :param created: The time when the run was created, as its record has it.
        :param at: The state server's time, milliseconds since 1970.
        :param call: The function: what it does in the session is committed with its
            text.
        :param confirm: A check before the commit; it raises if the run is not ours.
        :raises CommitUnknown: The commit failed, and may have taken effect.
        :raises ConfigurationError: The table is missing.
        """
        session = self._scoped()
        row = {
            "id": derived_id("transaction", self._namespace, run, created, step),
            "namespace": self._namespace,
            "run": run,
            "step": step,
            "at": at,
        }
        found = self._find(session, row["id"])
        if found is not None:
            return found, False
        try:
            with _commits_refused(session):
                row["result"] = text = call()
                session.flush()
            if self._scoped() is not session:
                raise StepUsageError(
                    "The function of step.transaction removed its session.",
                    hint="Leave db.session to the step: it commits, and removes it.",
                )
            found = self._insert(session, row)
            if found is not None:
                return found, False
            confirm()
        except BaseException:
            # Before the outcome is stored: other transactions may wait for these locks.
            with contextlib.suppress(SQLAlchemyError):
                session.rollback()
            raise
        try:
            session.commit()
        except Exception as error:
            return self._outcome(session, row, error), False
        return text, True

    def _find(self, session: Session, id: t.Any) -> str | None:
        """Return the text of a row.

        The transaction of the look ends: the function may choose another isolation.
        """
        look = select(_steps.c.result).where(_steps.c.id == id)
        try:
            found = session.execute(look).scalar()
        except SQLAlchemyError as error:
            session.rollback()
            explain_missing(error, session.get_bind(clause=_steps))
            raise
        session.rollback()
        return found

    def _insert(self, session: Session, row: dict[str, t.Any]) -> str | None:
        """Insert the row; return the text of the one that is there, if there is one."""
        try:
            session.execute(insert(_steps).values(row))
        except IntegrityError:
            session.rollback()
            found = self._find(session, row["id"])
            if found is None:
                raise
            return found
        return None

    def _outcome(
        self, session: Session, row: dict[str, t.Any], error: Exception
    ) -> str:
        """Return the text, if the commit took effect although it raised *error*."""
        try:
            session.rollback()
            found = self._insert(session, row)
            session.rollback()
        except Exception as unclear:
            raise CommitUnknown(
                f"The database did not say if it committed the step: {error}.",
                hint="The next attempt of the run finds that out.",
            ) from unclear
        if found is None:
            raise error
        return found


@contextlib.contextmanager
def _commits_refused(session: Session) -> t.Iterator[None]:
    """Refuse commits of *session* in the block, but for those of savepoints."""
    refused = False

    def refuse(session: Session) -> None:
        nonlocal refused
        if session.in_nested_transaction():
            return
        refused = True
        raise StepUsageError(
            "The function of step.transaction commits by itself, so its result would "
            "not be part of the same transaction.",
            hint="Leave the commit to the step, or use step.run.",
        )

    event.listen(session, "before_commit", refuse)
    try:
        yield
        if refused:  # the function caught the error
            refuse(session)
    finally:
        event.remove(session, "before_commit", refuse)
