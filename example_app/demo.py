"""``flask --app example_app demo``: one recording from the clip to the library."""

from __future__ import annotations

import difflib
import json
import time
import typing as t
from datetime import datetime
from datetime import UTC
from pathlib import Path
from urllib.error import URLError
from urllib.parse import urlencode
from urllib.request import Request
from urllib.request import urlopen
from uuid import uuid4

import click
from flask import current_app
from flask.cli import with_appcontext

from flask_durable import DurableError

from . import recordings
from . import rehearsal
from . import storage
from .progress import Chunks
from .progress import chunks_of
from .progress import run_of
from .progress import STEPS

if t.TYPE_CHECKING:
    from flask_durable import Run

CLIP = storage.SAMPLES / "sense-and-sensibility-0920.wav"

#: Seconds without any change after which the demonstration gives up.
PATIENCE = 90


@click.command()
@click.argument("clip", type=click.Path(exists=True, dir_okay=False), default=str(CLIP))
@click.option(
    "--break",
    "rehearse",
    is_flag=False,
    flag_value="fail",
    default=None,
    type=click.Choice(["fail", "kill"]),
    help='"fail" (the default of a bare --break): a step fails twice. "kill": the '
    "worker is killed in the middle of a step.",
)
@click.option("--serve", is_flag=True, help="Stay up, to look at the page.")
@click.option("--port", default=0, help="Of the web app.  [default: a free one]")
@with_appcontext
def demo(clip: str, rehearse: str | None, serve: bool, port: int) -> None:
    """Publish CLIP (default: one that comes with the example).

    Starts an embedded server, the web app and a worker, sends the event over HTTP and
    shows what happens. The transcript goes to stdout, the rest to stderr.

    \b
    Examples:
      flask --app example_app demo
      flask --app example_app demo --break=kill
      flask --app example_app demo --serve recording.m4a
    """
    try:
        _demonstrate(Path(clip), rehearse, serve, port)
    except (DurableError, TimeoutError) as error:
        raise click.ClickException(str(error)) from error


def _demonstrate(clip: Path, rehearse: str | None, serve: bool, port: int) -> None:
    from flask_durable.cli.dev import DevStack

    _say("Starting the server, the web app and a worker …")
    with DevStack(port=port, processes=2, quiet=True) as stack:
        stack.wait_ready(timeout=60)
        recording_id = uuid4().hex
        _send(stack.url, recording_id, clip, rehearse)
        _report(recording_id, _follow(recording_id), clip)
        if serve:
            _say(f"\nThe page: {stack.url}/recordings/{recording_id}  (Ctrl-C stops)")
            stack.wait()


def _send(url: str, recording_id: str, clip: Path, rehearse: str | None) -> None:
    with clip.open("rb") as file:
        audio_path = storage.keep(file, recording_id, clip.name)
    event = {
        "name": "transcription/requested",
        "id": recording_id,
        "data": {
            "audio_path": audio_path,
            "title": clip.stem,
            "tenant": current_app.config["TENANT"],
            "rehearse": rehearse or "",
        },
    }
    request = Request(
        f"{url}/durable/events",
        data=json.dumps(event).encode(),
        headers={"Content-Type": "application/json"},
    )
    try:
        with urlopen(request, timeout=30) as response:
            _say(f"POST {url}/durable/events  →  {response.status}")
    except URLError as error:
        raise click.ClickException(
            f"The web app did not take the event: {error}"
        ) from None


def _follow(recording_id: str) -> Run:
    timeline = Timeline(recording_id)
    approved = False
    run = run_of(recording_id)
    while run is None or not run.status.finished:
        if time.monotonic() > timeline.last_change + PATIENCE:
            raise click.ClickException(f"Nothing has happened for {PATIENCE} seconds.")
        time.sleep(0.1)
        run = run_of(recording_id)
        if run is not None:
            timeline.show(run, chunks_of(run))
            if run.reason == "url" and not approved:
                approved = True
                _approve(recording_id)
    return run


