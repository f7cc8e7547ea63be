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
    help="A bearer key for POST events, a Standard Webhooks signing secret, a bearer "
    "secret for POST worker or for GET metrics, or a key that encrypts what is stored.",
)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object.")
def secret(kind: str, as_json: bool) -> None:
    """Print a new event key, secret or encryption key.

    It is stored nowhere: configure it in the app, and give a key or secret to the
    client. To rotate, list the new one beside the old one with a comma between, move
    the clients over, then remove the old one. An encryption key goes in front of the
    old ones. Those stay until nothing that they encrypted is stored any more.

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
