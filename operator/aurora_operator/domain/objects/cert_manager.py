"""Certificates for cert-manager to issue if the manifest names an issuer."""

from __future__ import annotations

from aurora_operator.domain.certificate import COMPONENTS, OPERATOR, dns_name, leaf_name
from aurora_operator.domain.manifest.spec import AuroraDeployment
from aurora_operator.domain.objects.metadata import Json, metadata
from aurora_operator.domain.objects.setting import Setting


def certificates(deployment: AuroraDeployment, setting: Setting) -> tuple[Json, ...]:
    """One per component and one for the operator; none unless the mode is CertManager."""
    if deployment.spec.security.tls.mode != "CertManager":
        return ()
    return tuple(_certificate(deployment, setting, peer) for peer in (*COMPONENTS, OPERATOR))


def _certificate(deployment: AuroraDeployment, setting: Setting, peer: str) -> Json:
    issuer = deployment.spec.security.tls.issuer_ref
    assert issuer is not None
    name, namespace = deployment.metadata.name, deployment.metadata.namespace
    secret = leaf_name(name, peer)
    return {
        "apiVersion": "cert-manager.io/v1",
        "kind": "Certificate",
        "metadata": metadata(deployment, setting, None, name=secret),
        "spec": {
            "secretName": secret,
            "dnsNames": [dns_name(name, peer, namespace=namespace)],
            "usages": ["server auth", "client auth"],
            "privateKey": {"algorithm": "ECDSA", "size": 256, "rotationPolicy": "Always"},
            "issuerRef": {"group": "cert-manager.io", "kind": issuer.kind, "name": issuer.name},
        },
    }
