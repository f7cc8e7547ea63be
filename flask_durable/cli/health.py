"""``flask durable health``: check the servers and workers that runs need."""

from __future__ import annotations

import click
from flask.cli import with_appcontext

from .output import echo_json
from .output import echo_table
from .output import style
from .problems import current_durable
from .problems import UNREACHABLE


@click.command("health")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@with_appcontext
def health(as_json: bool) -> None:
    """Check the servers and workers; one line each.

    The exit code is 0 when all is well and 3 when something is not, so that it serves
    as a probe.

    \b
    Examples:
      flask durable health
      flask durable health --json
    """
    checks = current_durable().health()
    if as_json:
        echo_json(
            [
                {"name": check.name, "ok": check.ok, "detail": check.detail}
                for check in checks
            ]
        )
    else:
        echo_table(
            ("check", "state", "detail"),
            [(check.name, _state(check.ok), check.detail) for check in checks],
        )
    if not all(check.ok for check in checks):
        click.get_current_context().exit(UNREACHABLE)


def _state(ok: bool) -> str:
    return style("ok", fg="green") if ok else style("FAILED", fg="red", bold=True)
