"""The stored form of an exception: text only, so that it can be stored and shown."""

from __future__ import annotations

import functools
import json
import pathlib
import sys
import traceback as traceback_module
from dataclasses import asdict
from dataclasses import dataclass
from dataclasses import fields as fields_of

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
