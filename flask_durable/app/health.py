"""Checks of the services that events and runs need."""

from __future__ import annotations

import threading
import time
import typing as t
from dataclasses import dataclass

import redis

from ..common.loops import ailing
from ..errors import DurableError
from ..messages import EVENT_QUEUE
from ..security.redaction import mask_url
from ..store.run_reader import told_strays
from ..store.server import StateServer

if t.TYPE_CHECKING:
    from .state import AppState


#: Seconds for which a readiness check counts.
READINESS_BELIEVED = 3.0


@dataclass(frozen=True)
class HealthCheck:
    """The check of one service that runs need.

    :param name: The service, such as ``"state server"``.
    :param ok: True if it is there and as it should be.
    :param detail: One line for a person, without credentials.
    """

    name: str
    ok: bool
    detail: str


class Readiness:
    """The problems that keep a process from accepting events, cached for some seconds.

    A probe may ask at any rate, and a check costs a write to the state server and a
    call to the queue, which is paid for on SQS. So one thread checks at a time; the
    others get the last result.

    :param look: A callable that returns the problems.
    """

    def __init__(self, look: t.Callable[[], list[str]]) -> None:
        self._look = look
        self._lock = threading.Lock()
        self._seen: list[str] | None = None
        self._look_at = 0.0

    def problems(self) -> list[str]:
        """Return the problems; empty if there are none."""
        # Only the first answer is waited for.
        if time.monotonic() > self._look_at and self._lock.acquire(
            blocking=self._seen is None
        ):
            try:
                if time.monotonic() > self._look_at:
                    self._seen = self._look()
            except Exception:
                self._seen = ["the check failed"]
                raise
            finally:
                self._look_at = time.monotonic() + READINESS_BELIEVED
                self._lock.release()
        return self._seen or []


