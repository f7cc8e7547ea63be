"""The check of the TLS files in a server's URL, before any connection.

Without it a file that is missing in this container looks like a server that is away:
"No such file or directory", behind a host and a port.
"""

from __future__ import annotations

import os
import ssl
import typing as t
from functools import partial

from ..errors import ConfigurationError


def check_tls(options: t.Mapping[str, t.Any]) -> None:
    """Load the files in *options*: certificates of authorities, the own one, its key.

    :param options: The options of redis-py, as they stand in a URL.
    :raises ConfigurationError: A file is missing or cannot be read, or there is no
        certificate in it, or not the key of the certificate.
    """
    names = ("ssl_ca_certs", "ssl_ca_path", "ssl_certfile", "ssl_keyfile")
    paths = {name: options[name] for name in names if name in options}
    for name, path in paths.items():
        if not os.path.exists(path):
            raise _unusable(name, path, "There is no such file.")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    for name, argument in (("ssl_ca_certs", "cafile"), ("ssl_ca_path", "capath")):
        if name in paths:
            given = {argument: paths[name]}
            _load(name, paths[name], partial(context.load_verify_locations, **given))
    if "ssl_keyfile" in paths and "ssl_certfile" not in paths:
        raise ConfigurationError(
            "A server's URL has the option ssl_keyfile without ssl_certfile.",
            hint="Give both, or none of them.",
        )
    if "ssl_certfile" in paths:
        path = paths["ssl_certfile"]
        # Without a password OpenSSL would ask for one at the terminal.
        password = options.get("ssl_password", "")
        key = paths.get("ssl_keyfile")
        _load(
            "ssl_certfile", path, partial(context.load_cert_chain, path, key, password)
        )


def _load(name: str, path: str, load: t.Callable[[], None]) -> None:
    try:
        load()
    except (OSError, ValueError) as error:  # ssl.SSLError is one of the former
        raise _unusable(name, path, f"{error}.") from None


def _unusable(name: str, path: str, problem: str) -> ConfigurationError:
    return ConfigurationError(
        f"The option {name} of a server's URL names {path!r}, which cannot be used: "
        f"{problem}",
        hint="Correct the path in the URL, or bring the file into this container.",
    )
