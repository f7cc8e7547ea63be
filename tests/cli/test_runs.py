"""``flask durable runs``: lists, one run, its lines, signals and changes."""

from __future__ import annotations

import json
import threading
import typing as t
from datetime import datetime
from datetime import timezone

import pytest

from flask_durable import LogLine
from flask_durable import RunStatus

from ..support.harness import Harness
from .commands import explode
from .commands import rows
from .commands import Run


def test_runs_are_listed_newest_first_and_filtered(run: Run, driven: Harness) -> None:
    for name in ("greeting/asked", "nap/asked", "repair/asked"):
        driven.send_and_settle(name, {"name": "ada"})
    assert [row[1] for row in rows(run("runs", "list"))] == ["repair", "nap", "greet"]
    assert [row[1] for row in rows(run("runs", "list", "--limit", "1"))] == ["repair"]
    failed = rows(run("runs", "list", "--status", "failed"))
    assert [row[1:4] for row in failed] == [["repair", "failed", "repair/asked"]]
    assert [row[1] for row in rows(run("runs", "list", "--function", "nap"))] == ["nap"]
    listed = json.loads(run("runs", "list", "--json").stdout)
    assert [item["status"] for item in listed] == ["failed", "suspended", "completed"]


def test_an_unknown_status_is_wrong_usage(run: Run) -> None:
    assert run("runs", "list", "--status", "tired").exit_code == 2


def test_a_run_is_shown_with_its_steps_and_its_failure(
    run: Run, driven: Harness
) -> None:
    failed = driven.send_and_settle("repair/asked", {})
    result = run("runs", "show", failed.id)
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert f"run       {failed.id}" in lines
    assert any(line.startswith("status    failed, took ") for line in lines)
    assert any("prepare  done" in line for line in lines)
    assert any("repair   failed" in line for line in lines)
    assert "          RuntimeError: out of order" in lines
    assert "Traceback (most recent call last):" in result.stdout


def test_a_queued_run_is_shown_with_why_its_message_failed(
    driven: Harness, run: Run
) -> None:
    driven.in_place = 0
    event_id = driven.send("greeting/asked", {"name": "ada"})
    driven.route()
    id = driven.run_of(event_id).id
    assert "message" not in run("runs", "show", id).stdout
    driven.state.failures.note({f"run:{id}": "OSError: No space left on device"})
    shown = run("runs", "show", id).stdout
    assert "message   failed: OSError: No space left on device" in shown
    found = json.loads(run("runs", "show", id, "--json").stdout)
    assert found["message_error"] == "OSError: No space left on device"


def test_a_sleeping_run_is_shown_with_the_time_it_wakes(
    run: Run, driven: Harness
) -> None:
    asleep = driven.send_and_settle("nap/asked", {})
    assert asleep.due is not None
    until = asleep.due.strftime("until %Y-%m-%d %H:%M:%S")
    shown = run("runs", "show", asleep.id).stdout
    assert f"suspended (sleep) {until} UTC" in shown
    assert f"nap (sleep)  waiting  {until}" in shown


def test_a_step_that_invoked_a_run_is_shown_with_that_run(
    run: Run, driven: Harness
) -> None:
    @driven.durable.function(on=None)
    def callee(event: t.Any, step: t.Any) -> None:
        step.sleep("night", "8h")

    @driven.durable.function(on="call/asked", retries=0)
    def caller(event: t.Any, step: t.Any) -> None:
        step.invoke("call", callee)

    driven.publish()
    parent = driven.send_and_settle("call/asked", {})
    [child] = driven.runs.list(parent=parent.id)

    shown = run("runs", "show", parent.id).stdout
    assert "call (invoke)  waiting" in shown
    (drawn,) = [line for line in shown.splitlines() if line.endswith(child.id)]
    assert drawn.split()[1:4] == ["callee", "suspended", "(sleep)"]
    assert "░" in drawn
    assert f"parent    {parent.id}" in run("runs", "show", child.id).stdout
    listed = rows(run("runs", "list", "--parent", parent.id))
    assert [row[0] for row in listed] == [child.id]
    found = json.loads(run("runs", "show", parent.id, "--json").stdout)
    assert (found["parent"], found["steps"][0]["child"]) == (None, child.id)
    [shown_child] = found["steps"][0]["children"]
    assert (shown_child["id"], shown_child["status"]) == (child.id, "suspended")

    run("runs", "cancel", parent.id)
    shown = run("runs", "show", parent.id).stdout
    assert (
        f"{'':12}the run that invoked it does not wait any more" in shown.splitlines()
    )
    assert lines_with(shown, "callee cancelled")


