"""Audio in, audio and text out.

Nothing here knows about the web, the database or durable runs: each function takes a
path and returns plain data, so that it can be tested, and used, on its own.
"""

from __future__ import annotations

from .audio import AudioMetadata
from .audio import probe
from .audio import UnusableAudio
from .chunks import Chunk
from .chunks import split
from .speech import Heard
from .speech import join
from .speech import listen
from .speech import Passage
from .speech import transcribe
from .speech import Transcript
from .stream import Stream
from .stream import transcode

__all__ = [
    "AudioMetadata",
    "Chunk",
    "Heard",
    "Passage",
    "Stream",
    "Transcript",
    "UnusableAudio",
    "join",
    "listen",
    "probe",
    "split",
    "transcode",
    "transcribe",
]
