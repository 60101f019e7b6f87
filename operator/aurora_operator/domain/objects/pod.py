"""What the pods of all components share, such as Pod Security `restricted`."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from aurora_operator.domain.arguments import ENVIRONMENT, Places
from aurora_operator.domain.certificate import dns_name, leaf_name
from aurora_operator.domain.manifest.spec import AuroraDeployment, PodTemplate, Resources
from aurora_operator.domain.objects.metadata import Component, Json, labels
from aurora_operator.domain.objects.setting import Setting
from aurora_operator.domain.objects.strategic_merge import merged

HTTP, GRPC, CONTROL, HEALTH, METRICS = 8000, 9000, 9001, 9002, 9090
# Where the ranks of torch.distributed meet, its own default.
RANKS = 29400

CLAIMS = "/claims"
TLS = "/etc/aurora/tls"
TOKENS = "/etc/aurora/tokens"
REDIS_CA_FOLDER, REDIS_CA_FILE = "/etc/aurora/redis-ca", "ca.crt"
REDIS_DATA = "/data"
# In the volume `tmp`, which all containers mount; Redis makes the folder for its user alone.
REDIS_SOCKET = "/tmp/redis/redis.sock"

# The user `nonroot` of distroless images.
_USER = 65532
_ENVIRONMENT = {
    **ENVIRONMENT,
    "PYTHONDONTWRITEBYTECODE": "1",
    # The only writable folder.
    "HOME": "/tmp",
}
# Reading a large model over a network takes long.
_LOADING_SECONDS = 3600
_PERIOD_SECONDS = 2


def places(deployment: AuroraDeployment) -> Places:
    """Where files are in each pod of the deployment."""
    spec = deployment.spec
    models = f"{CLAIMS}/{spec.model_store.pvc.claim_name}/{deployment.metadata.name}"
    external = spec.buffer.external
    return Places(
        claims=CLAIMS,
        models=models,
        trainer_state=f"{models}/.trainer",
        redis_data=REDIS_DATA,
        redis_socket=REDIS_SOCKET,
        tls=None if spec.security.tls.mode == "Disabled" else TLS,
        tokens=None if spec.security.auth_secret_ref is None else TOKENS,
        redis_ca=f"{REDIS_CA_FOLDER}/{REDIS_CA_FILE}"
        if external and external.ca_secret_ref
        else None,
        limited=True,
    )


def listen(port: int) -> str:
    """Every address of the pod, IPv6 or IPv4."""
    return f"[::]:{port}"


def url_host(address: str) -> str:
    """A pod's address as a URL or HOST:PORT has it."""
    return f"[{address}]" if ":" in address else address


def call(deployment: AuroraDeployment, component: Component, port: int = GRPC) -> str:
    """HOST:PORT of a component's Service; the host is the name in its certificate."""
    metadata = deployment.metadata
    host = dns_name(metadata.name, component, namespace=metadata.namespace)
    return f"{host}:{port}"


def container(
    name: str,
    image: str,
    arguments: Sequence[str],
    *,
    resources: Resources,
    ports: Mapping[str, int],
    mounts: Mapping[str, str],
) -> Json:
    """`mounts`: path by volume; the volume decides whether it is read-only."""
    made: Json = {
        "name": name,
        "image": image,
        # The kubelet would expand $(NAME), which may be part of a path.
        "command": ["python", *(argument.replace("$", "$$") for argument in arguments)],
        "env": [{"name": key, "value": value} for key, value in _ENVIRONMENT.items()],
        # The last log line says why a component exited.
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [
            {"name": "tmp", "mountPath": "/tmp"},
            *({"name": volume, "mountPath": path} for volume, path in mounts.items()),
        ],
    }
    if ports:
        made["ports"] = [
            {"name": key, "containerPort": port, "protocol": "TCP"} for key, port in ports.items()
        ]
    if resources != Resources():
        asked = {"limits": resources.limits, "requests": resources.requests}
        made["resources"] = {key: value for key, value in asked.items() if value}
    return made


def inference_container(
    name: str,
    deployment: AuroraDeployment,
    setting: Setting,
    arguments: Sequence[str],
    *,
    ports: Mapping[str, int],
    mounts: Mapping[str, str],
) -> Json:
    """A container of the inference's image."""
    inference = deployment.spec.inference
    made = container(
        name,
        inference.image or setting.inference_image,
        arguments,
        resources=inference.resources,
        ports=ports,
        mounts=mounts,
    )
    return {**made, "imagePullPolicy": setting.image_pull_policy}


