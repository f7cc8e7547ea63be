"""``step.wait_for_event``: suspended until an event comes, or a time is over.

==========  =======================================================================
memo found  effect
==========  =======================================================================
none        earlier events are looked at; if none fits, the wait is registered in the
            home of the event's name, and the run is suspended
waiting     the same, with the end that the memo has
done        the event is returned, or ``None`` if the time was over
==========  =======================================================================

The wait is registered before the run is suspended. An event that comes in between
writes the memo, and the script that would suspend the run finds it there.
"""

from __future__ import annotations

import functools
import json
import typing as t
from datetime import datetime
from datetime import timezone

from ...common.durations import Duration
from ...common.durations import to_seconds
from ...common.safe_logging import get_logger
from ...errors import StepUsageError
from ...events.model import Event
from ...events.model import EventData
from ...functions.awaits import read_awaited
from ...functions.function import event_of
from ...messages import decode
from ...messages import EventMessage
from ...store.memo import Memo
from ...store.memo import payload
from ...store.memo import Try
from ...store.run_store import after
from ...store.waiters import Candidates
from ...store.waiters import NotTaken
from ...store.waiters import RecentEvent
from ...store.waiters import TooManyPaths
from ...store.waiters import Unsorted
from ...store.waiters import Wait
from ...store.waiters import Waiting
from ..branches import owner_of
from ..matching import content_at
from ..matching import content_of
from ..matching import path_set
from ..matching import Wanted
from ..matching import wanted_by
from ..sketch import sketch_of
from ..waits import wait_for

if t.TYPE_CHECKING:
    from ..attempt import Attempt

KIND = "event"

logger = get_logger(__name__)


def wait_for_event(
    attempt: Attempt,
    name: str,
    event: str | type[EventData],
    timeout: Duration | None,
    match: str | t.Mapping[str, t.Any] | None,
) -> Event[t.Any] | None:
    """Carry out :meth:`flask_durable.Step.wait_for_event`."""
    key = attempt.enter(name)
    try:
        event_name, schema = read_awaited(event)
    except ValueError as error:
        problem, hint = error.args
        raise StepUsageError(
            f"Step {name!r} cannot wait for {event!r}: it {problem}.", hint=hint
        ) from None
    seconds = seconds_of(name, timeout)
    wanted = wanted_by(name, match, attempt.payloads.opened_event().opened)
    sketch = sketch_of(None, [event_name, wanted])
    memo = attempt.recall(key, KIND, sketch)
    if memo is None or not memo.final:
        wait = EventWait(attempt, key, event_name, wanted, seconds, memo)
        memo = wait.begin(sketch)
    if not memo.answer:
        return None
    message = decode(memo.answer)
    assert isinstance(message, EventMessage)
    return event_of(attempt.payloads.awaited_event(message, key), schema)


def seconds_of(name: str, timeout: Duration | None) -> float:
    """Return the seconds that a step waits at most.

    :raises StepUsageError: There is no timeout, or it is no duration.
    """
    if timeout is None:
        raise StepUsageError(
            f"Step {name!r} has no timeout, and would wait for ever.",
            hint='Say how long, such as timeout="7d".',
        )
    try:
        return to_seconds(timeout)
    except ValueError as error:
        raise StepUsageError(f"Step {name!r} cannot wait: {error}.") from None


