"""Calls of SQS by real processes, against the policies that the page tells to allow."""

from __future__ import annotations

import contextlib
import fnmatch
import json
import pathlib
import re
import textwrap
import typing as t
import urllib.request

import pytest

from flask_durable.messages import EVENT_QUEUE

from ..queue.sqs_proxy import Proxy
from ..support.servers import SQSServer
from ..support.servers import ValkeyServer
from ..support.servers import wait_until
from ..test_docs import page
from .sites import Site

QUEUES = (EVENT_QUEUE, "default")
EVENT_KEY = "evk_" + 43 * "a"
POOLS = {
    "default": {
        "desired_wait": "30s",
        "platform": {"platform": "command", "read": "echo 1 1", "apply": "echo {n}"},
    }
}


class Role:
    """A proxy that a role's processes call, and what it saw."""

    def __init__(self, proxy: Proxy, places: t.Mapping[str, str]) -> None:
        self.proxy = proxy
        self.environment = {"FLASK_DURABLE_QUEUE_URL": proxy.url}
        if places:
            options = {queue: {"queue": arn} for queue, arn in places.items()}
            self.environment["FLASK_DURABLE_QUEUES"] = json.dumps(options)

    @property
    def queues(self) -> set[str]:
        """The names of the queues that were asked about."""
        requests = [each for calls in self.proxy.requests.values() for each in calls]
        return {
            each.get("QueueName") or each["QueueUrl"].rpartition("/")[2]
            for each in requests
        }


@pytest.fixture
def made(
    tmp_path: pathlib.Path, valkey: ValkeyServer, sqs: SQSServer, namespace: str
) -> t.Iterator[Site]:
    """A site whose queues exist."""
    site = Site(tmp_path, valkey, sqs.url, namespace)
    try:
        for queue in QUEUES:
            site.state.transport.declare(queue)
        yield site
    finally:
        site.close()


@pytest.fixture(params=["by name", "by ARN"])
def role(
    request: pytest.FixtureRequest, made: Site, sqs: SQSServer, namespace: str
) -> t.Iterator[t.Callable[[], Role]]:
    """Makes roles that know the queues by their names, or by their ARNs."""
    places = {}
    if request.param == "by ARN":
        prefix = f"arn:aws:sqs:us-east-1:123456789012:{namespace}"
        places = {queue: f"{prefix}-{queue}" for queue in QUEUES}
    with contextlib.ExitStack() as stack:

        def make() -> Role:
            proxy = stack.enter_context(contextlib.closing(Proxy(sqs.endpoint)))
            return Role(proxy, places)

        yield make


def allowed(name: str) -> tuple[set[str], str]:
    """Return actions and resource of a policy of the page."""
    [block] = re.findall(
        rf":caption: {name}\n\n(.*?)\n(?=\S)", page("sqs-permissions"), re.DOTALL
    )
    [statement] = json.loads(textwrap.dedent(block))["Statement"]
    return set(statement["Action"]), statement["Resource"]


def actions(proxy: Proxy) -> set[str]:
    """Return IAM's names of what was called: those of single calls also for batches."""
    return {f"sqs:{call.removesuffix('Batch')}" for call in proxy.calls}


def check(name: str, role: Role, site: Site) -> None:
    """Compare what was called with what is allowed, both ways."""
    expected, resource = allowed(name)
    if "FLASK_DURABLE_QUEUES" in role.environment:
        expected = expected - {"sqs:GetQueueUrl"}
    assert actions(role.proxy) == expected
    pattern = resource.rpartition(":")[2].replace(
        "durable", site.state.settings.namespace
    )
    assert all(fnmatch.fnmatch(queue, pattern) for queue in role.queues)


def post(address: str, *names: str) -> None:
    events = [{"name": "work/five", "id": name, "data": {"pace": 0}} for name in names]
    request = urllib.request.Request(
        f"{address}/durable/events",
        json.dumps(events).encode(),
        {"Content-Type": "application/json", "Authorization": f"Bearer {EVENT_KEY}"},
    )
    urllib.request.urlopen(request, timeout=60).close()


def bury(site: Site, role: Role) -> None:
    """Send an event that nobody can read, and wait until it is a dead letter."""
    dead = site.state.dead_letters
    before = dead.counts()[EVENT_QUEUE]
    transport = site.state.transport
    assert transport.send(EVENT_QUEUE, ["no JSON"]) == [None]
    wait_until(lambda: dead.counts()[EVENT_QUEUE] == before + 1, "a letter", 60)


def test_the_web_app_needs_its_policy(made: Site, role: t.Callable[[], Role]) -> None:
    web = role()
    _, address = made.web(**web.environment, FLASK_DURABLE_EVENT_KEYS=EVENT_KEY)
    urllib.request.urlopen(f"{address}/durable/readyz", timeout=60).close()
    post(address, "one")
    post(address, *map(str, range(25)))
    check("web", web, made)


def test_a_worker_needs_its_policy(made: Site, role: t.Callable[[], Role]) -> None:
    worker = role()
    process = made.ready(**worker.environment, threads=1)
    made.send("work/five", "one", pace=0)
    made.are("completed", "one")
    bury(made, worker)
    # What it has fetched and not begun, when it ends, is given back.
    for number in range(60):
        made.send("work/five", str(number), pace=0.02)
    queue = made.state.transport
    wait_until(lambda: queue.counts("default").in_flight > 3, "a prefetch", 60)
    process.signal(15)
    assert process.wait() == 0
    check("worker", worker, made)


def test_an_operator_needs_their_policy(made: Site, role: t.Callable[[], Role]) -> None:
    operator = role()
    made.ready()
    bury(made, operator)
    bury(made, operator)
    [letter, _] = made.state.dead_letters.list(queue=EVENT_QUEUE)
    for arguments in (
        ("list",),
        ("show", letter.id),
        ("purge", letter.id, "--yes"),
        ("redrive", "--all", "--yes"),
    ):
        made.command("dlq", *arguments, **operator.environment)
    bury(made, operator)
    made.command("dlq", "purge", "--all", "--yes", **operator.environment)
    check("operator", operator, made)


def test_the_scaler_needs_its_policy(made: Site, role: t.Callable[[], Role]) -> None:
    scaler = role()
    made.send("work/five", "one", pace=0)
    pools = {"FLASK_DURABLE_SCALE": json.dumps(POOLS)}
    made.command("scale", "--all", **scaler.environment, **pools)
    check("scaler", scaler, made)


def test_who_makes_the_queues_needs_that_policy_too(
    tmp_path: pathlib.Path, valkey: ValkeyServer, sqs: SQSServer, namespace: str
) -> None:
    with contextlib.closing(Proxy(sqs.endpoint)) as proxy:
        site = Site(tmp_path, valkey, proxy.url, namespace)
        try:
            _, address = site.web(FLASK_DURABLE_EVENT_KEYS=EVENT_KEY)
            post(address, "one")
            making, _ = allowed("creator")
            assert actions(proxy) == allowed("web")[0] | making
            site.ready()
            site.are("completed", "one")
            assert actions(proxy) <= allowed("worker")[0] | making
        finally:
            site.close()
