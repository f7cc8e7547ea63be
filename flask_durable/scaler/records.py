"""A decision and all that led to it: for the log, for ``--json`` and for people."""

from __future__ import annotations

import dataclasses
import typing as t

from ..errors import PlatformError
from .decision.observation import Goal
from .decision.observation import Observation
from .decision.observation import Pool
from .decision.observation import ServiceTime
from .decision.policy import Decision
from .decision.work import typical
from .options import PoolOptions
from .platforms.base import Applied
from .platforms.base import Platform


def record_of(
    options: PoolOptions,
    platform: Platform,
    observation: Observation,
    pool: Pool,
    decision: Decision,
    applied: Applied | None,
    error: PlatformError | None,
    dry: bool,
) -> dict[str, t.Any]:
    """Return the record of a decision, made of JSON values; times in seconds."""
    return {
        "time": observation.now,
        "pool": options.name,
        "platform": platform.describe(),
        "dry_run": dry,
        "goal": _goal(options.goal),
        "observation": _seen(observation, pool),
        "service_times": {
            function: dataclasses.asdict(known)
            for function, known in _service_times(observation, options.goal).items()
        },
        "terms": dict(decision.terms),
        "needed": decision.needed,
        "workers": decision.workers,
        "action": decision.action,
        "reason": decision.reason,
        "verdicts": [dataclasses.asdict(verdict) for verdict in decision.verdicts],
        "applied": dataclasses.asdict(applied) if applied else None,
        "error": {"code": error.code, "message": error.message} if error else None,
    }


def _goal(goal: Goal) -> dict[str, t.Any]:
    return {
        "desired_wait": goal.desired_wait,
        "minimum": goal.minimum,
        "maximum": goal.maximum,
        "completion": goal.completion,
    }


def _service_times(observation: Observation, goal: Goal) -> t.Mapping[str, ServiceTime]:
    """Return the known service times, and the assumed ones of functions that matter."""
    names = {group.function for group in observation.waiting}
    names |= {job.function for job in observation.running}
    names |= {function for function, _ in observation.wakeups}
    names |= observation.arrival_rates.keys()
    source = "the others' mean" if observation.service_times else "the guess"
    unknown = dataclasses.replace(typical(observation, goal), samples=0, source=source)
    return {**dict.fromkeys(sorted(names), unknown), **observation.service_times}


def _seen(observation: Observation, pool: Pool) -> dict[str, t.Any]:
    waiting: dict[str, int] = {}
    for group in observation.waiting:
        waiting[group.function] = waiting.get(group.function, 0) + group.jobs
    oldest = (group.oldest for group in observation.waiting)
    fleet = observation.fleet
    return {
        "waiting": waiting,
        "oldest": max(oldest, default=0.0),
        "running": len(observation.running),
        "wakeups": len(observation.wakeups),
        "samples": [
            {"jobs": sample.jobs, "drawn": sample.size}
            for sample in observation.samples
        ],
        "arrival_rates": dict(observation.arrival_rates),
        "ready": fleet.ready,
        "booting": len(fleet.booting),
        "busy_workers": fleet.busy,
        "missing": fleet.missing,
        "missing_for": fleet.missing_for,
        "slots": pool.slots,
        "boot": pool.boot,
        "period": pool.period,
        "failure": observation.failure,
    }


def headline(record: t.Mapping[str, t.Any]) -> str:
    """Return the decision in one line."""
    seen = record["observation"]
    size = seen["ready"] + seen["booting"]
    waiting = sum(seen["waiting"].values())
    arrow = f"{size} → {record['workers']}" if record["action"] != "hold" else f"{size}"
    wanted = record["needed"]
    wish = f", wanted {wanted}" if wanted != record["workers"] else ""
    return (
        f"{record['pool']}: {waiting} waiting (oldest {seen['oldest']:.0f} s), "
        f"{seen['running']} running, {seen['ready']} workers up, {seen['booting']} "
        f"booting: {arrow} ({record['reason']}{wish})"
    )


def explanation(record: t.Mapping[str, t.Any]) -> list[str]:
    """Return the reasons of the decision, in lines for a person."""
    seen, terms = record["observation"], record["terms"]
    lines = []
    if terms:
        lines.append(
            f"work {terms['work']:.1f} s + margin {terms['margin']:.1f} s, running "
            f"jobs {terms['running']:.1f} s, {terms['coming']} more expected; to be "
            f"started within {record['goal']['desired_wait']:g} s"
        )
        lines.append(
            f"the plain rule of thumb says {terms['rule_of_thumb']}; with running "
            f"jobs, ages and a boot time of {seen['boot']:.0f} s it takes "
            f"{terms['by_deadline']} workers of {seen['slots']} slots"
        )
        for sample in seen["samples"]:
            lines.append(
                f"{sample['drawn']:,} of {sample['jobs']:,} jobs of a queue were drawn "
                f"at random: {terms['sampling']:.1f} s of work, give or take"
            )
        if terms["headroom"]:
            lines.append(f"steady state asks for {terms['headroom']}")
        if terms["floor"]:
            lines.append(f"the floor of this time of the week is {terms['floor']}")
    for function, known in sorted(record["service_times"].items()):
        lines.append(
            f"{function}: {seen['waiting'].get(function, 0)} waiting, "
            f"{known['mean']:.3g} s each ({_origin(known)})"
        )
    return lines


def complaints(record: t.Mapping[str, t.Any]) -> list[str]:
    """Return the obstacles to the goal, in lines for a person."""
    lines = [verdict["text"] for verdict in record["verdicts"]]
    failure = record["observation"]["failure"]
    if failure is not None:
        lines.append(f"The queues could not be read: {failure}")
    if record["error"]:
        lines.append(record["error"]["message"])
    applied = record["applied"]
    if applied and applied["limit"] is not None:
        lines.append(
            f"The platform gave {applied['after']}; its limit is {applied['limit']}."
        )
    return lines


def _origin(known: t.Mapping[str, t.Any]) -> str:
    """Return the source of an estimate, and how much of the time is computing."""
    parts = [known.get("source") or "given"]
    if known["samples"]:
        parts.append(f"{known['samples']:.0f} measured")
    if known.get("computing") is not None:
        parts.append(f"computes for {min(known['computing'], 1):.0%} of its time")
    return ", ".join(parts)
