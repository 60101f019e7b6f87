"""What can go wrong with a deployment for long, each with the words by which it is told."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from kubernetes.client.exceptions import ApiException
from support.control_plane import ApiServer
from support.deployments import Deployments
from support.kubelet import Kubelet
from support.standin import digest_of

Json = dict[str, Any]

# A failure that lasts for so long must be told.
LIMIT_SECONDS = 120.0
_POLL_SECONDS = 0.5
_HELD = "example.com/held"


@dataclass(frozen=True, slots=True)
class Scene:
    """Where one deployment, `name`, is to fail; `undo` has what must be undone in the end."""

    server: ApiServer
    kubelet: Kubelet
    deployments: Deployments
    name: str
    undo: ExitStack

    @property
    def image(self) -> str:
        """One that no other deployment has."""
        return f"aurora:{self.name}"

    def apply_object(self, version: str, kind: str, body: Json, **more: Any) -> None:
        metadata = {"name": body.pop("name", self.name)}
        content = {"apiVersion": version, "kind": kind, "metadata": metadata, **body, **more}
        self.deployments.apply_object(version, f"{kind.lower()}s", content)


def _nothing(scene: Scene) -> bool:
    """Most need neither."""
    return True


@dataclass(frozen=True, slots=True)
class Cause:
    """`spec`: the fields of the deployment, given its scene. `told`: parts of what Degraded says.

    `before`: what is done before it is applied. `after`: what is done once it is, as soon as that
    is possible, which it returns. `alone`: it concerns everything in its namespace.
    """

    told: tuple[str, ...]
    spec: Callable[[Scene], Json] = field(default=lambda scene: {})
    before: Callable[[Scene], object] = _nothing
    after: Callable[[Scene], bool] = _nothing
    alone: bool = False


def _image(component: str, **more: Json) -> Callable[[Scene], Json]:
    return lambda scene: {component: {"image": scene.image, **more}}


def _pod(component: str, content: Callable[[Scene], Json]) -> Callable[[Scene], Json]:
    return lambda scene: {component: {"podTemplate": {"spec": content(scene)}}}


def _unsafe_sysctl(scene: Scene) -> Json:
    return {"securityContext": {"sysctls": [{"name": "kernel.msgmax", "value": "1"}]}}


def _held_image(reason: str, message: str) -> Cause:
    def before(scene: Scene) -> None:
        scene.kubelet.faults.held[scene.image] = (reason, message)

    return Cause((message,), _image("inference"), before)


def _sidecar(scene: Scene) -> Json:
    context = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    container = {"name": "sidecar", "image": scene.image, "securityContext": context}
    return {"containers": [container]}


def _crash(scene: Scene) -> None:
    scene.kubelet.faults.crashing[scene.image] = "no CUDA device"


def _unready(scene: Scene) -> None:
    scene.kubelet.faults.unready.add(scene.image)


def _external(**fields: Json) -> Callable[[Scene], Json]:
    return lambda scene: {"buffer": {"external": fields}}


def _draft(scene: Scene) -> Json:
    checkpoint = {"uri": "pvc://models/draft", "digest": digest_of(scene.name)}
    return {"draft": {"initialCheckpoint": checkpoint}}


def _refused_draft(scene: Scene) -> None:
    scene.kubelet.world.refusals[digest_of(scene.name)] = "its weights are damaged"


def _said(where: str, words: str) -> Callable[[Scene], None]:
    """Has the deployment's stand-ins say something, in a field of their world."""

    def before(scene: Scene) -> None:
        getattr(scene.kubelet.world, where)[scene.name] = words

    return before


def _secret(name: str) -> Callable[[Scene], None]:
    """A Secret of somebody else."""

    def before(scene: Scene) -> None:
        body = {"name": name.format(scene.name), "stringData": {"other": "x"}}
        scene.apply_object("v1", "Secret", body)

    return before


def _service(scene: Scene) -> None:
    spec = {"ports": [{"port": 1}], "selector": {"a": "b"}}
    scene.apply_object("v1", "Service", {"name": f"{scene.name}-buffer"}, spec=spec)


