"""Creates the scaler of a pool from the services of one app in this process."""

from __future__ import annotations

import typing as t

from ..errors import ConfigurationError
from ..messages import EVENT_QUEUE
from ..scaler.decision.fleet import UnitKey
from ..scaler.estimator import Estimator
from ..scaler.estimator import sources_of
from ..scaler.introspectors import make_introspector
from ..scaler.introspectors.base import Introspector
from ..scaler.introspectors.own import OwnQueues
from ..scaler.introspectors.own import RunSensor
from ..scaler.options import PoolOptions
from ..scaler.platforms import make_platform
from ..scaler.platforms.base import Platform
from ..scaler.platforms.local import LocalPlatform
from ..scaler.pool_state import PoolState
from ..scaler.scaler import Scaler

if t.TYPE_CHECKING:
    from .state import AppState


def pool_options(state: AppState, name: str) -> PoolOptions:
    """Return the options of the pool *name*.

    :raises ConfigurationError: There is no such pool.
    """
    pools = {pool.name: pool for pool in state.settings.scale}
    if name in pools:
        return pools[name]
    known = ", ".join(pools) or "none"
    raise ConfigurationError(
        f"DURABLE_SCALE has no pool {name!r}; there are: {known}.",
        hint=f'Set DURABLE_SCALE = {{"{name}": {{"desired_wait": "30s"}}}}.',
    )


def pool_state_of(state: AppState, name: str) -> PoolState:
    """Return the notes of a pool's scaler on the state server."""
    return PoolState(state.server, state.store.keys, name)


def make_scaler(state: AppState, options: PoolOptions) -> Scaler:
    """Return the scaler of a pool. Connects to nothing.

    :raises ConfigurationError: The platform or a source is unknown, or one of its
        options is wrong.
    """
    pool_state = pool_state_of(state, options.name)
    platform = _platform(state, options, pool_state)
    introspector, deserted = _introspector(state, options, platform)
    return Scaler(
        options,
        introspector=introspector,
        platform=platform,
        pool_state=pool_state,
        service_times=Estimator(
            state.service_times, sources_of(options.sources, pool_state)
        ).read,
        deserted=deserted,
    )


def _introspector(
    state: AppState, options: PoolOptions, platform: Platform
) -> tuple[Introspector, t.Callable[[], bool] | None]:
    if options.introspector is not None:
        return make_introspector(options.introspector, options.queues), None
    own = own_queues(state, options, "host" if platform.traits.by_host else "unit")
    return own, own.are_deserted


def own_queues(
    state: AppState, options: PoolOptions, by: UnitKey = "unit"
) -> OwnQueues:
    """Return the introspector of a pool whose workers are ours.

    :param by: The part of a worker's beat that names its unit.
    """
    return OwnQueues(
        options.queues,
        RunSensor(state.server, state.store.keys, options.queues),
        state.directory,
        lambda: state.transport.counts(EVENT_QUEUE).waiting,
        by,
    )


def _platform(state: AppState, options: PoolOptions, pool_state: PoolState) -> Platform:
    if options.platform["platform"] == "local":
        workers = state.directory.workers
        return LocalPlatform(options.name, pool_state, workers, options.queues)
    return make_platform(options.platform)
