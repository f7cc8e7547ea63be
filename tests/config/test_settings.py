from __future__ import annotations

import inspect
import json
import os
import re
import typing as t
from datetime import timedelta

import click
import pytest
from flask import Flask
from flask.cli import FlaskGroup
from pydantic import ValidationError

from flask_durable import cli
from flask_durable.config.settings import COMMANDS
from flask_durable.config.settings import Settings
from flask_durable.errors import ConfigurationError
from flask_durable.security.keys import new_event_key
from flask_durable.security.keys import new_signing_secret
from flask_durable.security.redaction import mask_url
from flask_durable.security.redaction import REDACT_KEYS


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("FLASK_DURABLE_"):
            monkeypatch.delenv(name)


def app_with(**keys: t.Any) -> Flask:
    app = Flask(__name__)
    app.config.update({f"DURABLE_{name}": value for name, value in keys.items()})
    return app


def read(**keys: t.Any) -> Settings:
    return Settings.from_app(app_with(**keys))


def refused(**keys: t.Any) -> str:
    with pytest.raises(ConfigurationError) as caught:
        read(**keys)
    return str(caught.value)


def test_an_app_without_keys_gets_the_documented_defaults() -> None:
    assert read().model_dump() == {
        "redis_url": None,
        "queue_url": None,
        "queues": {},
        "namespace": "durable",
        "partitions": 1,
        "url_prefix": "/durable",
        "external_url": None,
        "event_keys": (),
        "signing_secrets": (),
        "inngest_event_api": False,
        "push_loopback": False,
        "push_secrets": (),
        "push_budget": 20,
        "lease": 10,
        "visibility_timeout": 10,
        "drain_timeout": 25,
        "instance_size": None,
        "ecs_protection": False,
        "max_dispatches": 5,
        "fsync": "ack",
        "replicas": 0,
        "accept_timeout": 5,
        "spool": False,
        "inline_limit": 65536,
        "max_value": 4194304,
        "blob_url": None,
        "encryption_keys": (),
        "look_back": 86400.0,
        "look_back_size": 2**24,
        "retention": 7 * 86400,
        "failed_retention": 30 * 86400,
        "sentry": True,
        "redact_keys": REDACT_KEYS,
        "statsd_url": None,
        "statsd_prefix": "durable",
        "statsd_tags": None,
        "metrics_secrets": (),
        "run_log_lines": 100,
        "scale": (),
    }


def test_no_key_is_taken_for_an_option_of_a_command() -> None:
    # Those are left alone wherever they are found.
    for field in Settings.model_fields:
        name = field.partition("_")[0]
        assert name not in COMMANDS or name == field


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("[", "JSON text"),
        (["media"], "must map"),
        ({"media": "fifo"}, "mapping of options"),
        ({"media": {"visibilty": 5}}, "did you mean 'visibility'"),
        ({"media": {"visibility": "soon"}}, "from 1s to 12h"),
        ({"media": {"retention": "30d"}}, "from 1m to 14d"),
        ({"media": {"max_receives": 0}}, "max_receives"),
        ({"media": {"queue": "media"}}, "the URL or the ARN"),
        ({"events": {"group": "tenant"}}, "data.tenant"),
        ({"media": {"fifo": True}}, "give 'events' a group"),
        ({"media": {"group": "data.a"}}, "give it for 'events'"),
        ({"events": {"fifo": True}}, "give a group"),
        (
            {"events": {"queue": "https://sqs.x/1/a", "group": "name"}},
            "does not end in .fifo",
        ),
        (
            {"media": {"queue": "arn:aws:sqs:eu-west-1:1:m", "retention": "1d"}},
            "leave it out",
        ),
    ],
)
def test_options_of_queues_that_cannot_be_used_say_what_to_change(
    value: t.Any, said: str
) -> None:
    message = refused(QUEUES=value)
    assert message.startswith("DURABLE_QUEUES ")
    assert said in message


