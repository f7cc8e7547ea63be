from __future__ import annotations

import math

import pytest

from example_app.embedding import embed
from example_app.embedding import similarity
from example_app.embedding import SIZE

AUSTEN = "had he married a more amiable woman he might have been more respectable"
MELVILLE = "call me ishmael some years ago never mind how long precisely"

#: The places of "time", "<ti", "tim", "ime" and "me>".
TIME = [34, 74, 116, 192, 404]


def test_a_text_is_as_similar_to_itself_as_can_be() -> None:
    assert len(embed(AUSTEN)) == SIZE
    assert math.hypot(*embed(AUSTEN)) == pytest.approx(1, abs=0.001)
    assert similarity(embed(AUSTEN), embed(AUSTEN)) == pytest.approx(1, abs=0.001)


def test_it_is_the_same_in_each_process() -> None:
    # Python's own hashes of texts differ from one process to the next.
    assert [n for n, value in enumerate(embed("time")) if value] == TIME


def test_misspelt_words_and_other_forms_are_near_and_others_are_not() -> None:
    austen, melville = embed(AUSTEN), embed(MELVILLE)
    for query in ("maried amiable", "respectible", "Marries; more!"):
        near, far = similarity(embed(query), austen), similarity(embed(query), melville)
        assert near > far + 0.1, query
    assert abs(similarity(austen, melville)) < 0.2


def test_a_text_without_words_is_similar_to_nothing() -> None:
    assert similarity(embed("… !"), embed(AUSTEN)) == 0
