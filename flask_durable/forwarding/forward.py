"""``durable.forward``: a function whose one step delivers its event.

::

    event ──► run ──► step "deliver" ──► the receiver has it: COMPLETED
                          │ refused, or no attempt is left
                          ▼
                       FAILED ──► failure handler ──► dead letter of the run's queue

So the guarantees of runs hold for a delivery: one run an event; a retry that waits
needs no thread; a worker that dies between the answer and the commit delivers once
more, with the same id.
"""

from __future__ import annotations

import re
import typing as t

from ..common.durations import Duration
from ..engine.steps.dead_letter import leave_dead_letter
from ..errors import DefinitionError
from ..errors import StepUsageError
from ..events.model import Event
from ..functions.definition import define_function
from ..functions.function import Function
from ..functions.options import FunctionOptions
from ..functions.options import StepOptions
from ..functions.triggers import read_triggers
from .delivery import deliver
from .destination import EventReceiver

if t.TYPE_CHECKING:
    from ..errors import Failure
    from ..functions.step import Step

#: The name of the step.
DELIVERY_STEP = "deliver"

_NOT_IN_ID = re.compile(r"[^A-Za-z0-9_.\-]+")


#: Seconds after its timeout until a delivery is interrupted, if it goes on. The client
#: is to notice first, and to close its connection.
DELIVERY_GRACE = 1.0

#: Attempts of the step after the first one: about five hours with the usual delays.
FORWARD_RETRIES = 10


def define_forward(
    *,
    on: str | t.Sequence[str],
    to: str,
    signing_secrets: str | t.Sequence[str],
    id: str | None,
    where: t.Callable[[Event[t.Any]], bool] | None,
    timeout: Duration,
    options: FunctionOptions,
    defined_at: str,
) -> Function[t.Any, None]:
    """Return the function that :meth:`flask_durable.Durable.forward` describes.

    :raises DefinitionError: An argument is not valid.
    """
    triggers = read_triggers(on)
    if triggers.crons:
        raise DefinitionError(
            "A forward sends events, and a schedule has no event.",
            hint="Send an event from a function with the schedule, and forward it.",
        )
    if triggers.schemas:
        raise DefinitionError(
            "A forward is declared on a class, but sends events as they are.",
            hint=f"Write on={next(iter(triggers.schemas))!r}, the event's name.",
        )
    receiver = EventReceiver.of(to, signing_secrets)
    try:
        limit = StepOptions.of({"timeout": timeout}).timeout or 0.0
    except StepUsageError as error:
        raise DefinitionError(*error.args) from None

    def forward(event: Event[t.Any], step: Step) -> None:
        def post() -> int:
            return deliver(receiver, event, timeout=limit, backoff=options.backoff)

        step.options(timeout=limit + DELIVERY_GRACE).run(DELIVERY_STEP, post)

    def died(event: Event[t.Any], step: Step, failure: Failure) -> None:
        leave_dead_letter(step, failure)

    if id is None:
        id = f"forward-{_NOT_IN_ID.sub('-', receiver.host)}"
    function = define_function(
        forward, on=triggers.patterns, id=id, where=where, options=options
    )
    function.defined_at = defined_at
    function.confidential = receiver.confidential
    function.on_failure(died)
    return function
