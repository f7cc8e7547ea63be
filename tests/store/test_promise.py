"""Promises that a server can keep: with few permissions, and where it is too old."""

from __future__ import annotations

import typing as t

import pytest
import redis

from flask_durable.errors import ConfigurationError
from flask_durable.store.barrier import Barrier
from flask_durable.store.promise import _check_version
from flask_durable.store.server import StateServer

from ..support.servers import ValkeyServer

TAG = "{promise:0}"


@pytest.fixture
def account(
    valkey: ValkeyServer, namespace: str
) -> t.Iterator[t.Callable[..., StateServer]]:
    """Make clients of an account that may do everything but what is denied."""
    made: list[StateServer] = []
    with redis.Redis.from_url(valkey.url) as client:

        def make(*denied: str) -> StateServer:
            rules = ("reset", "on", ">pw", "~*", "&*", "+@all", *denied)
            client.execute_command("ACL", "SETUSER", namespace, *rules)
            url = valkey.url.replace("//", f"//{namespace}:pw@")
            made.append(StateServer(url))
            return made[-1]

        yield make
        for server in made:
            server.close()
        client.execute_command("ACL", "DELUSER", namespace)


@pytest.mark.parametrize("command", ["info", "eval"])
def test_an_account_that_may_not_do_what_a_barrier_needs_is_told_of_the_command(
    account: t.Callable[..., StateServer], valkey: ValkeyServer, command: str
) -> None:
    if command == "eval" and not valkey.knows("WAITAOF"):
        pytest.skip("the server has no WAITAOF: barriers do not write")
    barrier = Barrier(account(f"-{command}"), [TAG], 0)
    for act in (barrier.promise, barrier.wait):
        with pytest.raises(ConfigurationError, match=f"(?i)'{command}' command"):
            act()


def test_an_account_that_may_not_wait_for_replicas_is_told_so_where_it_has_to(
    account: t.Callable[..., StateServer],
) -> None:
    server = account("-wait", "-waitaof" if _knows_waitaof(account) else "-wait")
    Barrier(server, [TAG], 0).wait()
    with pytest.raises(ConfigurationError, match=r"(?i)'wait' command"):
        Barrier(server, [TAG], 1).promise()


def _knows_waitaof(account: t.Callable[..., StateServer]) -> bool:
    try:
        account().client.execute_command("WAITAOF", 0, 0, 1)
    except redis.ResponseError:
        return False
    return True


def test_an_account_that_may_not_wait_for_the_file_promises_less(
    account: t.Callable[..., StateServer],
) -> None:
    if not _knows_waitaof(account):
        pytest.skip("the server has no WAITAOF at all")
    barrier = Barrier(account("-waitaof"), [TAG], 0)
    barrier.wait()
    assert "within about a second" in str(barrier.promise())


def test_an_account_that_may_not_read_the_configuration_gets_it_from_info(
    account: t.Callable[..., StateServer],
) -> None:
    promise = Barrier(account("-config", "-command"), [TAG], 0).promise()
    assert (promise.aof, promise.fsync) == (True, "unknown")


@pytest.mark.parametrize("version", ["6.2.14", "6.2", "2.8.0"])
def test_a_server_that_is_too_old_is_refused(version: str) -> None:
    with pytest.raises(ConfigurationError, match=r"7\.0 or later") as caught:
        _check_version({"redis_version": version})
    assert version in str(caught.value)


@pytest.mark.parametrize("version", ["7.0.15", "8.2.3", "10.0.0", "255.255.255", "x"])
def test_a_server_that_is_new_enough_or_does_not_say_is_taken(version: str) -> None:
    _check_version({"redis_version": version})
    _check_version({})


def test_an_account_whose_name_has_the_word_replica_is_no_replica(
    valkey: ValkeyServer,
) -> None:
    with redis.Redis.from_url(valkey.url) as client:
        rules = ("on", ">pw", "~*", "&*", "+@all", "-waitaof")
        if not valkey.knows("WAITAOF"):
            pytest.skip("the server has no WAITAOF at all")
        client.execute_command("ACL", "SETUSER", "replica-reader", *rules)
        server = StateServer(valkey.url.replace("//", "//replica-reader:pw@"))
        try:
            assert not Barrier(server, [TAG], 0).promise().waitaof
        finally:
            server.close()
            client.execute_command("ACL", "DELUSER", "replica-reader")
