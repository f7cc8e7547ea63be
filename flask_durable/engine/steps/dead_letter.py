"""A failed run as a dead letter, for the failure handlers that leave one.

::

    run FAILED ──► its handler's run ──► dead letter of the run's queue
    dead letter, moved back ──► run message ──► run QUEUED, if it is FAILED as it was

The letter is a run message that names the generation that failed. A step of the handler
writes it, and the script that ended the run created the handler's run. So a crash never
loses the letter; at worst there are two that mean the same. The first one moved back
makes a new generation; the others find that and change nothing.
"""

from __future__ import annotations

import typing as t

from ...common.interruption import shielded
from ...functions.function import FAILURE_SUFFIX
from ...messages import RunMessage
from .tools import AttemptStep

if t.TYPE_CHECKING:
    from ...errors import Failure
    from ...functions.step import Step

#: The name of the step.
NAME = "dead-letter"

#: Attempts after the first one: four days with the usual delays, however few the
#: function has. They wait for the queue, which has no part in the run's failure.
RETRIES = 100


def leave_dead_letter(step: Step, failure: Failure) -> None:
    """Put the run that failed into the dead letters of its queue.

    :param step: The tools of its failure handler's run.
    :param failure: The failure of the run.
    """
    # Forwarding has no body of its own: the engine gave it these tools.
    assert isinstance(step, AttemptStep)
    attempt = step.attempt
    record = attempt.record
    letter = RunMessage(
        record["failed_run"],
        record["function"].removesuffix(FAILURE_SUFFIX),
        queued=int(record["created"]),
        failed=int(record["failed_generation"]),
    ).encode()

    def put() -> None:
        with shielded():
            attempt.services.queue.send_dead(
                record["queue"], letter, failure.message, receives=failure.attempt
            )

    step.options(retries=RETRIES).run(NAME, put)
