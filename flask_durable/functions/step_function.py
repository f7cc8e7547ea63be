"""``@durable.step``: a function that is a step where a run's body calls it."""

from __future__ import annotations

import functools
import types
import typing as t
from contextvars import ContextVar

from ..common.safe_logging import get_logger
from ..current import run_between_steps
from ..current import run_context
from ..current import step_context
from ..errors import DefinitionError
from ..errors import StepUsageError
from .callables import place_of
from .options import StepKeywords
from .options import StepOptions

if t.TYPE_CHECKING:
    from .step import Step


P = t.ParamSpec("P")
R = t.TypeVar("R")

logger = get_logger(__name__)

#: The tools of the run that the calling code belongs to.
_tools: ContextVar[Step | None] = ContextVar("flask_durable.tools", default=None)


class StepFunction(t.Generic[P, R]):
    """A function that runs as a step when a run's body calls it, between other steps.

    In any other place, such as a step's body, it is a plain call. It can also be given
    to ``step.run``, with another name.

    :raises DefinitionError: An option is not valid.
    """

    #: The step's name in a run.
    name: str
    #: The plain function.
    function: t.Callable[P, R]
    #: The options that were given, checked.
    options: StepOptions
    #: The place of its definition, as ``"file:line"``.
    defined_at: str

    def __init__(
        self,
        function: t.Callable[P, R],
        *,
        name: str,
        keywords: StepKeywords | None = None,
    ) -> None:
        functools.update_wrapper(self, function, updated=())
        self.name = name
        self.function = function
        self._keywords: StepKeywords = keywords or {}
        try:
            self.options = StepOptions.of(self._keywords)
        except StepUsageError as error:
            raise DefinitionError(f"The step {name!r}: {error}") from None
        self.defined_at = place_of(function)
        self._has_warned = False

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run as a step in a run's body, otherwise call the plain function."""
        step = active_step()
        if step is None:
            self._warn_if_no_step()
            return self.function(*args, **kwargs)
        step = step.options(**self._keywords)
        return step.run(self.name, self.function, *args, **kwargs)

    def _warn_if_no_step(self) -> None:
        """Log once that the call is no step, in a thread that a body may have started.

        Threads do not inherit the run, and nothing tells which body started one: so it
        is logged wherever one could have.
        """
        if self._has_warned or run_context() is not None:
            return
        run = run_between_steps()
        if run is None:
            return
        self._has_warned = True
        logger.warning(
            "%r was called plainly, in a thread that belongs to no run. If the body "
            "of %r started the thread, this is no step: it runs again at each replay. "
            "Call steps in the body's own thread.",
            self.name,
            run.function,
            extra={"action": "step_outside_run"},
        )

    def __get__(self, instance: object, owner: type | None = None) -> t.Any:
        # Declared in a class, it is a method like any function there.
        return self if instance is None else types.MethodType(self, instance)

    def __repr__(self) -> str:
        return f"<StepFunction {self.name!r}>"


def give_tools(step: Step) -> None:
    """Let step functions that the body calls run as steps of *step*'s attempt.

    The calling thread is in the run's own context.
    """
    _tools.set(step)


def active_step() -> Step | None:
    """Return the step tools in a run's body outside any step, else ``None``."""
    return None if step_context() is not None else _tools.get()
