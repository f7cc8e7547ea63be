"""Blob stores: their common protocol, and the address in ``DURABLE_BLOB_URL``."""

from __future__ import annotations

import typing as t
from dataclasses import dataclass
from urllib.parse import parse_qs
from urllib.parse import unquote
from urllib.parse import urlsplit

_PARAMETERS = {"region", "endpoint"}


class BlobStore(t.Protocol):
    """Keeps objects by key. Every method may be called from any thread, and repeated.

    A store connects on first use, and again in each forked process.
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

        :raises PayloadUnavailable: The store does not answer, or refuses. Some objects
            may be gone.
        """


@dataclass(frozen=True)
class BlobAddress:
    """The address of a blob store.

    :param scheme: The word ``s3`` or ``file``.
    :param bucket: The bucket on S3.
    :param prefix: The prefix of every key in the bucket, without slashes around it; for
        ``file`` the directory.
    :param region: The region; by default the one that boto3 finds.
    :param endpoint: The address of a server other than Amazon's.
    """

    scheme: str
    bucket: str
    prefix: str
    region: str | None = None
    endpoint: str | None = None

    @classmethod
    def parse(cls, url: str) -> BlobAddress:
        """Return the address that *url* holds.

        :raises ValueError: The URL is malformed; the text says how, as the rest of a
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
