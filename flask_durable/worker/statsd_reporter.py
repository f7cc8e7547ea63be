"""Gauges of the whole app, and counts of its runs, sent to statsd by one worker.

::

    every REPORT_SECONDS: the counts  ─► the counts ─► lead ──► another worker leads, or
    or without a leader sent last   now             │     the counts sent have changed
                                                    └───► the lease is this worker's:
                                                          it sends the change

One script takes or renews the lease and replaces the counts sent last by those of now.
It does so only if no other worker replaced them since they were read. So no two workers
send the same change, even if one stood still between reading and replacing, or repeats
the call after a lost reply. If a leader dies between the script and the packet, that
interval's change is lost; another worker leads after :data:`REPORT_LEASE_SECONDS`.
Counts from before the first leader are not sent.
"""

from __future__ import annotations

import json
import time
import typing as t
import uuid

from ..app.gauges import readings
from ..app.state import AppState
from ..common.loops import Loop
from ..common.safe_logging import get_logger
from ..common.times import to_milliseconds
from ..observe.metrics.statsd import LONGEST
from ..observe.metrics.statsd import Statsd
from ..redis.errors import log_failure

#: Seconds between two rounds, and seconds until a silent leader is replaced.
REPORT_SECONDS = 10.0
REPORT_LEASE_SECONDS = 12.0

# KEYS: the lease, the counts sent last. ARGV: token, milliseconds, the counts sent last
# as they were read ("" if there are none), the counts now. Returns 1 if the caller
# sends the change.
_LEAD = """
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return 0 end
local sent = redis.call('GET', KEYS[2]) or ''
-- The second is this call, repeated after a lost reply.
if sent ~= ARGV[3] and not (holder and sent == ARGV[4]) then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
redis.call('SET', KEYS[2], ARGV[4])
return 1
"""

_LEAVE = """
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
"""

logger = get_logger(__name__)


class Gauges:
    """One worker's part in sending the gauges and counts."""

    def __init__(self, state: AppState, statsd: Statsd) -> None:
        self._state = state
        self._statsd = statsd
        self._token = uuid.uuid4().hex
        root = state.store.keys.root
        self._keys = (f"{root}:metrics:leader", f"{root}:metrics:sent")
        self._leads = False
        self._next_look = 0.0
        self._loop = Loop("durable-gauges", self._turn, self._failed)

    def start(self) -> None:
        """Try to lead at once, so that the first run is counted; go on in a thread."""
        self._try()
        self._next_look = time.monotonic() + REPORT_SECONDS
        self._loop.start(LONGEST)

    def stop(self, timeout: float) -> None:
        """End the thread, and let another worker lead.

        :param timeout: Seconds to wait for it.
        """
        if not self._loop.stop(timeout):
            return  # the lead ends by itself
        self._try()
        try:
            self._state.server.client.eval(_LEAVE, 1, self._keys[0], self._token)
        except Exception as error:
            log_failure(logger, "leave the lead", error)

    def _turn(self) -> float:
        if time.monotonic() >= self._next_look or self._nobody_leads():
            self._next_look = time.monotonic() + REPORT_SECONDS
            self._try()
        self._statsd.flush()
        return LONGEST

    def _failed(self, error: BaseException) -> float:
        log_failure(logger, "send metrics", error)
        return LONGEST

    def _nobody_leads(self) -> bool:
        try:
            return not self._leads and not self._state.server.client.exists(
                self._keys[0]
            )
        except Exception as error:
            log_failure(logger, "look for a leader of metrics", error)
            return False

    def _try(self) -> None:
        try:
            self.look()
        except Exception as error:
            log_failure(logger, "read metrics", error)

    def look(self) -> bool:
        """Send everything if this worker leads; return whether it leads.

        :raises redis.RedisError: The state server did not answer.
        """
        client = self._state.server.client
        sent = t.cast("str | None", client.get(self._keys[1])) or ""
        counts = self._state.run_counts.totals()
        lease = str(to_milliseconds(REPORT_LEASE_SECONDS))
        now = json.dumps(counts, sort_keys=True)
        self._leads = bool(
            client.eval(_LEAD, 2, *self._keys, self._token, lease, sent, now)
        )
        if not self._leads:
            return False
        self._send_counts(json.loads(sent) if sent else counts, counts)
        for name, value, tags in readings(self._state):
            self._statsd.gauge(name, value, **tags)
        self._statsd.flush()
        return True

    def _send_counts(
        self,
        before: t.Mapping[str, t.Mapping[str, int]],
        now: t.Mapping[str, t.Mapping[str, int]],
    ) -> None:
        for function, counts in now.items():
            for what, count in counts.items():
                more = count - before.get(function, {}).get(what, 0)
                # Less than before: the server lost counts that were sent.
                self._statsd.count(f"run.{what}", max(more, 0), function=function)
