"""Making a stream that browsers can play while it is still arriving.

The stream is MP3 without a bit reservoir: no frame needs another one, so each segment
plays on its own, and the segments joined are the whole file.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import typing as t
from dataclasses import asdict
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import av
from av.audio.codeccontext import AudioCodecContext

from .audio import peak
from .audio import probe
from .audio import resampled
from .audio import UnusableAudio

SAMPLE_RATE = 44_100

#: Bits a second of each channel.
BIT_RATE = 64_000

#: MP3 frames (of 26 ms) in one segment: 4 seconds.
SEGMENT_FRAMES = 153

#: Bars of the drawn waveform.
BARS = 120


@dataclass(frozen=True)
class Stream:
    """A transcoded recording.

    :param segments: The lengths of its segments in seconds.
    :param waveform: The loudness over time, the loudest being 100.
    """

    segments: list[float]
    waveform: list[int]

    @property
    def seconds(self) -> float:
        """The length in seconds."""
        return sum(self.segments)


def transcode(path: Path, folder: Path) -> Stream:
    """Write *folder*: ``000.mp3``, ``001.mp3``, …, a playlist and ``stream.json``.

    Everything is written beside it and renamed at the end, so the folder is there whole
    or not at all. If it is there already, it is kept as it is.

    :raises UnusableAudio: The file is not audio.
    """
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=".transcode-", dir=folder.parent))
        try:
            _write(path, work)
            _publish(work, folder)
        finally:
            shutil.rmtree(work, ignore_errors=True)
    return Stream(**json.loads((folder / "stream.json").read_text()))


def _write(path: Path, folder: Path) -> None:
    layout = "stereo" if probe(path).channels > 1 else "mono"
    encoder = _encoder(layout)
    loudness: list[int] = []
    segment: list[bytes] = []
    segments: list[float] = []

    def close_segment() -> None:
        (folder / f"{len(segments):03}.mp3").write_bytes(b"".join(segment))
        segments.append(round(len(segment) * encoder.frame_size / SAMPLE_RATE, 6))
        segment.clear()

    for packet in _encoded(path, encoder, layout, loudness):
        segment.append(bytes(packet))
        if len(segment) == SEGMENT_FRAMES:
            close_segment()
    if segment:
        close_segment()
    if not segments:
        raise UnusableAudio("There is no sound in this file.")
    stream = Stream(segments=segments, waveform=_bars(loudness))
    (folder / "playlist.m3u8").write_text(_playlist(segments))
    (folder / "stream.json").write_text(json.dumps(asdict(stream)))


def _publish(work: Path, folder: Path) -> None:
    work.chmod(0o755)
    try:
        work.rename(folder)
    except OSError:
        # Another attempt of this step, whose worker was thought dead, was faster. It
        # wrote the same.
        if not folder.exists():
            raise


def _encoder(layout: str) -> AudioCodecContext:
    encoder = av.CodecContext.create("libmp3lame", "w")
    encoder.sample_rate = SAMPLE_RATE
    encoder.format = "s16p"
    encoder.layout = layout
    encoder.bit_rate = BIT_RATE * len(encoder.layout.channels)
    encoder.options = {"reservoir": "0"}
    encoder.open()
    return encoder


def _encoded(
    path: Path, encoder: AudioCodecContext, layout: str, loudness: list[int]
) -> t.Iterator[av.Packet[t.Any]]:
    frames = resampled(
        path,
        format="s16p",
        layout=layout,
        rate=SAMPLE_RATE,
        frame_size=encoder.frame_size,
    )
    for frame in frames:
        loudness.append(peak(frame))
        yield from encoder.encode(frame)
    yield from encoder.encode(None)


def _bars(loudness: list[int]) -> list[int]:
    """Reduce the peaks of all frames to at most :data:`BARS`."""
    count = min(BARS, len(loudness))
    edges = [len(loudness) * i // count for i in range(count + 1)] if count else []
    peaks = [max(loudness[a:b]) for a, b in pairwise(edges)]
    top = max(peaks, default=0) or 1
    return [round(100 * peak / top) for peak in peaks]


def _playlist(segments: list[float]) -> str:
    lines = ["#EXTM3U", "#EXT-X-VERSION:3", "#EXT-X-PLAYLIST-TYPE:VOD"]
    lines.append(f"#EXT-X-TARGETDURATION:{round(max(segments)) or 1}")
    for number, seconds in enumerate(segments):
        lines += [f"#EXTINF:{seconds:.6f},", f"{number:03}.mp3"]
    return "\n".join([*lines, "#EXT-X-ENDLIST", ""])
