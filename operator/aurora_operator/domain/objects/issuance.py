"""Whether cert-manager has issued its Certificates, and if not, why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from aurora_operator.domain.plan.observation import Problem

Json = Mapping[str, Any]

# A younger request is simply being issued.
_ISSUING = timedelta(seconds=10)


def is_issued(certificate: Json) -> bool:
    """Whether its Secret matches the Certificate and no reissue is under way."""
    ready = _condition(certificate, "Ready")
    return (
        _is_true(ready)
        and ready.get("observedGeneration") == certificate["metadata"].get("generation")
        and not _condition(certificate, "Issuing")
    )


def issuance_problems(certificates: Sequence[Json], now: datetime) -> list[Problem]:
    """What blocks Certificates, grouped by issuer and cause."""
    names: dict[tuple[str, str], list[str]] = {}
    for certificate in certificates:
        if is_issued(certificate):
            continue
        since, message = _hindrance(certificate)
        if now - since >= _ISSUING:
            issuer = certificate["spec"]["issuerRef"]
            place = (f"{issuer['kind']} {issuer['name']}", message)
            names.setdefault(place, []).append(certificate["metadata"]["name"])
    return [
        Problem(
            "CertificateNotIssued",
            f"{issuer} has not issued {', '.join(sorted(found))}: {message}",
        )
        for (issuer, message), found in names.items()
    ]


def _hindrance(certificate: Json) -> tuple[datetime, str]:
    """Since when it is blocked, and cert-manager's message."""
    issuing, ready = _condition(certificate, "Issuing"), _condition(certificate, "Ready")
    if issuing and not _is_true(issuing):
        # It failed; cert-manager retries much later.
        telling = issuing
    elif ready and not _is_true(ready):
        telling = ready
    else:
        telling = issuing
    since = telling.get("lastTransitionTime", _asked_at(certificate))
    message = telling.get("message") or "cert-manager reports nothing: is it running?"
    return datetime.fromisoformat(since), message


def _asked_at(certificate: Json) -> str:
    """When it was last applied; until cert-manager has seen that, it sets no condition."""
    metadata = certificate["metadata"]
    applied = [
        entry["time"]
        for entry in metadata.get("managedFields", ())
        if entry["operation"] == "Apply" and "time" in entry
    ]
    return max(applied, default=str(metadata["creationTimestamp"]))


def _condition(certificate: Json, kind: str) -> Json:
    """Empty if absent."""
    found = certificate.get("status", {}).get("conditions", ())
    return next((each for each in found if each["type"] == kind), {})


def _is_true(condition: Json) -> bool:
    return condition.get("status") == "True"
