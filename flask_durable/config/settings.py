"""Settings: every ``DURABLE_*`` key, read and validated once."""

from __future__ import annotations

import copy
import difflib
import json
import os
import re
import typing as t

from pydantic import AfterValidator
from pydantic import BaseModel
from pydantic import BeforeValidator
from pydantic import ConfigDict
from pydantic import Field
from pydantic import model_validator
from pydantic import PrivateAttr
from pydantic import ValidationError

from ..common.durations import MAX_SECONDS
from ..errors import ConfigurationError
from ..payloads.cipher import check_encryption_key
from ..queue.sqs.options import QueueOptions
from ..queue.sqs.options import read_queues
from ..scaler.options import PoolOptions
from ..security.keys import check_event_key
from ..security.keys import check_metrics_secret
from ..security.keys import check_push_secret
from ..security.keys import secret_bytes
from ..security.redaction import REDACT_KEYS
from .values import between
from .values import check_blob_url
from .values import check_statsd_url
from .values import FLAG
from .values import FSYNC
from .values import read_external_url
from .values import read_instance_size
from .values import read_metric_prefix
from .values import read_namespace
from .values import read_pools
from .values import read_tag_style
from .values import read_texts
from .values import read_url_prefix
from .values import refuse_empty
from .values import refuse_set
from .values import SECONDS
from .values import secrets_of
from .values import TEXT
from .values import url_among
from .values import WHOLE

if t.TYPE_CHECKING:
    from flask import Flask

PREFIX = "DURABLE_"
ENVIRONMENT_PREFIX = "FLASK_" + PREFIX

#: Commands of ``flask durable``. Click reads their options from the environment too
#: (``FLASK_DURABLE_WORKER_THREADS``), and ``app.config.from_prefixed_env()`` copies
#: those into ``app.config``. So such names are not unknown keys.
COMMANDS = (
    *("dev", "worker", "send", "runs", "dlq", "functions", "health", "secret"),
    *("scale", "pool", "stats"),
)

REDIS_SCHEMES = ("redis", "rediss", "unix", "redis+cluster", "rediss+cluster")
QUEUE_SCHEMES = (*REDIS_SCHEMES, "sqs")

#: Bytes of JSON that the blob store takes of one value: web process and worker hold it
#: in memory as a whole.
MAX_BLOB = 64 * 2**20

#: The largest inline limit with encryption: SQS takes 1 MiB.
MAX_INLINE_ENCRYPTED = 720 * 1024

_COMMAND_OPTION = re.compile(rf"{PREFIX}(?:{'|'.join(COMMANDS).upper()})_\w+")


