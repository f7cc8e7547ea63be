"""Reading audio of any kind with FFmpeg's libraries."""

from __future__ import annotations

import typing as t
from array import array
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import av
from av.audio.frame import AudioFrame
from av.container import InputContainer

#: The containers that are read. Playlists are left out: FFmpeg follows the addresses in
#: them, so an uploaded playlist could make it read other files or the network.
FORMATS = "aac,aiff,amr,asf,au,caf,flac,matroska,webm,mov,mp4,mp3,ogg,w64,wav"

#: The longest audio that is taken, in seconds: a small file can unpack to days of
#: silence.
LONGEST = 4 * 60 * 60


class UnusableAudio(Exception):
    """Raised when a file is not audio that can be read. Trying again cannot help."""


@dataclass(frozen=True)
class AudioMetadata:
    """The data about a file in its headers.

    :param seconds: Its length, or ``None`` if the file does not have it.
    """

    title: str
    codec: str
    sample_rate: int
    channels: int
    seconds: float | None
    size: int


def probe(path: Path) -> AudioMetadata:
    """Read a file's headers and the first of its sound.

    :raises UnusableAudio: The file is not audio, or there is no sound in it.
    """
    with _opened(path) as container:
        stream = container.streams.audio[0]
        duration = container.duration
        metadata = AudioMetadata(
            title=container.metadata.get("title", "")[:200],
            codec=stream.codec_context.name,
            sample_rate=stream.rate,
            channels=stream.channels,
            seconds=None if duration is None else round(duration / av.time_base, 3),
            size=path.stat().st_size,
        )
    for _ in _decoded(path):
        return metadata
    raise UnusableAudio("There is no sound in this file.")


def resampled(
    path: Path, *, format: str, layout: str, rate: int, frame_size: int
) -> t.Iterator[AudioFrame]:
    """Decode a file into frames of one kind; only the last one may be shorter.

    :raises UnusableAudio: The file is not audio, or longer than :data:`LONGEST`.
    """
    resampler = av.AudioResampler(format, layout, rate, frame_size)
    for frame in _decoded(path):
        try:
            frames = resampler.resample(frame)
        except ValueError as error:
            raise UnusableAudio("The sound changes its format half way.") from error
        yield from frames
    yield from resampler.resample(None)


def peak(frame: AudioFrame) -> int:
    """Return the loudest sample of a frame of 16 bits, of its first channel."""
    samples = array("h", bytes(frame.planes[0])[: frame.samples * 2])
    return max(max(samples), -min(samples))


def _decoded(path: Path) -> t.Iterator[AudioFrame]:
    seconds = 0.0
    with _opened(path) as container:
        for packet in container.demux(container.streams.audio[0]):
            for frame in _frames(packet):
                seconds += frame.samples / frame.sample_rate
                if seconds > LONGEST:
                    raise UnusableAudio("The sound is longer than four hours.")
                yield frame


def _frames(packet: av.Packet[av.AudioStream]) -> list[AudioFrame]:
    try:
        return packet.decode()
    except av.InvalidDataError:  # a damaged spot does not spoil the rest
        return []


@contextmanager
def _opened(path: Path) -> t.Iterator[InputContainer]:
    options = {"format_whitelist": FORMATS, "protocol_whitelist": "file"}
    try:
        with av.open(
            path, "r", options=options, metadata_errors="replace"
        ) as container:
            if not container.streams.audio:
                raise UnusableAudio("There is no sound in this file.")
            yield container
    except av.FFmpegError as error:
        if isinstance(error, OSError) and not isinstance(error, FileNotFoundError):
            raise  # the disk's trouble, not the file's
        raise UnusableAudio("This file is not audio that can be read.") from error
