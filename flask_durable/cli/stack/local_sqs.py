"""The SQS endpoint of ``flask durable dev --queue sqs``: moto's server, in memory.

It runs in a process of its own: ``python -m flask_durable.cli.stack.local_sqs PORT``.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import threading
import typing as t

from ...errors import ConfigurationError

REGION = "us-east-1"

#: Credentials of the real account that the children must not see.
_REAL = ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_SECURITY_TOKEN", "AWS_ROLE_ARN")


def check_installed() -> None:
    """Check that moto and boto3 are installed.

    :raises ConfigurationError: One of them is not installed.
    """
    for name in ("moto", "flask_cors", "boto3"):
        if importlib.util.find_spec(name) is None:
            raise ConfigurationError(
                f"The local SQS endpoint needs the package {name!r}.",
                hint='Run `pip install "flask-durable[dev-sqs]"`.',
            )


def environment(inherited: t.Mapping[str, str], endpoint: str) -> dict[str, str]:
    """Return *inherited* with the queue at *endpoint* and made-up credentials."""
    kept = {name: value for name, value in inherited.items() if name not in _REAL}
    return {
        **kept,
        "FLASK_DURABLE_QUEUE_URL": f"sqs://?region={REGION}&endpoint={endpoint}",
        "AWS_ACCESS_KEY_ID": "local",
        "AWS_SECRET_ACCESS_KEY": "local",
        "AWS_DEFAULT_REGION": REGION,
        "AWS_EC2_METADATA_DISABLED": "true",
    }


def main() -> None:
    """Serve until the process is ended."""
    import logging

    from moto.server import ThreadedMotoServer

    # A line for each request would hide everything else.
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(
        ip_address="127.0.0.1", port=int(sys.argv[1]), verbose=False
    )
    server.start()
    print(f"SQS endpoint ready (process {os.getpid()})", file=sys.stderr)
    threading.Event().wait()


if __name__ == "__main__":
    main()
