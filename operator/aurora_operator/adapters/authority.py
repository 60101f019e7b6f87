"""A deployment's own certificate authority, kept in Secrets."""

from __future__ import annotations

import base64
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from aurora_common.errors import InvalidInputError
from aurora_common.tls import Certificates
from aurora_operator.adapters.certificate import (
    Certificate,
    new_authority,
    new_leaf,
    read_certificate,
)
from aurora_operator.domain.certificate import (
    AUTHORITY_LIFETIME,
    BACKDATED,
    COMPONENTS,
    OPERATOR,
    Step,
    Succession,
    Validity,
    authority_name,
    dns_name,
    due_step,
    leaf_name,
    leaf_validity,
)
from aurora_operator.domain.manifest.spec import AuroraDeployment, Metadata
from aurora_operator.domain.objects.metadata import labels

Data = Mapping[str, bytes]

_BUNDLE, _CERTIFICATE, _KEY = "ca.crt", "tls.crt", "tls.key"


@dataclass(frozen=True, slots=True)
class Authority:
    """The issuing authority, its successor, and its predecessor.

    `since`: when all leaves were first seen with the bundle, and none left to be reissued.
    """

    issuing: Certificate
    next: Certificate | None = None
    # The predecessor's certificate; its key is no longer needed.
    previous: bytes = b""
    since: datetime | None = None

    @property
    def bundle(self) -> bytes:
        """The certificates that peers trust."""
        following = b"" if self.next is None else self.next.pem
        return self.issuing.pem + following + self.previous

    @property
    def succession(self) -> Succession:
        return Succession(
            self.issuing.validity, self.next is not None, bool(self.previous), self.since
        )


def secret_names(name: str) -> tuple[str, ...]:
    """The names of a deployment's Secrets, the authority's first."""
    return (authority_name(name), *(leaf_name(name, component) for component in COMPONENTS))


def due_secrets(
    deployment: AuroraDeployment,
    existing: Mapping[str, Data | None],
    now: datetime,
    *,
    owner_uid: str,
    adopted: Collection[str] = (),
) -> tuple[dict[str, Any], ...]:
    """The Secrets that must be written, in this order; empty if all are current.

    `existing`: the content of each of `secret_names`, None if absent. Unusable content is replaced.
    `adopted`: those that get another owner, so they are written in any case. If only some are
    written, the next call continues from there.
    """
    metadata = deployment.metadata
    before = _read_authority(existing[authority_name(metadata.name)])
    leaves = {
        component: existing[leaf_name(metadata.name, component)] or {} for component in COMPONENTS
    }
    authority = _stepped(deployment, before, leaves, now)
    found: list[tuple[str, Data]] = []
    if authority is not before or authority_name(metadata.name) in adopted:
        found.append((authority_name(metadata.name), _authority_data(authority)))
    for component, data in leaves.items():
        wanted = _leaf_data(deployment, component, data, authority, now)
        name = leaf_name(metadata.name, component)
        if name in adopted or any(data.get(key) != value for key, value in wanted.items()):
            found.append((name, wanted))
    return tuple(_secret(deployment, name, data, owner_uid) for name, data in found)


def operator_identity(
    metadata: Metadata, authority_data: Data, held: Certificates | None, now: datetime
) -> Certificates:
    """The operator's certificate for a deployment's components, from its authority's Secret.

    `held` is returned while it is valid. Raises InvalidInputError if the Secret is damaged.
    """
    authority = _read_authority(authority_data)
    if authority is None:
        raise InvalidInputError("the authority's Secret is damaged")
    name = dns_name(metadata.name, OPERATOR, namespace=metadata.namespace)
    if held is not None and held.authorities == authority.bundle:
        leaf = read_certificate(held.certificate, held.key)
        if _is_good(leaf, name, authority, now):
            return held
    leaf = _issued(name, authority, now)
    return Certificates(authority.bundle, leaf.pem, leaf.key_pem)


def issued_identity(metadata: Metadata, data: Data) -> Certificates | None:
    """The operator's certificate from cert-manager's Secret; None if it is for another name.

    After a change of the requested name, the Secret holds the old one until cert-manager reissues.
    """
    leaf = _read(data, _CERTIFICATE, _KEY)
    name = dns_name(metadata.name, OPERATOR, namespace=metadata.namespace)
    if leaf is None or name not in leaf.dns_names or not data.get(_BUNDLE):
        return None
    return Certificates(data[_BUNDLE], data[_CERTIFICATE], data[_KEY])


