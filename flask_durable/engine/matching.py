"""Values that a wait asks of an event, found by an index and never by a search.

A wait compares values at paths, such as ``data.order_id``. Its *path set* is the sorted
list of these paths as JSON text, and its content is the list of paths and values. Of an
event the router makes the content for each path set that waits of its name use. Equal
contents have one digest, under which the home of the name keeps waits and events.

Values compare as JSON: 1 is 1.0, but neither "1" nor true; the order of the keys of an
object does not count. A path that is missing, or has null, fits nothing.
"""

from __future__ import annotations

import json
import typing as t

from ..errors import StepUsageError

#: Paths that one wait may compare, and characters of one.
MAX_PATHS = 10
MAX_PATH = 255

#: Bytes of JSON of the values that one wait compares.
MAX_VALUES = 4096

_HINT = (
    'Write match="data.order_id" for the same value as in the run\'s own event, or '
    'match={"data.order_id": order_id} for a value.'
)

#: The values that a wait asks for, by path.
Wanted = dict[str, t.Any]


def wanted_by(name: str, match: t.Any, own: t.Mapping[str, t.Any]) -> Wanted:
    """Return the values that ``match=`` asks for, by path; a value may be ``None``.

    :param name: The step's name.
    :param own: The data of the run's own event.
    :raises StepUsageError: ``match=`` has no paths, or a value is not of JSON.
    """
    if match is None:
        return {}
    if isinstance(match, str):
        match = {match: find(own, _checked(name, match))}
    if not isinstance(match, t.Mapping):
        raise StepUsageError(
            f"Step {name!r} cannot match {type(match).__name__}.", hint=_HINT
        )
    if len(match) > MAX_PATHS:
        raise StepUsageError(
            f"Step {name!r} matches {len(match)} paths; {MAX_PATHS} are possible."
        )
    wanted = {_checked(name, path): value for path, value in match.items()}
    try:
        size = len(_text(wanted))
    except (TypeError, ValueError) as error:
        raise StepUsageError(
            f"Step {name!r} matches a value that is not of JSON: {error}.",
            hint="Give texts, numbers, true and false, lists and dicts, such as "
            "str(uuid).",
        ) from None
    if size > MAX_VALUES:
        raise StepUsageError(
            f"Step {name!r} matches values of {size} bytes; {MAX_VALUES} are possible."
        )
    return wanted


def path_set(paths: t.Iterable[str]) -> str:
    """Return the path set of *paths*; empty if there are none."""
    ordered = sorted(paths)
    return json.dumps(ordered) if ordered else ""


def content_of(wanted: Wanted) -> bytes | None:
    """Return the content that an event has to have; ``None`` if none can have it."""
    if any(value is None for value in wanted.values()):
        return None
    return _text(wanted)


def content_at(paths: str, data: t.Mapping[str, t.Any]) -> bytes | None:
    """Return the content of an event for a path set; ``None`` if a value is missing."""
    return content_of({path: find(data, path) for path in json.loads(paths)})


def find(data: t.Mapping[str, t.Any], path: str) -> t.Any:
    """Return the value of *data* at *path*, ``None`` if there is none."""
    value: t.Any = data
    for key in path.split(".")[1:]:
        if not isinstance(value, dict) or key not in value:
            return None
        value = value[key]
    return value


def _checked(name: str, path: t.Any) -> str:
    parts = path.split(".") if isinstance(path, str) else []
    if len(parts) < 2 or parts[0] != "data" or not all(parts) or len(path) > MAX_PATH:
        raise StepUsageError(
            f'Step {name!r} cannot match at {path!r}: a path is "data." and the names'
            " of keys with dots between.",
            hint=_HINT,
        )
    return str(path)


def _text(wanted: Wanted) -> bytes:
    pairs = [[path, _canonical(wanted[path])] for path in sorted(wanted)]
    text = json.dumps(pairs, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return text.encode()


def _canonical(value: t.Any) -> t.Any:
    """Return *value* in the form that all equal values of JSON have."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, dict):
        return {_key(key): _canonical(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_canonical(item) for item in value]
    return value


def _key(key: t.Any) -> str:
    if not isinstance(key, str):
        raise TypeError(f"a key is {key!r}")
    return key
