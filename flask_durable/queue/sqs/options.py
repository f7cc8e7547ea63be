"""The options of queues on SQS: ``DURABLE_QUEUES``, and the ``sqs://`` URL.

Both are read once, with the other settings. Nothing here does I/O.
"""

from __future__ import annotations

import difflib
import json
import re
import typing as t
from dataclasses import dataclass
from dataclasses import field
from urllib.parse import parse_qs
from urllib.parse import urlsplit

from pydantic import BaseModel
from pydantic import BeforeValidator
from pydantic import ConfigDict
from pydantic import Field
from pydantic import ValidationError

from ...common.durations import to_seconds
from ...messages import EVENT_QUEUE

FIFO_SUFFIX = ".fifo"

_PLACE = re.compile(
    r"arn:[a-z\-]+:sqs:[a-z0-9\-]+:[0-9]+:[\w\-]{1,80}(?:\.fifo)?"
    r"|https?://[^/\s?#]+(?:/[^/\s?#]+)+"
)
_GROUP = re.compile(r"\*|id|name|data(?:\.[^.\s]+)+")

#: Parameters of the URL.
_PARAMETERS = ("region", "prefix", "endpoint", "create", "tags", "kms_key")


@dataclass(frozen=True)
class SQSAddress:
    """The place of the queues, and the options for making missing ones.

    :param region: The region; by default the one that boto3 finds.
    :param prefix: The prefix of every queue's name; by default the namespace.
    :param endpoint: The address of a server other than Amazon's.
    :param create: True if queues that do not exist are made.
    :param tags: The tags of the queues that are made.
    :param kms_key: The key that encrypts the queues that are made; by default SQS's.
    """

    region: str | None = None
    prefix: str | None = None
    endpoint: str | None = None
    create: bool = True
    tags: t.Mapping[str, str] = field(default_factory=dict)
    kms_key: str | None = None

    @classmethod
    def parse(cls, url: str) -> SQSAddress:
        """Return the address that *url* holds.

        :raises ValueError: The URL has a host, a path, an unknown parameter, or one
            with a wrong value.
        """
        parts = urlsplit(url)
        given = parse_qs(parts.query, keep_blank_values=True)
        values: dict[str, t.Any] = {key: found[-1] for key, found in given.items()}
        unknown = sorted(values.keys() - set(_PARAMETERS))
        if unknown or parts.netloc or parts.path.strip("/"):
            raise ValueError(
                "has parts that SQS queues do not have"
                + (f" ({', '.join(unknown)})" if unknown else "")
                + f": write it as sqs://?region=…, with any of {', '.join(_PARAMETERS)}"
            )
        if (create := values.pop("create", "missing")) not in ("missing", "never"):
            raise ValueError(f"has create={create}, but it is create=never or left out")
        tags = _tags(values.pop("tags", ""))
        values = {key: value for key, value in values.items() if value}
        return cls(**values, create=create == "missing", tags=tags)


class QueueOptions(BaseModel):
    """The options of one queue in ``DURABLE_QUEUES``.

    :param queue: The URL or the ARN of the queue, which exists.
    :param visibility: Seconds that a received message is hidden.
    :param retention: Seconds that messages are kept in a queue that is made.
    :param max_receives: The number of receives of a message before it goes to the
        dead-letter queue, for a queue that is made.
    :param fifo: True if a queue that is made is a FIFO queue.
    :param group: For the event queue, which becomes FIFO: the path in an event to the
        value that its message group is made of, such as ``data.tenant``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    queue: t.Annotated[str, Field(pattern=rf"^(?:{_PLACE.pattern})$")] | None = None
    visibility: (
        t.Annotated[float, BeforeValidator(to_seconds), Field(ge=1, le=43200)] | None
    ) = None
    retention: (
        t.Annotated[float, BeforeValidator(to_seconds), Field(ge=60, le=14 * 86400)]
        | None
    ) = None
    max_receives: t.Annotated[int, Field(ge=1, le=1000)] | None = None
    fifo: bool = False
    group: t.Annotated[str, Field(pattern=rf"^(?:{_GROUP.pattern})$")] | None = None

    @property
    def is_fifo(self) -> bool:
        """True if the queue is FIFO."""
        if self.queue is not None:
            return self.queue.endswith(FIFO_SUFFIX)
        return self.fifo or self.group is not None


Queues = t.Mapping[str, QueueOptions]


def read_queues(value: t.Any) -> dict[str, QueueOptions]:
    """Return the options in ``DURABLE_QUEUES``, a mapping or JSON text of one.

    :raises ValueError: The value cannot be used; the text says what to change.
    """
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            raise ValueError("must be a mapping, or JSON text of one") from None
    if not isinstance(value, t.Mapping):
        raise ValueError("must map names of queues to their options")
    queues = {str(name): _read_options(name, given) for name, given in value.items()}
    for name, options in queues.items():
        _check(name, options, queues.get(EVENT_QUEUE, QueueOptions()))
    return queues


def _read_options(name: t.Any, given: t.Any) -> QueueOptions:
    if isinstance(given, QueueOptions):
        return given
    if not isinstance(name, str) or not isinstance(given, t.Mapping):
        raise ValueError(f"must map the queue {name!r} to a mapping of options")
    known = list(QueueOptions.model_fields)
    for option in given:
        if option not in known:
            near = difflib.get_close_matches(str(option), known, n=1, cutoff=0.0)[0]
            raise ValueError(
                f"has an option {option!r} of the queue {name!r}: "
                f"did you mean {near!r}?"
            )
    try:
        return QueueOptions.model_validate(given)
    except ValidationError as error:
        fault = error.errors(include_url=False, include_input=False)[0]
        option = str(fault["loc"][0])
        said = _EXPECTED.get(option) or str(fault.get("ctx", {}).get("error", ""))
        raise ValueError(
            f"has a {option!r} of the queue {name!r} that cannot be used: "
            f"{said or fault['msg']}"
        ) from None


_EXPECTED = {
    "queue": "give the URL or the ARN of an SQS queue",
    "group": 'give a path such as "data.tenant", or "name", "id", or "*" for one group',
    "visibility": "give a duration from 1s to 12h",
    "retention": "give a duration from 1m to 14d",
}


def _check(name: str, options: QueueOptions, events: QueueOptions) -> None:
    made = sorted(options.model_fields_set & {"retention", "max_receives", "fifo"})
    if options.queue is not None and made:
        raise ValueError(
            f"has {', '.join(made)} for the queue {name!r}, which exists and is never "
            "changed: leave it out"
        )
    if name != EVENT_QUEUE:
        if options.group is not None:
            raise ValueError(
                f"has a group for the queue {name!r}: runs have the group of their "
                f"event, so give it for {EVENT_QUEUE!r}, and fifo here"
            )
        if options.is_fifo and not events.is_fifo:
            raise ValueError(
                f"makes the queue {name!r} FIFO, but not {EVENT_QUEUE!r}: there would "
                f"be no order to keep; give {EVENT_QUEUE!r} a group"
            )
    elif options.is_fifo is not (options.group is not None):
        raise ValueError(
            f"gives {EVENT_QUEUE!r} "
            + (
                "a queue whose name does not end in .fifo, and a group"
                if options.group
                else "a FIFO queue and no group: give a group"
            )
        )


def _tags(text: str) -> dict[str, str]:
    tags = {}
    for part in filter(None, text.split(",")):
        name, separator, value = part.partition(":")
        if not separator or not name.strip():
            raise ValueError(f"has the tag {part!r}: write tags as name:value,…")
        tags[name.strip()] = value.strip()
    return tags
