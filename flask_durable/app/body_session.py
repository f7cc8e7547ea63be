"""The database connection of a function's body, while a step runs.

A body that has read a row holds a connection until its transaction ends. A step has its
own session and needs a second connection: with as many runs as connections, each waits
for the others. So the transaction of the body's session is ended before a step's body
is called, if it has only read:

========================================  ==========================================
the body's session has                    its transaction
========================================  ==========================================
read alone                                ends by a commit; loaded objects stay as
                                          they are, and the next query begins another
pending or flushed changes, sent a        goes on: nothing is written before the body
statement that may change or lock rows,   says so, and nothing is lost
in bulk too, or is in a savepoint
========================================  ==========================================

This holds for the sessions of Flask-SQLAlchemy. The transaction ends by a commit and
not by a rollback: writes past the session, on its bare connection, are not seen here
and must not be lost.
"""

from __future__ import annotations

import sys
import typing as t

from ..common.safe_logging import get_logger

#: Set in a session whose transaction must not end before the body ends it.
_WROTE = "flask_durable.wrote"

logger = get_logger(__name__)


def releaser(extension: object) -> t.Callable[[], None]:
    """Return a function that ends the transaction of the current context's session.

    :param extension: The app's Flask-SQLAlchemy, or ``None``.
    """
    scoped: t.Any = getattr(extension, "session", None)
    orm: t.Any = sys.modules.get("sqlalchemy.orm")
    if orm is None or not isinstance(scoped, orm.scoped_session):
        return lambda: None
    from sqlalchemy import event

    event.listen(scoped, "after_transaction_end", _on_end)
    event.listen(scoped, "do_orm_execute", _on_execute)

    def release() -> None:
        if scoped.registry.has():
            _release(scoped())

    return release


def _on_end(session: t.Any, transaction: t.Any) -> None:
    if transaction.parent is None:
        session.info.pop(_WROTE, None)
    elif not transaction.nested:  # no savepoint: a flush, or a method for bulk
        session.info[_WROTE] = True


def _on_execute(state: t.Any) -> None:
    statement = state.statement
    locks = getattr(statement, "_for_update_arg", None) is not None
    if locks or not state.is_select or state.is_from_statement or _calls(statement):
        state.session.info[_WROTE] = True  # its transaction may only begin now


def _calls(statement: t.Any) -> bool:
    """Return whether *statement* selects the result of an unknown function.

    Such a function may take a lock for the transaction, or change rows. ``count`` and
    the other known ones have their own classes.
    """
    from sqlalchemy.sql.functions import Function

    return any(
        type(getattr(column, "element", column)) is Function
        for column in getattr(statement, "_raw_columns", ())
    )


def _release(session: t.Any) -> None:
    if not session.in_transaction() or session.in_nested_transaction():
        return
    if _WROTE in session.info or session.new or session.dirty or session.deleted:
        return
    expires, session.expire_on_commit = session.expire_on_commit, False
    try:
        session.commit()
    except Exception as error:  # a connection that has died; there is nothing to lose
        session.rollback()
        logger.warning(
            "The body's transaction did not end before a step: %s",
            type(error).__name__,
            extra={"action": "body_session_failed"},
        )
    finally:
        session.expire_on_commit = expires
