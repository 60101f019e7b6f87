"""Whether cert-manager has issued what was asked of it, and what it says where it has not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from aurora_operator.domain.plan.observation import Problem

Json = Mapping[str, Any]

# What has been under way for less than this is simply being issued.
_ISSUING = timedelta(seconds=10)


def is_issued(certificate: Json) -> bool:
    """Whether its Secret is what the Certificate wants now, and nothing newer is under way."""
    ready = _condition(certificate, "Ready")
    return (
        _is_true(ready)
        and ready.get("observedGeneration") == certificate["metadata"].get("generation")
        and not _condition(certificate, "Issuing")
    )


def issuance_problems(certificates: Sequence[Json], now: datetime) -> list[Problem]:
    """What holds Certificates up, told once for all of an issuer that it holds up."""
    names: dict[tuple[str, str], list[str]] = {}
    for certificate in certificates:
        if is_issued(certificate):
            continue
        since, told = _hindrance(certificate)
        if now - since >= _ISSUING:
            issuer = certificate["spec"]["issuerRef"]
            place = (f"{issuer['kind']} {issuer['name']}", told)
            names.setdefault(place, []).append(certificate["metadata"]["name"])
    return [
        Problem(
            "CertificateNotIssued",
            f"{issuer} has not issued {', '.join(sorted(found))}: {told}",
        )
        for (issuer, told), found in names.items()
    ]


def _hindrance(certificate: Json) -> tuple[datetime, str]:
    """Since when it is held up, and what cert-manager says of it."""
    issuing, ready = _condition(certificate, "Issuing"), _condition(certificate, "Ready")
    if issuing and not _is_true(issuing):
        # It failed, and is tried again much later.
        told = issuing
    elif ready and not _is_true(ready):
        told = ready
    else:
        told = issuing
    since = told.get("lastTransitionTime", _asked_at(certificate))
    message = told.get("message") or "cert-manager says nothing of it: does it run?"
    return datetime.fromisoformat(since), message


def _asked_at(certificate: Json) -> str:
    """When it was last applied: until cert-manager has seen that, it says nothing of it."""
    metadata = certificate["metadata"]
    applied = [
        entry["time"]
        for entry in metadata.get("managedFields", ())
        if entry["operation"] == "Apply" and "time" in entry
    ]
    return max(applied, default=str(metadata["creationTimestamp"]))


def _condition(certificate: Json, kind: str) -> Json:
    """Empty where there is none."""
    found = certificate.get("status", {}).get("conditions", ())
    return next((each for each in found if each["type"] == kind), {})


def _is_true(condition: Json) -> bool:
    return condition.get("status") == "True"
