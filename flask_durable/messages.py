"""The two messages that travel through a queue, as JSON that a person can read.

* An **event message** waits on the event queue until a router has turned it into runs.
* A **run message** waits on a function's queue. It is a hint that a run is ready, never
  the owner of the run: it may be late, doubled or lost without harm.

:data:`Outcome` is the result of sending an event.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import re
import typing as t

from .common.ids import derived_id
from .common.ids import marked_function
from .common.ids import plain_function

#: Version of the form. A message with another version is of another release.
VERSION = 1

#: The logical name of the queue that events wait in.
EVENT_QUEUE = "events"

#: The path of :meth:`EventMessage.in_group` that puts all events into one group.
ONE_GROUP = "*"

#: The range of times: milliseconds since 1970 of the years 1 to 9999.
FIRST_TIME = -62_135_596_800_000
LAST_TIME = 253_402_300_799_999

#: Levels of nested objects and lists that a message may have.
MAX_DEPTH = 64


class UndecodableMessage(ValueError):
    """Raised for a message that is not of this library; the text says why."""


class MessageRefused(ValueError):
    """Raised for a message that a queue never takes, such as one that is too large."""


class ForeignMessage(UndecodableMessage):
    """Raised for a message that another installation has sent.

    The two share the queue without knowing it, so the message goes back there.
    """

    def __init__(self, home: str) -> None:
        super().__init__(f"sent by another deployment, the installation {home}")


class UnknownForm(UndecodableMessage):
    """Raised for a message whose version or kind another release has.

    Two releases may run side by side, and the other one knows it: it goes back to the
    queue.
    """


@dataclasses.dataclass(frozen=True)
class EventMessage:
    """An accepted event on its way to the router.

    :param name: The event's name.
    :param data: The event's JSON object. Where that is encrypted or in the blob store,
        the text that stands for it, which only
        :class:`~flask_durable.payloads.sealing.Payloads` opens.
    :param id: The event's id.
    :param at: The time when it happened: milliseconds since 1970, UTC.
    :param headers: Trace headers (``sentry-trace``, ``baggage``, ``traceparent``).
    :param group: The group whose runs start in order, where queues are FIFO.
    :param home: The installation that sent it; ``""`` where queues are on its own
        state server, or if it was not known.
    :param due: The time before which its runs may not start, milliseconds since 1970;
        0 where the sender asked for none. It is not *at*: that is read off the sender's
        clock, which may be ahead of the state server's.
    :param schema: The version of the schema that its data was checked against when it
        was sent; empty if there was none.
    """

    name: str
    # Left out of what logs and error reports show of the object: it is user data.
    data: dict[str, t.Any] | str = dataclasses.field(repr=False)
    id: str
    at: int
    headers: dict[str, str] = dataclasses.field(default_factory=dict)
    group: str = ""
    due: int = 0
    schema: str = ""
    home: str = ""

    @property
    def opened(self) -> dict[str, t.Any]:
        """The data of a message that was never sealed, or was opened."""
        assert isinstance(self.data, dict), f"event {self.id} was not opened"
        return self.data

    @property
    def key(self) -> str:
        """The key by which notes about this message are found: that of its event."""
        return f"event:{self.id}"

    def in_group(self, path: str | None) -> EventMessage:
        """Return the message in the group of its value at *path*; in none without one.

        The group is a digest, since it travels beside data that may be encrypted.

        :param path: A path such as ``data.tenant``, or :data:`ONE_GROUP`; ``None`` if
            events have no groups.
        """
        if path is None:
            return self
        return dataclasses.replace(self, group=self._group_at(path))

    def _group_at(self, path: str) -> str:
        if path == ONE_GROUP:
            return ONE_GROUP
        value: t.Any = {"name": self.name, "id": self.id, "data": self.data}
        for name in path.split("."):
            if not isinstance(value, dict) or value.get(name) is None:
                return ""
            value = value[name]
        return derived_id(json.dumps(value, sort_keys=True))

    def encode(self) -> str:
        """Return the message as JSON text, with its data as of the first call."""
        return self._text

    @functools.cached_property
    def _text(self) -> str:
        # Written out: dataclasses.asdict() would copy the data first.
        fields = {"v": VERSION, "kind": "event", "name": self.name, "data": self.data}
        fields |= {"id": self.id, "at": self.at, "headers": self.headers}
        if self.due:
            fields["due"] = self.due
        if self.schema:
            fields["schema"] = self.schema
        return _ENCODER.encode(fields | _group(self.group) | _home(self.home))


@dataclasses.dataclass(frozen=True)
class RunMessage:
    """A hint that a run is QUEUED.

    :param run: The run's id.
    :param function: The id of the run's function.
    :param queued: The time when the run was queued: milliseconds since 1970, server
        clock.
    :param failed: The generation of the run that failed, in a dead letter. Moved back,
        the message is a hint that this generation is to be tried again.
    :param group: The message group of the run's event, on a FIFO queue.
    :param home: The installation that sent it.
    """

    run: str
    function: str
    queued: int
    failed: int | None = None
    group: str = ""
    home: str = ""

    @property
    def key(self) -> str:
        """The key by which notes about this message are found: that of its run."""
        return self.key_of(self.run)

    @staticmethod
    def key_of(run: str) -> str:
        """Return the key of all messages about *run*."""
        return f"run:{run}"

    def encode(self) -> str:
        """Return the message as JSON text."""
        fields = {"v": VERSION, "kind": "run", "run": self.run}
        function = marked_function(self.function, self.run)
        fields |= {"function": function, "queued": self.queued}
        if self.failed is not None:
            fields["failed"] = self.failed
        return _ENCODER.encode(fields | _group(self.group) | _home(self.home))


Message = EventMessage | RunMessage

#: The class of each kind, and the types that JSON has for its fields.
_TYPES: dict[str, tuple[type[t.Any], dict[str, tuple[type, ...]]]] = {
    "event": (
        EventMessage,
        {
            "name": (str,),
            "data": (dict, str),
            "id": (str,),
            "at": (int,),
            "headers": (dict,),
            "group": (str,),
            "due": (int,),
            "schema": (str,),
            "home": (str,),
        },
    ),
    "run": (
        RunMessage,
        {
            "run": (str,),
            "function": (str,),
            "queued": (int,),
            "failed": (int, type(None)),
            "group": (str,),
            "home": (str,),
        },
    ),
}


def _group(group: str) -> dict[str, str]:
    return {"group": group} if group else {}


def _home(home: str) -> dict[str, str]:
    return {"home": home} if home else {}


_HOME = re.compile(r',"home":"[0-9a-f]{32}"}$')


def stamped(body: str, home: str) -> str:
    """Return the message text *body* with the installation that sends it.

    The text is not decoded for that: every message passes here. A message that has been
    sent before keeps its installation.
    """
    if not home or not body.endswith("}") or _HOME.search(body, len(body) - 50):
        return body
    return f'{body[:-1]},"home":"{home}"}}'


def _check_event(values: t.Mapping[str, t.Any]) -> None:
    """Check the fields of an event message.

    No run may come of data that cannot be shown: listing the runs would fail, too.
    """
    if isinstance(text := values["data"], str) and not is_sealed(text):
        raise UndecodableMessage("field 'data' is not dict")
    for name in ("name", "id"):
        if not values[name]:
            raise UndecodableMessage(f"field {name!r} is empty")
        try:
            values[name].encode()
        except UnicodeEncodeError:
            raise UndecodableMessage(f"field {name!r} is no text") from None
    for name in ("at", "due"):
        if not FIRST_TIME <= values.get(name, 0) <= LAST_TIME:
            raise UndecodableMessage(f"field {name!r} is no time")


#: The fields that may be left out. They are empty then.
_OPTIONAL = frozenset(("headers", "group", "due", "schema", "home"))


def _refuse_constant(name: str) -> t.NoReturn:
    raise ValueError(f"{name} is no number of JSON")


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError(f"{text} is too large a number")
    return number


_ENCODER = json.JSONEncoder(separators=(",", ":"), allow_nan=False)

#: Refuses what Python would read besides JSON: it could not be written again.
_DECODER = json.JSONDecoder(parse_constant=_refuse_constant, parse_float=_finite)


def read_json(text: str) -> t.Any:
    """Return the value of the JSON *text*.

    :raises ValueError: The text is not JSON, or has a number that could not be written
        again.
    """
    return _DECODER.decode(text)


def decode(body: str | bytes) -> Message:
    """Return the message that *body* holds.

    :raises UnknownForm: The message is of another release: it has a version or a kind
        that is not known here.
    :raises UndecodableMessage: The text is not JSON, not an object, without version or
        kind, or a field is missing or of another type.
    """
    try:
        fields = read_json(body if isinstance(body, str) else body.decode())
    except (ValueError, RecursionError) as error:
        raise UndecodableMessage(f"not JSON: {error}") from None
    if not isinstance(fields, dict):
        raise UndecodableMessage("not a JSON object")
    version, name = fields.get("v"), fields.get("kind")
    if type(version) is not int:
        raise UndecodableMessage(f"message version {version!r}, not {VERSION}")
    if version != VERSION:
        raise UnknownForm(f"message version {version}, not {VERSION}")
    if not isinstance(name, str):
        raise UndecodableMessage(f"kind {name!r} is unknown")
    if name not in _TYPES:
        raise UnknownForm(f"kind {name!r} is unknown")
    cls, types = _TYPES[name]
    values = {}
    for name, kinds in types.items():
        if name not in fields and name in _OPTIONAL:
            continue
        value = values[name] = fields.get(name)
        if type(value) not in kinds:
            raise UndecodableMessage(f"field {name!r} is not {kinds[0].__name__}")
    if cls is EventMessage:
        _check_event(values)
    else:
        values["function"] = plain_function(str(values["function"]))
    return t.cast(Message, cls(**values))


#: The beginning of a text that stands for an object in the blob store.
BLOB = "blob:"

#: The beginning of an encrypted text.
ENCRYPTED = "encrypted:"


def is_sealed(text: str) -> bool:
    """Return whether *text* has to be opened before it is JSON."""
    return text.startswith((BLOB, ENCRYPTED))


#: The owner of an event: the event queue, or the outbox of its partition, which is sent
#: when the queue is back.
Owner = t.Literal["accepted", "spooled"]

#: The owner of an event, or the reason why it has none.
Outcome = Owner | Exception


def failures(outcomes: t.Iterable[Outcome]) -> list[Exception]:
    """Return the errors among *outcomes*."""
    return [outcome for outcome in outcomes if isinstance(outcome, Exception)]
