"""The gate between user data and its stores: seal on the way out, open on the way in.

A process that dies in between leaves:

=====================================  =============================================
it dies after                          then
=====================================  =============================================
=====================================  =============================================
an event's object is written           no message refers to it; the lifecycle of
                                       ``events/`` removes it
the run is marked as having objects    nothing is there to be removed with it
a result's object is written           no memo refers to it; it goes with the run. The
                                       step runs again and writes the same object, or
                                       another one beside it
the run's copy of its event is         the next attempt finds and uses it
written
an expiring run's objects are removed  the run is marked: it can no longer be retried;
                                       another sweeper removes the rest, then the run
=====================================  =============================================

An object is written before anything refers to it, and its key is the hash of its
content. So no reference is ever ahead of its object, and no writer changes an object
that another refers to.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import typing as t
import zlib

from ..common.ids import ancestors_of
from ..errors import DurableError
from ..errors import Failure
from ..errors import PayloadLocked
from ..errors import PayloadMissing
from ..messages import BLOB
from ..messages import decode
from ..messages import ENCRYPTED
from ..messages import EventMessage
from ..messages import is_sealed
from ..messages import read_json
from .blobs import BlobAddress
from .blobs import BlobStore
from .cipher import Cipher
from .cipher import KEYED
from .reference import EVENTS
from .reference import folder_of
from .reference import HEALTH
from .reference import Reference

#: Bytes from which on a result goes to the blob store in a run with large memos.
CROWDED_LIMIT = 1024

Hold = t.Callable[[], None]


class Payloads:
    """Seals and opens user data.

    :param inline_limit: Bytes of JSON from which on values go to the blob store.
    :param cipher: The cipher for stored data; ``None`` leaves it readable.
    :param blobs: The store for large values; ``None`` keeps them with the others.
    """

    def __init__(
        self,
        inline_limit: int,
        *,
        cipher: Cipher | None = None,
        blobs: BlobStore | None = None,
    ) -> None:
        self._inline_limit = inline_limit
        self._cipher = cipher
        self._blobs = blobs
        #: True if everything is stored as it is.
        self.plain = cipher is None and blobs is None

    # -- On the way out -----------------------------------------------------------

    def seal_event(self, message: EventMessage, *, inline: bool = False) -> str:
        """Return the text of *message* as a queue and a run keep it.

        Its name, id, time and headers stay readable.

        :param inline: True to leave large data in the text.
        :raises PayloadUnavailable: The blob store did not take its data.
        """
        text = message.encode()
        large = not inline and self._blobs is not None
        large = large and len(text) > self._inline_limit
        if self._cipher is None and not large:
            return text
        data = json.dumps(message.data, separators=(",", ":"))
        sealed = self._check_in(EVENTS, data) if large else self.seal_text(data)
        return dataclasses.replace(message, data=sealed).encode()

    def seal_result(
        self, text: str, run_id: str, *, hold: Hold, crowded: bool = False
    ) -> str:
        """Return the result of a step or of a run as the state server keeps it.

        :param text: The result as JSON.
        :param hold: Called before an object is written; notes that the run has objects.
        :param crowded: True if the run's memos are so large that small results go to
            the blob store too.
        :raises PayloadUnavailable: The blob store did not take the result.
        """
        if self._blobs is not None:
            limit = CROWDED_LIMIT if crowded else self._inline_limit
            # Four bytes at most a character: see engine/steps/outcome.py.
            if len(text) * 4 > limit and len(text.encode()) > limit:
                hold()
                return self._check_in(folder_of(run_id), text)
        return self.seal_text(text)

    def seal_failure(self, failure: Failure) -> str:
        """Return *failure* as the state server keeps it: its size is limited."""
        return self.seal_text(failure.to_json())

    def seal_text(self, text: str) -> str:
        """Return *text*, which is short, as the state server keeps it."""
        return text if self._cipher is None else self._cipher.encrypt(text)

    # -- Compared without being opened ---------------------------------------------

    def digest(self, content: bytes) -> str:
        """Return a short digest of *content*; keys are needed to guess by it."""
        if self._cipher is not None:
            return self._cipher.digest(content)
        return f"{zlib.crc32(content):08x}"

    def differs(self, digest: str, content: bytes) -> bool:
        """Return True if *digest* is certainly not that of *content*.

        It is not certain without the key that made the digest.
        """
        if not digest.startswith(KEYED):
            return digest != f"{zlib.crc32(content):08x}"
        cipher = self._cipher
        if cipher is None or not cipher.knows(digest):
            return False
        return not cipher.is_digest_of(digest, content)

    def index_digests(self, content: bytes) -> list[str]:
        """Return the digests under which *content* may be found, one a key."""
        if self._cipher is not None:
            return self._cipher.index_digests(content)
        return [hashlib.blake2b(content, digest_size=16).hexdigest()]

    def index_digest(self, content: bytes) -> str:
        """Return the digest under which *content* is to be found.

        It is made with the last key: while a key is being added or removed, all
        processes have the last one.
        """
        return self.index_digests(content)[-1]

    # -- On the way in ------------------------------------------------------------

    def open(self, sealed: str) -> str:
        """Return the text that was sealed. Text that was never sealed stays as it is.

        :raises PayloadMissing: The text's object is gone, or is another one.
        :raises PayloadLocked: A setting is missing here.
        :raises PayloadUnavailable: The blob store does not answer.
        """
        if not is_sealed(sealed):
            return sealed
        if sealed.startswith(BLOB):
            return self._opened(self._find(Reference.parse(sealed))[1])
        return self._decrypted(sealed)

    def open_failure(self, sealed: str) -> Failure:
        """Return the failure that was sealed; raises as :meth:`open` does."""
        return Failure.from_json(self.open(sealed))

    def readable_failure(self, sealed: str) -> Failure | None:
        """Return the failure that was sealed, or ``None`` if it cannot be opened."""
        try:
            return self.open_failure(sealed)
        except DurableError:
            return None

    def open_event(self, message: EventMessage, *owners: str) -> EventMessage:
        """Return *message* with its data; raises as :meth:`open` does.

        :param owners: Ids of runs that may have a copy of the data. An event's own
            object is not kept for as long as its runs are.
        """
        if not isinstance(message.data, str):
            return message
        if not message.data.startswith(BLOB):
            return _with_data(message, self.open(message.data))
        reference = Reference.parse(message.data)
        return _with_data(message, self._opened(self._find(reference, *owners)[1]))

    def open_event_of_run(
        self, run_id: str, record: t.Mapping[str, str]
    ) -> EventMessage:
        """Return the event of a run by its record; raises as :meth:`open` does."""
        message = decode(record["event"])
        assert isinstance(message, EventMessage)
        failed = [record["failed_run"]] if "failed_run" in record else []
        return self.open_event(message, run_id, *ancestors_of(run_id), *failed)

    def open_inline_event(self, message: EventMessage) -> EventMessage | None:
        """Return *message* with its data, ``None`` if that is in the blob store."""
        if isinstance(message.data, str) and message.data.startswith(BLOB):
            return None
        return self.open_event(message)

    def adopt_event(
        self,
        message: EventMessage,
        run_id: str,
        *,
        failed_run: str,
        held: bool,
        hold: Hold,
    ) -> EventMessage:
        """Return *message* with its data, after making sure the run has a copy.

        :param failed_run: The id of the run whose failure this one handles; may be
            empty.
        :param held: True if the run was marked before as having objects.
        :param hold: Called to mark the run.
        """
        if not isinstance(message.data, str) or not message.data.startswith(BLOB):
            return self.open_event(message)
        reference = Reference.parse(message.data)
        owners = [owner for owner in (run_id if held else "", failed_run) if owner]
        key, content = self._find(reference, *owners)
        own = reference.within(folder_of(run_id))
        if key != own.key:
            hold()
            self._store.put(own.key, content)
        return _with_data(message, self._opened(content))

    # -- Of a run that is removed -------------------------------------------------

    @property
    def has_blobs(self) -> bool:
        """True if there is a blob store."""
        return self._blobs is not None

    def remove_run(self, run_id: str) -> None:
        """Remove every object of a run.

        :raises PayloadUnavailable: The blob store does not answer.
        """
        self._store.remove_folder(folder_of(run_id))

    def check(self) -> None:
        """Store, read and remove an object, as events and runs do.

        :raises PayloadUnavailable: The store does not answer, or refuses a call.
        """
        if self._blobs is not None:
            # One object for all checks. If another check has just removed it, that is
            # no fault, and an object that cannot be removed stays a single one.
            key = f"{HEALTH}/object"
            self._blobs.put(key, b"health")
            self._blobs.get(key)
            self._blobs.remove_folder(HEALTH)

    # -- Inside -------------------------------------------------------------------

    @property
    def _store(self) -> BlobStore:
        if self._blobs is None:
            raise PayloadLocked(
                "The data is in a blob store, and this process has none.",
                hint="Set DURABLE_BLOB_URL as in the process that stored it.",
            )
        return self._blobs

    def _check_in(self, folder: str, text: str) -> str:
        content = self.seal_text(text).encode()
        reference = Reference.of(folder, content)
        self._store.put(reference.key, content)
        return str(reference)

    def _find(self, reference: Reference, *owners: str) -> tuple[str, bytes]:
        """Return the key and the content of the object."""
        copies = [reference.within(folder_of(owner)) for owner in owners]
        for place in (*copies, reference):
            content = self._store.get(place.key)
            if content is not None:
                return place.key, reference.check(content)
        raise PayloadMissing(
            f"The object {reference.key} is not in the blob store.",
            hint="Restore it, and retry the run. Its lifecycle may be too short.",
        )

    def _opened(self, content: bytes) -> str:
        text = content.decode()
        return self._decrypted(text) if text.startswith(ENCRYPTED) else text

    def _decrypted(self, sealed: str) -> str:
        if self._cipher is None:
            raise PayloadLocked(
                "The data is encrypted, and this process has no key.",
                hint="Set DURABLE_ENCRYPTION_KEYS as in the process that stored it.",
            )
        return self._cipher.decrypt(sealed)


def _with_data(message: EventMessage, text: str) -> EventMessage:
    try:
        data = read_json(text)
    except ValueError:
        data = None
    if not isinstance(data, dict):
        raise PayloadMissing(f"The data of event {message.id} is not a JSON object.")
    return dataclasses.replace(message, data=data)


def make_blob_store(url: str) -> BlobStore:
    """Return the blob store at *url*. Nothing is connected to.

    :raises ConfigurationError: boto3 is not installed, and *url* names S3.
    """
    address = BlobAddress.parse(url)
    if address.scheme == "file":
        from .files import FileStore

        return FileStore(address.prefix)
    from .s3 import S3Store

    return S3Store(address)
