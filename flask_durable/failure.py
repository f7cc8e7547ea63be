"""What is kept of an exception: text only, so that it can be stored and shown."""

from __future__ import annotations

import json
import traceback as traceback_module
from dataclasses import asdict
from dataclasses import dataclass
from dataclasses import fields as fields_of

#: Characters kept of a message and of a traceback; the rest is cut from the middle.
MAX_MESSAGE = 4_000
MAX_TRACEBACK = 16_000


@dataclass(frozen=True)
class Failure:
    """The stored form of an error.

    :param type: Qualified name of the exception's class, such as ``"ValueError"``.
    :param message: Its text, at most 4,000 characters.
    :param traceback: The formatted traceback, at most 16,000 characters.
    :param step: The step that raised it, or ``None`` for the function's body.
    :param attempt: Which attempt raised it, counted from 1.
    :param code: A stable code: that of our own error, else ``"user"``.
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
        name = kind.__qualname__
        if kind.__module__ not in ("builtins", "__main__"):
            name = f"{kind.__module__}.{name}"
        return cls(
            type=name,
            message=_shorten(_text_of(error), MAX_MESSAGE),
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
        # Newer code may have stored more than this code knows.
        return cls(
            **{f.name: fields[f.name] for f in fields_of(cls) if f.name in fields}
        )


def _code_of(kind: type[BaseException]) -> str:
    # Errors of other libraries have codes too, which are not ours.
    ours = kind.__module__.partition(".")[0] == __package__
    return str(getattr(kind, "code", "user")) if ours else "user"


def _text_of(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # a user's __str__ may itself be broken
        return f"<unprintable {type(error).__name__}>"


def _traceback_of(error: BaseException) -> str:
    try:
        return "".join(traceback_module.format_exception(error))
    except Exception:
        return ""


def _shorten(text: str, limit: int) -> str:
    # Lone surrogates cannot be encoded to UTF-8 on their way to the store.
    text = text.encode("utf-8", "replace").decode("utf-8")
    if len(text) <= limit:
        return text
    half = limit // 2 - 10
    return f"{text[:half]}\n… {len(text) - 2 * half} characters …\n{text[-half:]}"
