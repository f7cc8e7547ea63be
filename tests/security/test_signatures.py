from __future__ import annotations

import base64
import json
import typing as t

import pytest
from click.testing import CliRunner
from flask import Flask
from hypothesis import given
from hypothesis import HealthCheck
from hypothesis import settings
from hypothesis import strategies as st

from flask_durable.cli.secret import secret as secret_command
from flask_durable.config.settings import Settings
from flask_durable.security.keys import check_event_key
from flask_durable.security.keys import hash_event_key
from flask_durable.security.keys import matches_event_key
from flask_durable.security.keys import new_event_key
from flask_durable.security.keys import new_signing_secret
from flask_durable.security.keys import secret_bytes
from flask_durable.security.signatures import sign
from flask_durable.security.signatures import TOLERANCE
from flask_durable.security.signatures import verify

NOW = 1_700_000_000
BODY = b'{"type":"a/b","data":{}}'


def signed(
    secret: str, *, id: str = "msg_1", at: int = NOW, body: bytes = BODY
) -> dict[str, str]:
    return {
        "webhook-id": id,
        "webhook-timestamp": str(at),
        "webhook-signature": sign(secret, id=id, timestamp=at, body=body),
    }


def check(
    headers: dict[str, str], *secrets: str, body: bytes = BODY, now: float = NOW
) -> str | None:
    return verify(headers, body, [secret_bytes(s) for s in secrets], now=now)


def test_a_signature_is_the_one_that_other_implementations_make() -> None:
    # The reference vector that the Standard Webhooks libraries share.
    made = sign(
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        id="msg_p5jXN8AQM9LWM0D4loKWxJek",
        timestamp=1614265330,
        body=b'{"test": 2432232314}',
    )
    assert made == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_a_signed_body_gives_its_id() -> None:
    secret = new_signing_secret()
    assert check(signed(secret), secret) == "msg_1"


def test_any_of_several_secrets_may_have_signed() -> None:
    old, new = new_signing_secret(), new_signing_secret()
    assert check(signed(old), new, old) == "msg_1"
    assert check(signed(new), new, old) == "msg_1"
    assert check(signed(old), new) is None


def test_any_of_several_signatures_may_match() -> None:
    old, new = new_signing_secret(), new_signing_secret()
    headers = signed(old)
    headers["webhook-signature"] = " ".join(
        ["v1a,Zm9v", headers["webhook-signature"], signed(new)["webhook-signature"]]
    )
    assert check(headers, new) == "msg_1"


@pytest.mark.parametrize(
    ("now", "accepted"),
    [
        (NOW + TOLERANCE, True),
        (NOW + TOLERANCE + 1, False),
        (NOW - TOLERANCE, True),
        (NOW - TOLERANCE - 1, False),
    ],
)
def test_a_signature_holds_five_minutes_both_ways(now: float, accepted: bool) -> None:
    secret = new_signing_secret()
    assert (check(signed(secret), secret, now=now) is not None) is accepted


def test_a_changed_body_id_or_time_is_refused() -> None:
    secret = new_signing_secret()
    headers = signed(secret)
    assert check(headers, secret, body=BODY + b" ") is None
    assert check({**headers, "webhook-id": "msg_2"}, secret) is None
    assert check({**headers, "webhook-timestamp": str(NOW + 1)}, secret) is None


@pytest.mark.parametrize("name", ["id", "timestamp", "signature"])
def test_a_missing_header_is_refused(name: str) -> None:
    secret = new_signing_secret()
    headers = signed(secret)
    del headers[f"webhook-{name}"]
    assert check(headers, secret) is None


def test_an_empty_id_is_refused_even_when_it_is_signed() -> None:
    secret = new_signing_secret()
    assert check(signed(secret, id=""), secret) is None


def test_nothing_is_accepted_without_a_secret() -> None:
    assert check(signed(new_signing_secret())) is None


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(
    st.dictionaries(
        st.sampled_from(["webhook-id", "webhook-timestamp", "webhook-signature"]),
        st.one_of(
            st.just(str(NOW)),
            st.text(st.characters(max_codepoint=255), max_size=40),
            st.text(max_size=10).map("v1,{}".format),
        ),
    ),
    st.binary(max_size=20),
)
def test_no_header_that_was_not_signed_is_accepted(
    headers: dict[str, str], body: bytes
) -> None:
    secret = secret_bytes("whsec_" + base64.b64encode(bytes(32)).decode())
    try:
        "".join(headers.values()).encode()
    except UnicodeEncodeError:  # a server never hands these over
        return
    assert verify(headers, body, [secret], now=NOW) is None


