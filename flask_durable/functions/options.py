"""The options of a function and of a step, as checked values."""

from __future__ import annotations

import difflib
import re
import typing as t
from dataclasses import dataclass
from dataclasses import fields
from dataclasses import replace

from ..common.durations import Duration
from ..common.durations import to_seconds
from ..errors import DefinitionError
from ..errors import StepUsageError
from ..events.model import EventData
from ..messages import EVENT_QUEUE
from .awaits import Awaited
from .awaits import read_awaited
from .retries import Backoff

#: Characters of a queue's name: a namespace, "-dlq" and this are one name in SQS,
#: which takes 80.
MAX_QUEUE = 60

_QUEUE = re.compile(r"[A-Za-z0-9_.\-]+")
_DEAD_LETTERS = "-dlq"
_BACKOFF = Backoff()


class FunctionKeywords(t.TypedDict, total=False):
    """The options of a function, as users give them."""

    queue: str
    retries: int
    backoff: Backoff
    non_retriable: t.Sequence[type[Exception]]
    timeout: Duration | None
    start_timeout: Duration | None
    awaits: t.Sequence[Awaited]


class StepKeywords(t.TypedDict, total=False):
    """The options of a step, as users give them."""

    retries: int | None
    backoff: Backoff | None
    non_retriable: t.Sequence[type[Exception]]
    timeout: Duration | None
    lease: Duration | None
    at_most_once: bool


@dataclass(frozen=True, kw_only=True)
class FunctionOptions:
    """The checked options of a function.

    :param queue: The queue that its runs wait in.
    :param retries: The number of attempts of a step, and of the body, after the first.
    :param backoff: The delays between attempts.
    :param non_retriable: Errors that end a step or the run at once.
    :param timeout: Seconds after which a run that has not finished is cancelled.
    :param start_timeout: Seconds from a run's creation within which it must start.
    :param awaits: The events that its steps wait for.
    :raises DefinitionError: A value is not valid.
    """

    queue: str = "default"
    retries: int = 3
    backoff: Backoff = _BACKOFF
    non_retriable: tuple[type[Exception], ...] = ()
    timeout: float | None = None
    start_timeout: float | None = None
    awaits: tuple[Awaited, ...] = ()

    @classmethod
    def of(cls, keywords: t.Mapping[str, t.Any]) -> FunctionOptions:
        """Return the options that *keywords* ask for, checked.

        :raises TypeError: A keyword is no option.
        """
        _check_names("function", keywords, ("on", "id", "where"), cls)
        return cls(**keywords)

    def for_failure_handler(self) -> FunctionOptions:
        """Return these options without the limits on the time of the failed run."""
        return replace(self, timeout=None, start_timeout=None)

    def __post_init__(self) -> None:
        put = object.__setattr__
        try:
            check_queue(self.queue)
            _check_retries(self.retries)
            _check_backoff(self.backoff)
            put(self, "non_retriable", _exceptions(self.non_retriable))
            put(self, "timeout", _seconds("timeout", self.timeout))
            put(self, "start_timeout", _seconds("start_timeout", self.start_timeout))
            put(self, "awaits", _awaits(self.awaits))
        except ValueError as error:
            raise DefinitionError(*error.args) from None

    @property
    def awaited(self) -> dict[str, type[EventData] | None]:
        """The schemas of the awaited events by name, ``None`` for one without."""
        return dict(map(read_awaited, self.awaits))


