"""Log lines are as the page on logging says, and never over the app's own set-up."""

from __future__ import annotations

import ast
import contextlib
import json
import logging
import logging.config
import math
import pathlib
import re
import signal
import typing as t

import pytest
import redis
from flask import Flask
from flask.logging import default_handler

from flask_durable import Durable
from flask_durable.observe.formats import JsonFormatter
from flask_durable.observe.formats import set_up
from flask_durable.observe.formats import set_up_pushed
from flask_durable.observe.run_logs import TailHandler
from flask_durable.worker.service import run_worker

from ..support.parsing import parsed
from ..support.servers import ValkeyServer

ROOT = pathlib.Path(__file__).parents[2]

LOGGERS = {"logger", "_log"}
LEVELS = {"debug", "info", "warning", "error", "exception"}


def records() -> t.Iterator[tuple[str, ast.Call]]:
    """Find every call of a logger of ours, and where it is."""
    for path in sorted((ROOT / "flask_durable").rglob("*.py")):
        for node in ast.walk(parsed(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                of = ast.unparse(node.func.value)
                if node.func.attr in {*LEVELS, "log", "critical"} and of in LOGGERS:
                    yield f"{path.name}:{node.lineno}", node


def action_of(call: ast.Call) -> str | None:
    for keyword in call.keywords:
        if keyword.arg == "extra":
            return str(ast.literal_eval(keyword.value).get("action"))
    return None


def test_every_record_of_ours_has_an_action() -> None:
    assert [place for place, call in records() if action_of(call) is None] == []


def test_the_documented_actions_and_levels_are_those_of_the_code() -> None:
    page = (ROOT / "docs" / "logging.rst").read_text("utf-8")
    rows = re.findall(r"   \* - ``(\w+)``\n     - ([a-z, ]+)\n", page)
    found: dict[str, set[str]] = {}
    for _, call in records():
        level = t.cast(ast.Attribute, call.func).attr.replace("exception", "error")
        found.setdefault(str(action_of(call)), set()).add(level)
    assert {action: set(levels.split(", ")) for action, levels in rows} == found


def line(record: logging.LogRecord) -> dict[str, t.Any]:
    text = JsonFormatter().format(record)
    assert "\n" not in text
    return t.cast("dict[str, t.Any]", json.loads(text))


def record(**fields: t.Any) -> logging.LogRecord:
    given = {"name": "users", "levelno": 30, "levelname": "WARNING", "msg": "a\nb"}
    return logging.makeLogRecord({**given, "created": 0.25, **fields})


def test_a_record_is_one_line_of_json() -> None:
    assert line(record()) == {
        "time": "1970-01-01T00:00:00.250Z",
        "level": "warning",
        "logger": "users",
        "message": "a\nb",
    }


def test_the_fields_of_the_run_have_short_names_and_an_extra_hides_none() -> None:
    found = line(
        record(
            action="step_retry",
            durable_run_id="r1",
            durable_function="order",
            durable_step=None,
            durable_attempt=2,
            durable_event_id="e1",
            run="mine",
            amount=12,
            path=pathlib.PurePosixPath("/x"),
        )
    )
    del found["time"], found["level"], found["logger"], found["message"]
    assert found == {
        "action": "step_retry",
        "run": "r1",
        "function": "order",
        "attempt": 2,
        "event": "e1",
        "amount": 12,
        "path": "/x",
    }


def test_a_traceback_is_text() -> None:
    try:
        raise ValueError("no")
    except ValueError as error:
        found = line(record(exc_info=(ValueError, error, error.__traceback__)))
    assert found["exception"].endswith("ValueError: no")


@contextlib.contextmanager
def root_with(*handlers: logging.Handler) -> t.Iterator[logging.Logger]:
    """Give the root logger *handlers*, as if nobody else had set it up."""
    # Not a fixture: pytest adds its own handlers when the test is called.
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    root.handlers[:] = handlers
    root.setLevel(logging.WARNING)
    try:
        yield root
    finally:
        root.handlers[:] = before
        root.setLevel(level)


@pytest.mark.parametrize("pushed", [False, True])
def test_loggers_that_a_configuration_switched_off_are_on_in_a_worker(
    pushed: bool,
) -> None:
    app_logger = logging.getLogger("test_logging.app")
    ours = logging.getLogger("flask_durable.engine.steps.run")
    theirs = logging.getLogger("test_logging.theirs")
    kept = _Kept()
    with root_with() as root, loggers_as_they_are():
        logging.config.dictConfig({"version": 1})
        assert ours.disabled
        assert theirs.disabled
        root.addHandler(kept)
        for _ in range(2):
            set_up_pushed(app_logger) if pushed else set_up(app_logger)
        ours.warning("the reason", extra={"action": "step_retry"})
        assert not ours.disabled
        assert theirs.disabled
    told, reason = kept.records
    assert "disable_existing_loggers" in told.getMessage()
    assert reason.getMessage() == "the reason"


@pytest.mark.parametrize("has_functions", [False, True])
def test_a_worker_of_an_app_without_functions_says_so_as_it_starts(
    has_functions: bool, caplog: pytest.LogCaptureFixture
) -> None:
    app, durable = Flask("shop"), Durable()
    # Nobody is there: its start ends with an error.
    app.config["DURABLE_REDIS_URL"] = "redis://127.0.0.1:1"
    durable.init_app(app)
    if has_functions:
        durable.function(id="ship", on="order/placed")(lambda event, step: None)
    signals = {s: signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGINT)}
    try:
        with pytest.raises(redis.ConnectionError):
            run_worker(durable.state_of(app), queues=["default"], threads=1, grace=5)
    finally:
        for number, handler in signals.items():
            signal.signal(number, handler)
    told = [r for r in caplog.records if getattr(r, "action", "") == "no_functions"]
    assert [record.levelname for record in told] == ["WARNING"] * (not has_functions)


@contextlib.contextmanager
def loggers_as_they_are() -> t.Iterator[None]:
    """Switch no logger off for longer than this."""
    loggers = logging.getLogger().manager.loggerDict.values()
    on = [x for x in loggers if isinstance(x, logging.Logger) and not x.disabled]
    try:
        yield
    finally:
        for logger in on:
            logger.disabled = False


class _Kept(logging.Handler):
    """Keeps records."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


def test_handlers_of_the_app_stay_unless_a_format_is_asked_for() -> None:
    theirs = logging.NullHandler()
    app_logger = logging.getLogger("test_logging.app")
    with root_with(theirs) as root:
        set_up(app_logger)
        assert root.handlers[0] is theirs
        assert [type(handler) for handler in root.handlers[1:]] == [TailHandler]

        set_up(app_logger, "json")
        handler, tail = root.handlers
        assert isinstance(tail, TailHandler)
        assert isinstance(handler.formatter, JsonFormatter)
        assert root.level == logging.WARNING


def test_a_line_of_the_app_is_written_once_in_a_worker() -> None:
    """The worker asks for app.logger before it sets up the root logger."""
    app = Flask("written_once")
    with root_with() as root:
        app_logger = app.logger
        assert app_logger.handlers == [default_handler]
        set_up(app_logger)
        assert app_logger.handlers == []
        assert [type(h) for h in root.handlers][1:] == [TailHandler]


def test_the_web_process_keeps_its_root_logger(
    valkey: ValkeyServer, namespace: str
) -> None:
    theirs = logging.NullHandler()
    app = Flask("web")
    app.config["DURABLE_REDIS_URL"] = valkey.url
    app.config["DURABLE_NAMESPACE"] = namespace
    with root_with(theirs) as root:
        durable = Durable(app)
        with app.app_context():
            durable.send("a/b", {})
        assert (root.handlers, root.level) == ([theirs], logging.WARNING)
        assert root.filters == theirs.filters == []


def test_a_line_is_json_whatever_a_record_has() -> None:
    class Unprintable:
        def __str__(self) -> str:
            raise RuntimeError

        __repr__ = __str__

    loop: dict[str, t.Any] = {}
    loop["itself"] = loop
    deep: list[t.Any] = []
    for _ in range(3000):
        deep = [deep]
    extras = {
        "good": {"a": [1, None]},
        "none": Unprintable(),
        "inside": [Unprintable()],
        "loop": loop,
        "deep": deep,
        "nan": float("nan"),
        "time": math.inf,  # a name that is taken
    }
    record = logging.LogRecord("app", 40, "", 1, "%s %d", (Unprintable(), "x"), None)
    vars(record).update(extras)

    def refuse(constant: str) -> t.Never:
        raise AssertionError(constant)

    found = json.loads(JsonFormatter().format(record), parse_constant=refuse)
    assert found["message"] == "%s %d"
    assert found["good"] == {"a": [1, None]}
    assert found["none"] == "<Unprintable>"
    assert found["inside"] == "<list>"
    assert found["loop"] == "{'itself': {...}}"
    assert found["nan"] == "nan"
    assert found["time"].endswith("Z")
