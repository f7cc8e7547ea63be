"""Blob stores: one set of promises, a directory and a bucket."""

from __future__ import annotations

import os
import pathlib
import sys
import threading

import pytest

from flask_durable import ConfigurationError
from flask_durable import PayloadMissing
from flask_durable import PayloadUnavailable
from flask_durable.payloads.blobs import BlobStore
from flask_durable.payloads.blobs import make_blob_store
from flask_durable.payloads.reference import Reference
from flask_durable.payloads.s3 import S3Store

from ..servers import free_port
from ..servers import SQSServer
from .conftest import Objects

KEY = "events/" + "a" * 64


@pytest.fixture
def store(objects: Objects) -> BlobStore:
    return make_blob_store(objects.url)


def test_what_was_put_is_got(store: BlobStore, objects: Objects) -> None:
    store.put(KEY, b"\x00large")

    assert store.get(KEY) == b"\x00large"
    assert objects.keys() == [KEY]


def test_what_was_not_put_is_none(store: BlobStore) -> None:
    assert store.get(KEY) is None


def test_putting_again_leaves_one_object(store: BlobStore, objects: Objects) -> None:
    store.put(KEY, b"large")
    store.put(KEY, b"large")

    assert objects.keys() == [KEY]


def test_a_folder_is_removed_whole_and_alone(
    store: BlobStore, objects: Objects
) -> None:
    for key in ("runs/r1/a", "runs/r1/b", "runs/r10/a", "events/a"):
        store.put(key, b"large")

    store.remove_folder("runs/r1")
    store.remove_folder("runs/r1")

    assert objects.keys() == ["events/a", "runs/r10/a"]


def test_a_reader_never_sees_half_an_object(store: BlobStore) -> None:
    content = os.urandom(2**20)
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            store.put(KEY, content)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        seen = {store.get(KEY) for _ in range(20)}
    finally:
        stop.set()
        writer.join()
    assert seen <= {None, content}


def test_a_bucket_that_does_not_exist_is_unavailable(sqs: SQSServer) -> None:
    store = make_blob_store(f"s3://nowhere?region=us-east-1&endpoint={sqs.endpoint}")

    with pytest.raises(PayloadUnavailable, match="NoSuchBucket"):
        store.put(KEY, b"large")
    with pytest.raises(PayloadUnavailable, match="NoSuchBucket") as caught:
        store.get(KEY)
    assert caught.value.code == "payload.unavailable"


def test_an_s3_that_does_not_answer_is_unavailable(sqs: SQSServer) -> None:
    endpoint = f"http://127.0.0.1:{free_port()}"
    store = make_blob_store(f"s3://b?region=us-east-1&endpoint={endpoint}")

    with pytest.raises(PayloadUnavailable, match=r"s3://b cannot be used"):
        store.get(KEY)


def test_a_directory_that_cannot_be_written_is_unavailable(
    tmp_path: pathlib.Path,
) -> None:
    (tmp_path / "blobs").write_text("a file is here")
    store = make_blob_store(f"file://{tmp_path}/blobs")

    with pytest.raises(PayloadUnavailable, match="DURABLE_BLOB_URL"):
        store.put(KEY, b"large")


def test_without_boto3_the_error_names_the_extra(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "boto3.session", None)

    with pytest.raises(ConfigurationError, match="boto3") as caught:
        make_blob_store("s3://bucket")
    assert "flask-durable[s3]" in str(caught.value.hint)


def test_a_forked_process_makes_a_client_of_its_own(
    sqs: SQSServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = make_blob_store(f"s3://b?region=us-east-1&endpoint={sqs.endpoint}")
    assert isinstance(store, S3Store)
    first = store._client
    assert store._client is first
    monkeypatch.setattr(os, "getpid", lambda: -1)

    assert store._client is not first


@pytest.mark.parametrize(
    "text",
    [
        "blob:",
        "blob:events/abc 3",
        f"blob:events/../{'a' * 64} 3",
        f"blob:../{'a' * 64} 3",
        f"blob:runs/../../etc/{'a' * 64} 3",
        f"blob:runs/R1/{'a' * 64} 3",
        f"blob:events/{'a' * 64} -3",
        f"blob:events/{'a' * 64} 3\n",
    ],
)
def test_a_reference_leads_to_no_other_place(text: str) -> None:
    with pytest.raises(PayloadMissing, match="malformed"):
        Reference.parse(text)


def test_a_reference_is_read_as_it_was_written() -> None:
    reference = Reference.of("runs/0a1b.failure-2", b"large")

    assert Reference.parse(str(reference)) == reference
    assert reference.check(b"large") == b"large"
    for other in (b"Large", b"larg", b""):
        with pytest.raises(PayloadMissing, match="not what was stored"):
            reference.check(other)
