"""Speech to text with PocketSphinx: offline, on a CPU, with the model of its wheel."""

from __future__ import annotations

import re
import typing as t
from dataclasses import dataclass
from pathlib import Path

from pocketsphinx import Decoder
from pocketsphinx import Vad

from .chunks import Chunk
from .chunks import read
from .chunks import SAMPLE_RATE

#: Samples that the recogniser gets at once: 0.48 s, sixteen frames of its voice
#: detector. It holds the interpreter's lock while it works on them; other threads (such
#: as a worker's heartbeat) run in between.
PIECE = 7_680

#: An utterance ends at the first pause after this many seconds, and at the latest after
#: :data:`LONGEST_UTTERANCE`: the recogniser's memory grows with it.
UTTERANCE = 10.0
LONGEST_UTTERANCE = 25.0

#: A silence of this many seconds begins a new passage.
PAUSE = 0.3

#: A function that hears the seconds of a chunk that are done.
Heard = t.Callable[[float], object]

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


def listen(sound: Path) -> str:
    """Return the speaker's mean spectrum in the first ten seconds of a sound.

    The recogniser subtracts it, and would otherwise learn it in each chunk while it
    gets the first words wrong. Looking for a single word is a cheap way to compute it.
    """
    listener = Decoder(lm=None, keyphrase="the", loglevel="FATAL")
    listener.start_utt()
    for piece in read(sound, Chunk(0, 10), PIECE):
        listener.process_raw(piece, no_search=True)
    mean: str = listener.get_cmn(True)
    listener.end_utt()
    return mean


def transcribe(
    sound: Path,
    chunk: Chunk,
    mean_spectrum: str,
    heard: Heard = lambda seconds: None,
) -> list[Passage]:
    """Write down the words of a chunk.

    :param sound: The file that :func:`~example_app.media.split` wrote.
    :param mean_spectrum: The speaker's, from :func:`listen`.
    :param heard: Called about twice for each second of sound with the seconds that are
        done; an error that it raises ends the work.
    """
    decoder = Decoder(loglevel="FATAL")
    decoder.set_cmn(mean_spectrum)
    detector = Vad(sample_rate=SAMPLE_RATE)
    passages: list[Passage] = []
    position = begun = chunk.start
    decoder.start_utt()
    for piece in read(sound, chunk, PIECE):
        decoder.process_raw(piece)
        position += len(piece) / 2 / SAMPLE_RATE
        heard(position - chunk.start)
        if _ends_utterance(position - begun, piece, detector):
            passages += _finish_utterance(decoder, begun)
            decoder.start_utt()
            begun = position
    return [*passages, *_finish_utterance(decoder, begun)]


def join(chunks: t.Iterable[t.Iterable[Passage]]) -> Transcript:
    """Join the passages of all chunks. One that goes over a cut becomes whole again."""
    passages: list[Passage] = []
    for chunk in chunks:
        for passage in chunk:
            _add(passages, passage)
    return Transcript(passages)


def _ends_utterance(seconds: float, piece: bytes, detector: t.Any) -> bool:
    if seconds < UTTERANCE or seconds >= LONGEST_UTTERANCE:
        return seconds >= LONGEST_UTTERANCE
    size = detector.frame_bytes
    frames = [piece[at : at + size] for at in range(0, len(piece), size)]
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
        _add(passages, Passage(start, end, word))
    return passages


def _add(passages: list[Passage], new: Passage) -> None:
    """Add words to the last passage, or after a pause as a new one."""
    if passages and new.start - passages[-1].end < PAUSE:
        last = passages.pop()
        new = Passage(last.start, new.end, f"{last.text} {new.text}")
    passages.append(new)
