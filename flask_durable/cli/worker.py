"""``flask durable worker``: execute runs."""

from __future__ import annotations

import functools
import signal
import sys
import time
import types
import typing as t

import click
from flask import current_app
from flask.cli import ScriptInfo
from flask.cli import with_appcontext

from ..common.safe_logging import hand_to_teller
from ..common.safe_logging import telling
from .output import end
from .output import note
from .parameters import log_arguments
from .parameters import log_format_option
from .parameters import Seconds
from .problems import current_durable

if t.TYPE_CHECKING:
    from ..app.state import AppState
    from ..observe.formats import LogFormat

#: Seconds between two looks at the processes and at the source.
_POLL_INTERVAL = 0.2
_LOOK_INTERVAL = 1.0


@click.command("worker")
@click.option(
    "--queues",
    "-q",
    metavar="NAMES",
    help="Comma-separated queues whose runs this worker executes. Default: all queues "
    "of the app's functions, and their former queues while runs wait there that no "
    "other worker serves. Every worker routes events.",
)
@click.option(
    "--processes",
    "-p",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="The number of worker processes; dead ones are started again.",
)
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
    help="The longest time from SIGTERM to the end. Default: DURABLE_DRAIN_TIMEOUT.",
)
@click.option("--watch", is_flag=True, help="Restart when the source code changes.")
@log_format_option
@with_appcontext
def worker(
    queues: str | None,
    processes: int,
    threads: int,
    drain_timeout: float | None,
    watch: bool,
    log_format: LogFormat | None,
) -> None:
    """Execute runs until SIGTERM or Ctrl-C.

    On SIGTERM the worker drains: each run goes on to its next step boundary and is
    handed back, and another worker continues it there. Three seconds before the drain
    timeout, runs that have not reached a boundary are interrupted; another worker
    repeats their current step.

    \b
    Examples:
      flask durable worker
      flask durable worker --queues media --processes 2 --threads 4
      flask durable worker --watch
      flask durable worker --log-format json
    """
    # From here on neither a worker nor a supervisor depends on a reader of stderr.
    with telling():
        _work(queues, processes, threads, drain_timeout, watch, log_format)


def _work(
    queues: str | None,
    processes: int,
    threads: int,
    drain_timeout: float | None,
    watch: bool,
    log_format: LogFormat | None,
) -> t.NoReturn:
    durable = current_durable()
    app = t.cast(t.Any, current_app)._get_current_object()
    state = durable.state_of(app)
    names = _queues(queues, durable.functions.queues())
    grace = durable.settings.drain_timeout if drain_timeout is None else drain_timeout
    if processes == 1 and not watch:
        from ..worker.service import leave
        from ..worker.service import run_worker

        if log_format != "json":
            _print_banner(state, names, processes, threads)
        code = run_worker(
            state,
            queues=names,
            threads=threads,
            grace=grace,
            adopts=queues is None,
            log_format=log_format,
        )
        leave(code)
    else:
        if not watch:
            # A fault that no restart can mend ends this command at once.
            state.directory.claim_namespace(app.name)
            state.barrier.promise()
        # A child that is told none serves what its own code names, and adopts.
        arguments = [
            *([] if queues is None else [f"--queues={','.join(names)}"]),
            f"--threads={threads}",
            f"--drain-timeout={grace}s",
            *log_arguments(log_format),
        ]
        end(_supervise(arguments, processes, grace, watch))


def _queues(given: str | None, named: list[str]) -> list[str]:
    from ..messages import EVENT_QUEUE

    if given is None:
        return named or ["default"]
    names = [name.strip() for name in given.split(",") if name.strip()]
    if not names:
        raise click.BadParameter("names no queue.", param_hint="--queues")
    if EVENT_QUEUE in names:
        # Its messages are not about runs: the run threads would put them aside.
        raise click.BadParameter(
            f"{EVENT_QUEUE!r} is the queue of events, which every worker routes: "
            "leave it out.",
            param_hint="--queues",
        )
    for name in names:
        if name not in named:
            note(
                f"No function here uses the queue {name!r}; "
                f"known: {', '.join(named) or 'none'}."
            )
    return names


def _print_banner(
    state: AppState, queues: list[str], processes: int, threads: int
) -> None:
    from ..security.redaction import mask_url

    facts = [
        ("App", state.app.name),
        ("State", mask_url(state.server.url)),
        ("Queue", mask_url(state.settings.queue_url or state.server.url)),
        ("Durable", f"{state.barrier.promise()} (fsync={state.settings.fsync})"),
        ("Queues", ", ".join(queues)),
        ("Threads", f"{processes} x {threads}"),
    ]
    title = "Functions"
    for function in state.functions:
        triggers = function.started_by or "no event"
        facts.append((title, f"{function.id} on {triggers} (queue {function.queue})"))
        title = ""
    lines = [f"  {name:<11}{value}" for name, value in facts]
    text = "\n".join(["", "Flask-Durable worker", "", *lines, ""])
    hand_to_teller(functools.partial(click.echo, text, err=True))


def _supervise(arguments: list[str], processes: int, grace: float, watch: bool) -> int:
    """Keep worker processes until a signal; each loads the app itself."""
    import os

    from ..common.ids import new_process_name
    from ..worker.beat import UNIT
    from .problems import FAILURE
    from .stack.children import all_keep_dying
    from .stack.children import Child
    from .stack.watch import SourceWatcher

    stopping: list[int] = []

    def stop(signum: int, frame: types.FrameType | None) -> None:
        if signum == signal.SIGINT and stopping:
            for child in children:
                child.kill()
        stopping.append(signum)

    command = [sys.executable, "-m", "flask", *app_option(), "durable", "worker"]
    # A platform adds and removes this command with all its processes: one unit.
    unit = new_process_name()
    environment = {UNIT: unit, **os.environ}
    children = [
        Child(
            f"worker process {number + 1}",
            [*command, "--processes=1", *arguments],
            environment,
            grace=grace + 3,
        )
        for number in range(processes)
    ]
    watcher = SourceWatcher() if watch else None
    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    for child in children:
        child.start()
    next_look = 0.0
    code = 0
    while not stopping:
        time.sleep(_POLL_INTERVAL)
        for child in children:
            if message := child.poll():
                note(message)
        if watcher is None and all_keep_dying(children):
            note("The worker processes keep dying, so the command stops.")
            code = FAILURE
            break
        if watcher is None or time.monotonic() < next_look:
            continue
        next_look = time.monotonic() + _LOOK_INTERVAL
        if files := watcher.changed():
            note(f"{os.path.relpath(files[0])} changed: restarting.")
            for child in children:
                child.restart()
    for child in children:
        child.terminate()
    while not all([child.stopped() for child in children]):
        time.sleep(_POLL_INTERVAL)
    return code


def app_option() -> list[str]:
    """Return the option that names the app, for processes of the same app."""
    info = click.get_current_context().find_object(ScriptInfo)
    path = info.app_import_path if info else None
    return ["--app", path] if path else []
