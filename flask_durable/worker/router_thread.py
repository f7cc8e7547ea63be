"""The thread that routes events.

It executes no runs, and waits for none but for a moment: where a thread becomes free in
it, the run is executed in place.
"""

from __future__ import annotations

from dramatiq.errors import BrokerConnectionError

from ..engine.router import Router
from ..errors import ConfigurationError
from ..loops import Loop
from ..queue.broker import DurableBroker
from ..queue.delivery import Delivery
from ..queue.envelope import EVENT_QUEUE
from ..queue.redelivery import pause_before
from ..safe_logging import get_logger

#: Events that are routed together, in one round trip.
BATCH = 32

#: Seconds that routing waits for a free thread. Runs that are shorter give one back in
#: time; for longer ones the trips of a run message weigh little.
PATIENCE = 0.05

#: Seconds that one receive waits for an event, and after a queue was not reachable.
WAIT = 1.0
PAUSE = 1.0

logger = get_logger(__name__)


class RouterThread:
    """Receives events and routes them until it is stopped."""

    def __init__(self, broker: DurableBroker, router: Router) -> None:
        self._broker = broker
        self._router = router
        self._patient = True
        self._loop = Loop("durable-router", self._turn, self._failed)

    def start(self) -> None:
        """Start the thread."""
        self._loop.start()

    def stop(self, timeout: float) -> None:
        """Route what is in hand, and end.

        :param timeout: Seconds to wait for it.
        """
        self._loop.stop(timeout)

    def route(self, wait: float) -> int:
        """Route what arrives within *wait* seconds; return how many events.

        :raises Exception: The queue cannot be read.
        """
        limit = max(self._free() or BATCH, self._broker.transport.waiting_limit)
        deliveries = self._broker.deliveries(EVENT_QUEUE, min(limit, BATCH), wait)
        try:
            self._route_all(deliveries)
        except BaseException:
            # Left unsettled, they would be kept in hand by the heartbeat: hidden from
            # everybody for as long as this process lives. A second settlement of those
            # that were routed does nothing.
            for delivery in deliveries:
                delivery.release(PAUSE)
            raise
        return len(deliveries)

    def _route_all(self, deliveries: list[Delivery]) -> None:
        routed = 0
        while routed < len(deliveries):
            size = self._free() or BATCH
            self._route_together(deliveries[routed : routed + size])
            routed += size
            self._loop.moved()

    def _free(self) -> int:
        """Return how many threads are free, if one is within a moment.

        So many events are routed at a time: each is then executed in place, for half
        of the trips that a run message takes. Having waited once in vain, routing does
        not wait again before a thread was free.
        """
        window = self._broker.window
        self._patient = window.wait_free(PATIENCE if self._patient else 0)
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
            # One by one, so that an event that cannot be routed is received too often
            # alone, and takes no others to the dead-letter queue.
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
        self.route(WAIT)
        return 0

    def _failed(self, error: BaseException) -> float:
        if isinstance(error, BrokerConnectionError | ConfigurationError):
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
        return PAUSE