def test_options_of_queues_are_a_mapping_or_json_text(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given = {
        "events": {"group": "data.tenant", "visibility": "30s"},
        "media": {"queue": "arn:aws:sqs:eu-west-1:1:media.fifo"},
    }
    monkeypatch.setenv("FLASK_DURABLE_QUEUES", json.dumps(given))
    queues = read().queues
    assert queues == read(QUEUES=given).queues
    assert (queues["events"].visibility, queues["events"].is_fifo) == (30, True)
    assert queues["media"].is_fifo


def test_options_of_queues_that_are_changed_in_place_are_noticed() -> None:
    app = app_with(QUEUES={"media": {"visibility": 30}})
    settings = Settings.from_app(app)
    assert settings.changed_since(app) == []
    app.config["DURABLE_QUEUES"]["media"]["visibility"] = 60
    assert settings.changed_since(app) == ["DURABLE_QUEUES"]


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ("zone=x", "zone"),
        ("create=always", "create=never or left out"),
        ("tags=team", "name:value"),
    ],
)
def test_parameters_of_sqs_that_make_no_sense_are_refused(
    parameters: str, said: str
) -> None:
    assert said in refused(QUEUE_URL=f"sqs://?{parameters}")
    assert "SQS" in refused(QUEUE_URL="sqs://host/path")


def test_the_docstring_lists_every_key_and_no_other() -> None:
    docstring = inspect.getdoc(Settings) or ""
    listed = re.findall(r"^``DURABLE_(\w+)``$", docstring, re.M)
    assert [name.lower() for name in listed] == list(Settings.model_fields)


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        read().lease = 1


def test_the_app_config_wins_over_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FLASK_DURABLE_LEASE", "30s")
    monkeypatch.setenv("FLASK_DURABLE_PARTITIONS", "4")
    settings = read(LEASE="20s")
    assert (settings.lease, settings.partitions) == (20, 4)


