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

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                deliveries = self._broker.deliveries(EVENT_QUEUE, BATCH, WAIT)
                if deliveries:
                    self._router.route(deliveries)
            except BrokerConnectionError as error:
                logger.warning("The event queue cannot be reached: %s", error)
                self._stopping.wait(PAUSE)
            except Exception:
                # What was in hand becomes visible again by itself.
                logger.exception("Could not route events.")
                self._stopping.wait(PAUSE)
