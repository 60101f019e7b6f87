"""NetworkPolicies: only the named peers may connect, only to the named ports.

A kubelet's probes need no rule: traffic from a pod's own node is always allowed.
"""

from __future__ import annotations

from collections.abc import Sequence

from aurora_operator.domain.manifest.spec import AuroraDeployment
from aurora_operator.domain.objects import pod
from aurora_operator.domain.objects.inference import has_nodes
from aurora_operator.domain.objects.metadata import Component, Json, metadata, selector
from aurora_operator.domain.objects.setting import Setting
from aurora_operator.domain.objects.trainer import has_ranks

_ANY_POD: Json = {"namespaceSelector": {}}
_DNS = {"ports": [{"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP"}]}


def network_policies(deployment: AuroraDeployment, setting: Setting) -> tuple[Json, ...]:
    operator: Json = {
        "namespaceSelector": {
            "matchLabels": {"kubernetes.io/metadata.name": setting.operator_namespace}
        },
        "podSelector": {"matchLabels": dict(setting.operator_labels)},
    }
    inference, node, buffer, trainer, rank = (
        {"podSelector": {"matchLabels": selector(deployment, component)}}
        for component in ("inference", "node", "buffer", "trainer", "rank")
    )
    to_buffer = _to(buffer, pod.GRPC)
    shares, spans = has_ranks(deployment), has_nodes(deployment)
    # No policy can know where an external Redis is.
    beyond: list[Json] = [{}] if deployment.spec.buffer.external is not None else [_DNS]
    policies = [
        _policy(
            deployment,
            setting,
            "inference",
            ingress=[
                _from_clients(deployment),
                _from([operator], pod.CONTROL),
                *([{"from": [node]}] if spans else []),
            ],
            egress=[
                to_buffer,
                *_to_engines(deployment),
                *([{"to": [node]}] if spans else []),
                _DNS,
            ],
        ),
        _policy(
            deployment,
            setting,
            "buffer",
            ingress=[
                _from([inference, trainer], pod.GRPC),
                _from([_ANY_POD], pod.METRICS),
            ],
            egress=beyond,
        ),
        _policy(
            deployment,
            setting,
            "trainer",
            ingress=[
                _from([operator], pod.GRPC),
                _from([_ANY_POD], pod.METRICS),
                *([{"from": [rank]}] if shares else []),
            ],
            egress=[to_buffer, *([{"to": [rank]}] if shares else []), _DNS],
        ),
    ]
    # torch encrypts nothing and knows nobody, and its ranks connect on ports that it picks.
    if shares:
        ranks = [trainer, rank]
        called = [{"from": ranks}, _from([_ANY_POD], pod.METRICS)]
        calls: list[Json] = [{"to": ranks}, _DNS]
        policies.append(_policy(deployment, setting, "rank", ingress=called, egress=calls))
    if spans:
        group = [inference, node]
        calls = [{"to": group}, _DNS]
        called = [{"from": group}]
        policies.append(_policy(deployment, setting, "node", ingress=called, egress=calls))
    return tuple(policies)


def _to_engines(deployment: AuroraDeployment) -> list[Json]:
    """To an attached vLLM; one of Aurora's is on loopback."""
    attach = deployment.spec.engine.attach
    if attach is None:
        return []
    return [_to({"podSelector": {"matchLabels": dict(attach.selector or {})}}, attach.port)]


def _policy(
    deployment: AuroraDeployment,
    setting: Setting,
    component: Component,
    *,
    ingress: Sequence[Json],
    egress: Sequence[Json],
) -> Json:
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": metadata(deployment, setting, component),
        "spec": {
            "podSelector": {"matchLabels": selector(deployment, component)},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": list(ingress),
            "egress": list(egress),
        },
    }


def _from_clients(deployment: AuroraDeployment) -> Json:
    """Unless the manifest says who they are, they come from anywhere: an ingress, a namespace."""
    peers = [
        peer.model_dump(by_alias=True, exclude_none=True)
        for peer in deployment.spec.security.client_peers
    ]
    rule = {"ports": _ports(pod.HTTP, pod.GRPC)}
    return {"from": peers, **rule} if peers else rule


def _from(peers: Sequence[Json], *ports: int) -> Json:
    return {"from": list(peers), "ports": _ports(*ports)}


def _to(peer: Json, *ports: int) -> Json:
    return {"to": [peer], "ports": _ports(*ports)}


def _ports(*ports: int) -> list[Json]:
    return [{"port": port, "protocol": "TCP"} for port in ports]