def test_none_in_the_app_config_means_not_given(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FLASK_DURABLE_REDIS_URL", "redis://localhost/3")
    settings = read(REDIS_URL=None, LEASE=None)
    assert (settings.redis_url, settings.lease) == ("redis://localhost/3", 10)


@pytest.mark.parametrize(
    "url",
    [
        *("shop.example", "ftp://shop.example", "https://", "https://shop.example:0"),
        *(
            "https://user:secret@shop.example",
            "https://shop.example/?a=1",
            "https://[x",
        ),
        *(
            "https://shop.example/#top",
            "https://shop.example/a b",
            "https://shöp.example",
        ),
    ],
)
def test_an_external_url_is_that_of_a_site(url: str) -> None:
    assert "must be a URL of a site" in refused(EXTERNAL_URL=url)
    assert read(EXTERNAL_URL=" http://h:8/a/ ").external_url == "http://h:8/a"


def test_no_url_prefix_means_no_routes() -> None:
    assert read(URL_PREFIX=None).url_prefix is None


#: A value of each setting as text: where JSON has it, what is read otherwise there.
TEXTS = {
    "redis_url": "redis://h/1",
    "queue_url": "redis://h/2",
    "queues": '{"media": {"visibility": "30s"}}',
    "namespace": "2026",
    "partitions": "4",
    "url_prefix": "null",
    "external_url": "https://shop.example",
    "event_keys": "94837261504839201758463920175846",
    "signing_secrets": json.dumps([new_signing_secret()]),
    "inngest_event_api": "1",
    "push_loopback": "0",
    "push_secrets": "[]",
    "push_budget": "20",
    "lease": "1e1",
    "visibility_timeout": "10",
    "drain_timeout": "0",
    "instance_size": "2",
    "ecs_protection": "true",
    "max_dispatches": "07",
    "fsync": '"off"',
    "replicas": "1",
    "accept_timeout": "2.5",
    "spool": "TRUE",
    "inline_limit": "2048",
    "max_value": "999999",
    "blob_url": "file:///a",
    "encryption_keys": "[]",
    "look_back": "90",
    "look_back_size": "2097152",
    "retention": "NaN",
    "failed_retention": "60",
    "statsd_url": "statsd://h:1",
    "statsd_prefix": "7",
    "statsd_tags": "false",
    "metrics_secrets": "{}",
    "sentry": "0",
    "redact_keys": '["pin", "iban"]',
    "run_log_lines": "true",
    "scale": '{"default": {}}',
}


@pytest.mark.parametrize("field", Settings.model_fields)
def test_the_environment_means_the_same_with_and_without_from_prefixed_env(
    field: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"FLASK_DURABLE_{field.upper()}", TEXTS[field])

    def said(app: Flask) -> str:
        try:
            return str(Settings.from_app(app).model_dump()[field])
        except ConfigurationError as error:
            return str(error)

    plain, prefixed = app_with(), app_with()
    prefixed.config.from_prefixed_env()
    assert said(prefixed) == said(plain)


def test_what_from_prefixed_env_made_of_a_name_or_a_flag_is_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FLASK_DURABLE_NAMESPACE", "2026")
    monkeypatch.setenv("FLASK_DURABLE_SPOOL", "1")
    app = Flask(__name__)
    app.config.from_prefixed_env()
    settings = Settings.from_app(app)
    assert (settings.namespace, settings.spool) == ("2026", True)
    app.config["DURABLE_NAMESPACE"] = 2027
    with pytest.raises(ConfigurationError, match="is of type int"):
        Settings.from_app(app)


@pytest.mark.parametrize("text", ["", " ", "\n"])
@pytest.mark.parametrize("field", Settings.model_fields)
def test_blank_text_means_not_given(
    field: str, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"FLASK_DURABLE_{field.upper()}", text)
    prefixed = app_with()
    prefixed.config.from_prefixed_env()
    for app in (app_with(), prefixed, app_with(**{field.upper(): text})):
        if field == "encryption_keys":
            with pytest.raises(ConfigurationError, match="must not be empty"):
                Settings.from_app(app)
        else:
            default = Settings.model_fields[field].default
            assert Settings.from_app(app).model_dump()[field] == default


@pytest.mark.parametrize("key", ["REDACT_KEYS", "ENCRYPTION_KEYS"])
@pytest.mark.parametrize("value", [",", "[]", [], [""], ()])
def test_an_empty_list_switches_no_protection_off(key: str, value: t.Any) -> None:
    assert f"DURABLE_{key} must not be empty" in refused(**{key: value})


@pytest.mark.parametrize("text", ["{'media': {}}", "{", "[" * 100_000])
def test_text_that_is_no_json_is_refused_as_that(text: str) -> None:
    for key in ("SCALE", "QUEUES"):
        message = refused(**{key: text})
        assert message.startswith(f"DURABLE_{key} must be ")
        assert "JSON" in message
        assert "it is of type" not in message


def test_values_of_from_prefixed_env_are_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    keys = f"{new_event_key()}, {new_event_key()}"
    monkeypatch.setenv("FLASK_DURABLE_LEASE", "12")
    monkeypatch.setenv("FLASK_DURABLE_FSYNC", "off")
    monkeypatch.setenv("FLASK_DURABLE_EVENT_KEYS", keys)
    app = Flask(__name__)
    app.config.from_prefixed_env()
    settings = Settings.from_app(app)
    assert (settings.lease, settings.fsync) == (12, "off")
    assert ", ".join(settings.event_keys) == keys


@pytest.mark.parametrize("value", [90, 90.0, "90s", "1m30s", timedelta(seconds=90)])
def test_durations_are_seconds_timedeltas_or_text(value: t.Any) -> None:
    assert read(LEASE=value).lease == 90


@pytest.mark.parametrize("form", [list, tuple, set, ",".join, " , ".join])
def test_lists_may_be_text_with_commas(form: t.Callable[[t.Any], t.Any]) -> None:
    keys = [new_event_key(), new_event_key()]
    assert sorted(read(EVENT_KEYS=form(keys)).event_keys) == sorted(keys)


def test_an_unknown_key_is_refused_with_the_nearest_one() -> None:
    message = refused(REDDIS_URL="redis://localhost", LAESE=1)
    assert "DURABLE_REDDIS_URL (did you mean DURABLE_REDIS_URL?)" in message
    assert "DURABLE_LAESE (did you mean DURABLE_LEASE?)" in message


def test_an_unknown_key_in_the_environment_is_refused_under_its_name_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FLASK_DURABLE_FSINC", "ack")
    message = refused()
    assert "FLASK_DURABLE_FSINC (did you mean FLASK_DURABLE_FSYNC?)" in message


def test_the_commands_with_options_in_the_environment_are_all_commands() -> None:
    assert COMMANDS == cli._COMMANDS


@pytest.mark.parametrize("command", COMMANDS)
def test_options_of_commands_in_the_environment_are_no_keys(
    command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"FLASK_DURABLE_{command.upper()}_SOME_OPTION", "8")
    app = Flask(__name__)
    app.config.from_prefixed_env()
    settings = Settings.from_app(app)
    app.config[f"DURABLE_{command.upper()}_OTHER_OPTION"] = 1
    assert settings.changed_since(app) == []


def test_click_derives_the_option_names_that_are_tolerated(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[int] = []
    durable = click.Group("durable")

    @durable.command()
    @click.option("--threads", type=int)
    def worker(threads: int) -> None:
        seen.append(threads)

    monkeypatch.setenv("FLASK_DURABLE_WORKER_THREADS", "8")
    # As below FlaskGroup, whose own commands would win over the one declared here.
    prefix = FlaskGroup().context_settings["auto_envvar_prefix"]
    click.Group("flask", {"durable": durable}).main(
        ["durable", "worker"], standalone_mode=False, auto_envvar_prefix=prefix
    )
    assert seen == [8]
    read()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("REDIS_URL", "localhost:6379"),
        ("REDIS_URL", "http://localhost"),
        ("REDIS_URL", "sqs://"),
        ("REDIS_URL", "redis://"),
        ("REDIS_URL", "redis://localhost:port/0"),
        ("REDIS_URL", "unix://"),
        ("REDIS_URL", 6379),
        ("QUEUE_URL", "amqp://localhost"),
        ("NAMESPACE", "a{b}"),
        ("NAMESPACE", "x" * 41),
        ("PARTITIONS", 0),
        ("PARTITIONS", True),
        ("PARTITIONS", 1.5),
        ("PARTITIONS", "many"),
        ("URL_PREFIX", "durable"),
        ("URL_PREFIX", "/<id>"),
        ("URL_PREFIX", 1),
        ("EVENT_KEYS", "short"),
        ("EVENT_KEYS", [1]),
        ("EVENT_KEYS", 1),
        ("SIGNING_SECRETS", "whsec_"),
        ("SIGNING_SECRETS", "whsec_!!!"),
        ("LEASE", 0),
        ("LEASE", "2h"),
        ("LEASE", -1),
        ("LEASE", "soon"),
        ("LEASE", float("nan")),
        ("LEASE", True),
        ("VISIBILITY_TIMEOUT", "13h"),
        ("DRAIN_TIMEOUT", "2h"),
        ("MAX_DISPATCHES", 0),
        ("FSYNC", "always"),
        ("FSYNC", False),
        ("REPLICAS", -1),
        ("INLINE_LIMIT", 100),
        ("INLINE_LIMIT", 2**20 + 1),
        ("MAX_VALUE", 2**30),
        ("RETENTION", 0),
        ("FAILED_RETENTION", "eleven years"),
    ],
)
def test_a_value_that_is_not_valid_is_refused_by_key_and_type(
    key: str, value: t.Any
) -> None:
    message = refused(**{key: value})
    assert message.startswith(f"DURABLE_{key} must ") or "URL" in message
    assert f"DURABLE_{key}" in message
    kind = f"(it is of type {type(value).__name__})"
    assert (kind in message) is not isinstance(value, str)


