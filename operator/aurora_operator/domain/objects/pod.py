"""What the pods of every component share, Pod Security `restricted` above all."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from aurora_operator.domain.arguments import Places
from aurora_operator.domain.objects.metadata import Component, Json, component_name, labels
from aurora_operator.domain.spec import AuroraDeployment, PodTemplate, Resources
from aurora_operator.domain.strategic_merge import merged

HTTP, GRPC, CONTROL, HEALTH, METRICS, REDIS = 8000, 9000, 9001, 9002, 9090, 6379

CLAIMS = Path("/claims")
TLS = Path("/etc/aurora/tls")
TOKENS = Path("/etc/aurora/tokens")
REDIS_CA = Path("/etc/aurora/redis-ca/ca.crt")
REDIS_DATA = Path("/data")

# distroless' nonroot.
_USER = 65532
_ENVIRONMENT = {
    # Idle threads of a parallel loop sleep instead of spinning.
    "OMP_WAIT_POLICY": "PASSIVE",
    "GOMP_SPINCOUNT": "0",
    "PYTHONSAFEPATH": "1",
    "PYTHONDONTWRITEBYTECODE": "1",
    # The only folder that can be written.
    "HOME": "/tmp",
}


def places(deployment: AuroraDeployment) -> Places:
    """Where the files lie in every pod of the deployment."""
    spec = deployment.spec
    models = CLAIMS / spec.model_store.pvc.claim_name / deployment.metadata.name
    external = spec.buffer.external
    return Places(
        claims=CLAIMS,
        models=models,
        trainer_state=models / ".trainer",
        redis_data=REDIS_DATA,
        tls=None if spec.security.tls.mode == "Disabled" else TLS,
        tokens=None if spec.security.auth_secret_ref is None else TOKENS,
        redis_ca=REDIS_CA if external and external.ca_secret_ref else None,
    )


def listen(port: int) -> str:
    return f"0.0.0.0:{port}"


def call(deployment: AuroraDeployment, component: Component) -> str:
    """HOST:PORT of a component's Service; the host is a name of its certificate."""
    host = f"{component_name(deployment, component)}.{deployment.metadata.namespace}.svc"
    return f"{host}:{GRPC}"


def container(
    name: str,
    image: str,
    arguments: Sequence[str],
    *,
    resources: Resources,
    ports: Mapping[str, int],
    mounts: Mapping[str, str],
) -> Json:
    """`mounts`: path by volume; whether one is read-only is the volume's to say."""
    return {
        "name": name,
        "image": image,
        "command": ["python", *arguments],
        "env": [{"name": key, "value": value} for key, value in _ENVIRONMENT.items()],
        "ports": [
            {"name": key, "containerPort": port, "protocol": "TCP"} for key, port in ports.items()
        ],
        "resources": {
            key: value
            for key, value in (("limits", resources.limits), ("requests", resources.requests))
            if value
        },
        # The one line in which a component says why it ended.
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


def pod_template(
    deployment: AuroraDeployment,
    component: Component,
    *,
    containers: Sequence[Json],
    volumes: Sequence[Json],
    override: PodTemplate,
    grace_seconds: int,
) -> Json:
    """The template of a component's pods, with the user's merged over it."""
    base: Json = {
        "metadata": {
            "labels": labels(deployment, component),
            "annotations": {"kubectl.kubernetes.io/default-container": component},
        },
        "spec": {
            "serviceAccountName": deployment.metadata.name,
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "terminationGracePeriodSeconds": grace_seconds,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": _USER,
                "runAsGroup": _USER,
                "fsGroup": _USER,
                "fsGroupChangePolicy": "OnRootMismatch",
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": list(containers),
            "volumes": [{"name": "tmp", "emptyDir": {}}, *volumes],
        },
    }
    patch: dict[str, Any] = {
        "metadata": override.metadata.model_dump(),
        "spec": override.spec,
    }
    result = merged(base, patch)
    # Without these, the pods would be nobody's.
    result["metadata"]["labels"].update(labels(deployment, component))
    return result


def claim_volumes(deployment: AuroraDeployment, *, writes_models: bool) -> list[Json]:
    """One volume for each claim that the manifest names; only the trainer writes, drafts alone."""
    store = deployment.spec.model_store.pvc.claim_name
    return [
        {
            "name": claim_volume(claim),
            "persistentVolumeClaim": {
                "claimName": claim,
                "readOnly": not (writes_models and claim == store),
            },
        }
        for claim in claims(deployment)
    ]


def claim_mounts(deployment: AuroraDeployment) -> dict[str, str]:
    return {claim_volume(claim): str(CLAIMS / claim) for claim in claims(deployment)}


def claims(deployment: AuroraDeployment) -> list[str]:
    """The claims of the manifest, each once."""
    spec = deployment.spec
    initial = spec.draft.initial_checkpoint
    uris = [spec.target.uri, *([] if initial is None else [initial.uri])]
    named = [uri.removeprefix("pvc://").split("/")[0] for uri in uris if uri.startswith("pvc://")]
    return sorted({spec.model_store.pvc.claim_name, *named})


def claim_volume(claim: str) -> str:
    """A volume's name, which is no longer than a claim's may be."""
    if len(claim) <= 57:
        return f"claim-{claim}"
    return f"claim-{hashlib.sha256(claim.encode()).hexdigest()[:16]}"


def secret_volume(name: str, secret: str) -> Json:
    return {"name": name, "secret": {"secretName": secret, "defaultMode": 0o440}}


def tls_volumes(deployment: AuroraDeployment, component: Component) -> list[Json]:
    if deployment.spec.security.tls.mode == "Disabled":
        return []
    return [secret_volume("aurora-tls", f"{component_name(deployment, component)}-tls")]


def tls_mounts(deployment: AuroraDeployment) -> dict[str, str]:
    return {} if deployment.spec.security.tls.mode == "Disabled" else {"aurora-tls": str(TLS)}


def grpc_probe(port: int, *, period_seconds: int, failures: int) -> Json:
    return {
        "grpc": {"port": port},
        "periodSeconds": period_seconds,
        "timeoutSeconds": 5,
        "failureThreshold": failures,
    }


def tcp_probe(port: str, *, period_seconds: int, failures: int) -> Json:
    return {
        "tcpSocket": {"port": port},
        "periodSeconds": period_seconds,
        "timeoutSeconds": 5,
        "failureThreshold": failures,
    }