def _approve(recording_id: str) -> None:
    """Do what the owner does: open the link in the mail, and press the button."""
    mails = recordings.mails(current_app.config["TENANT"])
    (link,) = [m.link for m in mails if m.recording_id == recording_id and m.link]
    with urlopen(link, timeout=30) as response:
        _say(f"The owner opens the link in the mail: GET  →  {response.status}")
    form = urlencode({"button": "Publish"}).encode()
    with urlopen(Request(link, data=form), timeout=30) as response:
        _say(f"The owner presses the button:         POST  →  {response.status}")


class Timeline:
    """Prints each step of a run when it starts, fails and is done."""

    def __init__(self, recording_id: str) -> None:
        self.recording_id = recording_id
        self.started = self.last_change = time.monotonic()
        self._told: set[object] = set()
        self._claims_at_kill: int | None = None

    def show(self, run: Run, chunks: Chunks) -> None:
        """Print the steps that changed."""
        for record in run.steps:
            if record.status == "done":
                tries = f", attempt {record.attempt}" if record.attempt > 1 else ""
                what = f"done in {record.duration or 0:.2f} s{tries}"
                self._tell(record.name, what, "green")
            elif record.kind == "group" and self._is_new(record.name):
                self._tell(record.name, f"started, {chunks.total} branches")
            elif record.kind == "url" and record.due is not None:
                self._tell(record.name, f"waits until {record.due:%-d %B}")
            elif record.failure is not None and self._is_new(
                record.name, record.attempt
            ):
                self._tell(record.name, f"attempt {record.attempt} failed", "red")
                _say(f"{'':32}{record.failure.message}{_again(run)}")
        done = {record.name for record in run.steps if record.status == "done"}
        current = next((name for name in STEPS if name not in done), "")
        if run.status == "running" and current not in ("", "chunks", "approval"):
            self._tell(current, "started")
        self._show_kill(chunks)
        if self._is_new("percent", chunks.percent):
            self.last_change = time.monotonic()

    def _show_kill(self, chunks: Chunks) -> None:
        if not rehearsal.was_killed(self.recording_id):
            return
        if self._claims_at_kill is None:
            self._claims_at_kill = chunks.claims
            kept = f"{chunks.done} of {chunks.total} are done"
            what = f"worker killed, {kept}; its lease lapses in 10 s"
            self._tell("chunks", what, "red")
        elif chunks.claims > self._claims_at_kill:
            self._tell("chunks", "taken over by another worker")

    def _tell(self, step: str, what: str, color: str | None = None) -> None:
        if self._is_new(step, what):
            self.last_change = time.monotonic()
            clock = f"{self.last_change - self.started:6.1f} s"
            _say(f"{clock}  {step:<22}{click.style(what, fg=color)}")

    def _is_new(self, *what: object) -> bool:
        new = what not in self._told
        self._told.add(what)
        return new


def _again(run: Run) -> str:
    if run.due is None or run.status != "suspended":
        return ""
    return f" Again in {(run.due - datetime.now(UTC)).total_seconds():.1f} s."


def _report(recording_id: str, run: Run, clip: Path) -> None:
    recording = recordings.get(recording_id)
    if run.status != "completed" or recording is None:
        reason = run.failure.message if run.failure else run.reason
        raise click.ClickException(f"The run {run.id} is {run.status.value}: {reason}")
    _say(f"The run {run.id} is completed: {json.dumps(run.result)}")
    reference = clip.with_suffix(".txt")
    if reference.exists():
        said = reference.read_text().split()
        right = words_right(said, recording.text.split())
        _say(f"{right} of {len(said)} words are right.")
    _say("")
    click.echo(recording.text)


def words_right(said: list[str], heard: list[str]) -> int:
    """Return the number of spoken words that were also heard, in this order."""
    matcher = difflib.SequenceMatcher(None, said, heard, autojunk=False)
    return sum(block.size for block in matcher.get_matching_blocks())


def _say(text: str) -> None:
    click.echo(text, err=True)
