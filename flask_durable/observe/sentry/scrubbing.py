"""Removes event data and keys from everything that Sentry collects in the process.

The SDK's integrations collect on their own: the body and the address of a request, the
local variables of a stack, log records, commands of Redis. They do so in threads and
processes that none of our middleware surrounds. So one scrubber is put behind the
client's own. It sees every issue and every transaction after all event processors, and
before the application's ``before_send``.

========================================  ============================================
every issue, transaction and log          the secrets of the settings and the addresses
                                          of forwards are replaced, and the text after
                                          ``/e/``, ``/worker/`` or ``/answers/`` in an
                                          address and after ``flask durable send``
a request to one of our routes            the body is removed
an issue from this package                variables of all frames are removed that are
                                          not the application's own; of the rest,
                                          values with secret names are replaced, and
                                          the values that pydantic's errors quote
a log from this package                   parameters are removed; the rest as of issues
our Redis commands                        the arguments are removed
========================================  ============================================

Nothing here imports Sentry before the application has.
"""

from __future__ import annotations

import re
import sys
import typing as t
import weakref
from dataclasses import dataclass

from ...current import run_context
from ...security.redaction import REDACTED
from ...security.redaction import Redaction

if t.TYPE_CHECKING:
    from sentry_sdk._types import Event
    from sentry_sdk._types import Hint

    Tree = dict[str, t.Any]

_PACKAGE = __package__.partition(".")[0]

#: Libraries that are called with events and results, or that call us with requests.
#: Frames that the SDK marks as outside the application are treated alike. This list is
#: for an application that marks them otherwise, and for the standard library.
_LIBRARIES = sys.stdlib_module_names | {
    *("awslambdaric", "bootstrap", "boto3", "botocore", "click", "cryptography"),
    *("dramatiq", "flask", "gunicorn", "hiredis"),
    *("itsdangerous", "jinja2", "pydantic"),
    *("prometheus_client", "redis", "s3transfer", "sentry_sdk", "statsd", "urllib3"),
    "werkzeug",
}

#: Our modules that call no code of the application. Frames below theirs in a stack,
#: such as a wrapper around a client, work on their arguments.
_PASSING = (
    *("clients", "forwarding", "messages", "observe", "payloads"),
    *("queue", "redis", "store"),
)

#: Loggers that write about messages.
_LOGGERS = (_PACKAGE, "dramatiq")

#: The path that has the key of an event API behind it, and the pattern of a key.
_EVENT_API = "/e/"
_KEY = r"[^/\s?#\"'&]+"

#: The values that pydantic's errors quote of data that does not fit.
_QUOTED_INPUT = re.compile(r"(input_value=).*?(, input_type=)", re.DOTALL)

#: Fewest characters of a secret. A shorter text is a common word.
_SHORTEST_SECRET = 8

#: Keys of an event that are removed if the rest could not be scrubbed.
_GATHERED = ("breadcrumbs", "exception", "extra", "request", "spans", "threads")

#: Options of the client for callbacks that get its telemetry besides events.
_CALLBACKS = ("before_send_log", "before_send_metric", "before_send_span")

#: Prefixes of attributes: of a log, for a parameter of its message; of a span, for a
#: header of a request.
_PARAMETER, _HEADER = "sentry.message.parameter.", "http.request.header."

#: The command whose arguments are an event.
_SEND = ["durable", "send"]


