"""The pods of a Deployment, by a server that keeps the rules of Kubernetes' API."""

from __future__ import annotations

import pathlib
import typing as t
from urllib.parse import parse_qs
from urllib.parse import urlsplit

import pytest

from flask_durable.errors import ConfigurationError
from flask_durable.errors import PlatformError
from flask_durable.scaler.decision.observation import Size
from flask_durable.scaler.platforms import kubernetes
from flask_durable.scaler.platforms import make_platform
from flask_durable.scaler.platforms.base import Applied
from flask_durable.scaler.platforms.base import Platform

from ..http_server import FakeServer
from ..http_server import Reply
from ..http_server import Request
from ..http_server import serving

APPS = "/apis/apps/v1/namespaces/shop/deployments/media"
PODS = "/api/v1/namespaces/shop/pods"
RIVALS = "/apis/autoscaling/v2/namespaces/shop/horizontalpodautoscalers"
COST = "controller.kubernetes.io/pod-deletion-cost"
MERGE = "application/merge-patch+json"


class Cluster(FakeServer):
    """One Deployment. Pods are deleted as its ReplicaSet would choose them.

    :ivar forbidden: Paths that the service account must not use.
    """

    def __init__(self) -> None:
        super().__init__()
        self.token = "s3rvice"
        self.version = 7
        self.made_pods = 0
        self.pods: dict[str, dict[str, str]] = {}
        self.ready: set[str] = set()
        self.rivals: list[dict[str, str]] = []
        self.forbidden: set[str] = set()
        self.before_patch: t.Callable[[], None] | None = None
        self.set_replicas(3)
        self.boot()

    def boot(self) -> None:
        self.ready = set(self.pods)

    def set_replicas(self, number: int) -> None:
        self.version += 1
        while len(self.pods) < number:
            self.pods[f"media-{self.made_pods}"] = {}
            self.made_pods += 1

        def rank(pod: str) -> tuple[bool, int]:
            return pod in self.ready, int(self.pods[pod].get(COST, 0))

        for pod in sorted(self.pods, key=rank)[: len(self.pods) - number]:
            del self.pods[pod]
            self.ready.discard(pod)

    def answer(self, request: Request) -> Reply:
        if request.headers.get("Authorization") != f"Bearer {self.token}":
            return status(401, "Unauthorized")
        parts = urlsplit(request.path)
        if parts.path in self.forbidden:
            return status(403, f"the service account cannot use {parts.path}")
        patch = request.method == "PATCH"
        if patch and request.headers.get("Content-Type") != MERGE:
            return status(415, "the body of the request was in an unknown format")
        if parts.path.startswith(f"{PODS}/") and patch:
            return self._annotated(parts.path.removeprefix(f"{PODS}/"), request.body)
        if parts.path == PODS:
            assert parse_qs(parts.query) == {"labelSelector": ["app=media,tier!=web"]}
            return Reply(200, {"items": [self._pod(pod) for pod in self.pods]})
        if parts.path == RIVALS:
            specs = [{"spec": {"scaleTargetRef": target}} for target in self.rivals]
            return Reply(200, {"items": specs})
        if parts.path == f"{APPS}/scale":
            return self._scaled(request.body) if patch else self._scale()
        if parts.path == APPS:
            ready = {"readyReplicas": len(self.ready)} if self.ready else {}
            return Reply(200, {"spec": {"replicas": len(self.pods)}, "status": ready})
        return status(404, "the server could not find the requested resource")

    def _pod(self, name: str) -> dict[str, t.Any]:
        annotations = self.pods[name]
        return {
            "metadata": {
                "name": name,
                **({"annotations": annotations} if annotations else {}),
            }
        }

    def _annotated(self, name: str, body: t.Any) -> Reply:
        if name not in self.pods:
            return status(404, f'pods "{name}" not found')
        for key, value in body["metadata"]["annotations"].items():
            self.pods[name].pop(key, None)
            if value is not None:
                self.pods[name][key] = value
        return Reply(200, self._pod(name))

    def _scale(self) -> Reply:
        spec = {"replicas": len(self.pods)} if self.pods else {}
        return Reply(
            200,
            {
                "kind": "Scale",
                "metadata": {"name": "media", "resourceVersion": str(self.version)},
                "spec": spec,
                "status": {
                    "replicas": len(self.pods),
                    "selector": "app=media,tier!=web",
                },
            },
        )

    def _scaled(self, body: t.Any) -> Reply:
        if self.before_patch:
            self.before_patch()
        version = body["metadata"]["resourceVersion"]
        if version != str(self.version):
            return status(
                409, "the object has been modified; please apply your changes"
            )
        self.set_replicas(body["spec"]["replicas"])
        return self._scale()


def status(code: int, message: str) -> Reply:
    return Reply(code, {"kind": "Status", "code": code, "message": message})


@pytest.fixture
def cluster() -> t.Iterator[Cluster]:
    with serving(Cluster()) as server:
        yield server


def pool(cluster: Cluster, **options: object) -> Platform:
    made = {"platform": "kubernetes", "deployment": "media", "namespace": "shop"}
    return make_platform({**made, "token": "s3rvice", "url": cluster.url, **options})


