"""Messages that look like ours, and are not."""

from __future__ import annotations

import json
import typing as t

import pytest

from flask_durable.messages import decode
from flask_durable.messages import EventMessage
from flask_durable.messages import FIRST_TIME
from flask_durable.messages import LAST_TIME
from flask_durable.messages import RunMessage
from flask_durable.messages import UndecodableMessage


def body(**fields: t.Any) -> str:
    given = json.loads(EventMessage("a/b", {}, "e1", 1).encode())
    return json.dumps({**given, **fields})


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"at": 10**30}, "field 'at' is no time"),
        ({"at": FIRST_TIME - 1}, "field 'at' is no time"),
        ({"due": LAST_TIME + 1}, "field 'due' is no time"),
        ({"id": ""}, "field 'id' is empty"),
        ({"name": ""}, "field 'name' is empty"),
        ({"name": "a/\ud800"}, "field 'name' is no text"),
        ({"id": "\udfff"}, "field 'id' is no text"),
        ({"data": "plain"}, "field 'data' is not dict"),
    ],
)
def test_an_event_that_no_run_could_show_is_none(
    fields: dict[str, t.Any], problem: str
) -> None:
    with pytest.raises(UndecodableMessage) as caught:
        decode(body(**fields))
    assert str(caught.value) == problem


def test_every_time_that_there_is_may_be_given() -> None:
    for time in (FIRST_TIME, -1, LAST_TIME):
        message = decode(body(at=time, due=time))
        assert isinstance(message, EventMessage)
        assert message.at == message.due == time


def test_a_branch_s_message_is_of_a_function_that_older_releases_do_not_have() -> None:
    text = RunMessage("r1.b-x", "work", 1).encode()

    assert json.loads(text)["function"] == "work[branch]"
    assert decode(text) == RunMessage("r1.b-x", "work", 1)
    # As a sweep has it, which reads it from the run.
    assert RunMessage("r1.b-x", "work[branch]", 1).encode() == text
    assert json.loads(RunMessage("r1", "work", 1).encode())["function"] == "work"
