"""Groups: functions and steps that are declared without an app."""

from __future__ import annotations

import pytest

from flask_durable.errors import DefinitionError
from flask_durable.functions.groups import DurableGroup

from .declared import App
from .declared import plain
from .declared import three
from .declared import Uploaded


def test_a_group_puts_its_name_before_ids_and_steps(durable: App) -> None:
    group = DurableGroup("media", queue="media", retries=5)
    first = group.function(on="a/b")(plain)
    second = group.function(on="a/b", id="other", retries=0)(plain)
    step = group.step("fetch")(lambda: 1)
    group.event(Uploaded)
    durable.register(group)
    assert [f.id for f in durable.functions] == ["media.plain", "media.other"]
    assert (first.queue, first.retries) == ("media", 5)
    assert (second.queue, second.retries) == ("media", 0)
    assert durable.functions.steps == {"media.fetch": step}
    assert durable.functions.schemas.get("media/uploaded") is Uploaded
    assert durable.functions.matching("a/b") == [first, second]


def test_a_failure_handler_may_be_declared_after_its_group(durable: App) -> None:
    group = DurableGroup("media")
    function = group.function(on="a/b")(plain)
    durable.register(group)
    function.on_failure(three)
    assert durable.functions.get("media.plain/on_failure") is function.failure_handler


def test_a_group_is_registered_once_an_app(durable: App) -> None:
    group = DurableGroup("media")
    group.function(on="a/b")(plain)
    durable.register(group)
    with pytest.raises(DefinitionError, match="'media' is registered already"):
        durable.register(group)
    with pytest.raises(DefinitionError, match="'media' is registered already"):
        durable.register(DurableGroup("media"))
    App().register(group)


def test_nothing_is_declared_in_a_group_that_is_registered(durable: App) -> None:
    group = DurableGroup("media")
    durable.register(group)
    with pytest.raises(DefinitionError, match=r"before durable\.register"):
        group.function(on="a/b")(plain)
    with pytest.raises(DefinitionError, match=r"before durable\.register"):
        group.step("x")(plain)
    with pytest.raises(DefinitionError, match=r"before durable\.register"):
        group.event(Uploaded)


def test_a_group_with_a_wrong_name_or_default_is_refused() -> None:
    with pytest.raises(DefinitionError):
        DurableGroup("a/b")
    with pytest.raises(DefinitionError, match="retries"):
        DurableGroup("media", retries=-1)
    with pytest.raises(TypeError, match="concurrency"):
        DurableGroup("media", concurrency=1)  # type: ignore[call-arg]
