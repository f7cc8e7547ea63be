"""The public errors: one tree under :class:`DurableError`.

Every class has a stable ``code`` (a dotted word that logs, the JSON API and stored
failures carry), and every instance may carry a ``hint``: the next thing to do. The
signals that suspend a run are not errors and not public; they live in
:mod:`flask_durable.engine.control`.

:class:`Failure` is the stored form of an exception: text only, so that it can be stored
and shown.
"""

from __future__ import annotations

import functools
import json
import pathlib
import sys
import traceback as traceback_module
import typing as t
from dataclasses import asdict
from dataclasses import dataclass
from dataclasses import fields as fields_of
from datetime import timedelta


class DurableError(Exception):
    """Base class of every error that Flask-Durable raises on purpose.

    :param message: One sentence about the fault.
    :param hint: One sentence about the next thing to do.
    """

    #: Stable identifier of the kind of error.
    code: str = "durable"

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} {self.hint}" if self.hint else self.message


class ConfigurationError(DurableError):
    """Raised when a ``DURABLE_*`` key is unknown, malformed or contradicts another."""

    code = "configuration"


class DefinitionError(DurableError):
    """Raised while a function, step, group or event schema is declared wrongly."""

    code = "definition"


class EventError(DurableError):
    """Raised when an event cannot be accepted as it is.

    :param errors: One mapping for each fault, with ``field`` (a dotted path such as
        ``"data.audio_url"``) and ``message``.
    """

    code = "event.invalid"

    def __init__(
        self,
        message: str,
        *,
        errors: t.Sequence[t.Mapping[str, str]] = (),
        hint: str | None = None,
    ) -> None:
        super().__init__(message, hint=hint)
        self.errors = [dict(error) for error in errors]


class UnavailableError(DurableError):
    """Raised when the queue or the state server could not take an event.

    :param sent: The ids of the events of the same call that were accepted. Sending
        all of them again with the same ids is harmless.
    """

    code = "unavailable"

    def __init__(
        self, message: str, *, sent: t.Sequence[str] = (), hint: str | None = None
    ) -> None:
        super().__init__(message, hint=hint)
        self.sent = list(sent)


class PayloadError(DurableError):
    """Raised when stored data of a user cannot be read, or could not be stored.

    It is the data of an event, the result of a step or run, or a failure. Names, ids,
    times and states are readable all the same.
    """

    code = "payload"


class PayloadMissing(PayloadError):
    """Raised when the blob store does not have an object that was written to it.

    The object is gone, or its size or SHA-256 differs. The run that needs it fails; it
    can be retried once the object is restored.
    """

    code = "payload.missing"


class PayloadLocked(PayloadError):
    """Raised when this process lacks a setting that is needed to read the data.

    None of ``DURABLE_ENCRYPTION_KEYS`` decrypts it, or it is in a blob store and there
    is no ``DURABLE_BLOB_URL``. The run that needs it is paused; it can be resumed once
    its workers have the setting.
    """

    code = "payload.locked"


class PayloadUnavailable(PayloadError, UnavailableError):
    """Raised when the blob store does not answer, or refuses a request."""

    code = "payload.unavailable"


class PlatformError(DurableError):
    """Raised when a service that the scaler asks refuses, or does not answer.

    That is the platform that runs workers, a source of durations, or the server of
    queues that are not ours.

    =========================  =====================================================
    ``code``                   meaning
    =========================  =====================================================
    ``platform``               it refuses for a reason that only its message tells
    ``platform.auth``          the credentials are wrong, or do not allow this
    ``platform.not_found``     there is no such app, service, group or deployment
    ``platform.rate_limited``  too many calls; see ``retry_after``
    ``platform.limit``         it gives no more workers than ``limit``
    ``platform.conflict``      another client changes the same pool
    ``platform.unavailable``   it does not answer, or is out of order
    ``platform.unsupported``   it cannot do this with a pool of this kind
    =========================  =====================================================

    :param code: One of these codes.
    :param retry_after: Seconds after which the platform wants to be asked again, if it
        says so.
    :param limit: The most workers that it gives, if it says so.
    """

    code = "platform"

    def __init__(
        self,
        message: str,
        *,
        code: str = "platform",
        retry_after: float | None = None,
        limit: int | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message, hint=hint)
        self.code = code
        self.retry_after = retry_after
        self.limit = limit


class RunNotFound(DurableError):
    """Raised when no run has the given id, or it was removed after its retention."""

    code = "run.not_found"