def test_every_fault_is_named_at_once() -> None:
    message = refused(LEASE="soon", FSYNC="always")
    assert "DURABLE_LEASE must be a duration" in message
    assert 'DURABLE_FSYNC must be "off", "ack" or "step"' in message


def test_a_fault_in_the_environment_is_named_as_it_is_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FLASK_DURABLE_PARTITIONS", "two")
    assert refused().startswith("FLASK_DURABLE_PARTITIONS must be a whole number")


def test_a_value_may_not_be_smaller_than_what_a_message_carries() -> None:
    message = refused(INLINE_LIMIT=4096, MAX_VALUE=2048)
    assert "DURABLE_MAX_VALUE must not be below DURABLE_INLINE_LIMIT" in message


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("EVENT_KEYS", "evk_hunter2"),
        ("SIGNING_SECRETS", ["whsec_hunter2"]),
        ("REDIS_URL", "http://user:hunter2@localhost"),
        ("REDIS_URL", "redis://:hun/hunter2@localhost"),
        ("QUEUE_URL", "hunter2"),
        ("NAMESPACE", "hunter2!"),
    ],
)
def test_an_error_never_repeats_a_value(key: str, value: t.Any) -> None:
    assert "hunter2" not in refused(**{key: value})


def test_the_representation_shows_no_secret() -> None:
    key, secret = new_event_key(), new_signing_secret()
    url = "redis://user:hunter2@localhost"
    settings = read(EVENT_KEYS=key, SIGNING_SECRETS=secret, REDIS_URL=url)
    for hidden in (key, secret, "hunter2"):
        assert hidden not in repr(settings) + str(settings)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("REDIS_URL", "rediss://:secret@db.example.org:6380/2?ssl_cert_reqs=none"),
        ("REDIS_URL", "unix:///run/valkey.sock?db=1"),
        ("REDIS_URL", "redis+cluster://node:7000"),
        ("QUEUE_URL", "sqs://?region=eu-west-1&prefix=app-"),
        ("QUEUE_URL", "redis://[::1]:6379/0"),
    ],
)
def test_urls_of_known_schemes_are_taken_as_they_are(key: str, value: str) -> None:
    assert getattr(read(**{key: value}), key.lower()) == value


