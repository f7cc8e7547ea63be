"""The thread that routes events.

It executes no runs. It waits for a moment only: if a thread becomes free in that time,
the run is executed in place.

An event may end the process that routes it: a filter crashes in C code, or takes all
memory. Then all events that the process held come back, and one of them is to blame. So
events that come back are routed in ever smaller batches, and at last alone::

    receive   1 ── 2 ── 3 ── 4 … ── 10 ── dead letter
    together  32   8    2    1

A note is written before an event goes alone, in the place of a dead letter's error.
Events with such a note come after the others, so that the next process gets past the
good ones first. Events that were routed before are deleted first, so that they do not
come back.
"""

from __future__ import annotations

import contextlib
import itertools

from ..common.loops import Loop
from ..common.loops import moved
from ..common.redelivery import pause_before
from ..common.safe_logging import get_logger
from ..engine.router import Router
from ..errors import ConfigurationError
from ..messages import EVENT_QUEUE
from ..queue.broker import DurableBroker
from ..queue.delivery import Delivery
from ..queue.transport import QueueAway
from ..redis.errors import TRANSIENT
from ..store.message_failures import MessageFailures

#: Events that are routed together, in one round trip.
ROUTED_TOGETHER = 32

#: Seconds that routing waits for a free thread. Short runs free one in that time; for
#: longer ones the round trips of a run message weigh little.
THREAD_PATIENCE_SECONDS = 0.05

#: Seconds that one receive waits for an event, and that routing pauses if a queue is
#: out of reach.
EVENT_WAIT_SECONDS = 1.0
ROUTING_PAUSE_SECONDS = 1.0

#: Seconds within which routed messages have to be deleted before an event goes alone.
ROUTED_FLUSH_SECONDS = 1.0

#: The note on an event before it goes alone. It stays if the process ends.
SUSPECTED = "The process that routed it ended, or was cut off from the state server."

logger = get_logger(__name__)


class RouterThread:
    """Receives events and routes them until it is stopped.

    :param failures: The store of notes on suspected events; ``None`` writes none.
    """

    def __init__(
        self,
        broker: DurableBroker,
        router: Router,
        failures: MessageFailures | None = None,
    ) -> None:
        self._broker = broker
        self._router = router
        self._failures = failures
        self._patient = True
        self._loop = Loop("durable-router", self._turn, self._failed)

    def start(self) -> None:
        """Start the thread."""
        self._loop.start()

    def stop(self, timeout: float) -> None:
        """Route the events that were received, and end.

        :param timeout: Seconds to wait for it.
        """
        self._loop.stop(timeout)

    def route(self, wait: float) -> int:
        """Route the events of the next *wait* seconds; return their number.

        :raises Exception: The queue cannot be read.
        """
        limit = max(
            self._free() or ROUTED_TOGETHER, self._broker.transport.waiting_limit
        )
        deliveries = self._broker.deliveries(
            EVENT_QUEUE, min(limit, ROUTED_TOGETHER), wait
        )
        try:
            self._route_all(deliveries)
        except BaseException:
            # Left unsettled, they would be kept by the heartbeat: hidden from all
            # workers for as long as this process lives. A second settlement of events
            # that were routed does nothing.
            for delivery in deliveries:
                delivery.release(ROUTING_PAUSE_SECONDS)
            raise
        return len(deliveries)

    def _route_all(self, deliveries: list[Delivery]) -> None:
        if all(delivery.receive_count == 1 for delivery in deliveries):
            return self._route_in_batches(deliveries, ROUTED_TOGETHER)
        for size, group in itertools.groupby(self._in_order(deliveries), self._size):
            if size > 1:
                self._route_in_batches(list(group), size)
            else:
                for delivery in group:
                    self._route_suspect(delivery)

    def _route_in_batches(self, deliveries: list[Delivery], most: int) -> None:
        routed = 0
        while routed < len(deliveries):
            size = min(self._free() or ROUTED_TOGETHER, most)
            self._route_together(deliveries[routed : routed + size])
            routed += size
            moved()

    def _size(self, delivery: Delivery) -> int:
        """Return the number of events in one batch with this one, itself included.

        A queue may give up its messages after fewer than ten receives.
        """
        receives = delivery.receive_count
        if receives >= max(self._broker.transport.max_receives(EVENT_QUEUE) // 2, 2):
            return 1
        return max(ROUTED_TOGETHER >> 2 * (receives - 1), 1)

    def _in_order(self, deliveries: list[Delivery]) -> list[Delivery]:
        """Return *deliveries* with those last that may end the process.

        Those of one group of a FIFO queue stay together, in their order.
        """
        ordered = self._broker.transport.is_ordered(EVENT_QUEUE)
        groups: dict[str | int, list[Delivery]] = {}
        for number, delivery in enumerate(deliveries):
            group = delivery.message.group if ordered else number
            groups.setdefault(group, []).append(delivery)
        noted = self._noted([d.message.key for d in deliveries if self._size(d) == 1])

        def place(group: list[Delivery]) -> tuple[int, bool]:
            size = min(map(self._size, group))
            return -size, any(d.message.key in noted for d in group)

        return [*itertools.chain(*sorted(groups.values(), key=place))]

    def _noted(self, keys: list[str]) -> set[str]:
        if self._failures is None:
            return set()
        try:
            found = self._failures.of(keys)
        except TRANSIENT:
            return set()  # routing notices by itself that the server is away
        return {key for key, failure in found.items() if failure.error == SUSPECTED}

    def _route_suspect(self, delivery: Delivery) -> None:
        self._broker.flush_settled(ROUTED_FLUSH_SECONDS)
        if self._failures is not None:
            # Refused or lost, it costs the good events behind this one some receives.
            with contextlib.suppress(Exception):
                self._failures.note({delivery.message.key: SUSPECTED})
        self._route_together([delivery])
        moved()

    def _free(self) -> int:
        """Return the number of free threads; wait a moment for one if there is none.

        As many events are routed together: each is then executed in place, for half of
        the round trips that a run message takes. After a wait without a free thread,
        routing does not wait again before a thread was free.
        """
        window = self._broker.window
        self._patient = window.wait_free(
            THREAD_PATIENCE_SECONDS if self._patient else 0
        )
        return max(window.free, 0) if self._patient else 0

    def _route_together(self, deliveries: list[Delivery]) -> None:
        try:
            self._router.route(deliveries)
        except BaseException:
            logger.exception(
                "Could not route %d events together.",
                len(deliveries),
                extra={"action": "routing_failed"},
            )
            # One by one: an event that cannot be routed uses up its receives alone,
            # and takes no others to the dead-letter queue.
            for delivery in deliveries:
                self._route_alone(delivery)

    def _route_alone(self, delivery: Delivery) -> None:
        try:
            self._router.route([delivery])
        except BaseException as error:  # also a schema that exits
            logger.exception(
                "Could not route an event.", extra={"action": "routing_failed"}
            )
            delivery.failed(error, pause_before(delivery.receive_count))

    def _turn(self) -> float:
        self.route(EVENT_WAIT_SECONDS)
        return 0

    def _failed(self, error: BaseException) -> float:
        if isinstance(error, QueueAway | ConfigurationError):
            logger.warning(
                "The event queue cannot be reached: %s",
                error,
                extra={"action": "queue_away"},
            )
        else:
            logger.error(
                "Could not route events.",
                exc_info=error,
                extra={"action": "routing_failed"},
            )
        return ROUTING_PAUSE_SECONDS
