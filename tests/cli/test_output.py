"""Printed data: for a person on a terminal, for a program elsewhere."""

from __future__ import annotations

import dataclasses
import io
import json
import typing as t
from contextlib import redirect_stdout
from datetime import datetime
from datetime import timedelta
from datetime import timezone

import pytest

from flask_durable import Claim
from flask_durable import Event
from flask_durable import Failure
from flask_durable import Run
from flask_durable import RunProgress
from flask_durable import RunStatus
from flask_durable import StepAttempt
from flask_durable import StepRecord
from flask_durable.cli import output
from flask_durable.cli import timeline
from flask_durable.cli.family import Family
from flask_durable.cli.output import echo_json
from flask_durable.cli.output import echo_table
from flask_durable.cli.run_json import run_as_json

BEGIN = datetime(2026, 11, 21, 12, 0, tzinfo=timezone.utc)


class Terminal(io.StringIO):
    """A stdout that says it is a terminal."""

    def __init__(self, encoding: str = "utf-8") -> None:
        super().__init__()
        self._encoding = encoding

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._encoding

    def isatty(self) -> bool:
        return True


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """A terminal for ``redirect_stdout``; pytest undoes what a fixture does itself."""
    monkeypatch.setenv("NO_COLOR", "1")
    return Terminal()


def step(name: str, **changes: t.Any) -> StepRecord:
    plain = StepRecord(
        name=name,
        kind="run",
        status="done",
        attempt=1,
        started=BEGIN,
        duration=1.0,
        due=None,
        value=None,
        failure=None,
        checkpoint=None,
        about=None,
    )
    return dataclasses.replace(plain, **changes)


def run(*steps: StepRecord, **changes: t.Any) -> Run:
    plain = Run(
        id="r1",
        function="greet",
        status=RunStatus.COMPLETED,
        reason=None,
        due=None,
        event=Event("greeting/asked", {}, id="e1", at=BEGIN),
        event_id="e1",
        event_name="greeting/asked",
        queue="default",
        created=BEGIN,
        started=BEGIN,
        finished=BEGIN + timedelta(seconds=10),
        result={"a": 1},
        failure=None,
        dispatches=1,
        attempt=1,
        version="abc",
        steps=steps,
    )
    return dataclasses.replace(plain, **changes)


def test_a_table_has_tabs_and_no_header_where_a_program_reads(
    capsys: pytest.CaptureFixture[str],
) -> None:
    echo_table(("run", "note"), [("r1", "two\nlines\there"), ("r2", "")])
    assert capsys.readouterr().out == "r1\ttwo lines here\nr2\t\n"


def test_a_table_is_aligned_on_a_terminal(terminal: Terminal) -> None:
    with redirect_stdout(terminal):
        echo_table(("run", "status"), [("r1", "ok"), ("longer", "failed")])
    assert terminal.getvalue() == (
        "RUN     STATUS\n"
        "r1      ok\n"
        "longer  failed\n"
    )  # fmt: skip


