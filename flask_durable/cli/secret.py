"""``flask durable secret``: create an event key, or a secret of another kind."""

from __future__ import annotations

import json

import click

from ..config.settings import ENVIRONMENT_PREFIX
from ..payloads.cipher import new_encryption_key
from ..security.keys import new_event_key
from ..security.keys import new_metrics_secret
from ..security.keys import new_push_secret
from ..security.keys import new_signing_secret

_KINDS = {
    "event-key": (new_event_key, "EVENT_KEYS"),
    "signing": (new_signing_secret, "SIGNING_SECRETS"),
    "encryption": (new_encryption_key, "ENCRYPTION_KEYS"),
    "push": (new_push_secret, "PUSH_SECRETS"),
    "metrics": (new_metrics_secret, "METRICS_SECRETS"),
}


@click.command("secret")
@click.option(
    "--kind",
    type=click.Choice(list(_KINDS)),
    default="event-key",
    show_default=True,
    help="event-key: a bearer key for POST events. signing: a Standard Webhooks "
    "signing secret. push, metrics: a bearer secret for POST worker or GET metrics. "
    "encryption: a key that encrypts stored data.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def secret(kind: str, as_json: bool) -> None:
    """Print a new event key, secret or encryption key.

    It is not stored: configure it in the app, and give a key or secret to the client.
    To rotate a key or secret, configure the new and the old one, separated by a comma,
    move the clients to the new one, then remove the old one. A new encryption key goes
    in front of the old ones, which stay as long as data that they encrypted is stored.

    \b
    Examples:
      flask durable secret
      flask durable secret --kind signing --json
      flask durable secret --kind encryption
    """
    make, name = _KINDS[kind]
    value = make()
    variable = ENVIRONMENT_PREFIX + name
    if as_json:
        click.echo(json.dumps({"kind": kind, "secret": value, "variable": variable}))
        return
    click.echo(value)
    click.echo(f"Configure it in the app:\n  export {variable}={value}", err=True)
