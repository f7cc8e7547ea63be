"""Blob stores: what each of them can do, and where ``DURABLE_BLOB_URL`` says it is."""

from __future__ import annotations

import typing as t
from dataclasses import dataclass
from urllib.parse import parse_qs
from urllib.parse import unquote
from urllib.parse import urlsplit

#: What an address may begin with.
SCHEMES = ("s3", "file")

_PARAMETERS = {"region", "endpoint"}


class BlobStore(t.Protocol):
    """Keeps objects by key. Every method may be called from any thread, and repeated.

    A store connects on first use, anew in every forked process.
    """

    def put(self, key: str, content: bytes) -> None:
        """Store an object; once this returned it is durable and can be read.

        :raises PayloadUnavailable: The store does not answer, or refuses.
        """

    def get(self, key: str) -> bytes | None:
        """Return an object, or ``None`` if there is none.

        :raises PayloadUnavailable: The store does not answer, or refuses.
        """

    def remove_folder(self, folder: str) -> None:
        """Remove every object whose key begins with *folder* and a slash.

        :raises PayloadUnavailable: The store does not answer, or refuses. Some of them
            may be gone.
        """


@dataclass(frozen=True)
class BlobAddress:
    """Where a blob store is.

    :param scheme: ``s3`` or ``file``.
    :param bucket: Of S3.
    :param prefix: Of every key in the bucket, without slashes around it; of ``file``
        the directory.
    :param region: As boto3 finds it, if not given.
    :param endpoint: Another server than Amazon's.
    """

    scheme: str
    bucket: str
    prefix: str
    region: str | None = None
    endpoint: str | None = None

    @classmethod
    def parse(cls, url: str) -> BlobAddress:
        """Return the address that *url* holds.

        :raises ValueError: It is malformed; the text says how, as the rest of a
            sentence, and never repeats the URL.
        """
        parts = urlsplit(url)
        given = parse_qs(parts.query, keep_blank_values=True)
        if parts.scheme == "file":
            if parts.netloc or parts.query or not parts.path.strip("/"):
                raise ValueError(
                    "must be an absolute path, as in file:///var/lib/blobs"
                )
            return cls("file", "", unquote(parts.path))
        if parts.scheme != "s3":
            raise ValueError("must begin with one of s3://, file://")
        if not parts.netloc or "@" in parts.netloc or given.keys() - _PARAMETERS:
            raise ValueError(
                "must be written as s3://bucket/prefix?region=…&endpoint=…; "
                "credentials are found by boto3"
            )
        values = {key: found[-1] for key, found in given.items()}
        return cls("s3", parts.netloc, unquote(parts.path).strip("/"), **values)


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
