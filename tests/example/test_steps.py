from __future__ import annotations

import io
import typing as t
from dataclasses import replace
from datetime import datetime
from datetime import UTC
from pathlib import Path

import pytest
from flask import Flask
from sqlalchemy import select
from sqlalchemy import text

from example_app import media
from example_app import recordings
from example_app import search
from example_app import steps
from example_app import storage
from example_app.embedding import embed
from example_app.functions import report_failure
from example_app.functions import transcribe_audio
from example_app.functions import TranscriptionRequested
from example_app.models import db
from example_app.models import Mail
from example_app.models import Recording
from flask_durable import Event
from flask_durable import Failure
from flask_durable.functions.address import Address

SAMPLE = "samples/sense-and-sensibility-0920.wav"


class PlainStep:
    """Calls each step, and notes its name.

    :param answer: The answer of the recording's owner.
    """

    def __init__(self, answer: dict[str, t.Any] | None = None) -> None:
        self.names: list[str] = []
        self.answer = answer

    def run(self, id: str, fn: t.Callable[..., t.Any], *args: t.Any) -> t.Any:
        self.names.append(id)
        return fn(*args)

    def transaction(self, id: str, fn: t.Callable[..., t.Any], *args: t.Any) -> t.Any:
        self.run(id, fn, *args)
        db.session.commit()

    def map(
        self,
        id: str,
        fn: t.Callable[[t.Any], t.Any],
        items: t.Iterable[t.Any],
        *,
        limit: int,
    ) -> list[t.Any]:
        return [self.run(f"{id}[{n}]", fn, item) for n, item in enumerate(items)]

    def create_url(self, id: str, **page: t.Any) -> Address:
        self.names.append(id)
        return Address("http://library.test/link", datetime.now(UTC), "run")

    def wait_for_url(self, id: str, url: Address) -> dict[str, t.Any] | None:
        self.names.append(id)
        return self.answer


def requested(path: str = SAMPLE, **values: t.Any) -> Event[TranscriptionRequested]:
    data = TranscriptionRequested(audio_path=path, tenant="ann", **values)
    return Event.of(data, id="r1")


def rows(model: t.Any) -> t.Sequence[t.Any]:
    return db.session.scalars(select(model)).all()


def indexed(id: str, words: str) -> media.Transcript:
    """Carry out the steps from the words to the index."""
    transcript = steps.join(id, [[media.Passage(0, 1, words)]])
    steps.index(id, transcript, embed(words))
    return transcript


def test_the_function_publishes_a_recording(app: Flask) -> None:
    step = PlainStep({"button": "Publish"})

    result = transcribe_audio(requested(title="A clip"), t.cast(t.Any, step))

    assert step.names == [
        "fetch-audio-metadata",
        "transcode",
        "split",
        "chunks[0]",
        "chunks[1]",
        "chunks[2]",
        "join",
        "embed",
        "index",
        "approval-link",
        "ask-owner",
        "approval",
        "publish",
    ]
    recording = recordings.get("r1")
    assert recording is not None
    assert recording.status == "published"
    assert recording.title == "A clip"
    assert recording.segments == 2
    words = len(recording.text.split())
    assert result == {"chunks": 3, "words": words, "published": True}
    assert [hit.recording_id for hit in search.find("amiable woman", "bob")] == ["r1"]
    assert [
        hit.recording_id for hit in search.like("maried a more amiable", "bob")
    ] == ["r1"]
    assert [(mail.tenant, mail.link) for mail in rows(Mail)] == [
        ("ann", "http://library.test/link"),
        ("ann", ""),
    ]
    assert not storage.sound_file("r1").exists()


def test_every_step_run_twice_leaves_one_result(app: Flask) -> None:
    passages = [[media.Passage(0.0, 1.0, "once upon")], [media.Passage(2, 3, "a time")]]

    for _ in range(2):
        metadata = steps.fetch_audio_metadata("r1", SAMPLE, "A clip", "ann")
        stream = steps.transcode("r1", SAMPLE, "")
        speech = steps.split("r1", SAMPLE)
    for _ in range(2):
        transcript = steps.join("r1", passages)
        steps.index("r1", transcript, embed(transcript.text))
        steps.ask_owner("r1", "ann", "http://library.test/link", datetime.now(UTC))

    assert metadata.codec == "pcm_s16le"
    assert len(stream.segments) == 2
    assert len(speech.chunks) == 3
    assert len(rows(Recording)) == len(rows(Mail)) == 1
    assert len(search.find("once upon a time", "ann")) == 1
    assert len(list((storage.media_folder() / "streams").iterdir())) == 1
    assert list((storage.media_folder() / "sounds").iterdir()) == []


def test_a_new_transcript_replaces_the_old_one(app: Flask) -> None:
    recordings.add("r1", title="A clip", tenant="ann")
    indexed("r1", "elephant")
    indexed("r1", "giraffe")

    assert search.find("elephant", "ann") == []
    assert len(search.find("giraffe", "ann")) == 1