class RunStateError(DurableError):
    """Raised when a run is in a state that does not allow the request."""

    code = "run.state"


class DeadLetterNotFound(DurableError):
    """Raised when no dead letter has the given id, or it is not there any more."""

    code = "dead_letter.not_found"


class FilterTimeout(DurableError):
    """Raised in a run whose function's ``where=`` did not answer in time.

    The run fails. A retry of it asks the filter again.
    """

    code = "filter.timeout"


class StepUsageError(DurableError):
    """Raised when a step is used where it cannot be kept durable."""

    code = "step.usage"


class CommitUnknown(DurableError):
    """Raised when a database did not say if it committed a step's transaction.

    It ends the attempt of the run. The next one finds out, so the function of the step
    still takes effect exactly once.
    """

    code = "transaction.unknown"


class ReplayMismatch(DurableError):
    """Raised when a stored step is replayed as another kind of step.

    The run is paused with its state kept; deploy code that matches, then resume it.
    """

    code = "replay.mismatch"


class StepError(DurableError):
    """Raised in a function's body by a step that failed for good.

    It may be caught: the failure is memoized, and the function goes on.

    :param step: The step's name.
    :param failure: The failure of the step's last attempt.
    """

    code = "step.failed"

    #: True if the step runs at most once and may have had its effect: then a retry of
    #: the run has to name it.
    outcome_unknown = False

    def __init__(self, step: str, failure: Failure, *, hint: str | None = None) -> None:
        super().__init__(
            f"Step {step!r} failed after {failure.attempt} attempt(s): "
            f"{failure.type}: {failure.message}",
            hint=hint,
        )
        self.step = step
        self.failure = failure


class StepTimeout(StepError):
    """Raised by a step whose last attempt took longer than its ``timeout``."""

    code = "step.timeout"


class StepInterrupted(StepError):
    """Raised by an ``at_most_once`` step that started and left no outcome.

    Whether its effect happened is unknown; it is not run again.
    """

    code = "step.interrupted"
    outcome_unknown = True


class InvokeError(StepError):
    """Raised by ``step.invoke`` if the run that it waits for brings no result.

    It failed, was cancelled, or took longer than the step's ``timeout``, for which it
    is cancelled. The failure is the run's own, or has one of these codes:

    ``run.cancelled``
        The run was cancelled.

    ``invoke.timeout``
        It took too long.

    :param run_id: The id of that run.
    """

    code = "step.invoke"

    def __init__(
        self, step: str, failure: Failure, *, run_id: str, hint: str | None = None
    ) -> None:
        super().__init__(step, failure, hint=hint)
        self.run_id = run_id
        self.message = (
            f"The run {run_id}, which step {step!r} invoked, has no result: "
            f"{failure.type}: {failure.message}"
        )


class BranchError(StepError):
    """Raised by ``parallel``, ``map`` and ``first`` for a branch that failed.

    :param branch: The branch: its name, its key, or the place of its item.
    :param run_id: The id of the branch's run, or in a ``map`` over a durable function
        that of the function's run.
    """

    code = "step.branch"

    def __init__(
        self,
        step: str,
        failure: Failure,
        *,
        branch: str,
        run_id: str,
        hint: str | None = None,
    ) -> None:
        super().__init__(step, failure, hint=hint)
        self.branch = branch
        self.run_id = run_id
        self.message = (
            f"Branch {branch!r} of step {step!r} failed: "
            f"{failure.type}: {failure.message}"
        )


class UnserializableResult(StepError):
    """Raised when a step's result would not be the same after a replay.

    :param path: The place of the value in the result, for example ``"[0].created"``.
    """

    code = "step.unserializable"

    def __init__(
        self, step: str, failure: Failure, *, path: str = "", hint: str | None = None
    ) -> None:
        super().__init__(step, failure, hint=hint)
        self.path = path


class NonRetriable(Exception):
    """Raise this in a step or a function to fail at once, without further retries.

    :param message: The reason why retrying cannot help.
    """


class RetryAfter(Exception):
    """Raise this in a step or a function to choose when its next attempt starts.

    It counts as a failed attempt.

    :param delay: Seconds, a :class:`~datetime.timedelta`, or text such as ``"90s"``.
    :param message: The thing that the attempt waits for.
    """

    def __init__(self, delay: float | timedelta | str, message: str = "") -> None:
        from .common.durations import to_seconds

        super().__init__(message or f"retry after {delay}")
        self.delay = to_seconds(delay)


