"""The draft that a manifest begins with."""

from __future__ import annotations

from pathlib import Path

from aurora_common.location import local_path
from aurora_operator.domain.manifest.spec import AuroraDeployment
from aurora_operator.domain.status.deployment import Draft


def initial_draft(deployment: AuroraDeployment, *, claims: Path) -> Draft | None:
    """It as inference finds it, with the claims mounted under `claims`; None where none is named.

    Its digest is empty where the manifest leaves it to the files. Raises InvalidInputError for a
    path that leaves its claim.
    """
    initial = deployment.spec.draft.initial_checkpoint
    if initial is None:
        return None
    folder = local_path(initial.uri, claims=claims)
    return Draft(folder.name, initial.digest or "", folder.as_uri())
