"""URLs of clusters, as settings take them."""

from __future__ import annotations

import typing as t

import pytest
from flask import Flask

from flask_durable import ConfigurationError
from flask_durable.app.queues import queue_client_factory
from flask_durable.config.settings import Settings
from flask_durable.redis.client import node_urls
from flask_durable.security.redaction import mask_url
from flask_durable.store.server import StateServer


def read(**config: t.Any) -> Settings:
    app = Flask("app")
    app.config.update(config)
    return Settings.from_app(app)


@pytest.mark.parametrize(
    "url",
    [
        "redis+cluster://a",
        "redis+cluster://a:7000,b:7001,[::1]:7002/0",
        "rediss+cluster://user:p%2Cw@a:7000,b?ssl_cert_reqs=none",
    ],
)
def test_a_cluster_may_be_named_by_several_nodes(url: str) -> None:
    settings = read(DURABLE_REDIS_URL=url, DURABLE_QUEUE_URL=url)
    assert (settings.redis_url, settings.queue_url) == (url, url)


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        ("redis+cluster://", "must name a host"),
        ("redis+cluster://a:7000,", "must name a host"),
        ("redis+cluster://a:7000,:7001", "must name a host"),
        ("redis+cluster://a:7000,b:0", "must name a host"),
        ("redis+cluster://a:hunter2,b:7001", "not a well-formed URL"),
        ("redis+cluster://a:7000,[b:7001", "not a well-formed URL"),
        ("redis+cluster://a:7000/1", "has one only, 0"),
    ],
)
def test_a_node_that_cannot_be_reached_is_refused(url: str, complaint: str) -> None:
    with pytest.raises(ConfigurationError, match=complaint) as raised:
        read(DURABLE_REDIS_URL=url)
    assert "hunter2" not in str(raised.value)


def test_each_node_is_reached_with_the_credentials_and_options_of_all() -> None:
    url = "rediss+cluster://user:p%2Cw@a:7000,b/0?ssl_cert_reqs=none"
    assert node_urls(url) == [
        "rediss://user:p%2Cw@a:7000/0?ssl_cert_reqs=none",
        "rediss://user:p%2Cw@b/0?ssl_cert_reqs=none",
    ]
    assert mask_url(url) == "rediss+cluster://***@a:7000,b/0?ssl_cert_reqs=none"


def test_an_option_that_is_unknown_to_the_client_is_a_wrong_configuration() -> None:
    url = "redis+cluster://user:hunter2@a:7000,b:7001?socket_timeout=soon"
    for make in (StateServer(url).new_client, lambda: queue_client_factory(url)):
        with pytest.raises(ConfigurationError) as raised:
            make()
        assert "hunter2" not in str(raised.value)
