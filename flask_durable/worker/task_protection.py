"""Keeps Amazon ECS from stopping a task that has runs.

::

    unprotected ── a run begins ──► protected ──► asked for again at REFRESH of EXPIRY
         ▲                              │
         └───── no run for LINGER ──────┘

The task asks ECS's agent, by the *task scale-in protection endpoint* of its developer
guide. Protection ends by itself after :data:`EXPIRY`, so a task whose worker is killed
or hangs does not hold up deployments for ever. Worker processes that share a task never
end it themselves, since one would take it from another that just began: it expires.
Each learns the task's ARN from the agent and publishes it with its beat, so that the
processes know of one another. No run waits for the agent, and a run goes on without
protection if it is refused.
"""

from __future__ import annotations

import contextlib
import threading
import time
import typing as t

from ..clients.http import HTTPAPI
from ..clients.http import Refusal
from ..common.loops import Loop
from ..common.safe_logging import get_logger
from ..errors import PlatformError
from ..redis.errors import log_failure

#: The variable in which ECS gives each container the address of its agent.
AGENT = "ECS_AGENT_URI"
_PATH = "/task-protection/v1/state"

#: Minutes until protection ends by itself, and the share after which it is renewed.
EXPIRY = 5
REFRESH = 0.8
#: Seconds without a run until protection is given up: the agent takes few calls.
LINGER = 10.0
#: Seconds before the agent is asked again after it refused.
AFTER_REFUSAL = 15.0
_LOOK = 0.5

logger = get_logger(__name__)


class TaskProtection:
    """Protects the task of this process while there is a run.

    :param agent: The agent's address.
    :param busy: Set while there is a run.
    :param shared: Returns whether other worker processes may be in the same task. Gets
        the task's ARN, or an empty text if that is not known.
    """

    def __init__(
        self, agent: str, busy: threading.Event, shared: t.Callable[[str], bool]
    ) -> None:
        #: The task's ARN; empty until the agent has returned it.
        self.task = ""
        self._api = HTTPAPI("The ECS agent", agent, dict, timeout=5, repetitions=1)
        self._busy = busy
        self._shared = shared
        self._protected = False
        self._refused = False
        #: ``time.monotonic()`` of the next call for protection, of the next question
        #: for the task, and of the last run.
        self._renew_at = 0.0
        self._learn_at = 0.0
        self._seen_busy = 0.0
        self._loop = Loop("durable-task-protection", self._turn, self._failed)

    def start(self) -> None:
        """Begin, on a thread of its own."""
        self._loop.start()

    def stop(self, timeout: float | None = None) -> None:
        """End the thread. Without a run, the task may go at once.

        :param timeout: Seconds to wait for it; ``None`` waits as long as it takes.
        """
        if self._loop.stop(timeout) and not self._busy.is_set():
            self._give_up()

    def _turn(self) -> float:
        if self._busy.wait(_LOOK):
            self._seen_busy = time.monotonic()
            self._protect()
            return _LOOK
        self._learn()
        if time.monotonic() - self._seen_busy > LINGER:
            self._give_up()
        return 0

    def _failed(self, error: BaseException) -> float:
        log_failure(logger, "protect this task", error)
        return AFTER_REFUSAL

    def _learn(self) -> None:
        """Ask for this task's ARN, while there is no run that would have to wait.

        The answer to a call for protection has it too.
        """
        if self.task or time.monotonic() < self._learn_at:
            return
        self._learn_at = time.monotonic() + AFTER_REFUSAL
        with contextlib.suppress(PlatformError):  # a refusal: logged with the next run
            self._note_task(self._api.call("GET", _PATH))

    def _note_task(self, reply: t.Any) -> None:
        protection = reply.get("protection") if isinstance(reply, dict) else None
        if isinstance(protection, dict):
            self.task = str(protection.get("TaskArn") or self.task)

    def _protect(self) -> None:
        now = time.monotonic()
        if now >= self._renew_at:
            self._protected = self._ask({"ExpiresInMinutes": EXPIRY}, enabled=True)
            pause = REFRESH * EXPIRY * 60 if self._protected else AFTER_REFUSAL
            self._renew_at = now + pause

    def _give_up(self) -> None:
        if not self._protected:
            return
        self._protected = False
        self._renew_at = 0.0
        try:
            shared = self._shared(self.task)
        except Exception:  # not known: the task may be shared
            shared = True
        if not shared:
            self._ask({}, enabled=False)

    def _ask(self, more: dict[str, int], *, enabled: bool) -> bool:
        """Change the protection; return whether the agent did it."""
        try:
            reply = self._api.call("PUT", _PATH, {"ProtectionEnabled": enabled, **more})
            self._note_task(reply)
            reason = _reason(reply)
        except Refusal as error:
            reason = _reason(error.answer) or str(error)
        except PlatformError as error:
            reason = str(error)
        if reason and not self._refused:
            # Logged once: a missing permission is missing for each run.
            logger.warning(
                "ECS does not protect this task while it has runs: %s",
                reason,
                extra={"action": "task_unprotected"},
            )
        self._refused = bool(reason)
        return not reason


def _reason(reply: t.Any) -> str:
    """Return the reason of an answer without protection, whatever its status."""
    said = reply if isinstance(reply, dict) else {}
    if said.get("protection"):
        return ""
    error, failure = said.get("error") or {}, said.get("failure") or {}
    texts = [error.get("Code"), error.get("Message"), failure.get("Reason")]
    return ": ".join(filter(None, texts)) or "an answer without protection"
