"""A cluster for the session, and namespaces that are spread over all its servers."""

from __future__ import annotations

import itertools
import typing as t

import pytest

from flask_durable.store.keys import Keys

from ..support.harness import Harness
from .servers import cluster_server
from .servers import ValkeyCluster

PARTITIONS = 5

_numbers = itertools.count()


@pytest.fixture(scope="session")
def cluster() -> t.Iterator[ValkeyCluster]:
    """A cluster of three. A test that kills a server starts it again."""
    with cluster_server() as cluster:
        yield cluster


@pytest.fixture
def namespace(cluster: ValkeyCluster) -> str:
    """A namespace of its own, with partitions on every server."""
    for number in _numbers:
        namespace = f"cluster{number}"
        tags = Keys(namespace, PARTITIONS).tags
        if len({cluster.node_of(tag).port for tag in tags}) == len(cluster.nodes):
            return namespace
    raise AssertionError("unreachable")


@pytest.fixture
def harness(cluster: ValkeyCluster, namespace: str) -> t.Iterator[Harness]:
    """An app on the cluster, with everything made durable before it is acknowledged."""
    harness = Harness(
        cluster.url,
        namespace,
        DURABLE_PARTITIONS=PARTITIONS,
        DURABLE_FSYNC="ack",
    )
    yield harness
    harness.close()
