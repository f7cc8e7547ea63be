"""A blob store in a directory of this host, or of a file system that hosts share."""

from __future__ import annotations

import os
import shutil
import typing as t
import uuid
from contextlib import contextmanager
from contextlib import suppress
from pathlib import Path

from ..errors import PayloadUnavailable


class FileStore:
    """Keeps each object in a file.

    :param directory: The directory, which is made when the first object is stored.
    """

    def __init__(self, directory: str) -> None:
        self._root = Path(directory)

    def put(self, key: str, content: bytes) -> None:
        """Store an object, see :class:`~flask_durable.payloads.blobs.BlobStore`."""
        target = self._root / key
        with _answers(key):
            target.parent.mkdir(parents=True, exist_ok=True)
            # Under another name first: no reader finds half of it, and a durable
            # message must not refer to a file that a power failure takes away.
            draft = target.with_name(f"{target.name}.{uuid.uuid4().hex}")
            try:
                with open(draft, "xb") as file:
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
                os.replace(draft, target)
            finally:
                draft.unlink(missing_ok=True)
            for folder in (target.parent, *target.parent.parents):
                _fsync_folder(folder)
                if folder == self._root:
                    break

    def get(self, key: str) -> bytes | None:
        """Return an object, see :class:`~flask_durable.payloads.blobs.BlobStore`."""
        with _answers(key):
            try:
                return (self._root / key).read_bytes()
            except FileNotFoundError:
                return None

    def remove_folder(self, folder: str) -> None:
        """Remove objects, see :class:`~flask_durable.payloads.blobs.BlobStore`."""
        # An earlier call, or another worker's, may have removed it.
        with _answers(folder), suppress(FileNotFoundError):
            shutil.rmtree(self._root / folder)


@contextmanager
def _answers(what: str) -> t.Iterator[None]:
    try:
        yield
    except OSError as error:
        raise PayloadUnavailable(
            f"The directory of DURABLE_BLOB_URL cannot be used for {what}: "
            f"{error.strerror or error}.",
            hint="Check that it exists, has room, and is writable for this process.",
        ) from error


def _fsync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