def _quota(scene: Scene) -> None:
    scene.apply_object("v1", "ResourceQuota", {"name": "none"}, spec={"hard": {"pods": "0"}})


def _unprovisioned(scene: Scene) -> None:
    scene.kubelet.faults.unprovisioned.add(f"class-{scene.name}")


def _on_class(storage: str) -> Callable[[Scene], Json]:
    return lambda scene: {
        "buffer": {"embedded": {"storage": storage, "storageClassName": f"class-{scene.name}"}}
    }


def _fixed_class(scene: Scene) -> None:
    path, name = "/apis/storage.k8s.io/v1/storageclasses", f"class-{scene.name}"
    body = {"metadata": {"name": name}, "provisioner": "example.com/none"}
    scene.server.request("POST", path, body)
    scene.undo.callback(scene.server.request, "DELETE", f"{path}/{name}")


def _grow(scene: Scene) -> bool:
    place = ("v1", "persistentvolumeclaims", f"redis-{scene.name}-buffer-0")
    if not scene.deployments.is_there(*place):
        return False
    if scene.deployments.object(*place)["status"]["phase"] != "Bound":
        return False
    scene.deployments.apply(scene.name, **_on_class("2Gi")(scene))
    return True


def _hold_pod(scene: Scene) -> bool:
    """Deletes a pod that then does not go."""
    place = ("v1", "pods", f"{scene.name}-buffer-0")
    if not scene.deployments.is_there(*place):
        return False
    metadata = {"name": place[2], "finalizers": [_HELD]}
    body = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata}
    scene.deployments.apply_object("v1", "pods", body)
    # Applied without it, the field is given up.
    free = {**body, "metadata": {"name": place[2], "finalizers": []}}
    scene.undo.callback(scene.deployments.apply_object, "v1", "pods", free)
    scene.deployments.delete_object(*place)
    return True


def _broken_webhook(scene: Scene) -> None:
    path = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations"
    rule = {"apiGroups": [""], "apiVersions": ["v1"], "resources": ["services"]}
    here = {"matchLabels": {"kubernetes.io/metadata.name": scene.deployments.namespace}}
    webhook = {
        "name": "broken.example.com",
        "admissionReviewVersions": ["v1"],
        "sideEffects": "None",
        "clientConfig": {"url": "https://127.0.0.1:1/"},
        "rules": [{**rule, "operations": ["CREATE"]}],
        "namespaceSelector": here,
    }
    body = {"metadata": {"name": scene.name}, "webhooks": [webhook]}
    scene.server.request("POST", path, body)
    scene.undo.callback(scene.server.request, "DELETE", f"{path}/{scene.name}")


_ISSUER = {"mode": "CertManager", "issuerRef": {"kind": "Issuer", "name": "ours"}}
_VOLUME = {"volumes": [{"name": "more", "configMap": {"name": "absent"}}]}

