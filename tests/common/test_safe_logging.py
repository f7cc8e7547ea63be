"""The package's log calls never raise or wait, whatever the app's logging does."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
import typing as t

import pytest

from flask_durable.common import safe_logging
from flask_durable.common.loops import ailing
from flask_durable.common.safe_logging import at_once
from flask_durable.common.safe_logging import finish_telling
from flask_durable.common.safe_logging import get_logger
from flask_durable.common.safe_logging import hand_to_teller
from flask_durable.common.safe_logging import telling

from ..support.hanging import hanging
from ..support.hanging import HangingHandler

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


@pytest.fixture
def hangs() -> t.Iterator[HangingHandler]:
    with telling(), hanging(NAME) as handler:
        yield handler


def test_a_handler_that_hangs_keeps_nobody_who_logs(hangs: HangingHandler) -> None:
    logger = get_logger(NAME)
    before = threading.current_thread().name
    logger.warning("one %s", "error", extra={"action": "x"})
    try:
        raise ValueError("mine")
    except ValueError:
        logger.exception("two")
    assert hangs.reached.wait(20)
    assert not finish_telling(0.01)
    logger.warning("three")  # still not told here
    assert hangs.records == []

    hangs.go_on()
    assert finish_telling()
    assert [x.getMessage() for x in hangs.records] == ["one error", "two", "three"]
    # Each record is that of the place where it was logged.
    assert {x.threadName for x in hangs.records} == {before}
    assert {x.pathname for x in hangs.records} == {__file__}
    assert hangs.records[0].created <= hangs.records[1].created
    assert hangs.records[0].action == "x"  # type: ignore[attr-defined]
    assert str((hangs.records[1].exc_info or (None, None))[1]) == "mine"
    assert "durable-teller" not in ailing()
    logger.warning("four")
    assert hangs.records[-1].getMessage() == "four"


def test_lines_that_find_the_queue_full_are_dropped_and_counted(
    hangs: HangingHandler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(safe_logging, "MAX_WAITING", 3)
    logger = get_logger(NAME)
    logger.warning("first")
    assert hangs.reached.wait(20)
    for number in range(10):
        logger.warning("%d", number)
    hangs.go_on()
    assert finish_telling()
    told = [x.getMessage() for x in hangs.records]
    assert told == ["first", "0", "1", "2"]


def test_the_number_of_dropped_lines_is_logged(
    hangs: HangingHandler,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(safe_logging, "MAX_WAITING", 1)
    logger = get_logger(NAME)
    logger.warning("first")
    assert hangs.reached.wait(20)
    for number in range(5):
        logger.warning("%d", number)
    hangs.go_on()
    assert finish_telling()
    (line,) = [x for x in caplog.records if getattr(x, "action", "") == "lines_dropped"]
    assert line.getMessage().startswith("4 lines were dropped")


def test_lines_of_a_run_are_told_where_they_are_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    told: list[str] = []
    with telling(), at_once():
        get_logger(NAME).warning("one")
        hand_to_teller(lambda: told.append("note"))
        assert [x.getMessage() for x in caplog.records] == ["one"]
        assert told == ["note"]


def test_a_line_that_cannot_be_told_does_not_keep_the_next_ones() -> None:
    told: list[int] = []
    with telling():
        for number in range(3):
            hand_to_teller(lambda number=number: told.append(1 // (number % 2)))
            hand_to_teller(lambda number=number: told.append(number))
        assert finish_telling()
    assert told == [0, 1, 1, 2]


def test_a_forked_child_tells_its_own_lines() -> None:
    code = (
        "import logging, os, sys\n"
        "from flask_durable.common.safe_logging import get_logger, telling\n"
        "logging.basicConfig(stream=sys.stdout)\n"
        "with telling():\n"
        "    if (child := os.fork()) == 0:\n"
        "        get_logger('x').warning('from the child')\n"
        "        os._exit(0)\n"
        "    os.waitpid(child, 0)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60
    )
    assert "from the child" in done.stdout
