"""The files: uploads as they came, and what is made of them.

Paths of uploads travel through events, which others may be allowed to send. So they are
relative, and only lead into two folders.
"""

from __future__ import annotations

import os
import re
import shutil
import typing as t
from pathlib import Path

from flask import current_app
from werkzeug.security import safe_join

from .media import UnusableAudio

#: The clips that come with this package.
SAMPLES = Path(__file__).parent / "samples"

_SUFFIX = re.compile(r"\.[a-z0-9]{1,8}")


def media_folder() -> Path:
    """Return the folder of all files."""
    folder = current_app.config["MEDIA_FOLDER"]
    return Path(folder) if folder else Path(current_app.instance_path) / "media"


def keep(file: t.IO[bytes], recording_id: str, filename: str) -> str:
    """Store an upload whole or not at all, and return its audio path.

    :param filename: The name that its owner gave it. Only a plain suffix of it is used.
    """
    suffix = Path(filename).suffix.lower()
    name = recording_id + (suffix if _SUFFIX.fullmatch(suffix) else "")
    uploads = media_folder() / "uploads"
    uploads.mkdir(parents=True, exist_ok=True)
    part = uploads / f".{name}.part"
    with part.open("wb") as target:
        shutil.copyfileobj(file, target)
        target.flush()
        os.fsync(target.fileno())
    part.replace(uploads / name)
    return f"uploads/{name}"


def find(audio_path: str) -> Path:
    """Return the path of the file of an audio path.

    :raises UnusableAudio: There is no such file, or the path leads elsewhere.
    """
    folder, _, name = audio_path.partition("/")
    roots = {"uploads": media_folder() / "uploads", "samples": SAMPLES}
    found = safe_join(str(roots[folder]), name) if folder in roots else None
    if found is None or not Path(found).is_file():
        raise UnusableAudio(f"The library has no file {audio_path!r}.")
    return Path(found)


def stream_folder(recording_id: str) -> Path:
    """Return the folder of a recording's stream."""
    # The prefix keeps an id such as ".." from naming another folder.
    return media_folder() / "streams" / f"stream-{recording_id}"


def sound_file(recording_id: str) -> Path:
    """Return the file of a recording's samples, while its words are recognised."""
    return media_folder() / "sounds" / f"sound-{recording_id}.wav"