def test_a_new_event_key_has_the_form_that_is_asked_for() -> None:
    key = new_event_key()
    assert check_event_key(key) == key
    assert key != new_event_key()


@pytest.mark.parametrize(
    "key",
    [
        *(
            "",
            "evk_",
            "evk_" + "x" * 42,
            "evk_\n",
            "evk_3f9c1ab77d5e42c09b8e6f10a2d4c5",
        ),
        *("3f9c1ab77d5e42c09b8e6f10a2d4c5e", "3f9c1ab77d5e42c0 9b8e6f10a2d4c5e7"),
        *("3f9c1ab77d5e42c09b8e6f10a2d4c5e7\n", "3f9c1ab77d5e42c09b8e6f10a2d4c5eä7"),
    ],
)
def test_an_event_key_of_another_form_is_refused(key: str) -> None:
    with pytest.raises(ValueError, match="evk_"):
        check_event_key(key)


@pytest.mark.parametrize(
    "key",
    [
        "3f9c1ab77d5e42c09b8e6f10a2d4c5e7",
        "94837261504839201758463920175846",
        "signkey-prod-5f2b:/a81c,90d3{e7}64b9c2a1f0d8e",
        "6ba7b810-9dad-11d1-80b4-00c04fd430c8",
    ],
)
def test_an_event_key_of_another_product_is_kept(key: str) -> None:
    assert check_event_key(key) == key


@pytest.mark.parametrize(
    "key",
    [
        *("x" * 47, "changeme" * 4, "0123456789" * 4, "secret-event-key" * 2),
        *("00000000-0000-0000-0000-000000000000", "abcdefghijklmnopqrstuvwxyz012345"),
    ],
)
def test_an_event_key_that_is_a_pattern_is_refused(key: str) -> None:
    with pytest.raises(ValueError, match="random") as caught:
        check_event_key(key)
    assert key not in str(caught.value)


def test_a_key_matches_only_its_own_hash() -> None:
    keys = [new_event_key() for _ in range(3)]
    hashes = [hash_event_key(key) for key in keys]
    assert all(matches_event_key(key, hashes) for key in keys)
    assert not matches_event_key(new_event_key(), hashes)
    assert not matches_event_key("\ud800", hashes)
    assert not matches_event_key(keys[0], [])


@pytest.mark.parametrize(
    ("size", "accepted"), [(23, False), (24, True), (64, True), (65, False)]
)
def test_a_signing_secret_has_24_to_64_bytes(size: int, accepted: bool) -> None:
    raw = bytes(range(size))
    secret = "whsec_" + base64.b64encode(raw).decode()
    if accepted:
        assert secret_bytes(secret) == raw
        return
    with pytest.raises(ValueError, match="24 to 64 bytes") as caught:
        secret_bytes(secret)
    assert secret not in str(caught.value)


@pytest.mark.parametrize("secret", ["", "whsec", "secret", "whsec_ä", "whsec_#" * 9])
def test_a_malformed_signing_secret_is_refused(secret: str) -> None:
    with pytest.raises(ValueError, match="whsec_"):
        secret_bytes(secret)


@pytest.mark.parametrize(
    ("options", "variable", "valid"),
    [
        ([], "FLASK_DURABLE_EVENT_KEYS", check_event_key),
        (["--kind", "event-key"], "FLASK_DURABLE_EVENT_KEYS", check_event_key),
        (["--kind", "signing"], "FLASK_DURABLE_SIGNING_SECRETS", secret_bytes),
    ],
)
def test_the_command_prints_a_secret_and_how_to_configure_it(
    options: list[str],
    variable: str,
    valid: t.Callable[[str], object],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    result = CliRunner().invoke(secret_command, options)
    value = result.stdout.strip()
    assert result.exit_code == 0
    assert valid(value)
    assert f"export {variable}={value}" in result.stderr
    monkeypatch.setenv(variable, value)
    read = Settings.from_app(Flask(__name__))
    assert value in read.event_keys + read.signing_secrets


def test_the_command_prints_json() -> None:
    result = CliRunner().invoke(secret_command, ["--kind", "signing", "--json"])
    printed = json.loads(result.stdout)
    assert secret_bytes(printed.pop("secret"))
    assert printed == {
        "kind": "signing",
        "variable": "FLASK_DURABLE_SIGNING_SECRETS",
    }
    assert result.stderr == ""


def test_the_command_refuses_another_kind() -> None:
    result = CliRunner().invoke(secret_command, ["--kind", "password"])
    assert result.exit_code == 2
