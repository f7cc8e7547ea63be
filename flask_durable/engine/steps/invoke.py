"""``step.invoke``: a run of another function, and its result.

==========  ======================================================================
memo found  effect
==========  ======================================================================
none        the child is created, and this run is suspended until it has ended
waiting     the same: this run was retried, and its old child was cancelled
done        the child's result is returned
failed      ``InvokeError``: the child failed, was cancelled, or took too long
==========  ======================================================================

See ``store/children.py`` for the writes. The child has the trace headers of this run's
event; its data is sealed as an event's, and its objects in the blob store are its own.
"""

from __future__ import annotations

import typing as t
from dataclasses import replace

from ...common.durations import Duration
from ...common.durations import format_seconds
from ...common.durations import to_seconds
from ...common.ids import child_run_id
from ...common.ids import derived_id
from ...common.safe_logging import get_logger
from ...errors import Failure
from ...errors import InvokeError
from ...errors import ReplayMismatch
from ...errors import StepUsageError
from ...events.model import EventData
from ...functions.function import Function
from ...middleware import StepInfo
from ...serialization import Codec
from ...serialization import UnreadableValue
from ...store.children import NewChild
from ...store.children import start_child
from ...store.memo import Memo
from ...store.memo import payload
from ...store.memo import Try
from ...store.replies import ChildStarted
from ...store.replies import Full
from ...store.replies import Resolved
from ..attempt import Attempt
from ..branches import created_of
from ..children import Callee
from ..children import callee_of
from ..children import id_of
from ..children import is_quiet
from ..children import message_for
from ..children import result_codec
from ..control import Suspended
from ..sketch import sketch_of
from ..waits import tell_end

KIND = "invoke"

logger = get_logger(__name__)


def invoke(
    attempt: Attempt,
    name: str,
    function: Function[t.Any, t.Any] | str,
    data: t.Any,
    timeout: Duration | None,
) -> t.Any:
    """Carry out :meth:`flask_durable.Step.invoke`."""
    wait = _seconds(name, timeout)
    key = attempt.enter(name)
    id = id_of(function)
    # Before the child is created: a useless annotation must not cost a run.
    codec = result_codec(attempt.services, function)
    shown = data.model_dump(mode="json") if isinstance(data, EventData) else data
    sketch = sketch_of(None, [id, shown])
    memo = attempt.recall(key, KIND, sketch)
    if memo is None or not memo.final:
        # Only now: a child that has ended is found although its function is gone since,
        # or has another model.
        callee = callee_of(attempt.services, id)
        memo = _start(attempt, key, _child(attempt, key, callee, data), wait, sketch)
    return _outcome(attempt, key, memo, codec)


def _child(attempt: Attempt, key: str, callee: Callee, data: t.Any) -> NewChild:
    child_id = _child_id(attempt, key)
    event_id = derived_id("invoked", child_id)
    message = message_for(attempt.services, callee, data, event_id)
    message = replace(message, headers=attempt.run.message.headers)
    return NewChild(
        id=child_id,
        function=callee.id,
        queue=callee.queue,
        event=attempt.payloads.seal_event(message),
        event_id=message.id,
        event_name=message.name,
        timeout=callee.timeout,
        start_timeout=callee.start_timeout,
        version=callee.version,
        quiet=is_quiet(attempt.record),
    )


def _child_id(attempt: Attempt, key: str) -> str:
    created = created_of(attempt.run, attempt.run_id)
    return child_run_id(attempt.run_id, created, attempt.record["generation"], key)


def _seconds(name: str, timeout: Duration | None) -> float | None:
    if timeout is None:
        return None
    try:
        seconds = to_seconds(timeout)
    except ValueError as error:
        raise StepUsageError(f"Step {name!r} cannot wait: {error}.") from None
    if seconds < 0.001:
        raise StepUsageError(
            f"Step {name!r} cannot wait for {timeout!r}: that is no time.",
            hint="Leave out timeout= to wait for as long as it takes.",
        )
    return seconds


def _start(
    attempt: Attempt,
    key: str,
    child: NewChild,
    wait: float | None,
    sketch: bytes,
) -> Memo:
    """Create the child, and suspend the run.

    :returns: The memo, if the step has its outcome already.
    :raises Signal: The run is suspended, or is not ours any more.
    """
    services = attempt.services
    head = payload(
        KIND,
        "",
        tries=[Try(attempt.server_time, 0)],
        digest=services.payloads.digest(sketch),
        path=child.id,
    )
    expired = Failure(
        type="InvokeTimeout",
        message=f"took longer than {format_seconds(wait or 0)}",
        step=key,
        code="invoke.timeout",
    )
    attempt.progress.flush()
    info = StepInfo(attempt.info, key, KIND, 1)
    with services.middleware.around_step(info):
        reply = attempt.as_owner(
            lambda: start_child(
                services.store,
                (attempt.run_id, attempt.token),
                key,
                child,
                wait=wait,
                head=head,
                expired=services.payloads.seal_failure(expired),
            ),
            size=len(child.event),
        )
        if isinstance(reply, ChildStarted):
            info.outcome = "waiting"
        elif isinstance(reply, Resolved):
            info.outcome = "completed"
    match reply:
        case Full():
            attempt.fail_over_limit(reply.limit)
        case Resolved():
            attempt.committed = True
            memo = Memo.parse(reply.memo)
            tell_end(attempt, key, memo)
            return memo
        case ChildStarted():
            attempt.outbox.send_runs(
                [(child.id, child.function, child.queue, reply.queued)]
            )
    logger.info(
        "Step %r of run %s waits for run %s of %s.",
        key,
        attempt.run_id,
        child.id,
        child.function,
        extra={"action": "run_invoked"},
    )
    raise attempt.stop(Suspended("child"))


def _outcome(attempt: Attempt, key: str, memo: Memo, codec: Codec) -> t.Any:
    # Only now: a text that is not returned to the body is not fetched.
    text = attempt.payloads.open(memo.body, key)
    if memo.status == "failed":
        raise InvokeError(key, Failure.from_json(text), run_id=memo.path)
    try:
        return codec.load(text)
    except UnreadableValue as error:
        attempt.pause(
            ReplayMismatch(
                f"The result of the run {memo.path}, which step {key!r} invoked, does "
                "not fit the function's type here.",
                hint="Deploy code that can read it; then resume.",
            ),
            key,
            error=error,
        )
