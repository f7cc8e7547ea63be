"""The code, the place and the annotations of a callable."""

from __future__ import annotations

import functools
import hashlib
import inspect
import sys
import types
import typing as t

#: Callables that carry their own code or have none that can be read.
_PLAIN = (types.FunctionType, types.BuiltinFunctionType, type)


def underlying(callable: t.Any) -> t.Any:
    """Return the function behind partials, bound methods and callable objects.

    Classes and builtins are returned as they are, as are functions that wrap another:
    the signature of such a wrapper counts.
    """
    while not isinstance(callable, _PLAIN):
        if isinstance(callable, functools.partial):
            callable = callable.func
        elif isinstance(callable, types.MethodType):
            callable = callable.__func__
        elif hasattr(callable, "__wrapped__"):
            callable = callable.__wrapped__
        else:
            call = type(callable).__call__
            return call if isinstance(call, types.FunctionType) else callable
    return callable


def place_of(callable: t.Any) -> str:
    """Return where *callable* is defined, as ``"file:line"``."""
    function = inspect.unwrap(underlying(callable))
    code = getattr(function, "__code__", None)
    if code is not None:
        return f"{code.co_filename}:{code.co_firstlineno}"
    module = getattr(function, "__module__", None) or "builtins"
    return f"{module}.{getattr(function, '__qualname__', type(function).__name__)}"


def code_version(callable: t.Any) -> str:
    """Return 12 characters that change with the code of *callable*.

    They are the same in every process that runs the same code under the same version
    of Python, and do not depend on the line the code is at.
    """
    function = inspect.unwrap(underlying(callable))
    code = getattr(function, "__code__", None)
    text = place_of(function) if code is None else _fingerprint(code)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:12]


def _fingerprint(constant: t.Any) -> str:
    if isinstance(constant, types.CodeType):
        parts = [*constant.co_consts, *constant.co_names, *constant.co_varnames]
        parts += [*constant.co_freevars, constant.co_name]
        return f"code({constant.co_code.hex()};{_fingerprint(tuple(parts))})"
    if isinstance(constant, tuple):
        return f"({','.join(_fingerprint(item) for item in constant)})"
    if isinstance(constant, frozenset):
        # The order of a set of texts differs from process to process.
        return f"{{{','.join(sorted(_fingerprint(item) for item in constant))}}}"
    return repr(constant)


def positions_of(callable: t.Any) -> tuple[str, int]:
    """Return the name of the first parameter, and the number of positional arguments.

    Only arguments that have to be given are counted.

    :returns: An empty name if there is no parameter, or none that can be seen.
    """
    code = callable.__code__ if type(callable) is types.FunctionType else None
    if code is not None and code.co_argcount and not callable.__dict__:
        # The usual kind, which nothing wraps: each branch of a map asks for it.
        needed = code.co_argcount - len(callable.__defaults__ or ())
        return code.co_varnames[0], needed
    try:
        parameters = inspect.signature(callable).parameters.values()
    except (TypeError, ValueError):  # of some builtins there is none
        return "", 0
    positional = (
        inspect.Parameter.POSITIONAL_ONLY,
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
    )
    needed = sum(
        parameter.kind in positional and parameter.default is parameter.empty
        for parameter in parameters
    )
    return next((parameter.name for parameter in parameters), ""), needed


def takes(callable: t.Any, count: int) -> bool:
    """Return whether *callable* can be called with *count* positional arguments.

    It is true if that cannot be seen.
    """
    try:
        signature = inspect.signature(callable)
    except (TypeError, ValueError):  # of some builtins there is none
        return True
    try:
        signature.bind(*[None] * count)
    except TypeError:
        return False
    return True


class UnresolvedAnnotation(Exception):
    """Raised when an annotation's text has a name that its module lacks."""

    def __init__(self, annotation: str, reason: str) -> None:
        super().__init__(f"{annotation!r} cannot be resolved: {reason}")
        self.annotation = annotation


def annotation_of(function: t.Any, name: str) -> t.Any:
    """Return the resolved annotation of parameter *name*, or of ``"return"``.

    Only this one is resolved: others may have names that are imported for the type
    checker alone.

    :return: ``inspect.Parameter.empty`` if there is none.
    :raises UnresolvedAnnotation: A name in it cannot be found.
    """
    raw = _raw_annotations(function).get(name, inspect.Parameter.empty)
    if raw is inspect.Parameter.empty:
        return raw
    home = inspect.unwrap(function)
    holder = types.SimpleNamespace(__annotations__={name: raw})
    try:
        return t.get_type_hints(
            holder,
            globalns=getattr(home, "__globals__", {}),
            localns=_enclosed(home),
            include_extras=True,
        )[name]
    except Exception as error:
        text = getattr(raw, "__forward_arg__", raw)
        raise UnresolvedAnnotation(str(text), str(error)) from error


def _raw_annotations(function: t.Any) -> t.Mapping[str, t.Any]:
    if sys.version_info >= (3, 14):
        import annotationlib

        if not callable(function):
            return {}
        return annotationlib.get_annotations(
            function, format=annotationlib.Format.FORWARDREF
        )
    found = getattr(function, "__annotations__", None)
    return found if isinstance(found, dict) else {}


def _enclosed(function: t.Any) -> dict[str, t.Any]:
    # A class that is local to the enclosing function is found if the body uses it.
    code = getattr(function, "__code__", None)
    found = {}
    cells = getattr(function, "__closure__", None) or ()
    for name, cell in zip(getattr(code, "co_freevars", ()), cells, strict=False):
        try:
            found[name] = cell.cell_contents
        except ValueError:  # not assigned yet
            continue
    return found
