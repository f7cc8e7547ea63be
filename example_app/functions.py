"""The function that makes an uploaded recording playable, readable and searchable.

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

from . import media
from . import steps
from .embedding import embed
from .rehearsal import Rehearsal

durable = Durable()

#: The time that an owner has to approve a recording.
APPROVAL = "7d"


class TranscriptionRequested(EventData, name="transcription/requested"):
    """The event of a recording to be transcribed. Its id is the recording's id.

    :param audio_path: ``uploads/…`` of the media folder or ``samples/…`` of this
        package.
    :param tenant: The tenant who owns it, and is asked before it is published.
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
    non_retriable=[media.UnusableAudio],
)
def transcribe_audio(
    event: Event[TranscriptionRequested], step: Step
) -> dict[str, t.Any]:
    """Take a recording from the upload to the library."""
    id, request = event.id, event.data
    step.run(
        "fetch-audio-metadata",
        steps.fetch_audio_metadata,
        id,
        request.audio_path,
        request.title,
        request.tenant,
    )
    step.run("transcode", steps.transcode, id, request.audio_path, request.rehearse)
    speech = step.run("split", steps.split, id, request.audio_path)

    def transcribe(chunk: media.Chunk) -> list[media.Passage]:
        return steps.transcribe(id, chunk, speech, request.rehearse)

    # Two at a time, on any worker: a long recording leaves cores for others.
    passages = step.map("chunks", transcribe, speech.chunks, limit=2)
    transcript = step.run("join", steps.join, id, passages)
    embedding = step.run("embed", embed, transcript.text)
    step.run("index", steps.index, id, transcript, embedding)
    result: dict[str, t.Any] = {"chunks": len(passages), "words": transcript.words}

    link = step.create_url(
        "approval-link",
        expires=APPROVAL,
        title=f"Publish “{request.title[:100] or 'Untitled'}”?",
        text=f"It has {transcript.words} words, and you alone can see it so far.",
        button="Publish",
    )
    step.run("ask-owner", steps.ask_owner, id, request.tenant, link.href, link.expires)
    if step.wait_for_url("approval", link) is None:
        step.run("leave-unpublished", steps.leave_unpublished, id)
        return {**result, "published": False}
    step.transaction("publish", steps.publish, id, request.tenant, transcript.words)
    return {**result, "published": True}


@transcribe_audio.on_failure
def report_failure(
    event: Event[TranscriptionRequested], step: Step, failure: Failure
) -> None:
    """Show the reason on the page of a recording that has failed."""
    step.run("mark-failed", steps.mark_failed, event.id, failure.message)
