"""The pods of a Deployment of Kubernetes, by its scale subresource."""

from __future__ import annotations

import os
import pathlib
import typing as t
from urllib.parse import quote

from ...clients.http import checked
from ...clients.http import HTTPAPI
from ...errors import ConfigurationError
from ...errors import PlatformError
from ..decision.observation import Size
from .base import Applied
from .base import Traits

#: The folder with the account of the pod in its own cluster.
ACCOUNT = pathlib.Path("/var/run/secrets/kubernetes.io/serviceaccount")

#: Pods that cost less to delete go first; one without the annotation costs 0.
_COST = "controller.kubernetes.io/pod-deletion-cost"
_IDLE = "-100"

_MERGE = "application/merge-patch+json"

#: Tries of a change. A Deployment gets a new version with each pod that gets ready.
_TRIES = 3


class KubernetesPlatform:
    """The pods of one Deployment. Each is a worker.

    Inside a cluster everything but *deployment* is found.

    :param deployment: The Deployment's name.
    :param namespace: The Deployment's namespace. Defaults to that of the pod the scaler
        runs in; outside a cluster to ``default``.
    :param url: The URL of the API.
    :param token: The token of a service account. Defaults to that of the pod the
        scaler runs in, which is read again for each call: it is replaced every hour.
    :param authorities: A file of certificates against which the API's is checked.
    :raises ConfigurationError: The address or the token is missing.
    """

    traits = Traits(picks_victims=True, by_host=True)

    def __init__(
        self,
        *,
        deployment: str,
        namespace: str | None = None,
        url: str | None = None,
        token: str | None = None,
        authorities: str | None = None,
    ) -> None:
        self._token = token
        self._deployment = deployment
        self._namespace = namespace or _account("namespace") or "default"
        place = f"namespaces/{quote(self._namespace, safe='')}"
        self._path = f"/apis/apps/v1/{place}/deployments/{quote(deployment, safe='')}"
        self._pods = f"/api/v1/{place}/pods"
        self._rivals = f"/apis/autoscaling/v2/{place}/horizontalpodautoscalers"
        self._headers()
        own = ACCOUNT / "ca.crt"
        if authorities is None and own.exists():
            authorities = str(own)
        self._api = HTTPAPI("Kubernetes", url or _url(), self._headers, authorities)

    def describe(self) -> str:
        """Return the platform in one line."""
        return f"kubernetes:{self._namespace}/{self._deployment}"

    def read(self) -> Size:
        """Return how many replicas are wanted, and how many are ready.

        :raises PlatformError: There is no such Deployment, or the API refuses.
        """
        found = self._api.call("GET", self._path)
        # A Deployment in which no pod is ready does not have that number.
        return Size.of(
            found["spec"]["replicas"], found["status"].get("readyReplicas", 0)
        )

    def resize(self, workers: int, victims: t.Sequence[str] = ()) -> Applied:
        """Set the number of replicas; pods that are *victims* go first.

        :raises PlatformError: The API refuses, an autoscaler sets the number too, or
            it is changed at the same time.
        """
        scale = self._api.call("GET", f"{self._path}/scale")
        before = _replicas(scale)
        if workers == before:
            return Applied(before, before)
        self._refuse_rival()
        if workers < before:
            self._mark(scale["status"]["selector"], set(victims))
        self._scale(scale, before, workers)
        return Applied(before, workers)

    def _scale(self, scale: dict[str, t.Any], before: int, workers: int) -> None:
        """Set the number, unless it was changed since *scale* was read.

        After a conflict that leaves the number as it was, the call is repeated.
        """
        for _ in range(_TRIES):
            version = scale["metadata"]["resourceVersion"]
            wish = {
                "metadata": {"resourceVersion": version},
                "spec": {"replicas": workers},
            }
            try:
                self._api.call("PATCH", f"{self._path}/scale", wish, _MERGE)
                return
            except PlatformError as error:
                if error.code != "platform.conflict":
                    raise
            scale = self._api.call("GET", f"{self._path}/scale")
            if _replicas(scale) == workers:
                return  # the call whose reply was lost
            if _replicas(scale) != before:
                break
        raise PlatformError(
            f"Another client changes {self.describe()} at the same time.",
            code="platform.conflict",
            hint="The next run of the scaler tries again.",
        )

    def _mark(self, selector: str, victims: set[str]) -> None:
        """Give *victims* a lower cost than other pods, and clear older marks."""
        pods = self._api.call(
            "GET", f"{self._pods}?labelSelector={quote(selector, safe='')}"
        )
        for pod in pods["items"]:
            name = pod["metadata"]["name"]
            cost = pod["metadata"].get("annotations", {}).get(_COST)
            wanted = _IDLE if name in victims else None
            # A cost that we did not set is a person's wish.
            if cost != wanted and (wanted or cost == _IDLE):
                self._annotate(name, wanted)

    def _annotate(self, pod: str, cost: str | None) -> None:
        change = {"metadata": {"annotations": {_COST: cost}}}
        try:
            self._api.call("PATCH", f"{self._pods}/{quote(pod)}", change, _MERGE)
        except PlatformError as error:
            if error.code != "platform.not_found":  # it is gone by itself
                raise

    def _refuse_rival(self) -> None:
        try:
            found = self._api.call("GET", self._rivals)["items"]
        except PlatformError as error:
            if error.code in ("platform.auth", "platform.not_found"):
                return  # listing is not allowed, or the cluster has no autoscalers
            raise
        targets = [rival["spec"]["scaleTargetRef"] for rival in found]
        ours = ("Deployment", self._deployment)
        if any((target["kind"], target["name"]) == ours for target in targets):
            raise PlatformError(
                f"A HorizontalPodAutoscaler also sets the size of {self.describe()}.",
                code="platform.conflict",
                hint="Delete it, or the ScaledObject that made it.",
            )

    def _headers(self) -> dict[str, str]:
        token = (self._token or _account("token") or "").strip()
        if not token:
            raise ConfigurationError(
                "There is no token for the platform kubernetes.",
                hint="Run the scaler in a pod, or set the option token.",
            )
        return {
            "Accept": "application/json",
            "Authorization": f"Bearer {checked('Kubernetes', token)}",
        }


def _replicas(scale: dict[str, t.Any]) -> int:
    # Zero is left out.
    return int(scale["spec"].get("replicas", 0))


def _account(file: str) -> str | None:
    try:
        return (ACCOUNT / file).read_text("utf-8").strip()
    except OSError:
        return None


def _url() -> str:
    host = os.environ.get("KUBERNETES_SERVICE_HOST")
    if not host:
        raise ConfigurationError(
            "There is no address for the platform kubernetes.",
            hint="Run the scaler in a pod, or set the option url.",
        )
    port = os.environ.get("KUBERNETES_SERVICE_PORT", "443")
    return f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"
