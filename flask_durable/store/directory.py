"""The directory of functions and workers: all that the processes of an app can run.

It describes *versions* of functions. A version is a digest of its description, and each
process says every few seconds which ones it has::

    published ──► alive ──(no process has it, another version is alive: 3 min)──► gone
                    └────(no process has any version of the function: 1 h)──────► gone

A router matches an event against the union of all versions. So the event passes by no
function, whichever worker routes it and whichever was started last. Settings that only
one version can decide, such as a schedule or a queue, come from the newest: the one
that came to life last (``functions_publish.lua``).
"""

from __future__ import annotations

import hashlib
import json
import threading
import typing as t
from dataclasses import dataclass
from dataclasses import field

from ..errors import ConfigurationError
from ..redis.client import ask_holder
from ..redis.exchange import execute
from .keys import Keys
from .replies import UnknownReply
from .server import StateServer

#: Milliseconds after which a function that no process published is forgotten: long
#: enough for a deploy, short enough that a removed function stops getting runs.
FORGET_AFTER = 3600 * 1000

#: Milliseconds after which a version that no process has is forgotten, if another one
#: of its function is alive. Processes that only have a tick publish each minute.
VERSION_GONE = 180 * 1000

#: Milliseconds after which the versions of a process that left are forgotten; within
#: them other processes have to publish that they have them too.
VERSION_LEFT = 15 * 1000

#: Milliseconds after which a schedule that no process looked at is forgotten. After a
#: shorter gap the latest missed instant gets a run.
SCHEDULE_FORGOTTEN = 7 * 86400 * 1000

#: Seconds after which a silent worker counts as gone.
WORKER_GONE = 15


Description = dict[str, t.Any]


@dataclass(frozen=True)
class Published:
    """The published functions of all processes.

    :param version: A number that changes with every change; compared for equality.
    :param functions: Function id to its description (``Function.spec()``): that of the
        newest version, with the triggers of all.
    :param versions: Function id to the descriptions of its versions, the newest first.
    :param names: The names of all versions.
    :param awaited: The names of events that steps wait for, declared or learned.
    :param declared: Those that a function declares, in any version.
    """

    version: int
    functions: dict[str, Description]
    versions: dict[str, list[Description]] = field(default_factory=dict)
    names: frozenset[str] = frozenset()
    awaited: frozenset[str] = frozenset()
    declared: frozenset[str] = frozenset()

    @property
    def queues(self) -> set[str]:
        """The queues of all functions, in any version."""
        return {v["queue"] for found in self.versions.values() for v in found}


def names_of(functions: t.Mapping[str, Description]) -> list[str]:
    """Return the names that the versions of *functions* have in the directory.

    :param functions: Function id to its description.
    """
    return [_name(id, _text(function)) for id, function in functions.items()]


def _text(function: Description) -> str:
    return json.dumps(function, sort_keys=True)


def _name(id: str, text: str) -> str:
    return f"{id} {hashlib.sha256(text.encode()).hexdigest()[:12]}"


def _published(
    version: int, texts: t.Mapping[str, str], learned: t.Iterable[str]
) -> Published:
    """Return the published functions.

    :param texts: Names to descriptions, the oldest version first.
    :param learned: Names of events that steps have waited for.
    """
    versions: dict[str, list[Description]] = {}
    for name, text in texts.items():
        versions.setdefault(name.partition(" ")[0], []).insert(0, json.loads(text))
    functions = {id: _merged(found) for id, found in versions.items()}
    declared = frozenset(
        name
        for found in versions.values()
        for v in found
        for name in v.get("awaits", ())
    )
    awaited = declared.union(learned)
    return Published(version, functions, versions, frozenset(texts), awaited, declared)


def _merged(versions: list[Description]) -> Description:
    newest = versions[0]
    if len(versions) == 1:
        return newest
    triggers = [trigger for each in versions for trigger in each["triggers"]]
    # The worker that executes an unfiltered run asks the filter it has, if any.
    where = any(each["where"] for each in versions)
    return {**newest, "triggers": list(dict.fromkeys(triggers)), "where": where}