def lines_with(text: str, part: str) -> list[str]:
    """Return the lines with these words, one space apart."""
    return [line for line in text.splitlines() if part in " ".join(line.split())]


def test_branches_are_drawn_under_their_step_with_bars_of_their_own(
    run: Run, driven: Harness
) -> None:
    @driven.durable.function(on="film/made", retries=0)
    def make(event: t.Any, step: t.Any) -> None:
        step.parallel(
            "media",
            audio=lambda step: step.run("cut", str),
            approved=lambda step: step.wait_for_signal("answer", "ok", timeout="7d"),
        )

    driven.publish()
    parent = driven.send_and_settle("film/made", {})
    approved, audio = sorted(
        driven.runs.list(parent=parent.id), key=lambda branch: branch.branch
    )

    shown = run("runs", "show", parent.id).stdout
    step = shown.splitlines().index(*lines_with(shown, "media (group) waiting"))
    first, second = shown.splitlines()[step + 1 : step + 3]
    assert first.split()[1:4] == ["media[approved]", "suspended", "(signal)"]
    assert f"until {approved.due:%Y-%m-%d %H:%M:%S}" in first
    assert second.split()[1:3] == ["media[audio]", "completed"]
    assert [line.split()[-1] for line in (first, second)] == [approved.id, audio.id]
    assert ("░" in first, "█" in second) == (True, True)
    assert "cut" not in shown
    assert f"branch    {audio.branch}" in run("runs", "show", audio.id).stdout
    listed = rows(run("runs", "list", "--parent", parent.id))
    assert {row[0]: row[-1] for row in listed} == {
        approved.id: "media[approved]",
        audio.id: "media[audio]",
    }

    unfolded = run("runs", "show", parent.id, "--branches").stdout
    (cut,) = lines_with(unfolded, "cut done")
    (answer,) = lines_with(unfolded, "answer (signal) waiting")
    assert (cut.index("cut"), answer.index("answer")) == (14, 14)
    assert f"{'':14}signal ok" in unfolded.splitlines()


def chunked(driven: Harness, number: int) -> str:
    """Return the id of a run with a map of *number* items, of which two fail."""

    def chunk(item: str, step: t.Any) -> None:
        step.run("look", explode if item[:2] in ("7 ", "9 ") else str)

    @driven.durable.function(on="chunks/made", retries=0)
    def make(event: t.Any, step: t.Any) -> None:
        items = [f"{place} {'large' * 1000}" for place in range(number)]
        step.map("chunks", chunk, items, tolerate=2)

    driven.publish()
    return t.cast(str, driven.send_and_settle("chunks/made", {}).id)


def test_many_branches_are_folded_to_the_failed_and_the_slowest_ones(
    run: Run, driven: Harness
) -> None:
    id = chunked(driven, 40)
    shown = run("runs", "show", id).stdout
    assert f"{'':10}40 branches: 38 completed, 2 failed" in shown.splitlines()
    drawn = lines_with(shown, "s chunks[")
    failed = [line.split()[1] for line in drawn if "failed" in line]
    assert failed == ["chunks[7]", "chunks[9]"]
    assert 2 < len(drawn) <= 10
    assert shown.count(f"{'':12}RuntimeError: out of order") == 2

    found = json.loads(run("runs", "show", id, "--json").stdout)["steps"][0]
    assert found["branches"] == {"completed": 38, "failed": 2}
    assert len(found["children"]) == len(drawn)
    failures = [child["failure"] for child in found["children"]]
    assert [f["message"] for f in failures if f] == ["out of order"] * 2

    unfolded = run("runs", "show", id, "--branches")
    places = [line.split()[1] for line in lines_with(unfolded.stdout, "s chunks[")]
    assert places == [f"chunks[{place}]" for place in range(40)]
    assert len(lines_with(unfolded.stdout, "look done")) == 38
    whole = json.loads(run("runs", "show", id, "--branches", "--json").stdout)
    steps = [child["steps"][0]["name"] for child in whole["steps"][0]["children"]]
    assert steps == [f"chunks[{place}]/look" for place in range(40)]


