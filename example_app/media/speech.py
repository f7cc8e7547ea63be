"""Speech to text with PocketSphinx: offline, on a CPU, with the model of its wheel."""

from __future__ import annotations

import re
import typing as t
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from pocketsphinx import Decoder
from pocketsphinx import Vad

from .audio import resampled

#: The sample rate that the acoustic model was trained on, in hertz.
SAMPLE_RATE = 16_000

#: Samples that the recogniser gets at once: 0.48 s, sixteen frames of its voice
#: detector. It holds the interpreter's lock while it works on them; other threads (such
#: as a worker's heartbeat) run in between.
CHUNK = 7_680

#: An utterance ends at the first pause after this many seconds, and at the latest after
#: :data:`LONGEST_UTTERANCE`: the recogniser's memory grows with it.
UTTERANCE = 10.0
LONGEST_UTTERANCE = 25.0

#: A silence of this many seconds begins a new passage.
PAUSE = 0.3

_NO_WORD = re.compile(r"[<\[+]")
_PRONUNCIATION = re.compile(r"\(\d+\)$")


@dataclass(frozen=True)
class Passage:
    """Words said without a pause, and their time (in seconds from the start)."""

    start: float
    end: float
    text: str


@dataclass(frozen=True)
class Transcript:
    """The words of a recording, in passages."""

    passages: list[Passage]

    @property
    def text(self) -> str:
        """The whole text, on one line."""
        return " ".join(passage.text for passage in self.passages)

    @property
    def words(self) -> int:
        """The number of words."""
        return len(self.text.split())


def transcribe(
    path: Path, heard: t.Callable[[float], object] = lambda seconds: None
) -> Transcript:
    """Write down the words of a recording.

    :param heard: Called about twice for each second of sound with the position, in
        seconds; an error that it raises ends the work.
    :raises UnusableAudio: The file is not audio.
    """
    decoder = Decoder(loglevel="FATAL")
    decoder.set_cmn(_mean_spectrum(path))
    detector = Vad(sample_rate=SAMPLE_RATE)
    passages: list[Passage] = []
    position = begun = 0.0
    decoder.start_utt()
    for chunk in _chunks(path):
        decoder.process_raw(chunk)
        position += len(chunk) / 2 / SAMPLE_RATE
        heard(position)
        if _ends_utterance(position - begun, chunk, detector):
            passages += _finish_utterance(decoder, begun)
            decoder.start_utt()
            begun = position
    return Transcript([*passages, *_finish_utterance(decoder, begun)])


def _chunks(path: Path) -> t.Iterator[bytes]:
    frames = resampled(
        path, format="s16", layout="mono", rate=SAMPLE_RATE, frame_size=CHUNK
    )
    for frame in frames:
        yield bytes(frame.planes[0])[: frame.samples * 2]


def _mean_spectrum(path: Path) -> str:
    """Return the mean of the first ten seconds, as the recogniser writes it.

    It subtracts the speaker's mean spectrum, and would otherwise learn it while it gets
    the first words wrong. Looking for a single word is a cheap way to compute it.
    """
    listener = Decoder(lm=None, keyphrase="the", loglevel="FATAL")
    listener.start_utt()
    for chunk in islice(_chunks(path), 10 * SAMPLE_RATE // CHUNK):
        listener.process_raw(chunk, no_search=True)
    mean: str = listener.get_cmn(True)
    listener.end_utt()
    return mean


def _ends_utterance(seconds: float, chunk: bytes, detector: t.Any) -> bool:
    if seconds < UTTERANCE or seconds >= LONGEST_UTTERANCE:
        return seconds >= LONGEST_UTTERANCE
    size = detector.frame_bytes
    frames = [chunk[at : at + size] for at in range(0, len(chunk), size)]
    return not any(len(f) == size and detector.is_speech(f) for f in frames[-6:])


def _finish_utterance(decoder: t.Any, begun: float) -> list[Passage]:
    decoder.end_utt()
    passages: list[Passage] = []
    for segment in decoder.seg() or ():
        if _NO_WORD.match(segment.word):
            continue
        word = _PRONUNCIATION.sub("", segment.word)
        start = round(begun + segment.start_frame / 100, 2)
        end = round(begun + segment.end_frame / 100, 2)
        if passages and start - passages[-1].end < PAUSE:
            last = passages.pop()
            passages.append(Passage(last.start, end, f"{last.text} {word}"))
        else:
            passages.append(Passage(start, end, word))
    return passages
