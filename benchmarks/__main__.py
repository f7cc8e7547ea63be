"""``python -m benchmarks``."""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import time

from .model import Benchmark
from .model import Figure
from .model import Options
from .setting import describe

NAMES = (
    "imports",
    "round_trips",
    "suspended",
    "waiting",
    "sqs",
    "sqs_loop",
    "sending",
    "latency",
    "long_runs",
    "throughput",
    "fan_out",
    "observing",
    "memory",
    "scaling",
)


def main() -> int:
    """Measure what is asked for, and return 1 if a budget does not hold."""
    arguments = _parse()
    options = Options(
        quick=arguments.quick,
        rounds=arguments.rounds or (1 if arguments.quick else 3),
        runs=arguments.runs or (5_000 if arguments.quick else 100_000),
        idle=arguments.idle if not arguments.quick else min(arguments.idle, 5),
    )
    setting = describe()
    if not arguments.json:
        for key, value in setting.items():
            print(f"{key + ':':<12}{value}")
        print(f"\n{'':4}{'what':<38}{'budget':>12}{'measured':>12}  unit")
    figures = []
    for name in arguments.names or NAMES:
        started = time.monotonic()
        for figure in _load(name)(options):
            figures.append(figure)
            if not arguments.json:
                _print(figure)
        print(f"{name}: {time.monotonic() - started:.0f} s", file=sys.stderr)
    if arguments.json:
        report = {"setting": setting, "figures": [f.to_json() for f in figures]}
        print(json.dumps(report, indent=2))
    return 0 if all(figure.ok for figure in figures) else 1


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="Measure the engine's budgets."
    )
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)}; default: all"
    )
    parser.add_argument("--quick", action="store_true", help="small and noisy")
    parser.add_argument("--json", action="store_true", help="print a JSON object")
    parser.add_argument("--rounds", type=int, help="repetitions of each timing")
    parser.add_argument("--runs", type=int, help="runs that the memory is taken after")
    parser.add_argument(
        "--idle", type=float, default=120, help="seconds to idle before the latency"
    )
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - set(NAMES):
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    return arguments


def _load(name: str) -> Benchmark:
    # Each on its own: what one of them imports may be what another measures.
    module = importlib.import_module(f"{__package__}.{name}")
    measure: Benchmark = module.measure
    return measure


def _print(figure: Figure) -> None:
    mark, budget = "", "none"
    if figure.budget is not None:
        mark = "ok" if figure.ok else "NO"
        budget = f"{'>=' if figure.at_least else '<='} {figure.budget:g}"
    measured = f"{figure.measured:.4g}"
    print(f"{mark:<4}{figure.name:<38}{budget:>12}{measured:>12}  {figure.unit}")
    if figure.detail:
        print(f"{'':6}{figure.detail}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