def test_branches_that_are_not_drawn_are_read_in_brief(
    run: Run, driven: Harness
) -> None:
    id = chunked(driven, 40)
    client = driven.state.server.client
    client.config_resetstat()
    run("runs", "show", id)
    stats = client.info("commandstats")
    # The run and its steps, and the two failed branches.
    assert stats["cmdstat_hgetall"]["calls"] <= 6
    assert stats["cmdstat_hmget"]["calls"] >= 40


def test_a_run_as_json_has_everything(run: Run, driven: Harness) -> None:
    done = driven.send_and_settle("greeting/asked", {"name": "ada"})
    shown = json.loads(run("runs", "show", done.id, "--json").stdout)
    assert shown["id"] == done.id
    assert shown["event"]["data"] == {"name": "ada"}
    assert shown["result"] == {"greeting": "Ada"}
    (step,) = shown["steps"]
    assert (step["name"], step["status"], step["value"]) == ("look-up", "done", "Ada")
    assert step["started"].endswith("+00:00")
    (claim,) = shown["claims"]
    assert claim.pop("at").endswith("+00:00")
    assert claim.pop("queued") >= 0
    assert claim.pop("lasted") >= 0
    assert claim == {"number": 1, "ended": "completed"}


def keep_lines(driven: Harness, id: str, *messages: str) -> None:
    at = datetime(2026, 1, 2, 3, 4, 5, 678000, timezone.utc)
    lines = [LogLine(0, at, "info", "shop", "look-up", 1, text) for text in messages]
    driven.state.run_log_store.append([(id, [line.dump() for line in lines])])


def test_the_lines_of_a_run_are_shown_when_they_are_asked_for(
    run: Run, driven: Harness
) -> None:
    done = driven.send_and_settle("greeting/asked", {"name": "ada"})
    assert run("runs", "show", done.id, "--logs").stdout.endswith("\nNo lines.\n")
    keep_lines(driven, done.id, "one\ntwo\x1b[2J")

    assert "shop" not in run("runs", "show", done.id).stdout
    assert run("runs", "show", done.id, "--logs").stdout.endswith(
        "\n2026-01-02 03:04:05.678 INFO    shop: one\n    two\\x1b[2J [look-up]\n"
    )
    found = json.loads(run("runs", "show", done.id, "--logs", "--json").stdout)
    assert found["logs"] == [
        {
            "number": 1,
            "at": "2026-01-02T03:04:05.678000+00:00",
            "level": "info",
            "logger": "shop",
            "step": "look-up",
            "attempt": 1,
            "message": "one\ntwo\x1b[2J",
        }
    ]


def test_lines_of_a_run_are_followed_up_to_its_end(run: Run, driven: Harness) -> None:
    asleep = driven.send_and_settle("nap/asked", {})
    keep_lines(driven, asleep.id, "first")

    def end() -> None:
        keep_lines(driven, asleep.id, "second")
        driven.runs.cancel(asleep.id)
        keep_lines(driven, asleep.id, "late")

    timer = threading.Timer(0.1, end)
    timer.start()
    result = run("runs", "show", asleep.id, "--follow", "--json")
    timer.join()

    lines = [json.loads(line)["message"] for line in result.stdout.splitlines()]
    assert lines == ["first", "second", "late"]
    text = run("runs", "show", asleep.id, "--follow")
    assert "shop: first" in text.stdout
    assert f"Run {asleep.id} is cancelled." in text.stderr