def pod_template(
    deployment: AuroraDeployment,
    setting: Setting,
    component: Component,
    *,
    spec: Json,
    override: PodTemplate,
) -> Json:
    """The template of a component's pods: shared parts, its own `spec`, then the user's patch.

    `spec` has at least containers, the main one first, and volumes.
    """
    secrets = [{"name": name} for name in setting.image_pull_secrets]
    base: Json = {
        "metadata": {
            "labels": labels(deployment, component),
            "annotations": {
                "kubectl.kubernetes.io/default-container": spec["containers"][0]["name"]
            },
        },
        "spec": {
            "serviceAccountName": deployment.metadata.name,
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": _USER,
                "runAsGroup": _USER,
                "fsGroup": _USER,
                "fsGroupChangePolicy": "OnRootMismatch",
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            **({"imagePullSecrets": secrets} if secrets else {}),
            **spec,
            "volumes": [{"name": "tmp", "emptyDir": {}}, *spec["volumes"]],
        },
    }
    patch: dict[str, Any] = {
        "metadata": override.metadata.model_dump(),
        "spec": override.spec,
    }
    result = merged(base, patch)
    for kind in ("containers", "initContainers"):
        _confine(result["spec"].get(kind))
    # Without these labels, no selector would match the pods.
    result["metadata"]["labels"].update(labels(deployment, component))
    return result


def _confine(containers: Any) -> None:
    """Gives containers of the user's own Aurora's privileges, which are none, unless they ask."""
    for each in containers if isinstance(containers, list) else ():
        # Anything else is not a PodSpec: the API server rejects it, naming the field.
        if isinstance(each, dict) and isinstance(each.setdefault("securityContext", {}), dict):
            context = each["securityContext"]
            context.setdefault("capabilities", {"drop": ["ALL"]})
            # The API server refuses it beside these.
            if not context.get("privileged") and context["capabilities"] == {"drop": ["ALL"]}:
                context.setdefault("allowPrivilegeEscalation", False)


def claim_volumes(deployment: AuroraDeployment, *, writes_models: bool) -> list[Json]:
    """One volume per claim in the manifest; only the trainer writes, to the model store."""
    store = deployment.spec.model_store.pvc.claim_name
    volumes = []
    for claim in claims(deployment):
        source: Json = {"claimName": claim}
        if not (writes_models and claim == store):
            source["readOnly"] = True
        volumes.append({"name": claim_volume(claim), "persistentVolumeClaim": source})
    return volumes


def claim_mounts(deployment: AuroraDeployment) -> dict[str, str]:
    return {claim_volume(claim): f"{CLAIMS}/{claim}" for claim in claims(deployment)}


def claims(deployment: AuroraDeployment) -> list[str]:
    """The distinct claims of the manifest."""
    spec = deployment.spec
    initial = spec.draft.initial_checkpoint
    uris = [spec.target.uri, *([] if initial is None else [initial.uri])]
    named = [uri.removeprefix("pvc://").split("/")[0] for uri in uris if uri.startswith("pvc://")]
    return sorted({spec.model_store.pvc.claim_name, *named})


def claim_volume(claim: str) -> str:
    """A volume's name, within its limit of 63 characters."""
    if len(claim) <= 57:
        return f"claim-{claim}"
    return f"claim-{hashlib.sha256(claim.encode()).hexdigest()[:16]}"


def secret_volume(name: str, secret: str) -> Json:
    return {"name": name, "secret": {"secretName": secret, "defaultMode": 0o440}}


def tls_volumes(deployment: AuroraDeployment, component: Component) -> list[Json]:
    if deployment.spec.security.tls.mode == "Disabled":
        return []
    return [secret_volume("aurora-tls", leaf_name(deployment.metadata.name, component))]


def tls_mounts(deployment: AuroraDeployment) -> dict[str, str]:
    return {} if deployment.spec.security.tls.mode == "Disabled" else {"aurora-tls": TLS}


def token_volumes(deployment: AuroraDeployment) -> list[Json]:
    tokens = deployment.spec.security.auth_secret_ref
    return [] if tokens is None else [secret_volume("aurora-tokens", tokens.name)]


def token_mounts(deployment: AuroraDeployment) -> dict[str, str]:
    tokens = deployment.spec.security.auth_secret_ref
    return {} if tokens is None else {"aurora-tokens": TOKENS}


def startup_probe(port: int) -> Json:
    """Holds off the other probes until the component serves: loading is not hanging."""
    failures = _LOADING_SECONDS // _PERIOD_SECONDS
    return {**readiness_probe(port), "failureThreshold": failures}


def readiness_probe(port: int) -> Json:
    return {
        "grpc": {"port": port},
        "periodSeconds": _PERIOD_SECONDS,
        "timeoutSeconds": 5,
        "failureThreshold": 3,
    }


def liveness_probe(**handler: Json) -> Json:
    """Three minutes of silence, longer than any step takes even on the slowest CPU."""
    return {**handler, "periodSeconds": 30, "timeoutSeconds": 30, "failureThreshold": 6}
