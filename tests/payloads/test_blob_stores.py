"""Blob stores: one set of promises, a directory and a bucket."""

from __future__ import annotations

import contextlib
import os
import pathlib
import sys
import threading
import typing as t

import pytest
from botocore.awsrequest import AWSPreparedRequest
from botocore.awsrequest import AWSResponse

from flask_durable import ConfigurationError
from flask_durable import PayloadMissing
from flask_durable import PayloadUnavailable
from flask_durable.app.health import HealthChecks
from flask_durable.common.ids import branch_run_id
from flask_durable.common.ids import child_run_id
from flask_durable.common.ids import failure_run_id
from flask_durable.common.ids import run_id
from flask_durable.payloads.blobs import BlobStore
from flask_durable.payloads.reference import folder_of
from flask_durable.payloads.reference import Reference
from flask_durable.payloads.s3 import S3Store
from flask_durable.payloads.sealing import make_blob_store

from ..support.servers import free_port
from ..support.servers import SQSServer
from .conftest import Bucket
from .conftest import Make
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
    sqs: SQSServer,
) -> None:
    store = make_blob_store(f"s3://b?region=us-east-1&endpoint={sqs.endpoint}")
    assert isinstance(store, S3Store)
    first = store._client
    assert store._client is first

    child = os.fork()
    if child == 0:
        code = 1
        with contextlib.suppress(BaseException):
            code = int(store._client is first)
        os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.parametrize(
    "text",
    [
        "blob:",
        "blob:events/abc 3",
        f"blob:events/../{'a' * 64} 3",
        f"blob:../{'a' * 64} 3",
        f"blob:runs/../../etc/{'a' * 64} 3",
        f"blob:runs/R1/{'a' * 64} 3",
        f"blob:runs/0a1b./{'a' * 64} 3",
        f"blob:runs/0a1b.b-/{'a' * 64} 3",
        f"blob:runs/0a1b.../{'a' * 64} 3",
        f"blob:events/{'a' * 64} -3",
        f"blob:events/{'a' * 64} 3\n",
    ],
)
def test_a_reference_leads_to_no_other_place(text: str) -> None:
    with pytest.raises(PayloadMissing, match="malformed"):
        Reference.parse(text)


@pytest.mark.parametrize("kind", ["run", "handler", "child", "branch", "handler's"])
def test_a_reference_is_read_as_it_was_written(kind: str) -> None:
    root = run_id("work", "event")
    child = child_run_id(root, "1", "0", "call")
    branch = branch_run_id(branch_run_id(child, "2", "map", "7"), "3", "map", "ü")
    ids = {
        "run": root,
        "handler": failure_run_id(root, 2),
        "child": child,
        "branch": branch,
        "handler's": branch_run_id(failure_run_id(child, 0), "4", "map", "0"),
    }
    reference = Reference.of(folder_of(ids[kind]), b"large")

    assert Reference.parse(str(reference)) == reference
    assert reference.check(b"large") == b"large"
    for other in (b"Large", b"larg", b""):
        with pytest.raises(PayloadMissing, match="not what was stored"):
            reference.check(other)


# -- Servers that are not Amazon's ------------------------------------------------


class _Refusal(t.NamedTuple):
    """The body of an answer, as botocore reads it."""

    body: bytes

    def stream(self) -> t.Iterator[bytes]:
        yield self.body


def _refuse(
    store: t.Any,
    refuses: t.Callable[[AWSPreparedRequest], bool],
    status: int,
    code: str,
) -> list[str]:
    """Have the store's requests that are meant refused; return those that are sent."""
    sent: list[str] = []

    def answer(request: AWSPreparedRequest, **_: t.Any) -> AWSResponse | None:
        sent.append(request.method)
        if not refuses(request):
            return None
        body = f"<Error><Code>{code}</Code><Message>no</Message></Error>".encode()
        return AWSResponse(request.url, status, {}, _Refusal(body))

    store._client.meta.events.register("before-send.s3", answer)
    return sent


def _removes_many(request: AWSPreparedRequest) -> bool:
    return bool(request.method == "POST")


@pytest.mark.parametrize(
    ("status", "code"),
    [(400, "MissingContentMD5"), (501, "NotImplemented"), (405, "MethodNotAllowed")],
)
def test_a_bucket_that_does_not_remove_many_objects_at_once_removes_each(
    bucket: Bucket, status: int, code: str
) -> None:
    store = make_blob_store(bucket.url)
    sent = _refuse(store, _removes_many, status, code)
    for number in range(2):
        for key in ("a", "b"):
            store.put(f"runs/r{number}/{key}", b"large")
    store.put("events/a", b"large")

    store.remove_folder("runs/r0")
    store.remove_folder("runs/r1")

    assert bucket.keys() == ["events/a"]
    assert sent.count("DELETE") == 4
    assert sent.count("POST") == 1


def test_a_bucket_that_forbids_to_remove_is_not_asked_for_each(bucket: Bucket) -> None:
    store = make_blob_store(bucket.url)
    sent = _refuse(store, _removes_many, 403, "AccessDenied")
    store.put("runs/r/a", b"large")
    with pytest.raises(PayloadUnavailable, match="AccessDenied"):
        store.remove_folder("runs/r")
    assert "DELETE" not in sent


def test_no_checksum_is_sent_that_a_bucket_may_not_know(bucket: Bucket) -> None:
    store = make_blob_store(bucket.url)

    def has_checksum(request: AWSPreparedRequest) -> bool:
        names = [name.lower() for name in request.headers]
        return request.method == "PUT" and any("checksum" in name for name in names)

    _refuse(store, has_checksum, 501, "NotImplemented")
    store.put(KEY, b"large")
    assert bucket.keys() == [KEY]


@pytest.mark.parametrize("method", ["PUT", "GET", "DELETE"])
def test_health_tries_what_events_and_runs_do(
    make: Make, bucket: Bucket, method: str
) -> None:
    harness = make(DURABLE_BLOB_URL=bucket.url)
    store = harness.state.payloads._blobs

    def blob_store() -> bool:
        (check,) = [
            c
            for c in HealthChecks(harness.state).everything()
            if c.name == "blob store"
        ]
        return check.ok

    assert blob_store()
    assert bucket.keys() == []
    _refuse(
        store,
        lambda request: request.method in (method, "POST")[: 1 + (method == "DELETE")],
        403,
        "AccessDenied",
    )
    assert not blob_store()