class Directory:
    """Publishes and reads functions and workers of one namespace."""

    def __init__(self, server: StateServer, keys: Keys) -> None:
        self._server = server
        self._keys = keys
        self._tag = keys.root
        self._lock = threading.Lock()
        self._cached = Published(-1, {})
        #: The texts that the remembered functions were read from.
        self._read: dict[str, str] = {}
        #: Names that steps have waited for, and until when they are known.
        self._learned: dict[str, int] = {}

    def claim_namespace(self, app_name: str) -> None:
        """Note the owner of this namespace and its number of partitions.

        :raises ConfigurationError: The namespace belongs to another app, or has another
            number of partitions.
        """
        # One after the other: only the owner sets the number of partitions.
        owner = self._note("app", app_name)
        if owner != app_name:
            raise ConfigurationError(
                f"The namespace {self._keys.namespace!r} is used by the app {owner!r}.",
                hint=f"Set another DURABLE_NAMESPACE for {app_name!r}.",
            )
        partitions = self._note("partitions", str(self._keys.partitions))
        if int(partitions) != self._keys.partitions:
            raise ConfigurationError(
                f"The namespace {self._keys.namespace!r} has {partitions} partition(s)"
                f", not {self._keys.partitions}; the number cannot be changed.",
                hint="Set DURABLE_PARTITIONS back, or use another DURABLE_NAMESPACE.",
            )

    def _note(self, field: str, value: str) -> str:
        """Note a value of the namespace, unless there is one; return the one there."""
        return str(self._server.call("meta_note", self._tag, field, value))

    def publish(self, functions: t.Mapping[str, Description]) -> None:
        """Publish that this process has the code of *functions*."""
        args: list[str | int] = [FORGET_AFTER, VERSION_GONE]
        for id, description in functions.items():
            text = _text(description)
            args += [_name(id, text), text]
        self._server.call("functions_publish", self._tag, *args)

    def forget(self, id: str) -> bool:
        """Forget a function, unless a process has it; return whether none has."""
        alive = VERSION_GONE - VERSION_LEFT
        reply = self._server.call("functions_forget", self._tag, id, alive)
        match reply:
            case ["gone"]:
                return True
            case ["alive"]:
                return False
        raise UnknownReply("functions_forget", reply)

    def alive(self) -> set[str]:
        """Return the ids of the functions that a living process has the code of."""
        since = self._now() * 1000 - VERSION_GONE + VERSION_LEFT
        names = self._server.client.zrangebyscore(self._seen, f"({since}", "+inf")
        return {name.partition(" ")[0] for name in t.cast("list[str]", names)}

    @property
    def version_command(self) -> tuple[str, str]:
        """The plain command that reads the version, to be sent in a pipeline."""
        return "GET", f"{self._tag}:functions:version"

    def current(self) -> Published:
        """Ask the server for the published functions, and remember them.

        The remembered object stays the same while nothing changes.
        """
        # The version first: a function published in between is read with the next one.
        pipeline = self._server.client.pipeline(transaction=False)
        execute(pipeline, *self.version_command)
        pipeline.hgetall(f"{self._tag}:functions")
        pipeline.zrange(f"{self._tag}:functions:first", 0, -1)
        pipeline.zrange(f"{self._tag}:functions:awaited", 0, -1, withscores=True)
        found, reply, names, learned = pipeline.execute()
        texts = t.cast("dict[str, str]", reply)
        version = int(found or 0)
        # A version whose age was lost in a failover counts as the oldest.
        aged = dict.fromkeys([*(texts.keys() - set(names)), *names])
        read = {name: texts[name] for name in aged if name in texts}
        untils = {name: int(until) for name, until in learned}
        with self._lock:
            unchanged = list(read.items()) == list(self._read.items())
            if not unchanged or version != self._cached.version:
                self._cached = _published(version, read, untils)
            self._read, self._learned = read, untils
            return self._cached

    def learned_until(self, name: str) -> int:
        """Return until when a name is known to be awaited, declared or not.

        :returns: Milliseconds since 1970, as they were read last; 0 if it is not known.
        """
        return self._learned.get(name, 0)

    def schedule_marks(
        self, done: t.Mapping[str, int], version: int
    ) -> tuple[int, dict[str, int] | None]:
        """Note up to when schedules are carried out; return the time and the notes.

        :param done: Schedule to the time up to which each of its instants has a run,
            or 0. All times are milliseconds since 1970, the server's clock.
        :param version: The version of the directory that the schedules are from.
        :returns: The time, and ``None`` if the directory changed: nothing is noted.
        """
        args: list[str | int] = [SCHEDULE_FORGOTTEN, version]
        for schedule, time in done.items():
            args += [schedule, time]
        now, *marks = self._server.call("cron_marks", self._tag, *args)
        if done and not marks:
            return int(now), None
        return int(now), dict(zip(done, map(int, marks), strict=True))

    def forget_stale(self) -> None:
        """Forget the versions and functions that no process had for long enough."""
        self.publish({})

    @property
    def remembered(self) -> Published:
        """The functions that were read last, without asking the server."""
        return self._cached

    def beat(
        self, worker: str, description: dict[str, t.Any], names: t.Sequence[str]
    ) -> None:
        """Publish that a worker process is alive, its description and its versions.

        The versions are only kept alive here, not published again.

        :param names: The versions of functions that it has the code of, from
            :func:`names_of`.
        """
        self._server.call(
            "worker_beat",
            self._tag,
            worker,
            json.dumps(description),
            10 * WORKER_GONE,
            *names,
        )

    def leave(self, worker: str, names: t.Sequence[str] = ()) -> None:
        """Publish that a worker process has ended.

        :param names: The versions of functions that no other process is known to have.
            One that has them keeps them alive with its next beat.
        """
        pipeline = self._server.client.pipeline(transaction=False)
        pipeline.hdel(f"{self._tag}:workers", worker)
        pipeline.zrem(f"{self._tag}:workers:seen", worker)
        if names:
            left = self._now() * 1000 - VERSION_GONE + VERSION_LEFT
            pipeline.zadd(self._seen, dict.fromkeys(names, left), xx=True, lt=True)
        # A full server refuses this: the versions are forgotten some minutes later.
        pipeline.execute(raise_on_error=False)

    def workers(self) -> list[dict[str, t.Any]]:
        """Return the descriptions of the workers that are alive."""
        client = self._server.client
        seconds = self._now()
        alive = t.cast(
            "list[str]",
            client.zrangebyscore(
                f"{self._tag}:workers:seen", seconds - WORKER_GONE, "+inf"
            ),
        )
        if not alive:
            return []
        found = t.cast("list[str | None]", client.hmget(f"{self._tag}:workers", alive))
        return [json.loads(text) for text in found if text]

    @property
    def _seen(self) -> str:
        return f"{self._tag}:functions:seen"

    def _now(self) -> int:
        """The time in seconds, by the clock that measures all workers' beats."""
        seconds, _ = ask_holder(self._server.client, self._tag, "TIME")
        return int(seconds)
