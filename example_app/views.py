"""The pages."""

from __future__ import annotations

import typing as t
from dataclasses import asdict
from pathlib import Path
from uuid import uuid4

from flask import abort
from flask import Blueprint
from flask import current_app
from flask import jsonify
from flask import redirect
from flask import render_template
from flask import request
from flask import Response
from flask import send_from_directory
from flask import url_for
from flask.typing import ResponseReturnValue
from werkzeug.exceptions import RequestEntityTooLarge

from flask_durable import UnavailableError

from . import recordings
from . import search
from . import storage
from .functions import durable
from .functions import TranscriptionRequested
from .models import Recording
from .progress import progress_of
from .rehearsal import Rehearsal

library = Blueprint("library", __name__, cli_group=None)


@library.get("/")
def index() -> str:
    """All recordings, or those in which the words of ``?q=`` were said."""
    return _index(request.args.get("q", "").strip())


def _index(query: str = "", error: str = "") -> str:
    hits = search.find(query, _tenant()) if query else []
    found = {hit.recording_id for hit in hits}
    similar = search.like(query, _tenant()) if query else []
    return render_template(
        "index.html",
        query=query,
        hits=hits,
        similar=[hit for hit in similar if hit.recording_id not in found],
        recordings=[] if query else recordings.latest(_tenant()),
        mails=recordings.mails(_tenant(), limit=3),
        error=error,
    )


@library.get("/mail")
def mail() -> str:
    """The mails to the tenant who looks, with the links in them."""
    return render_template("mail.html", mails=recordings.mails(_tenant()))


@library.post("/recordings")
def upload() -> ResponseReturnValue:
    """Keep a file and ask for its transcription."""
    file = request.files.get("audio")
    if file is None or not file.filename:
        return _index(error="Choose an audio file first."), 400
    recording_id = uuid4().hex
    asked = TranscriptionRequested(
        audio_path=storage.keep(file.stream, recording_id, file.filename),
        title=Path(file.filename.replace("\\", "/")).stem.replace("_", " ")[:200],
        tenant=_tenant(),
        rehearse=_rehearsal(request.form.get("rehearse", "")),
    )
    try:
        durable.send(asked, id=recording_id)
    except UnavailableError:
        return _index(error="The queue is not there right now. Try again later."), 503
    # After the event: if this process died in between, its first step would do this.
    recordings.add(recording_id, title=asked.title, tenant=asked.tenant)
    return redirect(url_for(".recording", id=recording_id), code=303)


def _rehearsal(value: str) -> Rehearsal:
    allowed = value in ("fail", "kill") and current_app.config["REHEARSALS"]
    return t.cast(Rehearsal, value) if allowed else ""


@library.get("/recordings/<id>")
def recording(id: str) -> str:
    """A recording with its progress, player and transcript."""
    found = _recording_or_404(id)
    similar = search.nearest(found.embedding, _tenant()) if found.embedding else []
    return render_template(
        "recording.html",
        recording=found,
        progress=progress_of(found),
        similar=[hit for hit in similar if hit.recording_id != id],
    )


@library.get("/recordings/<id>/status")
def status(id: str) -> Response:
    """Return a recording's status as JSON. ``revision`` changes when the page would."""
    found = _recording_or_404(id)
    progress = progress_of(found)
    revision = (
        f"{progress.status}-{found.status}-{found.segments}-{len(found.transcript)}"
    )
    response = jsonify(
        id=id, revision=revision, reason=found.reason, **asdict(progress)
    )
    response.headers["Cache-Control"] = "no-store"
    return response


@library.get("/recordings/<id>/audio.mp3")
def audio(id: str) -> Response:
    """The whole stream: its segments, one after the other."""
    _recording_or_404(id)
    segments = sorted(storage.stream_folder(id).glob("*.mp3"))
    if not segments:
        abort(404)
    size = sum(segment.stat().st_size for segment in segments)
    response = Response((part.read_bytes() for part in segments), mimetype="audio/mpeg")
    response.content_length = size
    response.make_conditional(request, accept_ranges=True, complete_length=size)
    return response


@library.get("/recordings/<id>/<path:name>")
def stream(id: str, name: str) -> Response:
    """``playlist.m3u8`` and its segments, for players of HTTP Live Streaming."""
    _recording_or_404(id)
    if not name.endswith((".m3u8", ".mp3")):
        abort(404)
    kind = "application/vnd.apple.mpegurl" if name.endswith(".m3u8") else "audio/mpeg"
    return send_from_directory(storage.stream_folder(id), name, mimetype=kind)


def _recording_or_404(id: str) -> Recording:
    return recordings.find(id, _tenant()) or abort(404)


def _tenant() -> str:
    # A real app asks who is signed in.
    tenant: str = current_app.config["TENANT"]
    return tenant


@library.errorhandler(404)
def not_found(error: Exception) -> ResponseReturnValue:
    """Answer with a page."""
    return render_template(
        "error.html", message="There is nothing at this address."
    ), 404


@library.errorhandler(RequestEntityTooLarge)
def too_large(error: Exception) -> ResponseReturnValue:
    """Answer with the form and its limit."""
    limit = current_app.config["MAX_CONTENT_LENGTH"] // 1024**2
    return _index(error=f"This file is larger than {limit} MiB."), 413


@library.after_request
def restrict(response: Response) -> Response:
    """Let the browser load from this server only."""
    response.headers["Content-Security-Policy"] = (
        "default-src 'self'; object-src 'none'"
    )
    response.headers["X-Content-Type-Options"] = "nosniff"
    return response


@library.app_template_filter()
def clock(seconds: float | None) -> str:
    """Write seconds as ``1:02:03`` or ``2:03``."""
    minutes, second = divmod(int(seconds or 0), 60)
    hour, minute = divmod(minutes, 60)
    return f"{hour}:{minute:02}:{second:02}" if hour else f"{minute}:{second:02}"