def test_a_run_that_does_not_exist_is_an_error(run: Run) -> None:
    result = run("runs", "show", "nothing")
    assert result.exit_code == 1
    assert "There is no run 'nothing'." in result.stderr


def approval_asked(driven: Harness) -> str:
    """Return the id of a run that waits for the signal ``approve``."""

    @driven.durable.function(on="approval/asked")
    def approve(event: t.Any, step: t.Any) -> t.Any:
        return step.wait_for_signal("answer", "approve", timeout="7d")

    driven.publish()
    return t.cast(str, driven.send_and_settle("approval/asked", {}).id)


def test_a_signal_is_given_to_a_run_once_for_each_id(run: Run, driven: Harness) -> None:
    id = approval_asked(driven)
    signal = ("runs", "signal", id, "approve")
    assert run(*signal, '["Ada"]', "--id", "s1").stdout == "s1\n"
    assert run(*signal, "2", "--id", "s1", "--json").stdout == '{"id": "s1"}\n'
    driven.settle()
    assert driven.runs.get(id).result == ["Ada"]


@pytest.mark.parametrize(
    ("input", "result"), [(None, None), ('{"by": "Ada"}', {"by": "Ada"})]
)
def test_a_signal_without_data_has_none_and_may_be_read_from_standard_input(
    run: Run, driven: Harness, input: str | None, result: t.Any
) -> None:
    id = approval_asked(driven)
    given = run("runs", "signal", id, "approve", *(["-"] if input else []), input=input)
    assert len(given.stdout.strip()) == 26
    driven.settle()
    done = driven.runs.get(id)
    assert (done.status, done.result) == (RunStatus.COMPLETED, result)


def test_a_signal_that_no_run_takes_is_exit_code_1_and_bad_data_2(
    run: Run, driven: Harness
) -> None:
    done = driven.send_and_settle("greeting/asked", {"name": "ada"})
    finished = run("runs", "signal", done.id, "approve")
    assert finished.exit_code == 1
    assert "a finished run takes no signal" in finished.stderr
    missing = run("runs", "signal", "nothing", "approve")
    assert (missing.exit_code, missing.stdout) == (1, "")
    assert "There is no run 'nothing'." in missing.stderr
    wrong = run("runs", "signal", done.id, "not a name!")
    assert wrong.exit_code == 1
    assert "its name may only have letters" in wrong.stderr
    assert run("runs", "signal", done.id, "approve", "{").exit_code == 2


def test_runs_are_cancelled_with_a_reason(run: Run, driven: Harness) -> None:
    asleep = [driven.send_and_settle("nap/asked", {}) for _ in range(2)]
    ids = [one.id for one in asleep]
    result = run("runs", "cancel", *ids, "--reason", "not tired")
    assert result.exit_code == 0
    assert rows(result) == [[id, "cancelled"] for id in ids]
    assert driven.runs.get(ids[0]).reason == "not tired"


def test_what_one_run_refuses_does_not_keep_the_others_from_it(
    run: Run, driven: Harness
) -> None:
    failed = driven.send_and_settle("repair/asked", {})
    done = driven.send_and_settle("greeting/asked", {"name": "ada"})
    result = run("runs", "retry", done.id, "nothing", failed.id, "--json")
    assert result.exit_code == 1
    first, second, third = json.loads(result.stdout)
    assert first["code"] == "run.state"
    assert second["code"] == "run.not_found"
    assert third == {"id": failed.id, "status": "queued"}
    assert "There is no run 'nothing'." in result.stderr


def test_a_run_that_is_not_paused_cannot_be_resumed(run: Run, driven: Harness) -> None:
    asleep = driven.send_and_settle("nap/asked", {})
    result = run("runs", "resume", asleep.id)
    assert result.exit_code == 1
    assert result.stdout == ""
    assert asleep.id in result.stderr
