"""Work for push workers."""

from __future__ import annotations

import time
import typing as t

from flask_durable import Event
from flask_durable import Step

from ...support.harness import Harness


def steps(harness: Harness, count: int, pause: float = 0.0) -> list[str]:
    """Declare a function of *count* steps; return the list of those that have run."""
    done: list[str] = []

    def work(name: str) -> str:
        time.sleep(pause)
        done.append(name)
        return name

    @harness.durable.function(on="work/asked")
    def work_off(event: Event[t.Any], step: Step) -> list[str]:
        return [step.run(f"s{n}", work, f"s{n}") for n in range(count)]

    return done
