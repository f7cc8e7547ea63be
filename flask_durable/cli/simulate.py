"""``flask durable scale simulate``: the behaviour of a pool in simulated time."""

from __future__ import annotations

import re
import typing as t

import click

from .output import echo_json
from .output import echo_table
from .output import note
from .parameters import Seconds
from .problems import current_state

if t.TYPE_CHECKING:
    from ..scaler.options import PoolOptions
    from ..scaler.simulation.comparison import Result
    from ..scaler.simulation.workloads import Arrival

#: The name of a pool that is not configured.
_UNNAMED = "simulated"

_COLUMNS = (
    *("policy", "missed", "p50", "p95", "p99", "worker-hours", "most", "kills"),
    *("lost work", "flaps"),
)


@click.command("simulate")
@click.option(
    "--queue",
    "-q",
    "name",
    metavar="NAME",
    help="The pool, by its name or one of its queues.",
)
@click.option("--workload", metavar="NAME", help="Generated jobs. Default: mixed.")
@click.option(
    "--trace",
    type=click.File(encoding="utf-8"),
    metavar="FILE",
    help="Recorded jobs instead of generated ones.",
)
@click.option(
    "--policy",
    "policies",
    multiple=True,
    metavar="NAME",
    help="A policy to compare. Repeat it for several.",
)
@click.option(
    "--what-if",
    "changes",
    multiple=True,
    metavar="KEY=VALUE",
    help="Also simulate the pool with this change, such as wait=15s. Keys: wait, min, "
    "max, boot, period, threads, window, margin.",
)
@click.option(
    "--lag",
    type=Seconds(),
    default="0s",
    help="The age of the job counts that the policy sees.",
)
@click.option(
    "--noise",
    type=click.IntRange(0),
    default=0,
    help="The largest error of those counts, in jobs.",
)
@click.option(
    "--prefetch",
    type=click.IntRange(0),
    default=0,
    help="The number of jobs that a worker fetches ahead.",
)
@click.option(
    "--seed",
    type=int,
    default=1,
    show_default=True,
    help="The seed of the random numbers.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option(
    "--svg",
    type=click.File("w", encoding="utf-8", lazy=True),
    metavar="FILE",
    help="Write a plot of waits and workers over time.",
)
def simulate(
    name: str | None,
    workload: str | None,
    trace: t.TextIO | None,
    policies: tuple[str, ...],
    changes: tuple[str, ...],
    as_json: bool,
    svg: t.TextIO | None,
    **chance: t.Any,
) -> None:
    """Compare scaling policies or pool sizes in a simulation.

    The jobs are generated or recorded. No server is needed. The pool is one of
    DURABLE_SCALE. Without --queue it has any number of workers of one thread, which
    boot in 30 s, and the policy decides every 15 s.

    \b
    Examples:
      flask durable scale simulate --workload bursty
      flask durable scale simulate --queue media --trace jobs.jsonl --svg plot.svg
      flask durable scale simulate --queue media --what-if wait=15s --what-if max=20
    """
    from ..scaler.simulation.comparison import Comparison

    if workload and trace:
        raise click.UsageError("Give either --workload or --trace.")
    jobs, wait = _jobs(workload or "mixed", trace, chance["seed"])
    options = _options(name, wait)
    pools = _pools(options, changes)
    chosen = _policies(policies, bool(changes))
    results = list(Comparison(jobs, **chance).run(chosen, pools))
    what = trace.name if trace else f"workload {workload or 'mixed'}"
    if svg is not None:
        from ..scaler.simulation.plot import plot

        svg.write(plot(results, f"{what}, {len(jobs)} jobs"))
    if as_json:
        listed = [result.to_json() for result in results]
        echo_json({"jobs": len(jobs), "of": what, **chance, "results": listed})
    else:
        note(_conditions(what, jobs, options))
        echo_table(_COLUMNS, [_row(result) for result in results])


# -- Input ---------------------------------------------------------------------------


def _jobs(
    workload: str, trace: t.TextIO | None, seed: int
) -> tuple[list[Arrival], float]:
    """Return the jobs, and the usual wait for them."""
    from ..scaler.simulation.trace import read_trace
    from ..scaler.simulation.workloads import generate
    from ..scaler.simulation.workloads import WORKLOADS

    if trace is None:
        if workload not in WORKLOADS:
            known = ", ".join(WORKLOADS)
            raise click.BadParameter(f"There is no {workload!r}; there are: {known}.")
        return generate(workload, seed), WORKLOADS[workload][1]
    try:
        jobs = read_trace(trace)
    except ValueError as error:
        raise click.BadParameter(f"{trace.name}: {error}.") from error
    if not jobs:
        raise click.BadParameter(f"{trace.name}: there are no jobs in it.")
    return jobs, 30.0


def _options(name: str | None, wait: float) -> PoolOptions:
    """Return the configured pool, or the default one of a simulation."""
    from ..scaler.options import parse_pools

    if name is None:
        given = {"desired_wait": wait, "maximum": 1000, "slots": 1, "period": 15}
        [options] = parse_pools({_UNNAMED: given})
        return options
    pools = current_state().settings.scale
    for pool in pools:
        if name == pool.name or name in pool.queues:
            return pool
    known = ", ".join(pool.name for pool in pools) or "none"
    raise click.UsageError(f"DURABLE_SCALE has no pool for {name}; there are: {known}.")


def _pools(options: PoolOptions, changes: t.Iterable[str]) -> dict[str, PoolOptions]:
    from ..scaler.simulation.comparison import changed

    try:
        return {
            "configured": options,
            **{change: changed(options, change) for change in changes},
        }
    except ValueError as error:
        raise click.BadParameter(f"{error}.", param_hint="--what-if") from error


def _policies(given: tuple[str, ...], what_if: bool) -> tuple[str, ...]:
    from ..scaler.simulation.comparison import STANDARD_POLICIES

    for name in given:
        if name not in STANDARD_POLICIES and not re.fullmatch(
            "fixed:[1-9][0-9]*", name
        ):
            known = ", ".join((*STANDARD_POLICIES, "fixed:20"))
            raise click.BadParameter(f"There is no {name!r}; there are: {known}.")
    return given or (("durable",) if what_if else STANDARD_POLICIES)


# -- Output --------------------------------------------------------------------------


def _conditions(what: str, jobs: t.Sequence[Arrival], options: PoolOptions) -> str:
    work = sum(job.seconds for job in jobs) / 3600
    return (
        f"{what}: {len(jobs)} jobs, {work:.1f} hours of work; to start within "
        f"{options.goal.desired_wait:g} s, boot {options.boot / 2:g} to "
        f"{options.boot:g} s, a look every {options.period:g} s"
    )


def _row(result: Result) -> tuple[str, ...]:
    numbers = result.to_json()
    return (
        result.name,
        f"{100 * result.missed:.1f} %",
        *(_wait(numbers[share]) for share in ("p50", "p95", "p99")),
        f"{numbers['worker_hours']:.1f}",
        str(result.most),
        str(result.outcome.kills),
        f"{result.outcome.lost / 3600:.1f} h",
        str(result.outcome.turns),
    )


def _wait(seconds: float | None) -> str:
    return "never" if seconds is None else f"{seconds:.0f} s"
