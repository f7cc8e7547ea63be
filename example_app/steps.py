"""The bodies of the steps.

They take ids, paths and plain data, never objects of the database: a step may run in
another process than the one before it. Each may run again if its process dies before
its result is kept, so two calls leave the same state behind as one.
"""

from __future__ import annotations

from dataclasses import asdict
from dataclasses import dataclass
from datetime import datetime

from flask_durable import current_run
from flask_durable import NonRetriable

from . import media
from . import recordings
from . import rehearsal
from . import search
from . import storage
from .models import db
from .models import Status
from .rehearsal import Rehearsal


@dataclass(frozen=True)
class Speech:
    """The sound of a recording, ready to be recognised.

    :param mean_spectrum: The speaker's, which the recogniser wants to know.
    """

    chunks: list[media.Chunk]
    mean_spectrum: str


def fetch_audio_metadata(
    recording_id: str, audio_path: str, title: str, tenant: str
) -> media.AudioMetadata:
    """Read the length and format of an upload, and note them in the library."""
    recordings.add(recording_id, title=title, tenant=tenant)
    metadata = media.probe(storage.find(audio_path))
    recordings.update(
        recording_id,
        status=Status.PROCESSING,
        codec=metadata.codec,
        sample_rate=metadata.sample_rate,
        channels=metadata.channels,
        seconds=metadata.seconds,
        size=metadata.size,
    )
    return metadata


def transcode(recording_id: str, audio_path: str, rehearse: Rehearsal) -> media.Stream:
    """Write the stream that the player plays."""
    rehearsal.fail_twice(rehearse)
    folder = storage.stream_folder(recording_id)
    stream = media.transcode(storage.find(audio_path), folder)
    recordings.update(
        recording_id,
        segments=len(stream.segments),
        seconds=stream.seconds,
        waveform=stream.waveform,
    )
    return stream


def split(recording_id: str, audio_path: str) -> Speech:
    """Cut the sound into chunks, at its pauses."""
    sound = storage.sound_file(recording_id)
    chunks = media.split(storage.find(audio_path), sound)
    return Speech(chunks, media.listen(sound))


def transcribe(
    recording_id: str, chunk: media.Chunk, speech: Speech, rehearse: Rehearsal
) -> list[media.Passage]:
    """Write down the words of a chunk, and show the progress on the page."""
    last = chunk == speech.chunks[-1]

    def heard(seconds: float) -> None:
        done = seconds / chunk.seconds
        if current_run:
            if current_run.cancel_requested:
                raise NonRetriable("The run was cancelled.")
            current_run.progress(done)
        if last and done > 0.75:
            rehearsal.kill_once(rehearse, recording_id)

    sound = storage.sound_file(recording_id)
    return media.transcribe(sound, chunk, speech.mean_spectrum, heard)


def join(recording_id: str, chunks: list[list[media.Passage]]) -> media.Transcript:
    """Join the words of all chunks, and show them."""
    transcript = media.join(chunks)
    passages = [asdict(passage) for passage in transcript.passages]
    recordings.update(recording_id, transcript=passages)
    # All chunks have their words: no attempt of this run reads the samples again.
    storage.sound_file(recording_id).unlink(missing_ok=True)
    return transcript


def index(
    recording_id: str, transcript: media.Transcript, embedding: list[float]
) -> None:
    """Make a recording searchable by its words and by its likeness to others."""
    search.put(recording_id, transcript.text)
    recordings.change(recording_id, embedding=embedding)
    db.session.commit()


def ask_owner(recording_id: str, tenant: str, link: str, expires: datetime) -> None:
    """Send the owner a mail with the link that publishes, once.

    :param link: The signed address. It is a secret of the owner's.
    """
    key = f"{recording_id}:ask"
    if current_run and current_run.step:
        key = current_run.step.idempotency_key
    message = f"Its words are there. You can publish it until {expires:%-d %B}."
    recordings.write_mail(key, recording_id, tenant, message, link)
    recordings.change(recording_id, status=Status.REVIEW)
    db.session.commit()


def leave_unpublished(recording_id: str) -> None:
    """Note that the owner did not answer in time."""
    reason = "Its owner did not publish it in time: only the owner can see it."
    recordings.update(recording_id, status=Status.UNPUBLISHED, reason=reason)


def publish(recording_id: str, tenant: str, words: int) -> None:
    """Let everybody see a recording, and tell its owner.

    It is a database step: both are committed with the step's own result, once.
    """
    recordings.change(recording_id, status=Status.PUBLISHED, reason="")
    key = f"{recording_id}:published"
    message = f"It is published: {words} words, ready to read."
    recordings.write_mail(key, recording_id, tenant, message)


def mark_failed(recording_id: str, reason: str) -> None:
    """Show why a recording has failed. One that is published stays so."""
    recordings.fail(recording_id, reason)