@dataclass(frozen=True, eq=False)
class Confidential:
    """The texts and names of one app that Sentry must not get.

    :param redact: A callable that replaces the values with secret names.
    :param secrets: A callable that returns the texts to hide: keys, secrets, paths.
    :param url_prefix: The path that the routes are below; empty without routes.
    :param namespace: The namespace of the keys in Redis.
    """

    redact: Redaction
    secrets: t.Callable[[], t.Iterable[str]]
    url_prefix: str
    namespace: str

    def pattern(self) -> re.Pattern[str]:
        """Return a pattern of the secrets, and of paths up to a secret, in a group."""
        known = {text for text in self.secrets() if len(text) >= _SHORTEST_SECRET}
        # The longer first: one may begin with another.
        texts = "|".join(map(re.escape, sorted(known, key=len, reverse=True)))
        places = [_EVENT_API]
        if self.url_prefix:
            prefix = self.url_prefix.rstrip("/")
            places += [f"{prefix}/worker/", f"{prefix}/answers/"]
        before = "|".join(map(re.escape, places))
        return re.compile(rf"({before}){_KEY}" + (f"|{texts}" if texts else ""))

    def owns_path(self, url: str) -> bool:
        """Return whether one of the app's routes may be at *url*."""
        path = url.partition("?")[0]
        if _EVENT_API in path:
            return True
        prefix = self.url_prefix.rstrip("/")
        if prefix:
            return f"{prefix}/" in path
        if not self.url_prefix:
            return False
        below = "/worker/" in path or "/answers/" in path
        return below or path.endswith(("/events", "/worker"))

    def owns_command(self, text: str) -> bool:
        """Return whether *text* is a command with a key of the app's."""
        return f"{{{self.namespace}:" in text


#: The apps of this process.
_apps: weakref.WeakSet[Confidential] = weakref.WeakSet()


def protect(confidential: Confidential) -> Confidential:
    """Keep *confidential* from Sentry for as long as the object exists."""
    _apps.add(confidential)
    install()
    return confidential


def install() -> None:
    """Put the scrubber into Sentry's client, if the application has imported the SDK.

    Cheap, and called at each moment when the SDK may have been imported since.
    """
    if "sentry_sdk" not in sys.modules:
        return
    import sentry_sdk
    import sentry_sdk.scope

    # A client that is made later is met at its first event.
    if _on_event not in sentry_sdk.scope.global_event_processors:
        sentry_sdk.scope.add_global_event_processor(_on_event)
    client = sentry_sdk.get_client()
    # Without a client the options are the SDK's own defaults, shared by all clients.
    if client.is_active():
        _install_in(client.options)


def _on_event(event: Event, hint: Hint) -> Event:
    install()
    return event


def _install_in(options: Tree) -> None:
    inner = options.get("event_scrubber")
    if isinstance(inner, _Scrubber):
        return
    options["event_scrubber"] = _Scrubber(inner)
    for name in _CALLBACKS:
        if name in options:
            given = options[name] or (options.get("_experiments") or {}).get(name)
            options[name] = _Callback(given)


class _Scrubber:
    """Takes the place of the client's own scrubber, and calls that one first."""

    def __init__(self, inner: t.Any) -> None:
        self._inner = inner

    def scrub_event(self, event: Event) -> None:
        """Remove confidential data from *event*."""
        if self._inner:
            self._inner.scrub_event(event)
        tree = t.cast("Tree", event)
        try:
            for confidential in list(_apps):
                _scrub(tree, confidential)
        except Exception:
            # An issue without its details is better than one with an event's data.
            _leave_bare(tree)


class _Callback:
    """Scrubs logs, metrics and streamed spans before the application's callback."""

    def __init__(self, inner: t.Any) -> None:
        self._inner = inner

    def __call__(self, telemetry: Tree, hint: Hint) -> t.Any:
        for confidential in list(_apps):
            _scrub_command(telemetry, confidential)
            if "attributes" in telemetry:
                _scrub_attributes(telemetry, confidential.redact)
            hide = _hider(confidential)
            for name, value in list(telemetry.items()):
                telemetry[name] = hide(value)
        return self._inner(telemetry, hint) if self._inner else telemetry


def _leave_bare(event: Tree) -> None:
    """Remove all parts of *event* that may hold confidential data."""
    for name in _GATHERED:
        event.pop(name, None)
    if isinstance(entry := event.get("logentry"), dict):
        event["logentry"] = {"message": entry.get("message")}
    trace = (event.get("contexts") or {}).get("trace")
    if isinstance(trace, dict):
        trace = {name: value for name, value in trace.items() if name != "data"}
    event["contexts"] = {"trace": trace} if trace else {}


