"""The user data of the run that an attempt owns: its event, results and failures.

Where no setting asks for more, all data passes through as it is. Data that cannot be
read ends the attempt past the body, which therefore cannot catch it:

====================  ==============================================================
the problem           the effect on the run
====================  ==============================================================
an object is missing  FAILED, ``payload.missing``. Committed data does not change, so no
                      other attempt could have another outcome.
a setting is missing  PAUSED, ``payload.locked``, until a worker has it.
no answer             It waits and is tried again, however often: an outage of the blob
                      store does not use up the run's attempts.
====================  ==============================================================
"""

from __future__ import annotations

import typing as t
from contextlib import contextmanager
from dataclasses import replace

from ..common.safe_logging import get_logger
from ..errors import Failure
from ..errors import PayloadLocked
from ..errors import PayloadMissing
from ..errors import PayloadUnavailable
from ..messages import EventMessage
from ..messages import is_sealed
from .branches import owner_of

if t.TYPE_CHECKING:
    from .attempt import Attempt

#: Characters of memos that make a run crowded: from then on its results go to the blob
#: store, if there is one, unless they are small.
CROWDED = 4 * 1024 * 1024

#: Seconds until a run is tried again after the blob store did not answer.
BLOB_RETRY = 30.0

logger = get_logger(__name__)


class RunPayloads:
    """Seals and opens the user data of one run, for the attempt that owns it."""

    def __init__(self, attempt: Attempt) -> None:
        self._attempt = attempt
        self._payloads = attempt.services.payloads
        self._event: EventMessage
        #: Characters of the memos; counted only if there is a blob store.
        self._size = 0
        if self._payloads.has_blobs:
            _, whole = owner_of(attempt.run)
            shared = int(whole.get("bytes", 0)) if attempt.run.above else 0
            self._size = sum(map(len, attempt.memos.values())) + shared

    def event(self) -> t.Any:
        """Return the run's event in the form that its function gets.

        A failure handler is told of its run in any case: it gets a plain dict if the
        model does not take the data, and an empty one if the data is lost.

        :raises EventError: The data does not fit the function.
        :raises Signal: The event cannot be read.
        """
        record, function = self._attempt.record, self._attempt.function
        message = self._event = self._attempt.run.message
        if not isinstance(message.data, str):
            return self._as_expected(message)
        owner, whole = owner_of(self._attempt.run)
        # The event that listeners get if the data cannot be read.
        self._event = replace(message, data={})
        with self._reading():
            try:
                self._event = self._payloads.adopt_event(
                    message,
                    owner,
                    failed_run=record.get("failed_run", ""),
                    held="blobs" in whole,
                    hold=self._hold,
                )
            except PayloadMissing:
                if "cause" not in record:
                    raise
                return function.event_without_model(self._event)
        return self._as_expected(self._event)

    def _as_expected(self, message: EventMessage) -> t.Any:
        function = self._attempt.function
        try:
            return function.event_for(message)
        except Exception:
            if "cause" not in self._attempt.record:
                raise
            return function.event_without_model(message)

    def opened_event(self) -> EventMessage:
        """Return the message of :meth:`event`, without data if that is lost."""
        return self._event

    def awaited_event(self, message: EventMessage, step: str) -> EventMessage:
        """Return an event that a step waited for, with its data.

        :raises Signal: The event cannot be read.
        """
        if not isinstance(message.data, str):
            return message
        with self._reading(step):
            return self._payloads.adopt_event(
                message,
                self._attempt.run_id,
                failed_run="",
                held="blobs" in self._attempt.record,
                hold=self._hold,
            )
        raise AssertionError("an event that cannot be read ends the attempt")

    def looked_at(self, message: EventMessage, step: str) -> EventMessage | None:
        """Return an event that may be none of the run's, ``None`` if its data is lost.

        :raises Signal: The event cannot be read.
        """
        with self._reading(step):
            try:
                return self._payloads.open_event(message)
            except PayloadMissing:
                return None
        raise AssertionError("an event that cannot be read ends the attempt")

    def cause(self) -> Failure:
        """Return the failure that a failure handler's run is about.

        :raises Signal: The failure cannot be read.
        """
        return Failure.from_json(self.open(self._attempt.record["cause"]))

    def seal(self, text: str) -> str:
        """Return the result of a step as it is stored.

        :raises PayloadUnavailable: The blob store did not take the text.
        :raises Signal: The run is not ours any more.
        """
        if self._payloads.plain:
            return text
        sealed = self._payloads.seal_result(
            text,
            self._attempt.run_id,
            hold=self._hold,
            crowded=self._size > CROWDED,
        )
        self._size += len(sealed)
        return sealed

    def open(self, sealed: str, step: str | None = None) -> str:
        """Return the text that was sealed, by this attempt or an earlier one.

        :raises Signal: The text cannot be read.
        """
        if not is_sealed(sealed):
            return sealed
        with self._reading(step):
            return self._payloads.open(sealed)

    def seal_event(self, message: EventMessage) -> str:
        """Return the event of a run that this one starts, as it is stored.

        :raises Signal: The run waits for the blob store.
        """
        if self._payloads.plain:
            return message.encode()
        with self._reading():
            return self._payloads.seal_event(message)

    def seal_end(
        self, outcome: str, *, failed: bool, events: t.Sequence[EventMessage]
    ) -> tuple[str, list[str]]:
        """Return the outcome of the run, and the events of its end, as they are stored.

        :raises Signal: The run waits for the blob store.
        """
        if self._payloads.plain:
            return outcome, [event.encode() for event in events]
        with self._reading():
            told = [self._payloads.seal_event(event) for event in events]
            if failed:
                return self._payloads.seal_text(outcome), told
            return self.seal(outcome), told

    @contextmanager
    def _reading(self, step: str | None = None) -> t.Iterator[None]:
        attempt = self._attempt
        try:
            yield
        except PayloadMissing as error:
            logger.error(
                "Run %s of %s failed: %s",
                attempt.run_id,
                attempt.function.id,
                error,
                extra={"action": "run_failed"},
            )
            attempt.info.error, attempt.info.failed_step = error, step or ""
            failure = Failure.of(error, step=step)
            attempt.finish(failed=True, outcome=failure.to_json())
            attempt.check()  # it is over, and the body is not to go on
        except PayloadLocked as error:
            attempt.pause(error, step)
        except PayloadUnavailable as error:
            logger.warning(
                "Run %s waits: %s",
                attempt.run_id,
                error,
                extra={"action": "blob_store_away"},
            )
            attempt.hand_back(BLOB_RETRY, reason="the blob store does not answer")

    def _hold(self) -> None:
        """Note that the run has objects, before the first of them is written."""
        if "blobs" not in self._attempt.record:
            self._attempt.hold()
