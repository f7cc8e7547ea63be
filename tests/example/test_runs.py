"""Whole runs of the example, on a real server."""

from __future__ import annotations

import json
import re

import pytest

from example_app import media
from example_app import recordings
from example_app.functions import TranscriptionRequested
from example_app.progress import progress_of
from example_app.progress import StepProgress
from flask_durable import Run

from .conftest import ExampleHarness

SAMPLE = "samples/sense-and-sensibility-0920.wav"


@pytest.fixture
def recognised(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The chunks that a recogniser without PocketSphinx was given, by their starts."""
    starts: list[float] = []

    def transcribe(
        sound: object, chunk: media.Chunk, mean: str, heard: object
    ) -> list[media.Passage]:
        starts.append(chunk.start)
        if starts.count(chunk.start) == 1 and chunk.start > 3:
            raise ConnectionError("The recogniser is away.")
        return [media.Passage(chunk.start + 0.5, chunk.end, "word")]

    monkeypatch.setattr(media, "transcribe", transcribe)
    return starts


def step_of(name: str) -> StepProgress:
    recording = recordings.get("r1")
    assert recording is not None
    (found,) = [step for step in progress_of(recording).steps if step.name == name]
    return found


def send(example: ExampleHarness) -> Run:
    asked = TranscriptionRequested(audio_path=SAMPLE, tenant="home", title="A clip")
    return example.send_and_settle(asked, id="r1")


def test_of_several_chunks_only_the_one_that_failed_is_recognised_again(
    example: ExampleHarness, recognised: list[float]
) -> None:
    run = send(example)

    assert (run.status, run.reason) == ("suspended", "branches")
    assert step_of("chunks").detail == "2 of 3"
    assert [step_of(name).state for name in ("split", "chunks", "join")] == [
        "done",
        "running",
        "waiting",
    ]

    example.advance(2)

    assert step_of("join").state == "done"
    assert [recognised.count(start) for start in sorted(set(recognised))] == [1, 1, 2]
    recording = recordings.get("r1")
    assert recording is not None
    assert recording.text == "word word word"


def test_it_is_published_by_the_button_behind_the_link_in_the_mail(
    example: ExampleHarness, recognised: list[float]
) -> None:
    # Given a recording whose owner is asked
    send(example)
    example.advance(2)
    client = example.app.test_client()
    assert example.run_of("r1").reason == "url"
    assert step_of("approval").state == "asking"
    assert "Only you can see it" in client.get("/recordings/r1").text
    (link,) = re.findall(r'href="(http://library.test/[^"]+)', client.get("/mail").text)
    path = link.removeprefix("http://library.test")

    # When the owner opens the link, nothing happens yet
    page = client.get(path)
    example.settle()
    assert "Publish “A clip”?" in page.text
    assert example.run_of("r1").status == "suspended"

    # And when the button is pressed, all can see it
    assert client.post(path, data={"button": "Publish"}).status_code == 200
    example.settle()
    assert example.run_of("r1").result == {"chunks": 3, "words": 3, "published": True}
    example.app.config["TENANT"] = "bob"
    assert "published" in client.get("/recordings/r1").text
    assert link not in client.get("/mail").text
    example.app.config["TENANT"] = "home"
    assert "3 words, ready to read." in client.get("/mail").text
    assert link not in client.get("/mail").text


def test_a_long_title_is_no_reason_to_fail(
    example: ExampleHarness, recognised: list[float]
) -> None:
    asked = TranscriptionRequested(
        audio_path=SAMPLE, tenant="home", title=300 * "long "
    )
    example.send_and_settle(asked, id="r1")
    example.advance(2)

    assert example.run_of("r1").reason == "url"


def test_without_an_answer_it_stays_unpublished(
    example: ExampleHarness, recognised: list[float]
) -> None:
    send(example)
    example.advance(2)

    example.advance(8 * 24 * 3600)

    assert example.run_of("r1").result == {"chunks": 3, "words": 3, "published": False}
    assert step_of("publish").state == "skipped"
    client = example.app.test_client()
    assert "did not publish it in time" in client.get("/recordings/r1").text
    example.app.config["TENANT"] = "bob"
    assert client.get("/recordings/r1").status_code == 404


def test_the_link_is_in_no_log(
    example: ExampleHarness,
    recognised: list[float],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("DEBUG")
    send(example)
    example.advance(2)

    (mail,) = recordings.mails("home")
    assert mail.link.startswith("http://library.test/durable/answers/")
    token = mail.link.rpartition("/")[2]
    written = [json.dumps(vars(record), default=str) for record in caplog.records]
    assert written
    assert not [line for line in written if token in line]


def test_the_bar_shows_what_the_chunks_have_told(
    example: ExampleHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[int] = []

    def transcribe(
        sound: object, chunk: media.Chunk, mean: str, heard: media.Heard
    ) -> list[media.Passage]:
        heard(chunk.seconds / 2)
        recording = recordings.get("r1")
        assert recording is not None
        shown.append(progress_of(recording).percent)
        return []

    monkeypatch.setattr(media, "transcribe", transcribe)
    send(example)

    recording = recordings.get("r1")
    assert recording is not None
    assert shown == [16, 50, 83]
    assert progress_of(recording).percent == 100
