"""The scaler: the number of workers that a queue needs, with the reasons.

::

    sensors ──► Observation ──► decide() ──► Decision ──► platform
                                  ▲   │
                    Goal, Pool ───┘   └──► PolicyMemory for the next run

:func:`~flask_durable.scaler.decision.policy.decide` is a pure function: it reads no
clock, no server and no configuration, so that a recorded observation explains a
decision, or simulates another one, at any later time.
"""

from .decision.observation import Fleet
from .decision.observation import Goal
from .decision.observation import Observation
from .decision.observation import Pool
from .decision.observation import Running
from .decision.observation import Sample
from .decision.observation import ServiceTime
from .decision.observation import Waiting
from .decision.policy import decide
from .decision.policy import Decision
from .decision.policy import PolicyMemory

__all__ = [
    "decide",
    "Decision",
    "Fleet",
    "Goal",
    "PolicyMemory",
    "Observation",
    "Pool",
    "Running",
    "Sample",
    "ServiceTime",
    "Waiting",
]