def _stepped(
    deployment: AuroraDeployment,
    before: Authority | None,
    leaves: Mapping[str, Data],
    now: datetime,
) -> Authority:
    """The authority after the due step."""
    followed = before is not None and all(
        data.get(_BUNDLE) == before.bundle
        and (leaf := _read(data, _CERTIFICATE, _KEY)) is not None
        and leaf.is_issued_by(before.issuing)
        for data in leaves.values()
    )
    succession = None if before is None else before.succession
    step = due_step(succession, followed=followed, now=now)
    if before is None or step is Step.CREATE:
        return Authority(_made(deployment, now))
    match step:
        case Step.ADD_NEXT:
            return replace(before, next=_made(deployment, now), since=None)
        case Step.NOTE:
            return replace(before, since=now)
        case Step.SWITCH:
            assert before.next is not None
            return Authority(before.next, previous=before.issuing.pem)
        case Step.RETIRE:
            return Authority(before.issuing)
        case Step.KEEP:
            return before


def _made(deployment: AuroraDeployment, now: datetime) -> Certificate:
    metadata = deployment.metadata
    # The name contains the time: a bundle with two authorities of one name would be ambiguous.
    name = f"{metadata.name} {now.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
    return new_authority(name, Validity(now - BACKDATED, now + AUTHORITY_LIFETIME))


def _leaf_data(
    deployment: AuroraDeployment, component: str, data: Data, authority: Authority, now: datetime
) -> Data:
    """The desired content of a leaf's Secret: keeps its certificate if that is valid."""
    metadata = deployment.metadata
    name = dns_name(metadata.name, component, namespace=metadata.namespace)
    leaf = _read(data, _CERTIFICATE, _KEY)
    if leaf is None or not _is_good(leaf, name, authority, now):
        leaf = _issued(name, authority, now)
        return {_BUNDLE: authority.bundle, _CERTIFICATE: leaf.pem, _KEY: leaf.key_pem}
    return {_BUNDLE: authority.bundle, _CERTIFICATE: data[_CERTIFICATE], _KEY: data[_KEY]}


def _is_good(leaf: Certificate, name: str, authority: Authority, now: datetime) -> bool:
    return (
        leaf.is_issued_by(authority.issuing)
        and not leaf.validity.is_due(now)
        # Another version of the operator may have issued it for other names.
        and leaf.dns_names == {name}
    )


def _issued(name: str, authority: Authority, now: datetime) -> Certificate:
    validity = leaf_validity(authority.issuing.validity, now)
    return new_leaf(authority.issuing, name, (name,), validity)


def _read(data: Data, certificate: str, key: str) -> Certificate | None:
    try:
        return read_certificate(data.get(certificate, b""), data.get(key, b""))
    except InvalidInputError:
        return None


def _read_authority(data: Data | None) -> Authority | None:
    """None if absent or unable to issue."""
    issuing = None if data is None else _read(data, _CERTIFICATE, _KEY)
    if data is None or issuing is None:
        return None
    try:
        since = datetime.fromisoformat(data["since"].decode()) if "since" in data else None
    except ValueError:
        since = None
    return Authority(
        issuing,
        next=_read(data, "next.crt", "next.key"),
        previous=data.get("previous.crt", b""),
        since=since,
    )


def _authority_data(authority: Authority) -> Data:
    data = {_CERTIFICATE: authority.issuing.pem, _KEY: authority.issuing.key_pem}
    if authority.next is not None:
        data |= {"next.crt": authority.next.pem, "next.key": authority.next.key_pem}
    if authority.previous:
        data["previous.crt"] = authority.previous
    if authority.since is not None:
        data["since"] = authority.since.isoformat().encode()
    return data


def _secret(deployment: AuroraDeployment, name: str, data: Data, owner_uid: str) -> dict[str, Any]:
    metadata = deployment.metadata
    owner = {
        "apiVersion": deployment.api_version,
        "kind": deployment.kind,
        "name": metadata.name,
        "uid": owner_uid,
        "controller": True,
        "blockOwnerDeletion": True,
    }
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": name,
            "namespace": metadata.namespace,
            "labels": labels(deployment, None),
            "ownerReferences": [owner],
        },
        "type": "kubernetes.io/tls",
        "data": {key: base64.b64encode(value).decode() for key, value in data.items()},
    }
