"""Blob stores of each kind, and apps that have one."""

from __future__ import annotations

import pathlib
import typing as t

import boto3
import pytest

from ..support.harness import Harness
from ..support.servers import SQSServer

#: More than the inline limit that the apps have here.
LARGE = 40_000
INLINE = 2048


class Objects:
    """The objects of a blob store, seen from outside."""

    url: str

    def keys(self) -> list[str]:
        raise NotImplementedError

    def read(self, key: str) -> bytes:
        raise NotImplementedError

    def write(self, key: str, content: bytes) -> None:
        raise NotImplementedError

    def remove(self, key: str) -> None:
        raise NotImplementedError

    def of_runs(self) -> list[str]:
        return [key for key in self.keys() if key.startswith("runs/")]

    def of_events(self) -> list[str]:
        return [key for key in self.keys() if key.startswith("events/")]

    def lose(self, folder: str) -> None:
        """Remove every object of *folder*, after a check that there are some."""
        lost = [key for key in self.keys() if key.startswith(folder)]
        assert lost, f"nothing is in {folder}"
        for key in lost:
            self.remove(key)


class Files(Objects):
    def __init__(self, root: pathlib.Path) -> None:
        self.root = root
        self.url = f"file://{root}"

    def keys(self) -> list[str]:
        files = (path for path in self.root.rglob("*") if path.is_file())
        return sorted(str(path.relative_to(self.root)) for path in files)

    def read(self, key: str) -> bytes:
        return (self.root / key).read_bytes()

    def write(self, key: str, content: bytes) -> None:
        (self.root / key).write_bytes(content)

    def remove(self, key: str) -> None:
        (self.root / key).unlink()


class Bucket(Objects):
    def __init__(self, name: str, endpoint: str) -> None:
        self.client: t.Any = boto3.client("s3", endpoint_url=endpoint)
        self.client.create_bucket(Bucket=name)
        self.name = name
        self.url = f"s3://{name}/shop?region=us-east-1&endpoint={endpoint}"

    def keys(self) -> list[str]:
        found = self.client.list_objects_v2(Bucket=self.name).get("Contents", ())
        return sorted(item["Key"].removeprefix("shop/") for item in found)

    def read(self, key: str) -> bytes:
        place = {"Bucket": self.name, "Key": f"shop/{key}"}
        return t.cast(bytes, self.client.get_object(**place)["Body"].read())

    def write(self, key: str, content: bytes) -> None:
        self.client.put_object(Bucket=self.name, Key=f"shop/{key}", Body=content)

    def remove(self, key: str) -> None:
        self.client.delete_object(Bucket=self.name, Key=f"shop/{key}")


@pytest.fixture
def files(tmp_path: pathlib.Path) -> Files:
    return Files(tmp_path / "blobs")


@pytest.fixture
def bucket(sqs: SQSServer, namespace: str) -> t.Iterator[Bucket]:
    """A bucket of moto's S3, which the same process serves as its SQS."""
    made = Bucket(namespace, sqs.endpoint)
    yield made
    made.client.close()


@pytest.fixture(params=["files", "bucket"])
def objects(request: pytest.FixtureRequest) -> Objects:
    """A blob store of each kind."""
    return t.cast(Objects, request.getfixturevalue(request.param))


Make = t.Callable[..., Harness]


@pytest.fixture
def make(make_harness: Make) -> Make:
    """Make apps, or processes of one app, that keep little inline."""

    def new(**config: t.Any) -> Harness:
        return make_harness(**{"DURABLE_INLINE_LIMIT": INLINE, **config})

    return new
