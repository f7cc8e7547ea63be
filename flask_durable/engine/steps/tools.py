"""The step tools of an attempt: each operation is a module of this folder."""

from __future__ import annotations

import typing as t
from datetime import datetime

from ...common.durations import Duration
from ...functions.address import Page
from ...functions.options import NO_OPTIONS
from ...functions.options import StepOptions
from ...functions.retries import Backoff
from ...functions.step import Step
from . import create_url
from . import fan_out
from . import invoke
from . import poll
from . import run
from . import send_event
from . import sleep
from . import transaction
from . import wait_for_event
from . import wait_for_signal
from . import wait_for_url

if t.TYPE_CHECKING:
    from ...events.model import EventData
    from ...events.model import EventLike
    from ...functions.address import Address
    from ...functions.function import Function
    from ..attempt import Attempt

P = t.ParamSpec("P")
R = t.TypeVar("R")


class AttemptStep(Step):
    """The step tools that one attempt gives to its body.

    :param attempt: The attempt that owns the run.
    :param options: The options of the steps that are made with them.
    """

    __slots__ = ("_options", "attempt")

    def __init__(self, attempt: Attempt, options: StepOptions = NO_OPTIONS) -> None:
        self.attempt = attempt
        self._options = options

    def run(
        self, id: str, fn: t.Callable[P, R], /, *args: P.args, **kwargs: P.kwargs
    ) -> R:
        value: R = run.run(self.attempt, self._options, id, fn, args, kwargs)
        return value

    def transaction(
        self, id: str, fn: t.Callable[P, R], /, *args: P.args, **kwargs: P.kwargs
    ) -> R:
        value: R = transaction.transaction(
            self.attempt, self._options, id, fn, args, kwargs
        )
        return value

    def options(
        self,
        *,
        retries: int | None = None,
        backoff: Backoff | None = None,
        non_retriable: t.Sequence[type[Exception]] = (),
        timeout: Duration | None = None,
        lease: Duration | None = None,
        at_most_once: bool = False,
    ) -> AttemptStep:
        given = StepOptions.of(
            {
                "retries": retries,
                "backoff": backoff,
                "non_retriable": non_retriable,
                "timeout": timeout,
                "lease": lease,
                "at_most_once": at_most_once,
            }
        )
        return AttemptStep(self.attempt, self._options.merged(given))

    def sleep(self, id: str, duration: Duration, /) -> None:
        self._options.refuse_for("sleep")
        sleep.sleep(self.attempt, id, duration)

    def sleep_until(self, id: str, when: datetime, /) -> None:
        self._options.refuse_for("sleep_until")
        sleep.sleep_until(self.attempt, id, when)

    def invoke(
        self,
        id: str,
        function: Function[t.Any, t.Any] | str,
        data: t.Any = None,
        /,
        *,
        timeout: Duration | None = None,
    ) -> t.Any:
        self._options.refuse_for("invoke")
        return invoke.invoke(self.attempt, id, function, data, timeout)

    def parallel(
        self,
        id: str,
        /,
        *,
        limit: int | None = None,
        tolerate: int = 0,
        return_exceptions: bool = False,
        **branches: t.Callable[[Step], t.Any],
    ) -> dict[str, t.Any]:
        self._options.refuse_for("parallel")
        return fan_out.parallel(
            self.attempt,
            self,
            id,
            branches,
            limit=limit,
            tolerate=tolerate,
            return_exceptions=return_exceptions,
        )

    def map(
        self,
        id: str,
        fn: t.Callable[..., t.Any] | Function[t.Any, t.Any] | str,
        items: t.Iterable[t.Any],
        /,
        *,
        key: t.Callable[[t.Any], str | int] | None = None,
        limit: int | None = None,
        tolerate: int = 0,
        return_exceptions: bool = False,
    ) -> list[t.Any]:
        return fan_out.map(
            self.attempt,
            self,
            self._options,
            id,
            fn,
            items,
            key_of=key,
            limit=limit,
            tolerate=tolerate,
            return_exceptions=return_exceptions,
        )

    def first(
        self, id: str, /, **branches: t.Callable[[Step], t.Any]
    ) -> tuple[str, t.Any]:
        self._options.refuse_for("first")
        return fan_out.first(self.attempt, self, id, branches)

    def poll(
        self,
        id: str,
        check: t.Callable[[], R | None],
        /,
        *,
        every: Duration | None = None,
        timeout: Duration | None = None,
    ) -> R | None:
        found: R | None = poll.poll(
            self.attempt, self._options, id, check, every, timeout
        )
        return found

    def send_event(self, id: str, /, *events: EventLike) -> list[str]:
        return send_event.send_event(self.attempt, self._options, id, events)

    def wait_for_event(
        self,
        id: str,
        event: str | type[EventData],
        /,
        *,
        timeout: Duration | None = None,
        match: str | t.Mapping[str, t.Any] | None = None,
    ) -> t.Any:
        self._options.refuse_for("wait_for_event")
        return wait_for_event.wait_for_event(self.attempt, id, event, timeout, match)

    def wait_for_signal(
        self, id: str, name: str, /, *, timeout: Duration | None = None
    ) -> t.Any:
        self._options.refuse_for("wait_for_signal")
        return wait_for_signal.wait_for_signal(self.attempt, id, name, timeout)

    def create_url(
        self,
        id: str,
        /,
        *,
        expires: Duration,
        title: str = "",
        text: str = "",
        button: str = "",
    ) -> Address:
        page = Page(title or id, text, button or id)
        self._options.refuse_for("create_url")
        return create_url.create_url(self.attempt, id, expires, page)

    def wait_for_url(
        self, id: str, url: Address, /, *, timeout: Duration | None = None
    ) -> dict[str, t.Any] | None:
        self._options.refuse_for("wait_for_url")
        return wait_for_url.wait_for_url(self.attempt, id, url, timeout)