def _scrub_attributes(telemetry: Tree, redact: Redaction) -> None:
    attributes = telemetry["attributes"]
    logger = str(attributes.get("logger.name") or "").partition(".")[0]
    ours = logger in _LOGGERS
    for name, value in list(attributes.items()):
        if ours and name.startswith(_PARAMETER):
            del attributes[name]  # its text has them already
        elif name.startswith(_HEADER):
            attributes.update(redact({name: value}))
        elif name == "process.command_args":
            attributes[name] = _without_event(value)
    if ours or run_context() is not None:
        telemetry["attributes"] = redact(attributes)
        for name, value in list(telemetry.items()):
            telemetry[name] = _mapped(value, _without_input)


def _without_event(arguments: t.Any) -> t.Any:
    """Return the arguments of a process without those of ``flask durable send``."""
    if not isinstance(arguments, (list, tuple)):
        return arguments
    for end in range(2, len(arguments)):
        if [*arguments[end - 2 : end]] == _SEND:
            return [*arguments[:end], REDACTED]
    return arguments


def _scrub(event: Tree, confidential: Confidential) -> None:
    _scrub_request(event, confidential)
    if "sys.argv" in (extra := event.get("extra") or {}):
        # Another mapping: the scope may keep this one, and the list is the process's.
        event["extra"] = {**extra, "sys.argv": _without_event(extra["sys.argv"])}
    for text in _commands_of(event):
        _scrub_command(text, confidential)
    if _is_about_us(event):
        _remove_payloads(event, confidential.redact)
    hide = _hider(confidential)
    for name, value in list(event.items()):
        if name in ("exception", "threads", "stacktrace"):
            _hide_in_stacks(value, hide)
        elif name not in ("contexts", "modules", "sdk", "timestamp"):
            event[name] = hide(value)
    # A trace has the attributes of its first span.
    if "trace" in (contexts := event.get("contexts") or {}):
        contexts["trace"] = hide(contexts["trace"])


def _scrub_request(event: Tree, confidential: Confidential) -> None:
    request = event.get("request")
    if not request or not confidential.owns_path(str(request.get("url", ""))):
        return
    request.pop("data", None)
    if "headers" in request:
        request["headers"] = confidential.redact(request["headers"])


def _is_about_us(event: Tree) -> bool:
    """Return whether *event* comes from this package, or from code that it calls."""
    logger = str(event.get("logger") or "").partition(".")[0]
    is_attempt = "durable" in (event.get("contexts") or {})
    return is_attempt or logger in _LOGGERS or any(map(_is_ours, _frames_of(event)))


def _remove_payloads(event: Tree, redact: Redaction) -> None:
    # The message, as Sentry's integration of Dramatiq shows it.
    (event.get("contexts") or {}).pop("dramatiq", None)
    (event.get("extra") or {}).pop("dramatiq_message_id", None)
    if "logentry" in event:
        event["logentry"].pop("params", None)  # its text has them already
    for stack in _stacks_of(event):
        passing = False
        for frame in stack:
            if _is_ours(frame):
                passing = _room_of(frame) in _PASSING
            if passing or _is_foreign(frame):
                frame.pop("vars", None)  # whole events and results
            elif "vars" in frame:
                frame["vars"] = redact(frame["vars"])
    if "extra" in event:
        event["extra"] = redact(event["extra"])
    for crumb in _crumbs_of(event):
        if "data" in crumb:
            crumb["data"] = redact(crumb["data"])
    for holder, name in _texts_of(event):
        if name in holder:
            holder[name] = _mapped(holder[name], _without_input)


def _texts_of(event: Tree) -> t.Iterator[tuple[Tree, str]]:
    """Yield each part with an error's text, and the key of the text."""
    yield event, "message"
    yield event, "logentry"
    for value in _values_of(event.get("exception")):
        yield value, "value"
    for crumb in _crumbs_of(event):
        yield crumb, "message"


