"""A failed run as a dead letter, for the failure handlers that leave one.

::

    run FAILED ──► its handler's run ──► dead letter of the run's queue
    dead letter, moved back ──► run message ──► run QUEUED, if it is FAILED as it was

The letter is a run message that names the generation that failed. It is written by a
step of the handler, whose run was created by the script that ended the other: whatever
dies on the way, there is a letter, or there are two that mean the same. The first one
moved back makes a new generation, and the others find that and change nothing.
"""

from __future__ import annotations

import typing as t

from ..engine.interruption import shielded
from ..functions.function import FAILURE_SUFFIX
from ..queue.envelope import RunMessage

if t.TYPE_CHECKING:
    from ..failure import Failure
    from .step import Step

#: The name of the step.
NAME = "dead-letter"

#: Attempts after the first one: four days with the usual delays, however few the
#: function has. What it waits for is the queue, and not what the run failed at.
RETRIES = 100


def leave_dead_letter(step: Step, failure: Failure) -> None:
    """Put the run that failed into the dead letters of its queue.

    :param step: The tools of its failure handler's run.
    :param failure: Why it failed.
    """
    attempt = step._attempt
    record = attempt.record
    letter = RunMessage(
        record["parent"],
        record["function"].removesuffix(FAILURE_SUFFIX),
        queued=int(record["created"]),
        failed=int(record["parent_generation"]),
    ).encode()

    def put() -> None:
        with shielded():
            attempt.host.queue.send_dead(
                record["queue"], letter, failure.message, receives=failure.attempt
            )

    step.options(retries=RETRIES).run(NAME, put)
