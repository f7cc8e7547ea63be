"""The thread that routes events. It never executes runs, so it never waits for them."""

from __future__ import annotations

import logging
import threading

from dramatiq.errors import BrokerConnectionError

from ..engine.router import Router
from ..queue.broker import DurableBroker
from ..queue.envelope import EVENT_QUEUE

#: Events that are routed together, in one round trip.
BATCH = 32

#: Seconds that one receive waits for an event, and after a queue was not reachable.
WAIT = 1.0
PAUSE = 1.0

logger = logging.getLogger(__name__)


class RouterThread:
    """Receives events and routes them until it is stopped."""

    def __init__(self, broker: DurableBroker, router: Router) -> None:
        self._broker = broker
        self._router = router
        self._stopping = threading.Event()
        self._thread = threading.Thread(
            target=self._run, name="durable-router", daemon=True
        )

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self, timeout: float) -> None:
        """Route what is in hand, and end.

        :param timeout: Seconds to wait for it.
        """
        self._stopping.set()
        self._thread.join(timeout)

    def route(self, wait: float) -> int:
        """Route what arrives within *wait* seconds; return how many events.

        :raises Exception: They could not be routed, and were given back.
        """
        deliveries = self._broker.deliveries(EVENT_QUEUE, BATCH, wait)
        try:
            if deliveries:
                self._router.route(deliveries)
        except Exception:
            # Left unsettled, they would be kept in hand by the heartbeat: hidden from
            # everybody for as long as this process lives.
            for delivery in deliveries:
                delivery.release(PAUSE)
            raise
        return len(deliveries)

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self.route(WAIT)
            except BrokerConnectionError as error:
                logger.warning("The event queue cannot be reached: %s", error)
                self._stopping.wait(PAUSE)
            except Exception:
                logger.exception("Could not route events.")
                self._stopping.wait(PAUSE)
