"""The stores of one app: the state server, and each thing that is kept there."""

from __future__ import annotations

import functools
import typing as t

from ..config.settings import Settings
from ..errors import ConfigurationError
from ..messages import EVENT_QUEUE
from ..queue.redis_streams.keys import queue_tag
from ..redis.embedded import data_directory
from ..redis.embedded import find_running
from ..store.barrier import Barrier
from ..store.directory import Directory
from ..store.installation import Installation
from ..store.keys import Keys
from ..store.measurements.efforts import default_size
from ..store.measurements.efforts import Efforts
from ..store.measurements.hourly import HourlyHistograms
from ..store.measurements.metric_totals import MetricTotals
from ..store.measurements.run_counts import RunCounts
from ..store.measurements.service_times import ServiceTimes
from ..store.memory_guard import MemoryGuard
from ..store.message_failures import MessageFailures
from ..store.run_logs import RunLogStore
from ..store.run_store import RunStore
from ..store.server import StateServer
from ..store.waiters import Waiters

if t.TYPE_CHECKING:
    from pathlib import Path

    from flask import Flask

    from ..functions.registry import FunctionRegistry


class Stores:
    """The stores of one app in this process, each made on first use."""

    def __init__(
        self, app: Flask, settings: Settings, functions: FunctionRegistry
    ) -> None:
        self.app = app
        self.settings = settings
        self.functions = functions
        #: The directory to look for a running server in, if none is configured.
        self.data = data_directory(app.instance_path)

    @functools.cached_property
    def server(self) -> StateServer:
        """The state server.

        :raises ConfigurationError: No server is configured, and none was found.
        """
        if changed := self.settings.changed_since(self.app):
            raise ConfigurationError(
                f"{', '.join(changed)} changed after init_app.",
                hint="Settings are read once: set them before init_app.",
            )
        url = self.settings.redis_url
        if url is None:
            url = find_running(self.data)
        if url is None:
            raise ConfigurationError(
                "There is no DURABLE_REDIS_URL, and no server of a running "
                '"flask durable dev" was found.',
                hint='Set DURABLE_REDIS_URL="redis://…", or start "flask durable dev".',
            )
        return StateServer(url)

    @functools.cached_property
    def impatient_server(self) -> StateServer:
        """The state server with a short timeout, for calls that send events."""
        within = self.settings.answer_within
        return StateServer(self.server.url, retries=0, timeout=within)

    @functools.cached_property
    def store(self) -> RunStore:
        """The runs."""
        # A server that hangs is given up while leases can still be renewed in time.
        within = min(2.0, max(1.0, self.settings.lease / 5))
        upkeep = StateServer(self.server.url, retries=0, timeout=within)
        settings = self.settings
        return RunStore(
            self.server,
            Keys(settings.namespace, settings.partitions),
            lease=settings.lease,
            max_dispatches=settings.max_dispatches,
            retention=settings.retention,
            failed_retention=settings.failed_retention,
            upkeep=upkeep,
        )

    @functools.cached_property
    def directory(self) -> Directory:
        """The functions and workers of all processes."""
        return Directory(self.server, self.store.keys)

    @functools.cached_property
    def waiters(self) -> Waiters:
        """The steps that wait for events, and the events that they look for."""
        return Waiters(
            self.server,
            self.store.keys,
            look_back=self.settings.look_back,
            size=self.settings.look_back_size,
        )

    @functools.cached_property
    def service_times(self) -> ServiceTimes:
        """The durations of each function's deliveries."""
        return ServiceTimes(self.histograms, self.efforts)

    @functools.cached_property
    def histograms(self) -> HourlyHistograms:
        """The measured times of each function, from all processes."""
        return HourlyHistograms(self.server, self.store.keys)

    @functools.cached_property
    def efforts(self) -> Efforts:
        """The computing times of functions, by the size of workers."""
        size = self.settings.instance_size or default_size()
        return Efforts(self.server, self.store.keys, size)

    @functools.cached_property
    def metric_totals(self) -> MetricTotals:
        """The counts and times of all processes, for Prometheus."""
        return MetricTotals(self.server, self.store.keys, self.functions.declares)

    @functools.cached_property
    def run_log_store(self) -> RunLogStore:
        """The newest log lines of each run."""
        return RunLogStore(self.server, self.store.keys, self.settings.run_log_lines)

    @functools.cached_property
    def run_counts(self) -> RunCounts:
        """The numbers of runs of each function that began and ended."""
        return RunCounts(self.server, self.store.keys)

    @functools.cached_property
    def barrier(self) -> Barrier:
        """The barrier that waits until state is durable."""
        return Barrier(self.server, self._state_tags, self.settings.replicas)

    @functools.cached_property
    def _senders_barrier(self) -> Barrier:
        """The barrier of calls that send events, with a shorter timeout."""
        # A caller that comes during one barrier waits for that one and the next.
        timeout = self.settings.accept_timeout / 4
        return Barrier(
            self.impatient_server, self._state_tags, self.settings.replicas, timeout
        )

    @property
    def _state_tags(self) -> list[str]:
        tags = list(self.store.keys.tags)
        if self._queues_live_here:
            # Sent events are state too; in a cluster they may be on another server.
            tags.append(queue_tag(self.settings.namespace, EVENT_QUEUE))
        return tags

    @property
    def _queues_live_here(self) -> bool:
        return self.settings.queue_url in (None, self.settings.redis_url)

    @functools.cached_property
    def memory(self) -> MemoryGuard:
        """The guard that keeps new events from filling the server up."""
        return MemoryGuard(self.impatient_server)

    @functools.cached_property
    def failures(self) -> MessageFailures:
        """The errors of messages that could not be processed."""
        return MessageFailures(self.server, self.store.keys)

    @functools.cached_property
    def installation(self) -> Installation:
        """The installation that this process belongs to."""
        return Installation(self.impatient_server, self.store.keys)

    def reconnect(self) -> None:
        """Use new connections to the state server from now on."""
        for name in ("server", "impatient_server", "barrier", "_senders_barrier"):
            if name in vars(self):
                vars(self)[name].reconnect()

    def look_for_server_in(self, directory: Path) -> None:
        """Use the embedded server of *directory* from now on.

        For a development stack with its own server. A configured server stays in use.
        """
        self.data = directory
        self.forget_collaborators()

    def forget_collaborators(self) -> None:
        """Drop the services, so that they are created again on the next use.

        Called in a forked process, where a thread that no longer exists may hold their
        locks, or be awaited by them; and when the server is another one.
        """
        for name in [*vars(self)]:
            if isinstance(getattr(type(self), name, None), functools.cached_property):
                delattr(self, name)