@pytest.mark.parametrize(
    ("given", "prefix"), [("/", "/"), ("/a/", "/a"), ("/a/b-c.d", "/a/b-c.d")]
)
def test_a_url_prefix_has_no_slash_at_its_end(given: str, prefix: str) -> None:
    assert read(URL_PREFIX=given).url_prefix == prefix


def test_a_key_changed_after_it_was_read_is_named() -> None:
    keys = [new_event_key()]
    app = app_with(LEASE=10, EVENT_KEYS=keys)
    app.config["OTHER"] = 1
    settings = Settings.from_app(app)
    assert settings.changed_since(app) == []
    app.config["OTHER"] = 2
    app.config["DURABLE_LEASE"] = 11
    app.config["DURABLE_FSYNC"] = "off"
    keys.append(new_event_key())
    assert settings.changed_since(app) == [
        "DURABLE_EVENT_KEYS",
        "DURABLE_FSYNC",
        "DURABLE_LEASE",
    ]
    del app.config["DURABLE_LEASE"]
    assert "DURABLE_LEASE" in settings.changed_since(app)


@pytest.mark.parametrize(
    ("url", "masked"),
    [
        ("redis://localhost:6379/0", "redis://localhost:6379/0"),
        ("redis://user:secret@localhost/0", "redis://***@localhost/0"),
        ("redis://:p/@#?s@localhost/0", "redis://***@localhost/0"),
        ("user:secret@localhost", "***@localhost"),
        ("redis://h/0?password=secret&db=1", "redis://h/0?password=***&db=1"),
        ("unix:///a.sock?db=1&Username=u#x", "unix:///a.sock?db=1&Username=***#x"),
        ("sqs://?region=eu-west-1", "sqs://?region=eu-west-1"),
        ("sqs://?secret_access_key=secret", "sqs://?secret_access_key=***"),
    ],
)
def test_credentials_in_a_url_are_masked(url: str, masked: str) -> None:
    assert mask_url(url) == masked


@pytest.mark.parametrize(
    ("given", "value"),
    [
        *((True, True), ("1", True), (" True ", True), (1, True)),
        *((False, False), ("false", False), ("0", False), (0, False)),
    ],
)
def test_a_flag_may_be_text(given: t.Any, value: bool) -> None:
    assert read(INNGEST_EVENT_API=given).inngest_event_api is value


@pytest.mark.parametrize("given", ["yes", 2, 1.0, []])
def test_what_is_no_flag_is_refused(given: t.Any) -> None:
    assert "must be True or False" in refused(INNGEST_EVENT_API=given)


def test_the_routes_cannot_be_where_the_event_api_of_inngest_is() -> None:
    assert read(URL_PREFIX="/e").url_prefix == "/e"
    assert "DURABLE_URL_PREFIX" in refused(URL_PREFIX="/e/", INNGEST_EVENT_API=True)
