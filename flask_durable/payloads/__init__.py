"""The stored forms of user data.

Event data, results and failures leave a process for a queue, the state server or the
blob store through one gate, and come back through it: :class:`.sealing.Payloads`.

=====================  =====================================================
what is stored         when
=====================  =====================================================
JSON text              neither keys nor a blob store are configured
``encrypted:<token>``  ``DURABLE_ENCRYPTION_KEYS``
``blob:<key> <size>``  it is large, and there is a ``DURABLE_BLOB_URL``; the
                       object is JSON text or ``encrypted:<token>``
=====================  =====================================================

No JSON text begins like the other forms, so each value shows its own form, and the
settings may change while values of several forms are stored.
"""

from __future__ import annotations