def test_colours_take_no_room_in_a_table(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_COLOR", "")
    with redirect_stdout(terminal):
        echo_table(("a", "b"), [(output.style("x", fg="green"), "y")])
    assert terminal.getvalue().splitlines()[1] == "\x1b[32mx\x1b[0m  y"


def test_no_color_is_respected(terminal: Terminal) -> None:
    with redirect_stdout(terminal):
        assert output.style("x", fg="green") == "x"


def test_an_empty_table_has_only_its_header(terminal: Terminal) -> None:
    with redirect_stdout(terminal):
        echo_table(("run",), [])
    assert terminal.getvalue() == "RUN\n"


def test_json_is_one_line_for_a_program_and_indented_for_a_person(
    capsys: pytest.CaptureFixture[str], terminal: Terminal
) -> None:
    echo_json({"a": [1, "é"]})
    assert capsys.readouterr().out == '{"a": [1, "é"]}\n'
    with redirect_stdout(terminal):
        echo_json({"a": 1})
    assert terminal.getvalue() == '{\n  "a": 1\n}\n'


def test_json_with_text_that_cannot_be_shown_stays_json(
    capsys: pytest.CaptureFixture[str],
) -> None:
    value = {"a": "\udcff", "b": "\x9b31m"}
    echo_json(value)
    printed = capsys.readouterr().out
    assert json.loads(printed) == value
    assert printed.isascii()


def test_what_comes_with_a_users_data_cannot_drive_the_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    echo_table(("a",), [("\x1b]0;title\x07 \x1b[2J \udcff",)])
    assert capsys.readouterr().out == "\\x1b]0;title\\x07 \\x1b[2J \\udcff\n"


def test_steps_are_bars_over_the_time_of_the_run() -> None:
    lines = timeline.describe(
        run(
            step("first", duration=5.0),
            step("second", started=BEGIN + timedelta(seconds=5), duration=5.0),
        )
    )
    half = timeline.BAR_WIDTH // 2
    assert lines[-2] == f"{'+0ms':>8}  first   done  5s  {'█' * half}"
    assert lines[-1] == f"{'+5s':>8}  second  done  5s  {' ' * half}{'█' * half}"


def test_times_of_steps_count_from_the_creation_of_the_run() -> None:
    created = BEGIN - timedelta(seconds=5)
    line = timeline.describe(run(step("late", duration=5.0), created=created))[-1]
    half = timeline.BAR_WIDTH // 2
    assert line == f"{'+5s':>8}  late  done  5s  {' ' * half}{'█' * half}"


def test_each_attempt_of_a_step_has_a_line_and_a_bar() -> None:
    attempts = tuple(
        [
            StepAttempt(number, BEGIN + timedelta(seconds=4 * number - 4), 2.0)
            for number in (1, 2, 3)
        ]
    )
    last = attempts[-1].started
    lines = timeline.describe(
        run(step("charge", attempt=3, started=last, duration=2.0, attempts=attempts))
    )[-3:]
    assert [line.split()[:2] for line in lines] == [
        ["+0ms", "charge"],
        ["+4s", "charge"],
        ["+8s", "charge"],
    ]
    assert ["attempt 1" in lines[0], "attempt 2" in lines[1], "attempt 3" in lines[2]]
    assert [line.index("█") for line in lines] == sorted(
        {line.index("█") for line in lines}
    )
    assert "done, attempt 3" in lines[2]
    assert "done" not in lines[0]


def test_a_replay_that_asks_for_another_call_is_told_of() -> None:
    lines = timeline.describe(run(changed_step="load"))
    assert "replay    'load' was stored for a call with other arguments" in lines


def test_progress_and_a_checkpoint_are_shown() -> None:
    shown = run(
        step("long", status="begun", started=None, checkpoint={"chunk": 3}),
        progress=RunProgress(0.25, BEGIN, "chunk 3 of 12"),
    )

    lines = timeline.describe(shown)

    told = f"progress  25% at {timeline.clock(BEGIN)} UTC: chunk 3 of 12"
    assert told in lines
    assert f'{"":10}checkpoint: {{"chunk": 3}}' in lines
    found = run_as_json(shown)
    assert found["progress"]["fraction"] == 0.25
    assert found["progress"]["message"] == "chunk 3 of 12"
    assert found["steps"][0]["checkpoint"] == {"chunk": 3}


def test_claims_are_lines_with_what_they_waited_for_and_came_to() -> None:
    claims = (
        Claim(9, BEGIN, 0.04, 3.0, "suspended"),
        Claim(10, BEGIN + timedelta(hours=1), 75.0, None, None),
    )
    lines = timeline.describe(run(claims=claims))
    at = f"{BEGIN:%Y-%m-%d %H}"
    later = f"{BEGIN + timedelta(hours=1):%Y-%m-%d %H}"
    first, second = [line for line in lines if line.startswith("claim ")]
    assert first.startswith(f"claim 9   {at}")
    assert second.startswith(f"claim 10  {later}")
    assert " ".join(first.split()[4:]) == "queued 40ms lasted 3s suspended"
    assert " ".join(second.split()[4:]) == "queued 1m15s running"


def test_every_step_has_a_bar_within_the_width() -> None:
    steps = [
        step("long", duration=1000.0),
        step("short", started=BEGIN + timedelta(seconds=1000), duration=0.0),
        step("lost", started=None, duration=None, status="intent"),
    ]
    rows = timeline.describe(run(*steps))[-3:]
    assert rows[0].endswith("█" * timeline.BAR_WIDTH)
    assert rows[1].endswith(" " * (timeline.BAR_WIDTH - 1) + "█")
    assert rows[2].endswith("lost   intent")


def test_bars_are_ascii_where_the_terminal_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    with redirect_stdout(Terminal("ascii")):
        line = timeline.describe(run(step("one")))[-1]
    assert line.endswith("#" * timeline.BAR_WIDTH)


def test_a_sleep_shows_when_it_ends_and_does_not_squeeze_the_rest() -> None:
    due = datetime.now(timezone.utc) + timedelta(days=7)
    started = datetime.now(timezone.utc) - timedelta(seconds=10)
    lines = timeline.describe(
        run(
            step("work", started=started, duration=10.0),
            step(
                "nap", kind="sleep", status="waiting", started=started, due=due,
                duration=None, attempt=0,
            ),
            status=RunStatus.SUSPENDED, reason="sleep", due=due, finished=None,
            created=started,
        )
    )  # fmt: skip
    assert lines[-2].count("█") > timeline.BAR_WIDTH // 2
    assert f"until {due:%Y-%m-%d %H:%M:%S}" in lines[-1]
    assert "░" in lines[-1]


def test_failed_attempts_show_their_error_in_one_line() -> None:
    failure = Failure("ValueError", "bad\nvalue", attempt=2, step="parse")
    lines = timeline.describe(
        run(step("parse", status="retrying", attempt=2, failure=failure))
    )
    assert "retrying, attempt 2" in lines[-2]
    assert lines[-1] == f"{'':10}ValueError: bad value"


def branch(place: int, seconds: float, **changes: t.Any) -> Run:
    return run(
        id=f"r1.b-{place}",
        branch=f"chunks[{place}]",
        parent_step="chunks",
        finished=BEGIN + timedelta(seconds=seconds),
        **changes,
    )


def test_of_many_branches_the_slowest_are_shown() -> None:
    branches = [branch(place, 100 - place) for place in range(20)]
    branches[7] = branch(7, 0, status=RunStatus.FAILED)
    branches[8] = branch(8, 9999, status=RunStatus.CANCELLED)
    branches[9] = branch(9, 0, status=RunStatus.PAUSED, reason="changed code")
    group = step("chunks", kind="group", status="waiting", attempt=0)
    family = Family({"chunks": branches})
    shown = [one.branch for one in family.shown(group)]
    assert shown == [f"chunks[{place}]" for place in (0, 1, 2, 3, 4, 7, 9)]
    lines = timeline.describe(run(group), family)
    assert f"{'':10}20 branches: 17 completed, 1 failed, 1 cancelled, 1 paused" in lines
    assert f"{'':12}changed code" in lines


def test_a_branch_that_runs_shows_its_progress() -> None:
    running = branch(
        0,
        0,
        status=RunStatus.RUNNING,
        progress=RunProgress(0.4, BEGIN, "chunk 3 of 12"),
    )
    group = step("chunks", kind="group", status="waiting", attempt=0)
    lines = timeline.describe(run(group), Family({"chunks": [running]}))
    assert "chunks[0]     running, 40%" in lines[-1]


def test_a_wait_of_any_kind_says_what_it_waits_for() -> None:
    asked = step("answer", kind="url", status="waiting", about={"url": "approve"})
    assert timeline.describe(run(asked))[-1] == f"{'':10}url approve"


def test_a_long_result_is_cut_for_a_person_only() -> None:
    long = run(result="x" * 10_000)
    (line,) = [line for line in timeline.describe(long) if line.startswith("result")]
    assert len(line) < 400
    assert len(run_as_json(long)["result"]) == 10_000


def test_a_run_as_json_can_be_encoded() -> None:
    failure = Failure("ValueError", "bad")
    shown = run_as_json(run(step("one", failure=failure), failure=failure))
    again = json.loads(json.dumps(shown))
    assert again["created"] == "2026-11-21T12:00:00+00:00"
    assert again["failure"]["type"] == "ValueError"
    assert again["steps"][0]["failure"]["message"] == "bad"
    assert "steps" not in run_as_json(run(), steps=False)
