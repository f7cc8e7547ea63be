"""The function that transcribes an uploaded recording.

Each step's result is kept, whatever process dies: the worker that takes over goes on
with the first step that has no result. So effects belong into steps, and the code
between them may run again.
"""

from __future__ import annotations

import typing as t

from flask_durable import Backoff
from flask_durable import Durable
from flask_durable import Event
from flask_durable import EventData
from flask_durable import Failure
from flask_durable import Step

from . import steps
from .media import UnusableAudio
from .rehearsal import Rehearsal

durable = Durable()


class TranscriptionRequested(EventData, name="transcription/requested"):
    """The event of a recording to be transcribed. Its id is the recording's id.

    :param audio_path: ``uploads/…`` of the media folder or ``samples/…`` of this
        package.
    :param tenant: The tenant who is told when it is done.
    :param title: The title of the recording in the library.
    :param rehearse: The accident to recover from: ``"fail"``, ``"kill"``, or ``""``.
    """

    audio_path: str
    tenant: str
    title: str = ""
    rehearse: Rehearsal = ""


@durable.function(
    on=TranscriptionRequested,
    queue="media",
    retries=3,
    backoff=Backoff("1s", factor=2),
    non_retriable=[UnusableAudio],
)
def transcribe_audio(
    event: Event[TranscriptionRequested], step: Step
) -> dict[str, t.Any]:
    """Make an uploaded recording playable, readable and searchable."""
    id, request = event.id, event.data
    metadata = step.run(
        "fetch-audio-metadata",
        steps.fetch_audio_metadata,
        id,
        request.audio_path,
        request.title,
        request.tenant,
    )
    stream = step.run(
        "transcode", steps.transcode, id, request.audio_path, request.rehearse
    )
    transcript = step.run(
        "transcribe",
        steps.transcribe,
        id,
        request.audio_path,
        stream.seconds,
        request.rehearse,
    )
    step.run("index", steps.index, id, transcript)
    step.run("notify-user", steps.notify_user, id, request.tenant, transcript.words)
    return {"codec": metadata.codec, "words": transcript.words}


@transcribe_audio.on_failure
def report_failure(
    event: Event[TranscriptionRequested], step: Step, failure: Failure
) -> None:
    """Show the reason on the page of a recording that could not be transcribed."""
    step.run("mark-failed", steps.mark_failed, event.id, failure.message)
