"""The addresses that runs of the app make: ``step.create_url``.

::

    <DURABLE_EXTERNAL_URL><DURABLE_URL_PREFIX>/answers/<token>

A worker has no request that says where the app is found from outside, so the setting
does. Without it the app's ``SERVER_NAME`` does, or the request that is being served. A
request to a route of ours says nothing: it comes from a load balancer or a daemon.
"""

from __future__ import annotations

import typing as t

from ..errors import ConfigurationError
from ..security.addresses import AddressSigner

if t.TYPE_CHECKING:
    from flask import Flask

    from ..config.settings import Settings

#: The blueprint, and the endpoint in it, that answers go to.
BLUEPRINT = "durable"
ENDPOINT = "answer"

#: The path of that route below the prefix; the token follows.
ANSWERS_PATH = "/answers/"


class Addresses:
    """Makes addresses, and reads those that come back, for one app."""

    def __init__(self, app: Flask, settings: Settings) -> None:
        self._app = app
        self._settings = settings

    def make(self, run_id: str, step: str) -> str:
        """Return a new address for a step of a run.

        :raises ConfigurationError: The app does not say where it is found, has no
            routes, or has no key to sign with.
        """
        if self._settings.url_prefix is None:
            raise ConfigurationError(
                "An address needs a route of this app: DURABLE_URL_PREFIX is None.",
                hint="Set DURABLE_URL_PREFIX to a path.",
            )
        signer = self._signer
        if signer is None:
            raise ConfigurationError(
                "An address is signed with the app's SECRET_KEY, and there is none.",
                hint="Set app.config['SECRET_KEY'], to the same text in web and worker "
                "processes.",
            )
        token = signer.sign(run_id, step)
        if self._settings.external_url is not None:
            prefix = self._settings.url_prefix.rstrip("/")
            return f"{self._settings.external_url}{prefix}{ANSWERS_PATH}{token}"
        return self._by_flask(token)

    def read(self, token: str) -> tuple[str, str] | None:
        """Return run and step of an address; ``None`` if this app did not sign it."""
        signer = self._signer
        return None if signer is None else signer.read(token)

    @property
    def _signer(self) -> AddressSigner | None:
        # Read at each use, as Flask does for sessions: an app may set them late.
        key = self._app.secret_key
        if not key:
            return None
        fallbacks = self._app.config.get("SECRET_KEY_FALLBACKS") or ()
        return AddressSigner([*fallbacks, key])

    def _by_flask(self, token: str) -> str:
        from flask import has_request_context
        from flask import request

        ours = has_request_context() and request.blueprint == BLUEPRINT
        if not ours:
            try:
                return self._app.url_for(
                    f"{BLUEPRINT}.{ENDPOINT}", token=token, _external=True
                )
            except RuntimeError:  # there is no request, and no SERVER_NAME
                pass
        raise ConfigurationError(
            "This process does not know where the app is found from outside.",
            hint='Set DURABLE_EXTERNAL_URL, such as "https://shop.example".',
        )
