"""Texts as vectors, so that similar ones can be found: offline and without a model.

A text is hashed: each word, and each three letters of a word, is counted in one of a
fixed number of places, with a sign that its hash gives it. Texts that share words, or
parts of words, have vectors of a similar direction. A model would also know words that
mean the same; it could take the place of :func:`embed`.
"""

from __future__ import annotations

import math
import re
import typing as t
import zlib
from collections import Counter

#: The length of a vector.
SIZE = 512

_WORD = re.compile(r"[^\W_]+")


def embed(text: str) -> list[float]:
    """Return the vector of a text, of length 1; of a text without words, zeros."""
    vector = [0.0] * SIZE
    for feature, count in Counter(_features(text)).items():
        place = zlib.crc32(feature.encode())
        sign = 1 if place & 1 else -1
        vector[(place >> 1) % SIZE] += sign * (1 + math.log(count))
    length = math.hypot(*vector) or 1.0
    return [round(value / length, 4) for value in vector]


def similarity(one: t.Sequence[float], other: t.Sequence[float]) -> float:
    """Return the cosine of two vectors: 1 for the same words, about 0 for others."""
    return sum(a * b for a, b in zip(one, other, strict=True))


def _features(text: str) -> t.Iterator[str]:
    for word in _WORD.findall(text.casefold()):
        yield word
        padded = f"<{word}>"
        yield from (padded[at : at + 3] for at in range(len(padded) - 2))