def test_a_pool_grows_boots_and_shrinks(cluster: Cluster) -> None:
    platform = pool(cluster)
    assert platform.describe() == "kubernetes:shop/media"
    assert platform.read() == Size(asked=3, running=3, booting=0)
    assert platform.resize(5) == Applied(before=3, after=5)
    assert platform.read() == Size(asked=5, running=3, booting=2)
    cluster.boot()
    assert platform.read() == Size(asked=5, running=5, booting=0)
    assert platform.resize(0) == Applied(before=5, after=0)
    assert platform.read() == Size(asked=0, running=0, booting=0)
    assert platform.resize(1) == Applied(before=0, after=1)


def test_idle_pods_go_first(cluster: Cluster) -> None:
    assert pool(cluster).resize(2, ["media-1"]) == Applied(before=3, after=2)
    assert cluster.pods == {"media-0": {}, "media-2": {}}


def test_who_was_idle_last_time_is_forgotten(cluster: Cluster) -> None:
    cluster.pods["media-0"][COST] = "-100"
    cluster.pods["media-2"][COST] = "50"
    pool(cluster).resize(2, ["media-1", "media-gone"])
    assert cluster.pods == {"media-0": {}, "media-2": {COST: "50"}}


def test_a_pod_that_ends_by_itself_in_between_is_no_error(cluster: Cluster) -> None:
    platform = pool(cluster)
    listed = {"items": [cluster._pod("media-1"), {"metadata": {"name": "media-9"}}]}
    scale = cluster._scale()
    cluster.failures = [scale, Reply(200, {"items": []}), Reply(200, listed)]
    assert platform.resize(2, ["media-9", "media-1"]).after == 2
    assert "media-1" not in cluster.pods


def test_pods_that_get_ready_in_between_are_no_conflict(cluster: Cluster) -> None:
    def change() -> None:
        cluster.version += 1
        cluster.before_patch = None

    cluster.before_patch = change
    assert pool(cluster).resize(5) == Applied(before=3, after=5)
    assert len(cluster.pods) == 5


def test_a_resize_from_outside_wins(cluster: Cluster) -> None:
    def change() -> None:
        cluster.set_replicas(8)
        cluster.before_patch = None

    cluster.before_patch = change
    with pytest.raises(PlatformError, match="Another client") as caught:
        pool(cluster).resize(5)
    assert caught.value.code == "platform.conflict"
    assert len(cluster.pods) == 8


def test_conflicts_without_an_end_are_given_up(cluster: Cluster) -> None:
    def change() -> None:
        cluster.version += 1

    cluster.before_patch = change
    with pytest.raises(PlatformError) as caught:
        pool(cluster).resize(5)
    assert caught.value.code == "platform.conflict"
    assert len(cluster.made("PATCH")) == 3


def test_a_change_that_was_made_and_not_heard_is_done(cluster: Cluster) -> None:
    def change() -> None:
        cluster.set_replicas(5)
        cluster.before_patch = None

    cluster.before_patch = change
    assert pool(cluster).resize(5) == Applied(before=3, after=5)


def test_a_deployment_with_an_autoscaler_is_left_alone(cluster: Cluster) -> None:
    cluster.rivals = [{"kind": "Deployment", "name": "web"}]
    assert pool(cluster).resize(4).after == 4
    cluster.rivals.append({"kind": "Deployment", "name": "media"})
    with pytest.raises(PlatformError, match="HorizontalPodAutoscaler") as caught:
        pool(cluster).resize(5)
    assert caught.value.code == "platform.conflict"
    assert len(cluster.pods) == 4


def test_who_may_not_look_for_rivals_is_not_kept_from_scaling(
    cluster: Cluster,
) -> None:
    cluster.forbidden = {RIVALS}
    assert pool(cluster).resize(5).after == 5


@pytest.mark.parametrize("path", [f"{APPS}/scale", PODS])
def test_what_the_role_does_not_allow_is_told(path: str, cluster: Cluster) -> None:
    cluster.forbidden = {path}
    with pytest.raises(PlatformError, match=f"cannot use {path}") as caught:
        pool(cluster).resize(2)
    assert caught.value.code == "platform.auth"
    assert len(cluster.pods) == 3


def test_a_deployment_that_does_not_exist_is_told(cluster: Cluster) -> None:
    with pytest.raises(PlatformError) as caught:
        pool(cluster, deployment="other").read()
    assert caught.value.code == "platform.not_found"


def test_in_a_pod_all_else_is_found_and_the_token_is_read_again(
    cluster: Cluster, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kubernetes, "ACCOUNT", tmp_path)
    (tmp_path / "namespace").write_text("shop")
    (tmp_path / "token").write_text("s3rvice\n")
    platform = pool(cluster, namespace=None, token=None)
    assert platform.read().asked == 3
    cluster.token = "n3w"
    with pytest.raises(PlatformError, match="Unauthorized"):
        platform.read()
    (tmp_path / "token").write_text("n3w")
    assert platform.read().asked == 3


def test_outside_of_a_pod_address_and_token_are_asked_for(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(ConfigurationError, match="set the option url"):
        pool(cluster, url=None)
    with pytest.raises(ConfigurationError, match="set the option token"):
        pool(cluster, token=None)
    for host, url in {"10.0.0.1": "10.0.0.1", "fd00::1": "[fd00::1]"}.items():
        monkeypatch.setenv("KUBERNETES_SERVICE_HOST", host)
        monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "6443")
        assert kubernetes._url() == f"https://{url}:6443"
