"""``flask durable pool``: keep as many worker processes as the scaler asks for."""

from __future__ import annotations

import itertools
import os
import signal
import sys
import time
import types
import typing as t

import click
from flask import current_app
from flask.cli import with_appcontext

from ..common.safe_logging import get_logger
from ..common.safe_logging import telling
from .output import end
from .output import note
from .parameters import log_arguments
from .parameters import log_format_option
from .parameters import Seconds
from .problems import current_durable
from .problems import FAILURE
from .stack.children import all_keep_dying
from .stack.children import Child
from .worker import app_option

if t.TYPE_CHECKING:
    from ..observe.formats import LogFormat
    from ..scaler.pool_state import PoolState

#: Seconds between two looks at the processes, and at the wanted number.
_POLL_INTERVAL = 0.2
_LOOK_INTERVAL = 1.0

logger = get_logger(__name__)


@click.command("pool")
@click.argument("name")
@click.option(
    "--threads",
    "-t",
    type=click.IntRange(1, 1000),
    default=8,
    show_default=True,
    help="The number of runs that a process executes at once.",
)
@click.option(
    "--drain-timeout",
    type=Seconds(),
    default="1h",
    show_default=True,
    help="The time that a worker gets to end its current steps when it has to stop.",
)
@log_format_option
@with_appcontext
def pool(
    name: str, threads: int, drain_timeout: float, log_format: LogFormat | None
) -> None:
    """Run the workers of a pool on this host.

    NAME is a pool of DURABLE_SCALE. `flask durable scale` sets the number of worker
    processes. Processes that die are started again; if all of them keep dying, the
    command ends with exit code 1. Processes that are not needed end their current steps
    and stop, idle ones first.

    \b
    Examples:
      flask durable pool media
      flask durable pool media --threads 4
    """
    from ..app.scaling import own_queues
    from ..app.scaling import pool_options
    from ..app.scaling import pool_state_of
    from ..observe.formats import set_up

    durable = current_durable()
    app = t.cast(t.Any, current_app)._get_current_object()
    state = durable.state_of(app)
    set_up(app.logger, log_format)
    options = pool_options(state, name)
    command = [
        *(sys.executable, "-m", "flask", *app_option(), "durable", "worker"),
        f"--queues={','.join(options.queues)}",
        f"--threads={threads}",
        f"--drain-timeout={drain_timeout}s",
        *log_arguments(log_format),
    ]
    queues = own_queues(state, options)
    supervisor = Supervisor(
        name,
        command,
        grace=drain_timeout + 3,
        pool_state=pool_state_of(state, name),
        minimum=options.goal.minimum,
        busy=lambda: {unit.id for unit in queues.look(0).units if unit.busy},
    )
    with telling():
        end(supervisor.run())


class Supervisor:
    """Starts and ends the worker processes of one pool.

    :param name: The pool's name.
    :param command: The command that starts a worker.
    :param grace: Seconds that a worker has to end.
    :param pool_state: The notes with the number of workers that the scaler wants.
    :param minimum: The number of workers until the scaler sets one.
    :param busy: A function that returns the units that have a run.
    """

    def __init__(
        self,
        name: str,
        command: t.Sequence[str],
        *,
        grace: float,
        pool_state: PoolState,
        minimum: int,
        busy: t.Callable[[], t.Collection[str]],
    ) -> None:
        self._name = name
        self._command = list(command)
        self._grace = grace
        self._pool_state = pool_state
        self._minimum = minimum
        self._busy = busy
        self._numbers = itertools.count(1)
        self._workers: list[Child] = []
        self._going: list[Child] = []
        self._signals: list[int] = []

    def run(self) -> int:
        """Keep the pool until a signal, then let every worker end its steps.

        :returns: The exit code: 1 if the workers kept dying, which ends the pool too.
        """
        signal.signal(signal.SIGTERM, self._stop)
        signal.signal(signal.SIGINT, self._stop)
        next_look = 0.0
        code = 0
        while not self._signals:
            if time.monotonic() >= next_look:
                self._look()
                next_look = time.monotonic() + _LOOK_INTERVAL
            self._mind()
            if all_keep_dying(self._workers):
                note(
                    f"{self._name}: the worker processes keep dying, so the pool stops."
                )
                code = FAILURE
                break
            time.sleep(_POLL_INTERVAL)
        self._end()
        return code

    def _stop(self, signum: int, frame: types.FrameType | None) -> None:
        if signum == signal.SIGINT and self._signals:
            for child in (*self._workers, *self._going):
                child.kill()
        self._signals.append(signum)

    def _look(self) -> None:
        """Start or end workers. While the server does not answer, change nothing."""
        try:
            self._pool_state.supervise()
            wanted = self._pool_state.wanted()
            if wanted is None:
                wanted = self._minimum
                self._pool_state.want(wanted)
            busy = self._busy() if wanted < len(self._workers) else ()
        except Exception as error:
            logger.warning(
                "The pool stays as it is: %s", error, extra={"action": "pool_unchanged"}
            )
            return
        self._resize(wanted, busy)

    def _resize(self, wanted: int, busy: t.Collection[str]) -> None:
        if wanted != len(self._workers):
            note(f"{self._name}: {len(self._workers)} → {wanted} workers")
        while len(self._workers) < wanted:
            self._workers.append(self._started())
        # Idle ones first, and the youngest of those.
        self._workers.sort(key=lambda child: child.name not in busy)
        while len(self._workers) > wanted:
            child = self._workers.pop()
            child.terminate()
            self._going.append(child)

    def _started(self) -> Child:
        from ..worker.beat import UNIT

        name = f"{self._name}-{os.getpid()}-{next(self._numbers)}"
        environment = {**os.environ, UNIT: name}
        child = Child(name, self._command, environment, grace=self._grace)
        child.start()
        return child

    def _mind(self) -> None:
        for child in self._workers:
            if message := child.poll():
                note(message)
        self._going = [child for child in self._going if not child.stopped()]

    def _end(self) -> None:
        for child in self._workers:
            child.terminate()
        going = [*self._workers, *self._going]
        while not all([child.stopped() for child in going]):
            time.sleep(_POLL_INTERVAL)
        try:
            self._pool_state.leave()
        except Exception as error:
            logger.warning(
                "Could not sign off: %s", error, extra={"action": "sign_off_failed"}
            )
