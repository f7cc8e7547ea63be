"""Web servers that a push worker may run under."""

from __future__ import annotations

import logging
import sys
import types
import typing as t

import pytest

from flask_durable import Event
from flask_durable import Step

from ...support.harness import Harness
from .sqsd import Daemon


@pytest.mark.parametrize(
    ("options", "stand_still"),
    [
        ({"http": b"127.0.0.1:8000", "master": True}, True),
        ({"enable-threads": True}, False),
        ({"enable-threads": b""}, False),  # as an empty line of an INI file has it
        ({"threads": b"4"}, False),
        (None, False),  # another server
    ],
)
def test_under_a_uwsgi_whose_threads_stand_still_one_line_says_what_is_missing(
    pushed: Harness,
    daemon: Daemon,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    options: dict[str, t.Any] | None,
    stand_still: bool,
) -> None:
    if options is not None:
        # What uWSGI puts in the place of an import, with the options it was given.
        uwsgi = types.ModuleType("uwsgi")
        vars(uwsgi)["opt"] = options
        monkeypatch.setitem(sys.modules, "uwsgi", uwsgi)

    @pushed.durable.function(on="order/placed")
    def placed(event: Event[t.Any], step: Step) -> None: ...

    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            pushed.send("order/placed")
            daemon.drain()
    told = [record for record in caplog.records if "--enable-threads" in record.message]
    actions = [vars(record)["action"] for record in told]
    assert actions == (["threads_disabled"] if stand_still else [])