def _without_input(value: t.Any) -> t.Any:
    if not isinstance(value, str):
        return value
    return _QUOTED_INPUT.sub(rf"\1{REDACTED}\2", value)


def _commands_of(event: Tree) -> t.Iterator[Tree]:
    """Yield the spans and breadcrumbs that show commands of Redis."""
    for crumb in _crumbs_of(event):
        if "redis" in (crumb.get("category"), crumb.get("type")):
            yield crumb
    spans = _plain(event.get("spans"))
    for span in spans if isinstance(spans, list) else ():
        if str(span.get("op", "")).startswith("db.redis"):
            yield span


def _scrub_command(shown: Tree, confidential: Confidential) -> None:
    """Keep the names of commands on keys of the app, and remove the arguments."""

    def shorten(value: t.Any) -> t.Any:
        if isinstance(value, str) and confidential.owns_command(value):
            return value.partition(" ")[0]
        return value

    for name, value in list(shown.items()):
        shown[name] = _mapped(value, shorten)


def _hider(confidential: Confidential) -> t.Callable[[t.Any], t.Any]:
    """Return a callable that replaces the secrets in a value, however deep they are."""
    pattern = confidential.pattern()

    def hide(value: t.Any) -> t.Any:
        if not isinstance(value, str):
            return value
        return pattern.sub(lambda found: f"{found[1] or ''}{REDACTED}", value)

    return lambda value: _mapped(value, hide)


def _hide_in_stacks(part: t.Any, hide: t.Callable[[t.Any], t.Any]) -> None:
    # Not in the names of files: they are no addresses.
    for value in _values_of(part):
        if "value" in value:
            value["value"] = hide(value["value"])
    for frame in _frames_in(part):
        for name in ("vars", "pre_context", "context_line", "post_context"):
            if name in frame:
                frame[name] = hide(frame[name])


def _mapped(value: t.Any, change: t.Callable[[t.Any], t.Any]) -> t.Any:
    """Return *value* with *change* made to each member of its mappings and lists."""
    if isinstance(value, dict):
        return {_mapped(k, change): _mapped(v, change) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_mapped(member, change) for member in value]
    if _plain(value) is not value:
        value.value = _mapped(value.value, change)
        return value
    return change(value)


def _plain(value: t.Any) -> t.Any:
    """Return the value that the SDK annotated."""
    annotated = type(value).__name__ == "AnnotatedValue"
    return value.value if annotated else value


def _crumbs_of(event: Tree) -> t.Iterator[Tree]:
    yield from _values_of(_plain(event.get("breadcrumbs")))


def _values_of(part: t.Any) -> t.Sequence[Tree]:
    return (part.get("values") or ()) if isinstance(part, dict) else ()


def _frames_in(part: t.Any) -> t.Iterator[Tree]:
    for value in _values_of(part):
        yield from (value.get("stacktrace") or {}).get("frames") or ()
    if isinstance(part, dict):
        yield from part.get("frames") or ()


def _stacks_of(event: Tree) -> t.Iterator[t.Sequence[Tree]]:
    """Yield the frames of each stack, the outermost first."""
    for name in ("exception", "threads"):
        for value in _values_of(event.get(name)):
            yield (value.get("stacktrace") or {}).get("frames") or ()
    yield (event.get("stacktrace") or {}).get("frames") or ()


def _frames_of(event: Tree) -> t.Iterator[Tree]:
    for stack in _stacks_of(event):
        yield from stack


def _is_foreign(frame: Tree) -> bool:
    """Return whether *frame* is outside the application's own code."""
    is_known = _is_ours(frame) or _root_of(frame) in _LIBRARIES
    return is_known or frame.get("in_app") is False


def _is_ours(frame: Tree) -> bool:
    return _root_of(frame) == _PACKAGE


def _root_of(frame: Tree) -> str:
    return (frame.get("module") or "").partition(".")[0]


def _room_of(frame: Tree) -> str:
    return f"{frame.get('module') or ''}..".split(".")[1]
