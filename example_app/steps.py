"""The bodies of the steps.

They take ids, paths and plain data, never objects of the database: a step may run in
another process than the one before it. Each may run again if its process dies before
its result is kept, so two calls leave the same state behind as one.
"""

from __future__ import annotations

from dataclasses import asdict

from flask_durable import current_run
from flask_durable import NonRetriable

from . import media
from . import recordings
from . import rehearsal
from . import search
from . import storage
from .models import Status
from .rehearsal import Rehearsal


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
        chunks=len(stream.chunks),
        seconds=stream.seconds,
        waveform=stream.waveform,
    )
    return stream


def transcribe(
    recording_id: str, audio_path: str, seconds: float, rehearse: Rehearsal
) -> media.Transcript:
    """Write down the words, and show the progress on the page."""
    shown = 0

    def heard(position: float) -> None:
        nonlocal shown
        if current_run and current_run.cancel_requested:
            raise NonRetriable("The run was cancelled.")
        percent = min(100, int(100 * position / seconds)) if seconds else 100
        if percent >= shown + 5:
            shown = percent
            recordings.update(recording_id, percent=percent)
        if percent >= 50:
            rehearsal.kill_once(rehearse, recording_id)

    return media.transcribe(storage.find(audio_path), heard)


def index(recording_id: str, transcript: media.Transcript) -> None:
    """Keep the transcript, and make it searchable, in one transaction."""
    passages = [asdict(passage) for passage in transcript.passages]
    search.put(recording_id, transcript.text)
    recordings.update(recording_id, status=Status.READY, reason="", transcript=passages)


def notify_user(recording_id: str, tenant: str, words: int) -> None:
    """Tell the owner that it is done: once, however often this runs."""
    key = recording_id
    if current_run and current_run.step:
        key = current_run.step.idempotency_key
    recordings.notify(key, recording_id, tenant, f"{words} words, ready to read.")


def mark_failed(recording_id: str, reason: str) -> None:
    """Show why there is no transcript. A transcript that is there already stays."""
    recordings.fail(recording_id, reason)
