"""The draft that a manifest begins with."""

from __future__ import annotations

from urllib.parse import unquote, urlsplit

from aurora_operator.domain.manifest.spec import AuroraDeployment
from aurora_operator.domain.status.deployment import Draft


def initial_draft(deployment: AuroraDeployment) -> Draft | None:
    """Named after its folder; None if the manifest names no draft.

    The digest is empty if the manifest leaves it to the files.
    """
    initial = deployment.spec.draft.initial_checkpoint
    if initial is None:
        return None
    return Draft(_folder_name(initial.uri), initial.digest or "", initial.uri)


def _folder_name(uri: str) -> str:
    """The last component of a model URI's path; the claim if that is all it names."""
    parts = urlsplit(uri)
    names = [name for name in unquote(parts.path).split("/") if name not in ("", ".")]
    return names[-1] if names else parts.netloc