CAUSES: Mapping[str, Cause] = {
    "an image that does not exist": Cause(
        ("cannot pull image", "not found"),
        _image("inference"),
        lambda scene: scene.kubelet.faults.unpullable.add(scene.image),
    ),
    "an image name that cannot be parsed": _held_image("InvalidImageName", "couldn't parse it"),
    "an image that is never pulled": _held_image("ErrImageNeverPull", "policy is Never"),
    "a container that cannot be created": _held_image("CreateContainerError", "no such device"),
    "a container that cannot be run": _held_image("RunContainerError", "python: not found"),
    "inference that ends": Cause(
        ("inference ended with exit code 1 (Error): no CUDA device",), _image("inference"), _crash
    ),
    "a trainer that ends": Cause(
        ("trainer ended with exit code 1 (Error): no CUDA device",), _image("trainer"), _crash
    ),
    "a sidecar that ends": Cause(
        ("sidecar ended with exit code 1",), _pod("inference", _sidecar), _crash
    ),
    "too little memory": Cause(
        ("was killed for using more memory than its limit",),
        _image("inference"),
        lambda scene: scene.kubelet.faults.killed.add(scene.image),
    ),
    "inference that does not become ready": Cause(
        ("inference runs, but is not ready",), _image("inference"), _unready
    ),
    "a buffer that does not become ready": Cause(
        ("buffer runs, but is not ready",), _image("buffer", embedded={}), _unready
    ),
    "a selector that no node has": Cause(
        ("cannot be scheduled", "didn't match"),
        _pod("inference", lambda scene: {"nodeSelector": {"no": "node"}}),
    ),
    "resources that no node has": Cause(
        ("cannot be scheduled", "Insufficient cpu"),
        lambda scene: {"inference": {"resources": {"requests": {"cpu": "9M"}}}},
    ),
    "a claim that does not exist": Cause(
        ("PersistentVolumeClaim absent does not exist",),
        lambda scene: {"modelStore": {"pvc": {"claimName": "absent"}}},
    ),
    "a claim without a volume": Cause(
        ("PersistentVolumeClaim redis-", "is Pending"), _on_class("1Gi"), _unprovisioned
    ),
    "a volume that may not grow": Cause(
        ("cannot be enlarged to 2Gi", "must support resize"), _on_class("1Gi"), _fixed_class, _grow
    ),
    "tokens that do not exist": Cause(
        ("cannot mount its volumes",),
        lambda scene: {"security": {"authSecretRef": {"name": "absent"}}},
    ),
    "a config map that does not exist": Cause(
        ("cannot mount its volumes", 'configmap "absent" not found'),
        _pod("trainer", lambda scene: _VOLUME),
    ),
    "a Redis URL that does not exist": Cause(
        ("buffer cannot be started", 'secret "absent" not found'),
        _external(urlSecretRef={"name": "absent", "key": "url"}),
    ),
    "a Redis URL under another key": Cause(
        ("buffer cannot be started", "couldn't find key url in Secret"),
        lambda scene: _external(urlSecretRef={"name": scene.name, "key": "url"})(scene),
        _secret("{}"),
    ),
    "a Redis CA that does not exist": Cause(
        ("cannot mount its volumes", 'secret "absent-ca" not found'),
        lambda scene: {
            "buffer": {
                "external": {
                    "url": "rediss://redis/0",
                    "caSecretRef": {"name": "absent-ca", "key": "ca"},
                }
            }
        },
    ),
    "a quota": Cause(("its pods are refused", "exceeded quota"), before=_quota, alone=True),
    "inference that Pod Security refuses": Cause(
        ("inference: its pods are refused", "violates PodSecurity"),
        _pod("inference", _unsafe_sysctl),
    ),
    "a trainer that Pod Security refuses": Cause(
        ("trainer: its pods are refused", "violates PodSecurity"),
        _pod("trainer", _unsafe_sysctl),
    ),
    "an unknown field in a podTemplate": Cause(
        ("Deployment", "-inference", "unknown"),
        _pod("inference", lambda scene: {"unknown": 1}),
    ),
    "a value in a podTemplate that is not allowed": Cause(
        ("spec.template.spec.dnsPolicy", "Unsupported value"),
        _pod("trainer", lambda scene: {"dnsPolicy": "Wrong"}),
    ),
    "a Service of that name": Cause(("Service", "-buffer exists"), before=_service),
    "a Secret of that name": Cause(("Secret", "-ca exists"), before=_secret("{}-ca")),
    "no cert-manager": Cause(
        ("cert-manager is not installed",), lambda scene: {"security": {"tls": _ISSUER}}
    ),
    "a webhook that does not answer": Cause(
        ("failed calling webhook", "broken.example.com"), before=_broken_webhook, alone=True
    ),
    "a draft that is refused": Cause(("its weights are damaged",), _draft, _refused_draft),
    "inference that cannot load its draft": Cause(
        ("cannot be controlled", "the claim is not mounted"),
        _draft,
        _said("hindrances", "the claim is not mounted"),
    ),
    "inference that records nothing": Cause(
        ("no trajectory has been recorded",),
        before=_said("complaints", "no trajectory has been recorded since noon"),
    ),
    "a trainer that cannot write": Cause(
        ("trainer: checkpoints cannot be written",),
        before=_said("troubles", "checkpoints cannot be written: no space left"),
    ),
    "a trainer that cannot be followed": Cause(
        ("trainer: its checkpoints cannot be followed", "not now"),
        before=_said("unfollowed", "not now"),
    ),
    "a trainer that cannot prune": Cause(
        ("trainer: its checkpoints cannot be pruned", "read-only"),
        before=_said("unpruned", "read-only"),
    ),
    "a pod that does not end": Cause(("should have ended", f"held by {_HELD}"), after=_hold_pod),
    "an autoscaler without a metric": Cause(
        ("its HorizontalPodAutoscaler does not scale",),
        lambda scene: {"inference": {"autoscaling": {"maxReplicas": 2}}},
    ),
}