class Settings(BaseModel):
    """The validated settings of one app, as :meth:`from_app` reads them.

    Each value comes from ``app.config``, otherwise from the environment with ``FLASK_``
    before the name. There it means the same whether or not the app calls
    ``app.config.from_prefixed_env()``. ``None`` in ``app.config`` means "not
    given", except for ``DURABLE_URL_PREFIX``. Blank text means "not given" everywhere,
    except for ``DURABLE_ENCRYPTION_KEYS``, where it is refused. Durations are seconds,
    a :class:`~datetime.timedelta`, or text such as ``"90s"``, ``"10m"`` and ``"7d"``.
    Lists may be text with commas, or JSON text of a list; mappings may be JSON text.

    ``DURABLE_REDIS_URL``
        URL, ``redis://``, ``rediss://`` (TLS), ``unix://``, or for a cluster
        ``redis+cluster://`` and ``rediss+cluster://`` with some of its nodes, commas
        between. Default: the server of a running ``flask durable dev``; without one an
        error on first use.
    ``DURABLE_QUEUE_URL``
        URL, one of the above or ``sqs://``. Default: the Redis above.
    ``DURABLE_QUEUES``
        Mapping of names of queues to their options on SQS, or JSON text of one: see
        :class:`~flask_durable.queue.sqs.options.QueueOptions`. Default none.
    ``DURABLE_NAMESPACE``
        Text of 1 to 40 letters, digits, ``-`` and ``_`` before every key and queue.
        Default ``"durable"``.
    ``DURABLE_PARTITIONS``
        Number of hash tags, 1 to 256, fixed for a namespace. Default 1.
    ``DURABLE_URL_PREFIX``
        Path of the HTTP routes, or ``None`` for no routes. Default ``"/durable"``.
    ``DURABLE_EXTERNAL_URL``
        URL, ``http://`` or ``https://``, where the app is found from outside, such as
        ``https://shop.example``: for the addresses that ``step.create_url`` makes.
        Default: the app's ``SERVER_NAME``, or the request that is being served.
    ``DURABLE_EVENT_KEYS``
        List of keys that may send events: each an ``evk_`` key, or other text of at
        least 32 characters without spaces. Default none.
    ``DURABLE_SIGNING_SECRETS``
        List of ``whsec_`` secrets that may sign events. Default none. While both lists
        are empty the endpoint is closed.
    ``DURABLE_INNGEST_EVENT_API``
        Flag: lets the SDKs of Inngest send events to ``/e/<event key>``.
        Default ``False``.
    ``DURABLE_PUSH_LOOPBACK``
        Flag: ``POST worker`` takes messages of Elastic Beanstalk's daemon on this
        machine without a secret. It is no lock where a proxy on this machine passes
        on requests of others without naming them. Default ``False``.
    ``DURABLE_PUSH_SECRETS``
        List of ``psh_`` secrets that may hand messages to ``POST worker``. Default
        none. While both are left out the route is closed.
    ``DURABLE_PUSH_BUDGET``
        Duration, 100 ms to 12 h, within which a message that was pushed may begin
        steps of its run. Default 20 s.
    ``DURABLE_LEASE``
        Duration, 100 ms to 1 h, after which a silent worker loses its run.
        Default 10 s.
    ``DURABLE_VISIBILITY_TIMEOUT``
        Duration, 100 ms to 12 h, after which an unconfirmed message is delivered again.
        Default 10 s.
    ``DURABLE_DRAIN_TIMEOUT``
        Duration, at most 1 h, that a stopping worker has. Default 25 s.
    ``DURABLE_INSTANCE_SIZE``
        Name of the size of workers like this one, by which the scaler compares their
        speed, such as ``"standard-2x"``. Default: the number of processors.
    ``DURABLE_ECS_PROTECTION``
        Flag: a worker in a task of Amazon ECS keeps ECS from stopping it while it has
        runs. Default ``False``.
    ``DURABLE_MAX_DISPATCHES``
        Number, 1 to 1000, of claims without progress after which a run is paused.
        Default 5.
    ``DURABLE_FSYNC``
        ``"off"``, ``"ack"`` (before a message is deleted) or ``"step"`` (before each
        answer too): when the server must have written to disk. Default ``"ack"``.
    ``DURABLE_REPLICAS``
        Number, 0 to 16, of replicas that must have the state as well. Default 0.
    ``DURABLE_ACCEPT_TIMEOUT``
        Duration, 1 s to 60 s, for which sending an event is tried again while the queue
        does not take it. Default 5 s.
    ``DURABLE_SPOOL``
        Flag: an event that the queue does not take within that time is kept on the
        state server, to be sent when the queue is back. Default ``False``.
    ``DURABLE_INLINE_LIMIT``
        Bytes, 1 KiB to 1 MiB, of one queue message. Default 65,536.
    ``DURABLE_MAX_VALUE``
        Bytes, 1 KiB to 256 MiB, of JSON that are kept of one result, not less than
        the inline limit. With a blob store 64 MiB, if that is more.
        Default 4,194,304.
    ``DURABLE_BLOB_URL``
        URL, ``s3://bucket/prefix?region=…&endpoint=…`` or ``file:///directory``, where
        values beyond the inline limit go. Default none: larger events are refused.
    ``DURABLE_ENCRYPTION_KEYS``
        List of keys: the first encrypts event data, results and failures, all of them
        decrypt. A list that is empty is refused. Default ``None``: no encryption.
    ``DURABLE_LOOK_BACK``
        Duration, 1 s to 30 d, for which events are kept that steps wait for. A wait
        finds those that came since its run was created. Default 24 h.
    ``DURABLE_LOOK_BACK_SIZE``
        Bytes, 1 MiB to 1 GiB, that are kept of the events of one name.
        Default 16,777,216.
    ``DURABLE_RETENTION``
        Duration, from 1 s, that a completed run is kept. Default 7 d.
    ``DURABLE_FAILED_RETENTION``
        Duration, from 1 s, that a failed or cancelled run is kept. Default 30 d.
    ``DURABLE_STATSD_URL``
        URL, ``statsd://host:port``, that metrics are sent to. Default none.
    ``DURABLE_STATSD_PREFIX``
        Text before every name, of letters, digits, ``-``, ``_`` and dots.
        Default ``"durable"``.
    ``DURABLE_STATSD_TAGS``
        ``"dogstatsd"`` or ``"influx"``, the format of tags. Default ``None``: tags are
        parts of the name.
    ``DURABLE_METRICS_SECRETS``
        List of ``mtr_`` secrets that may read ``GET metrics``, in the format of
        Prometheus. Default none: there is no such route, and nothing is counted for it.
    ``DURABLE_SENTRY``
        Flag: traces and failed runs go to Sentry where the application has called
        ``sentry_sdk.init()``. Default ``True``.
    ``DURABLE_REDACT_KEYS``
        List of parts of names: values with such names are hidden everywhere. A list
        that is empty is refused.
        Default :data:`~flask_durable.security.redaction.REDACT_KEYS`.
    ``DURABLE_RUN_LOG_LINES``
        Number, 0 to 1000, of log lines that are kept with each run. Default 100.
    ``DURABLE_SCALE``
        Dictionary of pools of workers by name, for ``flask durable scale``; see the
        page on scaling. Default none.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    redis_url: t.Annotated[str | None, TEXT, url_among(REDIS_SCHEMES)] = Field(
        None, repr=False
    )
    queue_url: t.Annotated[str | None, TEXT, url_among(QUEUE_SCHEMES)] = Field(
        None, repr=False
    )
    queues: t.Annotated[t.Mapping[str, QueueOptions], BeforeValidator(read_queues)] = (
        Field({})
    )
    namespace: t.Annotated[str, BeforeValidator(read_namespace)] = "durable"
    partitions: t.Annotated[int, WHOLE, between(1, 256)] = 1
    url_prefix: t.Annotated[str | None, BeforeValidator(read_url_prefix)] = "/durable"
    external_url: t.Annotated[str | None, TEXT, AfterValidator(read_external_url)] = (
        None
    )
    event_keys: t.Annotated[
        tuple[str, ...], secrets_of("event-key", "keys", check_event_key)
    ] = Field((), repr=False)
    signing_secrets: t.Annotated[
        tuple[str, ...], secrets_of("signing", "secrets", secret_bytes)
    ] = Field((), repr=False)
    inngest_event_api: t.Annotated[bool, FLAG] = False
    push_loopback: t.Annotated[bool, FLAG] = False
    push_secrets: t.Annotated[
        tuple[str, ...], secrets_of("push", "secrets", check_push_secret)
    ] = Field((), repr=False)
    push_budget: t.Annotated[float, SECONDS, between(0.1, 43200.0)] = 20.0
    lease: t.Annotated[float, SECONDS, between(0.1, 3600.0)] = 10.0
    visibility_timeout: t.Annotated[float, SECONDS, between(0.1, 43200.0)] = 10.0
    drain_timeout: t.Annotated[float, SECONDS, between(0.0, 3600.0)] = 25.0
    instance_size: t.Annotated[str | None, BeforeValidator(read_instance_size)] = None
    ecs_protection: t.Annotated[bool, FLAG] = False
    max_dispatches: t.Annotated[int, WHOLE, between(1, 1000)] = 5
    fsync: t.Annotated[t.Literal["off", "ack", "step"], FSYNC] = "ack"
    replicas: t.Annotated[int, WHOLE, between(0, 16)] = 0
    accept_timeout: t.Annotated[float, SECONDS, between(1.0, 60.0)] = 5.0
    spool: t.Annotated[bool, FLAG] = False
    inline_limit: t.Annotated[int, WHOLE, between(1024, 2**20, " bytes")] = 65_536
    max_value: t.Annotated[int, WHOLE, between(1024, 2**28, " bytes")] = 4_194_304
    blob_url: t.Annotated[str | None, TEXT, AfterValidator(check_blob_url)] = Field(
        None, repr=False
    )
    encryption_keys: t.Annotated[
        tuple[str, ...],
        AfterValidator(refuse_empty),
        secrets_of("encryption", "keys", check_encryption_key),
        BeforeValidator(refuse_set),
    ] = Field((), repr=False)
    look_back: t.Annotated[float, SECONDS, between(1.0, 30 * 86400.0)] = 86400.0
    look_back_size: t.Annotated[int, WHOLE, between(2**20, 2**30, " bytes")] = 2**24
    retention: t.Annotated[float, SECONDS, between(1.0, MAX_SECONDS)] = 7 * 86400.0
    failed_retention: t.Annotated[float, SECONDS, between(1.0, MAX_SECONDS)] = (
        30 * 86400.0
    )
    statsd_url: t.Annotated[str | None, TEXT, AfterValidator(check_statsd_url)] = None
    statsd_prefix: t.Annotated[str, BeforeValidator(read_metric_prefix)] = "durable"
    statsd_tags: t.Annotated[
        t.Literal["dogstatsd", "influx"] | None, BeforeValidator(read_tag_style)
    ] = None
    metrics_secrets: t.Annotated[
        tuple[str, ...], secrets_of("metrics", "secrets", check_metrics_secret)
    ] = Field((), repr=False)
    sentry: t.Annotated[bool, FLAG] = True
    redact_keys: t.Annotated[
        tuple[str, ...], AfterValidator(refuse_empty), BeforeValidator(read_texts)
    ] = REDACT_KEYS
    run_log_lines: t.Annotated[int, WHOLE, between(0, 1000)] = 100
    scale: t.Annotated[tuple[PoolOptions, ...], BeforeValidator(read_pools)] = Field(
        (), repr=False
    )

    _given: dict[str, t.Any] = PrivateAttr(default_factory=dict)

    @model_validator(mode="after")
    def _limits_agree(self) -> Settings:
        if self.max_value < self.inline_limit:
            raise ValueError("DURABLE_MAX_VALUE must not be below DURABLE_INLINE_LIMIT")
        if self.encryption_keys and self.inline_limit > MAX_INLINE_ENCRYPTED:
            raise ValueError(
                f"DURABLE_INLINE_LIMIT must not be above {MAX_INLINE_ENCRYPTED} with "
                "DURABLE_ENCRYPTION_KEYS, since encryption adds a third"
            )
        return self

    @model_validator(mode="after")
    def _paths_differ(self) -> Settings:
        if self.inngest_event_api and self.url_prefix == "/e":
            raise ValueError(
                "DURABLE_URL_PREFIX must not be /e, where DURABLE_INNGEST_EVENT_API is"
            )
        return self

    @property
    def event_limit(self) -> int:
        """Bytes of JSON that an event may have."""
        return self.inline_limit if self.blob_url is None else MAX_BLOB

    @property
    def value_limit(self) -> int:
        """Bytes of JSON that one result may have."""
        in_blob = 0 if self.blob_url is None else MAX_BLOB
        return max(self.max_value, in_blob)

    @classmethod
    def from_app(cls, app: Flask) -> Settings:
        """Read and validate the settings of *app*. Nothing is connected to.

        :raises ConfigurationError: A key is unknown or its value is not valid. The
            message names every such key and never repeats a value.
        """
        given, environment = _given_in(app), _environment()
        _refuse_unknown(given)
        _refuse_unknown(environment, "FLASK_")
        values, labels = {}, {}
        for field in cls.model_fields:
            key = PREFIX + field.upper()
            text = environment.get(key)
            value = given.get(key, _ABSENT)
            copied = text is not None and _is_copy(value, text)
            if not copied and _says_something(field, value):
                values[field], labels[field] = app.config[key], key
            elif text is not None and _says_something(field, text):
                values[field], labels[field] = text, f"FLASK_{key}"
        try:
            settings = cls.model_validate(values)
        except ValidationError as error:
            raise _explain(error, values, labels) from None
        settings._given = given
        return settings

    @property
    def answer_within(self) -> float:
        """Seconds that one try waits for a server while a caller waits for the answer.

        A server that hangs instead of refusing leaves time for more than one try, and
        the last one takes little longer than it may.
        """
        return self.accept_timeout / 4

    def changed_since(self, app: Flask) -> list[str]:
        """Return the keys of ``app.config`` that changed since they were read.

        Such a change no longer has an effect, so the extension raises on first use.
        """
        now = _given_in(app)
        keys = self._given.keys() | now.keys()
        absent = object()
        return sorted(
            key for key in keys if self._given.get(key, absent) != now.get(key, absent)
        )


_ABSENT = object()


def _is_copy(value: t.Any, text: str) -> bool:
    """Return whether ``from_prefixed_env()`` made *value* of the environment's *text*.

    It parses all text that happens to be JSON: ``1`` becomes a number, and ``2026`` is
    no longer a name. A variable means the same with that call and without.
    """
    if value == text:
        return True
    try:
        # Compared as text, where True is not 1, and NaN equals itself.
        return repr(json.loads(text)) == repr(value)
    except (ValueError, RecursionError):
        return False


def _says_something(field: str, value: t.Any) -> bool:
    """Return whether *value* is more than "not given".

    A deployment passes on blank text when it has nothing to pass on. Blank text is
    refused only where it would store in the open what was to be encrypted.
    """
    if value is _ABSENT:
        return False
    if value is None:
        return field == "url_prefix"
    blank = isinstance(value, str) and not value.strip()
    return not blank or field == "encryption_keys"


def _given_in(app: Flask) -> dict[str, t.Any]:
    # Copied, so that a later change in place is noticed too.
    return {
        key: copy.deepcopy(value) if isinstance(value, (dict, list)) else value
        for key, value in app.config.items()
        if isinstance(key, str)
        and key.startswith(PREFIX)
        and not _COMMAND_OPTION.fullmatch(key)
    }


def _environment() -> dict[str, str]:
    return {
        name.removeprefix("FLASK_"): value
        for name, value in os.environ.items()
        if name.startswith(ENVIRONMENT_PREFIX)
    }


def _refuse_unknown(names: t.Iterable[str], before: str = "") -> None:
    known = [PREFIX + field.upper() for field in Settings.model_fields]
    unknown = sorted(
        name
        for name in names
        if name not in known and not _COMMAND_OPTION.fullmatch(name)
    )
    if unknown:
        raise ConfigurationError(
            "Flask-Durable does not know "
            + ", ".join(
                f"{before}{name} (did you mean {before}{_nearest(name, known)}?)"
                for name in unknown
            )
            + ".",
            hint="Rename or remove it.",
        )


def _nearest(name: str, known: list[str]) -> str:
    return difflib.get_close_matches(name, known, n=1, cutoff=0.0)[0]


def _explain(
    error: ValidationError, values: dict[str, t.Any], labels: dict[str, str]
) -> ConfigurationError:
    faults = []
    for fault in error.errors(include_url=False, include_input=False):
        problem = str(fault.get("ctx", {}).get("error") or fault["msg"])
        if fault["loc"]:
            field = str(fault["loc"][0])
            problem = f"{labels[field]} {problem}{_kind_of(values[field])}"
        faults.append(problem)
    return ConfigurationError("; ".join(faults) + ".")


def _kind_of(value: t.Any) -> str:
    """Return a remark on the type of *value*, or ``""`` if the type says nothing."""
    if isinstance(value, (str, t.Mapping)):
        return ""
    return f" (it is of type {type(value).__name__})"
