"""Values that are shown to nobody, by their names."""

from __future__ import annotations

import pytest

from flask_durable.security.redaction import REDACT_KEYS
from flask_durable.security.redaction import Redaction


@pytest.mark.parametrize(
    "name", ["password", "X-Api-Key", "openaiApiKey", "DB_PASSWORD", "refresh-token"]
)
def test_a_value_with_the_name_of_a_secret_is_replaced_however_deep(name: str) -> None:
    redact = Redaction(REDACT_KEYS)
    shown = redact({"a": [{name: {"deep": 1}, "b": 2}], "c": (3,)})
    assert shown == {"a": [{name: "[redacted]", "b": 2}], "c": [3]}


def test_what_is_redacted_is_a_copy() -> None:
    given = {"token": "t"}
    Redaction(["TOKEN"])(given)
    assert given == {"token": "t"}


def test_words_of_ones_own_stand_for_the_usual_ones() -> None:
    redact = Redaction(["mother"])
    assert redact({"mothers_name": "a", "password": "b"}) == {
        "mothers_name": "[redacted]",
        "password": "b",
    }
