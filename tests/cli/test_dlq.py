"""``flask durable dlq`` on a real server."""

from __future__ import annotations

import json
import typing as t

import pytest

from flask_durable.cli import dlq
from flask_durable.messages import EVENT_QUEUE

from ..support.harness import Harness
from .commands import rows
from .commands import Run


@pytest.fixture
def buried(driven: Harness) -> Harness:
    """Put three events into the dead letters: two greetings and a repair."""
    state = driven.state
    for number, name in enumerate(("greeting/asked", "greeting/asked", "repair/asked")):
        message = state.message(name, {"name": "ada"}, id=f"event-{number}")
        state.message_sender.send_dead(
            EVENT_QUEUE, message.encode(), f"because {number}"
        )
    return driven


def count(harness: Harness) -> int:
    return harness.state.dead_letters.count()


def test_every_command_has_help_with_examples(run: Run) -> None:
    for name in ("list", "show", "redrive", "purge", "adopt"):
        assert f"flask durable dlq {name}" in run("dlq", name, "--help").output


def test_letters_are_listed_with_their_reasons(buried: Harness, run: Run) -> None:
    found = rows(run("dlq", "list"))
    assert [row[1] for row in found] == ["greeting/asked"] * 2 + ["repair/asked"]
    assert [row[4] for row in found] == ["because 0", "because 1", "because 2"]
    [row] = json.loads(run("dlq", "list", "--event", "repair/asked", "--json").stdout)
    assert row["event_id"] == "event-2"
    assert row["message"]["data"] == {"name": "ada"}
    assert row["dead"].endswith("+00:00")
    assert "There may be more" in run("dlq", "list", "--limit", "2").stderr


def test_what_another_installation_has_sent_can_be_adopted(
    driven: Harness, run: Run
) -> None:
    home = "5f0c9a7e1b2d4c6f8a9b0c1d2e3f4a5b"
    assert not driven.state.installation.owns(home)
    assert home in run("dlq", "adopt", home).output
    driven.state.forget_collaborators()
    assert driven.state.installation.owns(home)
    assert run("dlq", "adopt", "another").exit_code == 2


def test_an_empty_list_says_so(driven: Harness, run: Run) -> None:
    result = run("dlq", "list")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "No such dead letters." in result.stderr


def test_a_letter_is_shown_with_its_body(buried: Harness, run: Run) -> None:
    id = rows(run("dlq", "list"))[0][0]
    shown = run("dlq", "show", id).stdout
    assert f"letter    {id}" in shown
    assert "reason    because 0" in shown
    assert "event     greeting/asked event-0" in shown
    assert '"name": "ada"' in shown
    assert json.loads(run("dlq", "show", id, "--json").stdout)["id"] == id


def test_the_last_error_is_shown_where_the_reason_has_none(
    buried: Harness, run: Run
) -> None:
    buried.state.failures.note({"event:event-0": "ValueError: spilt"})
    buried.state.failures.note({"event:event-1": "because 1"})
    first, second, *_ = rows(run("dlq", "list"))
    assert "error     ValueError: spilt" in run("dlq", "show", first[0]).stdout
    assert "error" not in run("dlq", "show", second[0]).stdout
    assert rows(run("dlq", "list", "--reason", "SPILT")) == [first]


def test_a_letter_that_cannot_be_decoded_is_shown(driven: Harness, run: Run) -> None:
    driven.state.message_sender.send_dead(EVENT_QUEUE, "\x1b[2J{nonsense", "not JSON")
    [[id, about, *_]] = rows(run("dlq", "list"))
    assert about == "?"
    assert "\\x1b[2J{nonsense" in run("dlq", "show", id).stdout
    assert json.loads(run("dlq", "show", id, "--json").stdout)["message"] is None


def test_a_letter_that_is_not_there_is_exit_code_1(driven: Harness, run: Run) -> None:
    for command in (("show",), ("redrive",), ("purge", "--yes")):
        result = run("dlq", *command, "events/1-0")
        assert result.exit_code == 1
        assert "There is no dead letter 'events/1-0'" in result.stderr
        assert "Hint: " in result.stderr


def test_one_is_moved_back_and_runs(buried: Harness, run: Run) -> None:
    id = rows(run("dlq", "list"))[0][0]
    result = run("dlq", "redrive", id)
    assert (result.exit_code, result.stdout) == (0, "1 dead letter(s) moved back.\n")
    buried.settle()
    assert buried.run_of("event-0").status == "completed"
    assert count(buried) == 2


def test_some_are_moved_back_when_it_is_confirmed(buried: Harness, run: Run) -> None:
    command = ("dlq", "redrive", "--event", "greeting/asked", "--rate", "1000")
    result = run(*command, input="n\n")
    assert result.exit_code == 1
    assert "Move those that fit of 3 dead letter(s) back?" in result.stderr
    assert count(buried) == 3
    result = run(*command, input="y\n")
    assert result.exit_code == 0
    assert "2 dead letter(s) moved back." in result.stdout
    assert count(buried) == 1


def test_all_are_moved_back_or_so_many(buried: Harness, run: Run) -> None:
    result = run("dlq", "redrive", "--all", "--limit", "1", "--yes", "--json")
    assert json.loads(result.stdout) == {
        "done": 1,
        "failed": 0,
        "error": None,
        "complete": True,
    }
    assert run("dlq", "redrive", "--all", "--yes").exit_code == 0
    assert count(buried) == 0


@pytest.mark.parametrize("command", ["redrive", "purge"])
def test_nothing_is_done_without_saying_to_which(
    buried: Harness, run: Run, command: str
) -> None:
    for arguments in ((), ("--yes",), ("events/1-0", "--all"), ("x/1", "--run", "a")):
        result = run("dlq", command, *arguments)
        assert result.exit_code == 2
        assert "or --all" in result.stderr
    assert count(buried) == 3


def test_letters_are_deleted_only_when_it_is_confirmed(
    buried: Harness, run: Run
) -> None:
    id = rows(run("dlq", "list"))[0][0]
    assert run("dlq", "purge", id).exit_code == 1
    assert count(buried) == 3
    assert run("dlq", "purge", id, "--yes").stdout == "1 dead letter(s) deleted.\n"
    assert "2 dead letter(s) deleted." in run("dlq", "purge", "--all", "--yes").stdout
    assert count(buried) == 0
    buried.settle()
    assert buried.state.runs.list() == []


def test_what_was_not_moved_is_exit_code_1(
    buried: Harness, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    streams = buried.state.transport

    def refuse(name: str, keys: list[str], ids: list[str]) -> t.NoReturn:
        import redis

        raise redis.ResponseError("full")

    monkeypatch.setattr(streams, "run", refuse)
    result = run("dlq", "redrive", "--all", "--yes")
    assert result.exit_code == 1
    assert "3 dead letter(s) were not moved back: ResponseError: full" in result.stderr
    assert count(buried) == 3


def test_many_are_moved_back_under_a_progress_bar(
    buried: Harness, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[int] = []

    class Bar:
        def __init__(self, length: int, **options: t.Any) -> None:
            assert length == 3

        def __enter__(self) -> Bar:
            return self

        def __exit__(self, *exc_info: object) -> None: ...

        def update(self, looked: int) -> None:
            shown.append(looked)

    monkeypatch.setattr(dlq, "MANY", 3)
    monkeypatch.setattr(dlq, "_for_a_person", lambda: True)
    monkeypatch.setattr(dlq.click, "progressbar", Bar)
    assert run("dlq", "redrive", "--all", "--yes").exit_code == 0
    assert sum(shown) == 3