class HealthChecks:
    """Checks the services of an app.

    :param state: The services of the app.
    """

    def __init__(self, state: AppState) -> None:
        self._state = state

    def readiness(self) -> t.Iterator[HealthCheck]:
        """Check the services that events need, with little patience for each."""
        if ails := ailing():
            yield HealthCheck("threads", False, _told(ails))
        server = self._check_server(self._state.impatient_server)
        yield server
        if server.ok or self._state.settings.queue_url not in (
            None,
            self._state.server.url,
        ):
            yield self._check_queue()

    def problems(self) -> list[str]:
        """Return the obstacles to accepting events in this process, a line for each."""
        checks = self.readiness()
        return [f"{check.name}: {check.detail}" for check in checks if not check.ok]

    def everything(self) -> t.Iterator[HealthCheck]:
        """Check all services that runs need; only the server while that is away."""
        server = self._check_server()
        yield server
        if not server.ok:
            return
        yield self._check_promise()
        yield self._check_queue()
        if (self._state.settings.queue_url or "").lower().startswith("sqs:"):
            yield self._check_owners()
        yield self._check_outbox()
        if self._state.settings.blob_url is not None:
            yield self._check_blob_store()
        if self._state.settings.encryption_keys:
            yield self._check_encryption()
        yield from self._check_database()
        yield self._check_workers()
        yield self._check_paused()
        yield from self._check_kept_events()
        yield self._check_dead_letters()

    def _check_server(self, server: StateServer | None = None) -> HealthCheck:
        name = "state server"
        try:
            (server or self._state.server).check(self._state.store.keys.tags)
        except (redis.RedisError, DurableError) as error:
            return HealthCheck(name, False, str(error))
        return HealthCheck(name, True, mask_url(self._state.server.url))

    def _check_promise(self) -> HealthCheck:
        name = "durability"
        try:
            promise = self._state.barrier.promise()
        except (redis.RedisError, DurableError) as error:
            return HealthCheck(name, False, str(error))
        kept = f"DURABLE_FSYNC={self._state.settings.fsync}: {promise}"
        return HealthCheck(name, True, kept)

    def _check_queue(self) -> HealthCheck:
        name = "queue"
        try:
            counts = self._state.transport.check(EVENT_QUEUE)
        except Exception as error:
            return HealthCheck(name, False, f"{type(error).__name__}: {error}")
        url = mask_url(self._state.settings.queue_url or self._state.server.url)
        return HealthCheck(name, True, f"{url}, {counts.waiting} event(s) wait")

    def _check_owners(self) -> HealthCheck:
        name, state = "queue owners", self._state
        ask = state.transport.owner_problem
        try:
            problems = [why for queue in state.queues() if (why := ask(queue))]
        except Exception as error:
            return HealthCheck(name, True, f"not known: {error}")
        detail = f"the installation {state.installation.id}"
        return HealthCheck(name, not problems, problems[0] if problems else detail)

    def _check_outbox(self) -> HealthCheck:
        waiting = self._state.store.count_owed_events()
        spools = ", DURABLE_SPOOL is on" if self._state.settings.spool else ""
        detail = f"{waiting} event(s) wait for the queue{spools}"
        return HealthCheck("outbox", True, detail)

    def _check_blob_store(self) -> HealthCheck:
        name = "blob store"
        try:
            self._state.payloads.check()
        except DurableError as error:
            return HealthCheck(name, False, str(error))
        return HealthCheck(name, True, mask_url(self._state.settings.blob_url or ""))

    def _check_encryption(self) -> HealthCheck:
        name, keys = "encryption", self._state.settings.encryption_keys
        try:
            self._state.payloads  # noqa: B018 (made here, if it can be)
        except DurableError as error:
            return HealthCheck(name, False, str(error))
        return HealthCheck(name, True, f"the first of {len(keys)} key(s) encrypts")

    def _check_database(self) -> t.Iterator[HealthCheck]:
        """Check the tables that database steps and ``send(session=)`` need.

        It is no part of readiness: other events are accepted without them.
        """
        name = "database"
        try:
            missing = self._state.database.missing_tables()
        except Exception as error:
            told = str(error).partition("\n")[0]
            yield HealthCheck(name, False, f"{type(error).__name__}: {told}")
            return
        if missing:
            tables = " and no table ".join(missing)
            hint = 'make a migration and run "flask db upgrade"'
            yield HealthCheck(name, False, f"there is no table {tables}: {hint}")
        elif missing is not None:
            yield HealthCheck(name, True, "the tables of steps and events are there")

    def _check_workers(self) -> HealthCheck:
        name = "workers"
        workers = self._state.directory.workers()
        served = {q for w in workers if self._serves(w) for q in w["queues"]}
        if not workers:
            hint = 'none is alive: start "flask durable worker"'
            return HealthCheck(name, False, hint)
        missing = sorted(set(self._state.functions.queues()) - served)
        if missing:
            return HealthCheck(name, False, f"no worker serves {', '.join(missing)}")
        if strays := self._state.store.waiting(but=served):
            return HealthCheck(name, False, told_strays(strays))
        for worker in workers:
            if ails := worker.get("ails"):
                detail = f"of worker {worker['id']} {_told(ails)}"
                return HealthCheck(name, False, detail)
        threads = sum(worker["threads"] for worker in workers)
        lost = sum(worker.get("lost", 0) for worker in workers)
        told = f", {lost} more are lost in steps that do not end" if lost else ""
        detail = f"{len(workers)} alive, {threads} threads{told}"
        return HealthCheck(name, True, detail)

    def _serves(self, worker: t.Mapping[str, t.Any]) -> bool:
        """Return whether runs in the queues of *worker* may wait for it.

        A push worker gets its messages from a reader of Amazon SQS queues; none reads
        other queues for it.
        """
        url = self._state.settings.queue_url or ""
        return worker["threads"] > 0 or url.startswith("sqs:")

    def _check_paused(self) -> HealthCheck:
        paused = self._state.store.count("paused", branches=True)
        detail = f"{paused}" + (', see "flask durable runs list"' if paused else "")
        return HealthCheck("paused runs", True, detail)

    def _check_kept_events(self) -> t.Iterator[HealthCheck]:
        awaited = self._state.directory.current().awaited
        if not awaited:
            return
        cut = self._state.waiters.cut_off(awaited)
        told = [f"{count} of {name}" for name, count in sorted(cut.items())]
        detail = f"{len(awaited)} name(s), no event was cut off"
        if told:
            detail = f"DURABLE_LOOK_BACK_SIZE cut off {', '.join(told)}"
        yield HealthCheck("awaited events", True, detail)

    def _check_dead_letters(self) -> HealthCheck:
        name = "dead letters"
        try:
            counts = self._state.dead_letters.counts()
        except Exception as error:
            return HealthCheck(name, False, str(error))
        dead = [f"{count} in {queue}" for queue, count in counts.items() if count]
        hint = ', see "flask durable dlq list"' if dead else ""
        return HealthCheck(name, True, (", ".join(dead) or "0") + hint)


def _told(ails: t.Mapping[str, str]) -> str:
    return ", ".join(f"{name} {what}" for name, what in ails.items())
