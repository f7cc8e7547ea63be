"""What user data looks like wherever it is stored.

Event data and results leave a process for a queue, the state server or the blob store
through one gate, and come back through it: :class:`.codec.Payloads`.

=====================  =====================================================
what is stored         when
=====================  =====================================================
JSON text              it is small, or there is no ``DURABLE_BLOB_URL``
``blob:<key> <size>``  else: it names an object in the blob store
=====================  =====================================================

No JSON text begins as the other does, so each value says itself what it is, and the
settings may change while values of both kinds are around.
"""

from __future__ import annotations

#: What the text begins with that stands for an object in the blob store.
BLOB = "blob:"


def is_sealed(text: str) -> bool:
    """Return whether *text* has to be opened before it is JSON."""
    return text.startswith(BLOB)
