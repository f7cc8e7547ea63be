"""Declarations for the tests of functions, without an app."""

from __future__ import annotations

import typing as t
from datetime import datetime

from flask_durable.events.model import Event
from flask_durable.events.model import EventData
from flask_durable.functions.decorators import Decorators
from flask_durable.functions.groups import DurableGroup
from flask_durable.functions.registry import FunctionRegistry
from flask_durable.messages import EventMessage


class Base(EventData):
    path: str


class Uploaded(Base, name="media/uploaded"):
    size: int = 0
    taken: datetime | None = None


class Removed(Base, name="media/removed"):
    pass


class App(Decorators):
    """An extension, as far as declaring goes."""

    def __init__(self) -> None:
        self.functions = FunctionRegistry()

    def register(self, group: DurableGroup) -> None:
        group.apply(self.functions)


def plain(event: t.Any, step: t.Any) -> str:
    return f"{event} {step}"


def bare(event: Event, step: t.Any) -> None: ...
def one(event: t.Any) -> None: ...
def three(event: t.Any, step: t.Any, more: t.Any) -> None: ...
def keyword(event: t.Any, step: t.Any, *, more: t.Any) -> None: ...
def generator(event: t.Any, step: t.Any) -> t.Iterator[int]:
    yield 1


async def asynchronous(event: t.Any, step: t.Any) -> None: ...
async def async_generator(event: t.Any, step: t.Any) -> t.AsyncIterator[int]:
    yield 1


def message(name: str, **data: t.Any) -> EventMessage:
    return EventMessage(name, data, "e1", 1_700_000_000_123)