#: Most characters of a message and of a traceback; the rest is cut from the middle.
MAX_MESSAGE = 4_000
MAX_TRACEBACK = 16_000


@dataclass(frozen=True)
class Failure:
    """The stored form of an error.

    :param type: The qualified name of the exception's class, such as ``"ValueError"``.
    :param message: The exception's text, at most 4,000 characters.
    :param traceback: The formatted traceback, at most 16,000 characters.
    :param step: The step that raised it, or ``None`` for the function's body.
    :param attempt: The number of the attempt that raised it, counted from 1.
    :param code: A stable code: that of our own error, otherwise ``"user"``.
    """

    type: str
    message: str
    traceback: str = ""
    step: str | None = None
    attempt: int = 1
    code: str = "user"

    @classmethod
    def of(
        cls, error: BaseException, *, step: str | None = None, attempt: int = 1
    ) -> Failure:
        """Make a failure from *error*."""
        kind = type(error)
        return cls(
            type=_name_of(kind),
            message=_shorten(text_of(error), MAX_MESSAGE),
            traceback=_shorten(_traceback_of(error), MAX_TRACEBACK),
            step=step,
            attempt=attempt,
            code=_code_of(kind),
        )

    def to_json(self) -> str:
        """Return the failure as a JSON object."""
        return json.dumps(asdict(self), separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str | bytes) -> Failure:
        """Return the failure that :meth:`to_json` wrote."""
        fields = json.loads(text)
        # Newer code may have stored fields that this code does not know.
        return cls(
            **{f.name: fields[f.name] for f in fields_of(cls) if f.name in fields}
        )


def _name_of(kind: type[BaseException]) -> str:
    """Return the name that *kind* has in every process that has the same code."""
    module = _attribute(kind, "__module__")
    if module in ("__main__", "__mp_main__"):
        module = _main_module()
    name = _attribute(kind, "__qualname__")
    return f"{module}.{name}" if module not in ("", "builtins") else name


def _attribute(kind: type[BaseException], name: str) -> str:
    try:
        value = getattr(kind, name)
    except BaseException:  # a metaclass may do anything there
        return ""
    return value if isinstance(value, str) else ""


@functools.cache
def _main_module() -> str:
    """Return the import name of the main program's module.

    ``python shop/app.py`` runs as ``__main__`` the module that a worker imports as
    ``shop.app``, or as ``app`` if ``shop`` is no package: the rule of ``flask --app``.

    :returns: The name; an empty text if there is no file of it.
    """
    main = sys.modules.get("__main__")
    spec = getattr(main, "__spec__", None)
    if spec is not None:  # python -m
        return str(spec.name)
    file = getattr(main, "__file__", None)
    if not file:
        return ""
    path = pathlib.Path(file).resolve()
    parts = [] if path.stem == "__init__" else [path.stem]
    folder = path.parent
    while (folder / "__init__.py").is_file():
        parts.insert(0, folder.name)
        folder = folder.parent
    return ".".join(parts)


def _code_of(kind: type[BaseException]) -> str:
    # Errors of other libraries have codes too, which are not ours.
    ours = _attribute(kind, "__module__").partition(".")[0] == __package__
    return str(getattr(kind, "code", "user")) if ours else "user"


# Describing an error runs the user's code: its ``__str__``, its notes, its source.


def text_of(error: BaseException) -> str:
    """Return the text of *error*, or a substitute if it has none.

    For use outside a step's body only: an interrupt would be taken for its text's.
    """
    try:
        return str.__str__(str(error))  # a plain text, of a subclass too
    except BaseException:
        return f"<unprintable {_attribute(type(error), '__name__')}>"


def _traceback_of(error: BaseException) -> str:
    for describe in (traceback_module.format_exception, _frames_of):
        try:
            return "".join(describe(error))
        except BaseException:  # the frames alone, without parts that cannot be printed
            continue
    return ""


def _frames_of(error: BaseException) -> list[str]:
    return traceback_module.format_tb(error.__traceback__)


def _shorten(text: str, limit: int) -> str:
    # Lone surrogates cannot be encoded to UTF-8 on their way to the store.
    text = text.encode("utf-8", "replace").decode("utf-8")
    if len(text) <= limit:
        return text
    half = limit // 2 - 10
    return f"{text[:half]}\n… {len(text) - 2 * half} characters …\n{text[-half:]}"
