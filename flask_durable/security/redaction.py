"""The hiding of secrets: credentials in URLs, and values named like secrets."""

from __future__ import annotations

import re
import typing as t

#: Parts of the names of values that are hidden, by default.
REDACT_KEYS = (
    *("password", "passwd", "passphrase", "secret", "token", "authorization"),
    *("cookie", "session", "credential", "api_key", "private_key", "access_key"),
    *("signature", "card_number", "cvv"),
)

#: The text in the place of a hidden value.
REDACTED = "[redacted]"


_CREDENTIALS = re.compile(r"^([A-Za-z][A-Za-z0-9+.\-]*://)?.*@", re.DOTALL)
_SECRET_PARAMETER = re.compile(
    r"([?&][^=&#]*(?:user|pass|secret|token|key|auth)[^=&#]*=)[^&#]*", re.IGNORECASE
)


def mask_url(url: str) -> str:
    """Return *url* with its user name, password and secret parameters as ``***``.

    Everything up to the last ``@`` counts as credentials, since a password that was
    not quoted may contain ``/``, ``#`` and ``@`` itself.
    """
    masked = _CREDENTIALS.sub(lambda found: f"{found[1] or ''}***@", url)
    return _SECRET_PARAMETER.sub(r"\1***", masked)


class Redaction:
    """Replaces values with the name of a secret, however deep they are.

    :param words: The parts of such names, in any case and with or without hyphens and
        underscores: ``"api_key"`` is in ``X-Api-Key`` and in ``openaiApiKey``.
    """

    def __init__(self, words: t.Iterable[str]) -> None:
        self._words = tuple(_plain(word) for word in words)

    def __call__(self, value: t.Any) -> t.Any:
        """Return *value* with secrets replaced; mappings and lists are copied."""
        if isinstance(value, t.Mapping):
            return {
                key: REDACTED if self.hides(key) else self(member)
                for key, member in value.items()
            }
        if isinstance(value, (list, tuple)):
            return [self(member) for member in value]
        return value

    def hides(self, name: object) -> bool:
        """Return whether a value with this *name* is hidden."""
        plain = _plain(str(name))
        return any(word in plain for word in self._words)


def _plain(name: str) -> str:
    return name.lower().replace("-", "").replace("_", "")
