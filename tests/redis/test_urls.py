"""The URL of a server: what it may say, and the error where it may not."""

from __future__ import annotations

import pathlib
import typing as t

import pytest
import redis
from flask import Flask

from flask_durable.config.settings import Settings
from flask_durable.errors import ConfigurationError
from flask_durable.redis.client import client_factory
from flask_durable.redis.urls import check_redis_url
from flask_durable.redis.urls import without_other_options
from flask_durable.store.server import StateServer

#: Stands in each URL where its password, or a part of it, is.
SECRET = "hunter2"


def refused(url: str) -> str:
    app = Flask(__name__)
    messages = set()
    for key in ("REDIS_URL", "QUEUE_URL"):
        app.config.clear()
        app.config[f"DURABLE_{key}"] = url
        with pytest.raises(ConfigurationError) as caught:
            Settings.from_app(app)
        assert str(caught.value).startswith(f"DURABLE_{key} ")
        messages.add(str(caught.value).removeprefix(f"DURABLE_{key} "))
    [message] = messages
    # Commands and helpers that read no settings refuse it too.
    with pytest.raises(ConfigurationError):
        StateServer(url).client  # noqa: B018
    return message


@pytest.mark.parametrize(
    "url",
    [
        "redis://:hunter2#x@h:6379/0",
        "redis://:x#hunter2@h",
        "redis://:hunter2?x@h:6379/0",
        "redis://:x?hunter2=x@h",
        "redis://:hunter2/x@h:6379/0",
        "redis://usr:72/hunter2@h:6379/0",
        "redis://usr:72#hunter2@h:6379",
        "redis://usr:72?hunter2@h",
        "redis://:p@hunter2/x@h/0",
        "redis://:x[hunter2@h/0",
        "redis://:x]hunter2@h/0",
        "redis://:x hunter2@h/0",
        "redis+cluster://:72/hunter2@h:7000,g:7000",
        "redis+cluster://:72#hunter2@h:7000,g:7000",
        "redis+cluster://:hunter2,x/y@h:7000",
        "unix://:x/hunter2@/run/s.sock",
        "unix://:72#hunter2@/run/s.sock",
        "unix:///run/s.sock?password=72#hunter2",
        "unix:///run/s.sock?password=x@hunter2",
    ],
)
def test_a_password_that_is_not_quoted_is_refused_and_not_shown(url: str) -> None:
    message = refused(url)
    assert 'urllib.parse.quote(password, safe="")' in message
    assert SECRET not in message
    assert "72" not in message


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("redis://h/shop", "name its database by a number"),
        ("redis://h/0/1", "name its database by a number"),
        ("redis://h/-1", "name its database by a number"),
        ("redis://h?db=shop", '"db" the number of a database'),
        ("redis+cluster://h?db=1", "a cluster has one only"),
        ("redis://h?socket_timout=5", 'not known: did you mean "socket_keepalive"'),
        ("rediss://h?ssl_ca_cert=a", 'did you mean "ssl_ca_certs"'),
        ("redis://h?ssl_cert_reqs=none", "for rediss:// only"),
        ("unix:///s?ssl_certfile=a", "for rediss:// only"),
        ("unix:///s?socket_keepalive=1", "not for unix://"),
        ("rediss://h?ssl_cert_reqs=CERT_NONE", '"required", "optional" or "none"'),
        ("rediss://h?ssl_check_hostname=perhaps", "true or false"),
        ("rediss://h?ssl_min_version=1.2", "TLS 1.2"),
        ("redis://h?max_connections=0", "a whole number from 1 on"),
        ("redis://h?protocol=3", "protocol"),
        ("redis://h?Not-Known=3", "an option that is not known"),
        ("redis://h?client_name=", "client_name"),
        ("redis://h:0", "must name a host"),
        ("redis+cluster://h,", "must name a host"),
        ("unix://h/run/s.sock", "three slashes"),
    ],
)
def test_a_url_that_would_mean_something_else_is_refused(url: str, said: str) -> None:
    assert said in refused(url)


@pytest.mark.parametrize(
    "option",
    [
        *("socket_timeout=1", "socket_connect_timeout=1", "retry_on_timeout=1"),
        *("decode_responses=true", "encoding=latin-1", "legacy_responses=false"),
        *("health_check_interval=1", "single_connection_client=1", "timeout=1"),
    ],
)
def test_an_option_that_the_code_depends_on_is_refused(option: str) -> None:
    assert "which Flask-Durable sets itself" in refused(f"redis://h/0?{option}")


@pytest.mark.parametrize(
    "url",
    [
        "redis://:p%2Fw%23%3F%40@h:6379/15/",
        "redis://a:b@c@h/0?db=3&client_name=shop&protocol=2&max_connections=8",
        "rediss://h?ssl_cert_reqs=none&ssl_check_hostname=false&ssl_min_version=772",
        "unix://usr:pw@/run/redis@main.sock?db=1",
        "unix:///run/s.sock?username=a&password=b%40%23",
        "redis+cluster://u:p@[::1]:7000,h/0?socket_keepalive=yes",
    ],
)
def test_a_url_that_can_be_used_is_used_as_it_is(url: str) -> None:
    assert check_redis_url(url) == url


@pytest.mark.parametrize(
    ("url", "kept"),
    [
        ("redis://h/1?virtual_host=x&db=2&protocol=3", "redis://h/1?db=2"),
        ("redis://u:p%40@h?socket_timeout=3", "redis://u:p%40@h"),
        ("rediss://h?ssl_cert_reqs=CERT_NONE", "rediss://h?ssl_cert_reqs=none"),
        (
            "rediss://h?ssl_ca_certs=%2Fa%2Fb&ssl_version=x",
            "rediss://h?ssl_ca_certs=%2Fa%2Fb",
        ),
    ],
)
def test_of_the_url_of_another_library_the_options_are_kept_that_are_known(
    url: str, kept: str
) -> None:
    assert without_other_options(url) == kept


def test_the_scheme_may_be_written_in_capitals() -> None:
    assert check_redis_url("REDIS://h/1") == "redis://h/1"
    pool = client_factory("REDISS://h/1")().connection_pool
    assert pool.connection_kwargs["db"] == 1


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("ssl_ca_certs={folder}/missing.crt", "ssl_ca_certs .* no such file"),
        ("ssl_ca_certs={folder}/empty.crt", "ssl_ca_certs "),
        ("ssl_ca_path={folder}/missing", "ssl_ca_path .* no such file"),
        ("ssl_certfile={folder}/empty.crt", "ssl_certfile "),
        ("ssl_keyfile={folder}/empty.crt", "ssl_keyfile without ssl_certfile"),
    ],
)
@pytest.mark.parametrize("scheme", ["rediss", "rediss+cluster"])
def test_a_file_of_tls_that_cannot_be_used_is_named(
    scheme: str, query: str, said: str, tmp_path: pathlib.Path
) -> None:
    (tmp_path / "empty.crt").write_text("")
    url = f"{scheme}://127.0.0.1:1/0?{query.format(folder=tmp_path)}"
    with pytest.raises(ConfigurationError, match=f"(?i){said}"):
        StateServer(url).new_client(retries=0)


def test_a_client_speaks_the_protocol_that_all_servers_and_proxies_know() -> None:
    made: list[redis.Redis] = [client_factory("redis://h")()]
    options: list[dict[str, t.Any]] = [
        client.connection_pool.connection_kwargs for client in made
    ]
    assert [given["protocol"] for given in options] == [2]
