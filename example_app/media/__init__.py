"""Audio in, audio and text out.

Nothing here knows about the web, the database or durable runs: each function takes a
path and returns plain data, so that it can be tested, and used, on its own.
"""

from __future__ import annotations

from .audio import AudioMetadata
from .audio import probe
from .audio import UnusableAudio
from .speech import Passage
from .speech import transcribe
from .speech import Transcript
from .stream import Stream
from .stream import transcode

__all__ = [
    "AudioMetadata",
    "Passage",
    "Stream",
    "Transcript",
    "UnusableAudio",
    "probe",
    "transcode",
    "transcribe",
]
