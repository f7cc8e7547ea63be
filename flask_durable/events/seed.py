"""The header with which Inngest's SDKs make the ids of a request repeatable.

``x-inngest-event-id-seed: <milliseconds>,<base64 of 10 bytes>`` is chosen once for a
call to ``send``, and is the same in all of its tries. The event at each place of the
request has a ULID of its own: the time is that of the seed, and the randomness is that
of the seed with the place, counted from 1, added to its last four bytes.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass

#: The header's name.
SEED_HEADER = "x-inngest-event-id-seed"

_SEED = re.compile(r"([0-9]{1,15}),([A-Za-z0-9+/]{14}==)")
_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


@dataclass(frozen=True)
class Seed:
    """The time and the random bytes that the ids of one request derive from.

    :param millis: Milliseconds since 1970, below 2 to the power of 48.
    :param entropy: Ten random bytes.
    """

    millis: int
    entropy: bytes

    @classmethod
    def parse(cls, text: str) -> Seed | None:
        """Return the seed that a header holds, or ``None`` if it holds none."""
        found = _SEED.fullmatch(text.strip())
        if found is None or int(found[1]) >= 2**48:
            return None
        return cls(int(found[1]), binascii.a2b_base64(found[2]))

    @classmethod
    def of_event(cls, id: str, at: int) -> Seed:
        """Return the seed of a request that sends one event, always the same.

        :param at: The time of the event, milliseconds since 1970.
        """
        return cls(at, hashlib.sha256(id.encode()).digest()[:10])

    def __str__(self) -> str:
        return f"{self.millis},{base64.b64encode(self.entropy).decode()}"

    def event_id(self, index: int) -> str:
        """Return the id of the event at *index* of the request, counted from 0."""
        last = int.from_bytes(self.entropy[6:], "big") + index + 1
        entropy = self.entropy[:6] + (last % 2**32).to_bytes(4, "big")
        number = int.from_bytes(self.millis.to_bytes(6, "big") + entropy, "big")
        digits = (_ALPHABET[number >> shift & 31] for shift in range(125, -1, -5))
        return "".join(digits)
