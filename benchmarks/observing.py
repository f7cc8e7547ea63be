"""What telling statsd, or counting for Prometheus, takes of the steps a second.

Worker processes that do the one, the other or nothing are alive together, each with
a namespace of its own on the same server, and have the same runs of ten steps to do in
turns. Of each turn the steps a second count, and the processor time that the workers
took for a step, which is disturbed less by what else the machine does. A socket of this
process takes the packets.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import socket
import statistics
import typing as t

from flask_durable.app.state import AppState
from flask_durable.security.keys import new_metrics_secret
from tests.support.servers import valkey_server

from .model import Figure
from .model import Options
from .model import spread
from .throughput import STEPS
from .throughput import steps_a_second
from .workers import application
from .workers import worker_processes

#: Turns of each, for every round that was asked for.
TURNS = 4


def measure(options: Options) -> t.Iterator[Figure]:
    """Take both ratios for each."""
    runs = 200 if options.quick else 1_000
    with contextlib.ExitStack() as stack:
        url = stack.enter_context(valkey_server()).url
        statsd = stack.enter_context(_socket())
        secret = new_metrics_secret()
        sides = {
            name: stack.enter_context(_Side.of(url, name, **settings))
            for name, settings in {
                "without": {},
                "statsd": {"DURABLE_STATSD_URL": statsd},
                "Prometheus": {"DURABLE_METRICS_SECRETS": secret},
            }.items()
        }
        for side in sides.values():
            side.turn(runs)  # everything is imported and warm
            side.forget()
        order = list(sides.values())
        for _ in range(TURNS * options.rounds):
            # Whoever comes later finds a warmer machine.
            order = [*order[1:], order[0]]
            for side in order:
                side.turn(runs)
    quiet = sides.pop("without")
    for name, told in sides.items():
        yield _figure(f"with {name}: steps/s", quiet.rates, told.rates, 0.95)
        yield _figure(f"with {name}: CPU of a step", quiet.costs, told.costs, None)


class _Side:
    """The workers of one app, and what they did."""

    def __init__(self, state: AppState, pids: t.Sequence[int]) -> None:
        self._state = state
        self._pids = pids
        self.forget()

    @classmethod
    @contextlib.contextmanager
    def of(cls, url: str, namespace: str, **settings: str) -> t.Iterator[_Side]:
        with (
            application(url, namespace) as state,
            worker_processes(state, settings=settings) as pids,
        ):
            yield cls(state, pids)

    def forget(self) -> None:
        self.rates: list[float] = []
        self.costs: list[float] = []

    def turn(self, runs: int) -> None:
        """Have runs made; note steps a second, and microseconds a step."""
        before = self._computed()
        with self._state.app.app_context():
            self.rates.append(steps_a_second(self._state, runs))
        took = self._computed() - before
        self.costs.append(took / (runs * STEPS) * 1e6)

    def _computed(self) -> float:
        """Return the processor time of the workers, seconds."""
        ticks = 0
        for pid in self._pids:
            # Its name, which may have spaces, is in parentheses.
            line = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2]
            ticks += sum(int(field) for field in line.split()[11:13])
        return ticks / os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def _socket() -> t.Iterator[str]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"statsd://127.0.0.1:{bound.getsockname()[1]}"


def _figure(
    name: str, quiet: list[float], told: list[float], budget: float | None
) -> Figure:
    ratios = [a / b for a, b in zip(told, quiet, strict=True)]
    return Figure(
        name,
        budget,
        statistics.median(ratios),
        "x without",
        at_least=True,
        detail=f"{spread(told, 0)}, without {spread(quiet, 0)}, ratio {spread(ratios)}",
    )
