"""The step tools that a function's body is given: what they promise."""

from __future__ import annotations

import abc
import typing as t
from datetime import datetime

from ..common.durations import Duration
from .retries import Backoff

if t.TYPE_CHECKING:
    from ..errors import BranchError
    from ..events.model import Event
    from ..events.model import EventData
    from ..events.model import EventLike
    from .address import Address
    from .function import Function

P = t.ParamSpec("P")
R = t.TypeVar("R")
D = t.TypeVar("D")
Data = t.TypeVar("Data", bound="EventData")


class Step(abc.ABC):
    """Makes parts of a function's body durable.

    Every operation takes a name first. Its outcome is stored under that name, and a
    later execution of the body gets it from there instead of doing the work again. The
    n-th use of a name in one run is stored as ``name#n``.

    An object of this class belongs to one attempt of one run and to its thread.
    """

    __slots__ = ()

    @abc.abstractmethod
    def run(
        self, id: str, fn: t.Callable[P, R], /, *args: P.args, **kwargs: P.kwargs
    ) -> R:
        """Call *fn* once and keep its result.

        The body runs in an application context of its own. If it raises, it is tried
        again under the function's retries; the failure of the last attempt is kept.

        :param id: The step's name.
        :param fn: Any callable. Its return annotation says how the result is stored;
            without one only values that JSON gives back equal are accepted.
        :returns: The result as a replay will return it.
        :raises StepError: The last attempt failed. The body may catch it.
        :raises StepUsageError: The step is used where it cannot be durable.
        """

    @abc.abstractmethod
    def transaction(
        self, id: str, fn: t.Callable[P, R], /, *args: P.args, **kwargs: P.kwargs
    ) -> R:
        """Call *fn*, and commit its result with what it did in ``db.session``.

        *fn* takes effect exactly once, whatever dies: a later attempt finds the result
        in the database and does not call it again. It uses the session of
        Flask-SQLAlchemy, on the default bind, and leaves the commit to the step. If it
        raises, all is rolled back, and it is tried again as with :meth:`run`.

        :param id: The step's name.
        :param fn: Any callable, as for :meth:`run`.
        :returns: The result as a replay will return it.
        :raises StepError: The last attempt failed, and nothing was committed.
        :raises StepUsageError: The step is used where it cannot be durable, or *fn*
            commits.
        """

    @abc.abstractmethod
    def options(
        self,
        *,
        retries: int | None = None,
        backoff: Backoff | None = None,
        non_retriable: t.Sequence[type[Exception]] = (),
        timeout: Duration | None = None,
        lease: Duration | None = None,
        at_most_once: bool = False,
    ) -> Step:
        """Return step tools with other options; ``None`` is "as the function says".

        They are for operations that call a function: :meth:`run`, :meth:`transaction`,
        :meth:`send_event`, :meth:`poll`, and :meth:`map` over a callable that takes an
        item alone. The other operations of these tools raise
        :class:`~flask_durable.StepUsageError`.

        :param retries: The number of attempts after the first one.
        :param backoff: The delays between attempts.
        :param non_retriable: Errors that end the step at once, besides the function's.
        :param timeout: The longest time of one attempt.
        :param lease: The longest time that the body holds the interpreter in C code:
            for so long the run is kept without a heartbeat.
        :param at_most_once: True to never start a body again that started and left no
            outcome; such a step raises :class:`~flask_durable.StepInterrupted`.
        """

    @abc.abstractmethod
    def sleep(self, id: str, duration: Duration, /) -> None:
        """Suspend the run for *duration*, counted from when this is first reached.

        :raises StepUsageError: *duration* is not a duration.
        """

    @abc.abstractmethod
    def sleep_until(self, id: str, when: datetime, /) -> None:
        """Suspend the run until *when*. A moment in the past is no sleep.

        :raises StepUsageError: *when* has no time zone.
        """

    @t.overload
    def invoke(
        self,
        id: str,
        function: Function[D, R],
        data: D | t.Mapping[str, t.Any] | None = None,
        /,
        *,
        timeout: Duration | None = None,
    ) -> R: ...

    @t.overload
    def invoke(
        self,
        id: str,
        function: str,
        data: EventData | t.Mapping[str, t.Any] | None = None,
        /,
        *,
        timeout: Duration | None = None,
    ) -> t.Any: ...

    @abc.abstractmethod
    def invoke(
        self,
        id: str,
        function: Function[t.Any, t.Any] | str,
        data: t.Any = None,
        /,
        *,
        timeout: Duration | None = None,
    ) -> t.Any:
        """Start a run of another function, and return its result.

        The run waits on its function's queue, and has that function's retries and
        timeouts. This run is suspended until it has ended. It is created once; if this
        run is cancelled, it is cancelled too.

        :param function: A durable function, or the id of one whose code may be in
            another app's process. Its ``where`` is not asked.
        :param data: The data of the event that the function gets: its model, or a
            mapping that fits the model.
        :param timeout: The longest time to wait for the result, counted from when this
            is first reached. When it is over the run is cancelled.
        :returns: The result, by the return annotation of the function; for a function
            that is given by an id without code here, as JSON gives it back.
        :raises InvokeError: The run failed, was cancelled, or took too long. The body
            may catch it.
        :raises EventError: The data does not fit the function's model.
        :raises StepUsageError: No process has the function, or *timeout* is no
            duration.
        """

    @t.overload
    def parallel(
        self,
        id: str,
        /,
        *,
        limit: int | None = None,
        tolerate: int = 0,
        return_exceptions: t.Literal[False] = False,
        **branches: t.Callable[[Step], R],
    ) -> dict[str, R]: ...

    @t.overload
    def parallel(
        self,
        id: str,
        /,
        *,
        limit: int | None = None,
        tolerate: int = 0,
        return_exceptions: bool,
        **branches: t.Callable[[Step], R],
    ) -> dict[str, R | BranchError]: ...

    @abc.abstractmethod
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
        """Execute branches at the same time, and return their results by name.

        Each branch is executed by any worker that serves the function's queue, which
        calls this body again down to this step. It has steps of its own, with names
        such as ``media[audio]/cut``, its own retries, and sleeps by itself. This run is
        suspended until the branches have ended.

        :param branches: A callable for each branch, called with step tools; at most
            1,000. A branch is found again by its name. ``limit``, ``tolerate`` and
            ``return_exceptions`` are no names of branches.
        :param limit: The number of branches that are under way at the same time.
        :param tolerate: The number of branches that may fail; their results are left
            out. The next failure cancels the others.
        :param return_exceptions: True to return the errors of failed branches in the
            place of their results. Without *tolerate* all may fail.
        :returns: The results, in the order of the names, each by the return annotation
            of its callable.
        :raises BranchError: A branch has failed, and may not.
        :raises StepUsageError: There are too many branches, or an option is not valid.
        """

    @t.overload
    def map(
        self,
        id: str,
        fn: Function[D, R],
        items: t.Iterable[D | t.Mapping[str, t.Any] | None],
        /,
        *,
        key: t.Callable[[t.Any], str | int] | None = None,
        limit: int | None = None,
        tolerate: int = 0,
        return_exceptions: t.Literal[False] = False,
    ) -> list[R]: ...

    @t.overload
    def map(
        self,
        id: str,
        fn: Function[D, R],
        items: t.Iterable[D | t.Mapping[str, t.Any] | None],
        /,
        *,
        key: t.Callable[[t.Any], str | int] | None = None,
        limit: int | None = None,
        tolerate: int = 0,
        return_exceptions: bool,
    ) -> list[R | BranchError]: ...

    @t.overload
    def map(
        self,
        id: str,
        fn: str,
        items: t.Iterable[EventData | t.Mapping[str, t.Any] | None],
        /,
        *,
        key: t.Callable[[t.Any], str | int] | None = None,
        limit: int | None = None,
        tolerate: int = 0,
        return_exceptions: bool = False,
    ) -> list[t.Any]: ...

    @t.overload
    def map(
        self,
        id: str,
        fn: t.Callable[[D], R],
        items: t.Iterable[D],
        /,
        *,
        key: t.Callable[[D], str | int] | None = None,
        limit: int | None = None,
        tolerate: int = 0,
        return_exceptions: t.Literal[False] = False,
    ) -> list[R]: ...

    @t.overload
    def map(
        self,
        id: str,
        fn: t.Callable[[D, Step], R],
        items: t.Iterable[D],
        /,
        *,
        key: t.Callable[[D], str | int] | None = None,
        limit: int | None = None,
        tolerate: int = 0,
        return_exceptions: t.Literal[False] = False,
    ) -> list[R]: ...

    @t.overload
    def map(
        self,
        id: str,
        fn: t.Callable[[D], R],
        items: t.Iterable[D],
        /,
        *,
        key: t.Callable[[D], str | int] | None = None,
        limit: int | None = None,
        tolerate: int = 0,
        return_exceptions: bool,
    ) -> list[R | BranchError]: ...

    @t.overload
    def map(
        self,
        id: str,
        fn: t.Callable[[D, Step], R],
        items: t.Iterable[D],
        /,
        *,
        key: t.Callable[[D], str | int] | None = None,
        limit: int | None = None,
        tolerate: int = 0,
        return_exceptions: bool,
    ) -> list[R | BranchError]: ...

    @abc.abstractmethod
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
        """Call *fn* with each item, in branches, and return the results in order.

        The items are stored when this is first reached: a later change of *items*
        changes nothing. See :meth:`parallel` for branches and the other options.

        :param fn: A callable. One that needs an item alone is one step for each, with
            the options of these step tools; one that needs an item and step tools has
            steps of its own in each branch. A durable function, or the id of one, has
            a run for each item, as with :meth:`invoke`.
        :param items: At most 1,000 values that JSON gives back equal, or of the type
            that *fn* has its first parameter annotated with. For a durable function
            the data of its events: models, or mappings that fit the model.
        :param key: A callable that returns the name of an item's branch. Without one
            that is the item's place in the list, counted from 0.
        :returns: The results, by the return annotation of *fn*.
        :raises BranchError: A branch has failed, and may not.
        :raises EventError: An item does not fit the function's model.
        :raises StepUsageError: There are too many items, one cannot be stored, two have
            the same key, or an option is not valid; or no process has the function.
        """

    @abc.abstractmethod
    def first(self, id: str, /, **branches: t.Callable[[Step], R]) -> tuple[str, R]:
        """Execute branches; return name and result of the one that ends first.

        The others are cancelled. See :meth:`parallel` for branches.

        :raises BranchError: The branch that ended first has failed.
        :raises StepUsageError: There is no branch, or there are too many.
        """

    @abc.abstractmethod
    def send_event(self, id: str, /, *events: EventLike) -> list[str]:
        """Send events exactly as often as this step is committed: once.

        :returns: The events' ids. Ids that were not given are derived from the run and
            the step, so that a repeated send is recognised.
        :raises EventError: An event is not valid.
        :raises StepError: The queue could not take them, retries included.
        """

    @t.overload
    def wait_for_event(
        self,
        id: str,
        event: type[Data],
        /,
        *,
        timeout: Duration,
        match: str | t.Mapping[str, t.Any] | None = None,
    ) -> Event[Data] | None: ...

    @t.overload
    def wait_for_event(
        self,
        id: str,
        event: str,
        /,
        *,
        timeout: Duration,
        match: str | t.Mapping[str, t.Any] | None = None,
    ) -> Event[dict[str, t.Any]] | None: ...

    @abc.abstractmethod
    def wait_for_event(
        self,
        id: str,
        event: t.Any,
        /,
        *,
        timeout: Duration,
        match: str | t.Mapping[str, t.Any] | None = None,
    ) -> t.Any:
        """Suspend the run until an event comes; ``None`` if *timeout* is over first.

        Events count from the creation of the run, also those that came before this is
        reached. The oldest one that no other wait of the run has used is returned.

        :param event: The event's name, or its class, which types the result.
        :param timeout: The longest wait, counted from when this is first reached.
        :param match: A path, such as ``"data.order_id"``, where the event has to have
            the same value as the run's own event; or a mapping of paths to values.
        :raises StepUsageError: There is no timeout, or a name or a path is malformed.
        :raises EventError: The event does not fit the class.
        """

    @abc.abstractmethod
    def wait_for_signal(self, id: str, name: str, /, *, timeout: Duration) -> t.Any:
        """Suspend the run until :meth:`flask_durable.Durable.signal` addresses it.

        Signals are kept in order from the creation of the run until they are asked for.

        :param name: The signal's name.
        :param timeout: The longest wait, counted from when this is first reached.
        :returns: The signal's data; ``None`` if *timeout* was over first.
        :raises StepUsageError: There is no timeout, or the name is malformed.
        """

    @abc.abstractmethod
    def poll(
        self,
        id: str,
        check: t.Callable[[], R | None],
        /,
        *,
        every: Duration,
        timeout: Duration,
    ) -> R | None:
        """Call *check* until it returns something else than ``None``.

        Between two such looks the run is suspended. A look is called as :meth:`run`
        calls a body: if it raises, it is tried again under the function's retries. The
        last look is made when *timeout* is over. Only its result is stored.

        :param check: A callable that looks, and returns ``None`` if there is nothing
            yet. Arguments go with it as :func:`functools.partial`.
        :param every: The time from the end of a look to the next one, 1 second or more.
        :param timeout: The time within which to look, counted from when this is first
            reached.
        :returns: The result of the last look: ``None`` if *timeout* was over.
        :raises StepError: The last attempt of a look failed. The body may catch it.
        :raises StepUsageError: *every* or *timeout* is missing, or no duration.
        """

    @abc.abstractmethod
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
        """Make an address of the app that takes one answer for this run.

        A person who opens it sees a page with one button; nothing happens before the
        button is pressed. A program sends JSON or a form with ``POST``. It works at
        once, also before :meth:`wait_for_url` is reached.

        :param expires: The time that the address works, counted from when this is
            first reached.
        :param title: The heading of the page; the step's name if it is empty.
        :param text: The text of the page.
        :param button: The label of the button; the step's name if it is empty.
        :returns: The address, the same one on each replay.
        :raises ConfigurationError: The process does not know where the app is found
            from outside (``DURABLE_EXTERNAL_URL``), or the app has no ``SECRET_KEY``.
        :raises StepUsageError: *expires* is no duration, or a text is too long.
        """

    @abc.abstractmethod
    def wait_for_url(
        self, id: str, url: Address, /, *, timeout: Duration | None = None
    ) -> dict[str, t.Any] | None:
        """Suspend the run until an address that it made is answered.

        :param url: The address, from :meth:`create_url`.
        :param timeout: The longest wait, counted from when this is first reached; the
            end of the address if that comes first, or if this is ``None``.
        :returns: The fields that were posted; ``None`` if the time was over first. The
            button of the page posts its label as ``button``.
        :raises StepUsageError: The address is not one of this run.
        """