def test_index_writes_words_and_embedding_together(
    app: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    recordings.add("r1", title="A clip", tenant="ann")

    def die(*args: object, **values: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(recordings, "change", die)
    with pytest.raises(KeyboardInterrupt):
        steps.index("r1", media.Transcript([media.Passage(0, 1, "elephant")]), [])
    db.session.remove()

    assert search.find("elephant", "ann") == []


def test_publishing_leaves_the_commit_to_its_step(app: Flask) -> None:
    recordings.add("r1", title="A clip", tenant="ann")

    steps.publish("r1", "ann", 17)
    db.session.rollback()

    assert rows(Mail) == []
    recording = recordings.get("r1")
    assert recording is not None
    assert recording.status == "queued"


def test_bad_input_is_named_on_the_page(app: Flask) -> None:
    path = storage.keep(io.BytesIO(b"Dear diary,\n" * 900), "r1", "diary.wav")
    with pytest.raises(media.UnusableAudio) as caught:
        transcribe_audio(requested(path), t.cast(t.Any, PlainStep()))

    report_failure(
        requested(path), t.cast(t.Any, PlainStep()), Failure.of(caught.value)
    )

    recording = recordings.get("r1")
    assert recording is not None
    assert recording.status == "failed"
    assert recording.reason == "This file is not audio that can be read."


def test_a_late_failure_takes_no_words_away(app: Flask) -> None:
    recordings.add("r1", title="A clip", tenant="ann")
    indexed("r1", "elephant")

    steps.mark_failed("r1", "The owner has no address.")
    recording = recordings.get("r1")
    assert recording is not None
    assert (recording.status, recording.text) == ("failed", "elephant")

    recordings.update("r1", status="published", reason="")
    steps.mark_failed("r1", "The disk is full.")
    recording = recordings.get("r1")
    assert recording is not None
    assert (recording.status, recording.reason) == ("published", "")


@pytest.mark.parametrize(
    "path",
    [
        "",
        "uploads",
        "uploads/",
        "uploads/../library.db",
        "uploads/..",
        "samples/../functions.py",
        "samples//etc/passwd",
        "/etc/passwd",
        "../../etc/passwd",
        "file:///etc/passwd",
        "http://127.0.0.1/x.wav",
        "uploads/nothing.wav",
        "samples/\0.wav",
    ],
)
def test_an_audio_path_leads_nowhere_else(app: Flask, path: str) -> None:
    (storage.media_folder() / "uploads").mkdir(parents=True)
    with pytest.raises(media.UnusableAudio):
        storage.find(path)


@pytest.mark.parametrize(
    ("filename", "kept"),
    [
        ("talk.MP3", "uploads/r1.mp3"),
        ("../../evil.wav", "uploads/r1.wav"),
        ("C:\\evil.wav", "uploads/r1.wav"),
        ("a/b/..", "uploads/r1"),
        (".bashrc", "uploads/r1"),
        ("x.wav/../../y", "uploads/r1"),
        ("x.w v", "uploads/r1"),
        ("x." + "a" * 300, "uploads/r1"),
    ],
)
def test_of_a_file_name_only_a_plain_suffix_is_used(
    app: Flask, filename: str, kept: str
) -> None:
    assert storage.keep(io.BytesIO(b"sound"), "r1", filename) == kept
    assert storage.find(kept).read_bytes() == b"sound"


@pytest.mark.parametrize("recording_id", ["..", ".", "a:b"])
def test_an_id_cannot_name_another_folder(app: Flask, recording_id: str) -> None:
    folder = storage.stream_folder(recording_id).resolve()

    assert folder.parent == (storage.media_folder() / "streams").resolve()


def test_a_file_is_stored_whole_or_not_at_all(app: Flask) -> None:
    class Broken(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            raise ConnectionError("the browser is gone")

    with pytest.raises(ConnectionError):
        storage.keep(Broken(), "r1", "talk.wav")
    with pytest.raises(media.UnusableAudio):
        storage.find("uploads/r1.wav")


def test_rehearsals_do_nothing_where_they_are_switched_off(app: Flask) -> None:
    app.config["REHEARSALS"] = False

    steps.transcode("r1", SAMPLE, "fail")
    speech = steps.split("r1", SAMPLE)
    last = media.Chunk(5, 6)
    steps.transcribe("r1", last, replace(speech, chunks=[last]), "kill")


def test_tables_are_made_by_several_processes_at_once(tmp_path: Path) -> None:
    import subprocess
    import sys

    code = (
        "import sys; from example_app import create_app; create_app(None, sys.argv[1])"
    )
    started = [
        subprocess.Popen([sys.executable, "-c", code, str(tmp_path)]) for _ in range(4)
    ]

    assert [process.wait(timeout=60) for process in started] == [0] * 4


def test_the_database_is_in_wal_mode(app: Flask) -> None:
    assert db.session.execute(text("PRAGMA journal_mode")).scalar() == "wal"
    assert db.session.execute(text("PRAGMA busy_timeout")).scalar() == 15000