class Failing:
    """Deployments that fail, each by another cause; the operator must watch `namespaces`."""

    def __init__(self, server: ApiServer, kubelet: Kubelet, causes: Collection[str] = ()) -> None:
        self._undo = ExitStack()
        self._server = server
        self._kubelet = kubelet
        self._shared = self._namespace()
        self._scenes = {
            cause: self._scene(number, CAUSES[cause])
            for number, cause in enumerate(causes or CAUSES)
        }
        self._began: dict[str, float] = {}
        self._seconds: dict[str, float] = {}

    @property
    def namespaces(self) -> list[str]:
        return sorted({scene.deployments.namespace for scene in self._scenes.values()})

    def begin(self) -> None:
        """Applies all of them."""
        for cause, scene in self._scenes.items():
            CAUSES[cause].before(scene)
            scene.deployments.apply(scene.name, **CAUSES[cause].spec(scene))
            if CAUSES[cause].after is _nothing:
                self._began[cause] = time.monotonic()

    def seconds(self, meanwhile: Callable[[], None]) -> dict[str, float]:
        """How long each cause took to be told; without those that were not, within the limit.

        `meanwhile` is called twice a second.
        """
        deadline = time.monotonic() + 2 * LIMIT_SECONDS
        while time.monotonic() < deadline and (waiting := self._waiting()):
            for cause in waiting:
                if cause not in self._began and CAUSES[cause].after(self._scenes[cause]):
                    self._began[cause] = time.monotonic()
            now = time.monotonic()
            for cause, message in self._messages():
                if cause in self._began and all(part in message for part in CAUSES[cause].told):
                    self._seconds[cause] = now - self._began[cause]
            meanwhile()
            time.sleep(_POLL_SECONDS)
        return {each: it for each, it in self._seconds.items() if it <= LIMIT_SECONDS}

    def messages(self) -> dict[str, str]:
        """What is told instead of the causes that were not."""
        return dict(self._messages())

    def end(self) -> None:
        """Undoes what outlives the namespaces, and deletes these."""
        self._undo.close()

    def _waiting(self) -> list[str]:
        """The causes that may still be told in time."""
        now = time.monotonic()
        return [
            cause
            for cause in self._scenes
            if cause not in self._seconds and now - self._began.get(cause, now) <= LIMIT_SECONDS
        ]

    def _messages(self) -> Iterator[tuple[str, str]]:
        """The Degraded message of each cause that has not been told."""
        for cause, scene in self._scenes.items():
            if cause not in self._seconds:
                found = scene.deployments.condition("Degraded", scene.name)
                yield cause, found.get("message", "") if found.get("status") == "True" else ""

    def _scene(self, number: int, cause: Cause) -> Scene:
        deployments = self._namespace() if cause.alone else self._shared
        name = f"cause-{number:02}"
        return Scene(self._server, self._kubelet, deployments, name, self._undo)

    def _namespace(self) -> Deployments:
        namespace = self._server.create_namespace("cause")
        self._server.await_account(namespace)
        self._undo.callback(self._delete, namespace)
        deployments = Deployments(self._server, namespace)
        deployments.claim()
        return deployments

    def _delete(self, namespace: str) -> None:
        try:
            self._server.request("DELETE", f"/api/v1/namespaces/{namespace}")
        except ApiException as error:
            if error.status != 404:
                raise
