"""Cutting a recording into chunks that can be recognised at the same time.

The sound is decoded once, into a plain file of samples. A chunk is a pair of times in
it, so it can be stored and handed to any worker that sees the file.
"""

from __future__ import annotations

import tempfile
import typing as t
import wave
from dataclasses import dataclass
from itertools import accumulate
from itertools import pairwise
from pathlib import Path

from .audio import peak
from .audio import resampled
from .audio import UnusableAudio

#: The sample rate that the recogniser's model was trained on, in hertz.
SAMPLE_RATE = 16_000

#: Samples of one frame, of which only the loudness counts: 20 ms.
FRAME = 320
FRAMES_A_SECOND = SAMPLE_RATE // FRAME

#: Frames around a cut that should be quiet together: 0.3 s.
QUIET = 15

#: Bounds in seconds of the shortest chunk, which is a sixteenth of the recording. The
#: longest is three times as long, so that four hours are 960 chunks at most.
LEAST_SECONDS, MOST_SECONDS = 1, 15


@dataclass(frozen=True)
class Chunk:
    """A stretch of the sound, in seconds from its start."""

    start: float
    end: float

    @property
    def seconds(self) -> float:
        """The length in seconds."""
        return self.end - self.start


def split(path: Path, sound: Path) -> list[Chunk]:
    """Write the samples of a recording to *sound*, and cut them where it is quiet.

    *sound* is a WAV file. It is written beside its place and renamed at the end, so it
    is there whole or not at all.

    :raises UnusableAudio: The file is not audio.
    """
    sound.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(
        dir=sound.parent, prefix=".split-", delete=False
    ) as file:
        part = Path(file.name)
        try:
            loudness = _write(path, file)
            part.chmod(0o644)
            part.replace(sound)
        finally:
            part.unlink(missing_ok=True)
    if not loudness:
        raise UnusableAudio("There is no sound in this file.")
    return cut(loudness)


def cut(loudness: t.Sequence[int]) -> list[Chunk]:
    """Cut a recording at its quietest places.

    :param loudness: The loudness of each frame.
    """
    total = len(loudness)
    seconds = min(max(total / FRAMES_A_SECOND / 16, LEAST_SECONDS), MOST_SECONDS)
    least = round(seconds * FRAMES_A_SECOND)
    sums = [0, *accumulate(loudness)]

    def noise(frame: int) -> int:
        return sums[frame + QUIET // 2 + 1] - sums[frame - QUIET // 2]

    cuts = [0]
    while total - cuts[-1] > 3 * least:
        # The rest is long enough for one more chunk, wherever the cut is.
        last = min(cuts[-1] + 3 * least, total - least)
        cuts.append(min(range(cuts[-1] + least, last + 1), key=noise))
    return [
        Chunk(start / FRAMES_A_SECOND, end / FRAMES_A_SECOND)
        for start, end in pairwise([*cuts, total])
    ]


def read(sound: Path, chunk: Chunk, samples: int) -> t.Iterator[bytes]:
    """Read a chunk in pieces of *samples*; only the last one may be shorter."""
    with wave.open(str(sound), "rb") as file:
        position = round(chunk.start * SAMPLE_RATE)
        end = min(round(chunk.end * SAMPLE_RATE), file.getnframes())
        file.setpos(position)
        while position < end:
            piece = file.readframes(min(samples, end - position))
            position += len(piece) // 2
            yield piece


def _write(path: Path, file: t.IO[bytes]) -> list[int]:
    """Write the samples, and return the loudness of each frame."""
    loudness: list[int] = []
    with wave.open(file, "wb") as target:
        target.setnchannels(1)
        target.setsampwidth(2)
        target.setframerate(SAMPLE_RATE)
        for frame in resampled(
            path, format="s16", layout="mono", rate=SAMPLE_RATE, frame_size=FRAME
        ):
            loudness.append(peak(frame))
            target.writeframes(bytes(frame.planes[0])[: frame.samples * 2])
    return loudness