@dataclass(frozen=True, kw_only=True)
class StepOptions:
    """The checked options of a step; ``None`` is "as the function says".

    :param retries: The number of attempts after the first one.
    :param backoff: The delays between attempts.
    :param non_retriable: Errors that end the step at once, besides the function's.
    :param timeout: Seconds that one attempt may take.
    :param lease: Seconds that a body may hold the interpreter without a heartbeat.
    :param at_most_once: True if an attempt without an outcome is never repeated.
    :raises StepUsageError: A value is not valid.
    """

    retries: int | None = None
    backoff: Backoff | None = None
    non_retriable: tuple[type[Exception], ...] = ()
    timeout: float | None = None
    lease: float | None = None
    at_most_once: bool = False

    @classmethod
    def of(cls, keywords: t.Mapping[str, t.Any]) -> StepOptions:
        """Return the options that *keywords* ask for, checked.

        :raises TypeError: A keyword is no option.
        """
        _check_names("step", keywords, (), cls)
        return cls(**keywords)

    def __post_init__(self) -> None:
        put = object.__setattr__
        try:
            if self.retries is not None:
                _check_retries(self.retries)
            if self.backoff is not None:
                _check_backoff(self.backoff)
            put(self, "non_retriable", _exceptions(self.non_retriable))
            put(self, "timeout", _seconds("timeout", self.timeout))
            put(self, "lease", _seconds("lease", self.lease))
        except ValueError as error:
            raise StepUsageError(*error.args) from None

    def merged(self, over: StepOptions) -> StepOptions:
        """Return these options, with those that *over* sets in their place."""
        given = {
            name: value
            for name, value in vars(over).items()
            if value is not None and value is not False and value != ()
        }
        return replace(self, **given)

    def refuse_for(self, operation: str) -> None:
        """Refuse these options for an operation that they mean nothing to.

        :param operation: Its name, such as ``"sleep"``.
        :raises StepUsageError: An option is set.
        """
        if self is not NO_OPTIONS and self != NO_OPTIONS:
            raise StepUsageError(
                f"step.options(...) do not apply to step.{operation}.",
                hint="They apply to run, transaction, send_event, poll, and to map of "
                "a function that takes an item alone. Use step tools without them.",
            )

    def effective_retries(self, function_retries: int) -> int:
        """Return the retries of a step with these options.

        A step that runs at most once has none unless it is given its own.

        :param function_retries: The retries of the function.
        """
        if self.retries is not None:
            return self.retries
        return 0 if self.at_most_once else function_retries


def _check_names(
    kind: str,
    keywords: t.Mapping[str, t.Any],
    others: tuple[str, ...],
    options: type[FunctionOptions | StepOptions],
) -> None:
    """Check that there is an option for each name.

    :param others: Names that are parameters beside the options.
    :raises TypeError: A name is no option, as Python raises it for any call; the text
        lists the options.
    """
    names = (*others, *(field.name for field in fields(options)))
    for name in keywords:
        if name not in names:
            near = difflib.get_close_matches(name, names, n=1)
            raise TypeError(
                f"A {kind} has no option {name!r}. "
                + (f"Did you mean {near[0]}? " if near else "")
                + f"There are: {', '.join(names)}."
            )


def check_queue(name: t.Any) -> None:
    """Check that a function's queue may be called *name*.

    :raises ValueError: The name is malformed.
    """
    if not isinstance(name, str) or not _QUEUE.fullmatch(name):
        raise ValueError(
            f"queue={name!r} may only have letters, digits and the characters _ - . "
        )
    if len(name) > MAX_QUEUE:
        raise ValueError(f"queue={name!r} has more than {MAX_QUEUE} characters.")
    if name == EVENT_QUEUE or name.endswith(_DEAD_LETTERS):
        raise ValueError(
            f"queue={name!r} is taken: {EVENT_QUEUE!r} is where events wait, and "
            f"names ending in {_DEAD_LETTERS!r} are dead-letter queues."
        )


def _check_retries(retries: t.Any) -> None:
    if isinstance(retries, bool) or not isinstance(retries, int) or retries < 0:
        raise ValueError(
            f"retries={retries!r} is not a whole number from 0; retries=0 means one "
            "attempt."
        )


def _check_backoff(backoff: t.Any) -> None:
    if not isinstance(backoff, Backoff):
        raise ValueError(
            f"backoff={backoff!r} is not a Backoff, such as "
            'Backoff("5s", maximum="10m").'
        )


def _exceptions(classes: t.Any) -> tuple[type[Exception], ...]:
    if not isinstance(classes, (tuple, list, set, frozenset)):
        name = getattr(classes, "__name__", repr(classes))
        raise ValueError(
            f"non_retriable={name} is not a sequence of exception classes: write "
            f"({name},)."
        )
    found = tuple(classes)
    for item in found:
        if not (isinstance(item, type) and issubclass(item, Exception)):
            raise ValueError(f"non_retriable= has {item!r}, not an exception class.")
    return found


def _awaits(events: t.Any) -> tuple[Awaited, ...]:
    if isinstance(events, (str, type)):
        raise ValueError(
            f"awaits={events!r} is not a sequence of events: write awaits=[{events!r}]."
        )
    for event in events:
        try:
            read_awaited(event)
        except ValueError as error:
            problem, hint = error.args
            text = f"awaits= has {event!r}, which {problem}. {hint}"
            raise ValueError(text) from None
    return tuple(events)


def _seconds(name: str, value: t.Any) -> float | None:
    if value is None:
        return None
    try:
        seconds = to_seconds(value)
    except ValueError as error:
        raise ValueError(f"{name}={value!r}: {error}.") from None
    if seconds == 0:
        raise ValueError(f"{name}=0 leaves no time: give more, or None for no limit.")
    return seconds


#: The options of step tools that were given none.
NO_OPTIONS = StepOptions()
