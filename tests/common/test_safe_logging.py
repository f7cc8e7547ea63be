"""The package's log calls never raise, whatever the application's logging does."""

from __future__ import annotations

import logging
import typing as t

import pytest

from flask_durable.common import safe_logging
from flask_durable.common.safe_logging import get_logger

NAME = "flask_durable.test_safe_logging"


class Raising(logging.Filter):
    """Raises at each record."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def filter(self, record: logging.LogRecord) -> bool:
        raise self.error


@pytest.fixture(autouse=True)
def nothing_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(safe_logging, "_told", set())


@pytest.fixture
def filtered() -> t.Iterator[t.Callable[[BaseException], None]]:
    logger = logging.getLogger(NAME)

    def add(error: BaseException) -> None:
        logger.addFilter(Raising(error))

    yield add
    logger.filters.clear()


def test_what_a_filter_raises_stays_there_and_is_told_once_on_stderr(
    filtered: t.Callable[[BaseException], None], capsys: pytest.CaptureFixture[str]
) -> None:
    filtered(RuntimeError("outside of request context"))
    logger = get_logger(NAME)
    logger.warning("one")
    logger.error("two", extra={"action": "x"})
    try:
        raise ValueError("mine")
    except ValueError:
        logger.exception("three")
    said = capsys.readouterr().err
    assert said.count(f"A line of {NAME} was not logged") == 1
    assert "outside of request context" in said
    assert "in filter" in said  # where it was raised


def test_what_a_record_factory_raises_stays_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def factory(*args: t.Any, **kwargs: t.Any) -> logging.LogRecord:
        raise LookupError("no tenant")

    before = logging.getLogRecordFactory()
    logging.setLogRecordFactory(factory)
    try:
        get_logger(NAME).error("one")
    finally:
        logging.setLogRecordFactory(before)


@pytest.mark.parametrize("error", [SystemExit(1), KeyboardInterrupt()])
def test_what_is_meant_for_the_caller_passes(
    filtered: t.Callable[[BaseException], None], error: BaseException
) -> None:
    filtered(error)
    with pytest.raises(type(error)):
        get_logger(NAME).error("one")


def test_a_record_names_the_line_that_logged_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    logger = get_logger(NAME)
    logger.warning("one", extra={"action": "x"})
    try:
        raise ValueError("mine")
    except ValueError:
        logger.exception("two")
    logger.log(logging.ERROR, "three")
    assert {record.pathname for record in caplog.records} == {__file__}
    assert len({record.lineno for record in caplog.records}) == 3
    assert caplog.records[0].action == "x"  # type: ignore[attr-defined]
    assert caplog.records[1].exc_info


def test_every_logger_of_the_package_is_one_that_cannot_raise() -> None:
    import pathlib

    root = pathlib.Path(safe_logging.__file__).parent
    for path in root.rglob("*.py"):
        assert "logging.getLogger(__name__)" not in path.read_text("utf-8"), path
