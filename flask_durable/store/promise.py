"""The durability the state server offers, asked once a process and after each failure.

Servers differ in the answers they give. Redis before 7.2 has no ``WAITAOF``, managed
servers forbid ``CONFIG``, and a careful operator's account has neither. With less than
that the promise is smaller, and says so. ``INFO server`` is required: it tells a server
that was started again, which may have lost state, from the one that was there before.
"""

from __future__ import annotations

import re
import typing as t
from dataclasses import dataclass

import redis
from redis.exceptions import NoPermissionError

from ..errors import ConfigurationError
from ..redis.client import ask_all
from ..redis.client import holders
from ..redis.exchange import Argument
from ..redis.exchange import execute
from ..redis.scripts import load

#: The oldest Redis that has all commands, and scripts with flags.
OLDEST = (7, 0)


@dataclass(frozen=True)
class Promise:
    """The durability that the server offers, as far as it can be asked.

    :param aof: True if it has an append-only file.
    :param fsync: Its ``appendfsync`` policy, or ``"unknown"``.
    :param waitaof: True if it can be asked to wait for the file.
    :param replicas: The number of replicas that are waited for.
    """

    aof: bool
    fsync: str
    waitaof: bool
    replicas: int

    @property
    def waits_for_file(self) -> bool:
        """True if there is a write to the disk to wait for, and one that comes.

        With ``appendfsync no`` the server never learns of it, and never confirms it.
        """
        return self.aof and self.waitaof and self.fsync not in ("always", "no")

    def __str__(self) -> str:
        if not self.aof:
            kept = "memory only: a restart of the server loses all state"
        elif self.fsync == "no":
            kept = (
                "written to the append-only file, synced when the operating system "
                "likes (appendfsync no)"
            )
        elif self.fsync == "always":
            kept = "on disk at each write"
        elif self.waitaof:
            kept = f"on disk before a message is deleted (appendfsync {self.fsync})"
        else:
            kept = (
                f"on disk within about a second (appendfsync {self.fsync}, and no "
                "WAITAOF to wait with)"
            )
        return kept + (f", on {self.replicas} replica(s)" if self.replicas else "")


def ask_server(
    client: redis.Redis, tags: t.Sequence[str], replicas: int
) -> tuple[Promise, set[str]]:
    """Ask the server, or each primary of a cluster, for its durability and ``run_id``.

    :param tags: The tags of all keys that barriers are for.
    :param replicas: The number of replicas that barriers wait for.
    :returns: The promise, and the ``run_id`` of each server.
    :raises ConfigurationError: The server is too old, its ``maxmemory-policy`` may
        evict state, or the account may not do what barriers need.
    :raises redis.RedisError: The server did not answer.
    """
    infos = _infos(client)
    for info in infos:
        _check_version(info)
    configs = _configs(client)
    for policy in {config["maxmemory-policy"] for config in configs}:
        if policy != "noeviction":
            raise ConfigurationError(
                f"The state server may evict what it was given to keep "
                f"(maxmemory-policy {policy}).",
                hint="Set its maxmemory-policy to noeviction.",
            )
    promise = Promise(
        aof=all(config["appendonly"] == "yes" for config in configs),
        fsync=min((config["appendfsync"] for config in configs), key=_strength),
        waitaof=_has_waitaof(client),
        replicas=replicas,
    )
    if promise.waits_for_file or replicas > 0:
        _check_permissions(client, tags, promise)
    return promise, {run_id_of(info) for info in infos}


def run_id_of(info: t.Mapping[str, t.Any]) -> str:
    """Return the ``run_id`` of the server that gave *info*: a new one at each start."""
    return str(info.get("run_id", ""))


def not_permitted(error: NoPermissionError) -> ConfigurationError:
    """Return the error to raise where an account may not do what *error* names."""
    return ConfigurationError(
        f"The account in the server's URL lacks a permission: {error}.",
        hint="Allow it, as the page on state servers shows.",
    )


def _infos(client: redis.Redis) -> list[dict[str, t.Any]]:
    try:
        return ask_all(client, "INFO", "server")
    except NoPermissionError as error:
        raise not_permitted(error) from error


def _check_version(info: t.Mapping[str, t.Any]) -> None:
    """Refuse a server that lacks commands; one without a version is trusted."""
    version = str(info.get("redis_version", ""))
    found = re.match(r"(\d+)\.(\d+)", version)
    if found and tuple(map(int, found.groups())) < OLDEST:
        raise ConfigurationError(
            f"The server is Redis {version}, which is too old.",
            hint="Use Redis 7.0 or later, or Valkey.",
        )


def _configs(client: redis.Redis) -> list[dict[str, str]]:
    """Return the settings that decide about durability, of each server."""
    names = ("appendonly", "appendfsync", "maxmemory-policy")
    try:
        answers = ask_all(client, "CONFIG GET", *names)
    except redis.ResponseError:
        # Managed servers forbid CONFIG; INFO has most of it.
        return [
            {
                "appendonly": "yes" if info.get("aof_enabled") else "no",
                "appendfsync": "unknown",
                "maxmemory-policy": info.get("maxmemory_policy", "noeviction"),
            }
            for info in ask_all(client, "INFO")
        ]
    defaults = dict(zip(names, ("no", "unknown", "noeviction"), strict=True))
    return [{**defaults, **config} for config in answers]


def _strength(fsync: str) -> int:
    return ("no", "unknown", "everysec", "always").index(fsync)


def _has_waitaof(client: redis.Redis) -> bool:
    """Return whether the server can be asked to wait for the file, by asking it to.

    Not by ``COMMAND INFO``: its reply for an unknown command differs, and an account
    may not be allowed what the server knows.
    """
    try:
        ask_all(client, "WAITAOF", "0", "0", "1")
    except NoPermissionError:  # its text has the account's name, whatever that is
        return False
    except redis.ResponseError as error:
        if "replica" in str(error):  # which says nothing about a primary
            raise redis.ConnectionError(f"The server is a replica: {error}") from error
        return False
    return True


def _check_permissions(
    client: redis.Redis, tags: t.Sequence[str], promise: Promise
) -> None:
    """Do once what each barrier does, without waiting for the disk.

    Otherwise no barrier would ever pass, no message would be deleted, and no error
    would say why.

    :raises ConfigurationError: The account may not make one of these calls.
    """
    script: list[Argument] = ["EVAL", load(__package__, "barrier").source, 1]
    for server, tag in holders(client, tags):
        try:
            execute(server, *script, tag)
            if not promise.waits_for_file:
                execute(server, "WAIT", 0, 1)
        except NoPermissionError as error:
            raise not_permitted(error) from error
