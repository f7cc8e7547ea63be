"""Whole runs of the example, on a real server."""

from __future__ import annotations

import pytest

from example_app import media
from example_app import recordings
from example_app.functions import TranscriptionRequested
from example_app.progress import progress_of
from example_app.progress import StepProgress

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


def test_of_several_chunks_only_the_one_that_failed_is_recognised_again(
    example: ExampleHarness, recognised: list[float]
) -> None:
    asked = TranscriptionRequested(audio_path=SAMPLE, tenant="ann", title="A clip")
    run = example.send_and_settle(asked, id="r1")

    assert run.status == "suspended"
    assert step_of("chunks").detail == "2 of 3"
    assert [step_of(name).state for name in ("split", "chunks", "join")] == [
        "done",
        "running",
        "waiting",
    ]

    example.advance(2)

    run = example.run_of("r1")
    assert run.status == "completed"
    assert run.result == {"chunks": 3, "words": 3}
    assert [recognised.count(start) for start in sorted(set(recognised))] == [1, 1, 2]
    assert step_of("publish").state == "done"
    recording = recordings.get("r1")
    assert recording is not None
    assert (recording.status, recording.text) == ("published", "word word word")


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
    asked = TranscriptionRequested(audio_path=SAMPLE, tenant="ann", title="A clip")
    example.send_and_settle(asked, id="r1")

    recording = recordings.get("r1")
    assert recording is not None
    assert shown == [16, 50, 83]
    assert progress_of(recording).percent == 100
