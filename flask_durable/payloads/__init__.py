"""What user data looks like wherever it is stored.

Event data, results and failures leave a process for a queue, the state server or the
blob store through one gate, and come back through it: :class:`.codec.Payloads`.

=====================  =====================================================
what is stored         when
=====================  =====================================================
JSON text              neither keys nor a blob store are configured
``encrypted:<token>``  ``DURABLE_ENCRYPTION_KEYS``
``blob:<key> <size>``  it is large, and there is a ``DURABLE_BLOB_URL``; the
                       object is JSON text or ``encrypted:<token>``
=====================  =====================================================

No JSON text begins as the others do, so each value says itself what it is, and the
settings may change while values of both kinds are around.
"""

from __future__ import annotations

#: What the text begins with that stands for an object in the blob store.
BLOB = "blob:"

#: What an encrypted text begins with.
ENCRYPTED = "encrypted:"


def is_sealed(text: str) -> bool:
    """Return whether *text* has to be opened before it is JSON."""
    return text.startswith((BLOB, ENCRYPTED))
