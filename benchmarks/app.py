"""The app whose functions are measured. Its settings come from the environment."""

from __future__ import annotations

import time
import typing as t

from flask import Flask

from flask_durable import Durable
from flask_durable import Event
from flask_durable import Step

durable = Durable()

Given = Event[dict[str, t.Any]]


def nothing(number: int) -> int:
    """The body of every step."""
    return number


@durable.function(on="bench/noop")
def noop(event: Given, step: Step) -> None:
    """Do nothing."""


@durable.function(on="bench/steps")
def steps(event: Given, step: Step) -> int:
    """Make as many steps as the event says, and return the last result."""
    last = 0
    for number in range(event.data["steps"]):
        last = step.run(f"step-{number}", nothing, number)
    return last


@durable.function(on="bench/started")
def started(event: Given, step: Step) -> int:
    """Return when the first line was reached, in nanoseconds."""
    return time.time_ns()


@durable.function(on="bench/sleep")
def sleeper(event: Given, step: Step) -> int:
    """Sleep between steps, and return when the step after the sleep was reached."""
    for number in range(event.data["steps"]):
        step.run(f"step-{number}", nothing, number)
    step.sleep("rest", event.data["seconds"])
    return step.run("next", time.time_ns)


@durable.function(on="bench/map")
def mapper(event: Given, step: Step) -> int:
    """Map a no-op over as many items as the event says."""
    return len(step.map("parts", nothing, range(event.data["items"])))


def create_app(**config: t.Any) -> Flask:
    """Make the app.

    :param config: ``DURABLE_*`` keys; others are read from the environment.
    """
    app = Flask("benchmarks")
    app.config.update(config)
    durable.init_app(app)
    return app
