"""The claim check: the text in the place of a value that is in the blob store."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from ..errors import PayloadMissing
from ..messages import BLOB

#: Folder of the data of events, below the prefix of the store.
EVENTS = "events"

#: Folder of the object that a check of the blob store writes.
HEALTH = "health"

#: The rest of a run's id after its first part, see ``common/ids.py``: of a child, of a
#: branch, of a failure handler's run.
_SUFFIX = r"\.(?:[0-9a-v]{26}|b-[0-9a-v]{16}|failure(?:-[0-9]+)?)"

_REFERENCE = re.compile(
    BLOB + rf"((?:events|runs/[0-9a-v]{{1,64}}(?:{_SUFFIX})*)/[0-9a-f]{{64}})"
    r" ([0-9]{1,12})"
)


@dataclass(frozen=True)
class Reference:
    """Names an object by its content, so that it can be written twice, never changed.

    Its text is ``blob:<key> <size>``, and the last part of the key is the SHA-256 of
    the object: ``blob:events/9f86d0… 5242880``.

    :param key: The place of the object, below the prefix of the store.
    :param size: The bytes of the object.
    """

    key: str
    size: int

    @classmethod
    def of(cls, folder: str, content: bytes) -> Reference:
        """Return the reference to *content* in *folder*."""
        return cls(f"{folder}/{hashlib.sha256(content).hexdigest()}", len(content))

    @classmethod
    def parse(cls, text: str) -> Reference:
        """Return the reference that *text* holds.

        :raises PayloadMissing: The text is malformed, or names a foreign place: a text
            from a queue or server must not lead to other files.
        """
        found = _REFERENCE.fullmatch(text)
        if found is None:
            raise PayloadMissing(
                "The reference to an object in the blob store is malformed."
            )
        return cls(found[1], int(found[2]))

    def __str__(self) -> str:
        return f"{BLOB}{self.key} {self.size}"

    @property
    def sha256(self) -> str:
        """The SHA-256 of the object."""
        return self.key.rpartition("/")[2]

    def within(self, folder: str) -> Reference:
        """Return the reference to a copy of the same object in *folder*."""
        return Reference(f"{folder}/{self.sha256}", self.size)

    def check(self, content: bytes) -> bytes:
        """Return *content* if the reference is to it.

        :raises PayloadMissing: The reference is to another content.
        """
        if len(content) != self.size or hashlib.sha256(content).hexdigest() != (
            self.sha256
        ):
            raise PayloadMissing(
                f"The object {self.key} in the blob store is not what was stored.",
                hint="Restore the version whose SHA-256 is the last part of its key.",
            )
        return content


def folder_of(run_id: str) -> str:
    """Return the folder of everything that belongs to a run and goes with it."""
    return f"runs/{run_id}"
