"""Checks of the ports on which the web app and the SQS endpoint listen."""

from __future__ import annotations

import http.client
import ipaddress
import socket

from ...errors import UnavailableError

#: Seconds that an answer may take.
_TIMEOUT = 5.0


def is_loopback(host: str) -> bool:
    """Return whether *host* can be reached from this machine only."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def check_port(host: str, port: int) -> None:
    """Check that the web app can listen on *host* and *port*.

    :raises UnavailableError: The port cannot be used; the message gives the reason.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        # As the web server itself does: a port in TIME_WAIT is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise UnavailableError(
                f"The web app cannot listen on {host}:{port}: {error.strerror}.",
                hint="Choose another port with --port; 0 takes a free one.",
            ) from None


def accepts(host: str, port: int) -> bool:
    """Return whether a server takes connections there."""
    try:
        socket.create_connection((host, port), timeout=_TIMEOUT).close()
    except OSError:
        return False
    return True


def answers(host: str, port: int, path: str) -> bool:
    """Return whether a web server there answers a ``GET`` without a server error."""
    connection = http.client.HTTPConnection(host, port, timeout=_TIMEOUT)
    try:
        connection.request("GET", path)
        return connection.getresponse().status < 500
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
