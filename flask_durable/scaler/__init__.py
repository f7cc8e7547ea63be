"""The scaler: the number of workers that a queue needs, with the reasons.

::

    sensors ──► Observation ──► decide() ──► Decision ──► platform
                                  ▲   │
                    Goal, Pool ───┘   └──► Memory for the next run

:func:`~flask_durable.scaler.policy.decide` is a pure function: it reads no clock, no
server and no configuration, so that a recorded observation explains a decision, or
simulates another one, at any later time.
"""

from .observation import Fleet
from .observation import Goal
from .observation import Observation
from .observation import Pool
from .observation import Running
from .observation import Sample
from .observation import ServiceTime
from .observation import Waiting
from .policy import decide
from .policy import Decision
from .policy import Memory

__all__ = [
    "decide",
    "Decision",
    "Fleet",
    "Goal",
    "Memory",
    "Observation",
    "Pool",
    "Running",
    "Sample",
    "ServiceTime",
    "Waiting",
]