class EventWait:
    """One wait for an event in one attempt of a run.

    :param memo: The memo of the step, if it waited before.
    """

    def __init__(
        self,
        attempt: Attempt,
        key: str,
        event: str,
        wanted: Wanted,
        seconds: float,
        memo: Memo | None,
    ) -> None:
        self._attempt = attempt
        self._services = attempt.services
        self._key = key
        self._event = event
        self._wanted = wanted
        self._content = content_of(wanted)
        self._paths = path_set(wanted)
        self._seconds = seconds
        self._ends = after(seconds) if memo is None else f"@{memo.number}"
        #: The time when the run was created that the step is a part of, not its branch.
        self._created = attempt.info.created
        if attempt.run.above:
            self._created = int(owner_of(attempt.run)[1]["created"])
        self._tries = memo.tries if memo else (Try(attempt.server_time, 0),)

    def begin(self, sketch: bytes) -> Memo:
        """Wait; return the memo if the event is there already.

        :raises Signal: The run is suspended.
        """
        payloads, attempt = self._services.payloads, self._attempt
        told = {"event": self._event, "match": self._wanted}
        about = payloads.seal_text(json.dumps(told, separators=(",", ":")))
        text = payload(
            KIND,
            f"{about}\n",
            tries=self._tries,
            digest=payloads.digest(sketch),
        )
        ends = self._ends
        if self._content is None:
            logger.warning(
                "Step %r waits for nothing: a value that it matches is null.",
                self._key,
                extra={"action": "wait_matches_nothing"},
            )
        else:
            ends = self._register(self._content, text) or ends
        return wait_for(attempt, KIND, self._key, ends, text, self._event)

    def _register(self, content: bytes, text: str) -> str | None:
        """Take an earlier event, or register the wait.

        :returns: The end of the wait, if it is registered.
        """
        waiters, learned = self._services.waiters, self._learn()
        add = functools.partial(
            waiters.add,
            self._event,
            self._attempt.run_id,
            self._key,
            self._ends,
            text,
            paths=self._paths,
            digest=self._services.payloads.index_digest(content) if self._paths else "",
            created=self._created,
            learned=learned,
        )
        seen = "0"
        while True:
            reply = self._attempt.as_owner(functools.partial(add, after=seen))
            match reply:
                case Waiting():
                    self._tell_unknown(reply.known)
                    return f"@{reply.ends}"
                case Candidates():
                    if self._take(reply.events, text):
                        return None
                    seen = reply.next
                case Unsorted():
                    if self._take_unsorted(content, seen, reply.stamp, text):
                        return None
                    seen = reply.stamp
                case TooManyPaths():
                    raise StepUsageError(
                        f"Step {self._key!r} cannot wait: the waits for "
                        f"{self._event!r} match 50 sets of paths already.",
                        hint="Match the same paths in several waits: put what differs "
                        "into their values.",
                    )

    def _take(self, events: t.Iterable[RecentEvent], text: str) -> bool:
        """Give earlier events to the step; return whether it waits no more."""
        wait = Wait(self._attempt.run_id, self._key, "", "", text)
        for event in events:
            give = functools.partial(
                self._services.waiters.wake, self._event, wait, *event
            )
            match self._attempt.as_owner(give):
                case NotTaken(waits=True):
                    continue
            return True
        return False

    def _take_unsorted(self, content: bytes, seen: str, stamp: str, text: str) -> bool:
        """Do the same with events that came before their values here were compared."""
        created = self._created
        while seen:
            look = functools.partial(
                self._services.waiters.unsorted, self._event, created, seen, stamp
            )
            events, seen = self._attempt.as_owner(look)
            fitting = [event for event in events if self._fits(content, event)]
            if self._take(fitting, text):
                return True
        return False

    def _fits(self, content: bytes, event: RecentEvent) -> bool:
        message = decode(event.text)
        assert isinstance(message, EventMessage)
        opened = self._attempt.payloads.looked_at(message, self._key)
        return opened is not None and content_at(self._paths, opened.opened) == content

    def _learn(self) -> bool:
        """Have the directory know until the end of this wait that its name is awaited.

        A name that functions declare is learned too: a release that declares it no more
        would keep its events from the waits that older ones registered.

        :returns: True if no function declares it.
        """
        services = self._services
        name, directory = self._event, services.directory
        declared = name in directory.remembered.declared or any(
            name in function.awaits for function in services.functions
        )
        until = self._attempt.server_time + int(self._seconds * 1000)
        until += services.waiters.look_back
        known = directory.learned_until(name)
        if known >= until:
            return not declared
        learn = functools.partial(services.waiters.learn, name, until)
        if not self._attempt.as_owner(learn):
            if declared:
                return False
            raise StepUsageError(
                f"Step {self._key!r} cannot wait for {name!r}: 10,000 names are "
                "awaited already.",
                hint="Put what differs into the data, and match it.",
            )
        if not known and not declared:
            logger.warning(
                "Events %r are kept for waits from now on; earlier ones are not known. "
                "To keep them before the first wait, declare awaits=[%r].",
                name,
                name,
                extra={"action": "awaited_name_learned"},
            )
        self._attempt.as_owner(directory.current)
        return not declared

    def _tell_unknown(self, known: int) -> None:
        if known <= self._created:
            return
        logger.warning(
            "Step %r waits for %r, and events before %s are not known any more.",
            self._key,
            self._event,
            datetime.fromtimestamp(known / 1000, timezone.utc).isoformat(),
            extra={"action": "wait_looks_back_short"},
        )
