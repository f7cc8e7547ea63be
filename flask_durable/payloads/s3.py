"""A blob store in a bucket of S3, or of a server that speaks its protocol."""

from __future__ import annotations

import typing as t
from contextlib import contextmanager

from ..clients.aws import load_boto3
from ..clients.aws import new_client
from ..common.processes import PerProcess
from ..errors import PayloadUnavailable
from .blobs import BlobAddress

#: Seconds to wait for a connection and for a reply, and tries of a call. A request that
#: sends an event waits for all of them.
S3_CONNECT_TIMEOUT = 2
S3_READ_TIMEOUT = 13
S3_TRIES = 3

_MISSING = {"NoSuchKey", "404"}

#: HTTP statuses by which a server refuses a kind of call, not its object.
_UNKNOWN_CALL = {400, 404, 405, 411, 501}

#: Options that leave out checksums where they are not required: servers other than
#: Amazon's refuse newer checksums than they know. A stored object is compared with its
#: hash whenever it is read.
_LENIENT = {
    "request_checksum_calculation": "when_required",
    "response_checksum_validation": "when_required",
}


class S3Store:
    """Keeps each object under the prefix of the address.

    :raises ConfigurationError: boto3 is not installed.
    """

    def __init__(self, address: BlobAddress) -> None:
        self._errors = load_boto3("A DURABLE_BLOB_URL of S3", "s3")
        self._address = address
        self._clients: PerProcess[t.Any] = PerProcess(self._new_client)
        #: True once the server has refused to remove many objects by one call.
        self._one_by_one = False

    def put(self, key: str, content: bytes) -> None:
        """Store an object, see :class:`~flask_durable.payloads.blobs.BlobStore`."""
        with self._answers(key):
            self._client.put_object(**self._place(key), Body=content)

    def get(self, key: str) -> bytes | None:
        """Return an object, see :class:`~flask_durable.payloads.blobs.BlobStore`."""
        with self._answers(key):
            try:
                reply = self._client.get_object(**self._place(key))
                return t.cast(bytes, reply["Body"].read())
            except self._errors.ClientError as error:
                if error.response["Error"]["Code"] in _MISSING:
                    return None
                raise

    def remove_folder(self, folder: str) -> None:
        """Remove objects, see :class:`~flask_durable.payloads.blobs.BlobStore`."""
        bucket, prefix = self._place(folder).values()
        with self._answers(folder):
            pages = self._client.get_paginator("list_objects_v2")
            # Pages of up to a thousand keys, which is the limit of one call.
            for page in pages.paginate(Bucket=bucket, Prefix=f"{prefix}/"):
                keys = [{"Key": found["Key"]} for found in page.get("Contents", ())]
                if keys:
                    self._remove(bucket, keys)

    def _remove(self, bucket: str, keys: list[dict[str, str]]) -> None:
        if not self._one_by_one:
            try:
                return self._remove_at_once(bucket, keys)
            except self._errors.ClientError as error:
                status = error.response.get("ResponseMetadata", {}).get(
                    "HTTPStatusCode"
                )
                if status not in _UNKNOWN_CALL:
                    raise
                # The server does not know the call's checksum, or the call itself.
        for key in keys:
            self._client.delete_object(Bucket=bucket, **key)
        self._one_by_one = True

    def _remove_at_once(self, bucket: str, keys: list[dict[str, str]]) -> None:
        reply = self._client.delete_objects(
            Bucket=bucket, Delete={"Objects": keys, "Quiet": True}
        )
        for failed in reply.get("Errors", ()):
            raise PayloadUnavailable(
                f"The blob store did not remove {failed.get('Key')}: "
                f"{failed.get('Code')}.",
                hint="Allow s3:DeleteObject on the bucket.",
            )

    def _place(self, key: str) -> dict[str, str]:
        prefix = self._address.prefix
        path = f"{prefix}/{key}" if prefix else key
        return {"Bucket": self._address.bucket, "Key": path}

    @contextmanager
    def _answers(self, what: str) -> t.Iterator[None]:
        try:
            yield
        except (self._errors.BotoCoreError, self._errors.ClientError) as error:
            raise PayloadUnavailable(
                f"The blob store s3://{self._address.bucket} cannot be used for "
                f"{what}: {error}.",
                hint="Check DURABLE_BLOB_URL, the credentials and their permissions.",
            ) from error

    @property
    def _client(self) -> t.Any:
        return self._clients.get()

    def _new_client(self) -> t.Any:
        return new_client(
            "s3",
            self._address.region,
            self._address.endpoint,
            tries=S3_TRIES,
            connect_timeout=S3_CONNECT_TIMEOUT,
            read_timeout=S3_READ_TIMEOUT,
            where_known=_LENIENT,
            max_pool_connections=32,
        )
